"""Civil windows: what a day or a month is called in a zone, and the instant at which it ends.

Days have 23 or 25 hours where the zone says so. A day that has no midnight begins with its first instant; an hour that
comes twice belongs to one window, and a window once left is not entered again though the clocks go back. Everything
here is total: an instant beyond the calendar is moved to its edge, a zone the machine does not know is UTC.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from fastroute.ledger.store import WindowKind

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
# A year is left free at both ends of the calendar, so that no zone's offset and no next month falls off it.
_FIRST_MS = (datetime(2, 1, 1, tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)
_LAST_MS = (datetime(9998, 1, 1, tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)


class Window(NamedTuple):
    """What a window is called, and the first instant (milliseconds of the epoch) that is no longer in it."""

    name: str
    ends_ms: int | None  # None never ends


TOTAL = Window("total", None)


def known_zone(zone: str) -> bool:
    """Whether the machine has rules for a zone of this name."""
    try:
        ZoneInfo(zone)
    except (KeyError, ValueError, OSError):  # not there, no name of a zone, a directory of zones
        return False
    return True


def window_at(kind: WindowKind, zone: str, now_ms: int) -> Window:
    """The window that an instant falls in."""
    if kind == "total":
        return TOTAL
    now_ms = min(max(now_ms, _FIRST_MS), _LAST_MS)
    rules = _rules(zone)
    today = (_EPOCH + timedelta(milliseconds=now_ms)).astimezone(rules).date()
    if kind == "monthly":
        today = today.replace(day=1)
    # Where the clocks go back over midnight, the date does too; the window that has begun goes on.
    after = _next(kind, today)
    while (ends_ms := _begins_ms(zone, after)) <= now_ms:
        today, after = after, _next(kind, after)
    return Window(today.isoformat() if kind == "daily" else f"{today:%Y-%m}".rjust(7, "0"), ends_ms)


def _next(kind: WindowKind, day: date) -> date:
    if kind == "daily":
        return day + timedelta(days=1)
    return (day + timedelta(days=31)).replace(day=1)


@lru_cache(maxsize=256)
def _rules(zone: str) -> ZoneInfo:
    return ZoneInfo(zone if known_zone(zone) else "UTC")


@lru_cache(maxsize=4096)
def _begins_ms(zone: str, day: date) -> int:
    """The first instant at which a clock in the zone shows this date or a later one."""
    rules = _rules(zone)
    midnight = datetime(day.year, day.month, day.day, tzinfo=rules)
    first = midnight.astimezone(UTC)
    if first.astimezone(rules).replace(tzinfo=None) != midnight.replace(tzinfo=None):
        # There is no such midnight: the clocks jump over it somewhere between what it is with the offset that holds
        # afterwards and with the one that held before.
        before, first = midnight.replace(fold=1).astimezone(UTC) - _SECOND, first
        while first - before > _SECOND:
            middle = before + (first - before) // _SECOND // 2 * _SECOND
            if middle.astimezone(rules).date() >= day:
                first = middle
            else:
                before = middle
    return (first - _EPOCH) // timedelta(milliseconds=1)
