"""A store that others share and that may be away: then it is left alone for a while, said once, and nothing waits for it."""

from __future__ import annotations

import logging
from typing import Final

from fastroute.cache.store import CacheAway, Store
from fastroute.clock import Clock

# A store that hangs costs the one who asks its whole deadline, so it is asked no more often than this.
REST_S: Final = 10
# Somebody who spoils a store shall not fill the log as well.
_SPOILED_S: Final = 60

log = logging.getLogger("fastroute.cache")


class Shared:
    """Whatever its store cannot tell counts as not kept."""

    def __init__(self, store: Store, where: str, clock: Clock) -> None:
        self.where = where
        self._store = store
        self._clock = clock
        self._away = False
        self._again_ms = 0
        self._quiet_until_ms = 0
        self._closed = False

    async def get(self, name: str) -> bytes | None:
        if not self._may_ask():
            return None
        try:
            value = await self._store.get(name)
        except CacheAway as away:
            self._rest(away)
            return None
        self._back()
        return value

    async def put(self, name: str, value: bytes, ttl_s: int) -> None:
        if not self._may_ask():
            return
        try:
            await self._store.put(name, value, ttl_s)
        except CacheAway as away:
            self._rest(away)
        else:
            self._back()

    def spoiled(self) -> None:
        """What it gave opens with no seal of ours; said, but not for each."""
        now = self._clock.monotonic_ms()
        if now >= self._quiet_until_ms:
            self._quiet_until_ms = now + _SPOILED_S * 1000
            log.warning("the answer cache at %s gave something that was never put there; it is not told", self.where)

    async def close(self) -> None:
        """Ask no more: whoever was under way with it goes on without."""
        self._closed = True
        await self._store.close()

    def _may_ask(self) -> bool:
        """While it is away, one asks now and then; everybody else goes on without."""
        if self._closed:
            return False
        if not self._away:
            return True
        now = self._clock.monotonic_ms()
        if now < self._again_ms:
            return False
        self._again_ms = now + REST_S * 1000
        return True

    def _rest(self, away: CacheAway) -> None:
        self._again_ms = self._clock.monotonic_ms() + REST_S * 1000
        if not self._away and not self._closed:
            self._away = True
            log.warning(
                "the answer cache at %s is away (%s); this worker goes on with its own memory and asks again every %d s",
                self.where,
                away,
                REST_S,
            )

    def _back(self) -> None:
        if self._away:
            self._away = False
            log.warning("the answer cache at %s is back", self.where)
