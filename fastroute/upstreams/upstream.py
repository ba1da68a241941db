"""An upstream as the relay uses it: one provider or one endpoint, its dialect, its key and its ready-made heads.

The key is bound to the host it was given for: it goes into heads made here and nowhere else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol
from urllib.parse import urlsplit

from fastroute.upstreams._pool import RemoteCore
from fastroute.upstreams.dialect import Dialect
from fastroute.upstreams.pool import Deadlines, Origin, Pool, request_head

# Every open stream holds a connection of its own, and a worker holds thousands of streams.
CONNECTIONS_MAX = 8192


class Exchange(Protocol):
    """One request under way and its answer, over a socket or in this process."""

    @property
    def status(self) -> int: ...

    @property
    def sent(self) -> bool: ...

    @property
    def complete(self) -> bool:
        """The whole answer has arrived, read or not."""

    def header(self, name: bytes) -> bytes | None: ...

    def answer(self) -> bool:
        """Whether the final head is here; raises the fault when it will not come."""

    def coming(self) -> Awaitable[None]:
        """Done once `answer` has something to say. Whoever awaits it stops the exchange if that is cancelled."""

    async def read(self, limit: int = ...) -> bytes: ...

    async def chunk(self) -> bytes:
        """Everything that has arrived; nothing at the clean end."""

    def committed(self) -> None: ...

    def stop(self) -> None: ...


class Wrapped:
    """An exchange around another, for who changes a little of it: the rest is the other's."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    @property
    def status(self) -> int:
        return self._exchange.status

    @property
    def sent(self) -> bool:
        return self._exchange.sent

    @property
    def complete(self) -> bool:
        return self._exchange.complete

    def header(self, name: bytes) -> bytes | None:
        return self._exchange.header(name)

    def answer(self) -> bool:
        return self._exchange.answer()

    def coming(self) -> Awaitable[None]:
        return self._exchange.coming()

    async def read(self, limit: int = 1 << 20) -> bytes:
        return await self._exchange.read(limit)

    async def chunk(self) -> bytes:
        return await self._exchange.chunk()

    def committed(self) -> None:
        self._exchange.committed()

    def stop(self) -> None:
        self._exchange.stop()


# The status alone says whom to ask next; its words are worth a moment.
ERROR_BODY_S = 2.0
ERROR_BYTES_MAX = 262_144


async def refused_with(exchange: Exchange) -> bytes:
    """The body of an error, as far as it comes in a moment."""
    try:
        async with asyncio.timeout(ERROR_BODY_S):
            return await exchange.read(ERROR_BYTES_MAX)
    except TimeoutError:
        exchange.stop()
        return b""


class Upstream(Protocol):
    """What an attempt is made on."""

    name: str
    display: str
    dialect: Dialect
    native_responses: bool

    def begin(
        self, operation: str, model: str, stream: bool, passed: Mapping[str, str], body: bytes, deadlines: Deadlines
    ) -> Exchange:
        """The request is on its way; the caller waits for the answer's head, and may leave before it."""

    def without_key(self, text: str) -> str:
        """A provider's words without the key it was asked with, which some of them repeat."""


class Remote(RemoteCore):
    """An upstream behind a base URL; `permit`, when given, is asked for every address it would connect to."""

    def __init__(
        self,
        name: str,
        display: str,
        dialect: Dialect,
        base_url: str,
        key: str | None,
        pool: Pool,
        *,
        native_responses: bool = False,
        permit: Callable[[str], bool] | None = None,
        connections_max: int = CONNECTIONS_MAX,
    ) -> None:
        self.name = name
        self.display = display
        self.dialect = dialect
        self.native_responses = native_responses
        parts = urlsplit(base_url)
        assert parts.hostname is not None
        self._pool = pool
        self._prefix = parts.path.rstrip("/")
        self._host = parts.netloc
        port = parts.port or (443 if parts.scheme == "https" else 80)
        self.origin = Origin(parts.scheme, parts.hostname, port, connections_max=connections_max, permit=permit)
        self._key = key
        self._heads = {}

    def __repr__(self) -> str:
        return f"Remote({self.name} at {self._host})"

    def without_key(self, text: str) -> str:
        key = self._key
        if key is None:
            return text
        text = text.replace(key, "***")
        # A long message was cut short, and the key may have stood at the cut.
        body = text.removesuffix("...")
        if body is not text:
            for size in range(min(len(key), len(body)), 3, -1):
                if body.endswith(key[:size]):
                    return f"{body[:-size]}***..."
        return text

    def _head(self, operation: str, model: str, stream: bool, passed: Mapping[str, str]) -> bytes:
        # An operation that is a path itself is the provider's affair alone.
        asked = operation if operation.startswith("/") else self.dialect.path(operation, model, stream)
        path = self._prefix + asked
        headers = [(name.decode(), value.decode()) for name, value in self.dialect.headers(self._key, passed)]
        if "content-type" in passed:  # a form's, which names its boundary
            headers = [(name, passed["content-type"] if name == "content-type" else value) for name, value in headers]
        return request_head("POST", path, self._host, headers)
