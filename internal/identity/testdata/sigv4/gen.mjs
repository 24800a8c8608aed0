// Writes javascript.jsonl: the requests of cases.json, and those of the Bedrock client,
// as the AWS SDK for JavaScript signs and sends them.
//
//     npm install && npm run generate
import { createServer } from "node:net";
import { readFileSync, writeFileSync } from "node:fs";
import { Agent } from "node:http";
import { Sha256 } from "@aws-crypto/sha256-js";
import { BedrockRuntimeClient, ConverseCommand, ConverseStreamCommand, InvokeModelCommand, ListAsyncInvokesCommand } from "@aws-sdk/client-bedrock-runtime";
import { NodeHttpHandler } from "@smithy/node-http-handler";
import { HttpRequest } from "@smithy/protocol-http";
import { SignatureV4 } from "@smithy/signature-v4";

const here = (name) => new URL(name, import.meta.url);
const read = (name) => JSON.parse(readFileSync(here(name)));
const version = (name) => `${name} ${read(`node_modules/${name}/package.json`).version}`;
const key = read("key.json");
const hostname = "waybill.example.com";
const signedAt = new Date("2025-01-02T03:04:05Z");

const partsOf = (body) => (body === undefined || body === "" ? [] : typeof body === "string" ? [[body, 1]] : body);
const textOf = (parts) => parts.map(([text, count]) => text.repeat(count)).join("");

