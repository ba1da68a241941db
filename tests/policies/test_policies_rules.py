"""What a policy tells the rooms above: order and target, caps, parameters, when to go on and how long to wait."""

from __future__ import annotations

import pytest

from fastroute.domain import Descriptor, Entry, LatencyFact, ModelRef, Price, Rates, Snapshot
from fastroute.policies import RETRY_WORDS, Objectives, Parameters, Policy, Routing, Strategy
from fastroute.routing.catalog import Catalog
from fastroute.routing.placement import Route, place
from fastroute.routing.rankers import Ordered


def policy(**said):
    said.setdefault("routing", Routing(("first", "second"), ("third",)))
    return Policy(name="p", **said)


def test_the_models_are_primary_then_backups():
    assert policy().models == ("first", "second", "third")


@pytest.mark.parametrize(("said", "cap"), [(1200, 1200), (2048, 2048), (4096, 2048)])
def test_a_call_asks_for_at_most_2048_tokens(said, cap):
    assert policy(objectives=Objectives(max_tokens=said)).max_tokens_of_call == cap


def test_a_policy_that_ranks_by_price_or_latency_has_no_first_model_to_replace():
    assert policy(objectives=Objectives(p95_latency_ms=900)).target_p95_ms == 900
    assert policy(objectives=Objectives(p95_latency_ms=900, prefer="cost")).target_p95_ms is None


@pytest.mark.parametrize(
    ("samples", "chosen"), [(10, "third"), (9, "first")], ids=["ten samples are enough", "nine are not"]
)
def test_p_a9_a_slow_primary_gives_way_to_the_fastest_backup(samples, chosen):
    """P-A9: target 800 ms, the primary's p95 is 900, the backup's 300."""
    slow = policy(routing=Routing(("first",), ("third",)), objectives=Objectives(p95_latency_ms=800))
    free = Price(Rates(0, 0))
    catalog = Catalog(Entry(id=name, ref=ModelRef("x", name), lane=name, price=free) for name in slow.models)
    route = Route(slow.name, Ordered(slow.models, slow.target_p95_ms))
    latency = {"first": LatencyFact(500, 900, samples), "third": LatencyFact(200, 300, 1)}
    assert place(Descriptor("chat", None, None), catalog, Snapshot(latency=latency), route).id == chosen


def test_parameters_of_a_model_stand_before_those_of_all():
    """Each field by itself: the caller first, then `routing.params`, then `gen`."""
    said = policy(
        routing=Routing(("first",), ("third",), params={"third": Parameters(100, 950, json_mode=False)}),
        gen=Parameters(200, 900, ("\n\nUser:",), True),
    )
    assert said.generation_for("first") == {
        "temperature": 0.2,
        "top_p": 0.9,
        "stop": ["\n\nUser:"],
        "response_format": {"type": "json_object"},
    }
    assert said.generation_for("third") == {"temperature": 0.1, "top_p": 0.95, "stop": ["\n\nUser:"]}
    assert said.generation_for("never heard of") == said.generation_for("first")


def test_an_empty_stop_of_a_model_takes_the_common_one_away():
    said = policy(routing=Routing(("first",), params={"first": Parameters(stop=())}), gen=Parameters(stop=("x",)))
    assert said.generation_for("first") == {}


def test_zero_is_a_temperature():
    assert policy(gen=Parameters(temperature_thousandths=0)).generation_for("first") == {"temperature": 0.0}


def test_what_a_caller_is_handed_can_be_changed_without_changing_the_policy():
    said = policy(gen=Parameters(stop=("x",)))
    said.generation_for("first")["stop"].append("y")
    assert said.generation_for("first") == {"stop": ["x"]}


@pytest.mark.parametrize(
    ("words", "outcome", "fault", "expected"),
    [
        ((), "stall", "first_chunk", True),
        ((), "5xx", None, False),
        ((), "connect", "connect_timeout", False),
        (("5xx",), "5xx", None, True),
        (("5xx",), "connect", "dns", True),
        (("5xx",), "cut", "cut", True),
        (("5xx",), "protocol", "protocol", True),
        (("5xx",), "rate_limit", None, False),
        (("5xx",), "low_quality", None, False),
        (("5xx",), "auth", None, False),
        (("rate_limit",), "rate_limit", None, True),
        (("rate_limit",), "5xx", None, False),
        (("connect",), "connect", "dns", True),
        (("connect",), "5xx", None, False),
        (("connect_timeout",), "connect", "connect_timeout", True),
        (("connect_timeout",), "connect", "dns", False),
        (("low_quality",), "low_quality", None, True),
        (("auth",), "auth", None, True),
    ],
)
def test_only_what_is_listed_falls_over_and_a_stall_always(words, outcome, fault, expected):
    """P-A3, P-B11: a provider nobody could reach is what a gateway before it would have told as 5xx."""
    assert policy(strategy=Strategy(retry_on=words)).falls_over(outcome, fault) is expected


@pytest.mark.parametrize("outcome", ["http_4xx", "gone", "ok"])
def test_what_the_caller_did_never_falls_over(outcome):
    """P-A3: a 400 is the same 400 everywhere."""
    assert not policy(strategy=Strategy(retry_on=RETRY_WORDS)).falls_over(outcome)


@pytest.mark.parametrize(("pauses", "waited"), [((100, 300), [100, 300, 300, 300]), ((50,), [50] * 4), ((), [0] * 4)])
def test_the_last_pause_holds_for_all_that_follow(pauses, waited):
    said = policy(strategy=Strategy(backoff_ms=pauses))
    assert [said.pause_ms(fallbacks) for fallbacks in (1, 2, 3, 4)] == waited


def test_fallbacks_are_told_from_the_threshold_on_and_never_without_one():
    told = policy(strategy=Strategy(escalate_after_fallbacks=2))
    assert [told.escalates(fallbacks) for fallbacks in (0, 1, 2, 3)] == [False, False, True, True]
    assert not policy().escalates(9)
