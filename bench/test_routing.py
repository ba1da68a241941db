"""What routing costs around the core: a chat body into its struct, a decision by each ranker over catalogs of 10 to
10,000, and a whole placement with its words. Placements a second are the column `ops`.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from fastroute import Catalog, Entry, ModelRef, Price, Rates, Snapshot, parse_descriptor, place
from fastroute.routing import chat
from fastroute.routing.placement import Route, decide
from fastroute.routing.rankers import Cheapest, Ordered, Pinned, Ranker, Tiers, Weighted

WORDS = "Summarise the following report for the board in three sentences. "
BODY = json.dumps(
    {
        "model": "auto",
        "messages": [{"role": "user" if turn % 2 else "assistant", "content": WORDS * 8} for turn in range(7)],
        "max_tokens": 500,
    }
).encode()
SIZES = [10, 50, 100, 1000, 10_000]


def catalog(size: int) -> Catalog:
    return Catalog(
        Entry(
            f"m{index}",
            ModelRef("p", f"m{index}"),
            f"lane{index % 7}",
            capabilities=("tools",) if index % 3 else ("tools", "vision"),
            price=Price(Rates(100_000 + index * 7919 % 3_000_000, 400_000 + index * 104_729 % 15_000_000)),
            p50_latency_ms=200 + index * 31 % 900,
        )
        for index in range(size)
    )


RANKERS: dict[str, Ranker] = {
    "cheapest": Cheapest(),
    "weighted": Weighted(),
    "tiers": Tiers("m0", "m3"),
    "ordered": Ordered(tuple(f"m{index}" for index in range(0, 10, 3))),
    "pinned": Pinned("m3"),
}
DESCRIPTOR = parse_descriptor(
    {
        "task_class": "t",
        "budget_ceiling_microdollars": 50_000,
        "latency_tolerance_ms": 30_000,
        "expected_tokens": {"in": 2000, "out": 500},
        "capabilities": ["vision"],
    }
)


def test_a_4_kb_chat_body_into_its_struct(benchmark: Any) -> None:
    assert 3_800 < len(BODY) < 4_400
    assert len(benchmark(chat.decode, BODY).messages) == 7


def test_a_4_kb_chat_counted_for_the_tiers(benchmark: Any) -> None:
    request = chat.decode(BODY)
    assert benchmark(chat.facts, request).messages == 7


@pytest.mark.parametrize("ranker", RANKERS)
@pytest.mark.parametrize("size", SIZES)
def test_a_decision_with_its_preparation(benchmark: Any, size: int, ranker: str) -> None:
    assert benchmark(decide, DESCRIPTOR, catalog(size), Snapshot(), Route(ranker, RANKERS[ranker])).order


@pytest.mark.parametrize("size", SIZES)
def test_a_placement_with_every_verdict(benchmark: Any, size: int) -> None:
    assert len(benchmark(place, DESCRIPTOR, catalog(size)).candidates) == size
