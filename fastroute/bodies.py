"""The body an attempt sends: the caller's own bytes where dialects agree, a translation where they do not."""

from __future__ import annotations

from typing import Any

import orjson

from fastroute import _scan
from fastroute.call import Call
from fastroute.callers.shape import ShapeError, without_extensions
from fastroute.domain import Entry, Usage
from fastroute.upstreams import google_embeddings
from fastroute.upstreams.dialect import Dialect, DialectError, parse
from fastroute.upstreams.upstream import Upstream

# What the longest answer is called where bodies pass as they are; one of Anthropic's always has it.
_NEWER_NAMED = ("gpt-", "chatgpt-", "o1", "o3", "o4")
_CAPS = {
    "chat": b"max_tokens",
    "completions": b"max_tokens",
    "responses": b"max_output_tokens",
    "messages": b"max_tokens",
}


def is_native(call: Call, upstream: Upstream) -> bool:
    """Whether this upstream speaks the caller's own dialect for this operation."""
    surface, dialect = call.surface, upstream.dialect
    if surface.operation == "chat" and surface.native == "openai":
        return dialect.speaks_chat
    if surface.native != dialect.name:
        return False
    return surface.operation != "responses" or upstream.native_responses


def body_for(call: Call, entry: Entry, upstream: Upstream) -> tuple[str, bytes]:
    """(operation, body) of one attempt; `DialectError` or `ShapeError` for what cannot be said there."""
    if is_native(call, upstream):
        if call.surface.name == "gemini" and call.set_cap is not None and call.output_cap is None:
            return call.surface.operation, _capped_gemini(call)
        return call.surface.operation, _spliced(call, entry)
    if call.surface.operation == "embeddings" and upstream.dialect.name == "google":
        operation, asked = google_embeddings.request(decoded(call), entry.ref.model)
        return operation, orjson.dumps(asked)
    chat = as_chat(call)
    if call.set_cap is not None and call.output_cap is None:
        chat = {**chat, "max_tokens": call.set_cap}
    if upstream.dialect.speaks_chat and call.surface.caller is not None:
        chat = without_extensions(chat)
    body = upstream.dialect.request(chat, entry.ref.model, stream=call.stream, max_output=entry.max_output)
    return "chat", orjson.dumps(body)


def as_chat(call: Call) -> dict[str, Any]:
    """The request in the canonical shape, decoded once for all attempts."""
    if call.decoded is None:
        caller = call.surface.caller
        if caller is None and call.surface.operation != "chat":
            raise DialectError("model", f"no provider of this model offers {call.surface.name}")
        body = decoded(call)
        if caller is not None:
            body = caller.to_chat({**body, "model": call.model, "stream": call.stream})
        call.decoded = body
    return call.decoded


def answer_of(call: Call, dialect: Dialect, body: bytes, usage: Usage | None) -> dict[str, Any]:
    """A translated answer in the canonical shape of what was asked; `BrokenAnswer` when it is none."""
    if call.surface.operation == "embeddings":
        asked, estimate = decoded(call), call.input_bound // 4
        return google_embeddings.answer(parse(body), asked, usage, model=call.model, estimate=estimate)
    return dialect.answer(parse(body), model=call.model, created=call.created, id=f"chatcmpl-{call.id}")


def decoded(call: Call) -> dict[str, Any]:
    """The caller's body as objects; `ShapeError` for a number that none of them can hold."""
    try:
        body: dict[str, Any] = orjson.loads(call.body)
    except orjson.JSONDecodeError:
        raise ShapeError("", "the body holds a number that is too large to be translated") from None
    return body


def plain(call: Call) -> bytes:
    """The body for whoever looks for words in its bytes: no letter of it is spelled as an escape. `ShapeError` as above."""
    return orjson.dumps(decoded(call)) if b"\\u00" in call.body else call.body


def _capped_gemini(call: Call) -> bytes:
    """Gemini's cap stands inside another object, which may not be there."""
    body = decoded(call)
    found = body.get("generationConfig") or body.get("generation_config")
    generation = found if isinstance(found, dict) else {}
    body.pop("generation_config", None)
    return orjson.dumps({**body, "generationConfig": {**generation, "maxOutputTokens": call.set_cap}})


def _spliced(call: Call, entry: Entry) -> bytes:
    """The caller's bytes with nothing changed but the model's name, and usage asked for where a stream hides it."""
    scan = call.scan
    if scan is None:
        return call.body if call.form is None else call.form.asking(entry.ref.model)
    changes = []
    if entry.ref.model != scan.model and scan.model is not None:
        changes.append((b"model", _scan.json_string(entry.ref.model)))
    if call.stream and call.hide_usage and call.usage_options is not None:
        changes.append((b"stream_options", call.usage_options))
    if call.set_cap is not None and call.output_cap is None and call.surface.operation in _CAPS:
        # OpenAI's own models of today know only the newer name, wherever they run; everybody else's only the older one.
        newer = call.surface.operation == "chat" and (
            entry.ref.provider == "openai" or entry.ref.model.startswith(_NEWER_NAMED)
        )
        word = b"max_completion_tokens" if newer else _CAPS[call.surface.operation]
        changes.append((word, b"%d" % call.set_cap))
    return scan.rewrite(changes) if changes else call.body
