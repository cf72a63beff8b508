// Runs the official openai Node SDK against BASE_URL; prints one JSON object of what it saw.
import OpenAI from "openai";

const client = new OpenAI({ apiKey: process.env.KEY, baseURL: process.env.BASE_URL, maxRetries: 0, timeout: 20000 });
const messages = [{ role: "user", content: "Say hello to the treasurer." }];
const tools = [{ type: "function", function: { name: "get_weather", parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] } } }];
const model = "gpt-4o";
const seen = {};

const whole = await client.chat.completions.create({ model: `${model}?length=12`, messages });
seen.whole = { finish: whole.choices[0].finish_reason, tokens: whole.usage.completion_tokens, request: whole._request_id };

const stream = await client.chat.completions.create({ model: `${model}?length=12`, messages, stream: true, stream_options: { include_usage: true } });
let text = "", usage = null, chunks = 0;
for await (const chunk of stream) {
  chunks += 1;
  text += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
}
seen.stream = { chunks, words: text.split(" ").length, tokens: usage.completion_tokens };

const runner = client.chat.completions.stream({ model, messages: [{ role: "user", content: "call get_weather now" }], tools });
const final = await runner.finalChatCompletion();
seen.tool = { name: final.choices[0].message.tool_calls[0].function.name, arguments: JSON.parse(final.choices[0].message.tool_calls[0].function.arguments) };

const image = { type: "image_url", image_url: { url: "data:image/png;base64,iVBORw0KGgo=" } };
const looked = await client.chat.completions.create({ model, messages: [{ role: "user", content: [{ type: "text", text: "What is this?" }, image] }] });
seen.image = looked.choices[0].finish_reason;

seen.embedding = (await client.embeddings.create({ model: "text-embedding-3-small", input: "a", dimensions: 8 })).data[0].embedding.length;
seen.response = (await client.responses.create({ model: `${model}?length=9`, input: "Say hello." })).usage.output_tokens;
seen.models = (await client.models.list()).data.map((m) => m.id);
seen.slashes = (await client.models.retrieve("org/with/slashes")).id;

async function error(call) {
  try { await call(); } catch (e) { return { name: e.constructor.name, status: e.status ?? null, code: e.code ?? null, request: Boolean(e.requestID) }; }
  return null;
}
const other = new OpenAI({ apiKey: "sk-wrong", baseURL: process.env.BASE_URL, maxRetries: 0 });
seen.errors = [
  await error(() => other.models.list()),
  await error(() => client.chat.completions.create({ model, messages: [] })),
  await error(() => client.chat.completions.create({ model: `${model}?status=404`, messages })),
  await error(() => client.chat.completions.create({ model: `${model}?status=500`, messages })),
  await error(() => client.chat.completions.create({ model: `${model}?close`, messages, stream: true })),
  await error(async () => { for await (const _ of await client.chat.completions.create({ model: `${model}?error_after=3`, messages, stream: true })); }),
];
const patient = new OpenAI({ apiKey: process.env.SPENT_KEY, baseURL: process.env.BASE_URL, maxRetries: 5 });
seen.spent = await error(() => patient.chat.completions.create({ model, messages }));

const controller = new AbortController();
try {
  for await (const chunk of await client.chat.completions.create({ model: `${model}?length=40&stall=10`, messages, stream: true }, { signal: controller.signal })) {
    if (chunk.choices[0].delta.content) controller.abort();
  }
} catch (e) { seen.aborted = e.constructor.name; }

console.log(JSON.stringify(seen));
