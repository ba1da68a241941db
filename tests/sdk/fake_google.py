"""Google's generateContent as the tests know it: text, thoughts, functions and a schema's value, whole or streamed."""

from __future__ import annotations

import json

from tests.sdk import fake_words as fake
from tests.sdk.fake_words import Body, Reply


def answer(body: Body, fault: str, stream: bool) -> Reply:
    config = body.get("generationConfig") or {}
    answered = any("functionResponse" in part for part in body["contents"][-1]["parts"])
    declared = [each for tool in body.get("tools") or [] for each in tool.get("functionDeclarations", [])]
    mode = ((body.get("toolConfig") or {}).get("functionCallingConfig") or {}).get("mode")
    parts: list[Body] = []
    if (config.get("thinkingConfig") or {}).get("includeThoughts"):
        parts.append({"text": fake.THOUGHT, "thought": True})
    if declared and not answered and mode != "NONE":
        schema = declared[0].get("parametersJsonSchema") or declared[0].get("parameters") or {}
        made = fake.arguments_of(schema, fake.count_of(body["contents"]))
        parts += [{"functionCall": {"name": declared[0]["name"], "args": arguments}} for arguments in made]
    elif "responseJsonSchema" in config:
        parts += [{"text": piece} for piece in fake.pieces(json.dumps(fake.value_of(config["responseJsonSchema"])))]
    elif config.get("responseMimeType") == "application/json":
        parts.append({"text": '{"greeting": "hello"}'})
    else:
        parts += [{"text": piece} for piece in fake.pieces(fake.AFTER_TOOLS if answered else fake.TEXT)]
    usage = {
        "promptTokenCount": fake.USAGE[0],
        "candidatesTokenCount": fake.USAGE[1],
        "totalTokenCount": sum(fake.USAGE),
    }

    def told(parts: list[Body], finish: str | None) -> Body:
        candidate: Body = {"content": {"role": "model", "parts": parts}, "index": 0}
        if finish:
            candidate["finishReason"] = finish
        return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini", "responseId": "r1"}

    if not stream:
        return fake.document(told(parts, "STOP"))
    events = [fake.sse(told([part], None)) for part in parts]
    if fault == "cut":
        return Reply(events=events, end="cut")
    if fault == "unfinished":
        return Reply(events=events)
    if fault == "late":
        error = {"code": 503, "message": "over", "status": "UNAVAILABLE"}
        return Reply(events=[*events, fake.sse({"error": error})], pause=True)
    return Reply(events=[*events, fake.sse(told([{"text": ""}], "STOP"))])
