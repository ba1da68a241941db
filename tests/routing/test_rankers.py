"""Tiers, weights and orders: each ranker's rules, over the same filters and the same verdict table."""

import json

import pytest

from fastroute import Catalog, Entry, ModelRef, Ordered, Price, Rates, Route, Snapshot, Tiers, Weighted, place
from fastroute.domain import LatencyFact, Placement
from fastroute.money import usd_from_picodollars
from fastroute.routing import chat, tiers
from fastroute.routing.tiers import Thresholds, choose, too_long

SMALL = Price(Rates(100_000, 300_000))
MEDIUM = Price(Rates(400_000, 2_000_000))
MISTRAL = Catalog(
    [
        Entry(id, ModelRef("mistral", id), "mistral", capabilities=("tools", "json"), price=price)
        for id, price in (("mistral-small-latest", SMALL), ("mistral-medium-latest", MEDIUM))
    ]
)
AUTO = Route("auto", Tiers("mistral-small-latest", "mistral-medium-latest"))


def counted(*contents, **fields):
    messages = [{"role": "user", "content": content} for content in contents]
    return chat.facts(chat.decode(json.dumps({"model": "auto", "messages": messages} | fields).encode()))


def asked(*contents, thresholds=Thresholds(), **fields):
    return choose(counted(*contents, **fields), thresholds)


def auto(*contents, **fields):
    body = json.dumps(
        {"model": "auto", "messages": [{"role": "user", "content": content} for content in contents]} | fields
    )
    request = chat.decode(body.encode())
    facts = chat.facts(request)
    return place(chat.infer(request, facts), MISTRAL, Snapshot(), AUTO, facts)


def cost(id, tokens_in, tokens_out):
    return usd_from_picodollars(MISTRAL.table.cost(MISTRAL.position[id], tokens_in, tokens_out))


TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


def test_t_a1_a_short_question_goes_to_small_and_its_cost_is_exact():
    question = "What is the capital of France?"
    assert counted(question).estimated_tokens == 12
    placement = auto(question)
    assert (placement.id, placement.reasons) == ("mistral-small-latest", ("default_small",))
    assert placement.order == ("mistral-small-latest", "mistral-medium-latest")
    assert cost("mistral-small-latest", 11, 15) == "0.0000056"


def test_t_a2_tools_go_to_medium():
    placement = auto("Extract user info", tools=[TOOL])
    assert (placement.id, placement.reasons) == ("mistral-medium-latest", ("function_calling",))
    assert placement.order == ("mistral-medium-latest",)
    assert cost("mistral-medium-latest", 210, 34) == "0.0001520"
    assert cost("mistral-medium-latest", 11, 15) == "0.0000344"


def test_t_a3_the_cost_table_of_the_seed_holds():
    assert cost("mistral-small-latest", 200, 200) == "0.0000800"
    assert cost("mistral-medium-latest", 200, 200) == "0.0004800"
    assert MISTRAL.table.cost(0, 200_000_000, 200_000_000) == 80 * 10**12
    assert MISTRAL.table.cost(1, 200_000_000, 200_000_000) == 480 * 10**12
    assert MISTRAL.table.cost(0, 10**9, 10**9) == 400 * 10**12
    assert MISTRAL.table.cost(1, 10**9, 10**9) == 2400 * 10**12


def test_t_a4_each_threshold_is_passed_only_beyond_itself():
    assert asked("x" * 120) == ("small", "default_small")
    assert asked("x" * 121) == ("medium", "heuristic_length")
    assert asked(*["x"] * 6) == ("small", "default_small")
    assert asked(*["x"] * 7) == ("medium", "heuristic_conversation")
    long = Thresholds(length=10_000)
    assert asked("x" * 580, thresholds=long) == ("small", "default_small")
    assert asked("x" * 584, thresholds=long) == ("medium", "heuristic_tokens")


def test_t_a5_rules_have_an_order():
    everything = ("please analyze this " + "x" * 600,)
    assert asked(*everything, tools=[TOOL]) == ("medium", "function_calling")
    assert asked(*everything, response_format={"type": "json_object"}) == ("medium", "json_mode")
    assert asked("hi", response_format={"type": "json_schema", "json_schema": {}}) == ("medium", "json_mode")
    assert asked("hi", response_format={"type": "text"}) == ("small", "default_small")
    assert asked("hi", tools=[]) == ("small", "default_small")
    assert asked("hi", tools=None) == ("small", "default_small")
    assert asked("Analyze this.") == ("medium", "heuristic_keyword")


def test_t_a10_a_keyword_is_a_whole_word():
    for innocent in (
        "How do I improve my grip?",
        "Is this price reasonable?",
        "Show me a preview.",
        "Do you approve?",
    ):
        assert asked(innocent) == ("small", "default_small")
    for telling in ("Prove it.", "Give me a REVIEW, please", "compare and contrast the two"):
        assert asked(telling) == ("medium", "heuristic_keyword")


def test_a_keyword_in_an_assistants_turn_does_not_count():
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Let me analyze"}]
    request = chat.decode(json.dumps({"model": "auto", "messages": messages}).encode())
    assert choose(chat.facts(request), Thresholds()) == ("small", "default_small")


def test_every_keyword_is_found_by_itself():
    for word in tiers.KEYWORDS:
        assert asked(word) == ("medium", "heuristic_keyword")


