"""What callers read: heads with their `X-Router-*` headers, error envelopes in each dialect, and streams as they go."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import orjson

from fastroute import _heads
from fastroute.call import Call
from fastroute.callers import Caller, Encoder
from fastroute.callers.mistral import WholeCalls
from fastroute.callers.shape import openai_error
from fastroute.domain import Entry
from fastroute.pipes import chat_error
from fastroute.relay import Failed
from fastroute.upstreams import sse
from fastroute.web._front import accounts, answer, head

__all__ = ["STREAM", "UNBUFFERED", "StreamWriter", "accounts", "answer", "envelope", "head", "refusal", "worded"]

# Later than the usual first-chunk deadline: once a heart has beaten, the head names the provider that was waited for.
HEARTBEAT_S: Final = 13.0

_JSON: Final = (b"content-type", b"application/json")
UNBUFFERED: Final = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))
STREAM: Final = ((b"content-type", b"text/event-stream; charset=utf-8"), *UNBUFFERED)
_RETRYABLE: Final = frozenset({408, 409, 429, 500, 502, 503, 504})
_PING: Final = sse.comment("ping")


async def refusal(call: Call, failed: Failed, *, closes: bool = False) -> None:
    """A refusal or failure in the envelope of the caller's dialect; `closes` where its connection is of no more use."""
    call.status = failed.status
    body = orjson.dumps(envelope(call, failed))
    headers = head(call, call.entry if call.attempts else None)
    if call.attempts:
        headers += accounts(call)
    headers += (_JSON, (b"content-length", b"%d" % len(body)))
    headers += failed.headers
    if failed.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % failed.retry_after_s))
    if failed.status in _RETRYABLE:
        # Attempts were made already, or will be refused again: a client's own retry of a 402 or a dead key is noise.
        again = b"false" if failed.code in ("provider_not_configured", "upstream_key_rejected") else b"true"
        headers.append((b"x-should-retry", again))
    if closes or failed.closes:
        headers.append((b"connection", b"close"))
    await call.send({"type": "http.response.start", "status": failed.status, "headers": headers})
    await call.send({"type": "http.response.body", "body": body})


def envelope(call: Call, failed: Failed) -> dict[str, Any]:
    """The one error body of this caller's surface."""
    return worded(call.surface.caller, call.id, failed)


def worded(caller: Caller | None, request_id: str, failed: Failed) -> dict[str, Any]:
    """A failure in a dialect's envelope; None is chat."""
    word = openai_error if caller is None else caller.error
    return word(failed.status, failed.kind, failed.code, failed.message, request_id, failed.param)


class StreamWriter:
    """One stream on its way to its caller; a heart beats until the first content comes."""

    __slots__ = ("_beat", "_call", "_calls", "_comments", "_encoder", "_handle", "_loop", "begun")

    def __init__(self, call: Call, encoder: Encoder | None) -> None:
        self._call = call
        self._encoder = encoder
        self._calls = WholeCalls() if call.mistral and call.surface.name == "chat" else None
        # Google's SDKs take a comment for the beginning of a JSON text; a blank line they pass over, as everybody does.
        self._comments = call.surface.native != "google"
        self._loop = call.loop
        self._beat: asyncio.Task[None] | None = None
        self._handle: asyncio.TimerHandle | None = self._loop.call_later(HEARTBEAT_S, self._start_beat)
        self.begun = False

    async def begin(self, call: Call, entry: Entry) -> None:
        await self._rest()
        if not self.begun:
            await self._begin(entry)

    async def send(self, data: bytes) -> None:
        if self._calls is not None:
            data = self._calls.feed(data)
            if not data:
                return
        await self._call.send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes) -> None:
        if self._calls is not None:
            data = self._calls.feed(data)
        await self._call.send({"type": "http.response.body", "body": data, "more_body": False})

    def comment(self, call: Call) -> bytes:
        if not self._comments:
            return b""
        return _heads.comment(accounts(call))

    async def fail(self, failed: Failed) -> None:
        """No attempt answered: in the envelope while no head was sent, as an event after a heart-beat."""
        await self._rest()
        if not self.begun:
            await refusal(self._call, failed)
            return
        code = failed.code or "upstream_error"
        if self._encoder is None:
            await self.end(chat_error(failed.kind, code, failed.message))
        else:
            await self.end(self._encoder.fail(failed.kind, code, failed.message, failed.status))

    async def close(self) -> None:
        """Nothing more is said by the heart."""
        await self._rest()

    async def _begin(self, entry: Entry) -> None:
        self.begun = True
        self._call.status = 200
        headers = head(self._call, entry)
        headers += STREAM
        await self._call.send({"type": "http.response.start", "status": 200, "headers": headers})

    def _start_beat(self) -> None:
        self._beat = self._loop.create_task(self._pulse())

    async def _pulse(self) -> None:
        if self._call.gone or self._call.entry is None:
            return
        if not self.begun:
            await self._begin(self._call.entry)
        await self.send(_PING if self._comments else b"\n")
        self._handle = self._loop.call_later(HEARTBEAT_S, self._start_beat)

    async def _rest(self) -> None:
        """Stop the heart, after the beat it may be in the middle of: two writers would mix their bytes."""
        if self._beat is not None:
            beat, self._beat = self._beat, None
            await beat
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
