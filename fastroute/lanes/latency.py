"""How long attempts took of late, per entry: a short window, sorted only when somebody asks."""

from __future__ import annotations

from collections import deque

from fastroute.domain import LatencyFact

WINDOW = 50


class Latency:
    """The last attempts of each entry, failed ones at the time they cost."""

    def __init__(self, window: int = WINDOW) -> None:
        self._window = window
        self._samples: dict[str, deque[int]] = {}

    def note(self, entry_id: str, ms: int) -> None:
        samples = self._samples.get(entry_id)
        if samples is None:
            samples = self._samples[entry_id] = deque(maxlen=self._window)
        samples.append(ms)

    def facts(self) -> dict[str, LatencyFact]:
        """What is known of every entry that was tried: element floor(q * (n - 1)) of its sorted window."""
        facts = {}
        for entry_id, samples in self._samples.items():
            ordered = sorted(samples)
            last = len(ordered) - 1
            facts[entry_id] = LatencyFact(ordered[last // 2], ordered[95 * last // 100], len(ordered))
        return facts
