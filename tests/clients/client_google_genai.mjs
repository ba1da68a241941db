// Google's SDK for Node: models, generate, stream, tools, count, embeddings, an error.
import assert from "node:assert/strict";
import { ApiError, GoogleGenAI } from "@google/genai";

const parametersJsonSchema = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const config = {
  tools: [{ functionDeclarations: [{ name: "get_weather", parametersJsonSchema }] }],
  toolConfig: { functionCallingConfig: { mode: "ANY" } },
};

for (const apiVersion of ["v1", "v1beta"]) {
  const ai = new GoogleGenAI({ apiKey: "any", httpOptions: { baseUrl: process.env.FASTROUTE_URL, apiVersion } });
  const asked = { model: "demo-small", contents: "Hello" };

  const listed = [];
  for await (const model of await ai.models.list()) listed.push(model.name);
  assert(listed.includes("models/demo-small"));

  const whole = await ai.models.generateContent(asked);
  assert(whole.text);
  assert(whole.usageMetadata.totalTokenCount > 0);

  let text = "";
  for await (const chunk of await ai.models.generateContentStream(asked)) text += chunk.text ?? "";
  assert.equal(text, whole.text);

  const calls = [];
  for await (const chunk of await ai.models.generateContentStream({ ...asked, config })) {
    calls.push(...(chunk.functionCalls ?? []));
  }
  assert.deepEqual(calls.map((call) => call.name), ["get_weather"]);
  assert("city" in calls[0].args);

  assert((await ai.models.countTokens(asked)).totalTokens > 0);
  assert.equal((await ai.models.embedContent({ model: "demo-embed", contents: ["a", "b"] })).embeddings.length, 2);

  await assert.rejects(ai.models.generateContent({ ...asked, model: "no-such-model" }), (error) => {
    assert(error instanceof ApiError);
    assert.equal(error.status, 404);
    return true;
  });
}
