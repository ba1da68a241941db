"""Upstreams that answer inside the process: a script of what arrives when, told with the rules of a socket.

`InProcess` is the base of them all, `ScriptedExchange` what the relay holds, `DummyUpstream` the placeholder model.
`demo` stands on this file; the socket twin is `upstream.Remote`.
"""

from __future__ import annotations

import asyncio
import secrets
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Mapping
from typing import Final

import orjson
from msgspec import Struct

from fastroute.clock import Clock, SystemClock
from fastroute.upstreams import sse
from fastroute.upstreams._wire import READ_MAX
from fastroute.upstreams.dialect import Dialect
from fastroute.upstreams.dummy import Dummy
from fastroute.upstreams.faults import FaultKind, UpstreamFault
from fastroute.upstreams.pool import Deadlines

JSON: Final[dict[bytes, bytes]] = {b"content-type": b"application/json"}
EVENT_STREAM: Final[dict[bytes, bytes]] = {b"content-type": b"text/event-stream; charset=utf-8"}

_NEVER: Final = float("inf")
# uvloop's timers are whole milliseconds and may fire up to half of one early.
_TICK_S: Final = 0.001
# Callers make up names that begin with `dummy`.
_WRITTEN_MAX: Final = 64


class Script(Struct, frozen=True):
    """An answer and its timing: the head comes `head_ms` after the request, each piece so long after what came before.

    `end` None is a clean end, right after the last piece; a kind there is the fault that comes in its place. Names of
    headers are in lower case.
    """

    status: int
    headers: Mapping[bytes, bytes]
    pieces: tuple[tuple[int, bytes], ...]
    head_ms: int = 0
    end: FaultKind | None = None
    instant: bool = False  # everything is there at once and well: no delays, no fault


class ScriptedExchange:
    """One scripted answer under way; it keeps the contract of the wire's exchange, and has one reader at a time.

    What is due is worked out when somebody looks, so nothing runs while nobody waits: the only timer is that of a
    waiting reader, and it goes with the wait. A reader that is cancelled stops the exchange.
    """

    __slots__ = (
        "_committed",
        "_first_chunk_at",
        "_idle_s",
        "_kind",
        "_last_at",
        "_loop",
        "_next_at",
        "_over",
        "_place",
        "_script",
        "_timed_out",
        "_total_at",
        "_unread",
        "_waiter",
        "_words",
    )

    def __init__(self, script: Script, deadlines: Deadlines, loop: asyncio.AbstractEventLoop) -> None:
        self._script = script
        self._loop = loop
        self._kind: FaultKind | None = None
        self._words = ""
        self._timed_out = False
        self._committed = False
        self._waiter: asyncio.Future[None] | None = None
        self._over = script.instant
        if self._over:
            # The placeholder answers this way, and a third of its cost would be clocks and deadlines nobody meets.
            self._unread = [data for _, data in script.pieces]
            self._place = len(script.pieces)
            return
        now = loop.time()
        self._first_chunk_at = now + _seconds(deadlines.first_chunk_ms)
        self._idle_s = _seconds(deadlines.idle_ms)
        self._total_at = now + _seconds(deadlines.total_ms)
        self._unread = []
        self._place = -1  # what comes next: -1 is the head, then the number of a piece
        self._last_at = now
        self._next_at = now + script.head_ms / 1000

    def __repr__(self) -> str:
        state = self._kind or ("complete" if self._over else "open")
        return f"<ScriptedExchange {state} status={self.status} unread={self._size()}>"

    @property
    def status(self) -> int:
        return self._script.status

    @property
    def sent(self) -> bool:
        """Nothing stands between the caller and this upstream: what is asked has arrived."""
        return True

    @property
    def complete(self) -> bool:
        """The whole answer has arrived, and nothing was wrong with it."""
        self._advance()
        return self._over and self._kind is None

    def header(self, name: bytes) -> bytes | None:
        return self._script.headers.get(name.lower())

    def committed(self) -> None:
        """Content has come: the first-chunk deadline ends and the idle deadline begins."""
        self._advance()
        self._committed = True
        self._wake()  # a reader in another task must now wait by the other deadline

    def stop(self) -> None:
        """End it now, unless the whole answer has arrived; a waiting reader gets the fault `stopped`."""
        self._advance()
        if self._over:
            return
        self._unread.clear()
        self._fail("stopped", "told to stop")
        self._wake()

    def answer(self) -> bool:
        """Whether the head is here; raises the fault when it will not come."""
        self._advance()
        if self._place < 0 and self._kind is not None:
            raise self._fault()
        return self._place >= 0

    def coming(self) -> Awaitable[None]:
        """Done once something has happened."""
        return self._wait()

    async def read(self, limit: int = READ_MAX) -> bytes:
        """The rest of the body, whole; a fault is raised at once, and `limit` when it is larger."""
        self._advance()
        while not self._over and self._size() <= limit:
            await self._wait()
        if self._kind is None and self._size() > limit:
            self._fail("limit", "the body is larger than the reader allows")
        if self._kind is not None:
            raise self._fault()
        return self._take()

    async def chunk(self) -> bytes:
        """Everything that has arrived since the last call, waiting for some; what came before a fault comes first."""
        self._advance()
        while not self._unread:
            if self._kind is not None:
                raise self._fault()
            if self._over:
                return b""
            await self._wait()
        return self._take()

    def _size(self) -> int:
        return sum(map(len, self._unread))

    def _take(self) -> bytes:
        data = self._unread[0] if len(self._unread) == 1 else b"".join(self._unread)
        self._unread.clear()
        return data

    async def _wait(self) -> None:
        """Until the next thing happens."""
        if self._waiter is not None:
            raise RuntimeError("an exchange has one reader at a time")
        self._waiter = self._loop.create_future()
        at = min(self._next_at, self._due())
        timer = self._loop.call_at(at, self._wake) if at < _NEVER else None
        try:
            await self._waiter
        except BaseException:
            self.stop()
            raise
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()
        self._advance()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _due(self) -> float:
        return min(self._total_at, self._last_at + self._idle_s if self._committed else self._first_chunk_at)

    def _advance(self) -> None:
        """Let everything happen that was due by now, in its own order."""
        if self._over:
            return
        now = self._loop.time() + _TICK_S
        while not self._over:
            due = self._due()
            if self._next_at <= due:
                if self._next_at > now:
                    return
                self._arrive()
            elif due <= now:
                self._expire()
            else:
                return

    def _arrive(self) -> None:
        pieces = self._script.pieces
        if self._place >= 0:
            data = pieces[self._place][1]
            if data:
                self._unread.append(data)
        self._last_at = self._next_at
        self._place += 1
        if self._place < len(pieces):
            self._next_at += pieces[self._place][0] / 1000
        elif self._script.end is None:
            self._over = True
        else:
            self._fail(self._script.end, "the answer ended before it was whole")

    def _expire(self) -> None:
        if self._total_at <= self._due():
            self._fail("total", "the whole exchange took longer than its deadline", timed_out=True)
        elif not self._committed:
            self._fail("first_chunk", "no content before the first-chunk deadline", timed_out=True)
        else:
            self._fail("idle", "nothing came for as long as the idle deadline", timed_out=True)

    def _fail(self, kind: FaultKind, words: str, *, timed_out: bool = False) -> None:
        self._over = True
        self._kind, self._words, self._timed_out = kind, words, timed_out

    def _fault(self) -> UpstreamFault:
        assert self._kind is not None
        return UpstreamFault(self._kind, self._words, sent=True, timed_out=self._timed_out)


