// Calls the four operations with nothing set but the environment, and writes what came
// back: every answer's content, one JSON line each.
import {
  BedrockRuntimeClient, ConverseCommand, ConverseStreamCommand, InvokeModelCommand, InvokeModelWithResponseStreamCommand,
} from '@aws-sdk/client-bedrock-runtime';

const client = new BedrockRuntimeClient({ region: 'us-east-1' });
const nova = 'amazon.nova-lite-v1:0';
const claude = 'anthropic.claude-haiku-4-5-20251001-v1:0';
const messages = [{ role: 'user', content: [{ text: 'where is my parcel?' }] }];
const body = JSON.stringify({ anthropic_version: 'bedrock-2023-05-31', max_tokens: 100, messages: [{ role: 'user', content: 'hi' }] });
const say = (value) => console.log(JSON.stringify(value));

const converse = await client.send(new ConverseCommand({ modelId: nova, messages }));
say([converse.output, converse.usage, converse.stopReason]);

const events = [];
const stream = await client.send(new ConverseStreamCommand({ modelId: `us.${claude}`, messages }));
for await (const event of stream.stream) events.push(event);
say(events);

const invoke = await client.send(new InvokeModelCommand({ modelId: claude, body, contentType: 'application/json' }));
say(Buffer.from(invoke.body).toString('base64'));

const chunks = [];
const invoked = await client.send(new InvokeModelWithResponseStreamCommand({ modelId: claude, body, contentType: 'application/json' }));
for await (const event of invoked.body) chunks.push(Buffer.from(event.chunk.bytes).toString('base64'));
say(chunks);
