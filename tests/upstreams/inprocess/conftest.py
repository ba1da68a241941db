"""An event loop whose clock jumps to the next timer, and a way to ask an upstream in it."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

import orjson
import pytest

from fastroute.upstreams.faults import UpstreamFault
from fastroute.upstreams.inprocess import InProcess
from fastroute.upstreams.pool import Deadlines


class _Jumping(selectors.DefaultSelector):
    """Waits for nothing: what the loop would have waited becomes time that has passed."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        events = super().select(0)
        if not events:
            assert timeout is not None, "everybody waits and nothing will ever happen"
            self.now += max(timeout, 0)
        return events


class JumpingLoop(asyncio.SelectorEventLoop):
    """A loop in which a minute takes no time; it remembers every timer that was set."""

    def __init__(self) -> None:
        self.timers: list[asyncio.TimerHandle] = []
        self.jumping = _Jumping()
        super().__init__(self.jumping)

    def time(self) -> float:
        return self.jumping.now

    def call_at(self, when: float, *args: Any, **kwargs: Any) -> asyncio.TimerHandle:
        timer = super().call_at(when, *args, **kwargs)
        self.timers.append(timer)
        return timer

    @property
    def pending(self) -> list[asyncio.TimerHandle]:
        """Timers that could still fire."""
        return [timer for timer in self.timers if not timer.cancelled() and timer.when() > self.time()]


@pytest.fixture
def loop():
    made = JumpingLoop()
    yield made
    made.close()


@pytest.fixture
def run(loop: JumpingLoop) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Run one coroutine to its end on the jumping clock."""
    return loop.run_until_complete


PATIENT = Deadlines(connect_ms=None, first_chunk_ms=None, idle_ms=None, total_ms=None)


@pytest.fixture
def patient() -> Deadlines:
    return PATIENT


class Told:
    """What a caller got: status, bytes, and when each chunk came (milliseconds after the request)."""

    def __init__(self, status: int, chunks: list[tuple[int, bytes]], fault: UpstreamFault | None) -> None:
        self.status = status
        self.chunks = chunks
        self.fault = fault
        self.raw = b"".join(data for _, data in chunks)

    @property
    def json(self) -> dict[str, Any]:
        return orjson.loads(self.raw)

    @property
    def events(self) -> list[bytes]:
        assert self.raw.endswith(b"\n\n")
        parts = self.raw.removesuffix(b"\n\n").split(b"\n\n")
        assert all(part.startswith(b"data: ") and b"\n" not in part for part in parts)
        return [part[6:] for part in parts]

    @property
    def objects(self) -> list[dict[str, Any]]:
        """The events of a stream that ended well, without the last word."""
        *events, last = self.events
        assert last == b"[DONE]"
        return [orjson.loads(event) for event in events]


@pytest.fixture
def ask(loop: JumpingLoop) -> Callable[..., Told]:
    """`ask(upstream, operation, body, stream=False)`: the whole answer of one exchange."""

    async def told(upstream: InProcess, operation: str, body: Any, stream: bool) -> Told:
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        model = body.get("model", "dummy") if isinstance(body, dict) else "demo-small"
        begun = loop.time()
        exchange = upstream.begin(operation, model, stream, {}, raw, PATIENT)
        while not exchange.answer():
            await exchange.coming()
        chunks, fault = [], None
        try:
            while data := await exchange.chunk():
                chunks.append((round((loop.time() - begun) * 1000), data))
        except UpstreamFault as error:
            fault = error
        return Told(exchange.status, chunks, fault)

    def asked(upstream: InProcess, operation: str, body: Any, *, stream: bool = False) -> Told:
        return loop.run_until_complete(told(upstream, operation, body, stream))

    return asked
