"""The HTTP server under the application: Granian, which this file alone knows, or our own compiled one.

A worker lets it listen by itself, beside others on the same port; the embedded router hands it a socket that listens
already.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any, Protocol

from granian import net
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server import embed

from fastroute.config import Listening
from fastroute.web.listener import Listener

__all__ = ["BACKLOG", "Server", "server"]

BACKLOG = 4096
# How long a kept connection may be idle: shorter than a load balancer keeps its own (60 s is usual), and requests would
# meet a closing connection. Granian has one clock for it and for what a request's head may take.
IDLE_S = 75.0


class Server(Protocol):
    """What serves an application on the running event loop."""

    async def serve(self) -> None:
        """Until `end` was called and every answer is over."""

    def end(self) -> None:
        """Take no connection any more, close those that wait, and let answers come to their end."""

    def cut(self) -> None:
        """End what is still open, as far as that can be done."""


class _Granian(embed.Server):
    """Granian in this process; with `own`, on a copy of a socket that somebody else opened."""

    own: socket.socket | None = None

    def _init_shared_socket(self) -> None:
        if self.own is None:
            super()._init_shared_socket()  # type: ignore[no-untyped-call]
            return
        holder: Any = vars(net)["SocketHolder"]  # which its stubs say nothing of
        self._ssp: Any = None
        self._shd: Any = holder(os.dup(self.own.fileno()), False, BACKLOG)

    def end(self) -> None:
        self.interrupt_signal = True
        self.main_loop_interrupt.set()

    def cut(self) -> None:
        """It gives nobody its connections; the kernel ends those that nobody reads."""


def server(
    app: Any,
    host: str,
    port: int,
    connections_max: int,
    listener: socket.socket | None = None,
    kind: Listening = "granian",
    refused: Callable[[str], None] | None = None,
) -> Server:
    """A server for the running event loop; `listener` is one that listens there already, and stays the caller's.

    `refused` is told by which code what was no request was refused; Granian tells nobody.
    """
    if kind == "compiled":
        own = _bound(host, port) if listener is None else listener.dup()
        return Listener(app, own, connections_max, IDLE_S, refused)
    made = _Granian(
        app,
        address=host,
        port=port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        websockets=False,
        backlog=BACKLOG,
        backpressure=connections_max,
        http1_settings=HTTP1Settings(header_read_timeout=int(IDLE_S * 1000), max_buffer_size=65536),
        log_enabled=False,
    )
    made.own = listener
    return made


def _bound(host: str, port: int) -> socket.socket:
    """A socket that listens beside those of the other workers."""
    host = host.strip("[]")
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        found.bind((host, port))
        found.listen(BACKLOG)
    except OSError:
        found.close()
        raise
    return found
