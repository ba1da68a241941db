"""Durations counted in buckets that are never wider than 1/128 of their value, as HdrHistogram has them.

`_load.bucket_of` counts; here is the way back. Every quantile is told as the upper end of its bucket, never beyond the
longest duration seen, so that it is not flattered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

_HALF = 128


def upper(bucket: int) -> int:
    """The longest duration that is counted there, in nanoseconds."""
    if bucket < 2 * _HALF:
        return bucket
    shift = bucket // _HALF - 1
    return ((bucket - shift * _HALF + 1) << shift) - 1


class Histogram(msgspec.Struct, frozen=True):
    """How many durations fell into each bucket, and the longest of them in nanoseconds."""

    counts: dict[int, int]
    most: int = 0

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def quantile_ns(self, per_mille: int) -> int | None:
        """The duration that so many of a thousand do not exceed; None of nothing."""
        total = self.total
        if not total:
            return None
        wanted, seen = max(-(-total * per_mille // 1000), 1), 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= wanted:
                return min(upper(bucket), self.most)
        return self.most

    def quantile_ms(self, per_mille: int) -> float | None:
        found = self.quantile_ns(per_mille)
        return None if found is None else found / 1e6

    @classmethod
    def merged(cls, parts: Iterable[Histogram]) -> Histogram:
        counts: Counter[int] = Counter()
        most = 0
        for part in parts:
            counts.update(part.counts)
            most = max(most, part.most)
        return cls(dict(counts), most)
