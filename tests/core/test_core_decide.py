"""Which candidates fit, which is best, and why each other is not: the table against its rules and its twin."""

import os
import random
from array import array
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastroute import _core, domain

TORTURE = os.environ.get("FASTROUTE_TORTURE") == "1"
SEEDS, DECISIONS = (1000, 1000) if TORTURE else (100, 100)
CHEAPEST, WEIGHTED, ORDERED = _core.RANK_CHEAPEST, _core.RANK_WEIGHTED, _core.RANK_ORDERED
I64_MIN, I64_MAX = -(2**63), 2**63 - 1

seeds = st.integers(0, 2**64 - 1)


def row(**facts):
    """A managed, priced row that every filter lets pass, but for what is said."""
    whole = {
        "capabilities": 0b111,
        "runtime": 0,
        "lane": 0,
        "p50_ms": 500,
        "priority": 100,
        "context_window": 128_000,
        "priced": True,
        "input_rate": 1_000_000,
        "output_rate": 5_000_000,
        "tiers": (),
    }
    assert facts.keys() <= whole.keys()
    return tuple((whole | facts).values())


def order(*rows, ranker=CHEAPEST, **query):
    return _core.Table(rows).decide(ranker, **query)[0]


def reasons(*rows, ranker=CHEAPEST, **query):
    return [domain.EXCLUSIONS[code - 1] if code else None for code in _core.Table(rows).decide(ranker, **query)[1]]


# -- against the twin: figures are drawn from few values, so that ties and exact limits are common.


def draw_row(twin, rng):
    few_rates = (0, 1, 150_000, 1_000_000, domain.RATE_MAX, rng.randint(0, domain.RATE_MAX))
    tiers = ()
    if rng.random() < 0.2:
        starts = sorted(rng.sample((0, 1, 1000, 2000, 200_000, 10**9), rng.randint(1, 4)))
        tiers = tuple((start, rng.choice(few_rates), rng.choice(few_rates)) for start in starts)
    return twin.Row(
        capabilities=rng.getrandbits(5) | rng.getrandbits(5),
        runtime=rng.randrange(2),
        lane=rng.randrange(6),
        p50_ms=rng.choice((None, 0, 500, 1000, 999_999_999, rng.randrange(10_000))),
        priority=rng.choice((-(10**9), 0, 10, 100, 100, 10**9)),
        context_window=rng.choice((None, 0, 2000, 128_000, 10**9)),
        priced=rng.random() < 0.9,
        input_rate=rng.choice(few_rates),
        output_rate=rng.choice(few_rates),
        tiers=tiers,
    )


