"""An upstream on this machine that may have to be started first: weights in a process of their own.

While it answers, it is a `Remote` like any other. Until then a request waits, as long as its first chunk may take; the
process may have another port and key after each of its starts. Who starts it is not known here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol

from msgspec.structs import replace

from fastroute.errors import FastrouteError
from fastroute.upstreams._wire import READ_MAX
from fastroute.upstreams.dialect import Dialect
from fastroute.upstreams.faults import FaultKind, UpstreamFault
from fastroute.upstreams.openai import OpenAI
from fastroute.upstreams.pool import Deadlines, Pool
from fastroute.upstreams.upstream import Exchange, Remote

# How many of one worker's requests may wait at the process itself; the others wait here for a connection.
CONNECTIONS_MAX: Final = 32
_NEVER: Final = float("inf")


class Where(Protocol):
    """The address and key of a process that answers now."""

    @property
    def base_url(self) -> str: ...
    @property
    def api_key(self) -> str: ...


class Keeper(Protocol):
    """Who knows whether the process is there, and starts it when it is not."""

    def address(self) -> Where | None: ...

    async def arrive(self) -> Where:
        """Where it answers, once it does; a `FastrouteError` says why it will not."""


class Hosted:
    """The upstream of one process; `native_responses` and the rest are those of any OpenAI-compatible provider."""

    native_responses = False

    def __init__(self, name: str, display: str, keeper: Keeper, pool: Pool, told: Callable[[str], object]) -> None:
        self.name = name
        self.display = display
        self.dialect: Dialect = OpenAI()
        self._keeper = keeper
        self._pool = pool
        self._tell = told  # who writes down why it cannot be had
        self._said = ""
        self._at: Where | None = None
        self._remote: Remote | None = None

    def __repr__(self) -> str:
        return f"Hosted({self.display})"

    def without_key(self, text: str) -> str:
        return text if self._remote is None else self._remote.without_key(text)

    def begin(
        self, operation: str, model: str, stream: bool, passed: Mapping[str, str], body: bytes, deadlines: Deadlines
    ) -> Exchange:
        def send(where: Where, left: Deadlines) -> Exchange:
            return self._reached(where).begin(operation, model, stream, passed, body, left)

        where = self._keeper.address()
        if where is not None:
            return send(where, deadlines)
        return Arriving(self._keeper, send, deadlines, self.display, self._told)

    def _told(self, why: str) -> None:
        if why != self._said:  # the same is no news to whoever reads the log
            self._said = why
            self._tell(why)

    def _reached(self, where: Where) -> Remote:
        if self._remote is None or where is not self._at:
            base_url = where.base_url.removesuffix("/v1")
            self._remote = Remote(
                self.name,
                self.display,
                self.dialect,
                base_url,
                where.api_key,
                self._pool,
                connections_max=CONNECTIONS_MAX,
            )
            self._at, self._said = where, ""
        return self._remote


class Arriving:
    """A request whose upstream is on its way: it is sent once that answers, within the deadlines of the request."""

    def __init__(
        self,
        keeper: Keeper,
        send: Callable[[Where, Deadlines], Exchange],
        deadlines: Deadlines,
        display: str,
        told: Callable[[str], object],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._send, self._deadlines, self._display, self._told = send, deadlines, display, told
        self._inner: Exchange | None = None
        self._fault: UpstreamFault | None = None
        self._task = self._loop.create_task(self._arrive(keeper))

    def __repr__(self) -> str:
        state = self._fault.kind if self._fault else "sent" if self._inner else "waiting"
        return f"<Arriving {state}>"

    async def _arrive(self, keeper: Keeper) -> None:
        limits = (self._deadlines.first_chunk_ms, self._deadlines.total_ms)
        first_s, total_s = (_NEVER if ms is None else ms / 1000 for ms in limits)
        patience = min(first_s, total_s)
        try:
            async with asyncio.timeout(None if patience == _NEVER else patience):
                where = await keeper.arrive()
        except TimeoutError:
            self._fail("loading", f"{self._display} is being loaded; ask again in a moment", timed_out=True)
        except FastrouteError as error:
            self._told(str(error))
            self._fail("unloadable", str(error))
        else:
            if self._fault is None:
                self._inner = self._send(where, self._left())

    def _left(self) -> Deadlines:
        """What the wait has left of the deadlines."""
        gone_ms = int((self._loop.time() - self._began) * 1000)
        told = self._deadlines
        left = [None if ms is None else max(ms - gone_ms, 1) for ms in (told.first_chunk_ms, told.total_ms)]
        return replace(told, first_chunk_ms=left[0], total_ms=left[1])

    def _fail(self, kind: FaultKind, message: str, *, timed_out: bool = False) -> None:
        if self._fault is None:
            self._fault = UpstreamFault(kind, message, sent=False, timed_out=timed_out)

    @property
    def _sent(self) -> Exchange:
        if self._fault is not None:
            raise self._fault
        assert self._inner is not None, "an answer is awaited before it is read"
        return self._inner

    @property
    def status(self) -> int:
        return self._sent.status

    @property
    def sent(self) -> bool:
        return self._inner is not None and self._inner.sent

    @property
    def complete(self) -> bool:
        return self._inner is not None and self._inner.complete

    def header(self, name: bytes) -> bytes | None:
        return self._sent.header(name)

    def answer(self) -> bool:
        """Whether the head is here; raises the fault when it will not come."""
        if self._inner is not None:
            return self._inner.answer()
        if self._fault is not None:
            raise self._fault
        return False

    def coming(self) -> Awaitable[None]:
        """Done once something has happened."""
        return self._inner.coming() if self._inner is not None else self._wait()

    async def _wait(self) -> None:
        try:
            await asyncio.wait({self._task})
        except asyncio.CancelledError:
            self.stop()
            raise
        if not self._task.cancelled():
            self._task.result()  # a fault of ours is loud

    async def read(self, limit: int = READ_MAX) -> bytes:
        return await self._sent.read(limit)

    async def chunk(self) -> bytes:
        return await self._sent.chunk()

    def committed(self) -> None:
        if self._inner is not None:
            self._inner.committed()

    def stop(self) -> None:
        """End it now; a waiting reader gets the fault `stopped`."""
        if self._inner is not None:
            self._inner.stop()
        else:
            self._fail("stopped", "told to stop")
            self._task.cancel()
