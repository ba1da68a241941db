"""What a worker may spend by itself: rights that are held, timed, asked for before they are needed, and waited for."""

import pytest

from fastroute.ledger.leases import ASK_AGAIN_MS, IDLE_MS, RETIRE_MS, Holder
from fastroute.ledger.protocol import LeaseAnswer, Refreshed
from tests.ledger.lease_kit import LEASE_MS, SmallBook, exchange, funded
from tests.ledger.path_kit import facts, window


@pytest.fixture
def holder():
    return Holder(LEASE_MS, 0)


def balanced(holder, number):
    granted, released, spent, held, free = holder.balance(number)
    return granted == released + spent + held + free


# --- holding and settling -------------------------------------------------------------------------------------------------


def test_a_request_holds_on_every_window_in_the_windows_own_unit(holder):
    """Money, tokens and requests are one ledger with three units."""
    book = SmallBook({1: 1000, 2: 500, 3: 10})
    path = holder.path(facts(window(1, 1000), window(2, 500, "token"), window(3, 10, "request")), 0)
    hold = funded(holder, book, path, 100, 40)
    assert hold.amounts == (100, 40, 1)
    assert [holder.balance(number)[3] for number in (1, 2, 3)] == [100, 40, 1]
    assert holder.settle(hold, 30, 12) == (30, 12, 1)
    assert [holder.balance(number)[2:4] for number in (1, 2, 3)] == [(30, 0), (12, 0), (1, 0)]


def test_a_request_that_one_window_refuses_holds_nothing_on_the_others(holder):
    book = SmallBook({1: 1000, 2: 10})
    path = holder.path(facts(window(1, 1000), window(2, 10, "token")), 0)
    short = funded(holder, book, path, 100, 40)
    assert (short.reason, short.window.window, short.remaining, short.needed) == ("short", 2, 10, 40)
    assert holder.balance(1)[3] == holder.balance(2)[3] == 0


def test_a_reservation_is_closed_once(holder):
    """Whoever closes it first says what it came to; the second changes nothing."""
    book = SmallBook({1: 1000})
    path = holder.path(facts(window(1, 1000)), 0)
    hold = funded(holder, book, path, 100)
    assert holder.settle(hold, 60, 0) == (60,)
    assert holder.settle(hold, 100, 0) is None
    holder.void(hold)
    assert holder.balance(1)[2:4] == (60, 0)


def test_what_nobody_can_say_costs_all_that_was_held(holder):
    book = SmallBook({1: 1000, 2: 1000})
    path = holder.path(facts(window(1, 1000), window(2, 1000, "token")), 0)
    assert holder.settle(funded(holder, book, path, 70, 33), None, None) == (70, 33)


def test_a_void_costs_no_window_anything(holder):
    book = SmallBook({1: 1000, 3: 5})
    path = holder.path(facts(window(1, 1000), window(3, 5, "request")), 0)
    holder.void(funded(holder, book, path, 70))
    assert (holder.balance(1)[2], holder.balance(3)[2]) == (0, 0)


def test_more_than_was_held_is_charged_and_counted_and_stops_what_follows(holder):
    """M: a breach is paid in full, and the slot below zero refuses even a reservation of nothing."""
    book = SmallBook({1: 100})
    path = holder.path(facts(window(1, 100)), 0)
    holder.settle(funded(holder, book, path, 100), 130, 0)
    assert holder.breaches == 1
    assert holder.balance(1)[2] == 130
    assert balanced(holder, 1)
    assert holder.reserve(path, 0, 0, 0) is None


def test_an_account_without_windows_is_never_refused(holder):
    """Not even when nothing was heard of the bookkeeper for a long time, and with no known price."""
    path = holder.path(facts(), 0)
    hold = holder.reserve(path, None, 5, 100 * LEASE_MS)
    assert hold is not None
    assert holder.settle(hold, None, None) == ()


