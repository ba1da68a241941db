"""The face of the data plane's front: a request read, answered and told of."""

import asyncio
from collections.abc import Awaitable, Coroutine, Mapping
from typing import Any

from fastroute._sweep import Sweep
from fastroute.call import Call, Receive, Send, Serve, Surface
from fastroute.callers import Encoder
from fastroute.domain import Entry
from fastroute.gateway import Gateway
from fastroute.metrics import Metrics
from fastroute.web.doorman import Doorman

UNBUFFERED: tuple[tuple[bytes, bytes], ...]
STREAM: tuple[tuple[bytes, bytes], ...]

class Front:
    """The way of every request; a subclass has the methods for what is unusual."""

    def __init__(
        self, gateway: Gateway, limit: int, doorman: Doorman, bodiless: Sweep[asyncio.Task[Any] | None]
    ) -> None: ...
    @property
    def gateway(self) -> Gateway: ...
    @property
    def metrics(self) -> Metrics: ...
    @property
    def open(self) -> set[Call]:
        """The calls under way."""

    @property
    def limit(self) -> int: ...
    @property
    def doorman(self) -> Doorman: ...
    def handle(
        self,
        surface: Surface,
        serve: Serve | None,
        model: str,
        stream: bool,
        scope: Mapping[str, Any],
        receive: Receive,
        send: Send,
    ) -> Coroutine[Any, Any, None]:
        """Answer one request; `serve` does it once the body is read, None stands for the ordinary way."""

    async def stream(self, call: Call) -> None:
        """One streamed answer."""

class StreamCore:
    """The usual half of a stream's writer: its head once, its events, its end; `beats` says when a heart beats before."""

    beating: asyncio.Task[None] | None
    begun: bool

    def __init__(self, call: Call, encoder: Encoder | None, beats: Sweep[Any]) -> None: ...
    @property
    def call(self) -> Call: ...
    @property
    def encoder(self) -> Encoder | None: ...
    @property
    def beats(self) -> Sweep[Any]: ...
    @property
    def comments(self) -> bool:
        """Whether its caller passes over comments."""

    async def begin(self, call: Call, entry: Entry) -> None: ...
    async def send(self, data: bytes) -> None: ...
    async def end(self, data: bytes) -> None: ...
    def comment(self, call: Call) -> bytes: ...
    def open(self, entry: Entry) -> Awaitable[None]:
        """The head."""

    async def rest(self) -> None:
        """Stop the heart, after the beat it may be in the middle of: two writers would mix their bytes."""

class Gate:
    """The first step of a request: to the door that is posted to, or else to `otherwise`."""

    data: Any

    def __call__(self, scope: Any, receive: Any, send: Any) -> Coroutine[Any, Any, None]: ...
    def otherwise(self, scope: Any, receive: Any, send: Any) -> Coroutine[Any, Any, None]: ...

async def answer(call: Call, body: bytes) -> None:
    """A whole answer of 200, in JSON."""

def head(call: Call, entry: Entry | None) -> list[tuple[bytes, bytes]]:
    """The headers every data-plane reply carries; those that are not known yet are left out."""

def accounts(call: Call) -> list[tuple[bytes, bytes]]:
    """What the request took: latency, tokens and the exact cost of all its attempts."""
