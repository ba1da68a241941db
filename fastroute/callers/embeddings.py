"""Gemini's `:embedContent` and `:batchEmbedContents` as OpenAI's `POST /v1/embeddings`, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastroute.callers.gemini_contents import camel
from fastroute.callers.shape import (
    Body,
    NativeOnly,
    ShapeError,
    a_count,
    a_list,
    a_string,
    an_object,
    optional,
    required,
)


def to_embeddings(body: Any, model: str) -> Body:
    """One request or a batch as OpenAI's; the task and the title are Google's own hints and are not carried."""
    body = camel(an_object(body, "body"), "body")
    requests = optional(body, "requests", a_list)
    named = [(body, "")] if requests is None else [(item, f"requests[{i}].") for i, item in enumerate(requests)]
    texts: list[str] = []
    sizes: set[int | None] = set()
    for item, at in named:
        request = camel(an_object(item, at.rstrip(".") or "body"), at.rstrip(".") or "body")
        texts.append(_text(required(request, "content", lambda value, _: value, at), f"{at}content"))
        sizes.add(optional(request, "outputDimensionality", a_count, at))
    if not texts:
        raise ShapeError("requests", "must hold at least one request")
    if len(sizes) > 1:
        raise NativeOnly("requests", "a batch of several dimensionalities")
    told: Body = {"model": model.removeprefix("models/"), "input": texts, "encoding_format": "float"}
    size = sizes.pop()
    return told if size is None else {**told, "dimensions": size}


def _text(content: Any, where: str) -> str:
    parts = an_object(content, where).get("parts")
    given = [parts] if isinstance(parts, dict) else a_list(parts, f"{where}.parts")
    pieces = []
    for i, part in enumerate(given):
        at = f"{where}.parts[{i}]"
        if an_object(part, at).get("text") is None:
            raise NativeOnly(at, "an embedding of what is not text")
        pieces.append(required(part, "text", a_string, f"{at}."))
    return "\n".join(pieces)


def from_embeddings(answer: Mapping[str, Any], batch: bool) -> Body:
    """The answer, ordered by index; `batch` chooses between the two shapes Google gives it."""
    data = answer.get("data")
    rows = [row for row in data if isinstance(row, Mapping)] if isinstance(data, list) else []
    rows.sort(key=lambda row: row["index"] if isinstance(row.get("index"), int) else 0)
    made: list[Body] = [{"values": row.get("embedding") or []} for row in rows]
    if batch:
        return {"embeddings": made}
    return {"embedding": made[0] if made else {"values": []}}
