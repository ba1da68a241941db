"""One caller's request on its way through the house: what was asked, what has happened so far, who still listens.

The gateway makes it, the relay fills it, the web room tells of it. It belongs to one task and one event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from types import MappingProxyType
from typing import Any, Final

from msgspec import Struct, field

from fastroute._scan import Scan
from fastroute.callers import Caller
from fastroute.domain import Attempt, Entry
from fastroute.ledger.unlimited import Unlimited

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
_UNLIMITED: Final = Unlimited()

_ID_BYTES: Final = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:/=+@-"
_ID_MAX: Final = 128


class Surface:
    """A door of the data plane: which operation it means, which dialects speak it natively, how to translate if not."""

    __slots__ = ("caller", "name", "native", "opaque", "operation", "talks")

    def __init__(self, name: str, operation: str, native: str, caller: Caller | None) -> None:
        self.name = name
        self.operation = operation
        self.opaque = operation.startswith("/")  # a path of the provider's own, whose bodies nobody here reads
        self.talks = not self.opaque and operation != "embeddings"  # what is asked is a chat, in whatever words
        self.native = native
        self.caller = caller


class Call(Struct, eq=False):
    """One request's life. A struct fills its defaults in one step: 0.4 us, where an `__init__` took 1.6."""

    surface: Surface
    receive: Receive
    send: Send
    id: str
    started: float
    # Asking for the running loop costs a system call each time; the call keeps the answer.
    loop: Any = field(default_factory=asyncio.get_running_loop)
    created: int = 0
    decision_id: str = ""
    model: str = ""
    body: bytes = b""
    decoded: dict[str, Any] | None = None
    scan: Scan | None = None
    usage_options: bytes | None = None  # what `stream_options` must say so that we are told the usage
    stream: bool = False
    hide_usage: bool = False  # the caller did not ask for usage, so it shall not see any
    quality: bool = False
    wants_json: bool = False
    input_bound: int = 0
    output_cap: int | None = None
    choices: int = 1  # how many answers were asked for in one; each has the whole output cap
    passed: Mapping[str, str] = _NOTHING
    entries: list[Entry] = []
    entry: Entry | None = None  # the one that is being tried, or was last
    reason: str = ""
    account: Unlimited = _UNLIMITED
    attempts: list[Attempt] = []
    upstream_ids: list[bytes] = []  # what providers call the attempts that they answered
    exchange: Any = None
    first_chunk_at: float | None = None
    content_type: bytes = b""  # of the answer that is being relayed
    mistral: bool = False  # the caller's client is one of Mistral's, which are stricter than OpenAI's
    gone: bool = False
    status: int = 0
    watcher: asyncio.Task[None] | None = None

    @property
    def final(self) -> Attempt | None:
        """The attempt the caller reads of: the last, unless what an earlier one had to say was better than nothing."""
        attempts, entry = self.attempts, self.entry
        if len(attempts) == 1:
            return attempts[0]
        if len(attempts) > 1 and entry is not None and attempts[-1].entry_id != entry.id:
            return next((attempt for attempt in attempts if attempt.entry_id == entry.id), attempts[-1])
        return attempts[-1] if attempts else None

    @property
    def cost_picodollars(self) -> int | None:
        """What all attempts cost together; None as soon as one of them has no known price."""
        attempts = self.attempts
        if len(attempts) == 1:
            return attempts[0].settlement.picodollars
        total = 0
        for attempt in attempts:
            cost = attempt.settlement.picodollars
            if cost is None:
                return None
            total += cost
        return total

    def known_as(self, name: bytes | None) -> None:
        """The id a provider gave to an attempt, which its support will ask for; one that is no id is not repeated."""
        if name and len(name) <= _ID_MAX and not name.translate(None, _ID_BYTES):
            self.upstream_ids.append(name)

    def leave(self) -> None:
        """The caller is gone: whoever is working for it is told to stop."""
        self.gone = True
        if self.exchange is not None:
            self.exchange.stop()

    def watch(self) -> None:
        """Look for the caller's leaving; `send` never tells."""
        self.watcher = self.loop.create_task(self._listen())

    def unwatch(self) -> None:
        if self.watcher is not None:
            self.watcher.cancel()
            self.watcher = None

    async def _listen(self) -> None:
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                self.leave()
                return
