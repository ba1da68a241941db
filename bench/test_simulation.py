"""What it costs to decide the past anew: 100,000 requests under a policy of four models, the decisions alone.

In CPU time, which is what is promised: one second here is 100,000 decisions a second.
"""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

from fastroute import Catalog, Entry, ModelRef, Price, Rates
from fastroute.domain import Usage
from fastroute.evaluation.past import Past
from fastroute.evaluation.simulation import deciding
from fastroute.policies import Objectives, Policy, Routing
from fastroute.routing.directory import Target
from fastroute.routing.placement import Route
from fastroute.routing.rankers import Ordered, Preferring, Tiers
from fastroute.ruling import Rules

CATALOG = Catalog(
    Entry(f"m{n}", ModelRef("p", f"m{n}"), "lane", capabilities=("tools",), price=Price(Rates(10**5 * n, 10**6 * n)))
    for n in range(1, 5)
)
NAMES = tuple(entry.id for entry in CATALOG.entries)
POLICY = Policy("p", Routing(NAMES), Objectives(max_cost_microdollars=10_000))
DRAW = random.Random(1)
REASONS = ("default_small", "function_calling", "heuristic_length", "manual_override")
REQUESTS = [
    Past("", "auto", DRAW.choice(REASONS), "m1", "m1", Usage(DRAW.randrange(4000), DRAW.randrange(500)), 100, 1, 0)
    for _ in range(100_000)
]
TARGETS = {
    "ordered-with-a-ceiling": Target(Route("p", Ordered(NAMES)), CATALOG, Rules(POLICY, {})),
    "cheapest": Target(Route("p", Preferring("cost")), CATALOG),
    "tiers": Target(Route("auto", Tiers("m1", "m4")), CATALOG),
}


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("name", TARGETS)
def test_a_hundred_thousand_recorded_requests_decided_anew(benchmark: Any, name: str) -> None:
    decide = deciding(TARGETS[name], {})
    outcomes = benchmark(lambda: [decide(past) for past in REQUESTS])
    assert len(outcomes) == len(REQUESTS)
