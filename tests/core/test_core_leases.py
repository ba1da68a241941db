"""What a worker may still spend: held, settled and given back, all or nothing, and always adding up."""

import os
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastroute import _core, domain

HISTORIES, STEPS = (1000, 1000) if os.environ.get("FASTROUTE_TORTURE") == "1" else (60, 200)
MOST = domain.MICRODOLLARS_MAX
I64_MIN, I64_MAX = -(2**63), 2**63 - 1


def opened(*granted):
    """Leases with one slot for each amount, numbered from 0."""
    leases = _core.Leases(8)
    assert [leases.open(amount) for amount in granted] == list(range(len(granted)))
    return leases


class History:
    """A random life of some leases, told to the core and to the twin at once."""

    def __init__(self, twin, rng):
        self.rng = rng
        self.capacity = rng.randint(1, 6)
        self.leases = _core.Leases(self.capacity)
        self.twin = twin.Leases()
        self.reservations = []
        self.largest = rng.choice((3, 1000, 10**12))

    def amount(self):
        return self.rng.choice((0, 1, self.rng.randint(0, self.largest), self.largest))

    def slot(self):
        return self.rng.choice([*self.twin.accounts])

    def step(self):
        steps = [self.open]
        if self.twin.accounts:
            steps += [self.grant, self.release, self.close] + 6 * [self.reserve]
        if self.reservations:
            steps += 4 * [self.settle] + 2 * [self.void]
        self.rng.choice(steps)()

    def open(self):
        amount = self.amount()
        if len(self.twin.accounts) == self.capacity:
            with pytest.raises(OverflowError):
                self.leases.open(amount)
        else:
            self.twin.open(self.leases.open(amount), amount)

    def grant(self):
        slot, amount = self.slot(), self.amount()
        self.leases.grant(slot, amount)
        self.twin.grant(slot, amount)

    def release(self):
        slot, amount = self.slot(), self.amount()
        assert self.leases.release(slot, amount) == self.twin.release(slot, amount)

    def close(self):
        slot = self.slot()
        if self.twin.accounts[slot].holds:
            with pytest.raises(ValueError, match="still holds"):
                self.leases.close(slot)
        else:
            assert self.leases.close(slot) == self.twin.close(slot)

    def reserve(self):
        open_slots = [*self.twin.accounts]
        slots = tuple(self.rng.sample(open_slots, self.rng.randint(0, min(4, len(open_slots)))))
        amounts = tuple(self.amount() for _ in slots)
        refused = self.twin.reserve(slots, amounts)
        assert self.leases.reserve(slots, amounts) == (_core.UNKNOWN if refused is None else refused)
        if refused is None:
            self.reservations.append((slots, amounts))

    def settle(self):
        slots, held = self.reservations.pop(self.rng.randrange(len(self.reservations)))
        breach = self.rng.random() < 0.1
        spent = tuple(self.amount() if breach else self.rng.randint(0, hold) for hold in held)
        assert self.leases.settle(slots, held, spent) == self.twin.settle(slots, held, spent)

    def void(self):
        slots, held = self.reservations.pop(self.rng.randrange(len(self.reservations)))
        self.leases.void(slots, held)
        self.twin.settle(slots, held, (0,) * len(slots))

    def check(self, excess_before):
        """Both agree, every figure adds up, and free is below zero only by what breaches took."""
        assert len(self.leases) == len(self.twin.accounts)
        for slot, account in self.twin.accounts.items():
            granted, released, spent, held, free = self.leases.balance(slot)
            assert (granted, released, spent, held, free) == account.balance()
            assert granted == released + spent + held + free
            assert min(granted, released, spent, held) >= 0
            assert free >= 0 or free >= excess_before.get(slot, 0) - self.largest


@settings(max_examples=HISTORIES, deadline=None)
@given(st.integers(0, 2**64 - 1))
def test_whatever_happens_the_twin_agrees_and_every_figure_adds_up(twin, seed):
    """After each step: granted = released + spent + held + free."""
    history = History(twin, random.Random(seed))
    for _ in range(STEPS):
        before = {slot: min(account.free, 0) for slot, account in history.twin.accounts.items()}
        history.step()
        history.check(before)


def test_a_reservation_is_held_on_every_account_of_its_path():
    leases = opened(100, 200, 300, 400)
    assert leases.reserve((0, 1, 2, 3), (10, 20, 30, 40)) == _core.UNKNOWN
    assert [leases.balance(slot)[3:] for slot in range(4)] == [(10, 90), (20, 180), (30, 270), (40, 360)]


