"""What a client makes of an answer of `POST /v1/route`, whichever router gave it."""

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastroute import RouteResponse, RouteResponseError
from fastroute.routed import Candidate, Grant, GrantStatus, RoutedPlacement, decode, decode_status, parse

KEY = "vk-parent_0123456789abcdef"
PLACED = {
    "verdict": "placement",
    "placement": {
        "id": "claude",
        "lane": "anthropic",
        "model": "anthropic:claude-sonnet-4-6",
        "runtime": "managed",
        "cost_microdollars_max": 13_500,
        "reasons": ["capability_match", "cheapest_viable"],
        "candidates": [
            {"id": "claude", "verdict": "chosen"},
            {"id": "qwen", "verdict": "excluded", "reason": "capability", "detail": ["vision"]},
        ],
    },
    "grant": {"key": KEY, "expires_at": None, "budget_microdollars": 50_000, "id": "g-1"},
    "workflow_id": "wf1",
    "step_id": "s1",
    "decision_id": "rd_abc",
    "snapshot_at": "2026-07-04T00:00:00Z",
}
NOTHING_FITS = {
    "verdict": "no_candidate",
    "reasons": ["health"],
    "candidates": [{"id": "claude", "verdict": "excluded", "reason": "health", "detail": "degraded"}],
    "decision_id": "rd_def",
}


def placed(**changes):
    return parse({**PLACED, **changes})


def test_a_placement_is_read_whole():
    assert placed() == RouteResponse(
        "placement",
        RoutedPlacement("anthropic:claude-sonnet-4-6", "claude", "anthropic", "managed", 13_500),
        Grant(KEY, None, 50_000, "g-1"),
        ("capability_match", "cheapest_viable"),
        (Candidate("claude", "chosen"), Candidate("qwen", "excluded", "capability", ["vision"])),
        "wf1",
        "s1",
        "rd_abc",
        "2026-07-04T00:00:00Z",
    )


def test_that_nothing_fits_is_an_answer():
    assert parse(NOTHING_FITS) == RouteResponse(
        "no_candidate",
        reasons=("health",),
        candidates=(Candidate("claude", "excluded", "health", "degraded"),),
        decision_id="rd_def",
    )


@pytest.mark.parametrize("field", ["reasons", "candidates"])
def test_reasons_and_candidates_are_surfaced_from_either_level(field):
    """Some routers put them beside the placement and some in it; an asker finds them in one place."""
    inside = dict(PLACED["placement"])
    beside = inside.pop(field)
    assert placed(placement=inside, **{field: beside}) == placed()


@pytest.mark.parametrize(
    ("beside", "reasons"),
    [([], ()), (["beside"], ("beside",)), (None, ("within",)), (False, ("within",)), ("beside", ("within",))],
)
def test_a_list_beside_the_placement_wins_even_an_empty_one(beside, reasons):
    """M-B15: what is given is taken as it stands; only what is not there is looked for elsewhere."""
    assert placed(reasons=beside, placement={"model": "m", "reasons": ["within"]}).reasons == reasons


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "placement",
        7,
        {},
        {**PLACED, "verdict": None},
        {**PLACED, "verdict": "maybe"},
        {**PLACED, "verdict": ["a"]},
    ],
)
def test_what_is_no_object_or_has_no_known_verdict_is_no_answer(body):
    with pytest.raises(RouteResponseError, match=r"^invalid_route_response: ") as caught:
        parse(body)
    assert caught.value.kind == "invalid_route_response"


@pytest.mark.parametrize(
    "placement", [None, [], "m", {}, {"model": None}, {"model": ""}, {"model": 5}, {"id": "claude"}]
)
def test_a_placement_without_a_model_is_no_answer(placement):
    with pytest.raises(RouteResponseError, match="a placement without a model"):
        placed(placement=placement)


@pytest.mark.parametrize("text", [b"", b"{", b"<html>", b"\xff", b"[" * 100_000, b'{"verdict":"placement"} and more'])
def test_what_is_no_json_is_no_answer(text):
    with pytest.raises(RouteResponseError, match="are no JSON"):
        decode(text)


@pytest.mark.parametrize(
    "grant", [None, False, "vk-x", [], {}, {"key": None}, {"key": ""}, {"key": 5}, {"expires_at": "x"}]
)
def test_a_grant_without_a_key_is_no_grant(grant):
    assert placed(grant=grant).grant is None


@pytest.mark.parametrize("budget", [-1, 1.5, "50000", True, [], 1e300])
def test_a_budget_that_is_no_amount_is_never_taken_for_no_limit(budget):
    with pytest.raises(RouteResponseError, match="budget"):
        placed(grant={"key": KEY, "budget_microdollars": budget})


@pytest.mark.parametrize(
    ("budget", "read"), [({}, None), ({"budget_microdollars": None}, None), ({"budget_microdollars": 0}, 0)]
)
def test_no_budget_is_no_limit_and_zero_is_zero(budget, read):
    assert placed(grant={"key": KEY, **budget}).grant.budget_microdollars == read


def test_candidates_without_an_id_are_skipped():
    candidates = [{"verdict": "chosen"}, {"id": None}, {"id": ""}, {"id": 3}, "claude", None, {"id": "b"}]
    assert placed(candidates=candidates).candidates == (Candidate("b"),)


def test_a_no_candidate_has_no_grant_whatever_comes_with_it():
    told = parse({**PLACED, "verdict": "no_candidate"})
    assert (told.placement, told.grant) == (None, None)


def test_what_other_routers_add_is_passed_over():
    assert placed(extra={"a": 1}, placement={**PLACED["placement"], "zone": "eu"}) == placed()


def test_no_repr_shows_a_key_whole():
    grant = placed().grant
    for shown in (repr(grant), repr(placed()), str(placed()), repr(grant.__rich_repr__())):
        assert KEY not in shown
        assert KEY[:8] in shown
        assert KEY[9:] not in shown


def test_the_state_of_a_grant_is_read():
    said = {"id": "g-1", "state": "live", "models": ["m"], "spent_microdollars": 6, "unknown": 1}
    assert decode_status(json.dumps(said).encode()) == GrantStatus("g-1", "live", None, ("m",), spent_microdollars=6)


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"id": "g"}', b'{"id": 1, "state": "live"}', b"[" * 100_000])
def test_what_is_no_state_of_a_grant_is_no_answer(text):
    with pytest.raises(RouteResponseError):
        decode_status(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["placement", KEY]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=20_000 if "FASTROUTE_TORTURE" in os.environ else 150, deadline=None)
@given(
    st.fixed_dictionaries({}, optional={**dict.fromkeys(PLACED, JSON), "verdict": st.sampled_from(["placement", 1])})
)
def test_whatever_comes_is_an_answer_or_one_fault_and_no_key_is_shown(body):
    try:
        shown = repr(parse({**PLACED, **body}))
    except RouteResponseError as fault:
        shown = str(fault)
    assert f"key={KEY}" not in shown
    assert f"key='{KEY}" not in shown
