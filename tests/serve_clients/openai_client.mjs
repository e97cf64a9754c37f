// openai-node against `lolama serve`, whose address is the first argument.
import assert from "node:assert/strict";
import OpenAI from "openai";

const client = new OpenAI({ baseURL: `${process.argv[2]}/v1`, apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: "What is two plus three?" }];

const answer = await client.chat.completions.create({ model: "demo", messages, temperature: 0 });
assert.equal(answer.choices[0].message.content, "Two plus three is five.");
console.log("  chat: an answer");

const stream = await client.chat.completions.create({
  model: "demo",
  messages,
  temperature: 0,
  stream: true,
  stream_options: { include_usage: true },
});
let text = "";
let usage = null;
for await (const chunk of stream) {
  text += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
}
assert.equal(text, "Two plus three is five.");
assert.equal(usage.completion_tokens, 7);
console.log("  chat: the same, streamed");

const left = await client.completions.create({ model: "demo", prompt: "Once", stream: true, ignore_eos: true });
for await (const _ of left) break;
console.log("  a client that leaves a stream");

await assert.rejects(client.chat.completions.create({ model: "gpt-4", messages }), (error) => error.status === 404);
console.log("  errors: an unknown model");
