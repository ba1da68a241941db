"""Intervals: against every sample there is, against a slow twin, and the same for the same seed."""

from __future__ import annotations

import random
from fractions import Fraction
from itertools import product

import pytest

from fastroute.evaluation.bootstrap import RESAMPLES, intervals, mean_difference

PAIRS = [(700, 100), (900, 850), (400, 400), (1000, 90)]


def twin(pairs: list[tuple[int, int]], seed: int) -> tuple[list[Fraction], list[Fraction]]:
    """The same statistics, one draw after another, in fractions."""
    draw = random.Random(seed)
    amounts, shares = [], []
    for _ in range(RESAMPLES):
        before = after = 0
        for one, other in draw.choices(pairs, k=len(pairs)):
            before += one
            after += other
        amounts.append(Fraction(before - after))
        shares.append(Fraction(before - after, before))
    return sorted(amounts), sorted(shares)


def at(ascending: list[Fraction], permille: int) -> Fraction:
    return ascending[permille * (len(ascending) - 1) // 1000]


@pytest.mark.parametrize("seed", [0, 1, 2**40])
def test_the_slow_twin_agrees_to_the_last_unit(seed: int) -> None:
    random_pairs = random.Random(seed)
    pairs = [(random_pairs.randrange(1, 10**9), random_pairs.randrange(10**9)) for _ in range(57)]
    amounts, shares = twin(pairs, seed)
    found = intervals(pairs, seed)
    assert found is not None
    money, share = found
    assert (money.low, money.high) == (at(amounts, 25), at(amounts, 975))
    assert money.value == sum(one for one, _ in pairs) - sum(other for _, other in pairs)
    for ours, theirs in ((share.low, at(shares, 25)), (share.high, at(shares, 975))):
        assert ours == (theirs * 100_000).__floor__()


def test_the_interval_is_near_that_of_every_sample_there_is() -> None:
    """Four prompts have 256 samples; the drawn 2.5 and 97.5 % points lie within a hair of theirs."""
    every = sorted(sum(one - other for one, other in sample) for sample in product(PAIRS, repeat=4))
    found = intervals(PAIRS, 3)
    assert found is not None
    money, _ = found
    share_below = [sum(value <= end for value in every) / len(every) for end in (money.low, money.high)]
    assert 0.01 <= share_below[0] <= 0.06
    assert 0.95 <= share_below[1] <= 0.995
    assert money.low <= money.value <= money.high


def test_the_same_seed_says_the_same_and_another_something_else() -> None:
    pairs = [(random.Random(n).randrange(1, 10**6), n) for n in range(40)]
    assert intervals(pairs, 7) == intervals(pairs, 7)
    assert intervals(pairs, 7) != intervals(pairs, 8)
    assert mean_difference([(0, 1), (1, 0)] * 20, 7) == mean_difference([(0, 1), (1, 0)] * 20, 7)


def test_money_beyond_floats_stays_exact() -> None:
    huge = 10**18 + 1
    found = intervals([(huge, 1)] * 3, 1)
    assert found is not None
    assert (found[0].value, found[0].low, found[0].high) == (3 * (huge - 1),) * 3


def test_savings_may_be_losses_and_nothing_may_be_compared() -> None:
    found = intervals([(100, 150)] * 10, 1)
    assert found is not None
    assert (found[0].value, found[1].value, found[1].low, found[1].high) == (-500, -50_000, -50_000, -50_000)
    assert intervals([], 1) is None
    assert intervals([(0, 5)], 1) is None
    assert mean_difference([], 1) is None


def test_the_quality_is_the_difference_of_the_shares() -> None:
    found = mean_difference([(1, 1)] * 6 + [(0, 1)] * 3 + [(1, 0)], 1)
    assert found is not None
    assert found.value == 20_000
    assert found.low < 20_000 < found.high
