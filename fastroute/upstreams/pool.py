"""Connections to the upstreams: who gets which, when one is opened, and when it goes.

The hot path calls `Pool.exchange`; everything that expects an httpx client uses `transport.Transport` over the same
pool. The bytes on a connection are `_wire`'s affair.
"""

from __future__ import annotations

import asyncio
import errno
import re
import socket
import ssl
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, cast
from urllib.parse import urlsplit

from msgspec import Struct

from fastroute.upstreams._pool import LaneCore, PoolCore
from fastroute.upstreams._wire import Connection, Exchange, Turn
from fastroute.upstreams.faults import FaultKind, UpstreamFault
from fastroute.upstreams.resolver import Resolver

_NEVER: Final = float("inf")
# uvloop's timers are whole milliseconds and may fire up to half of one early.
_TICK_S: Final = 0.001

_KEEPALIVE_S: Final = 60
_SHED_S: Final = 0.25

_METHOD: Final = re.compile(r"[A-Z]{1,20}")
_TARGET: Final = re.compile(r"/[!-~]*")
_HOST: Final = re.compile(r"[A-Za-z0-9.:_\[\]-]{1,255}")
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[\t -~]*")
# The wire writes these itself, or they would change where a message ends or whose connection it is.
WIRE_HEADERS: Final = frozenset({
    "connection", "content-length", "expect", "host", "keep-alive", "proxy-connection", "te", "trailer",
    "transfer-encoding", "upgrade",
})  # fmt: skip


def request_head(method: str, path: str, host: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """A request's head without content-length and the last line end, made once per upstream.

    Identity is asked for unless `accept-encoding` is given. `ValueError` for what must not reach a wire: control or
    non-ASCII characters anywhere, blanks in the target, or a header that belongs to the connection.
    """
    for pattern, text, what in ((_METHOD, method, "method"), (_TARGET, path, "path"), (_HOST, host, "host")):
        if not pattern.fullmatch(text):
            raise ValueError(f"the {what} of an upstream request has characters that may not be sent")
    lines = [f"{method} {path} HTTP/1.1", f"host: {host}"]
    names = set()
    for name, value in headers:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of a header")
        if not _VALUE.fullmatch(value):
            raise ValueError(f"the value of the header {name!r} has characters that may not be sent")
        if name.lower() in WIRE_HEADERS:
            raise ValueError(f"the header {name!r} belongs to the connection and is not set by callers")
        names.add(name.lower())
        lines.append(f"{name}: {value}")
    if "accept-encoding" not in names:
        lines.append("accept-encoding: identity")
    return "\r\n".join([*lines, ""]).encode("ascii")


def trusted_tls(cafile: str | None = None) -> ssl.SSLContext:
    """TLS 1.2 or later, HTTP/1.1 only, against the system's trust store or the roots of one file.

    `SSLKEYLOGFILE` plays no role.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if cafile is None:
        context.load_default_certs()
    else:
        context.load_verify_locations(cafile)
    return context


class Deadlines(Struct, frozen=True, kw_only=True):
    """How long an exchange may take; None is no deadline.

    `connect_ms` and `total_ms` run from the call, `first_chunk_ms` from the send until `Exchange.committed`, `idle_ms`
    between bytes after it. A wait for a free connection ends with the connect deadline unless `pool_ms` is given, and
    one for an upstream that does not take the request with the first chunk's unless `write_ms` is.
    """

    connect_ms: int | None
    first_chunk_ms: int | None
    idle_ms: int | None
    total_ms: int | None
    pool_ms: int | None = None
    write_ms: int | None = None


class Origin(Struct, frozen=True, eq=False):
    """Where a lane's requests go. Each origin has its own connections, even beside another to the same host.

    `tls` None stands for the system's trust store. `permit`, when given, is asked for every resolved address, and only
    an address it has just allowed is connected to.
    """

    scheme: str
    host: str
    port: int
    tls: ssl.SSLContext | None = None
    connections_max: int = 512
    permit: Callable[[str], bool] | None = None

    def __post_init__(self) -> None:
        if self.scheme not in ("http", "https"):
            raise ValueError(f"an upstream speaks http or https, not {self.scheme!r}")
        if self.connections_max < 1:
            raise ValueError("an origin needs at least one connection")

    @classmethod
    def of(cls, address: str) -> Origin:
        """The origin of an http(s) address that was checked to have a host."""
        parts = urlsplit(address)
        assert parts.hostname is not None
        return cls(parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))

    @property
    def authority(self) -> str:
        """The value of its host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.scheme == "https" else 80) else f"{host}:{self.port}"


