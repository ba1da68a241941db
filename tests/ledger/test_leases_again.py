"""A window that nothing is admitted on for a while: what its lease was lent and spent is still known when it goes on."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from fastroute.ledger.audit import audit
from fastroute.ledger.book import Budget
from fastroute.ledger.keeper import Now
from fastroute.ledger.leases import Holder, Path, Ticket
from fastroute.ledger.protocol import Known, Who
from fastroute.ledger.records import Finish
from tests.ledger.keeper_kit import NOON, House, send, settle

DAY_MS = 86_400_000


class Pair:
    """A worker's holder beside the bookkeeper, with 7 spent of what it was lent."""

    def __init__(self, kind: str, expires_ms: int | None = None) -> None:
        self.house = house = House()
        self.holder = house.hello(1)
        row = house.keeper.book.open_account(
            "k", "key", "k", created_ms=NOON, digest=b"k".ljust(32), budgets=[Budget("microdollar", 1000, kind)]
        )
        self.account = row.id
        if expires_ms is not None:
            house.keeper.book.change_account(row.id, expires_ms=expires_ms)
        house.turn()
        self.leases = Holder(120_000, house.ms)
        ticket = self.asked()
        self.report(due=False)
        hold = ticket.hold
        assert hold is not None
        house.write(self.holder, send(1, "r1", self.account, ticket.path.windows[0]))
        self.leases.settle(hold, 7, 0)
        finish = Finish("r1", self.account, "rd", "chat", "m", "m", "", 200, False, NOON, 5, None)
        house.write(self.holder, settle(1, 7, 7), finish)
        self.rest()

    def known(self) -> Known:
        return self.house.ask(Who(1, account=self.account))

    def path(self) -> Path:
        facts = self.known().facts
        assert facts is not None
        return self.leases.path(facts, self.house.ms)

    def asked(self) -> Ticket:
        return self.leases.ask(self.path(), 10, 0, self.house.ms)

    def report(self, *, due: bool = True) -> None:
        told = self.leases.report(self.house.ms, due=due)
        if told is not None:
            seq, leases = told
            refresh = self.house.want(1, self.holder, 0, seq, 0)
            self.leases.answer(self.house.ask(replace(refresh, leases=leases), 1), self.house.ms)

    def rest(self) -> None:
        """What is free goes back, and the bookkeeper hears that nothing is open."""
        for _ in range(3):
            self.house.ms += 5000
            self.house.turn()
            self.leases.recall(list(self.leases._leases), self.house.ms)
            self.report()

    def spends_again(self) -> None:
        ticket = self.asked()
        if ticket.hold is None:
            self.leases.drop(ticket)
            self.report()
            ticket = self.asked()
            self.report(due=False)
        assert ticket.hold is not None, ticket.short
        window = ticket.path.windows[0]
        self.house.write(self.holder, send(2, "r2", self.account, window))
        self.leases.settle(ticket.hold, 5, 0)
        finish = Finish("r2", self.account, "rd", "chat", "m", "m", "", 200, False, NOON, 5, None)
        self.house.write(self.holder, settle(2, 5, 12), finish)
        self.rest()
        [balance] = self.house.keeper.book.balances(self.account, self.house.now.wall_ms)
        assert balance.used == 12
        assert audit(self.house.store) == []


def test_an_expiry_that_is_put_off_lets_its_workers_go_on() -> None:
    """Whether they had spent on it before it was over or not."""
    pair = Pair("total", NOON + 1_060_000)
    pair.house.ms += 100_000
    assert pair.known().state == "expired"
    pair.leases.disconnected()  # everything is told once more
    pair.rest()
    assert pair.house.store.load().leases == []  # it has come home
    pair.house.keeper.book.change_account(pair.account, expires_ms=None)
    pair.house.turn()
    pair.spends_again()


def test_a_clock_that_steps_ahead_and_back_closes_nothing_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair("daily")
    with monkeypatch.context() as patch:
        ahead = property(lambda house: Now(NOON + house.ms + 2 * DAY_MS, house.ms))
        patch.setattr(House, "now", ahead)
        pair.leases.disconnected()
        pair.rest()
        assert pair.house.store.load().leases == []
    pair.spends_again()
