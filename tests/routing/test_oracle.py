"""The oracle's promises: filters in their order, one reason each, a verdict for every entry."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastroute import Catalog, Descriptor, Entry, ModelRef, Price, Rates, Route, Snapshot, parse_descriptor, place
from fastroute.domain import EXCLUSIONS, ExpectedTokens, LatencyFact, NoCandidate, Placement, Verdict
from fastroute.errors import CatalogError
from fastroute.routing.rankers import Cheapest

FREE = Price(Rates(0, 0))
HAIKU = Price(Rates(1_000_000, 5_000_000))
SONNET = Price(Rates(3_000_000, 15_000_000))


def entry(id, lane=None, price=SONNET, **rest):
    return Entry(id, ModelRef("p", id), lane or id, price=price, **rest)


def catalog_k(local_price=FREE):
    return Catalog(
        [
            Entry(
                "local-qwen", ModelRef("ollama", "qwen3"), "local", "local", "api", ("tools",), local_price, priority=10
            ),
            Entry(
                "claude-haiku",
                ModelRef("anthropic", "claude-haiku"),
                "anthropic",
                capabilities=("tools", "vision"),
                price=HAIKU,
                priority=50,
            ),
            Entry(
                "claude-sonnet",
                ModelRef("anthropic", "claude-sonnet"),
                "anthropic-premium",
                capabilities=("tools", "vision", "long_context"),
                price=SONNET,
            ),
        ]
    )


def descriptor(**changes):
    body = {
        "task_class": "extraction",
        "budget_ceiling_microdollars": 50_000,
        "latency_tolerance_ms": 30_000,
        "expected_tokens": {"in": 2000, "out": 500},
        "capabilities": ["tools"],
    }
    return parse_descriptor(body | changes)


def wide(**changes):
    """A descriptor that nothing but the case itself excludes by."""
    return descriptor(capabilities=[], **changes)


def test_m_a1_the_cheapest_viable_entry_is_chosen_and_the_others_are_ranked():
    placement = place(descriptor(), catalog_k())
    assert isinstance(placement, Placement)
    assert placement.id == "local-qwen"
    assert placement.model == "ollama:qwen3"
    assert placement.cost_microdollars_max == 0
    assert placement.reasons == ("capability_match", "cheapest_viable")
    assert [(verdict.id, verdict.verdict) for verdict in placement.candidates] == [
        ("local-qwen", "chosen"),
        ("claude-haiku", "ranked"),
        ("claude-sonnet", "ranked"),
    ]
    table = catalog_k().table
    assert [table.cost(row, 2000, 500) for row in range(3)] == [0, 4500 * 10**6, 13_500 * 10**6]


def test_m_a2_an_unpriced_entry_is_excluded_unless_the_operator_says_otherwise():
    catalog = catalog_k(local_price=None)
    placement = place(descriptor(), catalog)
    assert placement.id == "claude-haiku"
    assert placement.cost_microdollars_max == 4500
    assert placement.candidates[0] == Verdict("local-qwen", "excluded", "unpriced", {"model": "ollama:qwen3"})
    allowed = place(descriptor(), catalog, route=Route("cheapest", Cheapest(), allow_unpriced=True))
    assert allowed.id == "local-qwen"
    assert allowed.cost_microdollars_max is None


def test_m_a3_with_every_lane_degraded_there_is_no_candidate_for_health():
    lanes = dict.fromkeys(("local", "anthropic", "anthropic-premium"), "degraded")
    outcome = place(descriptor(), catalog_k(), Snapshot(lanes=lanes))
    assert isinstance(outcome, NoCandidate)
    assert outcome.reasons == ("health",)
    assert [(v.verdict, v.reason, v.detail) for v in outcome.candidates] == [("excluded", "health", "degraded")] * 3


def test_m_a4_each_entry_carries_the_first_filter_that_failed_and_reasons_keep_their_order():
    outcome = place(
        descriptor(budget_ceiling_microdollars=1, capabilities=["tools", "vision", "long_context"]), catalog_k()
    )
    assert outcome.reasons == ("capability", "cost")
    assert outcome.candidates == (
        Verdict("local-qwen", "excluded", "capability", ["vision", "long_context"]),
        Verdict("claude-haiku", "excluded", "capability", ["long_context"]),
        Verdict("claude-sonnet", "excluded", "cost", {"projected": 13_500, "cap": 1}),
    )


@pytest.mark.parametrize(
    ("ceiling", "parent", "names", "chosen", "detail"),
    [
        (10_000_000, None, ("son", "nem"), "nem", None),
        (100_000, None, ("son",), None, {"projected": 3_000_000, "cap": 100_000}),
        (10_000_000, 1000, ("son",), None, {"projected": 3_000_000, "cap": 1000}),
        (3_000_000, None, ("son",), "son", None),
    ],
)
def test_m_a5_the_cap_is_the_lower_of_ceiling_and_parent_and_is_itself_allowed(ceiling, parent, names, chosen, detail):
    prices = {"son": Price(Rates(3_000_000, 0)), "nem": FREE}
    catalog = Catalog([entry(name, price=prices[name]) for name in names])
    outcome = place(
        wide(budget_ceiling_microdollars=ceiling, expected_tokens={"in": 1_000_000, "out": 0}),
        catalog,
        Snapshot(parent_remaining_microdollars=parent),
    )
    if chosen:
        assert outcome.id == chosen
        assert {verdict.verdict for verdict in outcome.candidates} <= {"chosen", "ranked"}
    else:
        assert outcome.candidates == (Verdict("son", "excluded", "cost", detail),)


@pytest.mark.parametrize(
    ("first", "second", "winner"),
    [
        ({"p50_latency_ms": 9000, "priority": 1}, {"p50_latency_ms": 2000, "priority": 9}, "b"),
        ({"p50_latency_ms": 2000, "priority": 9}, {"p50_latency_ms": 2000, "priority": 1}, "b"),
        ({}, {}, "a"),
        ({"p50_latency_ms": None}, {"p50_latency_ms": 999_999_998}, "b"),
    ],
)
def test_m_a6_ties_fall_to_latency_then_priority_then_catalog_order(first, second, winner):
    catalog = Catalog([entry("a", **first), entry("b", **second)])
    assert place(wide(latency_tolerance_ms=1_000_000_000), catalog).id == winner


def test_m_a7_an_entry_slower_than_the_tolerance_is_out_and_an_unknown_latency_passes():
    slow = Catalog([entry("slow", p50_latency_ms=5000)])
    outcome = place(wide(latency_tolerance_ms=1000), slow)
    assert outcome.candidates == (Verdict("slow", "excluded", "latency", 5000),)
    assert place(wide(latency_tolerance_ms=5000), slow).id == "slow"
    assert place(wide(latency_tolerance_ms=1), Catalog([entry("new")])).id == "new"
    lately = Snapshot(latency={"slow": LatencyFact(p50_ms=900)})
    assert place(wide(latency_tolerance_ms=1000), slow, lately).id == "slow"


def test_m_a8_an_allowlist_and_a_preference_exclude_even_the_cheapest():
    catalog = catalog_k()
    only = Route("only", Cheapest(), allowed_models=("anthropic:claude-sonnet",))
    placement = place(descriptor(), catalog, route=only)
    assert placement.id == "claude-sonnet"
    assert placement.candidates[0] == Verdict("local-qwen", "excluded", "policy", "model_not_allowed")
    local = place(descriptor(runtime_preference="local"), catalog)
    assert local.id == "local-qwen"
    assert local.candidates[1] == Verdict("claude-haiku", "excluded", "runtime", "local")


def test_without_expected_tokens_the_input_rate_ranks():
    placement = place(descriptor(expected_tokens=None), catalog_k())
    assert placement.reasons == ("capability_match", "cheapest_by_rate")
    assert placement.cost_microdollars_max is None


def test_an_exhausted_parent_excludes_even_when_no_tokens_are_expected():
    """M-B2: nothing left is nothing left, whatever the step expects."""
    outcome = place(descriptor(expected_tokens=None), catalog_k(), Snapshot(parent_remaining_microdollars=0))
    assert outcome.reasons == ("cost",)
    assert outcome.candidates[0].detail == {"projected": None, "cap": 0}


def test_asking_for_a_capability_twice_is_asking_once():
    """M-B7: a list difference would have found the second one missing."""
    assert place(descriptor(capabilities=["tools", "tools"]), catalog_k()).id == "local-qwen"


def test_two_entries_of_one_id_are_refused_by_name():
    """M-B8: one id, one chosen verdict."""
    with pytest.raises(CatalogError, match=r"two entries have the id 'a' \(p:a and p:a\)"):
        Catalog([entry("a"), entry("a")])


def test_health_belongs_to_the_entrys_lane_and_not_to_its_model():
    """M-B4: a lane called `anthropic-premium` can degrade by itself."""
    outcome = place(descriptor(), catalog_k(), Snapshot(lanes={"anthropic-premium": "degraded"}))
    assert [verdict.verdict for verdict in outcome.candidates] == ["chosen", "ranked", "excluded"]


def test_a_tiny_call_is_not_free():
    """M-B3: six tokens in and one out on 0.15/0.60 dollars per million is two microdollars, rounded up once."""
    mini = Catalog([entry("mini", price=Price(Rates(150_000, 600_000)))])
    assert place(wide(expected_tokens={"in": 6, "out": 1}), mini).cost_microdollars_max == 2


def test_a_prompt_longer_than_the_window_is_excluded_with_both_figures():
    outcome = place(wide(), Catalog([entry("short", context_window=1000)]))
    assert outcome.candidates == (Verdict("short", "excluded", "context", {"input": 2000, "window": 1000}),)


def test_an_empty_catalog_has_no_reasons_and_no_candidates():
    assert place(descriptor(), Catalog([])) == NoCandidate((), ())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"price": Price(Rates(-1, 0))}, "price.input"),
        ({"price": Price(Rates(1.5, 0))}, "price.input"),
        ({"price": Price(Rates(0, 2_000_000_001))}, "price.output"),
        ({"runtime": "cloud"}, "runtime"),
        ({"capabilities": ("telepathy",)}, "telepathy"),
        ({"p50_latency_ms": 1.5}, "p50_latency_ms"),
        ({"context_window": True}, "context_window"),
        ({"lane": ""}, "lane"),
    ],
)
def test_an_entry_that_cannot_be_meant_is_refused_with_its_field(changes, words):
    fields = {"price": SONNET, "lane": "l"} | changes
    with pytest.raises(CatalogError, match=words):
        Catalog([Entry("x", ModelRef("p", "x"), **fields)])


prices = st.one_of(st.none(), st.builds(lambda i, o: Price(Rates(i, o)), *[st.integers(0, 2_000_000_000)] * 2))
entries = st.lists(
    st.builds(
        lambda price, p50, priority, lane, caps, window: (price, p50, priority, lane, caps, window),
        prices,
        st.one_of(st.none(), st.integers(0, 60_000)),
        st.integers(0, 200),
        st.sampled_from("abc"),
        st.sets(st.sampled_from(["tools", "vision"])),
        st.one_of(st.none(), st.integers(1, 10_000)),
    ),
    max_size=8,
).map(
    lambda rows: [
        entry(
            f"e{index}",
            lane=lane,
            price=price,
            p50_latency_ms=p50,
            priority=priority,
            capabilities=tuple(sorted(caps)),
            context_window=window,
        )
        for index, (price, p50, priority, lane, caps, window) in enumerate(rows)
    ]
)
descriptors = st.builds(
    Descriptor,
    st.just("t"),
    st.one_of(st.none(), st.integers(1, 10**10)),
    st.one_of(st.none(), st.integers(1, 60_000)),
    st.one_of(st.none(), st.builds(ExpectedTokens, st.integers(0, 10_000), st.integers(0, 10_000))),
    st.sets(st.sampled_from(["tools", "vision"])).map(tuple),
)


@given(entries, descriptors, st.permutations(range(8)))
def test_the_order_of_the_catalog_moves_nothing_but_ties(rows, wanted, order):
    unique = [row_with_priority(row, index) for index, row in enumerate(rows)]  # no ties left
    shuffled = [unique[index] for index in order if index < len(unique)]
    assert chosen(place(wanted, Catalog(unique))) == chosen(place(wanted, Catalog(shuffled)))


@given(entries, descriptors)
def test_an_excluded_entry_is_irrelevant_to_the_choice(rows, wanted):
    outcome = place(wanted, Catalog(rows))
    kept = [row for row, verdict in zip(rows, outcome.candidates, strict=True) if verdict.verdict != "excluded"]
    assert chosen(place(wanted, Catalog(kept))) == chosen(outcome)


@given(entries, descriptors, st.integers(0, 10**10))
def test_a_higher_ceiling_never_loses_a_placement(rows, wanted, more):
    if wanted.budget_ceiling_microdollars is None or chosen(place(wanted, Catalog(rows))) is None:
        return
    raised = Descriptor(
        wanted.task_class,
        wanted.budget_ceiling_microdollars + more,
        wanted.latency_tolerance_ms,
        wanted.expected_tokens,
        wanted.capabilities,
    )
    assert chosen(place(raised, Catalog(rows))) is not None


@given(entries, descriptors)
def test_every_entry_has_one_verdict_in_catalog_order_with_a_reason_from_the_closed_list(rows, wanted):
    outcome = place(wanted, Catalog(rows))
    assert [verdict.id for verdict in outcome.candidates] == [row.id for row in rows]
    assert sum(verdict.verdict == "chosen" for verdict in outcome.candidates) == isinstance(outcome, Placement)
    for verdict in outcome.candidates:
        assert (verdict.reason in EXCLUSIONS) == (verdict.verdict == "excluded")


def row_with_priority(row, index):
    return entry(
        row.id,
        lane=row.lane,
        price=row.price,
        p50_latency_ms=row.p50_latency_ms,
        priority=index,
        capabilities=row.capabilities,
        context_window=row.context_window,
    )


def chosen(outcome):
    return outcome.id if isinstance(outcome, Placement) else None
