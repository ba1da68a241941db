"""The hot records as an account writes them: byte for byte what the encoder of `records` makes of their structs."""

import random

import msgspec
import pytest

from fastroute.clock import ManualClock
from fastroute.domain import Settlement, Tariff, Usage
from fastroute.ledger import records
from fastroute.ledger.accounts import Account, Till
from fastroute.ledger.leases import Holder
from fastroute.ledger.records import Finish, Send, Settle
from tests.ledger.lease_kit import LEASE_MS, SmallBook, funded
from tests.ledger.path_kit import facts, window

NUMBERS = (
    0,
    1,
    127,
    128,
    255,
    256,
    65535,
    65536,
    (1 << 32) - 1,
    1 << 32,
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) - 1,
    -1,
    -200,
)
LIMIT = 9_000_000_000_000_000
# What two attempts can hold of one window, of each size a number is written in.
AMOUNTS = (*(number for number in NUMBERS if 0 <= number <= 1 << 32), LIMIT // 2)
TEXTS = ("", "a", "x" * 31, "x" * 32, "é" * 100, "y" * 255, "z" * 256, "gpt-4o/中", "long " * 1000)
DETAILS = ({}, {"policy": "p"}, {"cache": {"hit": True}, "note": "n" * 5000})
KINDS = ("microdollar", "token", "request")


class Page(list):
    """A journal's payloads as they were given."""

    def append(self, kind, payload):
        super().append(payload)


class Still:
    """A loop in which nothing comes later."""

    def call_later(self, delay_s, what):
        pass


def opened(account, windows, kinds, at_ms=0):
    """An account with so many windows, the page its till writes on, and the book that lends to it."""
    clock = ManualClock()
    clock.advance(at_ms)
    till = Till(clock, Still())
    till.holder, till.journal = Holder(LEASE_MS, at_ms), Page()
    told = facts(*(window(each, LIMIT, kind) for each, kind in zip(windows, kinds, strict=True)), account=account)
    return Account(till, told, at_ms), till, SmallBook(dict.fromkeys(windows, LIMIT))


@pytest.mark.parametrize("seed", range(300))
def test_what_is_written_is_what_the_encoder_of_its_struct_writes(seed):
    """Whatever the numbers and texts are, beyond what the compiled writer has room for as well."""
    chance = random.Random(seed)

    def anything():
        return chance.choice(NUMBERS)

    def text():
        return chance.choice(TEXTS)

    depth = chance.choice((0, 1, 2, 3, 4))
    windows = tuple(chance.sample(NUMBERS, depth))
    kinds = tuple(chance.choice(KINDS) for _ in range(depth))
    at_ms = chance.choice(AMOUNTS)
    account, till, book = opened(anything(), windows, kinds, at_ms)
    till.attempts = chance.choice((0, 126, 254, 65534, (1 << 32) - 2, (1 << 63) - 3))
    spent = [0] * depth

    for _ in range(2):
        money = chance.choice(AMOUNTS) if account.hard or chance.random() < 0.8 else None
        needs = {"microdollar": money, "token": chance.choice(AMOUNTS), "request": 1}
        hold = funded(till.holder, book, account.path, money, needs["token"], at_ms)
        said = (text(), text(), text(), text())
        assert account.send(hold, *said) is None
        held = tuple(needs[kind] for kind in kinds)
        told = Send(till.attempts, said[0], account.id, windows, held, *said[1:], at_ms, money)
        assert till.journal[-1] == records.encode(told)

        basis = chance.choice(("exact", "void", "bounded", *TEXTS))
        counted = tuple(anything() for _ in range(5))
        if basis == "exact" and "token" in kinds:  # they are what the window is charged, of what was held
            counted = tuple(chance.choice([n for n in AMOUNTS if 4 * n <= needs["token"]]) for _ in range(5))
        cost = anything()
        if basis != "void" and "microdollar" in kinds:
            cost = chance.choice((None, *(amount for amount in AMOUNTS if amount <= money)))
        rated = chance.choice(
            (None, (anything(), anything(), *(chance.choice((None, *NUMBERS)) for _ in range(2)), text()))
        )
        tariff = None if rated is None else Tariff(*rated)
        settlement = Settlement(basis, chance.choice((None, *NUMBERS)), cost, Usage(*counted), tariff)
        status, ms, outcome = chance.choice((None, 200, 503)), anything(), text()
        account.settle(hold, settlement, outcome, status, ms)
        if basis == "void":
            paid = dict.fromkeys(KINDS, 0)
        else:
            tokens = counted[0] + counted[1] + counted[2] + counted[3] if basis == "exact" else needs["token"]
            paid = {"microdollar": money if cost is None else cost, "token": tokens, "request": 1}
        charged = tuple(paid[kind] for kind in kinds)
        spent = [before + now for before, now in zip(spent, charged, strict=True)]
        told = Settle(
            *(till.attempts, basis, outcome, status or 0, charged, tuple(spent), counted),
            *(settlement.picodollars, cost, ms, rated),
        )
        assert till.journal[-1] == records.encode(told)

    latency_ms = chance.choice([number for number in AMOUNTS if number <= at_ms])
    finish = (text(), text(), text(), text(), text(), text(), 200, chance.random() < 0.5)
    first_ms, details = chance.choice((None, *NUMBERS)), chance.choice(DETAILS)
    account.finish(*finish, latency_ms, first_ms, details)
    told = Finish(finish[0], account.id, *finish[1:], at_ms - latency_ms, latency_ms, first_ms, details)
    assert till.journal[-1] == records.encode(told)
    assert len(till.journal) == 5


def test_a_settlement_of_before_tariffs_is_read():
    """A journal outlives the release that wrote it."""
    before = msgspec.msgpack.encode([7, "exact", "ok", 200, [5], [5], [1, 1, 0, 0, 0], 5_000_000, 5, 1])
    assert records.decode(records.SETTLE, before) == Settle(
        7, "exact", "ok", 200, (5,), (5,), (1, 1, 0, 0, 0), 5_000_000, 5, 1
    )


def test_what_no_encoder_takes_is_refused():
    """A number that no record can hold is an error, never a record of something else."""
    account, till, book = opened(1, (1 << 64,), ("microdollar",))
    with pytest.raises(OverflowError):
        account.send(funded(till.holder, book, account.path, 1), "r", "e", "m", "l")
    account, till, book = opened(1, (1,), ("microdollar",))
    with pytest.raises(UnicodeEncodeError):
        account.send(funded(till.holder, book, account.path, 1), "\ud800", "e", "m", "l")
    assert till.journal == []
