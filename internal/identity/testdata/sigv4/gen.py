"""Writes python.jsonl: the requests of cases.json, and those of the Bedrock client, as
botocore signs and urllib3 sends them.

    pip install -r requirements.txt && python gen.py
"""

import datetime
import hashlib
import json
import pathlib
import socket
import threading
from unittest import mock
from urllib.parse import quote

import botocore
import botocore.auth
import botocore.session
import urllib3
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.httpsession import URLLib3Session

HERE = pathlib.Path(__file__).parent
KEY = json.loads((HERE / "key.json").read_text())
HOST = "http://waybill.example.com:8080"
SIGNED_AT = datetime.datetime(2025, 1, 2, 3, 4, 5)
SIGNER = f"botocore.auth {botocore.__version__}"
CLIENT = f"botocore.client {botocore.__version__}"

arrived = []
server = socket.create_server(("127.0.0.1", 0))


def capture(conn):
    """Reads one request off a connection, as it is."""
    r = conn.makefile("rb")
    method, target, _ = r.readline().decode("latin1").split(" ")
    headers, length = [], 0
    while line := r.readline().decode("latin1").rstrip("\r\n"):
        name, value = line.split(":", 1)
        value = value.removeprefix(" ")
        if name.lower() == "content-length":
            length = int(value)
        assert name.lower() != "transfer-encoding", "chunked transfer is not read here"
        if name.lower() not in ("user-agent", "connection"):
            headers.append([name, value])
    body = r.read(length)
    arrived.append((method, target, headers, body.decode()))
    conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
    conn.close()


def serve():
    while True:
        conn, _ = server.accept()
        capture(conn)


threading.Thread(target=serve, daemon=True).start()


def elsewhere(address, *args, **kwargs):
    """The name resolves to the server above; the Host header keeps its own port."""
    return socket.create_connection(server.getsockname())


urllib3.util.connection.create_connection = elsewhere

out = []


def parts_of(body):
    if not body:
        return []
    return [[body, 1]] if isinstance(body, str) else body


def text_of(parts):
    return "".join(text * count for text, count in parts)


def keep(name, signer, want=None, parts=None):
    method, target, headers, body = arrived.pop()
    assert not arrived
    if parts is None:
        parts = parts_of(body)
    assert text_of(parts) == body, f"{name}: the body did not arrive as it was meant"
    entry = {"name": name, "signer": signer, "method": method, "target": target, "headers": headers, "body": parts}
    if want:
        entry["want"] = want
    out.append(json.dumps(entry, ensure_ascii=False, separators=(",", ":")))


def squeeze(text):
    """Writes a text with a period of 1, 16 or 17 as counts."""
    for period in (1, 16, 17):
        n = 0
        while n + period <= len(text) and text.startswith(text[:period], n):
            n += period
        if n > len(text) * 0.9:
            return [[text[:period], n // period]] + parts_of(text[n:])
    return parts_of(text)


def frame(auth, request, body, sizes, previous):
    """Cuts a body into signed chunks. botocore does not, so only the key is its own."""
    text, framed = "", []
    empty = hashlib.sha256(b"").hexdigest()
    for size in sizes + [0]:
        chunk, body = body[:size], body[size:]
        to_sign = "\n".join(["AWS4-HMAC-SHA256-PAYLOAD", request.context["timestamp"], auth.credential_scope(request), previous, empty,
                             hashlib.sha256(chunk.encode()).hexdigest()])
        previous = auth.signature(to_sign, request)
        text += f"{size:x};chunk-signature={previous}\r\n"
        if size > 1024:
            framed += [[text, 1]] + squeeze(chunk)
            text = ""
        else:
            text += chunk
        text += "\r\n"
    return framed + [[text, 1]]


http = URLLib3Session()
for case in json.loads((HERE / "cases.json").read_text()):
    if "python" in case.get("skip", []):
        continue
    parts = parts_of(case.get("body"))
    body = text_of(parts)
    creds = Credentials(KEY["accessKeyId"], KEY["secretAccessKey"], KEY["sessionToken"] if case.get("token") else None)
    scope = (creds, case.get("service", "bedrock"), case.get("region", "us-east-1"))
    url = HOST + case["path"]
    if "query" in case:
        url += "?" + "&".join(quote(k, safe="-_.~") + "=" + quote(v, safe="-_.~") for k, v in case["query"])
    request = AWSRequest(method=case["method"], url=url, data=body.encode())
    for name, value in case.get("headers", []):
        request.headers[name] = value
    if case.get("declare"):
        request.headers["X-Amz-Content-SHA256"] = hashlib.sha256(body.encode()).hexdigest()
    mode = case.get("mode")
    with mock.patch("botocore.auth.get_current_datetime", lambda *a, **k: SIGNED_AT):
        if mode == "presigned":
            botocore.auth.SigV4QueryAuth(*scope, expires=case["expires"]).add_auth(request)
        elif mode == "unsigned":
            request.headers["X-Amz-Content-SHA256"] = "UNSIGNED-PAYLOAD"
            botocore.auth.SigV4Auth(*scope).add_auth(request)
        elif mode == "chunked":
            sizes = case["chunks"]
            request.headers["X-Amz-Content-SHA256"] = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
            request.headers["X-Amz-Decoded-Content-Length"] = str(len(body.encode()))
            request.headers["Content-Encoding"] = "aws-chunked"
            auth = botocore.auth.SigV4Auth(*scope)
            auth.add_auth(request)
            parts = frame(auth, request, body, sizes, request.headers["Authorization"][-64:])
            request.data = text_of(parts).encode()
        else:
            botocore.auth.SigV4Auth(*scope).add_auth(request)
    http.send(request.prepare())
    keep(case["name"], SIGNER, case.get("want"), parts)

session = botocore.session.get_session()
client = session.create_client("bedrock-runtime", region_name="us-east-1", endpoint_url=HOST, aws_access_key_id=KEY["accessKeyId"],
                               aws_secret_access_key=KEY["secretAccessKey"], config=Config(retries={"total_max_attempts": 1}))
messages = [{"role": "user", "content": [{"text": "hi, 世界"}]}]


def call(name, operation, **args):
    try:
        getattr(client, operation)(**args)
    except Exception as e:  # the answer is none that it knows
        if not arrived:
            raise e
    keep(name, CLIENT)


for model in ("anthropic.claude-3-haiku-20240307-v1:0", "arn:aws:bedrock:us-east-1:111122223333:application-inference-profile/abc123def456"):
    short = model.split(":")[0]
    call(f"client InvokeModel {short}", "invoke_model", modelId=model, body=b'{"prompt":"hi"}', contentType="application/json")
    call(f"client Converse {short}", "converse", modelId=model, messages=messages, requestMetadata={"team": "search"})
    call(f"client ConverseStream {short}", "converse_stream", modelId=model, messages=messages)
call("client ListAsyncInvokes", "list_async_invokes", maxResults=5, statusEquals="Completed", submitTimeAfter=SIGNED_AT, nextToken="a+b/c==")

(HERE / "python.jsonl").write_text("\n".join(out) + "\n")
