"""What the book promises its desk and its workers, case by case; `test_book_model` has the random histories."""

import msgspec
import pytest

from fastroute.domain import MICRODOLLARS_MAX
from fastroute.ledger.book import Book, BrokenBooks, Budget, OpenRequest, Refused
from fastroute.ledger.protocol import LeaseReport, Refresh
from fastroute.ledger.records import Finish, Send, Settle, Stop
from fastroute.ledger.store import HolderRow, LeaseRow, State, UsageDelta

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


@pytest.fixture
def house():
    house = House(Budget("microdollar", 1000))
    yield house
    assert house.book.check() == []


def refused(code, call, *args, **kwargs):
    with pytest.raises(Refused) as caught:
        call(*args, **kwargs)
    assert caught.value.code == code
    return caught.value


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


# Accounts


def test_a_replaced_token_opens_until_its_time_is_over(house):
    house.book.change_account(house.key.id, digest=b"new", replaced=b"d", replaced_until_ms=NOW + 60_000)
    assert house.book.by_digest(b"new", NOW + HOUR).id == house.key.id
    assert house.book.by_digest(b"d", NOW + 59_999).id == house.key.id
    assert house.book.by_digest(b"d", NOW + 60_000) is None
    house.book.change_account(house.key.id, digest=b"newer", replaced=b"new", replaced_until_ms=NOW)
    assert house.book.by_digest(b"d", NOW) is None


def test_a_revoked_account_never_comes_back_and_its_windows_close(house):
    [window] = house.windows()
    house.ask(window, 10)
    house.book.change_account(house.key.id, state="revoked")
    assert house.book.standing(house.key.id, NOW) == "revoked"
    assert house.ask(window, 10, granted=10)[0].closed
    refused("not_live", house.book.change_account, house.key.id, state="live")
    refused("invalid", house.book.change_account, house.key.id, parent=2)


def test_nobody_stands_better_than_those_he_hangs_on(house):
    child = house.book.open_account("c", "user", "c", created_ms=NOW, parent=house.key.id, expires_ms=NOW + 500)
    assert house.book.facts(child.id, NOW).expires_in_ms == 500
    assert house.book.standing(child.id, NOW + 500) == "expired"
    house.book.change_account(house.key.id, state="revoked")
    assert house.book.standing(child.id, NOW) == "revoked"
    assert house.book.standing(99, NOW) == "unknown"


def test_facts_tell_the_whole_path_own_first():
    house = House(Budget("microdollar", 5, "monthly", "Europe/Berlin"), rpm=60, models=("a", "b"))
    child = house.book.open_account(
        "u",
        "user",
        "u",
        created_ms=NOW,
        parent=house.key.id,
        tpm=9,
        models=("b", "c"),
        budgets=[Budget("token", 7, "daily")],
    )
    facts = house.book.facts(child.id, NOW)
    assert [(place.unit, place.limit, place.name, place.owner) for place in facts.path] == [
        ("token", 7, "2025-11-21", "u"),
        ("microdollar", 5, "2025-11", "key_1"),
    ]
    assert facts.path[0].ends_in_ms == 15 * HOUR
    assert facts.limits == ((child.id, None, 9, None), (house.key.id, 60, None, None))
    assert facts.models == ("b",)
    stranger = house.book.open_account("s", "user", "s", created_ms=NOW, parent=house.key.id, models=("z",))
    assert house.book.facts(stranger.id, NOW).models == ("",), "nothing may be asked for; an empty tuple would be all"


def test_names_and_tokens_are_unique_and_a_path_has_four_limits(house):
    book = house.book
    refused("exists", book.open_account, "key_1", "key", "x", created_ms=NOW)
    refused("exists", book.open_account, "x", "key", "x", created_ms=NOW, digest=b"d")
    refused("not_found", book.open_account, "x", "key", "x", created_ms=NOW, parent=99)
    refused("invalid", book.open_account, "x", "grant", "x", created_ms=NOW)
    for limit in (-1, MICRODOLLARS_MAX):
        refused("invalid", book.set_budget, house.key.id, "token", limit)
    refused("invalid", book.set_budget, house.key.id, "token", 1, "daily", "Mars/Olympus")
    child = book.open_account("u", "user", "u", created_ms=NOW, parent=house.key.id, budgets=[Budget("token", 1)])
    book.set_budget(child.id, "request", 1)
    book.set_budget(house.key.id, "request", 1)
    refused("path_too_long", book.set_budget, house.key.id, "token", 1)
    refused("path_too_long", book.set_budget, child.id, "microdollar", 1)
    book.set_budget(child.id, "request", None)
    book.set_budget(house.key.id, "token", 1)


def test_a_lowered_limit_recalls_and_a_limit_taken_away_is_no_limit(house):
    [window] = house.windows()
    house.ask(window, 900)
    assert house.book.set_budget(house.key.id, "microdollar", 1500) == {}
    assert house.book.set_budget(house.key.id, "microdollar", 400) == {house.worker: (window,)}
    assert house.balance() == (0, 900, -500)
    house.book.set_budget(house.key.id, "microdollar", None)
    assert house.book.balances(house.key.id, NOW) == []
    assert house.windows() == ()


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


