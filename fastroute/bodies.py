"""The body an attempt sends: the caller's own bytes where dialects agree, a translation where they do not."""

from __future__ import annotations

from typing import Any

import orjson

from fastroute import _scan
from fastroute.call import Call
from fastroute.callers.shape import ShapeError, without_extensions
from fastroute.domain import Entry
from fastroute.upstreams.dialect import DialectError
from fastroute.upstreams.upstream import Upstream


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
        return call.surface.operation, _spliced(call, entry)
    chat = as_chat(call)
    if upstream.dialect.speaks_chat and call.surface.caller is not None:
        chat = without_extensions(chat)
    body = upstream.dialect.request(chat, entry.ref.model, stream=call.stream, max_output=entry.max_output)
    return "chat", orjson.dumps(body)


def as_chat(call: Call) -> dict[str, Any]:
    """The request in the canonical shape, decoded once for all attempts."""
    if call.decoded is None:
        body = decoded(call)
        if call.surface.caller is not None:
            body = call.surface.caller.to_chat({**body, "model": call.model, "stream": call.stream})
        elif call.surface.operation != "chat":
            raise DialectError("model", f"no provider of this model offers {call.surface.name}")
        call.decoded = body
    return call.decoded


def decoded(call: Call) -> dict[str, Any]:
    """The caller's body as objects; `ShapeError` for a number that none of them can hold."""
    try:
        body: dict[str, Any] = orjson.loads(call.body)
    except orjson.JSONDecodeError:
        raise ShapeError("", "the body holds a number that is too large to be translated") from None
    return body


def _spliced(call: Call, entry: Entry) -> bytes:
    """The caller's bytes with nothing changed but the model's name, and usage asked for where a stream hides it."""
    scan = call.scan
    if scan is None:
        return call.body
    changes = []
    if entry.ref.model != scan.model and scan.model is not None:
        changes.append((b"model", _scan.json_string(entry.ref.model)))
    if call.stream and call.hide_usage and call.usage_options is not None:
        changes.append((b"stream_options", call.usage_options))
    return scan.rewrite(changes) if changes else call.body
