"""How sure a comparison is: paired bootstrap intervals, the same for the same seed, in integers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

RESAMPLES: Final = 2000
_SCALE: Final = 100_000  # thousandths of a percent
# Percentiles of a 95 % interval, in tenths of a percent.
_LOW, _HIGH = 25, 975


class Interval(Struct, frozen=True):
    """A figure and the 95 % interval around it."""

    value: int
    low: int
    high: int


def intervals(pairs: Sequence[tuple[int, int]], seed: int) -> tuple[Interval, Interval] | None:
    """Of (baseline, policy) a prompt: what the baseline exceeds the policy by in all, and as thousandths of a percent.

    Prompts are drawn anew with replacement, each with both of its figures. None without a pair, or where a baseline of
    nothing leaves no percentage.
    """
    if not pairs:
        return None
    drawn = resampled(pairs, seed)
    total = (sum(one for one, _ in pairs), sum(other for _, other in pairs))
    if total[0] <= 0:
        return None
    amounts = sorted(before - after for before, after in drawn)
    # A draw without any cost of the baseline has nothing to save: it counts as none saved.
    shares = sorted((before - after) * _SCALE // before if before else 0 for before, after in drawn)
    return (
        Interval(total[0] - total[1], *_ends(amounts)),
        Interval((total[0] - total[1]) * _SCALE // total[0], *_ends(shares)),
    )


def mean_difference(pairs: Sequence[tuple[int, int]], seed: int) -> Interval | None:
    """Of (baseline, policy) a prompt, each 0 or 1: how many more of the policy's were 1, in thousandths of a percent."""
    if not pairs:
        return None
    count = len(pairs)
    value = sum(after - before for before, after in pairs) * _SCALE // count
    return Interval(
        value, *_ends(sorted((after - before) * _SCALE // count for before, after in resampled(pairs, seed)))
    )


def resampled(pairs: Sequence[tuple[int, int]], seed: int) -> list[tuple[int, int]]:
    """The two sums of so many samples drawn from the pairs with replacement."""
    draw = random.Random(seed)  # noqa: S311  # a statistic: what it draws is meant to be the same every time
    count = len(pairs)
    drawn = []
    for _ in range(RESAMPLES):
        picked = draw.choices(pairs, k=count)
        drawn.append((sum([one for one, _ in picked]), sum([other for _, other in picked])))
    return drawn


def _ends(ascending: Sequence[int]) -> tuple[int, int]:
    """The elements at 2.5 and 97.5 %, as latencies have theirs: floor(p * (n - 1))."""
    last = len(ascending) - 1
    return ascending[_LOW * last // 1000], ascending[_HIGH * last // 1000]
