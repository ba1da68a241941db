"""How long attempts took of late, per entry: a short window, sorted only when somebody asks."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice

from fastroute.clock import Clock
from fastroute.domain import ENTRIES_MAX, LatencyFact

WINDOW = 50
# An entry that looks slow gets no traffic, and so would look slow for ever: what it was so long ago no longer counts.
AGE_MAX_MS = 600_000


class Latency:
    """The last attempts of each entry, failed ones at the time they cost."""

    def __init__(self, clock: Clock, window: int = WINDOW, age_max_ms: int = AGE_MAX_MS) -> None:
        self._clock = clock
        self._window = window
        self._age_max_ms = age_max_ms
        self._samples: dict[str, deque[tuple[int, int]]] = {}

    def keep(self, window: int) -> None:
        """Remember at least so many attempts of each entry; whoever holds `samples` of before asks for them anew."""
        if window > self._window:
            self._window = window
            self._samples = {entry_id: deque(samples, window) for entry_id, samples in self._samples.items()}

    def note(self, entry_id: str, ms: int) -> None:
        self.samples(entry_id).append((self._clock.monotonic_ms(), ms))

    def samples(self, entry_id: str) -> deque[tuple[int, int]]:
        """Where this entry's attempts are noted, for whoever notes many: the instant of each, and how long it took."""
        samples = self._samples.get(entry_id)
        if samples is None:
            if len(self._samples) >= ENTRIES_MAX:
                self._forget()
            samples = self._samples[entry_id] = deque(maxlen=self._window)
        return samples

    def _forget(self) -> None:
        """Keep the half that was tried last. What is noted of the others from here on is lost to `facts`."""
        asked = sorted(self._samples.items(), key=lambda one: one[1][-1][0] if one[1] else 0, reverse=True)
        self._samples = dict(asked[: ENTRIES_MAX // 2])

    def facts(self, last: int = WINDOW) -> dict[str, LatencyFact]:
        """What is known of every entry that was tried lately, from no more than its `last` attempts."""
        since = self._clock.monotonic_ms() - self._age_max_ms
        facts = {}
        for entry_id, samples in self._samples.items():
            while samples and samples[0][0] < since:
                samples.popleft()
            if samples:
                taken = sorted(ms for _, ms in islice(samples, max(len(samples) - last, 0), None))
                facts[entry_id] = LatencyFact(quantile(taken, 50), quantile(taken, 95), len(taken))
        return facts


def quantile(ascending: Sequence[int], percent: int) -> int:
    """A percentile as routes mean it: element floor(p * (n - 1)) of the sorted latencies."""
    return ascending[percent * (len(ascending) - 1) // 100]
