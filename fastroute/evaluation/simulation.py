"""Requests of the past decided anew under another policy: what they would have cost, how long they would have taken.

The decision is the gateway's own, over the same packed catalog. Costs are the recorded tokens at the other model's
price; a latency is the other model's at the place that the recorded one has among its own model's.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, get_args

from msgspec import Struct

from fastroute import settle
from fastroute.domain import EXCLUSIONS, Descriptor, Entry, ExpectedTokens, LatencyFact, Snapshot
from fastroute.evaluation.past import Past, Recorded, Skipped, Step
from fastroute.lanes.latency import quantile
from fastroute.routing.chat import Facts, facts_of_descriptor
from fastroute.routing.directory import Target
from fastroute.routing.placement import Decision, Repeated, decide
from fastroute.routing.rankers import Pinned, Tiers
from fastroute.routing.tiers import KEYWORDS, Thresholds, TierReason
from fastroute.ruling import Rules

CEILING: Final = "cost_ceiling"
_TIER_REASONS: Final[frozenset[str]] = frozenset(get_args(TierReason))


class Times(Struct, frozen=True):
    """Milliseconds of those requests whose latency is known on both sides."""

    mean_ms: int
    p50_ms: int
    p95_ms: int


class Steps(Struct, frozen=True):
    """What became of the decisions that were asked for by a descriptor."""

    decided: int
    placed_before: int
    placed: int
    moved: int  # placed both times, on another model


class Simulation(Struct, frozen=True):
    """What a policy would have done with the requests that were recorded; money in picodollars."""

    policy: str
    requests: int
    decided: int
    skipped: dict[Skipped, int]
    refused_before: int
    refused: dict[str, int]  # by what was in the way; one request may be counted under several
    refusals: int
    moved: int
    named: int  # had asked for one model by its name
    cost_recorded: int
    cost_projected: int
    cost_compared: int  # requests in the two sums
    cost_unknown: int
    discarded: int  # billed for attempts whose answer nobody read; in neither sum
    latency_recorded: Times | None
    latency_projected: Times | None
    latency_compared: int
    latency_unknown: int
    models_recorded: dict[str, int]
    models_projected: dict[str, int]
    steps: Steps
    decision_ns: int  # of CPU: what else runs on the machine is no part of it

    @property
    def decisions(self) -> int:
        return self.decided + self.steps.decided

    @property
    def decisions_per_second(self) -> int:
        return self.decisions * 1_000_000_000 // max(self.decision_ns, 1)


class Outcome(Struct, frozen=True, gc=False):
    """One request decided anew: the entry that would have been asked first, or what was in the way of all."""

    entry: Entry | None
    refused: tuple[str, ...] = ()


Decide = Callable[[Past], Outcome]


def simulate(name: str, target: Target, recorded: Recorded) -> Simulation:
    """Decide everything recorded anew, and add up what changes."""
    measured = measured_latencies(recorded.requests)
    latency = {entry: LatencyFact(quantile(ms, 50), quantile(ms, 95), len(ms)) for entry, ms in measured.items()}
    decider = deciding(target, latency)
    began = time.process_time_ns()
    outcomes = [decider(past) for past in recorded.requests]
    steps = _steps(target, latency, recorded.steps)
    decision_ns = time.process_time_ns() - began
    sums = _Sums(measured)
    for past, outcome in zip(recorded.requests, outcomes, strict=True):
        sums.add(past, outcome)
    return Simulation(
        policy=name,
        requests=len(recorded.requests) + sum(recorded.skipped.values()),
        decided=len(outcomes),
        skipped=recorded.skipped,
        refused_before=recorded.refused,
        refused=dict(sums.refused.most_common()),
        refusals=sums.refusals,
        moved=sums.moved,
        named=sum(past.reason == "manual_override" for past in recorded.requests),
        cost_recorded=sums.cost_before,
        cost_projected=sums.cost_after,
        cost_compared=sums.cost_known,
        cost_unknown=len(outcomes) - sums.refusals - sums.cost_known,
        discarded=sum(past.discarded_picodollars for past in recorded.requests),
        latency_recorded=_times(sums.ms_before),
        latency_projected=_times(sums.ms_after),
        latency_compared=len(sums.ms_after),
        latency_unknown=len(outcomes) - sums.refusals - len(sums.ms_after),
        models_recorded=dict(Counter(past.entry for past in recorded.requests).most_common()),
        models_projected=dict(sums.models.most_common()),
        steps=steps,
        decision_ns=decision_ns,
    )


def deciding(target: Target, latency: Mapping[str, LatencyFact]) -> Decide:
    """How one recorded request is decided under this target: as the gateway would, with what is known of it."""
    catalog, route = target.catalog, target.route
    rules = target.rules if isinstance(target.rules, Rules) else None
    facts_of = _facts_of(target)
    output = None if rules is None else rules.policy.max_tokens_of_call
    most = None if rules is None else rules.policy.objectives.max_cost_microdollars
    entries = catalog.entries
    repeated = Repeated(catalog, Snapshot(latency=dict(latency)), route, 1 if most is None else max(len(entries), 1))

    def decide_one(past: Past) -> Outcome:
        used = past.usage.input_total
        expected = None if output is None else ExpectedTokens(used, output)
        descriptor = Descriptor("chat", None, None, expected, past.capabilities)
        decision = repeated.decide(descriptor, facts_of(past))
        if not decision.order:
            return Outcome(None, refusals_of(decision))
        if most is None:
            return Outcome(entries[decision.order[0]])
        for row in decision.order:
            entry = entries[row]
            cost = settle.bound(entry.price, used, output, entry.max_output)
            if cost is None or cost <= most:
                return Outcome(entry)
        return Outcome(None, (CEILING,))

    return decide_one


def refusals_of(decision: Decision) -> tuple[str, ...]:
    """The classes of exclusion that left nobody; of those that the route leaves out anyway nothing is said."""
    told = dict.fromkeys(EXCLUSIONS[code - 1] for code in decision.codes)
    return tuple(name for name in told if name != "policy") or tuple(told)


def measured_latencies(requests: Iterable[Past]) -> dict[str, list[int]]:
    """The milliseconds of each entry's answers, ascending."""
    found: dict[str, list[int]] = {}
    for past in requests:
        found.setdefault(past.entry, []).append(past.ms)
    return {entry: sorted(ms) for entry, ms in found.items()}


