"""Runtimes that lease money with an agent's token: R-A12 to R-A16 as the panel answers them, over its HTTP routes."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from money_desk_kit import ADMIN, PROVIDER_KEY, House, Key, at_once

USD = 1_000_000


def post(house: House, path: str, agent: Key | None = None, prefix: str = "/api/v1", **fields: Any) -> Any:
    return house.fetch("POST", f"{prefix}{path}", None if agent is None else agent.token, json=fields)


def handshake(house: House, agent: Key, requested: int | None = None, prefix: str = "/api/v1") -> Any:
    more = {} if requested is None else {"requested_budget": requested}
    return post(house, "/budget/handshake", agent, prefix, ic_token=agent.token, provider="openai", **more)


def report(house: House, agent: Key, lease: str, request: str, cost: int) -> Any:
    fields = {"tokens": 10, "cost_microdollars": cost, "model": "gpt-4o-mini", "provider": "openai"}
    return post(house, "/budget/report", agent, lease_id=lease, request_id=request, **fields)


def refused(reply: Any, status: int, code: str | None = None) -> str:
    assert reply.status_code == status, reply.text
    body = reply.json()
    assert {"error", "code"} <= set(body)
    if code is not None:
        assert body["code"] == code
    return str(body["error"])


# --- R-A12 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["/api/v1", "/api"])
def test_r_a12_a_handshake_leases_ten_dollars_of_a_hundred(house: House, prefix: str) -> None:
    agent = house.agent(budget_usd=100)
    reply = handshake(house, agent, prefix=prefix)
    assert reply.status_code == 200, reply.text
    told = reply.json()
    assert set(told) == {"ip_token", "lease_id", "budget_granted", "budget_remaining", "expires_at"}
    assert (told["budget_granted"], told["budget_remaining"]) == (10 * USD, 90 * USD)
    assert told["lease_id"].startswith("lease_")
    assert uuid.UUID(told["lease_id"].removeprefix("lease_")).version == 4
    assert told["ip_token"].startswith("ip_")


def test_r_a12_the_token_may_come_in_the_body_alone(house: House) -> None:
    agent = house.agent(budget_usd=100)
    reply = post(house, "/budget/handshake", ic_token=agent.token, provider="openai")
    assert reply.status_code == 200


def test_r_a12_five_left_of_ten_asked_is_five(house: House) -> None:
    assert handshake(house, house.agent(budget_usd=5)).json()["budget_granted"] == 5 * USD


def test_r_a12_after_five_leases_of_ten_on_fifty_there_is_none(house: House) -> None:
    agent = house.agent(budget_usd=50)
    assert [handshake(house, agent).status_code for _ in range(5)] == [200] * 5
    assert refused(handshake(house, agent), 403) == "Budget limit exceeded"


def test_r_a12_of_two_handshakes_at_once_for_the_whole_one_is_refused(house: House) -> None:
    agent = house.agent(budget_usd=10)
    assert sorted(one.status_code for one in at_once(2, lambda _: handshake(house, agent))) == [200, 403]


@pytest.mark.parametrize(
    ("requested", "status"), [(100 * USD, 200), (100 * USD + 1, 400), (0, 400), (-1, 400), (2**70, 400)]
)
def test_r_a12_what_may_be_asked_for(house: House, requested: int, status: int) -> None:
    reply = handshake(house, house.agent(budget_usd=1000), requested)
    assert reply.status_code == status
    if status != 200:
        refused(reply, 400, "VALIDATION_ERROR")


def test_r_a12_a_token_that_cannot_be_one_is_400_and_one_that_is_nobodys_401(house: House) -> None:
    refused(post(house, "/budget/handshake", ic_token="agent_abc", provider="openai"), 400, "INVALID_TOKEN")
    refused(post(house, "/budget/handshake", ic_token="ic_" + "x" * 2000, provider="openai"), 400, "INVALID_TOKEN")
    refused(post(house, "/budget/handshake", ic_token=house.key().token, provider="openai"), 400, "INVALID_TOKEN")
    refused(post(house, "/budget/handshake", ic_token="", provider="openai"), 400, "INVALID_TOKEN")
    refused(post(house, "/budget/handshake", provider="openai"), 400)
    agent = house.agent()
    house.admin("DELETE", f"/keys/{agent.id}")
    refused(handshake(house, agent), 401, "UNAUTHORIZED")
    other = house.agent()
    reply = post(house, "/budget/handshake", house.agent(), ic_token=other.token, provider="openai")
    refused(reply, 400, "INVALID_TOKEN")


def test_r_a12_lengths_are_bounded(house: House) -> None:
    agent = house.agent(budget_usd=10)
    refused(post(house, "/budget/handshake", agent, ic_token=agent.token, provider="p" * 51), 400, "VALIDATION_ERROR")
    lease = handshake(house, agent).json()["lease_id"]
    refused(report(house, agent, lease, "r" * 101, 1), 400, "VALIDATION_ERROR")
    refused(report(house, agent, "l" * 101, "r", 1), 400, "VALIDATION_ERROR")


def test_r_b13_an_agent_of_another_provider_leases_although_its_runtime_says_openai(house: House) -> None:
    agent = house.agent(metadata={"provider": "anthropic"}, budget_usd=10)
    assert handshake(house, agent).status_code == 200


def test_r_b13_a_provider_without_a_key_is_404_and_leases_nothing(house: House) -> None:
    agent = house.agent(metadata={"provider": "mistral"}, budget_usd=10)
    refused(handshake(house, agent), 404, "PROVIDER_NOT_FOUND")
    assert house.money(agent) == (0, 0, 10 * USD)


# --- R-A13 ----------------------------------------------------------------------------------------------------------


def test_r_a13_allocated_is_spent_and_leased_and_free(house: House) -> None:
    agent = house.agent(budget_usd=100)
    lease = handshake(house, agent).json()["lease_id"]
    for _ in range(2):  # the same request again changes nothing
        told = report(house, agent, lease, "r1", 2 * USD)
        assert told.status_code == 200
        assert told.json()["success"] is True
        assert told.json()["budget_remaining"] == 90 * USD
        assert house.money(agent) == (2 * USD, 8 * USD, 90 * USD)
    back = post(house, "/budget/return", agent, lease_id=lease, spent_microdollars=0)
    assert back.json() == {"success": True, "returned": 8 * USD}
    assert house.money(agent) == (2 * USD, 0, 98 * USD)
    assert refused(post(house, "/budget/return", agent, lease_id=lease), 400) == "Lease is not active"
    refused(post(house, "/budget/return", agent, lease_id="lease_none"), 404)


def test_r_a13_reports_at_once_of_one_request_are_one(house: House) -> None:
    agent = house.agent(budget_usd=100)
    lease = handshake(house, agent).json()["lease_id"]
    told = at_once(8, lambda _: report(house, agent, lease, "once", USD))
    assert [one.status_code for one in told] == [200] * 8
    assert house.money(agent) == (USD, 9 * USD, 90 * USD)


# --- R-A14 ----------------------------------------------------------------------------------------------------------


def test_r_a14_a_refresh_is_a_new_lease_and_the_old_ones_cost_is_not_lost(house: House) -> None:
    agent = house.agent(budget_usd=100)
    old = handshake(house, agent).json()["lease_id"]
    assert report(house, agent, old, "r1", 5 * USD).status_code == 200
    reply = post(house, "/budget/refresh", agent, ic_token=agent.token, current_lease_id=old, requested_budget=20 * USD)
    told = reply.json()
    assert (told["status"], told["budget_granted"]) == ("approved", 20 * USD)
    assert told["lease_id"] != old
    assert house.money(agent) == (5 * USD, 20 * USD, 75 * USD)
    late = report(house, agent, old, "r2", USD)
    assert refused(late, 403) == "Lease expired"
    assert house.money(agent) == (6 * USD, 20 * USD, 74 * USD)


def test_r_a14_a_report_beyond_the_lease_is_refused_and_charged(house: House) -> None:
    agent = house.agent(budget_usd=100)
    lease = handshake(house, agent, USD).json()["lease_id"]
    assert refused(report(house, agent, lease, "r1", 3 * USD), 403) == "Insufficient lease budget"
    assert house.money(agent)[0] == 3 * USD


def test_an_agent_that_is_revoked_ends_its_leases(house: House) -> None:
    agent = house.agent(budget_usd=100)
    lease = handshake(house, agent).json()["lease_id"]
    assert house.admin("DELETE", f"/keys/{agent.id}").status_code == 200
    refused(report(house, agent, lease, "r1", USD), 401, "UNAUTHORIZED")
    assert house.money(agent) == (0, 0, 100 * USD)


def test_s10_another_agents_lease_is_not_there(house: House) -> None:
    mine, other = house.agent(budget_usd=10), house.agent(budget_usd=10)
    lease = handshake(house, mine).json()["lease_id"]
    refused(report(house, other, lease, "r1", 1), 404, "LEASE_NOT_FOUND")
    refused(post(house, "/budget/return", other, lease_id=lease), 404, "LEASE_NOT_FOUND")
    refused(post(house, "/budget/refresh", other, current_lease_id=lease), 404, "LEASE_NOT_FOUND")
    assert house.money(mine) == (0, 10 * USD, 0)


def test_r_a15_a_lease_spends_at_the_gateway_what_it_holds(house: House, lab: Any) -> None:
    """The `ip_` token pays for calls through this gateway out of the lease itself."""
    agent = house.agent(budget_usd=100)
    told = handshake(house, agent).json()
    lease = Key(told["lease_id"], "", told["ip_token"])
    assert house.ask(lease, "gpt-4o-mini", max_tokens=20).status == 200
    assert post(house, "/budget/return", agent, lease_id=lease.id).status_code == 200


# --- provider keys --------------------------------------------------------------------------------------------------


def test_a_provider_key_is_told_to_its_agent_and_never_cached(house: House) -> None:
    agent = house.agent()
    reply = post(house, "/agents/provider-key", ic_token=agent.token)
    assert reply.status_code == 200
    assert reply.json()["provider"] == "openai"
    assert reply.json()["provider_key"] == PROVIDER_KEY
    assert reply.json()["base_url"].startswith("http://127.0.0.1:")
    assert reply.headers["cache-control"] == "no-store"


def test_every_refusal_of_a_provider_key_has_its_code(house: House) -> None:
    path = "/agents/provider-key"
    refused(post(house, path, ic_token="nonsense"), 400, "INVALID_TOKEN")
    refused(post(house, path), 401, "UNAUTHORIZED")
    refused(post(house, path, house.key()), 400, "INVALID_TOKEN")
    refused(house.fetch("POST", f"/api/v1{path}", ADMIN, json={}), 400, "INVALID_TOKEN")
    gone = house.agent()
    house.admin("DELETE", f"/keys/{gone.id}")
    refused(post(house, path, gone), 401, "UNAUTHORIZED")
    refused(post(house, path, house.agent(metadata={})), 403, "NO_PROVIDER_ASSIGNED")
    refused(post(house, path, house.agent(metadata={"provider": "nowhere"})), 404, "PROVIDER_NOT_FOUND")
    refused(post(house, path, house.agent(metadata={"provider": "lab"})), 404, "PROVIDER_NOT_FOUND")


# --- R-A16 ----------------------------------------------------------------------------------------------------------


def event(number: int = 0, **fields: Any) -> dict[str, Any]:
    return {
        "event_id": str(uuid.UUID(int=number + 1)),
        "timestamp_ms": 1_790_000_000_000,
        "event_type": "llm_request_completed",
        "model": "gpt-4o-mini",
        "provider": "openai",
        "input_tokens": 3,
        "output_tokens": 4,
        "cost_micros": 5,
        **fields,
    }


def test_r_a16_an_event_is_accepted_once_for_each_agent(house: House) -> None:
    mine, other = house.agent(), house.agent()
    told = [post(house, "/analytics/events", agent, **event(7)) for agent in (mine, mine, other)]
    assert [one.status_code for one in told] == [202, 200, 202]
    assert [one.json()["status"] for one in told] == ["accepted", "duplicate", "accepted"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"event_type": "router_started"},
        {"cost_micros": -1},
        {"timestamp_ms": "now"},
        {"event_id": ""},
        {"model": "m" * 101},
        {"input_tokens": 1.5},
        {"cost_micros": 2**80},
    ],
)
def test_r_a16_an_event_that_cannot_be_is_refused(house: House, wrong: Any) -> None:
    agent = house.agent()
    refused(post(house, "/analytics/events", agent, **event(**wrong)), 400, "VALIDATION_ERROR")


def test_r_a16_a_thousand_events_a_minute(house: House) -> None:
    """Whatever worker they reach, and beside the agent's requests, which have a limit of their own."""
    agent = house.agent(rpm=1)

    def send(number: int) -> list[int]:
        return [
            post(house, "/analytics/events", agent, **event(number * 1000 + step)).status_code for step in range(126)
        ]

    told = [status for some in at_once(8, send) for status in some]
    assert told.count(202) == 1000
    assert told.count(429) == 8
    reply = post(house, "/analytics/events", agent, **event(9_999_999))
    refused(reply, 429)
    assert 1 <= int(reply.headers["retry-after"]) <= 67
    assert post(house, "/analytics/events", house.agent(), **event()).status_code == 202
    assert house.ask(agent, max_tokens=1).status == 200


# --- bodies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/budget/handshake", "/budget/report", "/agents/provider-key", "/analytics/events"])
def test_what_is_no_json_is_told_in_the_panels_words(house: House, path: str) -> None:
    for content in (b"", b"[]", b"{", b"\xff\xfe", b'{"ic_token": 5}'):
        reply = house.fetch("POST", f"/api/v1{path}", content=content)
        assert reply.status_code in (400, 401), (content, reply.text)
        assert {"error", "code"} <= set(reply.json())


def test_s5_two_bearers_are_refused(house: House) -> None:
    agent = house.agent()
    lines = [("authorization", f"Bearer {agent.token}"), ("authorization", f"Bearer {agent.token}")]
    reply = house.gateway.http.post("/api/v1/agents/provider-key", headers=lines, json={})
    refused(reply, 400)
