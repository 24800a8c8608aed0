"""Anthropic, and AnthropicBedrockMantle, of anthropic, which call Messages. Tags:
ANTHROPIC_CUSTOM_HEADERS, or default headers."""

import os

import anthropic
import say

make = getattr(anthropic, os.environ["CLIENT"])
model = os.environ["MODEL"]
client = make(max_retries=1)


def ask(content, **more):
    return {"model": model, "max_tokens": 1000, "messages": [{"role": "user", "content": content}], **more}


def message():
    a = client.messages.create(**ask(say.question))
    return {"text": a.content[0].text, "usage": a.usage.model_dump(), "finish": a.stop_reason, "raw": a.model_dump()}


def stream():
    with client.messages.stream(**ask(say.question)) as s:
        events = [e.model_dump() for e in s]
        a = s.get_final_message()
    return {"text": a.content[0].text, "usage": a.usage.model_dump(), "finish": a.stop_reason, "raw": events}


def tool():
    a = client.messages.create(
        **ask(
            say.question,
            tools=[{"name": say.weather["name"], "description": say.weather["description"], "input_schema": say.weather["schema"]}],
            tool_choice={"type": "any"},
        )
    )
    return {"tool": [c.model_dump() for c in a.content if c.type == "tool_use"], "finish": a.stop_reason, "usage": a.usage.model_dump()}


def untagged():
    del os.environ["ANTHROPIC_CUSTOM_HEADERS"]
    return make().messages.create(**ask(say.question))


def seen(e):
    error = (getattr(e, "body", None) or {}).get("error", {})
    return {"status": getattr(e, "status_code", None), "type": error.get("type"), "message": error.get("message") or str(e)}


say.run(
    {
        "message": message,
        "stream": stream,
        "tool": tool,
        "throttled": lambda: client.messages.create(**ask(say.throttled)),
        "invalid": lambda: client.messages.create(**ask(say.question, model="us.anthropic.no-such-model")),
        "untagged": untagged,
    },
    seen,
)
