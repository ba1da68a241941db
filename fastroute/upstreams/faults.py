"""What can go wrong between a request and its upstream, in one closed list of kinds."""

from __future__ import annotations

from typing import Literal

from fastroute.errors import FastrouteError

FaultKind = Literal[
    "dns",  # the name leads to no address
    "connect",  # no address took the connection, or it closed before the request
    "connect_timeout",  # nobody answered the connect before its deadline
    "tls",  # the handshake failed or stalled, or the certificate is not the right one
    "pool_timeout",  # every connection of the lane stayed busy until the connect deadline
    "write",  # the upstream went, or its write deadline passed, before it had taken the whole request
    "first_chunk",  # no content before the first-chunk deadline
    "idle",  # nothing for as long as the idle deadline, in mid-answer
    "total",  # the whole exchange took longer than its deadline
    "cut",  # the connection ended before the answer did
    "protocol",  # what came is not HTTP/1.1 as this client accepts it
    "desync",  # bytes came before any request was sent
    "encoding",  # a content-encoding nobody asked for
    "limit",  # the body is larger than the reader allowed
    "stopped",  # this side told the exchange to stop
    "loading",  # weights of this machine were not loaded before the first-chunk deadline
    "unloadable",  # weights of this machine cannot be loaded
]


class UpstreamFault(FastrouteError):
    """One exchange failed; `kind` says how, `sent` whether any byte of the request may have reached the upstream.

    `timed_out` is True when an instant passed, False when something happened.
    """

    def __init__(self, kind: FaultKind, message: str, *, sent: bool, timed_out: bool = False) -> None:
        self.kind: FaultKind = kind
        self.message = message
        self.sent = sent
        self.timed_out = timed_out
        super().__init__(f"{kind}: {message}")
