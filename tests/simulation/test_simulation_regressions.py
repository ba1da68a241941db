"""What the simulator has found in the shipped code, each as the shortest story that shows it."""

from msgspec.structs import replace

from fastroute.domain import Settlement, Usage
from fastroute.ledger.book import Book, Budget
from fastroute.ledger.journal import JournalFull
from fastroute.ledger.keeper import Keeper, Letter, Now
from fastroute.ledger.leases import Holder
from fastroute.ledger.memory import Memory
from fastroute.ledger.protocol import Facts, Hello, LeaseAnswer, LeaseReport, PathWindow, Refresh, Refreshed
from fastroute.ledger.records import Send, Settle
from fastroute.ledger.store import State
from tests.simulation.desk import Desk, seal
from tests.simulation.worker import Account, Worker
from tests.simulation.world import World

PATH = (PathWindow(1, "microdollar", 1000, "total", "UTC", None, "team", "key"),)


class Pages:
    """A journal that has room, or has none."""

    full = False

    def append(self, kind, payload):
        if self.full:
            raise JournalFull("no space left on device")
        return 1

    def sync(self):
        pass


def test_what_a_settlement_freed_stays_here_until_the_journal_has_the_settlement():
    """R3. With a full disk it was given back at once and lent to others; a death then charged the whole reserve again.

    Found with a full disk, kills and limits that change: a window of 6000 had charged 6174.
    """
    worker = Worker(World(0, []), 0)
    worker.holder, worker.journal = Holder(10_000, 0, windows_max=8), Pages()
    account = Account(worker, Facts(1, "team", "key", "team", PATH, None), 0)
    ticket = worker.holder.ask(account.path, 100, 0, 0)
    seq, _ = worker.holder.report(0)
    worker.holder.answer(Refreshed(1, seq, (LeaseAnswer(1, 100, exact=True),)), 0)
    hold = ticket.hold
    assert account.send(hold, "q", "entry", "model", "lane") is None

    worker.journal.full = True
    account.settle(hold, Settlement("exact", 10_000_000, 10, Usage(1, 1)), "ok", 200, 1)
    assert worker.holder.balance(1) == (100, 0, 10, 0, 90)
    _, (report,) = worker.holder.recall([1], 1)
    assert report.released == 0
    _, (report,) = worker.holder.report(2)
    assert report.released == 0

    worker.journal.full = False
    worker.catch_up()
    _, (report,) = worker.holder.recall([1], 3)
    assert report.released == 90


def test_while_the_store_is_down_totals_are_told_only_to_whom_they_belong():
    """A report on somebody else's connection was answered with what it said, and taken for rights of his own there."""
    world = World(0, [])
    world.furnish()
    keeper = Keeper(world.store, world.journals, lambda: Desk(world), seal, "boot")
    keeper.start(Now(0, 0))
    welcomes = keeper.turn([Letter(7, Hello(1, 0, "boot")), Letter(8, Hello(1, 1, "boot"))], Now(0, 0))
    mine = welcomes[0][1].holder

    report = Refresh(2, mine, 1, (LeaseReport(1, 50, 0, 0, 0, 10),))
    world.store.down = True
    assert keeper.turn([], Now(0, 1)) == []
    assert not keeper.well
    posts = keeper.turn([Letter(8, report), Letter(7, replace(report, number=3))], Now(0, 2))
    assert posts == [(8, None), (7, Refreshed(3, 1, (LeaseAnswer(1, 50),), sick=True))]


def test_what_was_released_before_a_breach_may_be_told_after_a_restart():
    """I2. How far a lease was breached is in no row; a report that came late made the books doubt themselves.

    Found with breaches, a dying bookkeeper and late messages. No money was wrong.
    """
    store = Memory()
    book = Book(State())
    book.open_account("team", "key", "team", created_ms=0, budgets=[Budget("microdollar", 1000)])
    window = book.facts(1, 0).path[0].window
    life = book.hello("boot", 0)
    book.refresh(Refresh(1, life, 1, (LeaseReport(window, 0, 0, 0, 0, 32, True),)), 0)
    book.apply(life, Send(1, "q", 1, (window,), (1,), "entry", "model", "lane", 0, 1), 0)
    book.apply(life, Settle(1, "exact", "ok", 200, (20,), (20,), (1, 1, 0, 0, 0), None, 20, 1), 0)
    store.commit(book.take())

    book = Book(store.load())
    book.refresh(Refresh(2, life, 2, (LeaseReport(window, 32, 18, 20, 0),)), 0)
    assert book.check() == []
