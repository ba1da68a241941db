"""One worker process: an event loop, the application and the server that feeds it.

On SIGTERM readiness goes off first, then no new connection is taken, and streams get their time.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import socket
import sys
from pathlib import Path

import uvloop

from fastroute import logs
from fastroute.clock import SystemClock
from fastroute.config import Config
from fastroute.errors import FastrouteError
from fastroute.ledger import secrets
from fastroute.ledger.teller import Teller
from fastroute.limits import Limiter
from fastroute.reloading import Load, Reloader
from fastroute.watchdog import Watchdog
from fastroute.web.app import Application, application
from fastroute.web.serving import server as server_of

# Half a second in which a load balancer may see that we are not ready and send its requests elsewhere.
UNREADY_S = 0.5
# A caller that takes nothing for so long is gone, whatever its socket says.
WRITE_S = 60.0
_LOOK_AGAIN_S = 0.1
# How long those whose answer is cut may take to read that it is.
_TOLD_S = 1.0
# How often open answers are looked through for those whose key was revoked.
_REVOKED_S = 1.0
# Objects made and not yet gone before the collector looks for cycles. Python's own 700 are what a few requests hold at
# once: every look then finds them all alive, at 12 us a request and 25 a stream (measured with 32 of them open).
_YOUNG_MAX = 20_000
# Descriptors a worker needs for itself: libraries' pipes, logs, counters, the loop's own.
_OWN_FILES = 64

# What a worker that cannot serve ends with, of sysexits.h: whoever supervises it tries again later.
_CANNOT = 74

log = logging.getLogger("fastroute.worker")


def work(config: Config, number: int, load: Load | None = None) -> None:
    """Serve until SIGTERM; on SIGHUP `load` gives the configuration anew."""
    logging.getLogger().handlers.clear()  # the supervisor's, inherited
    lines = logs.setup(config.log.level, config.log.path, number, secrets=config.secrets())
    try:
        uvloop.run(_serve(config, number, lines, load))
    except FastrouteError as error:
        # A disk without room, books that nobody opens: said once for each start, without our insides.
        log.critical("worker %d cannot serve: %s", number, error)
        sys.exit(_CANNOT)
    finally:
        logs.shutdown()


async def _serve(config: Config, number: int, lines: logs.Logs, load: Load | None) -> None:
    clock = SystemClock()
    teller = await Teller.open(config.state_dir, number, pepper=secrets.pepper(config.state_dir), clock=clock)
    limiter = Limiter.open(config.state_dir / "run" / "limits", number, window_s=config.limits.window_s)
    limiter.clear_worker(number)  # whoever had this place before is dead
    app = application(config, number, lines, teller, limiter)
    gc.collect()
    gc.freeze()  # what is there now stays, and need not be looked at again
    gc.set_threshold(_YOUNG_MAX, 10, 10)
    terms = config.server
    most = _connections_max(terms.backpressure)
    server = server_of(app, terms.host, terms.port, most, kind=terms.listener, refused=app.refused)
    app.ready = False
    stop = asyncio.Event()
    reloader = Reloader(config, load, app.take)
    app.look = reloader.look
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reloader.reload)
    app.watchdog = Watchdog(app.gateway.metrics.loop_lag.of().observe)
    serving = asyncio.create_task(server.serve())
    stopping = asyncio.create_task(stop.wait())
    guarding = asyncio.create_task(_guard_writes(config.server.port, app))
    ending = asyncio.create_task(_end_revoked(app, teller))
    await asyncio.wait((serving, stopping, ending), return_when=asyncio.FIRST_COMPLETED)
    guarding.cancel()
    ending.cancel()
    reloader.close()
    if stop.is_set() or teller.lost:
        app.ready = False
        if app.gateway.aside is not None:
            app.gateway.aside.leave()
        await asyncio.sleep(UNREADY_S if app.busy else 0)
        server.end()
        await asyncio.wait((serving,), timeout=config.server.drain_ms / 1000)
        cut_at = asyncio.get_running_loop().time() + _TOLD_S
        while not serving.done():
            app.cut()
            await asyncio.wait((serving,), timeout=_LOOK_AGAIN_S)
            if asyncio.get_running_loop().time() >= cut_at:
                server.cut()
    stopping.cancel()
    app.watchdog.close()
    await serving
    if app.gateway.cache is not None:
        await app.gateway.cache.close()
    if app.gateway.aside is not None:
        await app.gateway.aside.close()
    await teller.close()
    limiter.close()


async def _end_revoked(app: Application, teller: Teller) -> None:
    """Cut the answers of accounts that are no more, until this worker's own life is over in the books."""
    while not teller.lost:
        await asyncio.sleep(_REVOKED_S)
        app.cut_ended(teller)
    log.error("%s; this worker ends, and another begins", teller.lost)


def _connections_max(wanted: int) -> int:
    """How many connections are taken: every request may want a second descriptor, for its upstream.

    Without that the idle connections to upstreams could hold the last ones, and nobody would be let in until they close.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    fitting = wanted if limit == resource.RLIM_INFINITY else max((limit - _OWN_FILES) // 2, 1)
    if fitting < wanted:
        log.warning("the limit of %d open files leaves room for %d connections, not %d", limit, fitting, wanted)
    return min(fitting, wanted)


async def _guard_writes(port: int, app: Application) -> None:
    """Let the kernel end a connection whose caller has taken nothing for too long; accepted sockets inherit it.

    Nothing else could: the server waits for ever, and gives us no socket to close. Elsewhere than on Linux a caller
    that never reads keeps its place until it leaves.
    """
    if sys.platform == "linux":
        listener = _listener(port)
        while listener is None:  # the server tells nobody that it listens
            await asyncio.sleep(0.005)
            listener = _listener(port)
        with listener:
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(WRITE_S * 1000))
    app.ready = True


def _listener(port: int) -> socket.socket | None:
    """The socket this process listens with, once it does; the descriptor is our own."""
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # some are closed by now
            if not descriptor.is_socket():
                continue
            found = socket.socket(fileno=os.dup(int(descriptor.name)))
            if (
                found.family in (socket.AF_INET, socket.AF_INET6)
                and found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                and found.getsockname()[1] == port
            ):
                return found
            found.close()
    return None
