"""OpenAI's embeddings as Gemini's `:embedContent` and `:batchEmbedContents`, and back.

One text alone or a batch: Google has a verb for each. Token ids are another tokenizer's, and are refused.
"""

from __future__ import annotations

import base64
import struct
from typing import Any, Final

from fastroute.domain import Usage
from fastroute.upstreams.dialect import Body, BrokenAnswer, DialectError, refuse_unsaid

_SAID: Final = frozenset({"model", "input", "dimensions", "encoding_format"})
ONE: Final = "embed"
MANY: Final = "batch_embed"


def request(asked: Body, model: str) -> tuple[str, Body]:
    """(operation, body); `DialectError` for what Google cannot be asked."""
    refuse_unsaid(asked, _SAID, "google")
    given = asked.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts:
        raise DialectError("input", "must be a string or an array of strings that is not empty")
    if asked.get("encoding_format") not in (None, "float", "base64"):
        raise DialectError("encoding_format", "must be float or base64")
    dimensions = asked.get("dimensions")
    if dimensions is not None and (type(dimensions) is not int or dimensions < 1):
        raise DialectError("dimensions", "must be a whole number of at least 1")
    name = f"models/{model.removeprefix('models/')}"
    requests = [_one(name, text, place, dimensions) for place, text in enumerate(texts)]
    return (ONE, requests[0]) if isinstance(given, str) else (MANY, {"requests": requests})


def _one(name: str, text: Any, place: int, dimensions: int | None) -> Body:
    if not isinstance(text, str):
        raise DialectError(f"input[{place}]", "must be text: token ids mean something else in the google dialect")
    told: Body = {"model": name, "content": {"parts": [{"text": text}]}}
    return told if dimensions is None else {**told, "outputDimensionality": dimensions}


def answer(body: Any, asked: Body, usage: Usage | None, *, model: str, estimate: int) -> Body:
    """OpenAI's list, in the order of the input; `estimate` is told where Google does not say what it used."""
    rows = body.get("embeddings") if isinstance(body, dict) else None
    if rows is None and isinstance(body, dict) and body.get("embedding") is not None:
        rows = [body["embedding"]]
    wanted = 1 if isinstance(asked.get("input"), str) else len(asked["input"])
    if not isinstance(rows, list) or len(rows) != wanted:
        raise BrokenAnswer(f"does not have the {wanted} embeddings that were asked for")
    packed = asked.get("encoding_format") == "base64"
    data = [{"object": "embedding", "index": i, "embedding": _vector(row, packed)} for i, row in enumerate(rows)]
    tokens = estimate if usage is None else usage.input_total
    told = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": model, "usage": told}


def _vector(row: Any, packed: bool) -> list[float] | str:
    values = row.get("values") if isinstance(row, dict) else None
    if not isinstance(values, list) or not all(type(value) in (float, int) for value in values):
        raise BrokenAnswer("has an embedding that is no list of numbers")
    if not packed:
        return values
    try:
        return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
    except (struct.error, OverflowError):
        raise BrokenAnswer("has an embedding that 32 bits cannot hold") from None
