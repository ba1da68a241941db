// Vercel's `ai` with @ai-sdk/openai: text, stream, tools and an error, over Responses (its default) and chat.
import assert from "node:assert/strict";
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, jsonSchema, streamText, tool } from "ai";

const provider = createOpenAI({ baseURL: process.env.FASTROUTE_URL + "/v1", apiKey: "any" });
const parameters = jsonSchema({ type: "object", properties: { city: { type: "string" } }, required: ["city"] });
const tools = { get_weather: tool({ description: "The weather in a city.", inputSchema: parameters }) };

for (const model of [(name) => provider(name), (name) => provider.chat(name)]) {
  const whole = await generateText({ model: model("demo-small"), prompt: "Hello", maxRetries: 0 });
  assert(whole.text);
  assert(whole.usage.totalTokens > 0);

  let text = "";
  const streamed = streamText({ model: model("demo-small"), prompt: "Hello", maxRetries: 0 });
  for await (const piece of streamed.textStream) text += piece;
  assert.equal(text, whole.text);
  assert((await streamed.usage).totalTokens > 0);

  const asked = { model: model("demo-small"), prompt: "Weather?", tools, toolChoice: "required", maxRetries: 0 };
  assert.equal((await generateText(asked)).toolCalls[0].toolName, "get_weather");
  const calls = await streamText(asked).toolCalls;
  assert.deepEqual(calls.map((call) => call.toolName), ["get_weather"]);
  assert("city" in calls[0].input);

  await assert.rejects(generateText({ model: model("no-such-model"), prompt: "Hello", maxRetries: 0 }), (error) => {
    assert.equal(error.statusCode, 404);
    return true;
  });
}