# Allocations


def grant(house, amount, name="g", parent=None, **fields):
    return house.book.allocate(parent or house.key.id, amount, name, "grant", "g", now_ms=NOW, **fields)


def test_a_grant_holds_its_money_and_what_it_spends_is_spent_by_its_parent(house):
    one = grant(house, 600)
    assert house.balance() == (0, 600, 400)
    assert refused("parent_exhausted", grant, house, 401, "h").status == 402
    [window] = house.windows(one.id)
    house.ask(window, 100)
    house.send(1, (100,), windows=(window,))
    house.settle(1, (70,), (70,))
    assert house.balance(one.id) == (70, 30, 500)
    assert house.balance() == (70, 530, 400)
    assert house.book.balances(house.key.id, NOW)[0].leased == 530


def test_a_grant_of_a_grant_spends_all_the_way_up(house):
    one = grant(house, 600)
    two = grant(house, 200, "h", parent=one.id)
    house.book.post(two.id, "r", 50, now_ms=NOW)
    assert [house.balance(id) for id in (two.id, one.id, house.key.id)] == [
        (50, 0, 150),
        (50, 150, 400),
        (50, 550, 400),
    ]
    house.book.end_allocation(one.id, "revoked")
    assert house.book.account(two.id).state == "revoked"
    assert house.balance() == (50, 0, 950)


def test_an_ended_grant_comes_home_when_the_last_lease_on_it_is_at_rest(house):
    """R4: not by a timer, and not while somebody could still spend it."""
    one = grant(house, 600, expires_ms=NOW + HOUR)
    [window] = house.windows(one.id)
    house.ask(window, 100)
    house.send(1, (100,), windows=(window,))
    assert house.book.expire(NOW + HOUR - 1) == []
    assert house.book.expire(NOW + HOUR) == [one.id]
    assert house.balance() == (0, 600, 400)
    assert house.ask(window, granted=100, held=100)[0].closed
    house.settle(1, (70,), (70,))
    assert house.balance() == (70, 530, 400)
    house.ask(window, granted=100, released=30, spent=70)
    assert house.balance() == (70, 0, 930)


def test_a_report_is_charged_in_full_even_over_the_limit_and_after_the_end(house):
    one = grant(house, 100)
    assert house.book.post(one.id, "r1", 100, now_ms=NOW, usage=USAGE, model="m")
    assert not house.book.post(one.id, "r2", 30, now_ms=NOW)
    assert house.balance(one.id) == (130, 0, -30)
    house.book.end_allocation(one.id, "ended")
    assert not house.book.post(one.id, "r3", 5, now_ms=NOW)
    assert house.balance() == (135, 0, 865)
    assert house.book.breaches == 2
    changes = house.book.take()
    assert [(entry.holder, entry.attempt, entry.charged) for entry in changes.entries] == [
        (0, 1, (100,)),
        (0, 2, (30,)),
        (0, 3, (5,)),
    ]
    assert changes.notes == {"desk_entries": b"3"}


def test_only_allocations_end_and_their_money_is_what_they_were_given(house):
    one = grant(house, 100)
    refused("invalid", house.book.end_allocation, house.key.id, "revoked")
    refused("allocated", house.book.set_budget, one.id, "microdollar", 500)
    refused("invalid", house.book.allocate, house.key.id, 1, "u", "user", "u", now_ms=NOW)
    house.book.change_account(house.key.id, state="revoked")
    refused("not_live", grant, house, 1, "h")


def test_an_unlimited_parent_grants_without_escrow():
    house = House()
    one = grant(house, 100)
    house.book.post(one.id, "r", 40, now_ms=NOW)
    assert house.balance(one.id) == (40, 0, 60)
    assert house.book.check() == []


def test_a_correction_is_an_entry_of_its_own_and_moves_the_balances(house):
    one = grant(house, 600)
    [window] = house.windows(one.id)
    house.ask(window, 100)
    house.send(1, (100,), windows=(window,))
    house.book.bury(house.worker, NOW, power_lost=False)
    [entry] = house.book.take().entries
    row = house.book.correct(
        entry, charged=(30,), basis="exact", usage=USAGE, picodollars=30, microdollars=30, now_ms=NOW
    )
    assert (row.holder, row.charged, row.microdollars) == (0, (-70,), -70)
    assert row.corrects == (entry.holder, 1)
    assert house.balance(one.id) == (30, 0, 570)
    assert house.balance() == (30, 570, 400)
    refused(
        "invalid",
        house.book.correct,
        entry,
        charged=(-1,),
        basis="exact",
        usage=USAGE,
        picodollars=0,
        microdollars=0,
        now_ms=NOW,
    )


def test_fifty_thousand_accounts_are_found_at_once():
    """By id, public id and token, without a pass over the others."""
    book = Book(State())
    for number in range(50_000):
        book.open_account(f"k{number}", "key", "k", created_ms=NOW, digest=b"%d" % number)
    assert book.by_public("k49999") is book.by_digest(b"49999", NOW) is book.account(50_000)
