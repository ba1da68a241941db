"""Time, handed in: rooms take a `Clock` and never read one themselves.

Deadlines are monotonic; a wall instant is only ever shown to people or stored beside an event.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What a room may know of time."""

    def monotonic_ms(self) -> int: ...

    def now(self) -> datetime: ...


class SystemClock:
    """The machine's own clocks."""

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000

    def now(self) -> datetime:
        return datetime.now(UTC)


class ManualClock:
    """A clock that tests and the simulator move by hand."""

    def __init__(self, start: datetime | None = None) -> None:
        self._start = start or datetime(2026, 1, 1, tzinfo=UTC)
        self._elapsed_ms = 0

    def advance(self, ms: int) -> None:
        self._elapsed_ms += ms

    def monotonic_ms(self) -> int:
        return self._elapsed_ms

    def now(self) -> datetime:
        from datetime import timedelta

        return self._start + timedelta(milliseconds=self._elapsed_ms)


def iso(instant: datetime) -> str:
    """An instant as ISO 8601 in UTC with milliseconds, the only form that leaves the house."""
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
