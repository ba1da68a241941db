"""Entries and receipts by the leaf: whatever the borders, each is found, and none is kept twice."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from fastroute.errors import StoreCorrupt, StoreError
from fastroute.ledger import migrations
from fastroute.ledger._piles import BLOCK, LEAF, Entries, Receipts
from fastroute.ledger.books import Books
from fastroute.ledger.memory import Memory
from fastroute.ledger.sqlite import Store
from fastroute.ledger.store import Changes, EntryRow, ReceiptRow

AT = 1_795_262_400_000


def entry(attempt: int, request: str = "", holder: int = 1) -> EntryRow:
    return EntryRow(
        holder, attempt, request or f"req_{attempt}", 1, (1,), (9,), (5,), "exact", "e", "m", "l", "ok",
        (1, 2, 0, 0, 0), 5_000_000, 5, AT + attempt,
    )  # fmt: skip


def receipt(seq: int, account: int = 1) -> ReceiptRow:
    return ReceiptRow(
        seq, f"rcpt_{seq}", f"req_{seq}", account, AT + seq, b'{"n":"\xc3\xa4\x00%d"}' % seq, b"\xff" * 32
    )


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "fastroute.db"


@pytest.fixture
def books(database: Path) -> Iterator[Books]:
    with Store.open(database) as store:
        yield Books(store)


def altered(database: Path, sql: str, *values: object) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        assert connection.execute(sql, values).rowcount == 1


# --- found ------------------------------------------------------------------------------------------------------------


def test_each_row_is_found_wherever_a_leaf_ends(books: Books) -> None:
    """Commits of all sizes around a leaf's, beside a store that keeps every row by itself."""
    plain = Memory()
    dice = random.Random(7)
    seq = 0
    for size in (1, LEAF - 1, LEAF, LEAF + 1, 2, 3 * LEAF + 5, 1):
        changes = Changes(
            receipts=[receipt(seq + n, dice.randrange(3)) for n in range(1, size + 1)],
            entries=[entry(seq + n, f"req_{(seq + n) // 2}") for n in range(1, size + 1)],
        )
        seq += size
        books.commit(changes)
        plain.commit(changes)
    for number in range(seq + 2):
        assert books.receipt(f"rcpt_{number}") == plain.receipt(f"rcpt_{number}")
        assert books.entries(f"req_{number}") == plain.entries(f"req_{number}")
    for _ in range(200):
        account, before = dice.choice([None, 0, 1, 2, 3]), dice.choice([None, dice.randrange(seq + 3)])
        asked = {"account": account, "before": before, "limit": dice.choice([0, 1, 7, 2 * LEAF])}
        assert books.receipts(**asked) == plain.receipts(**asked)
        assert books.chain(before or 1, asked["limit"]) == plain.chain(before or 1, asked["limit"])
    assert books.counts() == plain.counts()
    assert books.load().last_receipt == plain.load().last_receipt
    with books.snapshot() as ours, plain.snapshot() as theirs:
        assert list(ours.entries) == list(theirs.entries)
        assert list(ours.receipts) == list(theirs.receipts)


@pytest.mark.parametrize("name", ["", "x", "ä", "req_\U0001f600", "a" * 5000, "req_abcdefgh1", "req_abcdefgh12"])
def test_a_request_may_be_called_anything(books: Books, name: str) -> None:
    books.commit(Changes(entries=[entry(n, name + str(n)) for n in range(3)]))
    books.commit(Changes(entries=[entry(3, name), entry(4, "other")], receipts=[replace(receipt(1), id=name)]))
    books.commit(Changes(entries=[entry(5, name)]))
    assert [row.attempt for row in books.entries(name)] == ([3, 5] if name else [])  # one without a name has its number
    assert [row.attempt for row in books.entries(name + "1")] == [1]
    assert books.receipt(name) is not None
    assert books.receipt(name + "1") is None


def test_the_newest_of_two_receipts_of_one_name_is_shown(books: Books) -> None:
    books.commit(Changes(receipts=[receipt(1), replace(receipt(2), id="rcpt_1")]))
    assert books.receipt("rcpt_1").seq == 2
    books.commit(Changes(receipts=[replace(receipt(3), id="rcpt_1")]))
    assert books.receipt("rcpt_1").seq == 3


# --- once -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attempt", [0, 1, 7, 8, BLOCK - 1, BLOCK, 5 * BLOCK + 3, 2**62])
def test_an_attempt_is_told_once(books: Books, attempt: int) -> None:
    books.commit(Changes(entries=[entry(attempt)]))
    for again in ([entry(attempt)], [entry(attempt + 1), entry(attempt)], [entry(attempt, "another")]):
        with pytest.raises(StoreError, match=f"attempt {attempt} of holder 1 is told a second time; nothing of this"):
            books.commit(Changes(entries=again))
    books.commit(Changes(entries=[entry(attempt, holder=2), entry(attempt + 1), entry(attempt + BLOCK)]))
    assert books.counts().entries == 4


