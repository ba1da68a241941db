"""Addresses of upstream names, asked for off the event loop and remembered for a short while."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Final

_TTL_S: Final = 30.0
_STALE_S: Final = 2 * _TTL_S
# How long an expired answer waits for a slow resolver before it is used once more.
_PATIENCE_S: Final = 0.5

Lookup = Callable[[str, int], Awaitable[list[str]]]


async def _lookup(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Resolver:
    """Addresses of names: 30 s from memory, and twice that when the resolver fails or is slow."""

    def __init__(self, lookup: Lookup = _lookup) -> None:
        self._lookup = lookup
        self._known: dict[tuple[str, int], tuple[float, list[str]]] = {}
        self._running: dict[tuple[str, int], asyncio.Task[list[str]]] = {}

    async def addresses(self, host: str, port: int) -> list[str]:
        """In the order to try them; `OSError` when there are none."""
        key = (host, port)
        now = asyncio.get_running_loop().time()
        found_at, known = self._known.get(key, (-_STALE_S, []))
        if now - found_at < _TTL_S:
            return known
        usable = known if now - found_at < _STALE_S else []
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.create_task(self._refresh(key))
            # A failure is told to those who still wait, and to no one when all have given up.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        # Waiting this way, a caller that gives up takes no one else's answer with it.
        await asyncio.wait({task}, timeout=_PATIENCE_S if usable else None)
        return usable if usable and (not task.done() or task.exception()) else task.result()

    async def _refresh(self, key: tuple[str, int]) -> list[str]:
        try:
            addresses = await self._lookup(*key)
            if not addresses:
                raise OSError("the name has no address")
            self._known[key] = (asyncio.get_running_loop().time(), addresses)
            return addresses
        finally:
            del self._running[key]
