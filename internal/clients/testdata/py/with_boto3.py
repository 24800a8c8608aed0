"""boto3. Tags: requestMetadata, a map in Converse and a text of JSON in InvokeModel."""

import json

import boto3
import say
from botocore.exceptions import ClientError

client = boto3.client("bedrock-runtime")
invoke = {
    "modelId": say.claude,
    "contentType": "application/json",
    "requestMetadata": json.dumps(say.purpose),
    "body": json.dumps({"anthropic_version": "bedrock-2023-05-31", "max_tokens": 1000, "messages": [{"role": "user", "content": say.question}]}),
}


def ask(text, **more):
    request = {"modelId": say.nova, "messages": [{"role": "user", "content": [{"text": text}]}], "requestMetadata": say.purpose, **more}
    return {k: v for k, v in request.items() if v is not None}


def converse():
    a = client.converse(**ask(say.question))
    return {"text": a["output"]["message"]["content"][0]["text"], "usage": a["usage"], "finish": a["stopReason"], "raw": a["output"]}


def converse_stream():
    events = list(client.converse_stream(**ask(say.question, modelId=say.claude))["stream"])
    text = "".join(e["contentBlockDelta"]["delta"]["text"] for e in events if "contentBlockDelta" in e)
    return {"text": text, "usage": events[-1]["metadata"]["usage"], "finish": events[-2]["messageStop"]["stopReason"], "raw": events}


def invoke_model():
    a = json.loads(client.invoke_model(**invoke)["body"].read())
    return {"text": a["content"][0]["text"], "usage": a["usage"], "finish": a["stop_reason"]}


def invoke_stream():
    chunks = [json.loads(e["chunk"]["bytes"]) for e in client.invoke_model_with_response_stream(**invoke)["body"]]
    text = "".join(c["delta"].get("text", "") for c in chunks if "delta" in c)
    return {"text": text, "usage": chunks[-1]["amazon-bedrock-invocationMetrics"], "raw": chunks}


def tool():
    spec = {"name": say.weather["name"], "description": say.weather["description"], "inputSchema": {"json": say.weather["schema"]}}
    a = client.converse(**ask(say.question, toolConfig={"tools": [{"toolSpec": spec}], "toolChoice": {"any": {}}}))
    uses = [c["toolUse"] for c in a["output"]["message"]["content"] if "toolUse" in c]
    return {"tool": uses[0] if uses else None, "finish": a["stopReason"], "usage": a["usage"]}


def embed():
    a = client.invoke_model(**{**invoke, "modelId": say.titan, "body": json.dumps({"inputText": say.question})})
    return {"embedding": json.loads(a["body"].read())["embedding"]}


def seen(e):
    if not isinstance(e, ClientError):
        return {"message": str(e)}
    named = getattr(client.exceptions, type(e).__name__, None)
    return {"status": e.response["ResponseMetadata"]["HTTPStatusCode"], "message": e.response["Error"]["Message"], "known": isinstance(e, named or ())}


say.run(
    {
        "converse": converse,
        "converseStream": converse_stream,
        "invoke": invoke_model,
        "invokeStream": invoke_stream,
        "tool": tool,
        "embed": embed,
        "throttled": lambda: client.converse(**ask(say.throttled)),
        "invalid": lambda: client.converse(**ask(say.question, modelId=say.missing)),
        "untagged": lambda: client.converse(**ask(say.question, requestMetadata=None)),
    },
    seen,
)
