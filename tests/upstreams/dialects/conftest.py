"""What the dialect tests share: an answer put together again from its chunks, as a client would."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import orjson
import pytest

IDENTITY: dict[str, Any] = {"model": "m-1", "created": 1_800_000_000, "id": "chatcmpl-a1b2"}


@pytest.fixture
def identity() -> dict[str, Any]:
    """The id, time and model handed to every translation."""
    return dict(IDENTITY)


def _rebuild(chunks: Iterable[bytes]) -> dict[str, Any]:
    choices: dict[int, dict[str, Any]] = {}
    usage = None
    for raw in chunks:
        assert raw.startswith(b"data: ")
        assert raw.endswith(b"\n\n")
        chunk = orjson.loads(raw[6:])
        assert chunk["object"] == "chat.completion.chunk"
        assert chunk["id"]
        usage = chunk.get("usage") or usage
        for choice in chunk["choices"]:
            fresh = {"message": {"content": "", "reasoning_content": "", "tool_calls": []}, "finish_reason": None}
            whole = choices.setdefault(choice["index"], fresh)
            message, delta = whole["message"], choice["delta"]
            if fresh is whole:
                assert delta["role"] == "assistant", "the role rides on the first delta"
            else:
                assert "role" not in delta
            for field in ("content", "reasoning_content"):
                message[field] += delta.get(field) or ""
            for call in delta.get("tool_calls", ()):
                if call["index"] == len(message["tool_calls"]):
                    assert call["id"]
                    assert call["type"] == "function"
                    message["tool_calls"].append({"id": call["id"], "name": "", "arguments": ""})
                    message["tool_calls"][-1]["name"] = call["function"]["name"]
                else:
                    assert not {"id", "type"} & call.keys()
                    assert "name" not in call["function"]
                message["tool_calls"][call["index"]]["arguments"] += call["function"].get("arguments", "")
            for field in ("thinking_blocks", "images"):
                if field in delta:
                    message.setdefault(field, []).extend(delta[field])
            if choice["finish_reason"] is not None:
                assert whole["finish_reason"] is None, "an answer ends once"
                whole["finish_reason"] = choice["finish_reason"]
    return {"choices": [choices[index] for index in sorted(choices)], "usage": usage}


@pytest.fixture(scope="session")
def rebuild() -> Callable[[Iterable[bytes]], dict[str, Any]]:
    """Chunks put together again, with the rules of OpenAI's own clients asserted on the way."""
    return _rebuild


def _outline(answer: dict[str, Any]) -> list[dict[str, Any]]:
    outlined = []
    for choice in answer["choices"]:
        message = choice["message"]
        calls = []
        for call in message.get("tool_calls") or ():
            function = call.get("function", call)
            arguments = orjson.loads(function["arguments"])
            calls.append({"id": call["id"], "name": function["name"], "arguments": arguments})
        outlined.append(
            {
                "content": message.get("content") or "",
                "reasoning": message.get("reasoning_content") or "",
                "calls": calls,
                "thoughts": message.get("thinking_blocks") or [],
                "finish": choice["finish_reason"],
            }
        )
    return outlined


@pytest.fixture(scope="session")
def outline() -> Callable[[dict[str, Any]], list[dict[str, Any]]]:
    """What an answer says, whole or rebuilt, in one comparable form."""
    return _outline
