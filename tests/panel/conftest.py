"""A desk over a real book and a real store: every operation is committed, and the books are checked after each."""

from typing import Any

import msgspec
import pytest

from fastroute.ledger.book import Book, Refused
from fastroute.ledger.books import Books
from fastroute.ledger.memory import Memory
from fastroute.ledger.protocol import LeaseReport, Refresh
from fastroute.ledger.records import Finish, Send, Settle
from fastroute.ledger.sqlite import Store
from fastroute.ledger.store import Changes
from fastroute.panel.desk import Desk
from fastroute.panel.leases import ChargedAll

NOW = 1_790_000_000_000  # 2026-09-21T14:13:20Z
PEPPER = bytes(range(32))


class Panel:
    """The bookkeeper's turn around one operation, with a clock that is moved by hand."""

    def __init__(self, store: Any = None, pepper: bytes = PEPPER) -> None:
        self.store = Memory() if store is None else store
        self.pepper = pepper
        self.now = NOW
        self._seq = 0
        self.restart()

    def restart(self) -> None:
        """A new process: nothing is known but what is in the store."""
        self.book = Book(self.store.load())
        self.desk = Desk(self.store, self.pepper)
        assert self.book.check() == []

    def ask(self, operation: str, **arguments: Any) -> Any:
        """The answer, after it is durable. What is refused must have changed nothing; opened windows apart."""
        plain = msgspec.msgpack.decode(msgspec.msgpack.encode(arguments))  # as it arrives by wire
        try:
            answer = self.desk(self.book, operation, plain, self.now)
        except ChargedAll:
            self.commit()
            raise
        except Refused:
            changes = self.commit()
            changes.windows = {}
            assert changes == Changes(), "a refusal changed something"
            raise
        self.commit()
        return msgspec.msgpack.decode(msgspec.msgpack.encode(answer))

    def refused(self, operation: str, **arguments: Any) -> Refused:
        with pytest.raises(Refused) as refusal:
            self.ask(operation, **arguments)
        return refusal.value

    def commit(self) -> Changes:
        changes = self.book.take()
        changes.records.update(self.desk.take())
        self.store.commit(changes)
        assert self.book.check() == []
        return changes

    def wait(self, ms: int) -> None:
        """Time passes, and the desk's tick with it."""
        self.now += ms
        self.desk.tick(self.book, self.now)
        self.commit()

    # --- shorthands -------------------------------------------------------------------------------------------------

    def key(self, name: str = "alice", **fields: Any) -> int:
        """A new key's number."""
        return self.number(self.ask("keys.create", name=name, **fields)["id"])

    def agent(self, budget: int | None, name: str = "bot") -> int:
        return self.key(name, kind="agent", budget_microdollars=budget)

    def number(self, public_id: str) -> int:
        row = self.book.by_public(public_id)
        assert row is not None
        return row.id

    def place(self, account: int, decision_id: str, **fields: Any) -> Any:
        asked = {
            "decision": {"decision_id": decision_id, "verdict": {"outcome": "placed"}},
            "answer": {"verdict": "placement", "grant": None},
            "body_hash": "hash",
            "ceiling": 50_000,
            "need": 1,
            "models": ["m"],
        }
        return self.ask("grants.place", account=account, decision_id=decision_id, **{**asked, **fields})

    def money(self, account: int) -> tuple[int, int, int]:
        """(used, held, remaining) of the account's own money; they always add up to its limit."""
        [each] = [one for one in self.book.balances(account, self.now) if one.unit == "microdollar"]
        assert each.used + each.held + each.remaining == each.limit
        return each.used, each.held, each.remaining

    def worker(self) -> int:
        holder = self.book.hello("boot", self.now)
        self.commit()
        return holder

    def serve(self, holder: int, account: int, request: str, microdollars: int, *, settle: bool = True) -> None:
        """A worker serves a request: rights are lent, an attempt is sent and settled at what it held, the rest goes back."""
        windows = [window for window in self.book.facts(account, self.now).path if window.unit == "microdollar"]
        life = self.book._holders[holder]
        leases = [life.leases.get(window.window) for window in windows]
        self._seq += 1
        wants = tuple(
            LeaseReport(
                window.window,
                lease.granted if lease else 0,
                lease.released if lease else 0,
                lease.spent if lease else 0,
                0,
                microdollars,
                True,
            )
            for window, lease in zip(windows, leases, strict=True)
        )
        reply, _ = self.book.refresh(Refresh(self._seq, holder, self._seq, wants), self.now)
        assert all(answer.short is None for answer in reply.leases), "the books had less than the request needs"
        numbers = tuple(window.window for window in windows)
        amounts = (microdollars,) * len(numbers)
        attempt = self._seq
        self.book.apply(
            holder, Send(attempt, request, account, numbers, amounts, "e", "m", "l", self.now, microdollars), self.now
        )
        if settle:
            spent = tuple(life.leases[number].spent + microdollars for number in numbers)
            usage = (10, 5, 0, 0, 0)
            self.book.apply(
                holder,
                Settle(attempt, "exact", "ok", 200, amounts, spent, usage, microdollars * 10**6, microdollars, 1),
                self.now,
            )
            finish = Finish(request, account, "", "chat", "m", "e", "", 200, False, self.now, 1, None)
            self.book.apply(holder, finish, self.now)
        self.commit()


@pytest.fixture(scope="session")
def new_panel():
    """Makes a panel over memory, or over the store it is given."""
    return Panel


@pytest.fixture
def panel(new_panel):
    return new_panel()


@pytest.fixture
def database(tmp_path):
    return tmp_path / "state" / "fastroute.db"


@pytest.fixture(params=["memory", "sqlite"])
def kept(request, new_panel, database):
    """A panel over each store that remembers."""
    if request.param == "memory":
        yield new_panel()
        return
    with Store.open(database) as store:
        yield new_panel(Books(store))
