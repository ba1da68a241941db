"""What a replay measured, weighed: each alternative beside the recorded route, and the policy that follows from it.

Pure. Latencies are medians, costs and qualities means, and an alternative is compared on the requests that it answered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from fastroute.judging import ranked
from fastroute.policies import Policy

# What it takes to change a policy's first model: so many requests answered, none failed, judged no worse, and this much
# faster without being dearer. Anything less only sorts the backups.
CLEARLY_RUNS: Final = 10
CLEARLY_PERCENT: Final = 70
# A quality so much below the recorded one puts a backup behind those that are as good.
CLEARLY_WORSE: Final = 200


class Measured(Struct, frozen=True):
    """One request as one model answered it; `quality` is in thousandths, None where nobody judged."""

    latency_ms: int
    picodollars: int | None
    quality: int | None = None


class Pair(Struct, frozen=True):
    """One request on one alternative: how it was recorded, and how it went; None when it was not answered."""

    recorded: Measured
    outcome: str
    found: Measured | None = None


class Line(Struct, frozen=True):
    """One row of the table; differences are to what was recorded of the same requests."""

    model: str
    runs: int
    answered: int
    failures: dict[str, int]
    latency_ms: int | None = None
    latency_delta_ms: int | None = None
    cost_picodollars: int | None = None
    cost_delta_picodollars: int | None = None
    quality: int | None = None
    quality_delta: int | None = None
    score: int | None = None  # 0.6 of the latency and 0.4 of the cost beside the largest; the least is the best


def weigh(recorded: Sequence[Measured], alternatives: dict[str, list[Pair]]) -> tuple[Line, list[Line]]:
    """The recorded route, then the alternatives, the best first: by quality where that was judged, then by score."""
    plain = _line("recorded", len(recorded), {}, recorded, recorded)
    lines = []
    for model, pairs in alternatives.items():
        good = [(pair.recorded, pair.found) for pair in pairs if pair.found is not None]
        failures = Counter(pair.outcome for pair in pairs if pair.found is None)
        lines.append(_line(model, len(pairs), dict(failures), [each for each, _ in good], [each for _, each in good]))
    plain, *lines = _scored([plain, *lines])
    return plain, sorted(lines, key=_order)


def _order(line: Line) -> tuple[bool, int, bool, int]:
    return (
        line.latency_ms is None,
        -(line.quality or 0),
        line.score is None,
        line.latency_ms or 0 if line.score is None else line.score,
    )


def _line(
    model: str, runs: int, failures: dict[str, int], before: Sequence[Measured], after: Sequence[Measured]
) -> Line:
    if not after:
        return Line(model, runs, 0, failures)
    latency, cost, quality = _median(after), _cost(after), _quality(after)
    cost_before, quality_before = _cost(before), _quality(before)
    return Line(
        model,
        runs,
        len(after),
        failures,
        latency,
        latency - _median(before),
        cost,
        None if cost is None or cost_before is None else cost - cost_before,
        quality,
        None if quality is None or quality_before is None else quality - quality_before,
    )


def _scored(lines: list[Line]) -> list[Line]:
    """Their scores beside one another; those of unknown cost have none."""
    known = {
        place: (line.latency_ms, line.cost_picodollars)
        for place, line in enumerate(lines)
        if line.latency_ms is not None and line.cost_picodollars is not None
    }
    scores = dict(zip(known, ranked(list(known.values())), strict=True))
    return [replace(line, score=scores.get(place)) for place, line in enumerate(lines)]


def _median(found: Sequence[Measured]) -> int:
    ordered = sorted(each.latency_ms for each in found)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) // 2


def _cost(found: Sequence[Measured]) -> int | None:
    costs = [each.picodollars for each in found if each.picodollars is not None]
    return sum(costs) // len(costs) if len(costs) == len(found) else None


def _quality(found: Sequence[Measured]) -> int | None:
    """Of those that were judged."""
    judged = [each.quality for each in found if each.quality is not None]
    return sum(judged) // len(judged) if judged else None


def patched(policy: Policy, recorded: Line, lines: Sequence[Line]) -> Policy:
    """The policy with its backups as they were measured: the fastest first, those that are clearly worse behind them.

    The first model stays, unless one is clearly better. What failed in more than half of its runs is not taken in, and
    stands last if it was there already; what was not measured keeps its place behind what was.
    """
    primary = policy.routing.primary
    measured = {line.model: line for line in lines if line.model not in primary}
    good = [line for line in measured.values() if 2 * line.answered > line.runs]
    good.sort(key=lambda line: ((line.quality_delta or 0) <= -CLEARLY_WORSE, line.latency_ms or 0))
    rest = [model for model in policy.routing.backups if model not in measured]
    broken = [
        model
        for model in policy.routing.backups
        if model in measured and 2 * measured[model].answered <= measured[model].runs
    ]
    backups = [line.model for line in good] + rest + broken
    leader = next((line for line in good if _clearly_better(line, recorded)), None)
    if leader is not None:
        backups = [*primary, *(model for model in backups if model != leader.model)]
        primary = (leader.model,)
    routing = replace(policy.routing, primary=primary, backups=tuple(backups))
    if routing == policy.routing:
        return policy
    return replace(policy, routing=routing, version=None if policy.version is None else policy.version + 1)


def _clearly_better(line: Line, recorded: Line) -> bool:
    return (
        line.answered == line.runs >= CLEARLY_RUNS
        and line.quality_delta is not None
        and line.quality_delta >= 0
        and line.cost_delta_picodollars is not None
        and line.cost_delta_picodollars <= 0
        and line.latency_ms is not None
        and recorded.latency_ms is not None
        and 100 * line.latency_ms <= CLEARLY_PERCENT * recorded.latency_ms
    )
