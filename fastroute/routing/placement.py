"""Where a request runs: `place()` filters, ranks and explains, from nothing but what it is handed.

The same inputs give the same answer in a library, in the terminal and behind the gateway. The decision is taken in the
compiled core; what stands here puts it into words.
"""

from __future__ import annotations

import array
from typing import Any

from msgspec import Struct

from fastroute import _core
from fastroute.domain import EXCLUSIONS, Descriptor, Entry, NoCandidate, Placement, Snapshot, Verdict
from fastroute.routing.catalog import CAPABILITY_BITS, RUNTIME_INDEX, Catalog
from fastroute.routing.chat import Facts, facts_of_descriptor
from fastroute.routing.rankers import Cheapest, Ordered, Ranker, Ranking, Tiers, Weighted


class Route(Struct, frozen=True):
    """The name a caller uses: how its candidates rank and which of them it allows.

    A model without a price may run where the operator allows it, or where it was named and nothing limits its cost.
    `allowed_models` holds `provider:model` or entry ids; empty is no limit.
    """

    name: str
    ranker: Ranker
    allowed_models: tuple[str, ...] = ()
    allow_unpriced: bool = False
    names_models: bool = False  # somebody wrote down just these models, which is consent while no ceiling is set


CHEAPEST = Route("cheapest", Cheapest())


class Decision(Struct, frozen=True):
    """A decision as the core gives it: rows by rank, and a code for every row."""

    order: tuple[int, ...]
    codes: bytes
    ranking: Ranking


def ceiling_of(descriptor: Descriptor, snapshot: Snapshot) -> int | None:
    """The most this request may cost: the lower of its own ceiling and what its parent has left; None is no limit."""
    own, parent = descriptor.budget_ceiling_microdollars, snapshot.parent_remaining_microdollars
    if own is None or parent is None:
        return parent if own is None else own
    return min(own, parent)


def decide(
    descriptor: Descriptor,
    catalog: Catalog,
    snapshot: Snapshot,
    route: Route,
    facts: Facts | None = None,
    *,
    keep: int = 4,
) -> Decision:
    """The decision without its words, which is all that a relay needs."""
    facts = facts_of_descriptor(descriptor) if facts is None else facts
    ranking = route.ranker.ranking(catalog, descriptor, facts, snapshot)
    allowed = _allowed(route, catalog, ranking.places)
    health, p50_ms = catalog.health(snapshot.lanes), _latencies(catalog, snapshot)
    return _decided(descriptor, catalog, snapshot, route, ranking, allowed, health, p50_ms, keep)


class Repeated:
    """Many decisions under one route with one snapshot: what does not change between them is prepared once."""

    def __init__(self, catalog: Catalog, snapshot: Snapshot, route: Route, keep: int = 4) -> None:
        self._catalog = catalog
        self._snapshot = snapshot
        self._route = route
        self._keep = keep
        self._health, self._p50_ms = catalog.health(snapshot.lanes), _latencies(catalog, snapshot)
        self._ranked: dict[Facts | bool, tuple[Ranking, bytes | None]] = {}

    def decide(self, descriptor: Descriptor, facts: Facts) -> Decision:
        """What `decide` would say."""
        ranker = self._route.ranker
        # All that the ranking looks at beside the snapshot; of a weighted one it is too much to be met twice.
        key = facts if isinstance(ranker, Tiers) else descriptor.expected_tokens is None
        known = None if isinstance(ranker, Weighted) else self._ranked.get(key)
        if known is None:
            ranking = ranker.ranking(self._catalog, descriptor, facts, self._snapshot)
            known = self._ranked[key] = (ranking, _allowed(self._route, self._catalog, ranking.places))
        return _decided(
            descriptor, self._catalog, self._snapshot, self._route, *known, self._health, self._p50_ms, self._keep
        )


def _decided(
    descriptor: Descriptor,
    catalog: Catalog,
    snapshot: Snapshot,
    route: Route,
    ranking: Ranking,
    allowed: bytes | None,
    health: bytes | None,
    p50_ms: memoryview | None,
    keep: int,
) -> Decision:
    expected = descriptor.expected_tokens
    ceiling = ceiling_of(descriptor, snapshot)
    needs = 0
    for name in descriptor.capabilities:
        needs |= CAPABILITY_BITS[name]
    tolerance = descriptor.latency_tolerance_ms
    order, codes = catalog.table.decide(
        ranking.mode,
        capabilities=needs,
        runtime=RUNTIME_INDEX.get(descriptor.runtime_preference, _core.UNKNOWN),
        ceiling=_core.UNKNOWN if ceiling is None else max(ceiling, 0),
        input_tokens=_core.UNKNOWN if expected is None else expected.input,
        output_tokens=_core.UNKNOWN if expected is None else expected.output,
        tolerance_ms=_core.UNKNOWN if tolerance is None else tolerance,
        allowed=allowed,
        health=health,
        p50_ms=p50_ms,
        allow_unpriced=route.allow_unpriced or (route.names_models and ceiling is None),
        keep=keep,
        cost_weight=ranking.cost_weight,
        latency_weight=ranking.latency_weight,
        flat_cost=ranking.flat_cost,
        local_first=ranking.local_first,
    )
    return Decision(order, codes, ranking)


