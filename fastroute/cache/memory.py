"""Answers in a worker's own memory, bounded in number and bytes: what was not asked for longest goes first."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from fastroute.clock import Clock

ENTRIES_MAX: Final = 8192
# What an entry takes beside its bytes: its name, a tuple and its place in the map.
_OVERHEAD: Final = 400


class Memory:
    """A store of one worker."""

    def __init__(self, max_bytes: int, clock: Clock) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._clock = clock
        self._kept: OrderedDict[str, tuple[bytes, int]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Memory {len(self)} answers, {self.bytes} of {self.max_bytes} bytes>"

    def __len__(self) -> int:
        return len(self._kept)

    async def get(self, name: str) -> bytes | None:
        kept = self._kept.get(name)
        if kept is None:
            return None
        value, until_ms = kept
        if self._clock.monotonic_ms() >= until_ms:
            self._forget(name)
            return None
        self._kept.move_to_end(name)
        return value

    async def put(self, name: str, value: bytes, ttl_s: int) -> None:
        self._forget(name)
        if ttl_s <= 0 or _size(value) > self.max_bytes:
            return
        self._kept[name] = (value, self._clock.monotonic_ms() + ttl_s * 1000)
        self.bytes += _size(value)
        while self.bytes > self.max_bytes or len(self._kept) > ENTRIES_MAX:
            self._forget(next(iter(self._kept)))

    async def close(self) -> None:
        self._kept.clear()
        self.bytes = 0

    def _forget(self, name: str) -> None:
        kept = self._kept.pop(name, None)
        if kept is not None:
            self.bytes -= _size(kept[0])


def _size(value: bytes) -> int:
    return len(value) + _OVERHEAD