@pytest.mark.parametrize("poor", range(4))
def test_an_account_that_cannot_pay_refuses_for_all(poor):
    """All or nothing: the index that refused, and nothing held anywhere."""
    leases = opened(*(9 if slot == poor else 10 for slot in range(4)))
    before = [leases.balance(slot) for slot in range(4)]
    assert leases.reserve((0, 1, 2, 3), (10, 10, 10, 10)) == poor
    assert [leases.balance(slot) for slot in range(4)] == before


def test_exactly_the_rest_can_be_reserved_and_not_one_more():
    leases = opened(959, 960)
    assert [leases.reserve((0,), (480,)) for _ in range(2)] == [_core.UNKNOWN, 0]
    assert leases.balance(0)[4] == 479
    assert [leases.reserve((1,), (480,)) for _ in range(2)] == [_core.UNKNOWN] * 2


def test_a_request_with_no_budget_on_its_path_is_never_refused():
    leases = opened()
    assert leases.reserve((), ()) == _core.UNKNOWN
    assert leases.settle((), (), ()) is False
    leases.void((), ())


def test_settling_charges_what_was_spent_and_frees_the_rest():
    """R-A6: 53 spent of 480 held."""
    leases = opened(1000)
    leases.reserve((0,), (480,))
    assert leases.settle((0,), (480,), (53,)) is False
    assert leases.balance(0) == (1000, 0, 53, 0, 947)


def test_what_several_slots_have_spent_is_each_ones_own():
    leases = opened(1000, 1000)
    leases.reserve((0, 1), (480, 480))
    leases.settle((0, 1), (480, 480), (53, 7))
    assert (leases.balance(1), leases.balance(0)) == ((1000, 0, 7, 0, 993), (1000, 0, 53, 0, 947))
    with pytest.raises(ValueError, match="slot 2 is not open"):
        leases.balance(2)


def test_voiding_frees_everything():
    leases = opened(1000, 1000)
    leases.reserve((0, 1), (480, 480))
    leases.void((0, 1), (480, 480))
    assert [leases.balance(slot) for slot in (0, 1)] == [(1000, 0, 0, 0, 1000)] * 2


def test_a_breach_is_charged_in_full_and_refuses_until_topped_up():
    """Only the excess drives free below zero; then not even nothing is granted until money comes."""
    leases = opened(100)
    leases.reserve((0,), (100,))
    assert leases.settle((0,), (100,), (107,)) is True
    assert leases.balance(0) == (100, 0, 107, 0, -7)
    assert leases.reserve((0,), (0,)) == 0
    assert leases.release(0, 5) == 0
    leases.grant(0, 7)
    assert leases.reserve((0,), (0,)) == _core.UNKNOWN


def test_a_breach_on_one_account_is_a_breach():
    leases = opened(100, 100)
    leases.reserve((0, 1), (10, 50))
    assert leases.settle((0, 1), (10, 50), (11, 11)) is True


def test_only_what_is_free_is_released():
    leases = opened(100)
    leases.reserve((0,), (30,))
    assert leases.release(0, 50) == 50
    assert leases.release(0, 50) == 20
    assert leases.release(0, 50) == 0
    assert leases.balance(0) == (100, 70, 0, 30, 0)


def test_closing_releases_what_is_free_and_tells_what_was_spent():
    leases = opened(100)
    leases.reserve((0,), (30,))
    leases.settle((0,), (30,), (25,))
    assert leases.close(0) == (75, 25)
    assert len(leases) == 0


@pytest.mark.parametrize("amount", [0, 30])
def test_a_slot_that_holds_does_not_close(amount):
    """A reservation of nothing is one too: its settlement must not fall upon whoever has the slot next."""
    leases = opened(100)
    leases.reserve((0,), (amount,))
    with pytest.raises(ValueError, match=f"slot 0 still holds {amount} in 1 reservations"):
        leases.close(0)
    leases.void((0,), (amount,))
    assert leases.close(0) == (100, 0)


def test_slots_are_reused_and_begin_anew():
    leases = _core.Leases(2)
    first, second = leases.open(5), leases.open(6)
    with pytest.raises(OverflowError, match="all 2 slots are open"):
        leases.open(7)
    leases.close(first)
    assert leases.open(8) == first
    assert leases.balance(first) == (8, 0, 0, 0, 8)
    assert leases.balance(second) == (6, 0, 0, 0, 6)
    assert len(leases) == 2


def test_a_path_names_each_account_once_and_four_at_most():
    leases = opened(9, 9, 9, 9, 9)
    with pytest.raises(ValueError, match="slots names slot 1 twice"):
        leases.reserve((1, 0, 1), (1, 1, 1))
    with pytest.raises(ValueError, match="slots names at most 4 accounts, not 5"):
        leases.reserve((0, 1, 2, 3, 4), (1, 1, 1, 1, 1))
    with pytest.raises(ValueError, match="amounts has a number for each of 2 slots, not 1"):
        leases.reserve((0, 1), (1,))
    assert all(leases.balance(slot) == (9, 0, 0, 0, 9) for slot in range(5))


