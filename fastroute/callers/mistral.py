"""Callers who come with Mistral's own SDKs, which refuse a tool delta without a name and an embedding without an id."""

from __future__ import annotations

from typing import Any

import orjson

from fastroute._scan import EventSplitter
from fastroute.callers.shape import Body, sse


def with_id(body: bytes, id: str) -> bytes:  # noqa: A002 - the wire's word
    """A whole answer with an id, which OpenAI's embeddings have not."""
    return body if b'"id"' in body else b'{"id":"%b",%b' % (id.encode(), body.lstrip()[1:])


class WholeCalls:
    """Holds back the pieces of tool calls until their choice ends, and tells each call in one delta."""

    def __init__(self) -> None:
        self._held: dict[int, dict[Any, Body]] = {}

    def feed(self, data: bytes) -> bytes:
        """Whole events in, whole events out; what has no part in a call passes byte for byte."""
        if not self._held and b'"tool_calls"' not in data:
            return data
        return b"".join(self._event(payload) for _, payload in EventSplitter(len(data) + 1).feed(data))

    def _event(self, payload: bytes) -> bytes:
        chunk = orjson.loads(payload) if payload.startswith(b"{") else {}
        choices = chunk.get("choices")
        if not isinstance(choices, list) or not choices:
            return b"data: %b\n\n" % payload
        told = [choice for choice in choices if self._tells(choice)]
        return sse({**chunk, "choices": told}) if told or chunk.get("usage") else b""

    def _tells(self, choice: Body) -> bool:
        """Whether anything is left to tell of a choice once the pieces are taken out of it."""
        delta = choice.get("delta") or {}
        pieces = delta.pop("tool_calls", None) or []
        held = self._held.setdefault(choice.get("index") or 0, {}) if pieces else {}
        for piece in pieces:
            whole = held.setdefault(piece.get("index"), {**piece, "function": {"name": "", "arguments": ""}})
            said = piece.get("function") or {}
            whole["function"]["name"] = whole["function"]["name"] or said.get("name") or ""
            whole["function"]["arguments"] += said.get("arguments") or ""
        if choice.get("finish_reason") is None:
            return not pieces or any(value for name, value in delta.items() if name != "role")
        calls = self._held.pop(choice.get("index") or 0, {})
        if calls:
            choice["delta"] = {**delta, "tool_calls": list(calls.values())}
        return True
