// Anthropic's SDK for Node: models, message, stream helper, tools, count, an error.
import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";

const client = new Anthropic({ baseURL: process.env.FASTROUTE_URL, apiKey: "any", maxRetries: 0 });
const asked = { model: "demo-small", max_tokens: 200, messages: [{ role: "user", content: "Hello" }] };
const input_schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };

const listed = [];
for await (const model of client.models.list()) listed.push(model.id);
assert(listed.includes("demo-small"));

const whole = await client.messages.create(asked);
assert(whole.content[0].text);
assert(whole.usage.output_tokens > 0);
assert.equal(await client.messages.stream(asked).finalText(), whole.content[0].text);

const armed = { ...asked, tools: [{ name: "get_weather", input_schema }], tool_choice: { type: "any" } };
const [call] = (await client.messages.stream(armed).finalMessage()).content;
assert.equal(call.name, "get_weather");
assert("city" in call.input);

assert((await client.messages.countTokens({ model: asked.model, messages: asked.messages })).input_tokens > 0);
await assert.rejects(client.messages.create({ ...asked, model: "no-such-model" }), Anthropic.NotFoundError);
await assert.rejects(client.messages.stream({ ...asked, model: "demo-cut" }).finalMessage(), Anthropic.APIError);
