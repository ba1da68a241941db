"""A book with one key and a worker, and short words for what they do, for tests of what the book promises."""

import pytest

from fastroute.ledger.book import Book, Refused
from fastroute.ledger.protocol import LeaseReport, Refresh
from fastroute.ledger.records import Finish, Send, Settle
from fastroute.ledger.store import State

NOW = 1_763_715_600_000  # 2025-11-21T09:00:00Z
HOUR = 3_600_000
USAGE = (10, 5, 1, 0, 0)


class House:
    """A book with one key and a worker, and short words for what they do."""

    def __init__(self, *budgets, **key):
        self.book = Book(State())
        self.key = self.book.open_account("key_1", "key", "k", created_ms=NOW, digest=b"d", budgets=budgets, **key)
        self.worker = self.start()
        self.seqs = {}

    def start(self):
        return self.book.hello("boot", NOW)

    def windows(self, account=None, now_ms=NOW):
        return tuple(place.window for place in self.book.facts(account or self.key.id, now_ms).path)

    def ask(self, window, want=0, *, urgent=True, worker=None, now_ms=NOW, seq=None, **told):
        worker = worker or self.worker
        seq = self.seqs[worker] = seq or self.seqs.get(worker, 0) + 1
        report = LeaseReport(
            window,
            told.get("granted", 0),
            told.get("released", 0),
            told.get("spent", 0),
            told.get("held", 0),
            want,
            urgent,
        )
        message = Refresh(seq, worker, seq, (report,))
        reply, recalls = self.book.refresh(message, now_ms)
        return reply.leases[0], recalls

    def send(self, attempt, reserved, *, windows=None, request="r1", worker=None, entry="e"):
        windows = self.windows() if windows is None else windows
        record = Send(attempt, request, self.key.id, windows, reserved, entry, "m", "lane", NOW, sum(reserved[:1]))
        self.book.apply(worker or self.worker, record, NOW)
        return record

    def settle(self, attempt, charged, spent, *, basis="exact", worker=None):
        money = sum(charged[:1])
        record = Settle(attempt, basis, "ok", 200, charged, spent, USAGE, money * 10**6, money, 7)
        self.book.apply(worker or self.worker, record, NOW)
        return record

    def finish(self, request="r1", entry="e"):
        record = Finish(request, self.key.id, "rd_1", "chat", "auto", entry, "ok", 200, False, NOW, 9, None)
        self.book.apply(self.worker, record, NOW)
        return record

    def balance(self, account=None, place=0, now_ms=NOW):
        one = self.book.balances(account or self.key.id, now_ms)[place]
        return one.used, one.held, one.remaining


def refused(code, call, *args, **kwargs):
    with pytest.raises(Refused) as caught:
        call(*args, **kwargs)
    assert caught.value.code == code
    return caught.value
