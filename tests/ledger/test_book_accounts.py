"""What the book promises its desk, case by case: accounts with their tokens and limits, and money that one gives another."""

from fastroute.domain import MICRODOLLARS_MAX
from fastroute.ledger.book import Book, Budget
from fastroute.ledger.store import State
from tests.ledger.book_kit import HOUR, NOW, USAGE, House, refused

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