def test_a_budget_of_nothing_admits_nothing_even_for_free(holder):
    """Zero is closed."""
    path = holder.path(facts(window(1, 0)), 0)
    assert holder.reserve(path, 0, 0, 0) is None
    ticket = holder.ask(path, 0, 0, 0)
    assert (ticket.short.reason, ticket.short.remaining) == ("short", 0)
    raised = holder.path(facts(window(1, 5)), 0)
    assert holder.reserve(raised, 0, 0, 0) is not None
    assert holder.reserve(path, 0, 0, 0) is not None, "the older path goes by the newer limit"


# --- time -----------------------------------------------------------------------------------------------------------------


def test_rights_may_be_used_for_so_long_after_the_question_that_was_answered(holder):
    """The time counts from before the question left; then only admissions stop, what is held stays."""
    book = SmallBook({1: 10**6})
    path = holder.path(facts(window(1)), 0)
    first = funded(holder, book, path, 10)
    assert holder.reserve(path, 0, 0, LEASE_MS - 1) is not None
    assert holder.reserve(path, 0, 0, LEASE_MS) is None
    assert holder.settle(first, 10, 0) == (10,), "what was held is settled whenever it comes"
    report = holder.report(4000)
    holder.answer(book.hear("worker", report), 4900)
    assert holder.reserve(path, 0, 0, 4000 + LEASE_MS - 1) is not None
    assert holder.reserve(path, 0, 0, 4000 + LEASE_MS) is None
    holder.answer(book.hear("worker", report), 8999)
    assert holder.reserve(path, 0, 0, 4000 + LEASE_MS) is None, "an answer said twice is no second answer"


def test_a_request_that_waits_past_the_lease_gets_its_rights_with_the_next_answer(holder):
    book = SmallBook({1: 10**6})
    path = holder.path(facts(window(1)), 0)
    holder.void(funded(holder, book, path, 10))
    ticket = holder.ask(path, 5, 0, LEASE_MS + 1)
    assert ticket.hold is None
    assert exchange(holder, book, LEASE_MS + 1) == [ticket]
    assert ticket.hold is not None


def test_nothing_is_reserved_on_a_window_that_is_over_and_late_ends_post_to_it(holder):
    """2.11: a late settlement posts to the window of its reservation."""
    book = SmallBook({1: 1000, 2: 1000})
    today = holder.path(facts(window(1, 1000, ends_in_ms=100)), 0)
    hold = funded(holder, book, today, 50)
    assert holder.reserve(today, 0, 0, 100) is None
    assert holder.ask(today, 5, 0, 100).short.reason == "over"
    tomorrow = holder.path(facts(window(2, 1000, ends_in_ms=5000)), 100)
    assert funded(holder, book, tomorrow, 5, now_ms=100).amounts == (5,)
    holder.settle(hold, 40, 0)
    assert (holder.balance(1)[2], holder.balance(2)[2]) == (40, 0)
    book.over.add(1)
    exchange(holder, book, 200, due=True)
    exchange(holder, book, 210, due=True)
    lent = book.lent["worker", 1]
    assert (lent.granted - lent.released, lent.spent) == (40, 40)


def test_the_end_of_an_account_is_the_end_of_its_path(holder):
    path = holder.path(facts(expires_in_ms=1000), 500)
    assert holder.reserve(path, 0, 0, 1499) is not None
    assert holder.reserve(path, 0, 0, 1500) is None


def test_a_window_that_is_over_and_told_is_forgotten_and_never_begun_again(holder):
    """Totals that were forgotten would be granted a second time."""
    book = SmallBook({1: 1000})
    holder.settle(funded(holder, book, holder.path(facts(window(1, 1000, ends_in_ms=100)), 0), 50), 20, 0)
    book.over.add(1)
    for now_ms in range(0, 4 * RETIRE_MS, 1000):
        exchange(holder, book, now_ms, due=True)
    assert holder.balance(1) == (0, 0, 0, 0, 0)
    lent = book.lent["worker", 1]
    assert (lent.granted - lent.released, lent.spent) == (20, 20)
    again = holder.path(facts(window(1, 1000, ends_in_ms=10**6)), 5 * RETIRE_MS)
    assert holder.ask(again, 5, 0, 5 * RETIRE_MS).short.reason == "over"


