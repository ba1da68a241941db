"""What routing costs around the core: a chat body into its struct, and a whole placement with its words."""

from __future__ import annotations

import json
from typing import Any

from fastroute import Catalog, Entry, ModelRef, Price, Rates, Snapshot, parse_descriptor, place
from fastroute.routing import chat
from fastroute.routing.placement import CHEAPEST, decide

WORDS = "Summarise the following report for the board in three sentences. "
BODY = json.dumps(
    {
        "model": "auto",
        "messages": [{"role": "user" if turn % 2 else "assistant", "content": WORDS * 8} for turn in range(7)],
        "max_tokens": 500,
    }
).encode()
CATALOG = Catalog(
    Entry(
        f"m{index}",
        ModelRef("p", f"m{index}"),
        f"lane{index % 7}",
        capabilities=("tools",) if index % 3 else ("tools", "vision"),
        price=Price(Rates(100_000 + index * 7919 % 3_000_000, 400_000 + index * 104_729 % 15_000_000)),
        p50_latency_ms=200 + index * 31 % 900,
    )
    for index in range(50)
)
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


def test_a_decision_over_50_entries_with_its_preparation(benchmark: Any) -> None:
    assert benchmark(decide, DESCRIPTOR, CATALOG, Snapshot(), CHEAPEST).order


def test_a_placement_over_50_entries_with_every_verdict(benchmark: Any) -> None:
    assert benchmark(place, DESCRIPTOR, CATALOG).candidates