def test_t_a12_a_prompt_beyond_the_input_limit_is_refused_before_any_rule():
    limit = Thresholds(max_input_tokens=4096)
    assert not too_long(counted("x" * 4 * 4091), limit)
    assert too_long(counted("x" * 4 * 4092), limit)
    assert not too_long(counted("x" * 100_000), Thresholds())


def test_parts_of_a_message_count_as_its_text_and_images_as_a_need():
    content = [
        {"type": "text", "text": "what is this?"},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
    ]
    request = chat.decode(json.dumps({"model": "auto", "messages": [{"role": "user", "content": content}]}).encode())
    facts = chat.facts(request)
    assert facts.characters == 13
    assert chat.infer(request, facts).capabilities == ("vision",)


# --- weighted ---------------------------------------------------------------------------------------------------------

PAIR = Catalog(
    [
        Entry("gpt-any", ModelRef("openai", "gpt-any"), "openai", price=MEDIUM),
        Entry("local_m", ModelRef("local", "local_m"), "local", "local", price=Price(Rates(0, 0))),
    ]
)


def weighed(prompt, latencies=None, **settings):
    request = chat.decode(json.dumps({"model": "w", "messages": [{"role": "user", "content": prompt}]}).encode())
    facts = chat.facts(request)
    snapshot = Snapshot(latency={id: LatencyFact(p50_ms=ms) for id, ms in (latencies or {}).items()})
    return place(chat.infer(request, facts), PAIR, snapshot, Route("w", Weighted(**settings)), facts)


def test_i_a12_above_the_threshold_local_runs_whatever_the_latencies_say():
    placement = weighed("x" * 10, {"local_m": 9000, "gpt-any": 1}, cost_threshold=5, cost_weight=0)
    assert (placement.id, placement.reasons[-1]) == ("local_m", "cost_threshold")
    assert weighed("x" * 5, {"local_m": 9000, "gpt-any": 1}, cost_threshold=5, cost_weight=0).id == "gpt-any"


def test_i_a12_below_it_the_lower_score_runs_and_local_wins_a_tie():
    assert weighed("x" * 10, {"local_m": 2000, "gpt-any": 100}, cost_threshold=100, cost_weight=0).id == "gpt-any"
    assert weighed("x" * 10, {"local_m": 500, "gpt-any": 500}, cost_threshold=100, cost_weight=0).id == "local_m"
    assert weighed("x" * 10, cost_threshold=100, cost_weight=0).id == "local_m"


def test_a_threshold_in_microdollars_weighs_what_the_request_costs():
    """C18: the old threshold counts characters; this one counts money."""
    request = chat.decode(b'{"model":"w","max_tokens":1000,"messages":[{"role":"user","content":"hi"}]}')
    facts = chat.facts(request)
    descriptor = chat.infer(request, facts)
    cost_micro = 2003  # 6 tokens in at 0.4 and 1000 out at 2 dollars per million
    assert descriptor.expected_tokens.input == 6
    slow_local = Snapshot(latency={"local_m": LatencyFact(p50_ms=90_000)})
    for threshold, winner in ((cost_micro - 1, "local_m"), (cost_micro, "gpt-any")):
        route = Route("w", Weighted(cost_weight=0, cost_threshold_microdollars=threshold))
        assert place(descriptor, PAIR, slow_local, route, facts).id == winner


# --- ordered ----------------------------------------------------------------------------------------------------------

THREE = Catalog([Entry(id, ModelRef("p", id), id, price=SMALL) for id in ("b2", "a", "b1")])


def ordered(target_p95_ms=None, snapshot=Snapshot()):
    route = Route("r", Ordered(("a", "b1", "b2"), target_p95_ms))
    outcome = place(chat.infer(*hello()), THREE, snapshot, route)
    assert isinstance(outcome, Placement)
    return outcome


def hello():
    request = chat.decode(b'{"model":"r","messages":[{"role":"user","content":"hi"}]}')
    return request, chat.facts(request)


def test_p_a9_a_slow_primary_with_enough_samples_lets_the_fastest_backup_go_first():
    slow = LatencyFact(p95_ms=900, samples=10)
    backup = LatencyFact(p95_ms=300, samples=3)
    placement = ordered(800, Snapshot(latency={"a": slow, "b2": backup, "b1": LatencyFact(p95_ms=400, samples=3)}))
    assert (placement.order, placement.reasons) == (("b2", "a", "b1"), ("p95_prepick",))


@pytest.mark.parametrize(
    "latency",
    [
        {"a": LatencyFact(p95_ms=900, samples=9), "b1": LatencyFact(p95_ms=300)},
        {"a": LatencyFact(p95_ms=900, samples=10)},
        {"a": LatencyFact(p95_ms=800, samples=10), "b1": LatencyFact(p95_ms=300)},
        {},
    ],
)
def test_p_a9_otherwise_the_primary_goes_first(latency):
    placement = ordered(800, Snapshot(latency=latency))
    assert (placement.order, placement.reasons) == (("a", "b1", "b2"), ("route_primary",))


def test_a_backup_that_runs_because_the_primary_is_down_says_so():
    placement = ordered(snapshot=Snapshot(lanes={"a": "degraded"}))
    assert (placement.id, placement.reasons) == ("b1", ("route_backup",))
