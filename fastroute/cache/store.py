"""What every store of answers promises: bytes under a name until they are too old, and no more than it has room for."""

from __future__ import annotations

from typing import Protocol

from fastroute.errors import FastrouteError


class CacheAway(FastrouteError):
    """A store that others share could not be asked, or answered with nonsense; nothing is lost by it."""


class Store(Protocol):
    """Where answers are kept. Names are lower-case hex; a store may forget anything, at any time."""

    async def get(self, name: str) -> bytes | None:
        """What is kept under a name; `CacheAway` when nobody can tell."""

    async def put(self, name: str, value: bytes, ttl_s: int) -> None:
        """Keep it for that long, in place of what was there; `CacheAway` when it cannot be kept."""

    async def close(self) -> None: ...
