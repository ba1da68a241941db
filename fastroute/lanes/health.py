"""Health by streaks: a lane is degraded after so many failures in a row, and well again after one success.

A degraded lane gets no traffic, so nothing would ever heal it; once its cool-down is over, exactly one request may try.
A lane may also be asked to rest by its provider (`Retry-After`), which is no failure of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastroute.clock import Clock
from fastroute.domain import LaneState


@dataclass(slots=True)
class _Lane:
    streak: int = 0
    degraded_at_ms: int | None = None
    probing: bool = False
    resting_until_ms: int = 0
    rest_asked_ms: int = 0


REST_MAX_MS = 60_000


class Health:
    """The lanes of one process; a lane nobody has reported on is well."""

    def __init__(self, clock: Clock, threshold: int = 3, probe_after_ms: int = 5000) -> None:
        if threshold < 1:
            raise ValueError(f"a health threshold is at least 1, not {threshold}")
        self._clock = clock
        self.threshold = threshold
        self.probe_after_ms = probe_after_ms
        self._lanes: dict[str, _Lane] = {}
        self.quiet: set[str] = set()
        """Lanes reported on that have nothing against them: to `admit`, `success` and `forgo` they are all the same."""

    def success(self, lane: str, started_ms: float = 0) -> None:
        """One good answer ends the streak, and a pause that was asked for before its attempt started; the lane stays listed.

        A straggler knows nothing of a pause that was asked for while it ran.
        """
        state = self._lanes.get(lane)
        if state is None:
            self._lanes[lane] = _Lane()
            self.quiet.add(lane)
        elif state.streak or state.resting_until_ms:
            kept = started_ms < state.rest_asked_ms
            self._lanes[lane] = (
                _Lane(resting_until_ms=state.resting_until_ms, rest_asked_ms=state.rest_asked_ms) if kept else _Lane()
            )
            if not kept:
                self.quiet.add(lane)

    def failure(self, lane: str) -> None:
        """One more in the streak; at the threshold, and at every failed probe, the cool-down starts anew."""
        self.quiet.discard(lane)
        state = self._lanes.setdefault(lane, _Lane())
        state.streak += 1
        state.probing = False
        if state.streak >= self.threshold:
            state.degraded_at_ms = self._clock.monotonic_ms()

    def rest(self, lane: str, ms: int) -> None:
        """The provider asked for a pause; what it asks for is honoured up to a minute. A probe has its answer so."""
        self.quiet.discard(lane)
        state = self._lanes.setdefault(lane, _Lane())
        state.probing = False
        state.rest_asked_ms = self._clock.monotonic_ms()
        until = state.rest_asked_ms + min(max(ms, 0), REST_MAX_MS)
        state.resting_until_ms = max(state.resting_until_ms, until)

    def state(self, lane: str) -> LaneState:
        """`degraded` while the streak or a pause holds, but for the moment in which a probe may be taken."""
        state = self._lanes.get(lane)
        if state is None:
            return "ok"
        if self._resting(state):
            return "degraded"
        return "ok" if state.degraded_at_ms is None or self._probe_due(state) else "degraded"

    def admit(self, lane: str) -> bool:
        """Whether an attempt may start on the lane now; on a degraded one this takes the single probe."""
        state = self._lanes.get(lane)
        if state is None or (state.degraded_at_ms is None and not state.resting_until_ms):
            return True  # nearly always, and without asking a clock
        if self._resting(state):
            return False
        if state.degraded_at_ms is None:
            return True
        if not self._probe_due(state):
            return False
        state.probing = True
        return True

    def forgo(self, lane: str) -> None:
        """A probe that ended without a word about the lane (its caller left) lets the next one try."""
        state = self._lanes.get(lane)
        if state is not None:
            state.probing = False

    def snapshot(self) -> dict[str, LaneState]:
        """Every lane reported on, recovered ones included."""
        return {lane: self.state(lane) for lane in self._lanes}

    @property
    def troubled(self) -> dict[str, LaneState]:
        """Only the lanes that are not well now; most of the time there are none."""
        return {
            lane: "degraded"
            for lane, state in self._lanes.items()
            if (state.degraded_at_ms is not None or state.resting_until_ms) and self.state(lane) != "ok"
        }

    def _resting(self, state: _Lane) -> bool:
        return state.resting_until_ms > self._clock.monotonic_ms()

    def _probe_due(self, state: _Lane) -> bool:
        assert state.degraded_at_ms is not None
        return not state.probing and self._clock.monotonic_ms() - state.degraded_at_ms >= self.probe_after_ms
