// @ai-sdk/amazon-bedrock under `ai`. Tags: headers of the provider.
import { createAmazonBedrock } from '@ai-sdk/amazon-bedrock';
import { APICallError, RetryError, embed, generateText, jsonSchema, streamText, tool } from 'ai';
import { all, claude, missing, nova, question, run, tagHeader, throttled, titan, weather } from './say.mjs';

const bedrock = createAmazonBedrock({ headers: tagHeader });

await run({
  async text() {
    const a = await generateText({ model: bedrock(nova), prompt: question });
    return { text: a.text, usage: a.usage, finish: a.finishReason };
  },
  async stream() {
    const a = streamText({ model: bedrock(claude), prompt: question });
    const parts = await all(a.textStream);
    return { text: parts.join(''), usage: await a.usage, finish: await a.finishReason, raw: parts };
  },
  async tool() {
    const a = await generateText({
      model: bedrock(nova), prompt: question, toolChoice: 'required',
      tools: { weather: tool({ description: weather.description, inputSchema: jsonSchema(weather.schema) }) },
    });
    return { tool: a.toolCalls[0] && { name: a.toolCalls[0].toolName, input: a.toolCalls[0].input }, finish: a.finishReason, usage: a.usage };
  },
  async embed() {
    const a = await embed({ model: bedrock.embedding(titan), value: question });
    return { embedding: a.embedding, usage: a.usage };
  },
  throttled: () => generateText({ model: bedrock(nova), prompt: throttled, maxRetries: 0 }),
  invalid: () => generateText({ model: bedrock(missing), prompt: question }),
  untagged: () => generateText({ model: createAmazonBedrock()(nova), prompt: question }),
}, (e) => ({ error: e.name, status: e.statusCode, message: e.message, known: APICallError.isInstance(e) || RetryError.isInstance(e) }));
