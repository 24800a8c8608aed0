"""langchain-aws. Tags: request_metadata of the model; BedrockEmbeddings has no place for
them, so that the key must bring them."""

import os

import say
from langchain_aws import BedrockEmbeddings, ChatBedrockConverse


def chat(model=say.nova, **more):
    return ChatBedrockConverse(model=model, **{"request_metadata": say.purpose, **more})


def seen(m):
    return {"text": m.text if isinstance(m.text, str) else m.text(), "usage": m.usage_metadata, "finish": m.response_metadata.get("stopReason")}


def stream():
    chunks = list(chat(say.claude).stream(say.question))
    whole = chunks[0]
    for c in chunks[1:]:
        whole += c
    return {**seen(whole), "chunks": len(chunks)}


def tool():
    spec = {"type": "function", "function": {"name": say.weather["name"], "description": say.weather["description"], "parameters": say.weather["schema"]}}
    m = chat(say.claude).bind_tools([spec], tool_choice="any").invoke(say.question)
    return {"tool": m.tool_calls[0] if m.tool_calls else None, "usage": m.usage_metadata}


def embed():
    key = os.environ["AWS_BEARER_TOKEN_BEDROCK"]
    os.environ["AWS_BEARER_TOKEN_BEDROCK"] = os.environ["WAYBILL_TAGGED_KEY"]
    try:
        return {"embedding": BedrockEmbeddings(model_id=say.titan).embed_query(say.question)}
    finally:
        os.environ["AWS_BEARER_TOKEN_BEDROCK"] = key


def error(e):
    response = getattr(e, "response", None) or {}
    return {"status": response.get("ResponseMetadata", {}).get("HTTPStatusCode"), "message": response.get("Error", {}).get("Message") or str(e)}


say.run(
    {
        "invoke": lambda: seen(chat().invoke(say.question)),
        "stream": stream,
        "tool": tool,
        "embed": embed,
        "throttled": lambda: chat().invoke(say.throttled),
        "invalid": lambda: chat(say.missing, provider="amazon").invoke(say.question),
        "untagged": lambda: chat(request_metadata=None).invoke(say.question),
    },
    error,
)
