"""A step asks where it should run and is handed money to run with: M-A12, M-A13, M-A14, and what a grant may not do."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from acceptance_kit import chat, whole
from money_desk_kit import ADMIN, House, Key, at_once, no_more_asked, until

pytestmark = pytest.mark.usefixtures("clean")

STEP = {
    "task_class": "summarize",
    "budget_ceiling_microdollars": 50_000,
    "latency_tolerance_ms": 30_000,
    "expected_tokens": {"in": 2000, "out": 500},
    "workflow_id": "wf1",
    "step_id": "s1",
}
# The cheapest that everybody knows the price of: 2000 x 0.15 + 500 x 0.6.
CHOSEN = "gpt-4o-mini"
PROMPT_BYTES = 838


@pytest.fixture(scope="module")
def parent(house: House) -> Key:
    return house.key(budget_microdollars=10_000_000)


def route(house: House, key: Key | str | None, **fields: Any) -> Any:
    headers = fields.pop("headers", {})
    token = key.token if isinstance(key, Key) else key
    return house.fetch("POST", "/v1/route", token, json={**STEP, **fields}, headers=headers)


def grant_of(house: House, key: Key, **fields: Any) -> Key:
    told = route(house, key, **fields).json()
    return Key(told["grant"]["id"], told["decision_id"], told["grant"]["key"])


# --- M-A12 ----------------------------------------------------------------------------------------------------------


def test_m_a12_a_step_is_placed_and_granted(house: House, parent: Key) -> None:
    reply = route(house, parent)
    assert reply.status_code == 200
    told = reply.json()
    assert told["verdict"] == "placement"
    assert re.fullmatch(r"rd_[a-z2-7]{26}", told["decision_id"])
    assert told["grant"]["key"].startswith("vk-")
    assert told["grant"]["budget_microdollars"] == 50_000
    assert told["grant"]["expires_at"].endswith("Z")
    assert (told["workflow_id"], told["step_id"]) == ("wf1", "s1")
    assert (told["placement"]["id"], told["placement"]["model"]) == (CHOSEN, f"openai:{CHOSEN}")
    assert told["placement"]["reasons"] == ["capability_match", "cheapest_viable"]
    verdicts = {each["id"]: each["verdict"] for each in told["placement"]["candidates"]}
    assert verdicts[CHOSEN] == "chosen"
    assert verdicts["nobody-knows"] == "excluded"


@pytest.mark.parametrize(
    ("wrong", "error", "field"),
    [
        ({"budget_ceiling_microdollars": 0}, "invalid_descriptor", "budget_ceiling_microdollars"),
        ({"capabilities": ["telekinesis"]}, "invalid_descriptor", "capabilities"),
        ({"task_class": ""}, "invalid_descriptor", "task_class"),
        ({"quality_bar": False}, "quality_bar_unsupported", "quality_bar"),
    ],
)
def test_m_a12_a_bad_descriptor_names_its_field(house: House, parent: Key, wrong: Any, error: str, field: str) -> None:
    reply = route(house, parent, **wrong)
    assert reply.status_code == 422
    assert set(reply.json()) == {"error", "field", "message"}
    assert (reply.json()["error"], reply.json()["field"]) == (error, field)


@pytest.mark.parametrize("token", [None, "vk-nothing", "fr_live_nobody"])
def test_m_a12_without_a_key_there_is_no_route(house: House, token: str | None) -> None:
    reply = route(house, token)
    assert reply.status_code == 401
    assert set(reply.json()) == {"error", "field", "message"}


def test_m_a12_the_same_idempotency_key_is_the_same_grant_and_one_reservation(house: House) -> None:
    key = house.key(budget_microdollars=100_000)
    told = at_once(4, lambda _: route(house, key, headers={"idempotency-key": "again"}))
    assert [one.status_code for one in told] == [200] * 4
    assert len({one.text for one in told}) == 1
    assert house.money(key) == (0, 50_000, 50_000)
    other = route(house, key, headers={"idempotency-key": "again"}, budget_ceiling_microdollars=49_999)
    assert other.status_code == 422
    assert other.json()["error"] == "idempotency_key_reused"
    assert route(house, key, headers={"idempotency-key": "another"}).json() != told[0].json()
    assert house.money(key) == (0, 100_000, 0)


def test_one_callers_idempotency_key_is_nothing_to_another(house: House) -> None:
    told = [route(house, house.key(), headers={"idempotency-key": "shared"}).json() for _ in range(2)]
    assert told[0]["grant"]["key"] != told[1]["grant"]["key"]


def test_to_explain_is_to_decide_without_a_grant(house: House) -> None:
    key = house.key(budget_microdollars=60_000)
    reply = house.fetch("POST", "/v1/route/explain", key.token, json=STEP)
    assert reply.status_code == 200
    assert reply.json()["placement"]["id"] == CHOSEN
    assert reply.json()["grant"] is None
    assert house.money(key) == (0, 0, 60_000)


def test_a_decision_is_kept_without_the_grants_token(house: House, parent: Key) -> None:
    told = route(house, parent).json()
    kept = house.fetch("GET", f"/v1/decisions/{told['decision_id']}", parent.token)
    assert kept.status_code == 200
    assert kept.json()["grant_id"] == told["grant"]["id"]
    assert kept.json()["descriptor"]["task_class"] == "summarize"
    assert told["grant"]["key"] not in kept.text


# --- M-A13 ----------------------------------------------------------------------------------------------------------


def test_m_a13_a_grant_pays_until_it_is_spent(house: House, lab: Any) -> None:
    """18,000 at 3/15 dollars a million, used by 1000/1000; the next request finds nothing left."""
    key = house.key(budget_microdollars=1_000_000, models=["dear"])
    grant = grant_of(house, key, budget_ceiling_microdollars=18_000, expected_tokens={"in": 1000, "out": 1000})
    lab.say("dear", whole(chat("well", usage=(1000, 1000))))
    # As many bytes as make a prompt of a thousand tokens at the very most, so that what is held is what is spent.
    prompt = [{"role": "user", "content": "x" * PROMPT_BYTES}]
    first = house.gateway.ask("dear", headers=grant.bearer, messages=prompt, max_tokens=1000)
    assert first.status == 200, first.body
    assert first.headers["x-router-cost-usd"] == "0.0180000"
    with no_more_asked(lab):
        second = house.gateway.ask("dear", headers=grant.bearer, messages=prompt, max_tokens=1000)
    assert second.status == 402
    assert second.error["code"] == "budget_exhausted"
    until(lambda: house.fetch("GET", f"/v1/grants/{grant.id}", key.token).json()["spent_microdollars"] == 18_000)


def test_m_a13_a_revoked_grant_is_401_and_its_rest_comes_home(house: House, lab: Any) -> None:
    key = house.key(budget_microdollars=50_000)
    grant = grant_of(house, key)
    assert house.ask(grant, CHOSEN, max_tokens=10).status == 200
    ended = house.fetch("DELETE", f"/v1/grants/{grant.id}", key.token)
    assert ended.status_code == 200
    assert ended.json()["state"] == "revoked"
    with no_more_asked(lab):
        until(lambda: house.ask(grant, CHOSEN, max_tokens=10).status == 401, 2)
    until(lambda: house.money(key)[1] == 0)
    spent, _, left = house.money(key)
    assert spent + left == 50_000
    assert spent < 50


def test_m_a13_an_expired_grant_is_401(house: House, lab: Any) -> None:
    """A grant does not outlive the key it was taken from."""
    key = house.key(budget_microdollars=50_000, expires="2s")
    grant = grant_of(house, key)
    assert house.ask(grant, CHOSEN, max_tokens=10).status == 200
    until(lambda: house.ask(grant, CHOSEN, max_tokens=10).status != 200, 4)
    with no_more_asked(lab):
        assert house.ask(grant, CHOSEN, max_tokens=10).status == 401
        assert house.ask(key, CHOSEN, max_tokens=10).status == 401


# --- M-A14 ----------------------------------------------------------------------------------------------------------


def test_m_a14_of_twenty_routes_at_once_two_are_granted(house: House) -> None:
    key = house.key(budget_microdollars=100_000)
    told = at_once(20, lambda _: house.fetch("POST", "/v1/route", key.token, json=STEP))
    granted = [one.json()["grant"] for one in told if one.status_code == 200 and one.json().get("grant")]
    assert len(granted) == 2
    assert sum(one["budget_microdollars"] for one in granted) == 100_000
    for one in told:
        said = one.json()
        if one.status_code == 402:
            assert (said["error"], said["reason"]) == ("grant_failed", "parent_exhausted")
            assert re.fullmatch(r"rd_[a-z2-7]{26}", said["decision_id"])
        else:
            assert one.status_code == 200
            assert said.get("grant") or said["reasons"] == ["cost"] or "cost" in said["reasons"]
    assert house.money(key) == (0, 100_000, 0)


def test_m_b2_a_parent_with_nothing_left_places_nothing(house: House) -> None:
    """Nor does a step that does not say how many tokens it expects."""
    key = house.key(budget_microdollars=0)
    told = route(house, key, expected_tokens=None)
    assert told.json().get("grant") is None
    assert told.json().get("verdict") == "no_candidate" or told.status_code == 402


# --- what a grant may not do ----------------------------------------------------------------------------------------


def test_s9_a_grant_is_good_for_its_model_alone(house: House, parent: Key, lab: Any) -> None:
    grant = grant_of(house, parent)
    with no_more_asked(lab):
        for model in ("dear", "either", "auto", "claude"):
            told = house.ask(grant, model, max_tokens=1)
            assert told.status in (403, 404), (model, told.body)
    for model in (CHOSEN, f"openai:{CHOSEN}"):
        assert house.ask(grant, model, max_tokens=10).status == 200


def test_s9_a_grant_mints_widens_and_ends_nothing(house: House, parent: Key) -> None:
    grant, sibling = grant_of(house, parent), grant_of(house, parent)
    assert route(house, grant).status_code == 403
    assert house.fetch("POST", "/v1/route/explain", grant.token, json=STEP).status_code == 403
    assert house.fetch("DELETE", f"/v1/grants/{grant.id}", grant.token).status_code == 403
    assert house.fetch("DELETE", f"/v1/grants/{sibling.id}", grant.token).status_code == 404
    assert house.fetch("GET", f"/v1/grants/{sibling.id}", grant.token).status_code == 404
    assert house.fetch("GET", f"/v1/decisions/{grant.name}", grant.token).status_code == 403
    assert house.fetch("PATCH", f"/admin/keys/{grant.id}", grant.token, json={"budget_usd": 9}).status_code == 404
    own = house.fetch("GET", f"/v1/grants/{grant.id}", grant.token)
    assert own.status_code == 200
    assert own.json()["limit_microdollars"] == 50_000


def test_s9_a_grant_sees_its_own_usage_and_nothing_of_its_parents(house: House, parent: Key) -> None:
    grant = grant_of(house, parent)
    assert house.ask(parent, CHOSEN, max_tokens=10).status == 200
    mine = house.ask(grant, CHOSEN, max_tokens=10).headers["x-router-receipt-id"]
    until(lambda: house.fetch("GET", f"/v1/receipts/{mine}", grant.token).status_code == 200)
    assert [one["id"] for one in house.fetch("GET", "/v1/receipts", grant.token).json()["data"]] == [mine]
    usage = house.fetch("GET", "/v1/usage", grant.token)
    assert usage.json()["limit_microdollars"] == 50_000
    assert parent.id not in usage.text


def test_what_nobody_routes_is_told_in_the_oracles_words(house: House, parent: Key) -> None:
    for told in (
        route(house, parent, headers={"idempotency-key": "x" * 256}),
        house.fetch("POST", "/v1/route", parent.token, content=b'{"task_class": "a", "task_class": "b"}'),
        house.fetch("POST", "/v1/route", parent.token, content=b"[]"),
    ):
        assert told.status_code in (400, 422), told.text
        assert set(told.json()) == {"error", "field", "message"}
    assert house.fetch("POST", "/v1/route", house.agent().token, json=STEP).status_code == 403
    assert house.fetch("POST", "/v1/route", ADMIN, json=STEP).status_code == 401


def test_nothing_that_fits_is_an_answer(house: House, parent: Key) -> None:
    told = route(house, parent, budget_ceiling_microdollars=1)
    assert told.status_code == 200
    said = told.json()
    assert said["verdict"] == "no_candidate"
    assert said["reasons"] == ["cost", "unpriced"] or set(said["reasons"]) <= {"cost", "unpriced"}
    assert all(each["verdict"] == "excluded" for each in said["candidates"])
    assert "grant" not in said or said["grant"] is None
    json.dumps(said)


def test_what_a_worker_holds_ahead_is_no_reason_to_refuse_a_grant(house: House, lab: Any) -> None:
    """Workers lease before they need it; a grant asks them back for what they do not use."""
    key = house.key(budget_microdollars=100_000)
    lab.say("cheap", whole(chat("well", usage=(10, 90))))
    for _ in range(3):
        assert house.ask(key, "cheap", max_tokens=500).status == 200
    house.spent(key, 300)
    assert house.money(key)[1] > 0, "nothing is leased ahead, so this shows nothing"
    reply = route(house, key, budget_ceiling_microdollars=99_700)
    assert (reply.status_code, reply.json()["grant"]["budget_microdollars"]) == (200, 99_700)
