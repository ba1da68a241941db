"""A keeper with a store that can be sick, journals on paper and a desk that knows three things, for tests of its turns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastroute.errors import StoreError
from fastroute.ledger import records
from fastroute.ledger.balances import FinishedRequest
from fastroute.ledger.book import Book, Budget, Refused, Scarce
from fastroute.ledger.journal import JournalDamaged
from fastroute.ledger.keeper import Keeper, Letter, Now, Post
from fastroute.ledger.memory import Memory
from fastroute.ledger.protocol import Ask, Hello, LeaseReport, Question, Refresh, Welcome, Who
from fastroute.ledger.records import FINISH, SEND, SETTLE, STOP, Finish, Send, Settle, Stop
from fastroute.ledger.store import Changes, ReceiptRow, RecordRow

NOON = 1_795_262_400_000


class Sick(Memory):
    """A store whose disk can be full, or whose pages can be damaged."""

    fault: StoreError | None = None

    def commit(self, changes: Changes) -> None:
        if self.fault is not None and changes != Changes():
            raise self.fault
        super().commit(changes)


class Paper:
    """Journals in memory: an offset counts records."""

    def __init__(self) -> None:
        self.written: dict[int, list[tuple[int, bytes]]] = defaultdict(list)
        self.dead: set[int] = set()
        self.torn: set[int] = set()
        self.removed: list[int] = []

    def open(self, holder: int, segment: int, offset: int) -> PaperReader:
        return PaperReader(self, holder, offset)

    def grave(self, holder: int) -> PaperGrave | None:
        return PaperGrave(self, holder) if holder in self.dead else None

    def holders(self) -> list[int]:
        return sorted(self.written)


class PaperReader:
    def __init__(self, paper: Paper, holder: int, offset: int) -> None:
        self._paper, self._holder = paper, holder
        self.segment, self.offset = 0, offset

    def read(self, limit: int = 4096) -> list[tuple[int, bytes]]:
        found = self._paper.written[self._holder][self.offset : self.offset + limit]
        self.offset += len(found)
        return found

    def check_end(self) -> None:
        if self._holder in self._paper.torn:
            raise JournalDamaged(Path("paper"), self.offset, "it is torn")

    def drop_before(self, segment: int) -> int:
        return 0

    def close(self) -> None:
        pass


class PaperGrave:
    def __init__(self, paper: Paper, holder: int) -> None:
        self._paper, self._holder = paper, holder

    def remove(self) -> None:
        self._paper.removed.append(self._holder)
        self._paper.written.pop(self._holder, None)

    def close(self) -> None:
        pass


class Clerk:
    """A desk that knows three things."""

    def __call__(
        self, book: Book, operation: str, arguments: dict[str, Any], now_ms: int, *, again: bool = False
    ) -> Any:
        if operation == "open":
            row = book.open_account(
                arguments["name"],
                "key",
                arguments["name"],
                created_ms=now_ms,
                digest=arguments["name"].encode().ljust(32),
                budgets=[Budget("microdollar", arguments["amount"])],
            )
            return row.id
        if operation == "used":
            [balance] = book.balances(arguments["account"], now_ms)
            return balance.used
        if operation == "lend":
            [balance] = book.balances(arguments["account"], now_ms)
            recalls = book.recall(arguments["account"], now_ms)
            if balance.remaining < arguments["amount"] and recalls and not again:
                raise Scarce(recalls)
            return balance.remaining
        raise Refused(404, "unknown_operation", f"nobody answers {operation!r} here", "operation")

    def take(self) -> dict[tuple[str, str], RecordRow | None]:
        return {}

    def tick(self, book: Book, now_ms: int) -> None:
        book.expire(now_ms)


def paper_receipt(book: Book, finished: Sequence[FinishedRequest], last: ReceiptRow | None) -> list[ReceiptRow]:
    first = 1 if last is None else last.seq + 1
    return [
        ReceiptRow(seq, f"rcpt_{told.request}", told.request, told.account, told.started_ms, b"{}", b"%d" % seq)
        for seq, told in enumerate([one.finish for one in finished], first)
    ]


class House:
    """A keeper with its store and journals, and workers who say what they are told to."""

    def __init__(self, store: Sick | None = None, paper: Paper | None = None, boot: str = "boot-1") -> None:
        self.store = store or Sick()
        self.paper = paper or Paper()
        self.boot = boot
        self.ms = 1_000_000
        self.numbers = 0
        self.keeper = self.open()

    def open(self) -> Keeper:
        self.keeper = Keeper(self.store, self.paper, Clerk, paper_receipt, self.boot)
        self.keeper.start(self.now)
        return self.keeper

    @property
    def now(self) -> Now:
        return Now(NOON + self.ms, self.ms)

    def turn(self, *letters: tuple[int, Question]) -> list[Post]:
        posts = self.keeper.turn([Letter(*letter) for letter in letters], self.now)
        assert self.keeper.book is None or self.keeper.book.check() == []
        return posts

    def later(self, ms: int, *letters: tuple[int, Question]) -> list[Post]:
        self.ms += ms
        return self.turn(*letters)

    def ask(self, question: Question, sender: int = 99) -> Any:
        [reply] = [reply for to, reply in self.turn((sender, question)) if to == sender]
        return reply

    def hello(self, sender: int, holder: int = 0) -> int:
        reply = self.ask(Hello(1, sender, self.boot, holder), sender)
        assert isinstance(reply, Welcome)
        return reply.holder

    def key(self, amount: int, name: str = "k") -> int:
        return self.ask(Ask(1, "open", {"name": name, "amount": amount})).result

    def window(self, account: int) -> int:
        [window] = self.ask(Who(1, account=account)).facts.path
        return window.window

    def want(self, sender: int, holder: int, window: int, seq: int, want: int, **report: Any) -> Refresh:
        heard = report.pop("heard", 0)
        fields = {"granted_seen": 0, "released": 0, "spent": 0, "held": 0, "urgent": True} | report
        return Refresh(seq, holder, seq, (LeaseReport(window, want=want, **fields),), heard=heard)

    def write(self, holder: int, *told: records.Record) -> None:
        kinds = {Send: SEND, Settle: SETTLE, Finish: FINISH, Stop: STOP}
        self.paper.written[holder] += [(kinds[type(one)], records.encode(one)) for one in told]

    def request(self, holder: int, attempt: int, account: int, window: int, spent: int, total: int) -> None:
        name = f"req_{holder}_{attempt}"
        self.write(
            holder,
            send(attempt, name, account, window),
            settle(attempt, spent, total),
            Finish(name, account, "rd", "chat", "m", "m", "", 200, False, NOON, 5, None),
        )


def send(attempt: int, request: str, account: int, window: int, reserved: int = 10) -> Send:
    return Send(attempt, request, account, (window,), (reserved,), "m", "p:m", "p", NOON, reserved)


def settle(attempt: int, charged: int, total: int) -> Settle:
    usage = (3, 4, 0, 0, 0)
    return Settle(attempt, "exact", "ok", 200, (charged,), (total,), usage, charged * 10**6, charged, 5)