def draw_query(twin, rng, rows):
    ranker = rng.randrange(3)
    tokens = (None, 0, 1, 1000, 2000, 2001, 10**9, rng.randrange(10_000))
    input_tokens, output_tokens = rng.choice(tokens), rng.choice(tokens)
    ceilings = [None, None, 0, 1, 50_000, 9 * 10**15]
    if rows and input_tokens is not None and output_tokens is not None:
        bill = twin.cost(rng.choice(rows), input_tokens, output_tokens) or 0
        ceilings += [bill // 10**6, twin.ceil_microdollars(bill)]
    weights = (0, 1, 1000, 10**9)
    places = bytes(rng.choice((0, 1, 1, 2, 255)) for _ in rows)
    figures = tuple(rng.choice((None, 0, 500, 5000, 999_999_999)) for _ in rows)
    return twin.Query(
        ranker=ranker,
        capabilities=rng.choice((0, 0, 1, rng.getrandbits(5))),
        runtime=rng.choice((None, None, 0, 1)),
        ceiling=rng.choice(ceilings),
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        tolerance_ms=rng.choice((None, None, 0, 500, 1000, 9 * 10**15)),
        allowed=places if ranker == ORDERED or rng.random() < 0.3 else None,
        health=rng.choice((None, None, bytes(rng.choice((0, 0, 1)) for _ in range(rng.randrange(7))))),
        p50_ms=rng.choice((None, figures)),
        allow_unpriced=rng.random() < 0.5,
        cost_weight=rng.choice(weights),
        latency_weight=rng.choice(weights),
        flat_cost=rng.choice((None, None, 0, 1, 9 * 10**15)),
        local_first=rng.random() < 0.2,
    )


def given_to_core(query):
    """The twin's query as the arguments of `decide`."""
    facts = {name: value for name, value in vars(query).items() if value is not None}
    if query.p50_ms is not None:
        facts["p50_ms"] = array("q", [-1 if figure is None else figure for figure in query.p50_ms])
    return facts


@settings(max_examples=SEEDS, deadline=None)
@given(seeds)
def test_every_decision_is_the_twins(twin, seed):
    """10^4 decisions a run, 10^6 under torture: each code, and the order of the best whatever is kept."""
    rng = random.Random(seed)
    for _ in range(DECISIONS // 10):
        rows = [draw_row(twin, rng) for _ in range(rng.choice((0, 1, 2, 5, 12, 12, 30)))]
        table = _core.Table([twin.packed(each) for each in rows])
        for _ in range(10):
            query = draw_query(twin, rng, rows)
            best_first, codes = twin.decide(rows, query)
            keep = rng.choice((0, 1, 4, 8, 9, 100))
            assert table.decide(keep=keep, **given_to_core(query)) == (tuple(best_first[:keep]), codes), query


@settings(max_examples=SEEDS, deadline=None)
@given(seeds)
def test_the_cost_of_a_row_is_the_twins(twin, seed):
    rng = random.Random(seed)
    rows = [draw_row(twin, rng) for _ in range(DECISIONS)]
    table = _core.Table([twin.packed(each) for each in rows])
    for index, each in enumerate(rows):
        tokens = rng.choice((0, 1, 1000, 1001, 200_000, 200_001, 10**9)), rng.choice((0, 500, 10**9))
        expected = twin.cost(each, *tokens)
        assert table.cost(index, *tokens) == (_core.UNKNOWN if expected is None else expected)


# -- the properties of the oracle


@settings(max_examples=SEEDS, deadline=None)
@given(seeds)
def test_permuting_entries_that_do_not_tie_never_changes_the_choice(twin, seed):
    """CONTRACTS 5.6."""
    rng = random.Random(seed)
    for _ in range(DECISIONS // 10):
        rows = [draw_row(twin, rng) for _ in range(12)]
        query = draw_query(twin, rng, rows)
        codes = twin.decide(rows, query)[1]
        facts = [each if query.p50_ms is None else each._replace(p50_ms=query.p50_ms[i]) for i, each in enumerate(rows)]
        keys = [None if code else twin.rank_key(i, facts[i], query) for i, code in enumerate(codes)]
        # Of the rows that tie, only the first stays in the race.
        kept = [i for i, key in enumerate(keys) if key is None or key not in keys[:i]]
        before = decide_some(twin, rows, query, kept)
        rng.shuffle(kept)
        assert decide_some(twin, rows, query, kept) == before


@settings(max_examples=SEEDS, deadline=None)
@given(seeds)
def test_an_excluded_entry_never_changes_the_choice(twin, seed):
    """CONTRACTS 5.6: without the rows that are excluded, the order of the others is the same."""
    rng = random.Random(seed)
    for _ in range(DECISIONS // 10):
        rows = [draw_row(twin, rng) for _ in range(12)]
        query = draw_query(twin, rng, rows)
        viable = [index for index, code in enumerate(twin.decide(rows, query)[1]) if code == 0]
        assert decide_some(twin, rows, query, range(12)) == decide_some(twin, rows, query, viable)


@settings(max_examples=SEEDS, deadline=None)
@given(seeds)
def test_raising_a_ceiling_never_turns_a_placement_into_no_candidate(twin, seed):
    """CONTRACTS 5.6: what fits under a ceiling fits under every higher one, and under none at all."""
    rng = random.Random(seed)
    for _ in range(DECISIONS // 10):
        rows = [draw_row(twin, rng) for _ in range(12)]
        table = _core.Table([twin.packed(each) for each in rows])
        facts = given_to_core(draw_query(twin, rng, rows))
        ceilings = sorted(rng.choice((0, 1, rng.randrange(10**6), rng.randrange(9 * 10**15))) for _ in range(6))
        fitting = [
            {index for index, code in enumerate(table.decide(**(facts | {"ceiling": ceiling}))[1]) if code == 0}
            for ceiling in [*ceilings, _core.UNKNOWN]
        ]
        assert all(lower <= higher for lower, higher in pairwise(fitting))


def decide_some(twin, rows, query, chosen):
    """The order among some of the rows, told by their places in the whole."""
    chosen = list(chosen)
    facts = given_to_core(query)
    if "allowed" in facts:
        facts["allowed"] = bytes(query.allowed[index] for index in chosen)
    if "p50_ms" in facts:
        facts["p50_ms"] = array("q", [facts["p50_ms"][index] for index in chosen])
    table = _core.Table([twin.packed(rows[index]) for index in chosen])
    return [chosen[index] for index in table.decide(keep=len(chosen), **facts)[0]]


# -- the rules, one by one

# What makes each filter refuse the row beside it, in the order of domain.EXCLUSIONS.
REFUSED = {
    "capability": ({"capabilities": 0b001}, {"capabilities": 0b010}),
    "policy": ({}, {"allowed": b"\x00"}),
    "runtime": ({"runtime": 0}, {"runtime": 1}),
    "health": ({"lane": 2}, {"health": b"\x00\x00\x01"}),
    "latency": ({"p50_ms": 5000}, {"tolerance_ms": 4999}),
    "cost": ({}, {"ceiling": 0}),
    "unpriced": ({"priced": False}, {}),
    "context": ({"context_window": 4096}, {"input_tokens": 4097}),
}


def test_the_filters_are_those_of_the_domain_in_its_order():
    assert tuple(REFUSED) == domain.EXCLUSIONS


@pytest.mark.parametrize("name", domain.EXCLUSIONS)
def test_each_filter_has_the_code_of_its_place(name):
    facts, query = REFUSED[name]
    assert reasons(row(**facts), **query) == [name]
    assert order(row(**facts), **query) == ()


@pytest.mark.parametrize(("first", "second"), [*pairwise(domain.EXCLUSIONS)])
def test_the_first_filter_that_fails_is_the_reason(first, second):
    facts, query = (REFUSED[first][part] | REFUSED[second][part] for part in (0, 1))
    assert reasons(row(**facts), **query) == [first]


def test_the_runtimes_and_rankers_are_those_of_the_domain():
    """`local` is the second runtime and there is no third; a local row costs nothing in the weighted ranking."""
    assert domain.RUNTIMES.index("local") == 1
    assert order(row(), row(runtime=domain.RUNTIMES.index("local")), ranker=WEIGHTED) == (1, 0)
    with pytest.raises(OverflowError, match=r"row 0: runtime is 0\.\.1, not 2"):
        _core.Table([row(runtime=len(domain.RUNTIMES))])
    with pytest.raises(OverflowError, match=r"ranker is 0\.\.2, not 3"):
        order(row(), ranker=3)


@pytest.mark.parametrize("bit", [*range(len(domain.CAPABILITIES)), 62])
def test_every_capability_has_a_bit_and_each_wanted_bit_counts(bit):
    wanted = 1 << bit
    assert reasons(row(capabilities=wanted), row(capabilities=0), capabilities=wanted) == [None, "capability"]
    assert reasons(row(capabilities=wanted), row(capabilities=wanted | 1), capabilities=wanted | 1)[1] is None


# local-qwen, claude-haiku, claude-sonnet of CONTRACTS 0.5
K = (
    row(capabilities=0b001, runtime=1, lane=0, p50_ms=-1, priority=10, input_rate=0, output_rate=0),
    row(capabilities=0b011, lane=1, p50_ms=-1, priority=50),
    row(capabilities=0b111, lane=2, p50_ms=-1, input_rate=3_000_000, output_rate=15_000_000),
)
D = {"capabilities": 0b001, "ceiling": 50_000, "tolerance_ms": 30_000, "input_tokens": 2000, "output_tokens": 500}


def test_m_a1_the_cheapest_that_fits_is_first():
    table = _core.Table(K)
    costs = [_core.ceil_microdollars(table.cost(index, 2000, 500)) for index in range(3)]
    assert costs == [0, 4500, 13_500]
    assert table.decide(CHEAPEST, **D) == ((0, 1, 2), b"\x00\x00\x00")
    assert len(table) == 3


def test_m_a2_an_unknown_price_is_refused_unless_allowed():
    unpriced = (row(capabilities=0b001, runtime=1, p50_ms=-1, priced=False), *K[1:])
    assert reasons(*unpriced, **D) == ["unpriced", None, None]
    assert order(*unpriced, **D) == (1, 2)
    assert order(*unpriced, **D, allow_unpriced=True) == (0, 1, 2)
    assert _core.Table(unpriced).cost(0, 2000, 500) == _core.UNKNOWN


def test_m_a3_a_lane_that_is_not_well_takes_no_candidate():
    assert reasons(*K, **D, health=b"\x01\x02\xff") == ["health"] * 3
    assert reasons(*K, **D, health=b"\x00\x01") == [None, "health", None]


def test_m_a4_each_row_says_its_own_reason():
    assert reasons(*K, **(D | {"ceiling": 1, "capabilities": 0b111})) == ["capability", "capability", "cost"]


def test_m_a5_a_cost_equal_to_the_ceiling_fits():
    sonnet = row(input_rate=3_000_000)
    million = {"input_tokens": 1_000_000, "output_tokens": 0}
    roomy = row(input_rate=3_000_000, context_window=-1)
    assert reasons(sonnet, **million) == ["context"]
    assert reasons(roomy, **million, ceiling=2_999_999) == ["cost"]
    assert reasons(roomy, **million, ceiling=3_000_000) == [None]
    assert reasons(row(), ceiling=1, input_tokens=1, output_tokens=0) == [None]
    assert reasons(row(input_rate=1_000_001), ceiling=1, input_tokens=1, output_tokens=0) == ["cost"]


def test_m_b2_a_ceiling_of_zero_is_closed_even_to_what_costs_nothing():
    assert reasons(row(input_rate=0, output_rate=0), row(priced=False), ceiling=0, allow_unpriced=True) == ["cost"] * 2
    assert reasons(row(), ceiling=1) == [None], "without tokens nothing else is known to be too dear"


def test_m_a6_ties_are_broken_by_p50_then_priority_then_place():
    assert order(row(p50_ms=9000, priority=1), row(p50_ms=2000)) == (1, 0)
    assert order(row(priority=2), row(priority=1)) == (1, 0)
    assert order(row(), row(), row()) == (0, 1, 2)
    assert order(row(p50_ms=-1), row(p50_ms=999_999_998)) == (1, 0)
    assert order(row(p50_ms=-1, priority=2), row(p50_ms=999_999_999, priority=1)) == (1, 0)


def test_m_a7_a_p50_within_the_tolerance_or_unknown_passes():
    assert reasons(row(p50_ms=5000), tolerance_ms=1000) == ["latency"]
    assert reasons(row(p50_ms=5000), tolerance_ms=5000) == [None]
    assert reasons(row(p50_ms=-1), tolerance_ms=0) == [None]


def test_m_a8_a_policy_excludes_what_is_cheaper():
    assert reasons(row(input_rate=0), row(), allowed=b"\x00\x01") == ["policy", None]


def test_with_unknown_tokens_the_input_rate_ranks():
    cheap_answers, cheap_questions = row(input_rate=2, output_rate=0), row(input_rate=1, output_rate=9)
    assert order(cheap_answers, cheap_questions) == (1, 0)
    assert order(cheap_answers, cheap_questions, input_tokens=10) == (1, 0), "half of the tokens is not known either"
    assert order(cheap_answers, cheap_questions, input_tokens=10, output_tokens=10) == (0, 1)


def test_the_tier_is_chosen_by_the_input_tokens():
    tiered = _core.Table([row(input_rate=1, output_rate=10, tiers=((1000, 2, 20), (2000, 0, 7)))])
    assert [tiered.cost(0, tokens, 1) for tokens in (1000, 1001, 2000, 2001)] == [1010, 2022, 4020, 7]


def test_figures_of_late_take_the_place_of_the_catalogs():
    rows = row(p50_ms=100), row(p50_ms=200)
    assert order(*rows, p50_ms=array("q", [300, 200])) == (1, 0)
    assert order(*rows, p50_ms=memoryview(array("q", [_core.UNKNOWN, 200]))) == (1, 0)
    assert reasons(*rows, p50_ms=array("q", [300, 200]), tolerance_ms=250) == ["latency", None]


def test_weights_are_thousandths_and_latency_is_set_against_cost():
    """A millisecond at weight 1.0 weighs what a microdollar at weight 0.001 does."""
    quick, cheap = row(p50_ms=1000, input_rate=2_000_000), row(p50_ms=3000, input_rate=1_000_000)
    one = {"input_tokens": 1, "output_tokens": 0}
    assert order(quick, cheap, ranker=WEIGHTED, **one) == (0, 1)
    assert order(quick, cheap, ranker=WEIGHTED, **one, cost_weight=1999) == (0, 1)
    assert order(quick, cheap, ranker=WEIGHTED, **one, cost_weight=2000) == (0, 1), "a tie stays in table order"
    assert order(quick, cheap, ranker=WEIGHTED, **one, cost_weight=2001) == (1, 0)


def test_i_a12_local_wins_a_tie_and_costs_nothing():
    managed, local = row(input_rate=0, output_rate=0, priority=1), row(runtime=1, priority=2)
    assert order(managed, local, ranker=WEIGHTED) == (1, 0)
    slow_local, quick_managed = row(runtime=1, p50_ms=2000), row(p50_ms=100)
    assert order(slow_local, quick_managed, ranker=WEIGHTED, cost_weight=0) == (1, 0)
    assert order(slow_local, quick_managed, ranker=WEIGHTED, flat_cost=1900, cost_weight=1) == (0, 1)
    assert order(slow_local, quick_managed, ranker=WEIGHTED, flat_cost=1899, cost_weight=1) == (1, 0)
    assert order(quick_managed, slow_local, ranker=WEIGHTED, cost_weight=0, local_first=True) == (1, 0)


def test_the_heaviest_sum_does_not_wrap():
    """The largest weights, costs and latencies need more than 64 bits, and still compare."""
    heaviest = {"ranker": WEIGHTED, "cost_weight": 10**9, "latency_weight": 10**9, "flat_cost": 9 * 10**15}
    slow, slowest = row(p50_ms=999_999_998), row(p50_ms=999_999_999)
    local = row(runtime=1, p50_ms=999_999_999)
    assert order(slowest, slow, local, **heaviest) == (2, 1, 0)


def test_an_ordered_list_ranks_by_place_then_priority():
    rows = row(priority=1), row(priority=2), row(priority=1), row()
    assert order(*rows, ranker=ORDERED, allowed=b"\xff\x01\x01\x00") == (2, 1, 0)
    with pytest.raises(ValueError, match="RANK_ORDERED reads the places in allowed"):
        order(*rows, ranker=ORDERED)


def test_only_the_best_are_kept_and_every_row_has_its_code():
    rows = [row(input_rate=rate) for rate in (5, 3, 9, 1, 7, 2, 8, 6, 4, 0)]
    for keep in (0, 1, 4, 9, 10, 10**12):
        best, codes = _core.Table(rows).decide(CHEAPEST, keep=keep)
        assert best == (9, 3, 5, 1, 8, 0, 7, 4, 6, 2)[:keep]
        assert codes == bytes(10)


def test_an_empty_table_has_nothing_to_offer():
    assert _core.Table([]).decide(CHEAPEST, allowed=b"", health=b"", p50_ms=array("q")) == ((), b"")


def test_a_row_nobody_may_use_because_it_is_unpriced_keeps_no_rates():
    assert _core.Table([row(priced=False, input_rate=-1, output_rate=-1)]).cost(0, 1, 1) == _core.UNKNOWN


# -- the door


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("capabilities", 0, I64_MAX),
        ("runtime", -1, 1),
        ("ceiling", -1, domain.MICRODOLLARS_MAX),
        ("input_tokens", -1, domain.TOKENS_MAX),
        ("output_tokens", -1, domain.TOKENS_MAX),
        ("tolerance_ms", -1, domain.MICRODOLLARS_MAX),
        ("keep", 0, I64_MAX),
        ("cost_weight", 0, 10**9),
        ("latency_weight", 0, 10**9),
        ("flat_cost", -1, domain.MICRODOLLARS_MAX),
    ],
)
def test_a_question_is_checked_at_the_door(name, least, most):
    table = _core.Table([row()])
    for within in (least, most):
        table.decide(WEIGHTED, **{name: within})
    for beyond in (least - 1, most + 1, I64_MIN, 2**64):
        with pytest.raises(OverflowError, match=f"^{name} is {least}..{most}, not {beyond}$"):
            table.decide(CHEAPEST, **{name: beyond})
    with pytest.raises(TypeError, match=f"{name} is an integer, not float"):
        table.decide(CHEAPEST, **{name: 1.0})


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("capabilities", 0, I64_MAX),
        ("runtime", 0, 1),
        ("lane", 0, 10**6),
        ("p50_ms", -1, 999_999_999),
        ("priority", -(10**9), 10**9),
        ("context_window", -1, domain.TOKENS_MAX),
        ("input_rate", 0, domain.RATE_MAX),
        ("output_rate", 0, domain.RATE_MAX),
    ],
)
def test_a_row_is_checked_at_the_door(name, least, most):
    for within in (least, most):
        assert len(_core.Table([row(**{name: within})])) == 1
    for beyond in (least - 1, most + 1, I64_MIN, 2**64):
        with pytest.raises(OverflowError, match=f"^row 1: {name} is {least}..{most}, not {beyond}$"):
            _core.Table([row(), row(**{name: beyond})])


def test_tiers_are_at_most_four_and_ascend():
    with pytest.raises(ValueError, match="row 0: at most 4 tiers, not 5"):
        _core.Table([row(tiers=[(above, 1, 1) for above in range(5)])])
    with pytest.raises(ValueError, match="row 0: tiers ascend, but 10 follows 10"):
        _core.Table([row(tiers=((10, 1, 1), (10, 2, 2)))])
    for tier in ((-1, 1, 1), (10**9 + 1, 1, 1), (1, -1, 1), (1, 1, domain.RATE_MAX + 1)):
        with pytest.raises(OverflowError, match=r"row 0: \w+ of a tier is"):
            _core.Table([row(tiers=(tier,))])


def test_bytes_and_figures_have_one_for_each_row():
    table = _core.Table([row(), row()])
    with pytest.raises(ValueError, match="allowed has a byte for each of 2 rows, not 1"):
        table.decide(CHEAPEST, allowed=b"\x01")
    with pytest.raises(ValueError, match="p50_ms has a figure for each of 2 rows, not 3"):
        table.decide(CHEAPEST, p50_ms=array("q", [1, 2, 3]))
    for other in (array("d", [1.0, 2.0]), array("i", [1, 2]), b"12"):
        with pytest.raises(ValueError, match="p50_ms is a row of int64"):
            table.decide(CHEAPEST, p50_ms=other)
    for beyond in (-2, 10**9, I64_MIN, I64_MAX):
        with pytest.raises(OverflowError, match=f"row 1: p50_ms is -1..999999999, not {beyond}"):
            table.decide(CHEAPEST, p50_ms=array("q", [1, beyond]))


@pytest.mark.parametrize("index", [-1, 2, I64_MAX, 2**64])
def test_the_cost_of_no_row_is_refused(index):
    with pytest.raises(OverflowError, match=f"row is 0..1, not {index}"):
        _core.Table([row(), row()]).cost(index, 1, 1)
