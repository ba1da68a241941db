"""What stands around a call: the door it came through, the two halves of its ASGI channel, and how it may end badly.

The call itself is compiled (`_call.pyx`), and so is its door.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any

from fastroute._call import Call, Surface
from fastroute.errors import FastrouteError

__all__ = ["Call", "CallerGone", "Failed", "Poor", "Receive", "Send", "Serve", "Surface"]

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Serve = Callable[[Call], Coroutine[Any, Any, None]]


class Failed(FastrouteError):
    """No attempt gave an answer; the edge words it in the caller's own envelope."""

    def __init__(
        self,
        status: int,
        kind: str,
        code: str | None,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: int | None = None,
        closes: bool = False,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        self.headers = headers
        self.closes = closes  # what follows on this connection cannot be trusted
        self.status = status
        self.kind = kind
        self.code = code
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        super().__init__(message)


class CallerGone(FastrouteError):
    """Nobody is listening any more; everything that ran is settled."""


class Poor(FastrouteError):
    """An attempt ended without an answer; `failed` is what the caller reads if it was the last.

    `spare` gives what little there was: an empty answer is still better than none.
    """

    def __init__(
        self,
        failed: Failed,
        *,
        again: bool,
        spare: Callable[[], Awaitable[Any]] | None = None,
        fault: str | None = None,
    ) -> None:
        self.failed = failed
        self.again = again
        self.spare = spare
        self.fault = fault  # what broke on the connection, in its own word
        super().__init__(failed.message)
