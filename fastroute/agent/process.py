"""An agent as a process: its socket, its backend, its server and its announcements, begun and ended in the one safe order.

It listens before it is announced, and is off the router's list before it listens no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from msgspec import Struct

from fastroute.agent.announcing import Announcer, Offering
from fastroute.agent.app import AgentApp
from fastroute.agent.backend import Backend, BackendAway, BackendError
from fastroute.agent.router import Router
from fastroute.config import Secret
from fastroute.config.findings import is_loopback
from fastroute.supervisor import PortTaken
from fastroute.upstreams.pool import Pool
from fastroute.web.serving import BACKLOG, server

T = TypeVar("T")

CONNECTIONS_MAX: Final = 4096
DRAIN_S: Final = 60.0
# What was sent here a moment before the router knew is still taken.
UNREADY_S: Final = 0.5
# A backend loads its weights for minutes; nobody is helped by asking it more often, nor by being late.
_BACKEND_PAUSE_S: Final = 1.0
_LOOK_AGAIN_S: Final = 0.1


class Terms(Struct, frozen=True):
    """What an agent was started with, read and checked; `models` maps names offered to the backend's own, None asks it."""

    name: str
    host: str
    port: int
    endpoint: str | None
    models: Mapping[str, str] | None
    router: str
    token: Secret | None
    interval_s: float

    @property
    def closed(self) -> bool:
        """Whether others than this machine reach it: then only its router is let in."""
        return not is_loopback(self.host)


async def serve(terms: Terms, backend_in: Callable[[Pool], Backend], say: Callable[[str], None]) -> None:
    """Answer until SIGTERM or Ctrl-C, then finish what is open; a second signal does not wait for it."""
    loop = asyncio.get_running_loop()
    signals = _Signals()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signals.came)
    pool = Pool()
    with _listener(terms.host, terms.port) as listener:
        backend = backend_in(pool)
        try:
            models = await _or_stopped(signals, _models(terms, backend, say))
            if models is not None:
                await _announced(terms, models, backend, pool, listener, signals, say)
        finally:
            await backend.close()
            await pool.aclose()
    say("stopped")


async def _announced(
    terms: Terms,
    models: Mapping[str, str],
    backend: Backend,
    pool: Pool,
    listener: socket.socket,
    signals: _Signals,
    say: Callable[[str], None],
) -> None:
    app = AgentApp(models, backend.upstream(), pool, closed=terms.closed)
    port: int = listener.getsockname()[1]
    endpoint = terms.endpoint or f"http://{_bracketed(_own_address(terms))}:{port}"
    say(f"agent {terms.name} at {endpoint} offers {', '.join(models)} of {backend.words}")

    def use_key(key: str | None) -> None:
        app.gate.key = key

    router = Router(terms.router, None if terms.token is None else terms.token.reveal(), pool)
    offering = Offering(terms.name, endpoint, tuple(models), terms.closed)
    announcer = Announcer(router, offering, terms.interval_s, lambda: app.busy, use_key, say)
    served = server(app, terms.host, port, CONNECTIONS_MAX, listener)
    serving = asyncio.create_task(served.serve())
    announcing = asyncio.create_task(announcer.run())
    stopping = asyncio.create_task(signals.first.wait())
    try:
        await asyncio.wait((serving, announcing, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not announcing.done():
            announcing.cancel()
            await asyncio.wait((announcing,))
        app.ready = False
        await announcer.farewell()
        if app.busy:
            say(f"draining: {app.busy} requests are open")
        await _pause(signals, UNREADY_S)
    finally:
        stopping.cancel()
        listener.close()
        served.end()
        await _drained(serving, app, signals)
    if not announcing.cancelled():
        announcing.result()  # why the router would not have it


async def _drained(serving: asyncio.Task[None], app: AgentApp, signals: _Signals) -> None:
    """Until the last answer is over, but no longer than was said, and not at all once somebody insists."""
    insisted = asyncio.create_task(signals.second.wait())
    await asyncio.wait((serving, insisted), timeout=DRAIN_S, return_when=asyncio.FIRST_COMPLETED)
    insisted.cancel()
    while not serving.done():
        app.cut()
        await asyncio.wait((serving,), timeout=_LOOK_AGAIN_S)
    await serving


async def _models(terms: Terms, backend: Backend, say: Callable[[str], None]) -> Mapping[str, str]:
    """What is offered, once the backend is ready; `BackendError` when it tells no models and nobody named any."""
    said = ""
    while True:
        try:
            found = await backend.open()
        except BackendAway as away:
            if str(away) != said:
                said = str(away)
                say(f"{said}; waiting for it")
            await asyncio.sleep(_BACKEND_PAUSE_S)
            continue
        if terms.models is not None:
            return terms.models
        if not found:
            raise BackendError(f"the backend {backend.words} lists no models; name them with --models")
        return {name: name for name in found}


class _Signals:
    """How often somebody asked for the end."""

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()

    def came(self) -> None:
        (self.second if self.first.is_set() else self.first).set()


async def _or_stopped(signals: _Signals, work: Coroutine[Any, Any, T]) -> T | None:
    """What a wait comes to; None when somebody asked for the end before."""
    waiting = asyncio.create_task(work)
    stopping = asyncio.create_task(signals.first.wait())
    await asyncio.wait((waiting, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if waiting.done():
        return waiting.result()
    waiting.cancel()
    await asyncio.wait((waiting,))
    return None


async def _pause(signals: _Signals, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await signals.second.wait()


def _listener(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=BACKLOG
        )
    except OSError as error:
        raise PortTaken(f"cannot listen on {host}:{port}: {error.strerror}; choose another with --port") from None


def _own_address(terms: Terms) -> str:
    """Where others reach this machine: the address it is bound to, or else the one it reaches its router from."""
    if terms.host not in ("0.0.0.0", "::"):  # noqa: S104  only compared: what is bound is the terms' own
        return terms.host
    parts = urlsplit(terms.router)
    try:
        family, _, _, _, place = socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(place)  # nothing is sent: it only asks which way it would go
            found: str = probe.getsockname()[0]
            return found
    except OSError as error:
        raise BackendError(
            f"which address others reach this machine at is not known ({error.strerror}); say it with --endpoint"
        ) from None


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