# --- asking in time -------------------------------------------------------------------------------------------------------


def test_at_least_eight_of_the_last_reserves_are_asked_for_in_advance(holder):
    book = SmallBook({1: 10**6})
    path = holder.path(facts(window(1)), 0)
    hold = funded(holder, book, path, 100)
    assert holder.balance(1)[0] == 100, "what somebody waits for is asked for alone"
    holder.settle(hold, 100, 0)
    exchange(holder, book, 10, due=True)
    assert holder.balance(1)[4] == 800


def test_more_is_asked_for_when_a_quarter_is_left_and_not_before(holder):
    book = SmallBook({1: 10**6})
    path = holder.path(facts(window(1)), 0)
    holder.settle(funded(holder, book, path, 100), 100, 0)
    exchange(holder, book, 10, due=True)
    while holder.balance(1)[4] > 300:
        holder.reserve(path, 100, 0, 20)
        assert not holder.hungry
    holder.reserve(path, 100, 0, 20)
    holder.reserve(path, 100, 0, 20)
    assert holder.hungry
    exchange(holder, book, 20)
    assert not holder.hungry
    assert holder.balance(1)[4] >= 700


def test_two_seconds_of_the_rate_are_held_in_advance(holder):
    """A worker that spends 100,000 a second keeps about 200,000."""
    book = SmallBook({1: 10**9})
    path = holder.path(facts(window(1)), 0)
    for now_ms in range(0, 6000, 10):
        holder.settle(funded(holder, book, path, 1000, now_ms=now_ms), 1000, 0)
        if holder.hungry or now_ms % 200 == 0:
            exchange(holder, book, now_ms, due=now_ms % 200 == 0)
    assert 50_000 <= holder.balance(1)[4] <= 4 * 200_000


def test_a_steady_caller_hardly_ever_waits():
    """What is asked for in advance is there before it is needed."""
    holder, book = Holder(LEASE_MS, 0), SmallBook({1: 10**9})
    path = holder.path(facts(window(1)), 0)
    waited = 0
    for now_ms in range(5000):
        hold = holder.reserve(path, 100, 0, now_ms)
        if hold is None:
            waited += 1
            hold = funded(holder, book, path, 100, now_ms=now_ms)
        holder.settle(hold, 20, 0)
        if holder.hungry or now_ms % 200 == 0:
            exchange(holder, book, now_ms, due=now_ms % 200 == 0)
    assert waited <= 2


def test_what_is_asked_for_is_asked_once_until_it_is_answered_or_lost(holder):
    path = holder.path(facts(window(1)), 0)
    holder.ask(path, 100, 0, 0)
    assert holder.report(0, due=False)[1][0].want == 100
    holder.ask(path, 50, 0, 1)
    assert holder.report(1, due=False) is None
    assert holder.report(2)[1][0].want == 0
    assert holder.report(ASK_AGAIN_MS)[1][0].want == 150
    holder.disconnected()
    assert holder.report(ASK_AGAIN_MS + 1)[1][0].want == 150, "what was asked on a lost connection is asked anew"


def test_what_nobody_uses_goes_back_by_itself(holder):
    book = SmallBook({1: 10**6})
    path = holder.path(facts(window(1)), 0)
    holder.settle(funded(holder, book, path, 100), 100, 0)
    exchange(holder, book, 10, due=True)
    assert holder.balance(1)[4] == 800
    for now_ms in range(0, 2 * IDLE_MS, 1000):
        exchange(holder, book, now_ms, due=True)
    assert book.left(1) == 10**6 - 100


def test_what_a_burst_returned_is_given_back(holder):
    """A lease's free part follows what is spent, not what was once held."""
    book = SmallBook({1: 10**9})
    path = holder.path(facts(window(1)), 0)
    holds = [funded(holder, book, path, 1000) for _ in range(1000)]
    for hold in holds:
        holder.settle(hold, 10, 0)
    for now_ms in (100, 4000, 8000):
        holder.settle(funded(holder, book, path, 1000, now_ms=now_ms), 10, 0)
        exchange(holder, book, now_ms, due=True)
    assert holder.balance(1)[4] <= 4 * 8 * 1000


