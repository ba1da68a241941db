"""Reading a request off the server: its headers looked at once, its body whole or not at all.

The server in front lets several odd things through (two Hosts, duplicate credentials, a body that stops half-way or
never comes); here they end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any, Final

from fastroute import _heads
from fastroute.call import Receive, Send
from fastroute.relay import Failed

FIRST_BYTE_S: Final = 10.0
WHOLE_BODY_S: Final = 30.0
UNWANTED_S: Final = 0.1
UNWANTED_MAX: Final = 65_536

_CLOSE: Final = (b"connection", b"close")
_NOTHING: Final[Mapping[str, str]] = {}


def look(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """The headers that matter here, by name; `Failed` for what two readers could read in two ways."""
    try:
        return _heads.look(headers)
    except _heads.HeadError as error:
        raise misread(error) from None


def misread(error: _heads.HeadError) -> Failed:
    if error.encoded:
        return Failed(415, "invalid_request_error", "unsupported_encoding", error.message)
    return _malformed(error.message)


def passed_on(found: dict[bytes, bytes]) -> Mapping[str, str]:
    """The caller's headers that a dialect may pass to its provider."""
    if _heads.PASSED.isdisjoint(found):
        return _NOTHING
    return {name.decode(): value.decode("latin-1") for name, value in found.items() if name in _heads.PASSED}


def credential(found: dict[bytes, bytes], query: bytes) -> str | None:
    """The caller's key, wherever its client puts it."""
    given = _heads.credential(found, query)
    return None if given is None else given.decode("latin-1")


def length_of(found: dict[bytes, bytes], limit: int) -> int:
    """The announced length of the body, 0 where there is none, -1 where it comes in chunks; `Failed` beyond the limit.

    The length is trusted to say when a body ends: the server's own end marker costs a second trip between threads.
    """
    length = _heads.length(found)
    if length < -1:
        raise _malformed("content-length is not a number")
    if length > limit:
        raise _too_large(limit)
    return length


async def whole(found: dict[bytes, bytes], receive: Receive, limit: int) -> bytes:
    """The body of a request whose headers are here; `Failed` when it is too large, too slow or stops half-way."""
    length = length_of(found, limit)
    if length == 0:
        return b""
    try:
        async with asyncio.timeout(FIRST_BYTE_S):
            begun = await receive()
    except TimeoutError:
        raise slow() from None
    return await rest_of(receive, begun, length, limit)


async def rest_of(receive: Receive, message: Mapping[str, Any], length: int, limit: int) -> bytes:
    """The whole body, of which the first message is here; `Failed` when it is too large, too slow or stops half-way."""
    patience = _Patience(asyncio.get_running_loop(), WHOLE_BODY_S)
    chunk: bytes = message.get("body", b"")
    parts = [chunk]
    size = len(chunk)
    try:
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
        raise slow() from None
    finally:
        patience.stop()


async def passed_over(receive: Receive, length: int) -> bool:
    """Whether a body that nobody wants is at its end: it is small, and here. Then its connection can go on.

    `length` is as `_heads.length` tells it.
    """
    if length == 0 or length < -1:
        return length == 0
    size = 0
    try:
        async with asyncio.timeout(UNWANTED_S):
            while max(length, size) <= UNWANTED_MAX:
                message = await receive()
                size += len(message.get("body", b""))
                if message["type"] != "http.request":
                    return False
                if size == length or not message.get("more_body", False):
                    return length in (size, -1)
    except TimeoutError:
        pass
    return False


class Leaving:
    """The channel of a door that may answer without having read its request's body.

    What is left of the body then is passed over, or else the answer says that its connection ends: what comes after a body
    that is not read cannot be found.
    """

    def __init__(self, headers: Iterable[tuple[bytes, bytes]], receive: Receive, send: Send) -> None:
        self._left = _heads.length(dict(headers))  # -1 where the body comes in chunks
        self._receive = receive
        self._send = send

    async def receive(self) -> MutableMapping[str, Any]:
        message = await self._receive()
        if self._left > 0:
            self._left -= len(message.get("body", b""))
        if not message.get("more_body", False):
            self._left = 0
        return message

    async def send(self, message: MutableMapping[str, Any]) -> None:
        unread = self._left if message["type"] == "http.response.start" else 0
        if unread and _CLOSE not in message["headers"] and not await passed_over(self._receive, unread):
            message["headers"].append(_CLOSE)
        await self._send(message)


class _Patience:
    """A time-out around the awaits of one task."""

    __slots__ = ("_handle", "_task", "ended")

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self.ended = False
        self._task: asyncio.Task[Any] | None = asyncio.current_task(loop)
        self._handle = loop.call_later(seconds, self._end)

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


def slow() -> Failed:
    return Failed(408, "invalid_request_error", "slow_body", "the body took too long to arrive", closes=True)


def _too_large(limit: int) -> Failed:
    return Failed(
        413,
        "invalid_request_error",
        "body_too_large",
        f"the body is larger than the {limit} bytes taken here",
        closes=True,
    )
