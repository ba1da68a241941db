"""A server of our own under the application: it takes connections on the worker's event loop, `_inbound` serves them."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from typing import Any, Final

from fastroute.web._inbound import House, Inbound

log = logging.getLogger("fastroute.web")

HEAD_S: Final = 20.0
LINGER_S: Final = 2.0
_AT_ONCE: Final = 64  # connections taken before anybody else has their turn
_FULL_S: Final = 0.1  # until it is tried again where no descriptor was left


class Listener:
    """One server on a socket that listens; `end` lets it finish."""

    def __init__(
        self,
        app: Any,
        listener: socket.socket,
        connections_max: int,
        idle_s: float,
        refused: Callable[[str], None] | None,
    ) -> None:
        self._listener = listener
        self._most = connections_max
        self._loop = asyncio.get_running_loop()
        self._house = House(app, self._loop, self._left, refused, idle_s, HEAD_S, LINGER_S)
        self._coming: set[asyncio.Task[Any]] = set()
        self._taking = False
        self._full = False  # no descriptor was left
        self._over = asyncio.Event()

    async def serve(self) -> None:
        """Until `end` was called and every answer is over."""
        if not self._house.ending:
            self._listener.setblocking(False)
            self._take()
        await self._over.wait()

    def end(self) -> None:
        """Take no connection any more, close those that wait, and let answers come to their end."""
        if not self._house.ending:
            self._rest()
            self._listener.close()
            self._house.end()
            self._left()

    def cut(self) -> None:
        """End what is still open, at once."""
        self._house.cut()

    def _take(self) -> None:
        if not self._taking and not self._house.ending and not self._full:
            self._taking = True
            self._loop.add_reader(self._listener.fileno(), self._accept)

    def _rest(self) -> None:
        if self._taking:
            self._taking = False
            self._loop.remove_reader(self._listener.fileno())

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            if len(self._house.lines) + len(self._coming) >= self._most:
                self._rest()  # the others wait where the kernel keeps them
                return
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    raise
                log.error("no connection can be taken: %s; trying again", error.strerror)
                self._rest()
                self._full = True
                self._loop.call_later(_FULL_S, self._try_again)
                return
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            coming = self._loop.create_task(self._admit(connection))
            self._coming.add(coming)
            coming.add_done_callback(self._came)

    def _try_again(self) -> None:
        self._full = False
        self._take()

    async def _admit(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: Inbound(self._house), connection)
        except (OSError, RuntimeError):  # uvloop's word for it is the second
            connection.close()  # it left before it was let in

    def _came(self, coming: asyncio.Task[Any]) -> None:
        self._coming.discard(coming)
        if self._house.ending:
            self._house.end()
        self._left()

    def _left(self) -> None:
        if not self._house.ending:
            self._take()
        elif not self._house.lines and not self._house.visits and not self._coming:
            self._over.set()
