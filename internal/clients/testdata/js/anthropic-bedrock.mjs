// @anthropic-ai/bedrock-sdk, which calls InvokeModel. Tags: default headers.
import { AnthropicBedrock } from '@anthropic-ai/bedrock-sdk';
import { all, claude, missing, question, run, tagHeader, throttled, weather } from './say.mjs';

const client = new AnthropicBedrock({ defaultHeaders: tagHeader, maxRetries: 1 });
const ask = (content, more) => ({ model: claude, max_tokens: 1000, messages: [{ role: 'user', content }], ...more });

await run({
  async message() {
    const a = await client.messages.create(ask(question));
    return { text: a.content[0].text, usage: a.usage, finish: a.stop_reason, raw: a };
  },
  async events() {
    const events = await all(await client.messages.create(ask(question, { stream: true })));
    return { text: events.map((e) => e.delta?.text ?? '').join(''), usage: events.find((e) => e.usage).usage, raw: events };
  },
  async tool() {
    const a = await client.messages.create(ask(question, {
      tools: [{ name: weather.name, description: weather.description, input_schema: weather.schema }], tool_choice: { type: 'any' },
    }));
    return { tool: a.content.find((c) => c.type === 'tool_use'), finish: a.stop_reason, usage: a.usage };
  },
  throttled: () => client.messages.create(ask(throttled)),
  invalid: () => client.messages.create(ask(question, { model: missing })),
  untagged: () => new AnthropicBedrock().messages.create(ask(question)),
}, (e) => ({ status: e.status, message: e.message }));
