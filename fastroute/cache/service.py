"""Answers in a cache service of somebody else's: `GET /<name>`, `PUT /<name>?ttl=SECONDS`, one JSON document each.

How it is reached is handed in; the document holds the bytes as base64, so a service that reads and writes JSON keeps
them as they are.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from fastroute.cache.store import CacheAway

Ask = Callable[[str, str, bytes], Awaitable[tuple[int, bytes]]]
"""(method, path, body) to (status, body); `CacheAway` when the service did not answer."""


class _Document(msgspec.Struct, frozen=True):
    entry: bytes


_DECODER = msgspec.json.Decoder(_Document)


class Service:
    """A store behind HTTP."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def get(self, name: str) -> bytes | None:
        status, body = await self._ask("GET", f"/{name}", b"")
        if status == 404:
            return None
        if status != 200:
            raise CacheAway(f"it answered a GET with {status}")
        try:
            return _DECODER.decode(body).entry
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None  # kept by somebody else, or spoiled: no answer of ours

    async def put(self, name: str, value: bytes, ttl_s: int) -> None:
        status, _ = await self._ask("PUT", f"/{name}?ttl={ttl_s}", msgspec.json.encode(_Document(value)))
        if not 200 <= status < 300:
            raise CacheAway(f"it answered a PUT with {status}")

    async def close(self) -> None:
        """The connections belong to whoever asks."""