def place(
    descriptor: Descriptor,
    catalog: Catalog,
    snapshot: Snapshot = Snapshot(),  # noqa: B008  # frozen, so one for all is the same as one for each
    route: Route = CHEAPEST,
    facts: Facts | None = None,
) -> Placement | NoCandidate:
    """Where the request runs and a verdict on every entry, in catalog order; pure."""
    decision = decide(descriptor, catalog, snapshot, route, facts, keep=max(len(catalog), 1))
    chosen = decision.order[0] if decision.order else None
    verdicts = tuple(
        _verdict(descriptor, catalog, snapshot, row, code, row == chosen) for row, code in enumerate(decision.codes)
    )
    if chosen is None:
        classes = dict.fromkeys(EXCLUSIONS[code - 1] for code in decision.codes)
        return NoCandidate(tuple(classes), verdicts)
    entry = catalog.entries[chosen]
    return Placement(
        id=entry.id,
        lane=entry.lane,
        model=str(entry.ref),
        runtime=entry.runtime,
        cost_microdollars_max=projected_microdollars(descriptor, catalog, chosen),
        reasons=reasons_of(decision, entry, route),
        candidates=verdicts,
        order=tuple(catalog.entries[row].id for row in decision.order),
    )


def reasons_of(decision: Decision, chosen: Entry, route: Route) -> tuple[str, ...]:
    """Why the chosen one; a route whose first choice was filtered out says that a backup runs."""
    ranker = route.ranker
    first = None
    if isinstance(ranker, Ordered) and decision.ranking.reasons == ("route_primary",):
        first = ranker.order[0]
    elif isinstance(ranker, Tiers) and decision.ranking.reasons == ("default_small",):
        first = ranker.small
    return decision.ranking.reasons if first in (None, chosen.id) else ("route_backup",)


def projected_microdollars(descriptor: Descriptor, catalog: Catalog, row: int) -> int | None:
    """What the expected tokens cost on one entry, rounded up; None when tokens or price are not known."""
    expected = descriptor.expected_tokens
    if expected is None:
        return None
    cost = catalog.table.cost(row, expected.input, expected.output)
    return None if cost == _core.UNKNOWN else _core.ceil_microdollars(cost)


def _allowed(route: Route, catalog: Catalog, places: bytes | None) -> bytes | None:
    if not route.allowed_models:
        return places
    allowed = set(route.allowed_models)
    places = places or b"\x01" * len(catalog)
    return bytes(
        place if entry.id in allowed or str(entry.ref) in allowed else 0
        for entry, place in zip(catalog.entries, places, strict=True)
    )


def _latencies(catalog: Catalog, snapshot: Snapshot) -> memoryview | None:
    if not snapshot.latency:
        return None
    return memoryview(array.array("q", [_p50(entry, snapshot) for entry in catalog.entries]))


def _p50(entry: Entry, snapshot: Snapshot) -> int:
    fact = snapshot.latency.get(entry.id)
    known = entry.p50_latency_ms if fact is None or fact.p50_ms is None else fact.p50_ms
    return _core.UNKNOWN if known is None else known


def _verdict(
    descriptor: Descriptor, catalog: Catalog, snapshot: Snapshot, row: int, code: int, chosen: bool
) -> Verdict:
    entry = catalog.entries[row]
    if code == 0:
        return Verdict(entry.id, "chosen" if chosen else "ranked")
    reason = EXCLUSIONS[code - 1]
    detail: Any
    match reason:
        case "capability":
            detail = [name for name in descriptor.capabilities if name not in entry.capabilities]
        case "policy":
            detail = "model_not_allowed"
        case "runtime":
            detail = descriptor.runtime_preference
        case "health":
            detail = snapshot.lanes[entry.lane]
        case "latency":
            detail = _p50(entry, snapshot)
        case "cost":
            detail = {
                "projected": projected_microdollars(descriptor, catalog, row),
                "cap": ceiling_of(descriptor, snapshot),
            }
        case "unpriced":
            detail = {"model": str(entry.ref)}
        case "context":
            expected = descriptor.expected_tokens
            detail = {"input": expected.input if expected else None, "window": entry.context_window}
    return Verdict(entry.id, "excluded", reason, detail)
