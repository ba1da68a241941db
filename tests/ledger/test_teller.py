"""A request's money at a worker's side of the ledger: from its reservation to its settlement, and a life's good end."""

import asyncio

from fastroute.clock import SystemClock
from fastroute.domain import Settlement, Usage
from fastroute.ledger import records
from fastroute.ledger.journal import Reader
from fastroute.ledger.teller import Teller
from fastroute.ledger.tokens import digest
from tests.ledger.path_kit import facts, window
from tests.ledger.teller_kit import PEPPER, TOKEN, VOID, FakeBooks, exact, funded, scene, sent, spend, until, unused

# --- a request's money ----------------------------------------------------------------------------------------------------


@scene
async def test_an_attempt_is_journalled_before_it_is_sent_and_when_it_is_settled(books, open_teller):
    """R2: SEND stands before a byte leaves; SETTLE tells the charge and the total of this life."""
    teller = await open_teller()
    account = await teller.find(TOKEN)
    for n in (1, 2):
        hold = sent(account, await funded(account), f"req_{n}")
        account.settle(hold, exact(40), "ok", 200, 12)
    sends, settles = teller.journal.of(records.Send), teller.journal.of(records.Settle)
    assert [(send.attempt, send.request, send.account, send.windows, send.reserved) for send in sends] == [
        (1, "req_1", 1, (1,), (100,)),
        (2, "req_2", 1, (1,), (100,)),
    ]
    assert sends[0].microdollars == 100
    assert [(settle.attempt, settle.charged, settle.spent) for settle in settles] == [
        (1, (40,), (40,)),
        (2, (40,), (80,)),
    ]
    assert (settles[0].basis, settles[0].outcome, settles[0].status, settles[0].ms) == ("exact", "ok", 200, 12)
    assert settles[0].usage == (3, 4, 0, 0, 0)
    assert abs(sends[0].at_ms - SystemClock().now().timestamp() * 1000) < 5000


@scene
async def test_each_unit_is_charged_by_its_own_rule(books, open_teller):
    """Tokens by the usage where it was told, else all that were held; requests one each, none for a void."""
    books.accounts[digest(PEPPER, TOKEN)] = facts(window(1), window(2, 10**6, "token"), window(3, 100, "request"))
    books.limits |= {2: 10**6, 3: 100}
    teller = await open_teller()
    account = await teller.find(TOKEN)
    for settlement, charged in [
        (exact(40, Usage(3, 4, 5, 6, 2)), (40, 18, 1)),
        (Settlement("bounded", 70_000_000, 70, Usage(2, 2)), (70, 10, 1)),
        (Settlement("presumed", 100_000_000, 100, Usage()), (100, 10, 1)),
        (VOID, (0, 0, 0)),
    ]:
        hold = sent(account, await funded(account))
        account.settle(hold, settlement, "ok", None, 1)
        assert teller.journal.of(records.Settle)[-1].charged == charged
    assert teller.journal.of(records.Settle)[-1].spent == (210, 38, 3)


@scene
async def test_a_reservation_is_settled_once(books, open_teller):
    teller = await open_teller()
    account = await teller.find(TOKEN)
    hold = sent(account, await funded(account))
    account.settle(hold, exact(40), "ok", 200, 1)
    account.settle(hold, exact(90), "ok", 200, 1)
    assert len(teller.journal.of(records.Settle)) == 1
    assert teller.holder.balance(1)[2:4] == (40, 0)
    assert teller.underway == 0


@scene
async def test_what_was_never_sent_costs_nothing_and_is_not_journalled(books, open_teller):
    """Whatever a way out that nobody foresaw says of it."""
    teller = await open_teller()
    account = await teller.find(TOKEN)
    account.settle(await funded(account), Settlement("presumed", None, None, Usage()), "gone", None, 0)
    assert teller.journal.written == []
    assert teller.holder.balance(1)[2:4] == (0, 0)


@scene
async def test_an_unknown_price_is_refused_under_a_budget_in_money_and_nowhere_else(books, open_teller):
    books.accounts[digest(PEPPER, b"tokens")] = facts(window(2, 10**6, "token"), account=2)
    books.limits[2] = 10**6
    teller = await open_teller()
    account = await teller.find(TOKEN)
    assert account.reserve(None, 10) is None
    shortage = await account.fund(None, 10)
    assert (shortage.status, shortage.code) == (402, "unpriced")
    assert account.hard
    other = await teller.find(b"tokens")
    hold = sent(other, await funded(other, None))
    other.settle(hold, Settlement("exact", None, None, Usage(1, 1)), "ok", 200, 1)
    assert not other.hard
    assert teller.journal.of(records.Settle)[-1].charged == (2,)


