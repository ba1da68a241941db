"""What was measured, as it is written to the JSON file, and its medians and spreads as every page tells them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Sequence

import msgspec

from fastroute.bench.load import Told
from fastroute.bench.machine import Machine
from fastroute.bench.traffic import Pace

# Other work on the machine, in cores, beyond which a page warns at its head; so does a spread beyond this share.
NOISY_CORES = 0.15
NOISY_SPREAD = 0.25


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of load. Without a rate it is a closed loop."""

    name: str
    size: int = 500
    connections: int = 32
    rate: float = 0
    seconds: float
    stream: bool = False
    pace: Pace | None = None

    @property
    def title(self) -> str:
        if self.pace:
            return f"streams of {self.pace.events} events each {self.pace.every_us / 1000:g} ms, {self.rate:g} begun a second"
        what = "bursts of 23 events" if self.stream else f"JSON, {self.size / 1000:g} KB"
        how = f"{self.rate:g} a second" if self.rate else f"{self.connections} connections"
        return f"{what}, {how}"


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One subject under one phase in one round."""

    subject: str
    phase: str
    round: int
    told: Told
    worker_ns: int | None = None
    """CPU of the busiest process of the tree; None when the tree is not seen."""
    tree_ns: int | None = None
    pss_kib: int | None = None
    provider_ns: int = 0
    other_cores: float = 0.0
    """What everybody else took of the machine meanwhile."""

    @property
    def seconds(self) -> float:
        return self.told.window_ns / 1e9

    @property
    def per_second(self) -> float:
        return self.told.done / self.seconds

    @property
    def events_per_second(self) -> float:
        return self.told.events / self.seconds

    @property
    def worker_us(self) -> float | None:
        return _share(self.worker_ns, self.told.done)

    @property
    def tree_us(self) -> float | None:
        return _share(self.tree_ns, self.told.done)

    @property
    def beside_us(self) -> float | None:
        if self.worker_ns is None or self.tree_ns is None:
            return None
        return _share(self.tree_ns - self.worker_ns, self.told.done)

    @property
    def event_us(self) -> float | None:
        return _share(self.tree_ns, self.told.events)

    @property
    def core(self) -> float | None:
        """How much of a core the tree took."""
        return None if self.tree_ns is None else self.tree_ns / self.told.window_ns

    @property
    def rest_core(self) -> float:
        """How full the core of provider and load was: near 1 they hold the gateway back."""
        return (self.provider_ns + self.told.own_ns) / self.told.window_ns


def _share(ns: int | None, parts: int) -> float | None:
    return None if ns is None or not parts else ns / 1000 / parts


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What a page says of a subject."""

    name: str
    version: str
    settings: str
    ready_s: float | None = None
    idle_pss_kib: int | None = None


class Spread(msgspec.Struct, frozen=True):
    """A median with the least and the most of its rounds."""

    middle: float
    least: float
    most: float

    @property
    def width(self) -> float:
        return (self.most - self.least) / self.middle if self.middle else 0.0


class Results(msgspec.Struct, kw_only=True):
    """A whole run."""

    kind: str
    fastroute: str
    date: str
    machine: Machine
    shared_core: bool
    rounds: int
    phases: list[Phase]
    subjects: list[About]
    samples: list[Sample]
    missing: dict[str, str] = {}
    """Who was to be measured and could not, and why."""

    def of(self, subject: str, phase: str) -> list[Sample]:
        return [each for each in self.samples if each.subject == subject and each.phase == phase]

    def spread(self, subject: str, phase: str, value: Callable[[Sample], float | None]) -> Spread | None:
        """Over the rounds; None when nobody can say."""
        found = [told for each in self.of(subject, phase) if (told := value(each)) is not None]
        return Spread(statistics.median(found), min(found), max(found)) if found else None

    def added_ms(self, subject: str, phase: str, per_mille: int, which: str = "latency") -> Spread | None:
        """How much later than direct, each round compared with the direct one of the same round."""
        direct = {each.round: each for each in self.of("direct", phase)}

        def more(each: Sample) -> float | None:
            if each.round not in direct:
                return None
            own = getattr(each.told, which).quantile_ms(per_mille)
            base = getattr(direct[each.round].told, which).quantile_ms(per_mille)
            return None if own is None or base is None else own - base

        return self.spread(subject, phase, more)

    def failures(self, subject: str, phase: str) -> dict[str, int]:
        found: dict[str, int] = {}
        for each in self.of(subject, phase):
            for name, count in each.told.failures.items():
                found[name] = found.get(name, 0) + count
        return found

    def noise(self) -> list[str]:
        """Why these figures should be read with care; empty on a quiet machine."""
        found = []
        others = [each.other_cores for each in self.samples]
        if others and statistics.median(others) > NOISY_CORES:
            found.append(
                f"other work took {statistics.median(others):.2f} cores at the median and {max(others):.2f} at the most"
            )
        wide = self._widest()
        if wide and wide[0] > NOISY_SPREAD:
            found.append(f"CPU per request differed by {wide[0]:.0%} between rounds ({wide[1]}, {wide[2]})")
        if self.shared_core:
            found.append("there is one core only: gateway, provider and load share it, and throughput says little")
        return found

    def _widest(self) -> tuple[float, str, str] | None:
        found = [
            (spread.width, about.name, phase.name)
            for about in self.subjects
            for phase in self.phases
            if not phase.rate and (spread := self.spread(about.name, phase.name, lambda each: each.worker_us))
        ]
        return max(found, default=None)


def sequence(
    rounds: int, subjects: Sequence[str], phases: Sequence[Phase], json_only: Collection[str] = ()
) -> list[tuple[int, str, str]]:
    """The order of a run: within a phase everybody has a turn before anybody has the next, in an order that turns too."""
    found = []
    for number in range(rounds):
        turn = list(subjects) if number % 2 == 0 else list(reversed(subjects))
        for phase in phases:
            found += [(number, phase.name, each) for each in turn if not (phase.stream and each in json_only)]
    return found
