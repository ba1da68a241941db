"""Prices, the one rounding, and what a request is taken to be long."""

import os
import re
import tomllib
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastroute import _core, domain

EXAMPLES = 20_000 if os.environ.get("FASTROUTE_TORTURE") == "1" else 200
I64_MIN, I64_MAX = -(2**63), 2**63 - 1

tokens = st.integers(0, domain.TOKENS_MAX)
rates = st.integers(0, domain.RATE_MAX)
GPT_4O_MINI = {
    "input_rate": 150_000,
    "output_rate": 600_000,
    "cache_read_rate": 150_000,
    "cache_write_rate": 150_000,
}


def gpt_4o_mini(input_tokens: int, output_tokens: int) -> int:
    return _core.cost_picodollars(input_tokens, output_tokens, 0, 0, **GPT_4O_MINI)


def test_the_core_is_of_the_version_that_pyproject_names():
    project = tomllib.loads(Path(__file__).parents[2].joinpath("pyproject.toml").read_text())
    assert project["project"]["version"] == _core.VERSION


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.tuples(tokens, tokens, tokens, tokens), st.tuples(rates, rates, rates, rates))
def test_a_cost_is_the_exact_sum_of_tokens_times_rates(twin, counts, prices):
    """Microdollars per million tokens times tokens is picodollars: nothing is divided, so nothing is lost."""
    assert _core.cost_picodollars(*counts, *prices) == twin.cost_picodollars(counts, prices)
    exact = sum(Fraction(rate, 10**6) * count for count, rate in zip(counts, prices, strict=True))
    assert Fraction(_core.cost_picodollars(*counts, *prices), 10**6) == exact


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.integers(0, I64_MAX))
def test_rounding_is_upwards_and_by_less_than_one_microdollar(twin, picodollars):
    charged = _core.ceil_microdollars(picodollars)
    assert charged == twin.ceil_microdollars(picodollars)
    assert 0 <= Fraction(charged) - Fraction(picodollars, 10**6) < 1


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(st.tuples(tokens, tokens, rates, rates), min_size=1, max_size=8))
def test_a_bill_split_into_attempts_is_overcharged_by_less_than_a_microdollar_each(attempts):
    """CONTRACTS 5.6: ceil once per attempt."""
    bills = [_core.cost_picodollars(sent, got, 0, 0, ask, answer, 0, 0) for sent, got, ask, answer in attempts]
    charged = sum(_core.ceil_microdollars(bill) for bill in bills)
    assert 0 <= charged - Fraction(sum(bills), 10**6) < len(attempts)


def test_the_largest_request_at_the_largest_rates_still_fits():
    most = [domain.TOKENS_MAX] * 4 + [domain.RATE_MAX] * 4
    assert _core.cost_picodollars(*most) == 8 * 10**18
    assert _core.ceil_microdollars(8 * 10**18) == 8 * 10**12
    assert _core.ceil_microdollars(I64_MAX) == 9_223_372_036_855


@pytest.mark.parametrize("position", range(8))
@pytest.mark.parametrize("beyond", [-1, I64_MIN, I64_MAX, 2**63, -(2**63) - 1, 10**30])
def test_a_count_or_rate_out_of_bounds_is_refused_by_name(position, beyond):
    """R-B7: upstream's own tests feed the ends of int64."""
    names = ["input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"]
    names += ["input_rate", "output_rate", "cache_read_rate", "cache_write_rate"]
    most = domain.TOKENS_MAX if position < 4 else domain.RATE_MAX
    arguments = [1] * 8
    for value in (beyond, most + 1):
        arguments[position] = value
        with pytest.raises(OverflowError, match=re.escape(f"{names[position]} is 0..{most}, not {value}")):
            _core.cost_picodollars(*arguments)
    arguments[position] = most
    assert _core.cost_picodollars(*arguments) == most + 3


def test_a_number_too_long_to_print_is_still_refused_in_words():
    with pytest.raises(OverflowError, match=r"picodollars is \S+ not an integer of 19932 bits"):
        _core.ceil_microdollars(10**6000)


@pytest.mark.parametrize("value", [1.0, "1", None, b"1"])
def test_what_is_not_an_integer_is_refused_by_name(value):
    """A float has already lost the answer."""
    with pytest.raises(TypeError, match=f"picodollars is an integer, not {type(value).__name__}"):
        _core.ceil_microdollars(value)


