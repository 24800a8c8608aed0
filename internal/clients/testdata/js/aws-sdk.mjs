// @aws-sdk/client-bedrock-runtime. Tags: requestMetadata, a map in Converse and a text of
// JSON in InvokeModel.
import {
  BedrockRuntimeClient, ConverseCommand, ConverseStreamCommand, InvokeModelCommand, InvokeModelWithResponseStreamCommand,
} from '@aws-sdk/client-bedrock-runtime';
import { all, claude, missing, nova, purpose, question, run, throttled, titan, weather } from './say.mjs';

const client = new BedrockRuntimeClient();
const messages = (text) => [{ role: 'user', content: [{ text }] }];
const converse = (text, more) => client.send(new ConverseCommand({ modelId: nova, messages: messages(text), requestMetadata: purpose, ...more }));
const invoke = {
  modelId: claude, contentType: 'application/json', requestMetadata: JSON.stringify(purpose),
  body: JSON.stringify({ anthropic_version: 'bedrock-2023-05-31', max_tokens: 1000, messages: [{ role: 'user', content: question }] }),
};
const json = (bytes) => JSON.parse(Buffer.from(bytes).toString());

await run({
  async converse() {
    const a = await converse(question);
    return { text: a.output.message.content[0].text, usage: a.usage, finish: a.stopReason, raw: a.output };
  },
  async converseStream() {
    const a = await client.send(new ConverseStreamCommand({ modelId: claude, messages: messages(question), requestMetadata: purpose }));
    const events = await all(a.stream);
    return {
      text: events.map((e) => e.contentBlockDelta?.delta.text ?? '').join(''), usage: events.at(-1).metadata.usage,
      finish: events.find((e) => e.messageStop).messageStop.stopReason, raw: events,
    };
  },
  async invoke() {
    const a = json((await client.send(new InvokeModelCommand(invoke))).body);
    return { text: a.content[0].text, usage: a.usage, finish: a.stop_reason };
  },
  async invokeStream() {
    const a = await client.send(new InvokeModelWithResponseStreamCommand(invoke));
    const chunks = (await all(a.body)).map((e) => json(e.chunk.bytes));
    return { text: chunks.map((c) => c.delta?.text ?? '').join(''), usage: chunks.at(-1)['amazon-bedrock-invocationMetrics'], raw: chunks };
  },
  async tool() {
    const toolConfig = { tools: [{ toolSpec: { name: weather.name, description: weather.description, inputSchema: { json: weather.schema } } }], toolChoice: { any: {} } };
    const a = await converse(question, { toolConfig });
    return { tool: a.output.message.content.find((c) => c.toolUse)?.toolUse, finish: a.stopReason, usage: a.usage };
  },
  async embed() {
    const a = await client.send(new InvokeModelCommand({ ...invoke, modelId: titan, body: JSON.stringify({ inputText: question }) }));
    return { embedding: json(a.body).embedding };
  },
  throttled: () => converse(throttled),
  invalid: () => converse(question, { modelId: missing }),
  untagged: () => converse(question, { requestMetadata: undefined }),
}, (e) => ({ status: e.$metadata?.httpStatusCode, message: e.message }));