def test_what_is_not_held_cannot_be_settled():
    """Nothing changes on any account of the path."""
    leases = opened(100, 100)
    leases.reserve((0, 1), (10, 10))
    before = [leases.balance(slot) for slot in (0, 1)]
    for closing in (lambda held: leases.settle((0, 1), held, (0, 0)), lambda held: leases.void((0, 1), held)):
        with pytest.raises(ValueError, match="slot 1 holds 10, no reservation of 11"):
            closing((10, 11))
        with pytest.raises(ValueError, match="reserved has a number for each of 2 slots, not 1"):
            closing((10,))
    with pytest.raises(ValueError, match="spent has a number for each of 2 slots, not 3"):
        leases.settle((0, 1), (10, 10), (0, 0, 0))
    with pytest.raises(OverflowError, match=f"spent is 0..{MOST}, not -1"):
        leases.settle((0, 1), (10, 10), (0, -1))
    assert [leases.balance(slot) for slot in (0, 1)] == before


def test_a_reservation_settles_once():
    leases = opened(100)
    leases.reserve((0,), (0,))
    leases.void((0,), (0,))
    with pytest.raises(ValueError, match="slot 0 holds 0, no reservation of 0"):
        leases.settle((0,), (0,), (5,))


@pytest.mark.parametrize("call", ["grant", "release", "close", "balance", "reserve", "settle", "void"])
def test_a_slot_that_is_not_open_is_refused(call):
    leases = opened(1)
    arguments = {
        "grant": lambda slot: (slot, 1),
        "release": lambda slot: (slot, 1),
        "close": lambda slot: (slot,),
        "balance": lambda slot: (slot,),
        "reserve": lambda slot: ((slot,), (1,)),
        "settle": lambda slot: ((slot,), (1,), (1,)),
        "void": lambda slot: ((slot,), (1,)),
    }[call]
    with pytest.raises(ValueError, match="slot 1 is not open"):
        getattr(leases, call)(*arguments(1))
    for beyond in (-1, 8, I64_MIN, 2**64):
        with pytest.raises(OverflowError, match=f"slot is 0..7, not {beyond}"):
            getattr(leases, call)(*arguments(beyond))


@pytest.mark.parametrize("amount", [-1, MOST + 1, I64_MIN, I64_MAX, 2**64])
def test_an_amount_out_of_bounds_is_refused_and_changes_nothing(amount):
    leases = opened(100)
    for name, act in {
        "granted": lambda: leases.open(amount),
        "amount": lambda: leases.grant(0, amount) or leases.release(0, amount),
        "amounts": lambda: leases.reserve((0,), (amount,)),
        "reserved": lambda: leases.void((0,), (amount,)),
    }.items():
        with pytest.raises(OverflowError, match=re.escape(f"{name} is 0..{MOST}, not {amount}")):
            act()
    with pytest.raises(OverflowError, match="amount is"):
        leases.release(0, amount)
    assert leases.balance(0) == (100, 0, 0, 0, 100)
    assert len(leases) == 1


def test_grants_add_up_to_no_more_than_the_largest_amount():
    leases = opened(MOST - 1)
    leases.grant(0, 1)
    with pytest.raises(OverflowError, match=f"slot 0 was granted {MOST}; 1 more would pass {MOST}"):
        leases.grant(0, 1)
    assert leases.reserve((0,), (MOST,)) == _core.UNKNOWN


def test_breaches_without_end_stop_where_int64_does_and_never_wrap():
    """A thousand of the largest are charged; the next is refused, and its reservation still stands."""
    leases = opened(MOST)
    for _ in range(1000):
        assert leases.reserve((0,), (0,)) == _core.UNKNOWN
    leases.reserve((0,), (MOST,))
    for _ in range(1000):
        assert leases.settle((0,), (0,), (MOST,)) is True
    assert leases.balance(0) == (MOST, 0, 1000 * MOST, MOST, -1000 * MOST)
    with pytest.raises(OverflowError, match="slot 0 spent 9000000000000000000; 1 is too much"):
        leases.settle((0,), (MOST,), (1,))
    leases.void((0,), (MOST,))
    assert leases.balance(0) == (MOST, 0, 1000 * MOST, 0, -999 * MOST)


@pytest.mark.parametrize("capacity", [-1, 0, 10**6 + 1, 2**64])
def test_a_capacity_is_at_least_one_and_at_most_a_million(capacity):
    with pytest.raises(OverflowError, match=f"capacity is 1..1000000, not {capacity}"):
        _core.Leases(capacity)
    assert len(_core.Leases(10**6)) == 0
