"""The line between a worker and its bookkeeper: it breaks, talks nonsense and comes back, and no right is lent twice for it."""

import asyncio
import time

import pytest

from fastroute.clock import ManualClock, SystemClock
from fastroute.ledger import records
from fastroute.ledger.accounts import Shortage
from fastroute.ledger.protocol import Hello, Over, Recall, Refresh
from fastroute.ledger.teller import BooksUnreachable, Declined, Teller
from tests.ledger.teller_kit import LEASE_MS, PEPPER, TOKEN, exact, funded, scene, sent, spend, until, unused


@scene
async def test_without_a_bookkeeper_requests_go_on_with_what_is_here_until_the_lease_is_over(books, open_teller):
    """P5, R4: loss of the bookkeeper stops no request that its leases cover; their time stops admissions, nothing else."""
    clock = ManualClock()
    teller = await open_teller(clock, fund_ms=50)
    account = await teller.find(TOKEN)
    await spend(account, 100)
    await until(lambda: teller.holder.balance(1)[4] >= 800)
    await books.close()
    await until(lambda: not teller.connected)
    held = sent(account, account.reserve(100, 1))
    clock.advance(LEASE_MS + 1)
    assert account.reserve(100, 1) is None
    assert await account.fund(100, 1) == Shortage(503, "budget_unavailable")
    with pytest.raises(BooksUnreachable):
        await teller.find(b"somebody else")
    with pytest.raises(BooksUnreachable):
        await teller.ask("keys.list")
    account.settle(held, exact(60), "ok", 200, 1)
    assert teller.journal.of(records.Settle)[-1].spent == (160,)


@scene
async def test_a_bookkeeper_that_comes_back_is_greeted_with_the_same_life(books, open_teller):
    """Totals are told again, what was asked is asked again, and nothing is lent twice for it."""
    teller = await open_teller()
    account = await teller.find(TOKEN)
    await spend(account, 70)
    await books.close()
    await until(lambda: not teller.connected)
    waiting = asyncio.ensure_future(account.fund(10**6, 1))
    await asyncio.sleep(0)
    await books.open()
    hold = await waiting
    assert not isinstance(hold, Shortage)
    assert [hello.holder for hello in books.of(Hello)] == [0, 7]
    await until(lambda: books.spent[1] == 70)
    await until(lambda: teller.holder.balance(1)[0] == books.granted[1])
    granted, released, spent, held, free = teller.holder.balance(1)
    assert granted == released + spent + held + free
    unused(account, hold)


@scene
async def test_a_life_that_the_books_hold_for_over_admits_nothing_more(books, open_teller):
    teller = await open_teller(fund_ms=50)
    account = await teller.find(TOKEN)
    await funded(account)
    await books.close()
    books.holder = 8
    await until(lambda: not teller.connected)
    await books.open()
    await until(lambda: teller.lost)
    assert account.reserve(1, 1) is None
    assert await account.fund(1, 1) == Shortage(503, "budget_unavailable")
    assert teller.anonymous.reserve(None, 1) is not None


@scene
async def test_a_life_that_contradicts_the_books_is_lost_and_says_why(books, open_teller):
    """Nothing more is admitted under a budget; what is held is settled, and no clean end is written."""
    teller = await open_teller(fund_ms=50)
    account = await teller.find(TOKEN)
    held = sent(account, await funded(account))
    books.say(Over(0, "a report of this life contradicts the books"))
    await until(lambda: teller.lost)
    assert teller.lost == "a report of this life contradicts the books"
    told = len(books.of(Refresh))
    assert account.reserve(1, 1) is None
    assert await account.fund(1, 1) == Shortage(503, "budget_unavailable")
    assert teller.anonymous.reserve(None, 1) is not None
    account.settle(held, exact(60), "ok", 200, 1)
    await teller.close()
    assert len(books.of(Refresh)) == told
    assert teller.journal.of(records.Stop) == []
    assert len(teller.journal.of(records.Settle)) == 1


@scene
async def test_answers_said_twice_lend_once(books, open_teller):
    books.times = 2
    teller = await open_teller()
    account = await teller.find(TOKEN)
    for _ in range(20):
        await spend(account, 100)
        await asyncio.sleep(0.002)
    await until(lambda: teller.holder.balance(1)[0] == books.granted[1])


@scene
async def test_a_recall_is_obeyed_at_once_and_named(books, open_teller):
    teller = await open_teller()
    account = await teller.find(TOKEN)
    hold = await funded(account)
    account.settle(sent(account, hold), exact(100), "ok", 200, 1)
    await until(lambda: teller.holder.balance(1)[4] >= 800)
    books.say(Recall((1,), 3))
    await until(lambda: any(refresh.heard == 3 for refresh in books.of(Refresh)))
    first = next(refresh for refresh in books.of(Refresh) if refresh.heard == 3)
    assert (first.leases[0].granted_seen - first.leases[0].released, first.leases[0].want) == (100, 0)


@scene
async def test_nonsense_on_the_line_ends_it_and_a_new_one_begins(books, open_teller):
    teller = await open_teller()
    books.lines[0].write(b"\x00\x00\x00\x02\xff\xff")
    await until(lambda: len(books.of(Hello)) == 2)
    await until(lambda: teller.connected)
    books.lines[-1].write(b"\xff\xff\xff\xff")
    await until(lambda: len(books.of(Hello)) == 3)


@scene
async def test_a_greeting_that_dies_with_its_bookkeeper_is_said_again_at_once(books, open_teller):
    """One that is killed may take a connection along that it never read from; nobody waits for its answer."""
    teller = await open_teller()
    books.answering = False
    books.lines[0].transport.abort()
    await until(lambda: len(books.of(Hello)) == 2)
    books.answering = True
    began = time.monotonic()
    books.lines[1].transport.abort()
    await until(lambda: teller.connected)
    assert time.monotonic() - began < 1


@scene
async def test_a_caller_waits_no_longer_to_be_known_than_for_rights(books, open_teller):
    teller = await open_teller(fund_ms=50)
    books.answering = False
    began = time.monotonic()
    with pytest.raises(BooksUnreachable):
        await teller.find(TOKEN)
    assert time.monotonic() - began < 1


@scene
async def test_a_worker_reports_now_and_then_though_nothing_happens(books, open_teller):
    await open_teller()
    await until(lambda: len(books.of(Refresh)) >= 3)
    assert all(
        later.seq > earlier.seq for earlier, later in zip(books.of(Refresh), books.of(Refresh)[1:], strict=False)
    )


@scene
async def test_the_desk_answers_or_declines(books, open_teller):
    teller = await open_teller()
    assert await teller.ask("keys.create", name="x") == ["keys.create", {"name": "x"}]
    with pytest.raises(Declined, match="no such key") as declined:
        await teller.ask("refuse")
    assert (declined.value.status, declined.value.code, declined.value.field) == (404, "no_such_key", "id")


def test_nobody_there_is_told_after_some_patience(tmp_path):
    async def main():
        await Teller.open(tmp_path, 1, pepper=PEPPER, clock=SystemClock(), patience_ms=50)

    with pytest.raises(BooksUnreachable, match="no bookkeeper answers"):
        asyncio.run(main())
