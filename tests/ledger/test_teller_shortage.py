"""What a request is told whose worker has too little, and how long it waits for more: no longer than the setting."""

import asyncio
import time

from fastroute.ledger import teller as tellers
from fastroute.ledger.accounts import Shortage
from fastroute.ledger.protocol import Refresh, Refreshed
from fastroute.ledger.tokens import digest
from tests.ledger.path_kit import facts, window
from tests.ledger.teller_kit import PEPPER, TOKEN, exact, funded, scene, sent, until, unused


@scene
async def test_a_shortage_names_the_window_that_is_short(books, open_teller):
    books.accounts[digest(PEPPER, TOKEN)] = facts(window(1, 150, ends_in_ms=60_000), window(2, 500, "token"))
    books.limits |= {1: 150, 2: 500}
    teller = await open_teller()
    account = await teller.find(TOKEN)
    hold = await funded(account, 100, 10)
    shortage = await account.fund(100, 10)
    assert (shortage.status, shortage.code, shortage.unit) == (402, "budget_exhausted", "microdollar")
    assert (shortage.limit, shortage.remaining, shortage.needed) == (150, 50, 100)
    assert (shortage.owner, shortage.owner_kind, shortage.window) == ("key-1", "key", "2026-11")
    assert 0 < shortage.resets_in_ms <= 60_000
    tokens = await account.fund(1, 10_000)
    assert (tokens.status, tokens.code, tokens.unit) == (429, "quota_exhausted", "token")
    unused(account, hold)
    assert await account.fund(100, 10) not in (None, shortage)


@scene
async def test_a_thousand_who_wait_on_one_window_get_exactly_what_is_there(books, open_teller):
    """K2: 1,000 concurrent requests on a budget worth 100."""
    books.accounts[digest(PEPPER, TOKEN)] = facts(window(1, 1000))
    books.limits[1], books.near = 1000, 10**6
    teller = await open_teller()
    account = await teller.find(TOKEN)
    before = len(books.of(Refresh))
    results = await asyncio.gather(*(account.fund(10, 1) for _ in range(1000)))
    held = [result for result in results if not isinstance(result, Shortage)]
    assert len(held) == 100
    assert {result.code for result in results if isinstance(result, Shortage)} == {"budget_exhausted"}
    assert len(books.of(Refresh)) - before < 20
    for hold in held:
        account.settle(sent(account, hold), exact(10), "ok", 200, 1)
    assert (await account.fund(1, 1)).remaining == 0
    await until(lambda: books.spent[1] == 1000)


@scene
async def test_whoever_stops_waiting_leaves_nothing_behind(books, open_teller):
    books.near = 10**12
    teller = await open_teller()
    account = await teller.find(TOKEN)
    books.answering = False
    waiting = [asyncio.ensure_future(account.fund(10, 1)) for _ in range(5)]
    await asyncio.sleep(0)
    for task in waiting[:4]:
        task.cancel()
    await asyncio.wait(waiting[:4])
    teller.holder.disconnected()
    books.answering = True
    unused(account, await waiting[4])
    await until(lambda: books.left(1) == 10**9)


@scene
async def test_a_bookkeeper_that_does_not_answer_is_waited_for_no_longer_than_the_setting(books, open_teller):
    teller = await open_teller(fund_ms=50)
    account = await teller.find(TOKEN)
    books.answering = False
    assert await account.fund(10, 1) == Shortage(503, "budget_unavailable")
    assert teller.holder.balance(1)[3] == 0


@scene
async def test_a_bookkeeper_that_serves_others_first_is_waited_for(books, open_teller):
    """One that is behind with a thousand askers is busy, and no reason to refuse the last of them."""
    teller = await open_teller(fund_ms=200)
    account = await teller.find(TOKEN)
    books.answering = False
    asking = asyncio.ensure_future(account.fund(10, 1))
    for _ in range(8):
        await asyncio.sleep(0.05)
        books.say(Refreshed(0, 0, ()))
    assert not asking.done()
    books.answering = True
    teller.holder.disconnected()  # so that it asks once more
    unused(account, await asking)


@scene
async def test_time_in_which_the_loop_stood_still_is_held_against_nobody(books, open_teller):
    """A process that was not let on has not even asked; its clock ran on."""
    teller = await open_teller(fund_ms=200)
    account = await teller.find(TOKEN)
    asking = asyncio.ensure_future(account.fund(10, 1))
    await asyncio.sleep(0)
    time.sleep(0.4)  # noqa: ASYNC251 -- the loop stands still: that is the point
    unused(account, await asking)


@scene
async def test_a_bookkeeper_that_cannot_write_is_not_waited_for(books, open_teller):
    """One whose disk is full answers and lends nothing: who waits is told in time, and served once there is room."""
    teller = await open_teller(fund_ms=200)
    account = await teller.find(TOKEN)
    books.sick = True
    began = time.monotonic()
    assert await account.fund(10, 1) == Shortage(503, "budget_unavailable")
    assert time.monotonic() - began < tellers.PATIENCE_MS / 1000
    books.sick = False
    unused(account, await account.fund(10, 1))
