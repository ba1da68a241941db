"""What callers read: heads with their `X-Router-*` headers, error envelopes in each dialect, and streams as they go."""

from __future__ import annotations

from typing import Any, Final

import orjson

from fastroute._sweep import Sweep
from fastroute.call import Call
from fastroute.callers import Caller
from fastroute.callers.shape import openai_error
from fastroute.pipes import chat_error
from fastroute.relay import Failed
from fastroute.upstreams import sse
from fastroute.web._front import STREAM, UNBUFFERED, StreamCore, accounts, answer, head

__all__ = [
    "STREAM",
    "UNBUFFERED",
    "StreamWriter",
    "accounts",
    "answer",
    "beats",
    "envelope",
    "head",
    "refusal",
    "worded",
]

# Later than the usual first-chunk deadline: once a heart has beaten, the head names the provider that was waited for.
HEARTBEAT_S: Final = 13.0

_JSON: Final = (b"content-type", b"application/json")
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


class StreamWriter(StreamCore):
    """One stream on its way to its caller; a heart beats until the first content comes."""

    __slots__ = ()

    async def fail(self, failed: Failed) -> None:
        """No attempt answered: in the envelope while no head was sent, as an event after a heart-beat."""
        await self.rest()
        if not self.begun:
            await refusal(self.call, failed)
            return
        code = failed.code or "upstream_error"
        if self.encoder is None:
            await self.end(chat_error(failed.kind, code, failed.message))
        else:
            await self.end(self.encoder.fail(failed.kind, code, failed.message, failed.status))

    def beat(self) -> None:
        self.beating = self.call.loop.create_task(self._pulse())

    async def _pulse(self) -> None:
        if self.call.gone or self.call.entry is None:
            return
        if not self.begun:
            await self.open(self.call.entry)
        await self.send(_PING if self.comments else b"\n")
        self.beats.add(self, self.call.loop)


def beats(seconds: float = HEARTBEAT_S) -> Sweep[StreamWriter]:
    """When the hearts of all streams beat."""
    return Sweep(seconds, StreamWriter.beat)
