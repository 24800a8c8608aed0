"""What a client's user sees of each case, one JSON line each."""

import json

nova = "amazon.nova-lite-v1:0"
claude = "us.anthropic.claude-haiku-4-5-20251001-v1:0"
titan = "amazon.titan-embed-text-v2:0"
missing = "amazon.no-such-model-v1:0"
question = "where is my parcel?"
throttled = "this call is to be throttled"  # the stand-in looks for it
purpose = {"purpose": "tests"}
tag_header = {"X-Waybill-Tags": "purpose=tests"}
weather = {
    "name": "weather",
    "description": "the weather of a city",
    "schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def run(cases, seen):
    for name, make in cases.items():
        try:
            line = make()
            if not isinstance(line, dict):
                line = {}  # a case that is about its error, and has none
        except Exception as e:
            line = {"error": type(e).__name__, **seen(e)}
        print(json.dumps({"case": name, **line}, default=str), flush=True)
