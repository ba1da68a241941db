"""What the book promises its workers, case by case: money, rights, ends, windows; `test_book_model` has random histories."""

import msgspec
import pytest

from fastroute.ledger.book import Book, BrokenBooks, Budget, OpenRequest
from fastroute.ledger.records import Stop
from fastroute.ledger.store import HolderRow, LeaseRow, State, UsageDelta
from tests.ledger.book_kit import HOUR, NOW, House

# What may be looked at


def test_a_window_is_told_by_its_number(house):
    """Whose it is, what it counts and its name, as a receipt says them; of one that is not there nothing."""
    [window] = house.windows()
    assert house.book.window(window) == (house.key.public_id, "microdollar", "total")
    assert house.book.window(window + 1) is None


def test_a_report_that_wants_nothing_changes_no_row(house):
    """Idle workers cost no commit; a number that something may be lent upon is kept, so that it is lent upon once."""
    [window] = house.windows()
    house.ask(window, 300)
    house.book.take()
    house.ask(window, 0)
    assert not house.book.take().holders
    house.ask(window, 10**9)
    assert house.worker in house.book.take().holders


# A request's money


def test_a_request_from_its_grant_to_its_entry(house):
    """A lease counts against the limit at once; a settlement turns rights into spending; a finish makes a receipt's facts."""
    [window] = house.windows()
    answer, recalls = house.ask(window, 300)
    assert (answer.granted, answer.closed, answer.short, recalls) == (300, False, None, {})
    assert house.balance() == (0, 300, 700)
    send, settle = house.send(1, (100,)), house.settle(1, (40,), (40,))
    assert house.balance() == (40, 260, 700)
    finish = house.finish()
    [done] = house.book.finished
    assert (done.finish, done.attempts) == (finish, ((send, settle),))
    changes = house.book.take()
    [entry] = changes.entries
    assert (entry.charged, entry.reserved, entry.windows, entry.corrects) == ((40,), (100,), (window,), None)
    assert changes.usage == [UsageDelta(house.key.id, "2025-11-21", "m", 1, 1, 11, 5, 40)]
    assert changes.open == {}
    assert changes.leases == {(window, house.worker): LeaseRow(window, house.worker, 300, 0, 40)}


def test_what_is_taken_costs_what_changed(house):
    house.book.take()
    [window] = house.windows()
    house.ask(window, 10)
    changes = house.book.take()
    assert (len(changes.leases), len(changes.holders), len(changes.windows)) == (1, 1, 1)
    assert not any([changes.accounts, changes.budgets, changes.entries, changes.usage, changes.notes])
    empty = house.book.take()
    assert not any(getattr(empty, name) for name in empty.__struct_fields__)


def test_a_request_under_way_outlives_its_book(house):
    [window] = house.windows()
    house.ask(window, 300)
    send = house.send(1, (100,))
    changes = house.book.take()
    assert list(changes.open) == [(house.worker, "r1")]
    house.book = Book(
        State(
            accounts=[*changes.accounts.values()],
            budgets=[*changes.budgets.values()],
            windows=[*changes.windows.values()],
            leases=[*changes.leases.values()],
            holders=[*changes.holders.values()],
            open=[*changes.open.values()],
        )
    )
    settle = house.settle(1, (60,), (60,))
    [row] = house.book.take().open.values()
    assert msgspec.msgpack.decode(row.body, type=OpenRequest) == OpenRequest((send,), (settle,))
    house.finish()
    assert house.book.finished[0].attempts == ((send, settle),)
    assert house.book.take().open == {(house.worker, "r1"): None}


def test_a_finish_waits_for_the_attempt_that_is_still_drained(house):
    [window] = house.windows()
    house.ask(window, 300)
    house.send(1, (100,))
    house.finish()
    assert house.book.finished == []
    house.settle(1, (60,), (60,))
    assert len(house.book.finished) == 1


def test_a_breach_is_charged_in_full_and_counted(house):
    """What is left goes below zero by exactly the excess, and nothing is lent until it is made up for."""
    [window] = house.windows()
    house.ask(window, 1000)
    house.send(1, (1000,))
    house.settle(1, (1300,), (1300,))
    assert house.book.breaches == 1
    assert house.balance() == (1300, 0, -300)
    assert house.ask(window, 1)[0].granted == 1000


def test_a_breach_that_the_lease_could_bear_shows_when_the_rest_is_spent(house):
    """The first attempt takes what the second holds; with both closed the window has lost what was spent, not what was lent."""
    [window] = house.windows()
    house.ask(window, 300)
    house.send(1, (100,))
    house.send(2, (200,))
    house.settle(1, (250,), (250,))
    assert house.balance() == (250, 50, 700)
    house.settle(2, (200,), (450,))
    assert house.balance() == (450, 0, 550)


def test_something_free_that_costs_after_all_is_a_breach_though_nothing_was_lent(house):
    [window] = house.windows()
    house.send(1, (0,))
    house.settle(1, (5,), (5,))
    assert house.balance() == (5, 0, 995)
    house.ask(window, 10)
    house.send(2, (10,))
    house.settle(2, (10,), (15,))
    assert house.balance() == (15, 0, 985)