def test_receipts_follow_one_another(books: Books) -> None:
    books.commit(Changes(receipts=[receipt(n) for n in range(1, 200)]))
    for wrong in ([receipt(199)], [receipt(5)], [receipt(200), receipt(200)], [receipt(201), receipt(200)]):
        with pytest.raises(StoreError, match=r"receipt \d+ cannot follow receipt \d+; nothing of this change was kept"):
            books.commit(Changes(receipts=wrong))
    assert len(books.chain()) == 199


# --- piled up ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, LEAF - 1, LEAF, LEAF + 1, 300])
def test_a_pile_has_its_rows_however_they_came(size: int) -> None:
    rows, papers = [entry(n) for n in range(size)], [receipt(n + 1) for n in range(size)]
    pile, slowly = Entries(rows), Entries()
    sheaf = Receipts()
    for row, paper in zip(rows, papers, strict=True):
        slowly.add([row])
        sheaf.add([paper])
        assert list(sheaf)[-1] == paper  # looked at meanwhile, it grows on
    assert (pile, slowly, sheaf) == (rows, rows, papers)
    assert (len(pile), len(sheaf), bool(pile)) == (size, size, size > 0)
    assert [len(leaf.names) > 0 for leaf in pile.leaves] == [True] * -(-size // LEAF)
    assert all(row in pile for row in rows[:2])
    assert entry(10**6) not in pile
    assert pile.of("req_0") == rows[:1]
    assert pile.of("req_nobody") == []
    assert pile != [*rows, entry(size)]


# --- damaged, and older -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leaf", ["{", "[]x", "[[1]]", "null"])
def test_a_leaf_of_entries_that_cannot_be_read_is_told(books: Books, database: Path, leaf: str) -> None:
    books.commit(Changes(entries=[entry(1)]))
    altered(database, "UPDATE entry_leaves SET entries = ?", leaf)
    with pytest.raises(StoreCorrupt, match="a leaf of entries cannot be read"):
        books.entries("req_1")
    with books.snapshot() as rows, pytest.raises(StoreCorrupt, match="good copy of the database"):
        list(rows.entries)


@pytest.mark.parametrize("leaf", [b"", b"\xdc\0\1", msgspec.msgpack.encode([[1, 2]]), b"\xc0"])
def test_a_leaf_of_receipts_that_cannot_be_read_is_told(books: Books, database: Path, leaf: bytes) -> None:
    books.commit(Changes(receipts=[receipt(1)]))
    altered(database, "UPDATE receipt_leaves SET receipts = ?", leaf)
    for ask in (lambda: books.receipt("rcpt_1"), books.receipts, books.chain, books.load):
        with pytest.raises(StoreCorrupt, match="a leaf of receipts cannot be read"):
            ask()


def test_rows_of_an_earlier_fastroute_move(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is lost on the way, and what was told then is not told again."""
    entries = [entry(n, f"req_{n % 300}") for n in range(5000)]
    correction = replace(entry(1, holder=0), corrects=(1, 1), picodollars=2**70, microdollars=None)
    receipts = [receipt(n + 1, n % 5) for n in range(5000)]
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "MIGRATIONS", migrations.MIGRATIONS[:6])
        patch.setattr(migrations, "LATEST", 6)
        with Store.open(database) as store, store.write() as tx:
            for row in [*entries, correction]:
                told = msgspec.json.encode(row).decode()
                tx.run("INSERT INTO entries (holder, attempt, request, told) VALUES (?, ?, ?, ?)", *row_key(row), told)
            for paper in receipts:
                tx.run("INSERT INTO receipts VALUES (?, ?, ?, ?, ?, ?, ?)", *msgspec.structs.astuple(paper))
    with Store.open(database) as store:
        assert store.applied == ("7 leaves",)
        books = Books(store)
        with books.snapshot() as rows:
            assert list(rows.entries) == [correction, *entries]
            assert list(rows.receipts) == receipts
        assert books.receipt("rcpt_4711") == receipts[4710]
        assert len(books.entries("req_7")) == 17
        for again in (entries[4999], correction):
            with pytest.raises(StoreError, match="a second time"):
                books.commit(Changes(entries=[again]))


def row_key(row: EntryRow) -> tuple[int, int, str]:
    return row.holder, row.attempt, row.request