class _Lane(LaneCore):
    """The connections of one origin and the turns that wait for one. Only the openers await."""

    def __init__(self, pool: Pool, origin: Origin, loop: asyncio.AbstractEventLoop) -> None:
        self.pool = pool
        self.origin = origin
        self.loop = loop
        self.idle = []
        self.connections: set[Connection] = set()
        self.closing: set[Connection] = set()
        self.openers: set[asyncio.Task[None]] = set()
        # Waiting turns, first in, first out, with the task that opens a connection for each; those without a slot for
        # one are in `starved` too, with the timer of their wait.
        self.queue = OrderedDict()
        self.starved: OrderedDict[Turn, asyncio.TimerHandle | None] = OrderedDict()

    # What the wire tells us.

    def lost(self, connection: Connection) -> None:
        self.connections.discard(connection)
        self.closing.add(connection)
        if connection in self.idle:
            self.idle.remove(connection)
        self.fill()

    def gone(self, connection: Connection) -> None:
        self.closing.discard(connection)
        self.pool.settle()
        self.fade()

    def again(self, turn: Turn) -> None:
        # A connection that has just answered is as good as a new one: the turn waits for either, ahead of all others.
        self.submit(turn)
        if turn in self.queue:
            self.queue.move_to_end(turn, last=False)

    def left(self, turn: Turn) -> None:
        opener = self.forget(turn)
        if opener is not None and not self.starved:
            opener.cancel()

    # Who gets what.

    def submit(self, turn: Turn) -> None:
        """Let a turn wait for the next connection, opening one when there is room."""
        if self.pool.closed:
            turn.refuse("stopped", "the pool is closed")
            return
        self.queue[turn] = None
        if self.room() > 0:
            self.start(turn)
            return
        by = turn.slot_by()
        self.starved[turn] = self.loop.call_at(by, self.overdue, turn) if by < _NEVER else None

    def forget(self, turn: Turn) -> asyncio.Task[None] | None:
        """Take a turn from the queue; the task that opens a connection for it goes on."""
        timer = self.starved.pop(turn, None)
        if timer is not None:
            timer.cancel()
        return self.queue.pop(turn, None)

    def overdue(self, turn: Turn) -> None:
        self.forget(turn)
        if turn.total_at <= self.loop.time() + _TICK_S:
            turn.refuse("total", "the whole exchange took longer than its deadline", True)
        else:
            turn.refuse("pool_timeout", f"all {self.origin.connections_max} connections stayed busy", True)

    def room(self) -> int:
        return self.origin.connections_max - len(self.connections) - len(self.openers)

    def fill(self) -> None:
        """Open connections for the turns that had no slot, as far as there is room now."""
        while self.starved and self.room() > 0:
            turn, timer = self.starved.popitem(last=False)
            if timer is not None:
                timer.cancel()
            self.start(turn)

    def start(self, turn: Turn) -> None:
        task = self.loop.create_task(self.open(turn))
        self.queue[turn] = task
        self.openers.add(task)
        task.add_done_callback(partial(self.opened, turn))

    async def open(self, turn: Turn) -> None:
        """Open a connection for a turn; whoever waits first gets it should the turn be served or gone by then."""
        try:
            connection = await self.connect(turn.connect_by())
        except UpstreamFault as fault:
            if self.queue.pop(turn, None) is not None:
                total = fault.timed_out and turn.total_at <= self.loop.time() + _TICK_S
                turn.refuse("total" if total else fault.kind, fault.message, fault.timed_out)
            return
        finally:
            # What was a slot being opened is a connection or free, before anyone hears of it.
            self.openers.discard(cast("asyncio.Task[None]", asyncio.current_task()))
        if turn in self.queue:
            self.queue.move_to_end(turn, last=False)
        self.connections.add(connection)
        self.pool.opened += 1
        self.release(connection)

    def opened(self, turn: Turn, task: asyncio.Task[None]) -> None:
        """An opener has ended, however it did; its turn may not go on waiting for it."""
        self.openers.discard(task)
        if self.queue.get(turn) is task:
            del self.queue[turn]
            turn.refuse("connect", f"{self.origin.host} closed the connection at once")
        self.fill()
        self.fade()

    def fade(self) -> None:
        """A lane with nothing in it is forgotten: every change of a registry brings origins of its own."""
        if not (self.connections or self.closing or self.openers or self.queue):
            self.pool.forget(self.origin)

    # How a connection is opened.

    async def connect(self, until: float) -> Connection:
        origin = self.origin
        step: FaultKind = "dns"
        words = f"the name {origin.host} was not resolved"
        try:
            async with asyncio.timeout_at(until if until < _NEVER else None):
                addresses = await self.pool.resolver.addresses(origin.host, origin.port)
                if origin.permit is not None:
                    addresses = [address for address in addresses if origin.permit(address)]
                    if not addresses:
                        raise UpstreamFault("connect", f"no address of {origin.host} may be connected to", sent=False)
                step, words = "connect", f"{origin.host} took no connection"
                sock = await self.reach(addresses, until)
                step, words = "tls", f"the TLS handshake with {origin.host} failed"
                tls = (origin.tls or self.pool.trust()) if origin.scheme == "https" else None
                _, connection = await self.loop.create_connection(
                    lambda: Connection(self, self.loop),
                    sock=sock,
                    ssl=tls,
                    server_hostname=origin.host if tls else None,
                )
        except (OSError, UnicodeError) as error:
            if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
                self.pool.shed_soon()
            timed_out = isinstance(error, TimeoutError)
            if timed_out and step == "connect":
                step = "connect_timeout"
            detail = "the connect deadline passed" if timed_out else error
            raise UpstreamFault(step, f"{words}: {detail}", sent=False, timed_out=timed_out) from error
        if connection.closed:
            if connection.early:
                raise UpstreamFault("desync", f"{origin.host} spoke before it was asked", sent=False)
            raise UpstreamFault("connect", f"{origin.host} closed the connection at once", sent=False)
        return connection

    async def reach(self, addresses: list[str], until: float) -> socket.socket:
        """A connected socket to the first address that takes one; each gets its share of the time that is left."""
        failure: OSError | None = None
        for tried, address in enumerate(addresses):
            now = self.loop.time()
            share = now + (until - now) / (len(addresses) - tried)
            sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
            try:
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                if hasattr(socket, "TCP_KEEPIDLE"):  # the system's own is two hours
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_S)
                async with asyncio.timeout_at(share if share < _NEVER else None):
                    await self.loop.sock_connect(sock, (address, self.origin.port))
            except OSError as error:
                sock.close()
                failure = error
            except BaseException:
                sock.close()
                raise
            else:
                return sock
        assert failure is not None, "the resolver promises an address or an error"
        raise failure


