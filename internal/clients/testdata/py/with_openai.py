"""OpenAI and BedrockOpenAI of openai. Tags: OPENAI_CUSTOM_HEADERS, which BedrockOpenAI
does not read, or default headers."""

import os

import openai
import say

model = os.environ["MODEL"]
reasoner = os.environ["RESPONSES_MODEL"]
make = getattr(openai, os.environ["CLIENT"])
client = make(max_retries=1, default_headers=say.tag_header if make is openai.BedrockOpenAI else None)


def ask(content, **more):
    return {"model": model, "messages": [{"role": "user", "content": content}], **more}


def chat():
    a = client.chat.completions.create(**ask(say.question))
    return {"text": a.choices[0].message.content, "usage": a.usage.model_dump(), "finish": a.choices[0].finish_reason, "raw": a.model_dump()}


def chat_stream(**more):
    chunks = list(client.chat.completions.create(**ask(say.question, stream=True, **more)))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    usage = chunks[-1].usage
    return {"text": text, "usage": usage and usage.model_dump(), "raw": [c.model_dump() for c in chunks]}


def tool():
    spec = {"name": say.weather["name"], "description": say.weather["description"], "parameters": say.weather["schema"]}
    a = client.chat.completions.create(**ask(say.question, tools=[{"type": "function", "function": spec}], tool_choice="required"))
    return {"tool": a.choices[0].message.tool_calls[0].model_dump(), "finish": a.choices[0].finish_reason, "usage": a.usage.model_dump()}


def responses():
    a = client.responses.create(model=reasoner, input=say.question)
    return {"text": a.output_text, "usage": a.usage.model_dump(), "finish": a.status, "raw": a.model_dump()}


def responses_stream():
    events = list(client.responses.create(model=reasoner, input=say.question, stream=True))
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    return {"text": text, "usage": events[-1].response.usage.model_dump(), "raw": [e.model_dump() for e in events]}


def embed():
    a = client.embeddings.create(model=os.environ["EMBEDDING_MODEL"], input=say.question)
    return {"embedding": a.data[0].embedding, "usage": a.usage.model_dump()}


def untagged():
    os.environ.pop("OPENAI_CUSTOM_HEADERS", None)
    return make().chat.completions.create(**ask(say.question))


cases = {
    "chat": chat,
    "chatStream": chat_stream,
    "chatStreamUsage": lambda: chat_stream(stream_options={"include_usage": True}),
    "tool": tool,
    "responses": responses,
    "responsesStream": responses_stream,
    "embed": embed,
    "throttled": lambda: client.chat.completions.create(**ask(say.throttled)),
    "invalid": lambda: client.chat.completions.create(**ask(say.question, model="example.no-such-model")),
    "untagged": untagged,
}
if "EMBEDDING_MODEL" not in os.environ:
    del cases["embed"]
say.run(cases, lambda e: {"status": getattr(e, "status_code", None), "code": getattr(e, "code", None), "message": str(e)})
