"""Anthropic's messages as the tests know them: text, thoughts, tools and a schema's value, whole or streamed."""

from __future__ import annotations

import json
from typing import Any

from tests.sdk import fake_words as fake
from tests.sdk.fake_words import Body, Reply


def answer(body: Body, fault: str) -> Reply:
    blocks = _blocks(body)
    stop = "tool_use" if blocks[-1]["type"] == "tool_use" else "end_turn"
    usage = {"input_tokens": fake.USAGE[0], "output_tokens": fake.USAGE[1]}
    cache = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    told: Body = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": blocks,
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": {**usage, **cache},
    }
    return _stream(told, fault) if body.get("stream") else fake.document(told)


def _blocks(body: Body) -> list[Body]:
    last = body["messages"][-1]["content"]
    answered = isinstance(last, list) and any(block["type"] == "tool_result" for block in last)
    tools = [tool for tool in body.get("tools") or [] if "input_schema" in tool]
    blocks: list[Body] = []
    if (body.get("thinking") or {}).get("type") in ("enabled", "adaptive"):
        blocks.append({"type": "thinking", "thinking": fake.THOUGHT, "signature": fake.SIGNATURE})
    form = (body.get("output_config") or {}).get("format")
    if tools and not answered and (body.get("tool_choice") or {}).get("type") != "none":
        made = fake.arguments_of(tools[0]["input_schema"], fake.count_of(body["messages"]))
        return blocks + [
            {"type": "tool_use", "id": f"toolu_{place}", "name": tools[0]["name"], "input": arguments}
            for place, arguments in enumerate(made)
        ]
    if form:
        text = json.dumps(fake.value_of(form["schema"]))
    elif "JSON object" in str(body.get("system")):
        text = '{"greeting": "hello"}'
    else:
        text = fake.AFTER_TOOLS if answered else fake.TEXT
    return [*blocks, {"type": "text", "text": text}]


def _stream(told: Body, fault: str) -> Reply:
    events: list[bytes] = []

    def say(kind: str, **fields: Any) -> None:
        events.append(fake.sse({"type": kind, **fields}, kind))

    begun = {**told, "content": [], "stop_reason": None, "usage": {**told["usage"], "output_tokens": 1}}
    say("message_start", message=begun)
    say("ping")
    for place, block in enumerate(told["content"]):
        empty: Body = {"text": {"text": ""}, "thinking": {"thinking": "", "signature": ""}, "tool_use": {"input": {}}}
        say("content_block_start", index=place, content_block={**block, **empty[block["type"]]})
        if block["type"] == "text":
            deltas = [{"type": "text_delta", "text": piece} for piece in fake.pieces(block["text"])]
        elif block["type"] == "thinking":
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in fake.pieces(block["thinking"])]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        else:
            text = json.dumps(block["input"])
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ("", *fake.pieces(text))]
        for delta in deltas:
            say("content_block_delta", index=place, delta=delta)
        if fault == "cut":
            return Reply(events=events, end="cut")
        if fault == "late":
            say("error", error={"type": "overloaded_error", "message": "Overloaded"})
            return Reply(events=events, pause=True)
        say("content_block_stop", index=place)
    if fault == "unfinished":
        return Reply(events=events)
    say(
        "message_delta",
        delta={"stop_reason": told["stop_reason"], "stop_sequence": None},
        usage={"output_tokens": told["usage"]["output_tokens"]},
    )
    say("message_stop")
    return Reply(events=events)
