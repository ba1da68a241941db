// OpenAI's SDK for Node: models, chat, stream helper, tools, Responses, embeddings, an error.
import assert from "node:assert/strict";
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.env.FASTROUTE_URL + "/v1", apiKey: "any", maxRetries: 0 });
const messages = [{ role: "user", content: "Hello" }];
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const tools = [{ type: "function", function: { name: "get_weather", parameters } }];

const listed = [];
for await (const model of client.models.list()) listed.push(model.id);
assert(listed.includes("demo-small"));

const reply = await client.chat.completions.create({ model: "demo-small", messages });
assert(reply.choices[0].message.content);
assert(reply.usage.total_tokens > 0);
assert(reply._request_id);

const streamed = client.chat.completions.stream({
  model: "demo-small",
  messages,
  stream_options: { include_usage: true },
});
assert.equal(await streamed.finalContent(), reply.choices[0].message.content);
assert((await streamed.totalUsage()).total_tokens > 0);

const called = client.chat.completions.stream({ model: "demo-small", messages, tools, tool_choice: "required" });
const [call] = (await called.finalChatCompletion()).choices[0].message.tool_calls;
assert.equal(call.function.name, "get_weather");
assert("city" in JSON.parse(call.function.arguments));

const response = client.responses.stream({ model: "demo-small", input: "Hello" });
assert((await response.finalResponse()).output_text);

const { data } = await client.embeddings.create({ model: "demo-embed", input: ["one", "two"] });
assert.equal(data.length, 2);
assert.equal(typeof data[0].embedding[0], "number");

await assert.rejects(client.chat.completions.create({ model: "no-such-model", messages }), OpenAI.NotFoundError);
const cut = await client.chat.completions.create({ model: "demo-cut", messages, stream: true });
await assert.rejects(async () => {
  for await (const _ of cut);
}, OpenAI.APIError);
