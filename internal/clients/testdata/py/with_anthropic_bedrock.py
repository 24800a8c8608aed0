"""AnthropicBedrock of anthropic, which calls InvokeModel. Tags: default headers."""

import say
from anthropic import AnthropicBedrock

client = AnthropicBedrock(default_headers=say.tag_header, max_retries=1)


def ask(content, **more):
    return {"model": say.claude, "max_tokens": 1000, "messages": [{"role": "user", "content": content}], **more}


def message():
    a = client.messages.create(**ask(say.question))
    return {"text": a.content[0].text, "usage": a.usage.model_dump(), "finish": a.stop_reason, "raw": a.model_dump()}


def events():
    got = list(client.messages.create(**ask(say.question, stream=True)))
    text = "".join(e.delta.text for e in got if e.type == "content_block_delta")
    usage = [e.usage.model_dump() for e in got if e.type == "message_delta"]
    return {"text": text, "usage": usage[0], "raw": [e.model_dump() for e in got]}


def tool():
    a = client.messages.create(
        **ask(
            say.question,
            tools=[{"name": say.weather["name"], "description": say.weather["description"], "input_schema": say.weather["schema"]}],
            tool_choice={"type": "any"},
        )
    )
    uses = [c.model_dump() for c in a.content if c.type == "tool_use"]
    return {"tool": uses[0] if uses else None, "finish": a.stop_reason, "usage": a.usage.model_dump()}


say.run(
    {
        "message": message,
        "events": events,
        "tool": tool,
        "throttled": lambda: client.messages.create(**ask(say.throttled)),
        "invalid": lambda: client.messages.create(**ask(say.question, model=say.missing)),
        "untagged": lambda: AnthropicBedrock().messages.create(**ask(say.question)),
    },
    lambda e: {"status": getattr(e, "status_code", None), "message": str(e)},
)
