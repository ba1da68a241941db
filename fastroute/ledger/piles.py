"""Entries and receipts on their way to the store: rows pile up as leaves of up to 128, each leaf the bytes of its rows.

A pile keeps the bytes and lets go of the rows: those of a turn of five hundred requests would not fit the nearer caches.
Entries are JSON, so that whoever looks with SQL alone can read them; a receipt is the bytes that were signed, whatever
they are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Final, TypeVar

import msgspec

from fastroute.ledger.store import EntryRow, ReceiptRow

LEAF: Final = 128
BLOCK: Final = 1024  # attempts of one holder whose bits stand together
_LIST: Final = b"\xdc\0\0"  # of MessagePack, its length in two bytes

_json = msgspec.json.Encoder()
_msgpack = msgspec.msgpack.Encoder()
_entries = msgspec.json.Decoder(list[EntryRow])
_receipts = msgspec.msgpack.Decoder(list[ReceiptRow])

Row = TypeVar("Row", EntryRow, ReceiptRow)


def name(whole: str) -> str:
    """What a leaf is found by: names that were given out one after another differ in their last character alone."""
    return whole[:-1]


def entries(told: str) -> list[EntryRow]:
    """Those of a leaf; `msgspec.DecodeError` where it is none."""
    return _entries.decode(told)


def receipts(told: bytes | bytearray) -> list[ReceiptRow]:
    """Those of a leaf; `msgspec.DecodeError` where it is none."""
    return _receipts.decode(told)


class Leaf:
    """Some rows as bytes, and what they are found by."""

    __slots__ = ("accounts", "body", "count", "first", "names")

    def __init__(self, first: int, body: bytearray) -> None:
        self.first = first  # of receipts, the place of the first one
        self.body = body
        self.count = 0
        self.names: set[str] = set()
        self.accounts: set[int] = set()


class _Pile(Collection[Row]):
    """Rows in their order, as leaves; `fault` says why they cannot be kept, where that can be seen from them alone."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self.leaves: list[Leaf] = []
        self.fault = ""
        self.add(rows)

    def add(self, rows: Iterable[Row]) -> None:
        raise NotImplementedError

    def __iter__(self) -> Iterator[Row]:
        raise NotImplementedError

    def __len__(self) -> int:
        return sum(leaf.count for leaf in self.leaves)

    def __contains__(self, row: object) -> bool:
        return any(row == each for each in self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (_Pile, list)) and len(self) == len(other) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # a pile grows

    def _leaf(self, first: int, beginning: bytes) -> Leaf:
        if not self.leaves or self.leaves[-1].count == LEAF:
            self.leaves.append(Leaf(first, bytearray(beginning)))
        return self.leaves[-1]


class Entries(_Pile[EntryRow]):
    """Entries, and a bit for each attempt that they tell of."""

    def __init__(self, rows: Iterable[EntryRow] = ()) -> None:
        self.bits: dict[tuple[int, int], bytearray] = {}
        super().__init__(rows)

    def add(self, rows: Iterable[EntryRow]) -> None:
        for row in rows:
            leaf = self._leaf(0, b"[")
            _json.encode_into(row, leaf.body, -1)
            leaf.body += b","
            leaf.names.add(name(row.request))
            leaf.count += 1
            block, place = divmod(row.attempt, BLOCK)
            bits = self.bits.get((row.holder, block))
            if bits is None:
                bits = self.bits[row.holder, block] = bytearray(BLOCK // 8)
            byte, bit = place >> 3, 1 << (place & 7)
            if bits[byte] & bit:
                self.fault = f"attempt {row.attempt} of holder {row.holder} is told a second time"
            bits[byte] |= bit

    def __iter__(self) -> Iterator[EntryRow]:
        for leaf in self.leaves:
            yield from entries(self.told(leaf))

    def of(self, request: str) -> list[EntryRow]:
        """Those of one request."""
        meant = (leaf for leaf in self.leaves if name(request) in leaf.names)
        return [row for leaf in meant for row in entries(self.told(leaf)) if row.request == request]

    @staticmethod
    def told(leaf: Leaf) -> str:
        return leaf.body[:-1].decode() + "]"


class Receipts(_Pile[ReceiptRow]):
    """Receipts, each behind the one before."""

    def __init__(self, rows: Iterable[ReceiptRow] = ()) -> None:
        self._last = 0
        super().__init__(rows)

    def add(self, rows: Iterable[ReceiptRow]) -> None:
        for row in rows:
            leaf = self._leaf(row.seq, _LIST)
            _msgpack.encode_into(row, leaf.body, -1)
            leaf.names.add(name(row.id))
            leaf.accounts.add(row.account)
            leaf.count += 1
            if row.seq <= self._last:
                self.fault = f"receipt {row.seq} cannot follow receipt {self._last}"
            self._last = row.seq

    def __iter__(self) -> Iterator[ReceiptRow]:
        for leaf in self.leaves:
            yield from receipts(self.told(leaf))

    @staticmethod
    def told(leaf: Leaf) -> bytearray:
        leaf.body[1:3] = leaf.count.to_bytes(2, "big")
        return leaf.body