@pytest.mark.parametrize(
    "contradiction",
    [
        lambda house: house.settle(2, (1,), (1,)),
        lambda house: house.send(1, (1,)),
        lambda house: house.send(2, (301,)),
        lambda house: house.settle(1, (40,), (41,)),
        lambda house: house.settle(1, (-1,), (-1,)),
        lambda house: house.settle(1, (40, 1), (40, 1)),
        lambda house: house.settle(1, (40,), ()),
        lambda house: house.send(2, (1, 1)),
        lambda house: house.book.apply(house.worker, Stop(NOW), NOW),
        lambda house: house.book.apply(99, Stop(NOW), NOW),
        lambda house: house.book.applied(house.worker, 0, 63),
        lambda house: house.ask(*house.windows(), granted=301),
        lambda house: house.ask(*house.windows(), released=301),
    ],
)
def test_a_record_that_contradicts_the_books_is_never_passed_over(contradiction):
    house = House(Budget("microdollar", 1000))
    house.ask(*house.windows(), 300)
    house.send(1, (100,))
    house.book.applied(house.worker, 0, 64)
    with pytest.raises(BrokenBooks):
        contradiction(house)


# Rights


def test_a_message_lends_once_however_often_it_comes(house):
    [window] = house.windows()
    for _ in range(3):
        assert house.ask(window, 100, seq=5)[0].granted == 100
    assert house.ask(window, 100, seq=4)[0].granted == 100
    assert house.ask(window, 100, seq=6)[0].granted == 200


def test_what_a_message_could_not_get_is_tried_again_after_a_recall(house):
    """The other worker is asked for what it does not use; handed in again, the message gets what has come home."""
    [window] = house.windows()
    other = house.start()
    house.ask(window, 900, worker=other)
    answer, recalls = house.ask(window, 200, seq=1)
    assert (answer.granted, answer.short, answer.exact) == (0, 100, True)
    assert recalls == {other: (window,)}
    house.ask(window, worker=other, granted=900, released=500)
    answer, recalls = house.ask(window, 200, seq=1)
    assert (answer.granted, answer.short, recalls) == (200, None, {})
    assert house.ask(window, 200, seq=1)[0].granted == 200


def test_a_message_that_was_overtaken_lends_nothing(house):
    [window] = house.windows()
    other = house.start()
    house.ask(window, 900, worker=other)
    assert house.ask(window, 500, seq=6)[0].granted == 0
    house.ask(window, worker=other, granted=900, released=900)
    assert house.ask(window, 5, seq=5)[0].granted == 0
    assert house.ask(window, 500, seq=6)[0].granted == 500


def test_a_want_that_can_wait_gets_a_share_and_near_the_limit_nothing(house):
    """min(want, left // (2 * workers)), and nobody stores up what others may need at once."""
    [window] = house.windows()
    assert house.ask(window, 600, urgent=False)[0].granted == 0
    house.book.set_budget(house.key.id, "microdollar", 100_000)
    assert house.ask(window, 1000, urgent=False)[0].granted == 1000
    other = house.start()
    assert house.ask(window, 30_000, urgent=False, worker=other)[0].granted == 24_750


def test_a_small_want_is_forgotten_after_a_while(house):
    """What is near the limit is judged by the wants of late."""
    [window] = house.windows()
    assert house.ask(window, 200)[0].exact, "800 are less than eight times 200"
    assert not house.ask(window, 1)[0].exact
    assert not house.ask(window, 200, now_ms=NOW + 10_000)[0].exact
    assert house.ask(window, 200, now_ms=NOW + 20_000)[0].exact


def test_released_rights_come_back_and_an_old_message_does_not_take_them_again(house):
    [window] = house.windows()
    house.ask(window, 300)
    house.ask(window, granted=300, released=200)
    assert house.balance() == (0, 100, 900)
    house.ask(window, granted=300, released=50, seq=1)
    assert house.balance() == (0, 100, 900)


def test_an_unknown_holder_is_told_that_all_is_closed(house):
    assert house.ask(*house.windows(), 10, worker=77)[0].closed


# Ends


def test_an_open_attempt_of_a_dead_worker_is_presumed_at_its_reserve(house):
    """A whole journal and no settlement: the provider may have billed all of it. The rest comes back, the request is told."""
    [window] = house.windows()
    house.ask(window, 300)
    house.send(1, (100,))
    house.book.bury(house.worker, NOW, power_lost=False)
    assert house.balance() == (100, 0, 900)
    [done] = house.book.finished
    assert (done.finish.status, done.finish.reason, done.finish.started_ms) == (0, "interrupted", NOW)
    assert done.attempts[0][1].basis == "presumed"
    changes = house.book.take()
    assert not changes.holders[house.worker].live
    assert changes.leases[window, house.worker].done
    assert changes.windows[window].closed == 100
    house.book.bury(house.worker, NOW, power_lost=False)


