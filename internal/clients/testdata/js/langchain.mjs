// @langchain/aws. Tags: requestMetadata of a call; BedrockEmbeddings has no place for
// them, so that the key must bring them.
import { BedrockEmbeddings, ChatBedrockConverse } from '@langchain/aws';
import { all, claude, missing, nova, purpose, question, run, throttled, titan, weather } from './say.mjs';

const region = process.env.AWS_REGION;
const tagged = { requestMetadata: purpose };
const chat = (model) => new ChatBedrockConverse({ model, region });
const seen = (m) => ({ text: typeof m.content === 'string' ? m.content : JSON.stringify(m.content), usage: m.usage_metadata, finish: m.response_metadata.stopReason ?? m.response_metadata.messageStop?.stopReason });

await run({
  async invoke() {
    return seen(await chat(nova).invoke(question, tagged));
  },
  async stream() {
    const chunks = await all(await chat(claude).stream(question, tagged));
    return { ...seen(chunks.reduce((a, b) => a.concat(b))), chunks: chunks.length };
  },
  async tool() {
    const m = await chat(claude).bindTools([{ type: 'function', function: { name: weather.name, description: weather.description, parameters: weather.schema } }], { tool_choice: 'any' }).invoke(question, tagged);
    return { tool: m.tool_calls[0], usage: m.usage_metadata };
  },
  async embed() {
    const bedrockBearerToken = process.env.WAYBILL_TAGGED_KEY;
    return { embedding: await new BedrockEmbeddings({ model: titan, region, bedrockBearerToken }).embedQuery(question) };
  },
  throttled: () => chat(nova).invoke(throttled, { ...tagged, maxRetries: 0 }),
  invalid: () => chat(missing).invoke(question, tagged),
  untagged: () => chat(nova).invoke(question),
}, (e) => ({ status: e.$metadata?.httpStatusCode, message: e.message }));
