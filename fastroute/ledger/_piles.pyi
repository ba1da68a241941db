"""Entries and receipts on their way to the store: rows pile up as leaves, each the bytes of some fifty receipts
or four hundred entries.

A pile keeps the bytes and lets go of the rows: those of a turn of five hundred requests would not fit the nearer caches.
Entries are JSON, so that whoever looks with SQL alone can read them; a receipt is the bytes that were signed, whatever
they are.
"""

from collections.abc import Collection, Iterable, Iterator

from fastroute.ledger.store import EntryRow, ReceiptRow

LEAF_BYTES: int
"""Of a leaf of more than one row: four pages of the database and what beside them stands in its row, so that little room
is lost.
"""

BLOCK: int
"""Attempts of one holder whose bits stand together."""

def name(whole: str) -> str:
    """What a leaf is found by: names that were given out one after another differ in their last character alone."""

def entries(told: str) -> list[EntryRow]:
    """Those of a leaf; `msgspec.DecodeError` where it is none."""

def receipts(told: bytes) -> list[ReceiptRow]:
    """Those of a leaf; `msgspec.DecodeError` where it is none."""

class Leaf:
    """Some rows as bytes, and what they are found by."""

    first: int
    last: int
    """Of receipts, the places of the first and of the last one."""

    count: int
    names: set[str]
    accounts: set[int]

class Entries(Collection[EntryRow]):
    """Entries, and a bit for each attempt that they tell of."""

    leaves: list[Leaf]
    bits: dict[tuple[int, int], bytearray]
    twice: tuple[int, int] | None
    """(holder, attempt) of one that is told twice among them."""

    def __init__(self, rows: Iterable[EntryRow] = ()) -> None: ...
    def __contains__(self, row: object) -> bool: ...
    def __iter__(self) -> Iterator[EntryRow]: ...
    def __len__(self) -> int: ...
    def add(self, rows: Iterable[EntryRow]) -> None: ...
    def of(self, request: str) -> list[EntryRow]:
        """Those of one request."""

    def told(self, leaf: Leaf) -> str:
        """The value that is stored."""

class Receipts(Collection[ReceiptRow]):
    """Receipts, each behind the one before."""

    leaves: list[Leaf]
    fault: str
    """Why they cannot be kept, where that can be seen from them alone."""

    def __init__(self, rows: Iterable[ReceiptRow] = ()) -> None: ...
    def __contains__(self, row: object) -> bool: ...
    def __iter__(self) -> Iterator[ReceiptRow]: ...
    def __len__(self) -> int: ...
    def add(self, rows: Iterable[ReceiptRow]) -> None: ...
    def told(self, leaf: Leaf) -> bytearray:
        """The value that is stored."""
