"""The clients against a real gateway: grants are minted, spent, looked at and ended."""

import re
import time

import httpx
import pytest

from fastroute import Price, Rates, RouteHTTPError, parse_descriptor
from fastroute.client import RouteClient
from fastroute.sessions import session

HAIKU = Price(Rates(1_000_000, 5_000_000))


def wait_until(true, within_s=5.0):
    """A settlement reaches the books a moment after the answer."""
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


def test_a_step_is_placed_and_granted(ask, served, descriptor):
    """M-A12: the seed's own request."""
    told = ask(served.url, served.key(), "route", descriptor, workflow_id="wf_demo_001", step_id="step_extract")
    assert told.verdict == "placement"
    assert (told.placement.id, told.placement.model, told.placement.lane) == ("haiku", "up:haiku", "up")
    assert (told.placement.runtime, told.placement.cost_microdollars_max) == ("managed", 4_500)
    assert told.reasons == ("capability_match", "cheapest_viable")
    assert [(each.id, each.verdict) for each in told.candidates] == [("haiku", "chosen"), ("sonnet", "ranked")]
    assert re.fullmatch(r"rd_[a-z2-7]{26}", told.decision_id)
    assert (told.workflow_id, told.step_id) == ("wf_demo_001", "step_extract")
    assert told.snapshot_at is not None
    assert told.grant.key.startswith("vk-")
    assert told.grant.budget_microdollars == 50_000
    assert told.grant.expires_at is not None


def test_one_idempotency_key_gets_one_grant(ask, served, descriptor):
    key = served.key(60_000)
    first = ask(served.url, key, "route", parse_descriptor(descriptor), idempotency_key="again")
    assert ask(served.url, key, "route", parse_descriptor(descriptor), idempotency_key="again") == first


def test_explaining_mints_nothing(ask, served, descriptor):
    key = served.key(50_000)
    assert ask(served.url, key, "explain", descriptor).grant is None
    assert ask(served.url, key, "route", descriptor).grant.budget_microdollars == 50_000


def test_that_nothing_fits_comes_with_every_reason(ask, served, descriptor):
    """M-B9: a class and a detail, in no language's own spelling."""
    told = ask(served.url, served.key(), "route", {**descriptor, "capabilities": ["vision"]})
    assert (told.verdict, told.placement, told.grant) == ("no_candidate", None, None)
    assert told.reasons == ("capability",)
    assert [(each.id, each.reason, each.detail) for each in told.candidates] == [
        ("haiku", "capability", ["vision"]),
        ("sonnet", "capability", ["vision"]),
    ]


def test_what_is_spent_with_a_grant_is_seen_and_the_rest_comes_back(served, descriptor):
    """The granted key and the router's address are all that a session's client needs."""
    with RouteClient(served.url, served.key(50_000)) as client:
        told = client.route(descriptor)
        assert client.grant(told.grant.id).remaining_microdollars == 50_000
        assert client.explain(descriptor).reasons == ("cost",), "the whole budget is in the grant"
        config = session(told, base_url=client.base_url, price=HAIKU).model_config
        answer = httpx.post(
            f"{config.base_url}/v1/chat/completions",
            headers={"authorization": f"Bearer {config.api_key}"},
            json={"model": told.placement.id, "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]},
        )
        assert answer.status_code == 200, answer.text
        usage = answer.json()["usage"]
        spent = usage["prompt_tokens"] * 1 + usage["completion_tokens"] * 5
        assert session(told, price=HAIKU).turn_guard(usage, 1) is None
        assert client.revoke(told.grant.id).state == "revoked"
        wait_until(lambda: client.grant(told.grant.id).spent_microdollars == spent)
        assert (client.grant(told.grant.id).state, client.grant(told.grant.id).models[0]) == ("revoked", "haiku")
        wait_until(lambda: client.explain(descriptor).verdict == "placement")


@pytest.mark.parametrize(
    ("change", "status", "error", "field"),
    [
        ({"task_class": ""}, 422, "invalid_descriptor", "task_class"),
        ({"quality_bar": False}, 422, "quality_bar_unsupported", "quality_bar"),
    ],
)
def test_a_refused_descriptor_names_its_field(ask, served, descriptor, change, status, error, field):
    with pytest.raises(RouteHTTPError) as caught:
        ask(served.url, served.key(), "route", {**descriptor, **change})
    assert caught.value.status == status
    assert (caught.value.body["error"], caught.value.body["field"]) == (error, field)


def test_an_unknown_key_is_refused_and_not_repeated(ask, served, descriptor):
    served.key()
    with pytest.raises(RouteHTTPError) as caught:
        ask(served.url, "fr_live_nobody_knows_this", "route", descriptor)
    assert caught.value.status == 401
    assert "nobody_knows_this" not in str(caught.value)


def test_an_unknown_grant_is_not_found(ask, served):
    with pytest.raises(RouteHTTPError) as caught:
        ask(served.url, served.key(), "grant", "no-such-grant")
    assert caught.value.status == 404
