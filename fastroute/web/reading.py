"""Reading a request off the server: its headers looked at once, its body whole or not at all.

The server in front lets several odd things through (two Hosts, duplicate credentials, a body that stops half-way or
never comes); here they end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

from fastroute.call import Receive
from fastroute.relay import Failed

FIRST_BYTE_S: Final = 10.0
WHOLE_BODY_S: Final = 30.0

# Read once, so twice is a contradiction: parsers disagree on which of the two counts.
_SINGLE: Final = frozenset({
    b"host", b"authorization", b"x-api-key", b"x-goog-api-key", b"content-length", b"content-type",
    b"transfer-encoding", b"content-encoding",
})  # fmt: skip
# What dialects may hand on; each picks its own from these.
_PASSED: Final = frozenset(
    {b"openai-organization", b"openai-project", b"openai-beta", b"anthropic-version", b"anthropic-beta"}
)
_WANTED: Final = _SINGLE | _PASSED | {b"user-agent", b"idempotency-key", b"expect"}
_HOST_BYTES: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:[]_")


def look(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """The headers that matter here, by name; `Failed` for what two readers could read in two ways."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _WANTED:
            if name in found and name in _SINGLE:
                raise _malformed(f"the header {name.decode()} is given twice")
            found[name] = value
    # The server puts an empty one where none was sent.
    host = found.get(b"host")
    if not host or not _HOST_BYTES.issuperset(host):
        raise _malformed("the header host is missing or is not a host")
    if b"transfer-encoding" in found and (
        b"content-length" in found or found[b"transfer-encoding"].strip().lower() != b"chunked"
    ):
        raise _malformed("the body's length is told in two ways")
    if found.get(b"content-encoding", b"identity").strip().lower() != b"identity":
        raise Failed(415, "invalid_request_error", "unsupported_encoding", "send the body without a content-encoding")
    return found


def passed_on(found: dict[bytes, bytes]) -> dict[str, str]:
    """The caller's headers that a dialect may pass to its provider."""
    return {name.decode(): value.decode("latin-1") for name, value in found.items() if name in _PASSED}


def credential(found: dict[bytes, bytes], query: bytes) -> str | None:
    """The caller's key, wherever its client puts it."""
    bearer = found.get(b"authorization")
    if bearer is not None:
        scheme, _, token = bearer.partition(b" ")
        if scheme.lower() == b"bearer" and token.strip():
            return token.strip().decode("latin-1")
    for name in (b"x-api-key", b"x-goog-api-key"):
        if name in found:
            return found[name].strip().decode("latin-1")
    if b"key=" in query:
        for pair in query.split(b"&"):
            if pair.startswith(b"key=") and len(pair) > 4:
                return pair[4:].decode("latin-1")
    return None


async def body_of(receive: Receive, found: dict[bytes, bytes], limit: int) -> bytes:
    """The whole body; `Failed` when it is too large, too slow or stops half-way.

    The length is trusted to say when it ends: the server's own end marker costs a second trip between threads.
    """
    announced = found.get(b"content-length")
    length = -1
    if announced is not None:
        if not announced.isdigit() or len(announced) > 15:
            raise _malformed("content-length is not a number")
        length = int(announced)
        if length > limit:
            raise _too_large(limit)
    elif b"transfer-encoding" not in found:
        return b""
    loop = asyncio.get_running_loop()
    patience = _Patience(loop)
    try:
        message = await receive()
        chunk: bytes = message.get("body", b"")
        if message["type"] == "http.request" and (len(chunk) == length or not message.get("more_body", False)):
            return _checked(chunk, length, limit)
        parts = [chunk]
        size = len(chunk)
        patience.renew(WHOLE_BODY_S)
        while True:
            if message["type"] != "http.request":
                raise _aborted()
            if size > limit:
                raise _too_large(limit)
            if size == length or not message.get("more_body", False):
                return _checked(b"".join(parts), length, limit)
            message = await receive()
            chunk = message.get("body", b"")
            parts.append(chunk)
            size += len(chunk)
    except asyncio.CancelledError:
        if not patience.ended:
            raise
        raise _slow() from None
    finally:
        patience.stop()


class _Patience:
    """A time-out around the awaits of one task; a fifth of what `asyncio.timeout` costs on every request."""

    __slots__ = ("_handle", "_loop", "_task", "ended")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.ended = False
        self._loop = loop
        self._task: asyncio.Task[Any] | None = asyncio.current_task(loop)
        self._handle = loop.call_later(FIRST_BYTE_S, self._end)

    def renew(self, seconds: float) -> None:
        self._handle.cancel()
        self._handle = self._loop.call_later(seconds, self._end)

    def stop(self) -> None:
        self._handle.cancel()

    def _end(self) -> None:
        self.ended = True
        if self._task is not None:
            self._task.cancel()


def _checked(body: bytes, length: int, limit: int) -> bytes:
    if len(body) > limit:
        raise _too_large(limit)
    if length >= 0 and len(body) != length:
        raise _aborted()
    return body


def _malformed(message: str) -> Failed:
    return Failed(400, "invalid_request_error", "malformed_request", message, closes=True)


def _aborted() -> Failed:
    """The sender left, or its chunks cannot be read: the server tells neither apart, and somebody may still listen."""
    return Failed(400, "invalid_request_error", "body_aborted", "the body ended before its end", closes=True)


def _slow() -> Failed:
    return Failed(408, "invalid_request_error", "slow_body", "the body took too long to arrive", closes=True)


def _too_large(limit: int) -> Failed:
    return Failed(
        413,
        "invalid_request_error",
        "body_too_large",
        f"the body is larger than the {limit} bytes taken here",
        closes=True,
    )
