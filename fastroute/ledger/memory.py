"""The books in memory: for tests, the simulator, and whoever routes inside one process and keeps nothing.

It passes the same tests as the others, so what holds over it holds over them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from msgspec.structs import replace

from fastroute.errors import StoreError
from fastroute.ledger.library import SWEEP_ROWS, Counts, Snapshot, first_day
from fastroute.ledger.store import (
    AccountRow,
    BudgetRow,
    Changes,
    EntryRow,
    HolderRow,
    LeaseRow,
    OpenRow,
    ReceiptRow,
    RecordRow,
    State,
    ToldTwice,
    UsageDelta,
    WindowRow,
)

Key = TypeVar("Key")
Row = TypeVar("Row")
Numbered = TypeVar("Numbered", AccountRow, BudgetRow, WindowRow, HolderRow)


class Memory:
    """A `BookStore` and a `Library` that last as long as they are referred to."""

    def __init__(self) -> None:
        self._accounts: dict[int, AccountRow] = {}
        self._budgets: dict[int, BudgetRow] = {}
        self._windows: dict[int, WindowRow] = {}
        self._leases: dict[tuple[int, int], LeaseRow] = {}
        self._holders: dict[int, HolderRow] = {}
        self._open: dict[tuple[int, str], OpenRow] = {}
        self._entries: dict[tuple[int, int], EntryRow] = {}
        self._receipts: dict[int, ReceiptRow] = {}
        self._usage: dict[tuple[int, str, str], UsageDelta] = {}
        self._records: dict[tuple[str, str], RecordRow] = {}
        self._notes: dict[str, bytes] = {}

    def keep(self) -> None:
        """Nobody else has it."""

    def load(self) -> State:
        open_leases = [row for row in self._leases.values() if not row.done]
        newest: dict[int, int] = {}
        for row in self._windows.values():
            newest[row.budget] = max(row.id, newest.get(row.budget, 0))
        current = set(newest.values()) | {row.window for row in open_leases}
        return State(
            accounts=_by_id(self._accounts.values()),
            budgets=_by_id(self._budgets.values()),
            windows=[self._windows[number] for number in sorted(current)],
            leases=sorted(open_leases, key=lambda row: (row.window, row.holder)),
            holders=_by_id(row for row in self._holders.values() if row.live),
            open=[row for _, row in sorted(self._open.items())],
            notes=dict(sorted(self._notes.items())),
            last_holder=max(self._holders, default=0),
            last_receipt=self._receipts[max(self._receipts)] if self._receipts else None,
        )

    def commit(self, changes: Changes) -> None:
        entries, receipts = list(changes.entries), list(changes.receipts)
        # What could refuse comes first: after a fault nothing of it may be kept.
        self._refuse_doubles(changes, entries, receipts)
        self._accounts.update(changes.accounts)
        self._budgets.update(changes.budgets)
        self._windows.update(changes.windows)
        self._leases.update(changes.leases)
        self._holders.update(changes.holders)
        _replace(self._open, changes.open)
        _replace(self._records, changes.records)
        _replace(self._notes, changes.notes)
        self._entries.update({(row.holder, row.attempt): row for row in entries})
        self._receipts.update({row.seq: row for row in receipts})
        for delta in changes.usage:
            key = (delta.account, delta.day, delta.model)
            had = self._usage.get(key)
            self._usage[key] = delta if had is None else _sum(had, delta)

    def _refuse_doubles(self, changes: Changes, entries: list[EntryRow], receipts: list[ReceiptRow]) -> None:
        told: set[tuple[int, int]] = set()
        for entry in entries:
            key = entry.holder, entry.attempt
            if key in told or key in self._entries:
                raise ToldTwice(*key)
            told.add(key)
        last = next(reversed(self._receipts), 0)
        for row in receipts:
            if row.seq <= last:
                raise StoreError(f"receipt {row.seq} cannot follow receipt {last}")
            last = row.seq
        if changes.accounts:
            accounts = (self._accounts | changes.accounts).values()
            digests = [row.digest for row in accounts if row.digest is not None]
            if len({*digests}) < len(digests) or len({row.public_id for row in accounts}) < len(accounts):
                raise StoreError("two accounts have one token or one name on the wire")

    # Questions

    def receipt(self, id: str) -> ReceiptRow | None:  # noqa: A002  the word of the rows
        return next((row for row in reversed(self._in_chain()) if row.id == id), None)

    def receipts(self, *, account: int | None = None, limit: int = 100, before: int | None = None) -> list[ReceiptRow]:
        rows = [
            row
            for row in self._in_chain()
            if (account is None or row.account == account) and (before is None or row.seq < before)
        ]
        return rows[::-1][:limit]

    def chain(self, seq: int = 1, limit: int = 1000) -> list[ReceiptRow]:
        return [row for row in self._in_chain() if row.seq >= seq][:limit]

    def usage(self, account: int | None, *, days: int, now_ms: int) -> list[UsageDelta]:
        first = first_day(days, now_ms)
        return [
            row
            for _, row in sorted(self._usage.items())
            if (account is None or row.account == account) and row.day >= first
        ]

    def entries(self, request: str) -> list[EntryRow]:
        rows = [row for row in self._entries.values() if row.request == request]
        return sorted(rows, key=lambda row: (row.at_ms, row.holder, row.attempt))

    def windows(self, numbers: Sequence[int]) -> list[WindowRow]:
        return [self._windows[number] for number in numbers if number in self._windows]

    def record(self, kind: str, id: str) -> RecordRow | None:  # noqa: A002  the word of the rows
        return self._records.get((kind, id))

    def records(
        self, kind: str, *, account: int | None = None, limit: int = 100, before_ms: int | None = None
    ) -> list[RecordRow]:
        rows = [
            row
            for row in self._records.values()
            if row.kind == kind
            and (account is None or row.account == account)
            and (before_ms is None or row.at_ms < before_ms)
        ]
        return sorted(rows, key=lambda row: (row.at_ms, row.id), reverse=True)[:limit]

    def record_names(self, kind: str, *, after: str = "", limit: int = 100) -> list[tuple[str, int]]:
        rows = [row for row in self._records.values() if row.kind == kind and row.id > after]
        return sorted((row.id, row.at_ms) for row in rows)[:limit]

    def sweep(self, now_ms: int) -> int:
        expired = [key for key, row in self._records.items() if row.expires_ms is not None and row.expires_ms <= now_ms]
        for key in expired[:SWEEP_ROWS]:
            del self._records[key]
        return len(expired[:SWEEP_ROWS])

    def counts(self) -> Counts:
        return Counts(
            accounts=len(self._accounts),
            holders=len(self._holders),
            open=len(self._open),
            entries=len(self._entries),
            receipts=len(self._receipts),
        )

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        yield Snapshot(
            accounts=_by_id(self._accounts.values()),
            budgets=_by_id(self._budgets.values()),
            windows=_by_id(self._windows.values()),
            leases=[row for _, row in sorted(self._leases.items())],
            holders=_by_id(self._holders.values()),
            open=[row for _, row in sorted(self._open.items())],
            usage=[row for _, row in sorted(self._usage.items())],
            entries=iter(list(self._entries.values())),
            receipts=iter(self._in_chain()),
        )

    def _in_chain(self) -> list[ReceiptRow]:
        return [row for _, row in sorted(self._receipts.items())]


def _replace(rows: dict[Key, Row], changes: dict[Key, Row | None]) -> None:
    for key, row in changes.items():
        if row is None:
            rows.pop(key, None)
        else:
            rows[key] = row


def _by_id(rows: Iterable[Numbered]) -> list[Numbered]:
    return sorted(rows, key=lambda row: row.id)


def _sum(one: UsageDelta, other: UsageDelta) -> UsageDelta:
    return replace(
        one,
        requests=one.requests + other.requests,
        attempts=one.attempts + other.attempts,
        input_tokens=one.input_tokens + other.input_tokens,
        output_tokens=one.output_tokens + other.output_tokens,
        microdollars=one.microdollars + other.microdollars,
    )
