"""When a guard halts, when it goes on, and that it never breaks the session it watches."""

import os
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastroute import Price, Rates, Tier, Usage
from fastroute.guard import Guard, Halt, caps, for_grant
from fastroute.routed import Grant

SONNET = Price(Rates(3_000_000, 15_000_000, cache_read=300_000, cache_write=3_750_000))
FREE = Price(Rates(0, 0))


def grant(budget):
    return Grant("vk-0123456789", budget_microdollars=budget)


def test_no_caps_never_halt():
    assert caps()(Usage(10**9, 10**9), 10**9) is None


@pytest.mark.parametrize(("turns", "halts"), [(0, False), (4, False), (5, True), (6, True)])
def test_turns_halt_once_they_reach_the_cap(turns, halts):
    assert caps(max_turns=5)({}, turns) == (Halt("max_turns", turns, 5) if halts else None)


@pytest.mark.parametrize(("output", "halts"), [(0, False), (99, False), (100, True), (101, True)])
def test_tokens_halt_once_input_and_output_reach_the_cap(output, halts):
    told = caps(max_total_tokens=1_100)({"input_tokens": 1_000, "output_tokens": output})
    assert told == (Halt("max_total_tokens", 1_000 + output, 1_100) if halts else None)


@pytest.mark.parametrize(("output", "halts"), [(999, False), (1_000, True), (1_001, True)])
def test_cost_halts_once_it_reaches_the_cap(output, halts):
    """M-A13: 1000 in and 1000 out at 3 and 15 dollars a million are 18 000 microdollars."""
    guard = caps(max_cost_microdollars=18_000, model="m", price=SONNET)
    told = guard(Usage(1_000, output))
    assert told == (Halt("max_cost_microdollars", 3_000 + 15 * output, 18_000) if halts else None)


@pytest.mark.parametrize(("output", "halts"), [(999, False), (1_000, True)])
def test_a_grant_halts_once_its_budget_is_reached(output, halts):
    told = for_grant(grant(18_000), "m", price=SONNET)(Usage(1_000, output), 3)
    assert told == (Halt("budget_exceeded", 18_000, 18_000) if halts else None)


def test_caps_are_checked_before_the_budget_and_in_their_order():
    guard = for_grant(grant(1), "m", caps(max_turns=2, max_total_tokens=10), price=SONNET)
    assert guard(Usage(100), 2).reason == "max_turns"
    assert guard(Usage(100), 1).reason == "max_total_tokens"
    assert guard(Usage(1), 1).reason == "budget_exceeded"
    assert guard(Usage(0), 1) is None


def test_a_null_budget_never_halts_and_its_caps_still_do():
    guard = for_grant(grant(None), "m", caps(max_turns=2), price=SONNET)
    assert guard(Usage(10**9, 10**9), 1) is None
    assert guard(Usage(), 2).reason == "max_turns"


def test_a_budget_of_zero_is_closed_before_anything_is_used():
    assert for_grant(grant(0), "no-such:model")({}) == Halt("budget_exceeded", 0, 0)


def test_the_price_is_the_shipped_one_where_none_is_given():
    guard = caps(max_cost_microdollars=10**9, model="anthropic:claude-3-5-haiku-20241022")
    assert guard.unpriced == ()
    assert guard.limits[0].price.rates.input > 0
    by_family = caps(max_cost_microdollars=10**9, model="claude-3-5-haiku-20241022")
    assert by_family.limits[0].price == guard.limits[0].price


def test_a_model_without_a_price_goes_on_and_is_warned_of_once_in_a_process(caplog):
    """M-B12: an unknown price is not zero; it is said, before the first turn, and can be read off the guard."""
    for _ in range(3):
        guard = for_grant(grant(1), "nobody:guarded-model")
        assert guard(Usage(10**6, 10**6)) is None
    assert guard.unpriced == ("nobody:guarded-model",)
    [said] = [record.getMessage() for record in caplog.records if record.name == "fastroute.guard"]
    assert "no price is known for nobody:guarded-model" in said


def test_a_free_model_is_priced_and_not_warned_of(caplog):
    guard = for_grant(grant(1), "nobody:free-model", price=FREE)
    assert guard(Usage(10**6, 10**6)) is None
    assert guard.unpriced == ()
    assert not caplog.records


def test_a_model_without_a_price_is_no_matter_where_no_cost_is_watched(caplog):
    guard = for_grant(grant(None), "nobody:unwatched-model", caps(max_turns=1, model="nobody:unwatched-model"))
    assert guard.unpriced == ()
    assert not caplog.records