def test_r_a5_four_thousand_characters_are_1200_tokens_and_hold_480_microdollars():
    """R-A5: 4000 characters and max_tokens 500 on gpt-4o-mini."""
    estimate = _core.estimate_tokens(4000)
    assert estimate == 1200
    assert _core.ceil_microdollars(gpt_4o_mini(estimate, 500)) == 480


def test_r_a6_52_and_a_half_microdollars_are_charged_as_53():
    assert gpt_4o_mini(150, 50) == 52_500_000
    assert _core.ceil_microdollars(gpt_4o_mini(150, 50)) == 53


def test_m_b3_r_b8_a_tiny_call_is_not_free():
    """6 in and 1 out of gpt-4o-mini cost 1.5 microdollars; a floor of each term would make that 0."""
    assert gpt_4o_mini(6, 1) == 1_500_000
    assert _core.ceil_microdollars(gpt_4o_mini(6, 1)) == 2


def test_m_a11_cache_tokens_are_priced_at_their_own_rates():
    assert _core.ceil_microdollars(_core.cost_picodollars(1000, 500, 0, 0, 3_000_000, 15_000_000, 0, 0)) == 10_500
    cached = _core.cost_picodollars(0, 0, 1_000_000, 1_000_000, 3_000_000, 15_000_000, 300_000, 3_750_000)
    assert _core.ceil_microdollars(cached) == 4_050_000


@pytest.mark.parametrize(
    ("characters", "estimate"), [(0, 1000), (1, 100), (3, 100), (4, 101), (40, 111), (4000, 1200), (10**9, 275_000_100)]
)
def test_an_estimate_is_a_quarter_and_a_tenth_of_it_and_a_hundred(twin, characters, estimate):
    assert _core.estimate_tokens(characters) == twin.estimate_tokens(characters) == estimate


@pytest.mark.parametrize(
    ("characters", "estimate"),
    [([], 0), ([0], 5), ([1], 6), ([30], 12), ([580], 150), ([584], 151), ([30, 0, 580], 167)],
)
def test_a_message_is_estimated_as_a_quarter_of_its_characters_and_five(twin, characters, estimate):
    """T-A1 and T-A4: 30 characters are 12 tokens, 580 are 150, 584 are 151."""
    assert _core.estimate_message_tokens(characters) == twin.estimate_message_tokens(characters) == estimate


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(st.integers(0, 10**7), max_size=50))
def test_estimates_agree_with_the_twin(twin, characters):
    assert _core.estimate_message_tokens(characters) == twin.estimate_message_tokens(characters)
    assert _core.estimate_tokens(sum(characters)) == twin.estimate_tokens(sum(characters))


def test_an_estimate_over_messages_is_never_more_than_a_token_count_may_be():
    assert _core.estimate_message_tokens([10**9] * 3) == 750_000_015
    with pytest.raises(OverflowError, match="the estimate over all messages"):
        _core.estimate_message_tokens([10**9] * 4)


def test_a_bound_is_the_bytes_and_the_templates_around_them():
    """A byte-level vocabulary never makes more tokens than bytes; what wraps them is bounded by fixed figures."""
    assert _core.token_bound(0, 0, 0, 0, _core.UNKNOWN) == 128
    assert _core.token_bound(4000, 2, 0, 0, 128_000) == 4000 + 2 * 16 + 128
    assert _core.token_bound(4000, 2, 3, 0, 128_000) == 4000 + 2 * 16 + 1024 + 3 * 64 + 128


def test_a_bound_is_never_more_than_the_context_window():
    assert _core.token_bound(4000, 1, 0, 0, 4000) == 4000
    assert _core.token_bound(10**9, 1, 0, 0, _core.UNKNOWN) == domain.TOKENS_MAX


def test_media_are_bounded_by_nothing_but_the_window():
    assert _core.token_bound(10, 1, 0, 1, 128_000) == 128_000
    assert _core.token_bound(10, 1, 0, 1, _core.UNKNOWN) == domain.TOKENS_MAX


counts = st.integers(0, 10**9) | st.integers(0, 100)


@settings(max_examples=EXAMPLES, deadline=None)
@given(counts, counts, counts, st.integers(0, 2), st.none() | st.integers(0, 10**9))
def test_bounds_agree_with_the_twin(twin, text_bytes, messages, tools, media, window):
    bound = _core.token_bound(text_bytes, messages, tools, media, _core.UNKNOWN if window is None else window)
    assert bound == twin.token_bound(text_bytes, messages, tools, media, window)
    assert bound <= domain.TOKENS_MAX
