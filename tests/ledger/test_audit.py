"""The audit: silent over books that are right, and it names what was changed behind their back."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from fastroute.ledger.audit import audit
from fastroute.ledger.book import Book, BrokenBooks, Budget, Refused
from fastroute.ledger.books import Books
from fastroute.ledger.memory import Memory
from fastroute.ledger.protocol import LeaseReport, Refresh
from fastroute.ledger.records import Finish, Send, Settle
from fastroute.ledger.sqlite import Store
from fastroute.ledger.store import Changes, ReceiptRow

NOON = 1_795_262_400_000
DAY = 86_400_000


class Life:
    """One worker as the book hears of it."""

    def __init__(self, holder: int) -> None:
        self.holder = holder
        self.attempt = self.seq = 0
        self.totals: dict[int, list[int]] = {}  # window -> granted, released, spent, held
        self.open: list[Send] = []


class Town:
    """Keys, grants and workers that do whatever the dice say, each step committed."""

    def __init__(self, books: Books | Memory, seed: int) -> None:
        self.books = books
        self.dice = random.Random(seed)
        self.now = NOON
        self.book = Book(books.load())
        parent = self.book.open_account(
            "team",
            "key",
            "team",
            created_ms=NOON,
            budgets=[Budget("microdollar", 5000), Budget("request", 400, "daily")],
        )
        own = [Budget("microdollar", 3000, "daily"), Budget("token", 9000, "monthly")]
        key = self.book.open_account("k", "key", "k", created_ms=NOON, parent=parent.id, budgets=own)
        self.book.open_account("free", "user", "free", created_ms=NOON)
        self.accounts = [parent.id, key.id, 3]
        self.grants: list[int] = []
        self.lives = [self.life(), self.life()]
        self.receipts = 0
        self.commit()

    def life(self) -> Life:
        return Life(self.book.hello("boot", self.now))

    def commit(self) -> None:
        assert self.book.check() == []
        changes = self.book.take()
        for one in self.book.finished:
            self.receipts += 1
            request = one.finish.request
            changes.receipts.append(ReceiptRow(self.receipts, f"r{self.receipts}", request, 1, self.now, b"", b""))
        self.book.finished.clear()
        self.books.commit(changes)

    def step(self) -> None:
        dice = self.dice
        life = dice.choice(self.lives)
        roll = dice.random()
        if roll < 0.45:
            self.send(life, dice.choice(self.accounts + self.grants))
        elif roll < 0.75 and life.open:
            self.settle(life, life.open.pop(dice.randrange(len(life.open))))
        elif roll < 0.80:
            self.release(life)
        elif roll < 0.85:
            self.allocate()
        elif roll < 0.88 and self.grants:
            self.book.end_allocation(dice.choice(self.grants), dice.choice(["revoked", "ended"]))
        elif roll < 0.91 and self.grants:
            self.book.post(dice.choice(self.grants), f"post{dice.random()}", dice.randrange(30), now_ms=self.now)
        elif roll < 0.94:
            self.correct()
        elif roll < 0.96:
            self.lives.remove(life)
            self.book.bury(life.holder, self.now, power_lost=dice.random() < 0.3)
            self.lives.append(self.life())
        elif roll < 0.97:
            self.now += DAY // 3
        self.commit()

    def want(self, life: Life, window: int, amount: int) -> bool:
        life.seq += 1
        had = life.totals.setdefault(window, [0, 0, 0, 0])
        report = LeaseReport(window, *had, want=amount, urgent=True)
        reply, _ = self.book.refresh(Refresh(1, life.holder, life.seq, (report,)), self.now)
        had[0] = reply.leases[0].granted
        return had[0] - had[1] - had[2] - had[3] >= amount and not reply.leases[0].closed

    def send(self, life: Life, account: int) -> None:
        if self.book.standing(account, self.now) != "live":
            return
        path = self.book.facts(account, self.now).path
        amount = self.dice.randrange(1, 60)
        reserved = tuple(1 if window.unit == "request" else amount for window in path)
        if not all(self.want(life, window.window, held) for window, held in zip(path, reserved, strict=True)):
            return
        for window, held in zip(path, reserved, strict=True):
            life.totals[window.window][3] += held
        life.attempt += 1
        windows = tuple(window.window for window in path)
        request = f"req_{life.holder}_{life.attempt}"
        sent = Send(life.attempt, request, account, windows, reserved, "m", "p:m", "p", self.now, amount)
        self.book.apply(life.holder, sent, self.now)
        life.open.append(sent)

    def settle(self, life: Life, sent: Send) -> None:
        assert sent.microdollars is not None
        amount = self.dice.choice([0, sent.microdollars // 2, sent.microdollars, sent.microdollars + 3])
        requests = {window.id for window in self.books.load().windows if window.budget == 2}
        charged = tuple(min(amount, 1) if window in requests else amount for window in sent.windows)
        for window, held, charge in zip(sent.windows, sent.reserved, charged, strict=True):
            life.totals[window][2] += charge
            life.totals[window][3] -= held
        spent = tuple(life.totals[window][2] for window in sent.windows)
        usage = (amount, amount, 0, 0, 0)
        told = Settle(sent.attempt, "exact", "ok", 200, charged, spent, usage, amount * 10**6, amount, 5)
        self.book.apply(life.holder, told, self.now)
        finish = Finish(sent.request, sent.account, "rd", "chat", "m", "m", "", 200, False, self.now, 5, None)
        self.book.apply(life.holder, finish, self.now)

    def release(self, life: Life) -> None:
        life.seq += 1
        reports = []
        for window, had in life.totals.items():
            had[1] = max(had[1], had[0] - had[2] - had[3])
            reports.append(LeaseReport(window, *had))
        self.book.refresh(Refresh(1, life.holder, life.seq, tuple(reports)), self.now)

    def allocate(self) -> None:
        name = f"g{len(self.grants)}"
        try:
            parent = self.dice.choice(self.accounts[:2] + self.grants[-1:])
            row = self.book.allocate(parent, self.dice.randrange(200), name, "grant", name, now_ms=self.now)
        except Refused:
            return
        self.grants.append(row.id)

    def correct(self) -> None:
        with self.books.snapshot() as rows:
            entries = [row for row in rows.entries if row.corrects is None and row.attempt > 0 and row.charged]
            windows = rows.windows
        if not entries:
            return
        before = self.dice.choice(entries)
        if any(other.corrects == (before.holder, before.attempt) for other in self.books.entries(before.request)):
            return
        less = tuple(charge // 2 for charge in before.charged)
        money = (before.microdollars or 0) // 2
        self.book.correct(
            before,
            charged=less,
            basis="exact",
            usage=before.usage,
            picodollars=None,
            microdollars=money,
            now_ms=self.now,
            old_windows=windows,
        )


@pytest.mark.parametrize("seed", range(12))
def test_it_is_silent_over_any_history(seed: int) -> None:
    """Grants in grants, breaches, corrections, deaths, power losses, days that turn: every balance is its entries."""
    town = Town(Memory(), seed)
    for step in range(250):
        try:
            town.step()
        except BrokenBooks as error:
            pytest.fail(f"step {step}: {error}")
        if step % 25 == 24:
            assert audit(town.books) == []


@pytest.fixture
def spoiled(tmp_path: Path) -> Store:
    with Store.open(tmp_path / "fastroute.db") as store:
        town = Town(Books(store), 3)
        for _ in range(120):
            town.step()
        assert audit(town.books) == []
        yield store


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        ("UPDATE windows SET closed = closed + 1 WHERE id = 1", "I6: window total"),
        ("UPDATE leases SET spent = spent + 1 WHERE holder = 1 AND window = 1", "I5: the lease of holder 1"),
        ("UPDATE leases SET released = granted + 1 WHERE holder = 1", "I2: the lease of holder 1"),
        ("UPDATE holders SET live = 0 WHERE live AND kind = 'worker'", "I9: the lease of holder"),
        (
            "UPDATE entry_leaves SET entries = json_remove(entries, '$[0]') WHERE number = 1",
            "usage of account",
        ),
        (
            "UPDATE entry_leaves SET entries = json_set(entries, '$[0][6][0]', 1 + (entries ->> '$[0][6][0]'), "
            "'$[0][7]', 'exact') WHERE entries ->> '$[0][6][0]' > 0",
            "I7: attempt",
        ),
        ("UPDATE usage SET microdollars = microdollars + 1", "usage of account"),
        ("DELETE FROM receipt_leaves WHERE first = 2", "receipts 2 to 2 are missing"),
    ],
)
def test_it_names_what_was_changed(spoiled: Store, spoil: str, sentence: str) -> None:
    with spoiled.write() as tx:
        assert tx.run(spoil) > 0
    found = audit(Books(spoiled))
    assert any(one.startswith(sentence) for one in found), found


def test_it_runs_while_the_house_is_open(tmp_path: Path) -> None:
    with Store.open(tmp_path / "fastroute.db") as store:
        town = Town(Books(store), 5)
        for _ in range(40):
            town.step()
        with Store.open(tmp_path / "fastroute.db", readonly=True) as other:
            assert audit(Books(other)) == []
            town.step()
            assert audit(Books(other)) == []


def test_an_empty_store_is_right() -> None:
    empty = Memory()
    empty.commit(Changes())
    assert audit(empty) == []