def test_near_the_limit_nothing_is_held_in_advance(holder):
    """Exact mode: each request asks for itself, and what it leaves is released with the next report."""
    book = SmallBook({1: 1000}, near=2000)
    path = holder.path(facts(window(1, 1000)), 0)
    hold = funded(holder, book, path, 100)
    assert holder.balance(1)[0] == 100
    holder.settle(hold, 30, 0)
    exchange(holder, book, 10, due=True)
    assert (holder.balance(1)[4], book.left(1)) == (0, 970)
    assert not holder.hungry


def test_a_slot_that_nobody_used_for_long_is_given_up_and_its_totals_are_kept():
    """More accounts pass in a life than are there at once."""
    holder, book = Holder(10**9, 0, windows_max=2), SmallBook(dict.fromkeys(range(1, 7), 1000))
    paths = {number: holder.path(facts(window(number, 1000)), 0) for number in range(1, 7)}
    now_ms = 0
    for _ in range(2):
        for number, path in paths.items():
            hold = funded(holder, book, path, 100, now_ms=now_ms)
            holder.settle(hold, 10, 0)
            for _ in range(4):
                now_ms += RETIRE_MS
                exchange(holder, book, now_ms, due=True)
            assert balanced(holder, number)
    assert {book.lent["worker", number].spent for number in paths} == {20}
    assert {book.left(number) for number in paths} == {980}


def test_when_every_slot_is_taken_a_request_is_told_so():
    holder, book = Holder(LEASE_MS, 0, windows_max=1), SmallBook({1: 1000, 2: 1000})
    funded(holder, book, holder.path(facts(window(1)), 0), 10)
    assert funded(holder, book, holder.path(facts(window(2)), 0), 10).reason == "full"


# --- waiting --------------------------------------------------------------------------------------------------------------


def test_all_who_wait_share_one_question_and_are_served_in_their_order(holder):
    book = SmallBook({1: 10**6})
    path = holder.path(facts(window(1)), 0)
    tickets = [holder.ask(path, 10, 0, 0) for _ in range(1000)]
    report = holder.report(0, due=False)
    assert report[1][0].want == 10_000
    assert holder.answer(book.hear("worker", report), 0) == tickets
    assert all(ticket.hold for ticket in tickets)


def test_who_waits_is_served_by_what_is_given_back_before_anybody_is_asked(holder):
    """Nothing is left to be asked for then, and so no answer would come to serve it."""
    book = SmallBook({1: 1000})
    path = holder.path(facts(window(1, 1000)), 0)
    hold = funded(holder, book, path, 1000)
    tickets = [holder.ask(path, amount, 0, 0) for amount in (600, 300, 200)]
    assert holder.served(0) == []
    holder.settle(hold, 50, 0)
    assert holder.served(0) == tickets[:2]
    assert [ticket.hold is not None for ticket in tickets] == [True, True, False]
    assert exchange(holder, book) == tickets[2:]
    assert (tickets[2].short.reason, holder.balance(1)[2:4]) == ("short", (50, 900))


def test_after_a_rest_rights_are_asked_for_in_advance_at_once(holder):
    """Or every request of a burst would ask for itself until the next report is due."""
    book = SmallBook({1: 10**6})
    path = holder.path(facts(window(1)), 0)
    now_ms = 2 * IDLE_MS
    holder.deadline_ms = now_ms + LEASE_MS
    for _ in range(3):
        holder.settle(funded(holder, book, path, 100, now_ms=now_ms), 100, 0)
        exchange(holder, book, now_ms)
    assert holder.balance(1)[4] >= 600