def test_after_a_power_loss_everything_lent_is_presumed_and_nothing_beyond(house):
    [window] = house.windows()
    house.ask(window, 300)
    house.send(1, (100,))
    house.ask(window, granted=300, released=50, held=100)
    house.book.bury(house.worker, NOW, power_lost=True)
    assert house.balance() == (250, 0, 750)
    attempts = {entry.attempt: entry.charged for entry in house.book.take().entries}
    assert attempts == {1: (100,), 0: (150,)}


def test_a_stop_closes_what_a_worker_held_and_a_late_last_message_changes_nothing(house):
    [window] = house.windows()
    house.ask(window, 300)
    house.send(1, (100,))
    house.settle(1, (100,), (100,))
    house.finish()
    house.book.apply(house.worker, Stop(NOW), NOW)
    house.book.applied(house.worker, 0, 640)
    assert house.balance() == (100, 0, 900)
    assert house.ask(window, granted=300, released=200, spent=100)[0].closed
    assert house.book.take().holders[house.worker] == HolderRow(house.worker, "worker", None, "boot", 0, 640, 1, False)
    house.book.applied(house.worker, 0, 640)


def test_that_all_is_given_back_ends_nothing_for_it_may_overtake_the_journal(house):
    """Only the `Stop` at the journal's end says that no record follows."""
    [window] = house.windows()
    house.ask(window, 300)
    house.ask(window, granted=300, released=300)
    house.send(1, (100,))
    house.settle(1, (0,), (0,), basis="void")
    house.book.apply(house.worker, Stop(NOW), NOW)
    assert house.balance() == (0, 0, 1000)


def test_a_life_goes_on_only_in_its_own_boot(house):
    assert house.book.hello("boot", NOW, previous=house.worker) == house.worker
    assert house.book.hello("another boot", NOW, previous=house.worker) == house.worker + 1
    house.book.bury(house.worker, NOW, power_lost=False)
    assert house.book.hello("boot", NOW, previous=house.worker) == house.worker + 2


def test_a_lease_may_end_before_the_journal_tells_of_what_was_held_in_vain():
    """A report overtakes the journal: all was voided and released. The records that follow charge nothing, in either end."""
    for power_lost in (False, True):
        house = House(Budget("microdollar", 1000))
        [window] = house.windows()
        house.ask(window, 100)
        house.book.change_account(house.key.id, state="revoked")
        assert house.ask(window, granted=100, released=100)[0].closed
        house.send(1, (100,), windows=(window,))
        if power_lost:
            house.book.bury(house.worker, NOW, power_lost=True)
        else:
            house.settle(1, (0,), (0,), basis="void")
        assert house.balance() == (0, 0, 1000)
        assert house.book.check() == []


def test_a_lease_does_not_end_while_the_journal_has_something_open_on_it(house):
    """Its holder says that nothing is held, and the record of that is still to come."""
    [window] = house.windows()
    house.ask(window, 100)
    house.send(1, (100,))
    house.book.change_account(house.key.id, state="revoked")
    house.ask(window, granted=100, released=100)
    assert not house.book.take().leases[window, house.worker].done
    house.settle(1, (0,), (0,), basis="void")
    house.ask(window, granted=100, released=100)
    assert house.book.take().leases[window, house.worker].done


def test_what_was_not_lent_cannot_be_charged():
    house = House(Budget("microdollar", 1000))
    house.send(1, (100,))
    with pytest.raises(BrokenBooks):
        house.settle(1, (70,), (70,))


# Windows


def test_a_new_day_is_a_new_window_and_late_settlements_go_to_the_old():
    house = House(Budget("microdollar", 1000, "daily"))
    [today] = house.windows()
    house.ask(today, 300)
    house.send(1, (100,))
    tomorrow = NOW + 24 * HOUR
    [new] = house.windows(now_ms=tomorrow)
    assert new != today
    assert house.windows() == (new,), "a clock that steps back stays in the newest window"
    answer, _ = house.ask(today, 10, granted=300, released=200, held=100, now_ms=tomorrow)
    assert (answer.granted, answer.closed) == (300, True)
    house.settle(1, (80,), (80,))
    assert house.balance(now_ms=tomorrow) == (0, 0, 1000)
    house.ask(today, granted=300, released=220, spent=80, now_ms=tomorrow)
    changes = house.book.take()
    assert changes.windows[today].closed == 80
    assert changes.leases[today, house.worker].done
    assert house.book.check() == []


def test_another_zone_never_takes_a_budget_back_to_yesterday():
    house = House(Budget("microdollar", 1000, "daily", "Pacific/Kiritimati"))
    late = NOW + 2 * HOUR
    assert house.book.facts(house.key.id, late).path[0].name == "2025-11-22"
    house.book.set_budget(house.key.id, "microdollar", 1000, "daily", "Pacific/Niue")
    [place] = house.book.facts(house.key.id, late + 23 * HOUR + HOUR // 2).path
    assert place.name == "2025-11-22"
