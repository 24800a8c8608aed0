// What a client's user sees of each case, one JSON line each.
export const nova = 'amazon.nova-lite-v1:0';
export const claude = 'us.anthropic.claude-haiku-4-5-20251001-v1:0';
export const titan = 'amazon.titan-embed-text-v2:0';
export const missing = 'amazon.no-such-model-v1:0';
export const question = 'where is my parcel?';
export const throttled = 'this call is to be throttled'; // the stand-in looks for it
export const purpose = { purpose: 'tests' };
export const tagHeader = { 'X-Waybill-Tags': 'purpose=tests' };
export const weather = {
  name: 'weather', description: 'the weather of a city',
  schema: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
};

export async function run(cases, seen) {
  for (const [name, make] of Object.entries(cases)) {
    let line;
    try {
      line = await make();
    } catch (e) {
      line = { error: e.constructor.name, ...seen(e) };
    }
    console.log(JSON.stringify({ case: name, ...line }));
  }
}

export async function all(stream) {
  const parts = [];
  for await (const part of stream) parts.push(part);
  return parts;
}