def test_a_window_with_enough_for_some_serves_exactly_those(holder):
    """2.8, K2: nobody is refused while what it needs is there, and nobody is served beyond it."""
    book = SmallBook({1: 1005}, near=10**6)
    path = holder.path(facts(window(1, 1005)), 0)
    tickets = [holder.ask(path, 10, 0, 0) for _ in range(1000)]
    rounds = 0
    while holder.hungry:
        rounds += 1
        exchange(holder, book)
    assert [bool(ticket.hold) for ticket in tickets] == [True] * 100 + [False] * 900
    assert {ticket.short.reason for ticket in tickets[100:]} == {"short"}
    assert rounds <= 4


def test_a_small_request_is_served_where_a_large_one_is_refused(holder):
    book = SmallBook({1: 100}, near=1000)
    path = holder.path(facts(window(1, 100)), 0)
    large, small = holder.ask(path, 500, 0, 0), holder.ask(path, 20, 0, 0)
    while holder.hungry:
        exchange(holder, book)
    assert large.short.needed == 500
    assert small.hold is not None


def test_whoever_stops_waiting_gives_back_what_came(holder):
    book = SmallBook({1: 1000}, near=10**6)
    path = holder.path(facts(window(1, 1000)), 0)
    early, late = holder.ask(path, 10, 0, 0), holder.ask(path, 10, 0, 0)
    holder.drop(early)
    assert exchange(holder, book) == [late]
    holder.drop(late)
    exchange(holder, book, 10, due=True)
    assert book.left(1) == 1000


def test_a_closed_window_admits_nothing_gives_back_what_is_free_and_may_open_again(holder):
    book = SmallBook({1: 10**6})
    path = holder.path(facts(window(1)), 0)
    hold = funded(holder, book, path, 100)
    exchange(holder, book, 10, due=True)
    book.over.add(1)
    holder.void(holder.reserve(path, 1, 0, 15))
    exchange(holder, book, 20, due=True)
    assert holder.reserve(path, 0, 0, 30) is None
    assert holder.ask(path, 5, 0, 30).short.reason == "closed"
    holder.settle(hold, 90, 0)
    exchange(holder, book, 40, due=True)
    exchange(holder, book, 50, due=True)
    assert book.left(1) == 10**6 - 90
    book.over.clear()
    holder.disconnected()
    exchange(holder, book, 60, due=True)
    assert funded(holder, book, path, 5, now_ms=70).amounts == (5,)


def test_a_recall_releases_what_is_free_and_keeps_what_is_held(holder):
    book = SmallBook({1: 1000})
    path = holder.path(facts(window(1, 1000)), 0)
    hold = funded(holder, book, path, 50)
    exchange(holder, book, 10, due=True)
    assert holder.balance(1)[4] > 0
    _, leases = report = holder.recall((1, 99), 20)
    assert [(said.window, said.want) for said in leases] == [(1, 0)]
    book.hear("worker", report)
    assert book.left(1) == 950
    assert holder.settle(hold, 20, 0) == (20,)


def test_an_older_answer_does_not_take_back_what_a_newer_one_said(holder):
    path = holder.path(facts(window(1)), 0)
    holder.ask(path, 10, 0, 0)
    first = holder.report(0)[0]
    holder.disconnected()
    second = holder.report(1)[0]
    holder.answer(Refreshed(2, second, (LeaseAnswer(1, 20, False, False),)), 2)
    holder.answer(Refreshed(1, first, (LeaseAnswer(1, 10, True, True, 0),)), 3)
    assert holder.balance(1)[0] == 20
    assert holder.reserve(path, 10, 0, 4) is not None


def test_the_last_word_gives_everything_back_and_admits_nothing_more(holder):
    book = SmallBook({1: 1000, 2: 1000})
    path = holder.path(facts(window(1, 1000), window(2, 1000)), 0)
    hold = funded(holder, book, path, 50)
    with pytest.raises(ValueError, match="is held on"):
        holder.rest(5)
    holder.settle(hold, 20, 0)
    exchange(holder, book, 10, due=True)
    book.hear("worker", holder.rest(20))
    assert (book.left(1), book.left(2)) == (980, 980)
    assert holder.reserve(path, 0, 0, 21) is None
