"""The ways a route ranks its candidates. Each turns into one `Ranking`, and the core does the rest.

The filters before and the verdict table after are the same for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from fastroute import _core
from fastroute.domain import Descriptor, Snapshot
from fastroute.errors import CatalogError
from fastroute.routing import tiers
from fastroute.routing.catalog import Catalog
from fastroute.routing.chat import Facts

Reason = Literal[
    "capability_match",
    "cheapest_viable",
    "cheapest_by_rate",
    "weighted_score",
    "cost_threshold",
    "route_primary",
    "route_backup",
    "p95_prepick",
    "manual_override",
    "prefer_cost",
    "prefer_latency",
    tiers.TierReason,
]

PREPICK_SAMPLES = 10


class Ranking(Struct, frozen=True):
    """What the core is told: who may run, by which key, and the reason if the first choice wins."""

    mode: int
    reasons: tuple[Reason, ...]
    places: bytes | None = None  # a byte a candidate: 0 may not run, else its place in the route
    cost_weight: int = 1000
    latency_weight: int = 1000
    flat_cost: int = _core.UNKNOWN
    local_first: bool = False


class Cheapest(Struct, frozen=True):
    """By projected cost, then latency, then priority; by input rate when no tokens are expected."""

    def ranking(self, catalog: Catalog, descriptor: Descriptor, facts: Facts, snapshot: Snapshot) -> Ranking:
        by_rate = descriptor.expected_tokens is None
        return Ranking(_core.RANK_CHEAPEST, ("capability_match", "cheapest_by_rate" if by_rate else "cheapest_viable"))


class Weighted(Struct, frozen=True):
    """By weighted latency and cost, in which a local model costs nothing; weights are thousandths.

    Cost is the prompt's characters, as it always was, or microdollars once `cost_threshold_microdollars` is set. Above
    the threshold a local model goes first whatever the latencies say.
    """

    cost_weight: int = 1000
    latency_weight: int = 1000
    cost_threshold: int | None = 1000
    cost_threshold_microdollars: int | None = None

    def ranking(self, catalog: Catalog, descriptor: Descriptor, facts: Facts, snapshot: Snapshot) -> Ranking:
        if self.cost_threshold_microdollars is None:
            flat_cost = facts.characters
            local_first = self.cost_threshold is not None and flat_cost > self.cost_threshold
        else:
            flat_cost = _core.UNKNOWN
            local_first = self._cheapest_managed(catalog, descriptor) > self.cost_threshold_microdollars
        return Ranking(
            _core.RANK_WEIGHTED,
            ("capability_match", "cost_threshold" if local_first else "weighted_score"),
            cost_weight=self.cost_weight,
            latency_weight=self.latency_weight,
            flat_cost=flat_cost,
            local_first=local_first,
        )

    def _cheapest_managed(self, catalog: Catalog, descriptor: Descriptor) -> int:
        """What the request costs where it is cheapest to buy: above the threshold, every managed model is too dear."""
        expected = descriptor.expected_tokens
        if expected is None:
            return 0
        costs = [
            _core.ceil_microdollars(cost)
            for row, entry in enumerate(catalog.entries)
            if entry.runtime == "managed"
            and (cost := catalog.table.cost(row, expected.input, expected.output)) != _core.UNKNOWN
        ]
        return min(costs, default=0)


class Tiers(Struct, frozen=True):
    """`auto`: the small model or the medium one by rule; a small one that fails may fall to medium, never back."""

    small: str
    medium: str
    thresholds: tiers.Thresholds = tiers.Thresholds()

    @property
    def words(self) -> dict[str, str]:
        """What callers and counters call each of the two, by its id."""
        return {self.small: "small", self.medium: "medium"}

    def ranking(self, catalog: Catalog, descriptor: Descriptor, facts: Facts, snapshot: Snapshot) -> Ranking:
        tier, reason = tiers.choose(facts, self.thresholds)
        order = (self.small, self.medium) if tier == "small" else (self.medium,)
        return Ranking(_core.RANK_ORDERED, (reason,), places_of(catalog, order))


class Ordered(Struct, frozen=True):
    """The order the route states, unless its first has lately been slower than the target and a backup is known."""

    order: tuple[str, ...]
    target_p95_ms: int | None = None

    def ranking(self, catalog: Catalog, descriptor: Descriptor, facts: Facts, snapshot: Snapshot) -> Ranking:
        order = self.order
        reason: Reason = "route_primary"
        faster = self._prepick(snapshot)
        if faster is not None:
            order = (faster, *(entry_id for entry_id in order if entry_id != faster))
            reason = "p95_prepick"
        return Ranking(_core.RANK_ORDERED, (reason,), places_of(catalog, order))

    def _prepick(self, snapshot: Snapshot) -> str | None:
        if self.target_p95_ms is None or not self.order:
            return None
        primary = snapshot.latency.get(self.order[0])
        if primary is None or primary.p95_ms is None or primary.samples < PREPICK_SAMPLES:
            return None
        if primary.p95_ms <= self.target_p95_ms:
            return None
        known = [
            (fact.p95_ms, place, entry_id)
            for place, entry_id in enumerate(self.order[1:])
            if (fact := snapshot.latency.get(entry_id)) is not None and fact.p95_ms is not None
        ]
        return min(known)[2] if known else None


class Preferring(Struct, frozen=True):
    """By price alone, or by what the attempts of late took: what a policy or a caller's key prefers.

    A model that was never measured goes before those that were, so that it is.
    """

    prefer: Literal["cost", "latency"]

    def ranking(self, catalog: Catalog, descriptor: Descriptor, facts: Facts, snapshot: Snapshot) -> Ranking:
        if self.prefer == "cost":
            return Ranking(_core.RANK_CHEAPEST, ("capability_match", "prefer_cost"))
        return Ranking(_core.RANK_WEIGHTED, ("capability_match", "prefer_latency"), cost_weight=0)


class Pinned(Struct, frozen=True):
    """One model the caller named; nothing else may run."""

    entry_id: str

    def ranking(self, catalog: Catalog, descriptor: Descriptor, facts: Facts, snapshot: Snapshot) -> Ranking:
        return Ranking(_core.RANK_ORDERED, ("manual_override",), places_of(catalog, (self.entry_id,)))


Ranker = Cheapest | Weighted | Tiers | Ordered | Preferring | Pinned


def places_of(catalog: Catalog, order: Sequence[str]) -> bytes:
    """A route's order as the core reads it: 1 for the first, 0 for whoever is not on it."""
    if len(order) > 255:
        raise CatalogError(f"a route has at most 255 targets, not {len(order)}")
    places = bytearray(len(catalog))
    for place, entry_id in enumerate(order, 1):
        if entry_id not in catalog:
            raise CatalogError(f"a route names {entry_id!r}, which is not in the catalog")
        places[catalog.position[entry_id]] = places[catalog.position[entry_id]] or place
    return bytes(places)