class InProcess(ABC):
    """An upstream that is asked and answers without a socket; what it says is decided before its first byte."""

    native_responses = False

    def __init__(self, name: str, display: str, dialect: Dialect) -> None:
        self.name = name
        self.display = display
        self.dialect = dialect

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name})"

    def without_key(self, text: str) -> str:
        return text  # nothing in this process has a key

    @abstractmethod
    def script(self, operation: str, model: str, stream: bool, body: bytes) -> Script:
        """The whole answer to one request; it never raises for what a caller may have said."""

    def begin(
        self, operation: str, model: str, stream: bool, passed: Mapping[str, str], body: bytes, deadlines: Deadlines
    ) -> ScriptedExchange:
        """The caller's own headers mean nothing here."""
        script = self.script(operation, model, stream, body)
        return ScriptedExchange(script, deadlines, asyncio.get_running_loop())


class DummyUpstream(InProcess):
    """The placeholder model: chat, whole or streamed, at once and for nothing."""

    def __init__(self, name: str = "dummy", *, clock: Clock | None = None) -> None:
        self._dummy = Dummy()
        super().__init__(name, "Dummy", self._dummy)
        self._clock = clock or SystemClock()
        # Ids differ between workers by their beginning and within one by their end, counted from 1.
        self._run = secrets.token_hex(8).encode()
        self._made = 0
        # Answers of one second differ in their id alone: written once, with the id put in, a stream costs 4 us, not 14.
        self._blank = self._run + b"0" * 16
        self._created = 0
        self._written: dict[tuple[str, bool], bytes] = {}

    def script(self, operation: str, model: str, stream: bool, body: bytes) -> Script:
        if operation != "chat":
            return not_offered(self.display, operation)
        self._made += 1
        created = int(self._clock.now().timestamp())
        if created != self._created or len(self._written) >= _WRITTEN_MAX:
            self._created = created
            self._written.clear()
        data = self._written.get((model, stream)) or self._write(model, stream)
        pieces = ((0, data.replace(self._blank, b"%b%016x" % (self._run, self._made))),)
        return Script(200, EVENT_STREAM if stream else JSON, pieces, instant=True)

    def _write(self, model: str, stream: bool) -> bytes:
        """The answer with a blank id, good for as long as the second lasts."""
        blank = self._blank.decode()
        if stream:
            events = self._dummy.events(model, created=self._created, hex=blank)
            data = b"".join([sse.encode(data) for _, data in events])
        else:
            data = orjson.dumps(self._dummy.body(model, created=self._created, hex=blank))
        self._written[model, stream] = data
        return data


def refusal(
    status: int, kind: str, code: str | None, message: str, *, param: str | None = None, head_ms: int = 0
) -> Script:
    """An error as OpenAI words it."""
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return Script(status, JSON, ((0, orjson.dumps(body)),), head_ms)


def not_offered(display: str, operation: str) -> Script:
    """What an upstream answers to an operation it has no place for."""
    return refusal(404, "invalid_request_error", "unknown_url", f"{display} offers no {operation}")


def _seconds(milliseconds: int | None) -> float:
    return _NEVER if milliseconds is None else milliseconds / 1000
