"""Counters over raw memory: an update is one plain 64-bit store that a reader in another process never sees torn.

Numbers are whole and unsigned but for a gauge's; a negative one, or one beyond 64 bits, raises `OverflowError` and
changes nothing. Sums wrap at 2**64: in picodollars that is 18 million dollars of one model in the life of one worker.
"""

from collections.abc import Sequence
from mmap import mmap
from typing import Final, final

WIDTH_MAX: Final[int]
"""The most words one series takes."""

@final
class Counter:
    """A count that only rises."""

    def inc(self, by: int = 1) -> None: ...
    @property
    def value(self) -> int: ...

@final
class Gauge:
    """A number that rises and falls."""

    def inc(self) -> None: ...
    def dec(self) -> None: ...
    def set(self, value: int) -> None: ...
    @property
    def value(self) -> int: ...

@final
class Histogram:
    """Counts of values by size, and their sum, in whole units."""

    def observe(self, value: int) -> None: ...
    @property
    def value(self) -> tuple[int, tuple[int, ...]]:
        """(sum, buckets), the last bucket being what is above every bound."""

class Slots:
    """A writable buffer of 64-bit words; its handles keep it alive. One process writes to a slot."""

    size: Final[int]
    def __init__(self, memory: mmap | bytearray | memoryview) -> None: ...
    def publish(self, word: int, value: int) -> None:
        """Store a word so that whoever sees it also sees everything written before it."""

    def counter(self, word: int) -> Counter: ...
    def gauge(self, word: int) -> Gauge: ...
    def histogram(self, word: int, bounds: Sequence[int]) -> Histogram:
        """A sum and one bucket more than there are bounds, in `len(bounds) + 2` words from `word` on."""

class Finished:
    """Every series one finished request touches, so that it costs one call."""

    def __init__(
        self,
        requests: Counter,
        latency_ms: Histogram,
        cost_usd: Histogram,
        tokens_in: Counter,
        tokens_out: Counter,
        latency_seconds: Histogram | None,
        backend_requests: Counter | None,
    ) -> None: ...
    def record(self, ms: float, picodollars: int | None, tokens_in: int, tokens_out: int) -> None:
        """A time below zero is zero."""

class Tried:
    """Every series one attempt touches."""

    def __init__(self, attempts: Counter, settle: Counter | None, first_chunk: Histogram) -> None: ...
    def record(self, first_chunk_ms: float | None) -> None: ...

class Verdicts:
    """What became of the candidates of one decision, counted from the core's codes."""

    def __init__(self, chosen: Counter, ranked: Counter, excluded: tuple[Counter, ...]) -> None: ...
    def record(self, codes: bytes) -> None:
        """0 is viable, and the first of these was chosen; n is the n-th of `excluded`, anything else a `ValueError`."""

class Groups:
    """The groups of series that every request touches, by what makes them; `recorder` says how one is made."""

    _finished: dict[tuple[str, int, str | None], Finished]
    _tried: dict[tuple[str, str, str | None], Tried]

    def finished(
        self,
        model: str,
        status: int,
        latency_ms: float,
        picodollars: int | None = None,
        tokens_in: int = 0,
        tokens_out: int = 0,
        backend: str | None = None,
    ) -> None:
        """One request is over: counted, timed and priced under its model and, where one was asked, its backend."""

    def attempt(self, lane: str, outcome: str, basis: str | None = None, first_chunk_ms: float | None = None) -> None:
        """One try on one lane is over; `basis` is what its settlement rests on."""

    def finished_group(self, model: str, status: int, backend: str | None) -> Finished: ...
    def tried_group(self, lane: str, outcome: str, basis: str | None) -> Tried: ...

def acquire(memory: mmap | bytes | bytearray | memoryview, word: int) -> int:
    """A word another process publishes; what it wrote before publishing is seen from here on."""