def projected_ms(past: Past, entry: Entry, measured: Mapping[str, Sequence[int]]) -> int | None:
    """How long another entry would have taken: its own answers at the same quantile, else what the catalog says of it."""
    if entry.id == past.entry:
        return past.ms
    theirs = measured.get(entry.id)
    if not theirs:
        return entry.p50_latency_ms
    own = measured[past.entry]
    # Between the ends: the slowest of few is the slowest of many.
    return theirs[bisect_left(own, past.ms) * (len(theirs) - 1) // max(len(own) - 1, 1)]


class _Sums:
    """What adds up over requests."""

    def __init__(self, measured: Mapping[str, Sequence[int]]) -> None:
        self._measured = measured
        self.refused: Counter[str] = Counter()
        self.models: Counter[str] = Counter()
        self.refusals = self.moved = 0
        self.cost_before = self.cost_after = self.cost_known = 0
        self.ms_before: list[int] = []
        self.ms_after: list[int] = []

    def add(self, past: Past, outcome: Outcome) -> None:
        entry = outcome.entry
        if entry is None:
            self.refusals += 1
            self.refused.update(outcome.refused)
            return
        self.models[entry.id] += 1
        stays = entry.id == past.entry
        self.moved += not stays
        cost = past.picodollars if stays else settle.exact(entry.price, past.usage).picodollars
        if cost is not None and past.picodollars is not None:
            self.cost_known += 1
            self.cost_before += past.picodollars
            self.cost_after += cost
        ms = projected_ms(past, entry, self._measured)
        if ms is not None:
            self.ms_before.append(past.ms)
            self.ms_after.append(ms)


def _times(ms: list[int]) -> Times | None:
    if not ms:
        return None
    ms = sorted(ms)
    return Times(sum(ms) // len(ms), quantile(ms, 50), quantile(ms, 95))


def _facts_of(target: Target) -> Callable[[Past], Facts]:
    """What the route's rules are shown. A rule of `auto` that spoke is taken at its word, since what it saw is not kept."""
    ranker = target.route.ranker
    if isinstance(ranker, Pinned):
        return lambda past: _NOTHING
    told = _told(ranker.thresholds) if isinstance(ranker, Tiers) else {}

    def of(past: Past) -> Facts:
        facts = told.get(past.reason)
        if facts is not None:
            return facts
        if told and past.reason == "fallback" and isinstance(ranker, Tiers) and past.first == ranker.small:
            return told["default_small"]
        tokens = past.usage.input_total
        return Facts(characters=4 * tokens, estimated_tokens=tokens)

    return of


_NOTHING: Final = Facts()


def _told(thresholds: Thresholds) -> dict[str, Facts]:
    """The least a request must have been for each rule of `auto` to speak."""
    facts = {
        "function_calling": Facts(has_tools=True),
        "json_mode": Facts(wants_json=True),
        "heuristic_conversation": Facts(messages=thresholds.conversation + 1),
        "heuristic_tokens": Facts(estimated_tokens=thresholds.tokens + 1),
        "heuristic_keyword": Facts(text=KEYWORDS[0]),
        "heuristic_length": Facts(characters=thresholds.length + 1),
        "default_small": Facts(),
    }
    assert facts.keys() == _TIER_REASONS
    return facts


def _steps(target: Target, latency: Mapping[str, LatencyFact], steps: Sequence[Step]) -> Steps:
    placed_before = placed = moved = 0
    for step in steps:
        lanes: Any = dict.fromkeys(step.degraded, "degraded")
        snapshot = Snapshot(lanes=lanes, latency=dict(latency))
        facts = facts_of_descriptor(step.descriptor)
        decision = decide(step.descriptor, target.catalog, snapshot, target.route, facts, keep=1)
        placed_before += step.model is not None
        if decision.order:
            placed += 1
            moved += step.model is not None and str(target.catalog.entries[decision.order[0]].ref) != step.model
    return Steps(len(steps), placed_before, placed, moved)