@pytest.mark.parametrize(
    "price",
    [
        Price(Rates(-1, 0)),
        Price(Rates(1.5, 0)),
        Price(Rates("3", 0)),
        Price(Rates(10**12, 0)),
        Price(None),
        Price(Rates(1, 1), tiers=None),
        {"input": 3},
    ],
)
def test_a_price_nobody_can_reckon_with_halts(price):
    assert for_grant(grant(100), "m", price=price)(Usage(1)) == Halt("invalid_pricing", None, 100)
    assert for_grant(grant(None), "m", price=price)(Usage(1)) is None
    assert for_grant(grant(100), "m", caps(max_turns=1), price=price)(Usage(1), 1).reason == "max_turns"


@pytest.mark.parametrize(
    "said",
    [
        Usage(input=1_000, output=50, cache_read=200, cache_write=30),
        {"input_tokens": 1_000, "output_tokens": 50, "cache_read_input_tokens": 200, "cache_creation_input_tokens": 30},
        SimpleNamespace(
            input_tokens=1_000, output_tokens=50, cache_read_input_tokens=200, cache_creation_input_tokens=30
        ),
    ],
)
def test_cached_tokens_beside_the_input_are_tokens_and_cost_their_own_rate(said):
    guard = caps(max_cost_microdollars=3_923, max_total_tokens=1_281, model="m", price=SONNET)
    assert guard(said) == Halt("max_cost_microdollars", 3_923, 3_923)  # 3000 + 750 + 60 + 112.5, rounded up
    assert caps(max_total_tokens=1_280)(said) == Halt("max_total_tokens", 1_280, 1_280)


@pytest.mark.parametrize(
    "said",
    [
        {"prompt_tokens": 1_000, "completion_tokens": 50, "prompt_tokens_details": {"cached_tokens": 200}},
        {"input_tokens": 1_000, "output_tokens": 50, "input_tokens_details": {"cached_tokens": 200}},
        SimpleNamespace(
            prompt_tokens=1_000, completion_tokens=50, prompt_tokens_details=SimpleNamespace(cached_tokens=200)
        ),
    ],
)
def test_cached_tokens_within_the_input_are_counted_once(said):
    assert caps(max_total_tokens=1)(said).value == 1_050
    assert caps(max_cost_microdollars=1, model="m", price=SONNET)(said).value == 800 * 3 + 60 + 750


def test_an_explicit_zero_is_not_replaced_by_another_spelling():
    """M-B15."""
    assert caps(max_total_tokens=5)({"input_tokens": 0, "prompt_tokens": 9}) is None


def test_a_long_session_is_priced_at_the_dearest_it_can_have_cost():
    tiered = Price(Rates(1_000_000, 0), (Tier(1_000, Rates(2_000_000, 0)),))
    guard = caps(max_cost_microdollars=4_000, model="m", price=tiered)
    assert guard(Usage(1_000)) is None
    assert guard(Usage(2_000)) == Halt("max_cost_microdollars", 4_000, 4_000)


@pytest.mark.parametrize("limit", ["max_turns", "max_total_tokens", "max_cost_microdollars"])
@pytest.mark.parametrize("value", [-1, 1.5, "5", True])
def test_a_limit_that_is_no_count_is_refused_when_the_guard_is_made(limit, value):
    with pytest.raises(ValueError, match=limit):
        caps(**{limit: value}, model="m", price=FREE)


def test_a_cost_without_a_model_is_refused_rather_than_ignored():
    with pytest.raises(ValueError, match="needs the model"):
        caps(max_cost_microdollars=5)


@pytest.mark.parametrize("budget", [-1, 1.5, "5"])
def test_a_budget_that_is_no_amount_is_refused_when_the_guard_is_made(budget):
    with pytest.raises(ValueError, match="budget of the grant"):
        for_grant(grant(budget), "m", price=FREE)


def test_guards_are_values():
    assert caps(max_turns=3) == caps(max_turns=3) == Guard(caps(max_turns=3).limits)
    assert "vk-" not in repr(for_grant(grant(5), "m", price=FREE))


ANYTHING = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)
)
NAMES = (
    "input_tokens",
    "output_tokens",
    "prompt_tokens",
    "cache_read_input_tokens",
    "input_tokens_details",
    "input",
    "x",
)


@settings(max_examples=20_000 if "FASTROUTE_TORTURE" in os.environ else 200, deadline=None)
@given(ANYTHING | st.dictionaries(st.sampled_from(NAMES), ANYTHING), ANYTHING)
def test_a_guard_never_raises_whatever_it_is_told(usage, turns):
    guard = for_grant(grant(10**15), "m", caps(max_turns=3, max_total_tokens=10**6), price=SONNET)
    told = guard(usage, turns)
    assert told is None or told.value >= told.limit
    if isinstance(usage, dict):
        assert guard(SimpleNamespace(**usage), turns) == told
