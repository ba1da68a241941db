"""Entries and receipts by the leaf: whatever the borders, each is found, and none is kept twice."""

from __future__ import annotations

import fcntl
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from fastroute.errors import StoreCorrupt, StoreDamaged, StoreError
from fastroute.ledger import migrations
from fastroute.ledger._piles import BLOCK, LEAF_BYTES, Entries, Receipts
from fastroute.ledger.audit import audit
from fastroute.ledger.books import Books
from fastroute.ledger.memory import Memory
from fastroute.ledger.sqlite import Store
from fastroute.ledger.store import Changes, EntryRow, ReceiptRow

AT = 1_795_262_400_000
LEAF = 40  # receipts that fill one
BODY = b'"' + b"x" * (LEAF_BYTES // LEAF - 80)


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


@pytest.mark.parametrize("size", [0, 1, LEAF - 1, LEAF, LEAF + 1, 300, 3000])
def test_a_pile_has_its_rows_however_they_came(size: int) -> None:
    rows, papers = [entry(n) for n in range(size)], [receipt(n + 1) for n in range(min(size, 400))]
    pile, slowly, sheaf = Entries(rows), Entries(), Receipts()
    for row in rows:
        slowly.add([row])
    for paper in papers:
        sheaf.add([paper])
        assert list(sheaf)[-1] == paper  # looked at meanwhile, it grows on
    assert (pile, slowly, sheaf) == (rows, rows, papers)
    assert (len(pile), len(sheaf), bool(pile)) == (size, len(papers), size > 0)
    assert all(row in pile for row in rows[:2])
    assert entry(10**6) not in pile
    assert pile.of("req_0") == rows[:1]
    assert pile.of("req_nobody") == []
    assert pile != [*rows, entry(size)]


def test_leaves_are_full_and_no_larger() -> None:
    """All but the last; a row that is larger than one has one for itself."""
    pile = Receipts(receipt(n + 1) for n in range(5 * LEAF))
    sizes = [len(pile.told(leaf)) for leaf in pile.leaves]
    assert all(LEAF_BYTES - 2 * len(BODY) < size <= LEAF_BYTES for size in sizes[:-1])
    assert sum(leaf.count for leaf in pile.leaves) == 5 * LEAF
    assert [leaf.first for leaf in pile.leaves[1:]] == [leaf.last + 1 for leaf in pile.leaves[:-1]]
    large = replace(receipt(2), body=bytes(4 * LEAF_BYTES))
    assert [leaf.count for leaf in Receipts([receipt(1), large, receipt(3)]).leaves] == [1, 1, 1]
    assert [leaf.count for leaf in Receipts([large, receipt(3)]).leaves] == [1, 1]


def test_a_row_that_has_no_bytes_leaves_the_pile_as_it_was() -> None:
    for pile, good, bad in (
        (Entries(), entry(1), entry(2, "req_\ud800")),
        (Receipts(), receipt(1), replace(receipt(2), request="req_\ud800")),
    ):
        pile.add([good])
        with pytest.raises((UnicodeEncodeError, msgspec.EncodeError, ValueError)):
            pile.add([bad])
        assert list(pile) == [good]
        pile.add([replace(good, attempt=3) if isinstance(good, EntryRow) else receipt(3)])
        assert len(list(pile)) == 2


# --- damaged, and older -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leaf", ["{", "[]x", "[[1]]", "null", b'["\xff"]'])
def test_entries_that_cannot_be_read_are_told(books: Books, database: Path, leaf: str | bytes) -> None:
    books.commit(Changes(entries=[entry(1)]))
    altered(database, "UPDATE entry_leaves SET entries = CAST(? AS TEXT)", leaf)
    with pytest.raises(StoreDamaged, match="some of their entries cannot be read"):
        books.entries("req_1")
    assert [sentence for sentence in audit(books) if "cannot be read" in sentence]
    books.commit(Changes(entries=[entry(2)]))
    assert books.counts().entries == 2


def spoilt(leaf: bytes) -> bytes:
    return leaf.replace(b"rcpt_1", b"rcpt_\xff")


@pytest.mark.parametrize("leaf", [b"", b"\xdc\0\1", msgspec.msgpack.encode([[1, 2]]), b"\xc0", spoilt])
def test_receipts_that_cannot_be_read_are_told_and_the_house_goes_on(
    books: Books, database: Path, leaf: bytes | Callable[[bytes], bytes]
) -> None:
    """A bit that fell over in an old receipt: whoever asks for that one is refused, and nobody else."""
    books.commit(Changes(receipts=[receipt(1)]))
    with books._store.read() as tx:
        [[before]] = tx.rows("SELECT receipts FROM receipt_leaves")
    altered(database, "UPDATE receipt_leaves SET receipts = ?", leaf if isinstance(leaf, bytes) else leaf(before))
    for ask in (lambda: books.receipt("rcpt_1"), books.receipts, books.chain):
        with pytest.raises(StoreDamaged, match="some of their receipts cannot be read"):
            ask()
    with pytest.raises(StoreCorrupt, match="receipts cannot be read"):
        books.load()  # the next one would follow it
    books.commit(Changes(receipts=[receipt(2)]))
    assert books.load().last_receipt == receipt(2)
    assert books.receipt("rcpt_2") == receipt(2)


def test_rows_of_an_earlier_fastroute_move(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is lost on the way, and what was told then is not told again."""
    entries = [entry(n, f"req_{n % 300}") for n in range(5000)]
    correction = replace(entry(1, holder=0), corrects=(1, 1), picodollars=2**70, microdollars=None)
    receipts = [receipt(n + 1, n % 5) for n in range(10_000)]
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "MIGRATIONS", migrations.MIGRATIONS[:6])
        patch.setattr(migrations, "LATEST", 6)
        with Store.open(database) as store, store.write() as tx:
            for row in [*entries, correction]:
                told = msgspec.json.encode(row).decode()
                tx.run("INSERT INTO entries (holder, attempt, request, told) VALUES (?, ?, ?, ?)", *row_key(row), told)
            for paper in receipts:
                tx.run("INSERT INTO receipts VALUES (?, ?, ?, ?, ?, ?, ?)", *msgspec.structs.astuple(paper))
    size = database.stat().st_size
    with Store.open(database) as store:
        assert store.applied == ("7 leaves",)
        assert database.stat().st_size < 1.5 * size  # what has moved makes room
        books = Books(store)
        with books.snapshot() as rows:
            assert list(rows.entries) == [correction, *entries]
            assert list(rows.receipts) == receipts
        assert books.receipt("rcpt_4711") == receipts[4710]
        assert len(books.entries("req_7")) == 17
        for again in (entries[4999], correction):
            with pytest.raises(StoreError, match="a second time"):
                books.commit(Changes(entries=[again]))


def test_an_entry_that_cannot_be_taken_over_is_named(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "MIGRATIONS", migrations.MIGRATIONS[:6])
        patch.setattr(migrations, "LATEST", 6)
        with Store.open(database) as store, store.write() as tx:
            tx.run("INSERT INTO entries (holder, attempt, request, told) VALUES (3, 8, 'req_1', '[1,1]')")
        before = database.read_bytes()
    with pytest.raises(StoreError, match="attempt 8 of holder 3 cannot be taken over"):
        Store.open(database)
    assert database.read_bytes() == before


def test_books_that_somebody_keeps_are_not_migrated_under_him(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An earlier fastroute that still runs would find its tables gone."""
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "MIGRATIONS", migrations.MIGRATIONS[:6])
        patch.setattr(migrations, "LATEST", 6)
        Store.open(database).close()
    lock = database.with_name("run") / "bookkeeper.lock"
    lock.parent.mkdir()
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        for opened in (Store.open, Store.glance):
            with pytest.raises(StoreError, match="schema 6 and is in use by a running fastroute; stop that one"):
                opened(database)
    with Store.open(database) as store:
        assert store.applied == ("7 leaves",)


def row_key(row: EntryRow) -> tuple[int, int, str]:
    return row.holder, row.attempt, row.request
