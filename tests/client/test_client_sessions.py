"""From a route response to what a session is made with, or to a refusal before it begins."""

import re

import msgspec
import pytest

from fastroute import Price, Rates, RouteError, Usage
from fastroute.guard import Halt, caps
from fastroute.routed import Grant, RoutedPlacement, RouteResponse, parse
from fastroute.sessions import SessionError, session

KEY = "vk-grant_0123456789abcdef"
PRICE = Price(Rates(1_000_000, 1_000_000))
PLACED = RouteResponse(
    "placement",
    RoutedPlacement("anthropic:claude-sonnet-4-6", "claude", "anthropic"),
    Grant(KEY, budget_microdollars=1_000),
    workflow_id="wf1",
    step_id="s1",
    decision_id="rd_abc",
)


def test_a_session_has_the_granted_key_the_address_and_the_names_of_the_decision():
    made = session(PLACED, base_url="http://gateway", request_id="req_1")
    names = {"request_id": "req_1", "decision_id": "rd_abc", "workflow_id": "wf1", "step_id": "s1"}
    config = made.model_config
    assert (config.model, config.api_key, config.base_url) == ("anthropic:claude-sonnet-4-6", KEY, "http://gateway")
    assert config.metadata == made.telemetry_metadata == names
    assert list(msgspec.to_builtins(config)) == ["model", "api_key", "base_url", "metadata"]


def test_a_request_id_is_made_where_none_is_given_and_never_twice():
    made = [session(PLACED).telemetry_metadata["request_id"] for _ in range(20)]
    assert len(set(made)) == 20
    assert all(re.fullmatch(r"req_route_[A-Za-z0-9_-]{16}", each) for each in made)


def test_without_an_address_the_runtime_does_not_go_through_the_gateway():
    assert session(PLACED).model_config.base_url is None


def test_the_guard_holds_the_session_to_the_caps_and_then_to_the_grant():
    guard = session(PLACED, caps=caps(max_turns=5), price=PRICE).turn_guard
    assert guard(Usage(999), 4) is None
    assert guard(Usage(1_000), 5) == Halt("max_turns", 5, 5)
    assert guard(Usage(1_000), 4) == Halt("budget_exceeded", 1_000, 1_000)


def test_a_grant_without_a_budget_makes_a_session_that_only_its_caps_halt():
    unlimited = msgspec.structs.replace(PLACED, grant=Grant(KEY))
    assert session(unlimited).turn_guard(Usage(10**9, 10**9), 10**6) is None


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (
            {"verdict": "no_candidate", "reasons": ["health", "cost"], "decision_id": "rd_1"},
            "no_candidate: health, cost; rd_1",
        ),
        ({"verdict": "no_candidate"}, "no reason given"),
        ({"verdict": "placement", "placement": {"model": "m"}, "decision_id": "rd_2"}, r"no grant.*rd_2"),
        ({"verdict": "placement", "placement": {"model": "m"}, "grant": {"expires_at": "x"}}, "without a key"),
    ],
)
def test_nothing_to_begin_with_is_refused_at_composition(body, says):
    with pytest.raises(SessionError, match=says) as caught:
        session(parse(body))
    assert isinstance(caught.value, RouteError)


def test_no_repr_shows_the_key():
    made = session(PLACED, base_url="http://gateway")
    for shown in (repr(made), repr(made.model_config), repr(made.model_config.__rich_repr__())):
        assert KEY not in shown
        assert KEY[9:] not in shown


def test_what_a_runtime_adds_to_its_telemetry_stays_there():
    made = session(PLACED)
    made.telemetry_metadata["span"] = "x"
    assert "span" not in made.model_config.metadata
