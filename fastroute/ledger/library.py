"""What may be asked of the books without changing them: receipts, usage, entries, and all rows at one instant.

A book in memory holds what it needs to go on; the rest is only in the store and is read through here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Protocol

from msgspec import Struct

from fastroute.ledger.store import (
    AccountRow,
    BudgetRow,
    EntryRow,
    HolderRow,
    LeaseRow,
    OpenRow,
    ReceiptRow,
    RecordRow,
    UsageDelta,
    WindowRow,
)

# Expired records are deleted so many at a time: a turn of the bookkeeper stays short.
SWEEP_ROWS = 500


class Counts(Struct, frozen=True):
    """How much the store holds."""

    accounts: int
    holders: int
    open: int
    entries: int
    receipts: int


class Snapshot(Struct, frozen=True):
    """All rows of the books as they were at one instant; iterators are good for one pass, inside the `with` only."""

    accounts: list[AccountRow]
    budgets: list[BudgetRow]
    windows: list[WindowRow]
    leases: list[LeaseRow]  # the ended ones too
    holders: list[HolderRow]  # the dead ones too
    open: list[OpenRow]
    usage: list[UsageDelta]
    entries: Iterator[EntryRow]  # as they were told
    receipts: Iterator[ReceiptRow]  # by seq


class Library(Protocol):
    """Questions to the store. Faults are `StoreError`."""

    def receipt(self, id: str) -> ReceiptRow | None: ...  # noqa: A002  the word of the rows

    def receipts(self, *, account: int | None = None, limit: int = 100, before: int | None = None) -> list[ReceiptRow]:
        """The newest receipts first, of one account or of all; `before` is the `seq` to go on from, itself left out."""

    def chain(self, seq: int = 1, limit: int = 1000) -> list[ReceiptRow]:
        """Receipts in the order of the chain, from `seq` on."""

    def usage(self, account: int | None, *, days: int, now_ms: int) -> list[UsageDelta]:
        """What one account or all used on the last so many days (UTC, today is one), by account, day and model."""

    def entries(self, request: str) -> list[EntryRow]:
        """The closed attempts of one request and their corrections, in the order of time."""

    def windows(self, numbers: Sequence[int]) -> list[WindowRow]:
        """Those of the windows that there are, the long over ones too."""

    def record(self, kind: str, id: str) -> RecordRow | None: ...  # noqa: A002  the word of the rows

    def records(
        self, kind: str, *, account: int | None = None, limit: int = 100, before_ms: int | None = None
    ) -> list[RecordRow]:
        """Documents of one kind, newest first."""

    def record_names(self, kind: str, *, after: str = "", limit: int = 100) -> list[tuple[str, int]]:
        """The ids of one kind's documents, in order, and when each was kept; no document is read for it."""

    def sweep(self, now_ms: int) -> int:
        """Delete some of the records that have expired; how many."""

    def counts(self) -> Counts: ...

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        """One consistent view of everything; whoever writes meanwhile is not held up by it."""


def first_day(days: int, now_ms: int) -> str:
    """The first of so many days of which the last is today."""
    return (datetime.fromtimestamp(now_ms // 1000, UTC).date() - timedelta(days=days - 1)).isoformat()
