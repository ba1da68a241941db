"""Entries and receipts in SQLite: the leaves of `_piles`, one row each, and what they are found by.

They are written once and never edited, many in one turn, so none has a row of its own: one with its indexes took three
times the CPU. What is in a leaf and not meant is read with it and left out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from typing import Any, Final, Protocol

import msgspec

from fastroute.errors import StoreDamaged, StoreError
from fastroute.ledger import _piles as piles
from fastroute.ledger._piles import BLOCK, Entries, Receipts, name
from fastroute.ledger.store import EntryRow, ReceiptRow, ToldTwice

_ENDLESS: Final = 2**63 - 1
# A text in MessagePack that is none is no `DecodeError`.
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError)


class Statements(Protocol):
    """Statements inside one transaction."""

    def many(self, sql: str, rows: Iterable[tuple[Any, ...]]) -> int: ...

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]: ...

    def each(self, sql: str, *values: Any) -> Iterator[tuple[Any, ...]]: ...


# Written


def add_entries(tx: Statements, rows: Collection[EntryRow]) -> None:
    """Keep them; an attempt that is told a second time is `ToldTwice`."""
    pile = rows if isinstance(rows, Entries) else Entries(rows)
    if pile.twice is not None:
        raise ToldTwice(*pile.twice)
    _mark(tx, pile.bits)
    [[last]] = tx.rows("SELECT coalesce(max(number), 0) FROM entry_leaves")
    leaves = list(enumerate(pile.leaves, last + 1))
    tx.many(
        "INSERT INTO entry_leaves (number, count, entries) VALUES (?, ?, ?)",
        [(number, leaf.count, pile.told(leaf)) for number, leaf in leaves],
    )
    tx.many(
        "INSERT INTO entry_names (name, leaf) VALUES (?, ?)",
        [(each, number) for number, leaf in leaves for each in leaf.names],
    )


def add_receipts(tx: Statements, rows: Collection[ReceiptRow]) -> None:
    """Keep them; one whose place is not behind all others' is a `StoreError`."""
    pile = rows if isinstance(rows, Receipts) else Receipts(rows)
    _refuse(pile.fault)
    for (last,) in tx.rows("SELECT last FROM receipt_leaves ORDER BY first DESC LIMIT 1"):
        if pile.leaves and pile.leaves[0].first <= last:
            _refuse(f"receipt {pile.leaves[0].first} cannot follow receipt {last}")
    tx.many(
        "INSERT INTO receipt_leaves (first, last, count, receipts) VALUES (?, ?, ?, ?)",
        [(leaf.first, leaf.last, leaf.count, pile.told(leaf)) for leaf in pile.leaves],
    )
    tx.many(
        "INSERT INTO receipt_names (name, leaf) VALUES (?, ?)",
        [(each, leaf.first) for leaf in pile.leaves for each in leaf.names],
    )
    tx.many(
        "INSERT INTO receipt_accounts (account, leaf) VALUES (?, ?)",
        [(account, leaf.first) for leaf in pile.leaves for account in leaf.accounts],
    )


def _mark(tx: Statements, bits: dict[tuple[int, int], bytearray]) -> None:
    """A bit for each attempt that was told, so that none is taken twice."""
    rows = []
    for (holder, block), new in bits.items():
        for (had,) in tx.rows("SELECT bits FROM told WHERE holder = ? AND block = ?", holder, block):
            before, now = int.from_bytes(had, "little"), int.from_bytes(new, "little")
            if before & now:
                attempt = block * BLOCK + ((before & now) & -(before & now)).bit_length() - 1
                raise ToldTwice(holder, attempt)
            new = bytearray((before | now).to_bytes(BLOCK // 8, "little"))
        rows.append((holder, block, new))
    tx.many(
        "INSERT INTO told (holder, block, bits) VALUES (?, ?, ?) "
        "ON CONFLICT (holder, block) DO UPDATE SET bits = excluded.bits",
        rows,
    )


def _refuse(fault: str) -> None:
    if fault:
        raise StoreError(f"{fault}; nothing of this change was kept")


# Read


def entries(tx: Statements, request: str) -> list[EntryRow]:
    """Those of one request, in the order of time."""
    leaves = tx.each(
        "SELECT CAST(entries AS BLOB) FROM entry_names JOIN entry_leaves ON number = leaf WHERE name = ? ORDER BY leaf",
        name(request),
    )
    found = [row for row in _all_entries(leaves) if row.request == request]
    return sorted(found, key=lambda row: (row.at_ms, row.holder, row.attempt))


def all_entries(tx: Statements) -> Iterator[EntryRow]:
    """As they were told."""
    return _all_entries(tx.each("SELECT CAST(entries AS BLOB) FROM entry_leaves ORDER BY number"))


def receipt(tx: Statements, id: str) -> ReceiptRow | None:  # noqa: A002  the word of the rows
    leaves = tx.each(
        "SELECT receipts FROM receipt_names JOIN receipt_leaves ON first = leaf WHERE name = ? ORDER BY leaf DESC",
        name(id),
    )
    return next((row for row in _backwards(leaves) if row.id == id), None)


def newest(tx: Statements, account: int | None, limit: int, before: int | None) -> list[ReceiptRow]:
    end = _ENDLESS if before is None else before
    if account is None:
        leaves = tx.each("SELECT receipts FROM receipt_leaves WHERE first < ? ORDER BY first DESC", end)
    else:
        leaves = tx.each(
            "SELECT receipts FROM receipt_accounts JOIN receipt_leaves ON first = leaf "
            "WHERE account = ? AND leaf < ? ORDER BY leaf DESC",
            account,
            end,
        )
    meant = (row for row in _backwards(leaves) if row.seq < end and account in (None, row.account))
    return list(islice(meant, limit))


def chain(tx: Statements, seq: int) -> Iterator[ReceiptRow]:
    """From that place on."""
    leaves = tx.each(
        "SELECT receipts FROM receipt_leaves "
        "WHERE first >= coalesce((SELECT max(first) FROM receipt_leaves WHERE first <= ?), 0) ORDER BY first",
        seq,
    )
    return (row for (leaf,) in leaves for row in _receipts(leaf) if row.seq >= seq)


def last_receipt(tx: Statements) -> ReceiptRow | None:
    return next(_backwards(tx.each("SELECT receipts FROM receipt_leaves ORDER BY first DESC LIMIT 1")), None)


def counts(tx: Statements) -> tuple[int, int]:
    """How many entries and how many receipts there are."""
    [[entries_, receipts]] = tx.rows(
        "SELECT (SELECT coalesce(sum(count), 0) FROM entry_leaves), (SELECT coalesce(sum(count), 0) FROM receipt_leaves)"
    )
    return entries_, receipts


def _all_entries(leaves: Iterator[tuple[Any, ...]]) -> Iterator[EntryRow]:
    for (leaf,) in leaves:
        try:
            yield from piles.entries(leaf)
        except _UNREADABLE as error:
            raise _damaged("entries", error) from error


def _backwards(leaves: Iterator[tuple[Any, ...]]) -> Iterator[ReceiptRow]:
    return (row for (leaf,) in leaves for row in reversed(_receipts(leaf)))


def _receipts(leaf: bytes) -> list[ReceiptRow]:
    try:
        return piles.receipts(leaf)
    except _UNREADABLE as error:
        raise _damaged("receipts", error) from error


def _damaged(what: str, error: Exception) -> StoreDamaged:
    return StoreDamaged(
        f"the books are damaged: some of their {what} cannot be read ({error}). Nothing was changed or deleted; "
        "what else is in them can be used, and a good copy of the database would have them"
    )
