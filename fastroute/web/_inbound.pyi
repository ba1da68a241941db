"""The callers' connections: an HTTP/1.1 server as an asyncio protocol, and the ASGI channel of each request on it."""

import asyncio
from collections.abc import Callable
from typing import Any

class Inbound(asyncio.Protocol):
    """One caller's connection, serving one request at a time."""

    def __init__(self, house: House) -> None: ...

class House:
    """What the connections of one server share; `left` is called whenever one of them is no more, `refused`
    with the code of every refusal of what was no request.

    A connection on which nothing is asked for `idle_s` is closed; a head may take `head_s`; a caller that is still sending
    when its answer is over is listened to for `linger_s`.
    """

    def __init__(
        self,
        app: Any,
        loop: asyncio.AbstractEventLoop,
        left: Callable[[], None],
        refused: Callable[[str], None] | None,
        idle_s: float,
        head_s: float,
        linger_s: float,
    ) -> None: ...
    @property
    def lines(self) -> set[Inbound]: ...
    @property
    def ending(self) -> bool: ...
    @property
    def visits(self) -> set[Any]:
        """Requests on which the application is at work, whether their connection is still there or not."""

    def cut(self) -> None:
        """End every connection as it is."""

    def end(self) -> None:
        """Connections that wait for a request are closed, all others with the answer that is under way."""
