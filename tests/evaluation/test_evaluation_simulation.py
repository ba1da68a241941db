"""The past decided anew: by the gateway's own decision, at exact costs, with what is not known told."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fastroute import Catalog, Entry, ModelRef, Ordered, Price, Rates, Snapshot, Tiers, Weighted
from fastroute.domain import Descriptor, ExpectedTokens, LatencyFact, Usage
from fastroute.evaluation.past import Past, Recorded, Step, recorded
from fastroute.evaluation.simulation import CEILING, deciding, measured_latencies, projected_ms, simulate
from fastroute.policies import Objectives, Policy, Routing
from fastroute.routing.chat import Facts
from fastroute.routing.directory import Target
from fastroute.routing.placement import Repeated, Route, decide
from fastroute.routing.rankers import Cheapest, Pinned, Preferring, Ranker
from fastroute.ruling import Rules


def entry(name: str, rate: int, *capabilities: str, window: int | None = 1000, price: bool = True) -> Entry:
    said = Price(Rates(rate, 4 * rate)) if price else None
    return Entry(name, ModelRef("p", name), "lane", capabilities=capabilities, price=said, context_window=window)


SMALL, BIG, LONG = entry("small", 100), entry("big", 1000, "tools"), entry("long", 3000, "tools", window=10_000)
MYSTERY = entry("mystery", 0, price=False)
CATALOG = Catalog([SMALL, BIG, LONG, MYSTERY])


def target(ranker: Ranker, policy: Policy | None = None) -> Target:
    return Target(Route("r", ranker), CATALOG, None if policy is None else Rules(policy, {}))


def past(answered: str = "big", **more: Any) -> Past:
    said: dict[str, Any] = {
        "at": "", "asked": "auto", "reason": "default_small", "first": answered, "entry": answered,
        "usage": Usage(10, 5), "ms": 100, "picodollars": 30_000, "discarded_picodollars": 0,
    }  # fmt: skip
    return Past(**{**said, **more})


def run(ranker: Ranker, *requests: Past, policy: Policy | None = None, steps: tuple[Step, ...] = ()) -> Any:
    return simulate("r", target(ranker, policy), Recorded(requests, {}, 0, steps))


def test_a_request_that_moves_costs_its_own_tokens_at_the_other_price() -> None:
    told = run(Cheapest(), past(usage=Usage(10, 5, cache_read=7)), past("small", picodollars=1234))
    assert (told.moved, told.models_recorded, told.models_projected) == (1, {"big": 1, "small": 1}, {"small": 2})
    assert told.cost_recorded == 30_000 + 1234
    assert told.cost_projected == 17 * 100 + 5 * 400 + 1234


def test_what_was_billed_for_discarded_answers_is_told_and_in_neither_sum() -> None:
    told = run(Pinned("big"), past(discarded_picodollars=99))
    assert (told.cost_recorded, told.cost_projected, told.discarded) == (30_000, 30_000, 99)


def test_an_unknown_cost_is_in_neither_sum() -> None:
    told = run(Pinned("big"), past(picodollars=None), past())
    assert (told.cost_compared, told.cost_unknown, told.cost_recorded) == (1, 1, 30_000)


REFUSED = [
    (Ordered(("small",)), past(capabilities=("tools",)), None, {"capability": 1}),
    (Ordered(("mystery",)), past(), None, {"unpriced": 1}),
    (Ordered(("small", "big")), past(usage=Usage(5000, 5)), Objectives(), {"context": 1}),
    (Ordered(("big",)), past(), Objectives(max_cost_microdollars=1, max_tokens=1000), {CEILING: 1}),
]


@pytest.mark.parametrize(("ranker", "one", "objectives", "why"), REFUSED)
def test_refusals_have_their_class(
    ranker: Ranker, one: Past, objectives: Objectives | None, why: dict[str, int]
) -> None:
    policy = None if objectives is None else Policy("p", Routing(("big",)), objectives)
    told = run(ranker, one, past("small", usage=Usage(1, 1)), policy=policy)
    assert told.refusals >= 1
    for name, count in why.items():
        assert told.refused[name] >= count
    assert sum(told.models_projected.values()) == told.decided - told.refusals


def test_a_dear_first_model_gives_way_to_the_next_that_the_policy_affords() -> None:
    policy = Policy("p", Routing(("long",)), Objectives(max_cost_microdollars=1, max_tokens=100))
    told = run(Ordered(("long", "small")), past(), policy=policy)
    assert told.models_projected == {"small": 1}


@pytest.mark.parametrize(
    ("reason", "first", "chosen"),
    [
        ("default_small", "small", "small"),
        ("function_calling", "big", "big"),
        ("json_mode", "big", "big"),
        ("heuristic_conversation", "big", "big"),
        ("heuristic_tokens", "big", "big"),
        ("heuristic_keyword", "big", "big"),
        ("heuristic_length", "big", "big"),
        ("fallback", "small", "small"),
    ],
)
def test_a_rule_of_auto_that_spoke_is_taken_at_its_word(reason: str, first: str, chosen: str) -> None:
    told = run(Tiers("small", "big"), past(reason=reason, first=first, usage=Usage(900, 5)))
    assert told.models_projected == {chosen: 1}


def test_a_latency_is_the_others_at_the_same_place() -> None:
    fast = [past("small", ms=ms) for ms in (10, 20, 30, 40, 50)]
    slow = [past("big", ms=ms) for ms in (100, 300, 200)]
    measured = measured_latencies([*fast, *slow])
    assert [projected_ms(one, SMALL, measured) for one in slow] == [10, 50, 30]
    assert [projected_ms(one, BIG, measured) for one in fast] == [100, 100, 200, 200, 300]
    assert projected_ms(fast[1], SMALL, measured) == 20
    assert projected_ms(fast[1], LONG, measured) is None
    told = run(Pinned("small"), *fast, *slow)
    assert (told.latency_recorded.p50_ms, told.latency_projected.p50_ms) == (40, 30)
    assert told.latency_projected.p95_ms == 50
    assert run(Pinned("long"), *fast).latency_unknown == 5


def test_steps_are_decided_anew_with_their_whole_descriptor() -> None:
    cheap = Descriptor("t", 10_000, None, ExpectedTokens(10, 5))
    closed = Descriptor("t", 0, None, ExpectedTokens(10, 5))
    steps = (
        Step(cheap, (), "p:big"),
        Step(closed, (), "p:big"),
        Step(cheap, (), "p:small"),
        Step(cheap, ("lane",), None),
    )
    told = run(Cheapest(), steps=steps).steps
    assert (told.decided, told.placed_before, told.placed, told.moved) == (4, 3, 2, 1)


def test_the_prepared_decision_is_the_plain_one() -> None:
    """Many random requests, every ranker: what is prepared once changes nothing."""
    draw = random.Random(1)
    snapshot = Snapshot(lanes={}, latency={"small": LatencyFact(900, 2000, 20), "big": LatencyFact(200, 300, 20)})
    rankers: tuple[Ranker, ...] = (
        Cheapest(),
        Weighted(),
        Tiers("small", "big"),
        Ordered(("small", "big"), 1500),
        Preferring("cost"),
        Preferring("latency"),
        Pinned("long"),
    )
    for ranker in rankers:
        route = Route("r", ranker)
        repeated = Repeated(CATALOG, snapshot, route)
        for _ in range(100):
            expected = draw.choice([None, ExpectedTokens(draw.randrange(5000), draw.randrange(500))])
            descriptor = Descriptor("t", draw.choice([None, 0, 1, 10]), None, expected, draw.choice([(), ("tools",)]))
            facts = Facts(
                characters=draw.randrange(3000), estimated_tokens=draw.randrange(500), has_tools=draw.random() < 0.3
            )
            assert repeated.decide(descriptor, facts) == decide(descriptor, CATALOG, snapshot, route, facts)


def test_a_hundred_thousand_decisions_take_less_than_a_few_seconds() -> None:
    """`bench/test_simulation.py` has the figure; this only sees that nothing is quadratic."""
    draw = random.Random(1)
    requests = [
        past(usage=Usage(draw.randrange(900), draw.randrange(100)), ms=draw.randrange(5000)) for _ in range(20_000)
    ]
    told = run(Ordered(("small", "big")), *requests)
    assert told.decisions_per_second > 10_000


# --- what the books tell --------------------------------------------------------------------------------------------


def receipt(n: int, ts: datetime, **more: Any) -> dict[str, Any]:
    line = {
        "entry": "big",
        "basis": "exact",
        "ms": 50,
        "picodollars": 5,
        "usage": {"input": 1, "output": 2},
        "lane": "x",
    }
    return {
        "ts": ts.isoformat(), "surface": "chat", "model": "auto", "reason": "function_calling", "status": 200,
        "route_primary": "big", "route_final": "big", "attempts": [line], "seq": n, **more,
    }  # fmt: skip


class Books:
    """A desk with receipts, newest first, a page at a time."""

    def __init__(self, *papers: Any) -> None:
        self.papers = [json.dumps(paper).encode() if isinstance(paper, dict) else paper for paper in papers]
        self.asked: list[int] = []

    def __call__(self, operation: str, **how: Any) -> list[dict[str, Any]]:
        if operation == "decisions.list":
            return []
        self.asked.append(how["limit"])
        rows = [{"seq": len(self.papers) - n, "body": body} for n, body in enumerate(self.papers)]
        return [row for row in rows if how["before"] is None or row["seq"] < how["before"]][: how["limit"]]


NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def test_what_cannot_be_decided_anew_is_counted_by_why() -> None:
    line = receipt(0, NOW)["attempts"][0]
    books = Books(
        receipt(9, NOW),
        receipt(8, NOW, surface="embeddings"),
        receipt(7, NOW, reason="shadow"),
        receipt(7, NOW, reason="cache_hit", attempts=[]),
        receipt(7, NOW, status=502),
        receipt(7, NOW, surface="", reason="interrupted", status=0),  # went under with its worker
        receipt(6, NOW, status=402, attempts=[], route_final=None),
        receipt(5, NOW, attempts=[{**line, "basis": "presumed"}]),
        b"not json",
        receipt(3, NOW, attempts=[{**line, "picodollars": 3, "entry": "small"}, line]),
    )
    found = recorded(books, None, None)
    assert found.skipped == {
        "not_a_chat": 1,
        "aside": 1,
        "cache_hit": 1,
        "no_answer": 3,
        "usage_unknown": 1,
        "unreadable": 1,
    }
    assert found.refused == 1
    first, fell = found.requests
    assert (first.entry, first.capabilities, first.usage) == ("big", ("tools",), Usage(1, 2))
    assert (fell.first, fell.entry, fell.discarded_picodollars) == ("small", "big", 3)


def test_the_last_so_many_and_those_since_an_instant() -> None:
    papers = [receipt(n, NOW - timedelta(minutes=20 * n)) for n in range(2500)]
    assert len(recorded(Books(*papers), 1700, None).requests) == 1700
    since = Books(*papers)
    assert len(recorded(since, None, NOW - timedelta(hours=2)).requests) == 7
    assert len(since.asked) == 1


def test_a_decision_made_here_is_that_of_the_gateway() -> None:
    """The same entry as `place` would have first, for everything a receipt knows."""
    decide_one = deciding(target(Cheapest()), {})
    outcome = decide_one(past(capabilities=("tools",)))
    assert outcome.entry == BIG
