"""The thread of an embedded router: its loop, its socket and its server, started and stopped in the one order that is safe.

The socket listens before anything else is there, so that a request is never refused for coming early. At the end requests
come first, then the books, then the connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import threading

import uvloop
from msgspec import Struct

from fastroute.call import Failed
from fastroute.config import Secret
from fastroute.embed.analytics import Events
from fastroute.embed.funding import Funding, Pace
from fastroute.embed.panel import Panel
from fastroute.embed.proxy import Proxy, Target, settings
from fastroute.embed.purse import Purse
from fastroute.errors import FastrouteError
from fastroute.upstreams.pool import Pool
from fastroute.web.serving import BACKLOG, server

_CONNECTIONS_MAX = 1024
_HOST = "127.0.0.1"
# A caller that takes nothing for so long is gone, whatever its socket says.
_WRITE_MS = 60_000
_LOOK_AGAIN_S = 0.1


class RouterUnfunded(FastrouteError):
    """A strict router found no panel, no key or no budget when it started."""


class Terms(Struct, frozen=True):
    """What a router was made with, read and checked; `panel` is its address."""

    token: Secret
    panel: str | None
    target: Target | None
    leases: bool
    ttl_s: float
    strict: bool


class Engine:
    """One running router; every method may be called from any thread."""

    def __init__(self, terms: Terms, purse: Purse, pace: Pace) -> None:
        self.provider = "unknown" if terms.target is None else terms.target.provider
        self.funded = terms.panel is None
        self._terms, self._purse, self._pace = terms, purse, pace
        self._process = os.getpid()
        self._listener = socket.create_server((_HOST, 0), backlog=BACKLOG)
        self.port: int = self._listener.getsockname()[1]
        if sys.platform == "linux":  # accepted sockets inherit it
            self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _WRITE_MS)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._running = False
        self._ready = threading.Event()
        self._fault: BaseException | None = None
        # A daemon: a program that ends without a word still stops it first, by its finalizer.
        self._thread = threading.Thread(target=self._run, name=f"fastroute-{self.port}", daemon=True)

    @property
    def running(self) -> bool:
        return self._running and os.getpid() == self._process

    def start(self) -> None:
        """Return when requests are answered; what went wrong is raised here."""
        self._thread.start()
        self._ready.wait()
        if self._fault is not None:
            self._thread.join()
            raise self._fault

    def stop(self) -> None:
        """Return when every request was answered and the books are closed; more often than once is the same."""
        if os.getpid() != self._process:
            return  # a forked child has a copy of this, and none of the thread
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # it is over already
                loop.call_soon_threadsafe(self._stop.set)
        if threading.current_thread() is not self._thread:  # a collector may run anywhere
            self._thread.join()

    # --- in the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve())
        except BaseException as fault:
            if self._ready.is_set():
                raise
            self._fault = fault
        finally:
            self._running = False
            self._listener.close()
            self._ready.set()

    async def _serve(self) -> None:
        terms = self._terms
        self._loop = asyncio.get_running_loop()
        pool = Pool()
        panel = None if terms.panel is None else Panel(terms.panel, terms.token.reveal(), pool, self._pace.ask_s)
        events = None if panel is None else Events(panel, self._pace.sync_s)

        def obstacle() -> Failed | None:
            return None if funding is None else funding.obstacle()

        proxy = Proxy(settings(terms.token), pool, self._purse, obstacle, None if events is None else events.note)
        funding = self._funding(panel, proxy)
        tasks: list[asyncio.Task[None]] = []
        try:
            if terms.target is not None:
                proxy.use(terms.target)
            if funding is not None:
                await funding.step()
                self._look(funding)
                if terms.strict and funding.cause is not None:
                    raise RouterUnfunded(funding.cause.message)
                tasks.append(asyncio.create_task(self._fund(funding)))
            if events is not None:
                tasks.append(asyncio.create_task(events.run()))
            served = server(proxy, _HOST, self.port, _CONNECTIONS_MAX, self._listener)
            serving = asyncio.create_task(served.serve())
            await asyncio.sleep(0)
            self._running = True
            self._ready.set()
            stopping = asyncio.create_task(self._stop.wait())
            await asyncio.wait((serving, stopping, *tasks), return_when=asyncio.FIRST_COMPLETED)
            self._running = False
            self._listener.close()
            served.end()
            await self._drain(serving, proxy)
            stopping.cancel()
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pace.stop_s):
                    await self._close(funding, events, tasks)
            await pool.aclose()

    def _funding(self, panel: Panel | None, proxy: Proxy) -> Funding | None:
        terms = self._terms
        if panel is None:
            return None

        def use(target: Target) -> None:
            proxy.use(target)
            self.provider = target.provider

        return Funding(panel, self._purse, use, self._pace, terms.ttl_s, terms.target, leases=terms.leases)

    async def _fund(self, funding: Funding) -> None:
        while not self._stop.is_set():
            await funding.run_once()
            self._look(funding)

    async def _close(self, funding: Funding | None, events: Events | None, tasks: list[asyncio.Task[None]]) -> None:
        """The books' end; what is being said to the panel is said, since nobody knows what it heard of a half."""
        self._stop.set()
        if funding is not None:
            funding.wake()
        if events is not None:
            events.close()
        await asyncio.gather(*tasks)
        if funding is not None:
            await funding.close()
        if events is not None:
            await events.sync()

    def _look(self, funding: Funding) -> None:
        self.funded = funding.cause is None

    async def _drain(self, serving: asyncio.Task[None], proxy: Proxy) -> None:
        """Let requests end by themselves, then end them; the books wait for the last of them."""
        await asyncio.wait((serving,), timeout=self._pace.drain_s)
        while not serving.done() or proxy.busy:
            proxy.cut()
            await asyncio.sleep(0)
            await asyncio.wait((serving,), timeout=_LOOK_AGAIN_S)
        await serving
