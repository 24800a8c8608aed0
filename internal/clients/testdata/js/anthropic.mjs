// @anthropic-ai/sdk, which calls Messages. Tags: ANTHROPIC_CUSTOM_HEADERS, or
// default headers.
import Anthropic from '@anthropic-ai/sdk';
import { all, claude, question, run, throttled, weather } from './say.mjs';

const client = new Anthropic({ maxRetries: 1 });
const ask = (content, more) => ({ model: claude, max_tokens: 1000, messages: [{ role: 'user', content }], ...more });

await run({
  async message() {
    const a = await client.messages.create(ask(question));
    return { text: a.content[0].text, usage: a.usage, finish: a.stop_reason, raw: a };
  },
  async stream() {
    const stream = client.messages.stream(ask(question));
    const events = await all(stream);
    const a = await stream.finalMessage();
    return { text: a.content[0].text, usage: a.usage, finish: a.stop_reason, raw: events };
  },
  async tool() {
    const a = await client.messages.create(ask(question, {
      tools: [{ name: weather.name, description: weather.description, input_schema: weather.schema }], tool_choice: { type: 'any' },
    }));
    return { tool: a.content.find((c) => c.type === 'tool_use'), finish: a.stop_reason, usage: a.usage };
  },
  throttled: () => client.messages.create(ask(throttled)),
  invalid: () => client.messages.create(ask(question, { model: 'us.anthropic.no-such-model' })),
  untagged() {
    delete process.env.ANTHROPIC_CUSTOM_HEADERS;
    return new Anthropic().messages.create(ask(question));
  },
}, (e) => ({ status: e.status, type: e.error?.error?.type, message: e.error?.error?.message ?? e.message }));
