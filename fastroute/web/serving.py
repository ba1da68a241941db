"""The HTTP server under the application: the one file that knows Granian.

A worker lets it listen by itself, beside others on the same port; the embedded router hands it a socket that listens
already.
"""

from __future__ import annotations

import os
import socket
from typing import Any

from granian import net
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

__all__ = ["Server", "server"]

BACKLOG = 4096
# What a request's head may take to arrive, and, since the server has one clock for both, how long a kept connection may
# be idle: shorter than a load balancer keeps its own (60 s is usual), and requests would meet a closing connection.
HEADERS_MS = 75_000


class _Handed(Server):
    """A server on a socket that somebody else opened, and whose copy it closes."""

    own: socket.socket

    def _init_shared_socket(self) -> None:
        holder: Any = vars(net)["SocketHolder"]  # which its stubs say nothing of
        self._ssp: Any = None
        self._shd: Any = holder(os.dup(self.own.fileno()), False, BACKLOG)


def server(app: Any, host: str, port: int, connections_max: int, listener: socket.socket | None = None) -> Server:
    """A server for the running event loop; `listener` is one that listens there already, and stays the caller's."""
    kind = Server if listener is None else _Handed
    made = kind(
        app,
        address=host,
        port=port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        websockets=False,
        backlog=BACKLOG,
        backpressure=connections_max,
        http1_settings=HTTP1Settings(header_read_timeout=HEADERS_MS, max_buffer_size=65536),
        log_enabled=False,
    )
    if isinstance(made, _Handed):
        assert listener is not None
        made.own = listener
    return made
