"""Durations in buckets: a quantile is never less than the exact one, and never more than a 128th above it."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from fastroute.bench import _load
from fastroute.bench.histogram import Histogram, upper


def counted(values: list[int]) -> Histogram:
    return Histogram(dict(Counter(map(_load.bucket_of, values))), max(values, default=0))


def exact(values: list[int], per_mille: int) -> int:
    """The least value that so many of a thousand do not exceed."""
    rank = max(-(-len(values) * per_mille // 1000), 1)
    return sorted(values)[rank - 1]


@pytest.mark.parametrize("value", [0, 1, 255, 256, 257, 511, 512, 10**6, 10**9 + 7, 2**40, 2**62, 2**63 - 1])
def test_a_bucket_holds_its_value_and_is_narrow(value):
    bucket = _load.bucket_of(value)
    assert value <= upper(bucket) <= value + value // 128 + 1
    assert bucket == 0 or upper(bucket - 1) < value


def test_buckets_follow_one_another_without_a_gap():
    bounds = [upper(bucket) for bucket in range(4000)]
    assert bounds == sorted(set(bounds))
    assert all(_load.bucket_of(bound + 1) == bucket + 1 for bucket, bound in enumerate(bounds[:-1]))


@pytest.mark.parametrize("seed", range(5))
def test_quantiles_are_those_of_the_sorted_values(seed):
    draw = random.Random(seed)
    values = [int(draw.lognormvariate(13, 2)) for _ in range(draw.randrange(1, 3000))]
    found = counted(values)
    for per_mille in (1, 500, 900, 990, 999, 1000):
        wanted = exact(values, per_mille)
        told = found.quantile_ns(per_mille)
        assert wanted <= told <= wanted + wanted // 128 + 1
        assert told <= max(values)


def test_merged_histograms_are_one_of_all_values():
    one, other = [5, 700, 10**6], [3, 10**9]
    assert Histogram.merged([counted(one), counted(other)]) == counted(one + other)


def test_of_nothing_there_is_no_quantile():
    assert Histogram({}).quantile_ms(500) is None