@scene
async def test_whoever_has_no_key_is_journalled_too_and_never_refused(books, open_teller):
    teller = await open_teller()
    account = teller.anonymous
    hold = sent(account, account.reserve(None, 5))
    account.settle(hold, exact(3), "ok", 200, 1)
    account.finish("req_1", "rd_1", "chat", "auto", "gpt", "cheapest", 200, True, 20, 5, {"shadow": "x"})
    send, settle, finish = teller.journal.written
    assert (send.account, send.windows, settle.charged, settle.spent) == (0, (), (), ())
    assert (finish.request, finish.account, finish.entry, finish.first_chunk_ms) == ("req_1", 0, "gpt", 5)
    assert finish.details == {"shadow": "x"}
    assert not account.limited


@scene
async def test_the_journal_is_made_durable_soon_after(books, open_teller):
    teller = await open_teller()
    sent(teller.anonymous, teller.anonymous.reserve(1, 1))
    await until(lambda: teller.journal.synced == 1)


@scene
async def test_with_no_room_in_the_journal_a_budget_admits_nothing_and_who_has_none_goes_on(books, open_teller):
    """2.5: allocation fails => no new admissions under a budget; the others are served and counted."""
    teller = await open_teller()
    account = await teller.find(TOKEN)
    hold = await funded(account)
    teller.journal.room = 0
    shortage = account.send(hold, "req_1", "gpt", "gpt-4o", "openai")
    assert (shortage.status, shortage.code) == (503, "journal_full")
    unused(account, hold)
    free = teller.anonymous.reserve(None, 5)
    assert teller.anonymous.send(free, "req_2", "gpt", "gpt-4o", "openai") is None
    teller.anonymous.settle(free, exact(1), "ok", 200, 1)
    assert teller.unjournalled == 1
    assert teller.journal.written == []
    assert teller.holder.balance(1)[2:4] == (0, 0)


@scene
async def test_what_was_sent_is_told_to_its_end_once_there_is_room_again(books, open_teller):
    """Settlements wait in their order, and nothing overtakes them."""
    teller = await open_teller()
    account = await teller.find(TOKEN)
    holds = [sent(account, await funded(account)) for _ in range(3)]
    teller.journal.room = 0
    for hold in holds:
        account.settle(hold, exact(10), "ok", 200, 1)
    teller.journal.room = 1
    assert account.send(await funded(account), "req_9", "gpt", "gpt-4o", "openai").code == "journal_full"
    teller.journal.room = 100
    await until(lambda: len(teller.journal.of(records.Settle)) == 3)
    assert [settle.spent for settle in teller.journal.of(records.Settle)] == [(10,), (20,), (30,)]


# --- the end --------------------------------------------------------------------------------------------------------------


@scene
async def test_a_life_ends_in_good_order_when_everything_is_settled(books, open_teller):
    teller = await open_teller()
    account = await teller.find(TOKEN)
    await spend(account, 100)
    await teller.close()
    assert isinstance(teller.journal.written[-1], records.Stop)
    assert teller.journal.closed
    granted, released, spent, held, free = teller.holder.balance(1)
    assert (granted - released, spent, held, free) == (100, 100, 0, 0)


@scene
async def test_a_life_that_ends_with_an_attempt_under_way_does_not_say_that_nothing_was(books, open_teller):
    teller = await open_teller()
    for account in (await teller.find(TOKEN), teller.anonymous):
        hold = sent(account, await funded(account))
        if account is teller.anonymous:
            await teller.close()
            account.settle(hold, exact(1), "gone", None, 1)
        else:
            account.settle(hold, exact(1), "ok", 200, 1)
    assert not teller.journal.of(records.Stop)


def test_a_real_journal_holds_it_all(tmp_path):
    """What the teller wrote is what a reader finds."""

    async def main():
        books = FakeBooks(tmp_path)
        await books.open()
        teller = await Teller.open(tmp_path, 1, pepper=PEPPER, clock=SystemClock())
        account = teller.anonymous
        account.settle(sent(account, account.reserve(5, 5)), exact(3), "ok", 200, 1)
        await teller.close()
        await books.close()
        books.generation.close()

    asyncio.run(main())
    with Reader(tmp_path / "journal", 7) as reader:
        assert [kind for kind, _ in reader.read()] == [records.SEND, records.SETTLE, records.STOP]