class Pool(PoolCore):
    """Every connection to every origin, for one event loop.

    A connection serves one exchange at a time and is kept only after a clean answer; the one used last is used next,
    and after `idle_ms` without use it is closed. Up to `Origin.connections_max` are open to an origin; beyond that
    exchanges wait their turn. An exchange whose kept connection died before any answer byte is sent once more.
    """

    def __init__(self, *, idle_ms: int = 30_000, resolver: Resolver | None = None) -> None:
        self.resolver = resolver or Resolver()
        self.opened = 0
        self.closed = False
        self._idle_s = idle_ms / 1000
        self._lanes: dict[Origin, _Lane] = {}
        self._trust: ssl.SSLContext | None = None
        self._closing: asyncio.Future[None] | None = None
        self._shedding: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        used = f"opened={self.opened} reused={self.reused}"
        return f"<Pool {used} in_use={self.in_use} idle={self.idle} waiting={self.waiting}>"

    @property
    def in_use(self) -> int:
        """Connections that serve an exchange now."""
        return sum(len(lane.connections) - len(lane.idle) for lane in self._lanes.values())

    @property
    def idle(self) -> int:
        """Connections kept for the next exchange."""
        return sum(len(lane.idle) for lane in self._lanes.values())

    @property
    def opening(self) -> int:
        """Connections being opened; each takes a slot."""
        return sum(len(lane.openers) for lane in self._lanes.values())

    @property
    def waiting(self) -> int:
        """Exchanges that have no connection yet."""
        return sum(len(lane.queue) for lane in self._lanes.values())

    def busy(self, origin: Origin) -> int:
        """Exchanges with one origin that are under way or wait for a connection."""
        lane = self._lanes.get(origin)
        return 0 if lane is None else len(lane.connections) - len(lane.idle) + len(lane.queue)

    async def exchange(self, origin: Origin, head: bytes, body: bytes, deadlines: Deadlines) -> Exchange:
        """Send a request and return when the head of its final answer is here; `head` is made by `request_head`.

        The caller reads the exchange to its end or stops it.
        """
        exchange = self.begin(origin, head, body, deadlines)
        try:
            while not exchange.answer():
                await exchange.coming()
        except BaseException:
            exchange.stop()
            raise
        return exchange

    async def aclose(self) -> None:
        """Stop every exchange and close every connection."""
        self.closed = True
        for timer in (self.reaper, self._shedding):
            if timer is not None:
                timer.cancel()
        for lane in tuple(self._lanes.values()):
            for turn in list(lane.queue):
                lane.forget(turn)
                turn.refuse("stopped", "the pool is closing")
            for opener in lane.openers:
                opener.cancel()
            for connection in list(lane.connections):
                connection.close()
        await asyncio.gather(
            *(opener for lane in self._lanes.values() for opener in lane.openers), return_exceptions=True
        )
        if any(lane.closing for lane in self._lanes.values()):
            # An aborted transport closes its socket on one of the loop's next rounds.
            self._closing = asyncio.get_running_loop().create_future()
            await self._closing

    def forget(self, origin: Origin) -> None:
        """An origin has no connection and nobody who waits for one; it is met anew if it is asked again."""
        self._lanes.pop(origin, None)

    def settle(self) -> None:
        """The last socket of a closing pool is closed."""
        if self._closing is not None and not any(lane.closing for lane in self._lanes.values()):
            self._closing.set_result(None)
            self._closing = None

    def trust(self) -> ssl.SSLContext:
        """The system's trust store, read when first needed."""
        if self._trust is None:
            self._trust = trusted_tls()
        return self._trust

    def shed_soon(self) -> None:
        """No descriptor was left: what is idle in a moment is closed, or it would keep callers out until it expires."""
        if self._shedding is None:
            self._shedding = asyncio.get_running_loop().call_later(_SHED_S, self._shed)

    def _shed(self) -> None:
        self._shedding = None
        for lane in tuple(self._lanes.values()):
            while lane.idle:
                lane.idle[0].close()

    def watch_idle(self) -> None:
        """See that idle connections are looked at in time; one timer serves all of them."""
        self.reaper = asyncio.get_running_loop().call_later(self._idle_s, self._reap)

    def _reap(self) -> None:
        self.reaper = None
        now = asyncio.get_running_loop().time() + _TICK_S
        oldest = _NEVER
        for lane in tuple(self._lanes.values()):
            # The list is in the order of last use, since only its end is taken and given back.
            while lane.idle and lane.idle[0].idle_since + self._idle_s <= now:
                lane.idle[0].close()
            if lane.idle:
                oldest = min(oldest, lane.idle[0].idle_since)
        if oldest < _NEVER:
            self.reaper = asyncio.get_running_loop().call_at(oldest + self._idle_s, self._reap)

    def _lane(self, origin: Origin) -> _Lane:
        lane = self._lanes[origin] = _Lane(self, origin, asyncio.get_running_loop())
        return lane