// One connection, one request: what arrives is kept as it is.
let arrived;
const server = createServer((socket) => {
  let bytes = Buffer.alloc(0);
  socket.on("error", () => {});
  socket.on("data", (more) => {
    bytes = Buffer.concat([bytes, more]);
    const end = bytes.indexOf("\r\n\r\n");
    if (end < 0) return;
    const [first, ...lines] = bytes.subarray(0, end).toString("latin1").split("\r\n");
    const headers = lines.map((line) => {
      const at = line.indexOf(":");
      return [line.slice(0, at), line.slice(at + 1).replace(/^ /, "")];
    });
    const value = (name) => headers.find(([n]) => n.toLowerCase() === name)?.[1];
    const rest = bytes.subarray(end + 4);
    if (value("transfer-encoding")) throw new Error("chunked transfer is not read here");
    if (rest.length < Number(value("content-length") ?? 0)) return;
    const [method, target] = first.split(" ");
    const dull = ["user-agent", "connection"];
    arrived = { method, target, headers: headers.filter(([n]) => !dull.includes(n.toLowerCase())), body: rest.toString() };
    socket.end("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}");
  });
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const port = server.address().port;

// The name resolves to the server above; the Host header keeps its own port.
class Elsewhere extends Agent {
  createConnection(options, done) {
    return super.createConnection({ ...options, host: "127.0.0.1", port }, done);
  }
}
const handler = new NodeHttpHandler({ httpAgent: new Elsewhere({ keepAlive: false }) });

const out = [];
function keep(name, signer, want, parts) {
  if (parts === undefined) parts = partsOf(arrived.body);
  if (textOf(parts) !== arrived.body) throw new Error(`${name}: the body did not arrive as it was meant`);
  const { method, target, headers } = arrived;
  out.push(JSON.stringify({ name, signer, method, target, headers, body: parts, want }));
}

for (const c of read("cases.json")) {
  if (c.skip?.includes("javascript")) continue;
  let parts = partsOf(c.body);
  let body = textOf(parts);
  const credentials = { accessKeyId: key.accessKeyId, secretAccessKey: key.secretAccessKey };
  if (c.token) credentials.sessionToken = key.sessionToken;
  const signer = new SignatureV4({ credentials, region: c.region ?? "us-east-1", service: c.service ?? "bedrock", sha256: Sha256, applyChecksum: c.declare ?? false });
  const query = {};
  for (const [name, value] of c.query ?? []) (query[name] ??= []).push(value);
  const request = new HttpRequest({ protocol: "http:", hostname, port: 8080, method: c.method, path: c.path, query,
    headers: { host: `${hostname}:8080`, ...Object.fromEntries(c.headers ?? []) }, body: c.method === "POST" ? body : undefined });
  if (c.method === "POST" && c.mode !== "presigned") request.headers["content-length"] = String(Buffer.byteLength(body));
  let signed;
  switch (c.mode) {
    case "presigned":
      signed = await signer.presign(request, { signingDate: signedAt, expiresIn: c.expires });
      break;
    case "unsigned":
      request.headers["x-amz-content-sha256"] = "UNSIGNED-PAYLOAD";
      signed = await signer.sign(request, { signingDate: signedAt });
      break;
    case "chunked": {
      const sizes = [...c.chunks, 0];
      request.headers["x-amz-content-sha256"] = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";
      request.headers["x-amz-decoded-content-length"] = request.headers["content-length"];
      request.headers["content-encoding"] = "aws-chunked";
      request.headers["content-length"] = String(sizes.reduce((n, size) => n + size.toString(16).length + 17 + 64 + 2 + size + 2, 0));
      signed = await signer.sign(request, { signingDate: signedAt });
      let priorSignature = signed.headers.authorization.slice(-64);
      let at = 0, text = "";
      const framed = [];
      for (const size of sizes) {
        const chunk = body.slice(at, at + size);
        at += size;
        // An event without headers is signed exactly as a chunk is.
        priorSignature = await signer.sign({ headers: new Uint8Array(), payload: Buffer.from(chunk) }, { signingDate: signedAt, priorSignature });
        text += `${size.toString(16)};chunk-signature=${priorSignature}\r\n`;
        if (size > 1024) {
          framed.push([text, 1], ...squeeze(chunk));
          text = "";
        } else text += chunk;
        text += "\r\n";
      }
      parts = [...framed, [text, 1]];
      signed.body = textOf(parts);
      break;
    }
    default:
      signed = await signer.sign(request, { signingDate: signedAt });
  }
  await handler.handle(new HttpRequest(signed));
  keep(c.name, version("@smithy/signature-v4"), c.want, parts);
}

// squeeze writes a text with a period of 1, 16 or 17 as counts.
function squeeze(text) {
  for (const period of [1, 16, 17]) {
    let n = 0;
    while (n + period <= text.length && text.startsWith(text.slice(0, period), n)) n += period;
    if (n > text.length * 0.9) return [[text.slice(0, period), n / period], ...partsOf(text.slice(n))];
  }
  return partsOf(text);
}

const client = new BedrockRuntimeClient({ region: "us-east-1", endpoint: `http://${hostname}:8080`, maxAttempts: 1, requestHandler: handler,
  credentials: { accessKeyId: key.accessKeyId, secretAccessKey: key.secretAccessKey } });
const messages = [{ role: "user", content: [{ text: "hi, 世界" }] }];
for (const modelId of ["anthropic.claude-3-haiku-20240307-v1:0", "arn:aws:bedrock:us-east-1:111122223333:application-inference-profile/abc123def456"]) {
  const commands = [new InvokeModelCommand({ modelId, body: '{"prompt":"hi"}', contentType: "application/json" }),
    new ConverseCommand({ modelId, messages, requestMetadata: { team: "search" } }), new ConverseStreamCommand({ modelId, messages })];
  for (const command of commands) {
    await client.send(command).catch(() => {}); // the answer is none that it knows
    keep(`client ${command.constructor.name} ${modelId.split(":")[0]}`, version("@aws-sdk/client-bedrock-runtime"));
  }
}
await client.send(new ListAsyncInvokesCommand({ maxResults: 5, statusEquals: "Completed", submitTimeAfter: signedAt, nextToken: "a+b/c==" })).catch(() => {});
keep("client ListAsyncInvokes", version("@aws-sdk/client-bedrock-runtime"));

writeFileSync(here("javascript.jsonl"), out.join("\n") + "\n");
server.close();
