// openai. Tags: OPENAI_CUSTOM_HEADERS, or default headers.
import OpenAI from 'openai';
import { all, question, run, throttled, weather } from './say.mjs';

const model = process.env.MODEL;
const reasoner = process.env.RESPONSES_MODEL;
const client = new OpenAI({ maxRetries: 1 });
const ask = (content, more) => ({ model, messages: [{ role: 'user', content }], ...more });
const texts = (chunks) => chunks.map((c) => c.choices[0]?.delta.content ?? '').join('');

await run({
  async chat() {
    const a = await client.chat.completions.create(ask(question));
    return { text: a.choices[0].message.content, usage: a.usage, finish: a.choices[0].finish_reason, raw: a };
  },
  async chatStream() {
    const chunks = await all(await client.chat.completions.create(ask(question, { stream: true })));
    return { text: texts(chunks), raw: chunks };
  },
  async chatStreamUsage() {
    const chunks = await all(await client.chat.completions.create(ask(question, { stream: true, stream_options: { include_usage: true } })));
    return { text: texts(chunks), usage: chunks.at(-1).usage, raw: chunks };
  },
  async tool() {
    const a = await client.chat.completions.create(ask(question, {
      tools: [{ type: 'function', function: { name: weather.name, description: weather.description, parameters: weather.schema } }], tool_choice: 'required',
    }));
    return { tool: a.choices[0].message.tool_calls[0], finish: a.choices[0].finish_reason, usage: a.usage };
  },
  async responses() {
    const a = await client.responses.create({ model: reasoner, input: question });
    return { text: a.output_text, usage: a.usage, finish: a.status, raw: a };
  },
  async responsesStream() {
    const events = await all(await client.responses.create({ model: reasoner, input: question, stream: true }));
    return { text: events.map((e) => (e.type === 'response.output_text.delta' ? e.delta : '')).join(''), usage: events.at(-1).response.usage, raw: events };
  },
  ...(process.env.EMBEDDING_MODEL && {
    async embed() {
      const a = await client.embeddings.create({ model: process.env.EMBEDDING_MODEL, input: question });
      return { embedding: a.data[0].embedding, usage: a.usage };
    },
  }),
  throttled: () => client.chat.completions.create(ask(throttled)),
  invalid: () => client.chat.completions.create(ask(question, { model: 'example.no-such-model' })),
  untagged() {
    delete process.env.OPENAI_CUSTOM_HEADERS;
    return new OpenAI().chat.completions.create(ask(question));
  },
}, (e) => ({ status: e.status, code: e.code, message: e.message }));
