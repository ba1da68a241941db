"""Answers told again over HTTP, with keys, budgets, limits and receipts around them: a hit is a request that costs nothing."""

from __future__ import annotations

import json
import socket
import time
from itertools import count
from typing import Any

import openai
import pytest
from acceptance_kit import chat, chat_events, silent, streamed, whole
from money_desk_kit import ADMIN, CONFIG, House, Key, at_once, no_more_asked, until

pytestmark = pytest.mark.usefixtures("clean")

# The price of one answer of `cheap`: 11 tokens in and 15 out at a dollar a million each.
COST = 26


@pytest.fixture(scope="module")
def house(serve: Any, lab: Any) -> House:
    """One worker, so that what was told once is told again; closed to whoever has no key."""
    config = CONFIG.format(lab=lab.url) + "cache: {ttl_s: 600}\n"
    house = House(serve(config, {"FASTROUTE_ADMIN_KEY": ADMIN}))
    house.key("the first")
    return house


def ask(house: House, key: Key, model: str = "cheap", **how: Any) -> Any:
    return house.ask(key, model, temperature=0, max_tokens=50, **how)


def test_i_a3_the_same_body_twice(house: House, lab: Any, key: Key) -> None:
    """Acceptance I-A3: one hit of the backend, equal answers, one more cache hit counted; another caller's key misses."""
    with (
        house.gateway.counting("router_cache_hits_total", model="cheap") as hits,
        house.gateway.counting("router_requests_total", model="cheap", status_code="200") as requests,
    ):
        first, again = ask(house, key), ask(house, key)
        assert (hits(), requests()) == (1, 2)
    assert (first.status, again.status, again.body) == (200, 200, first.body)
    assert (first.headers["x-cache"], again.headers["x-cache"]) == ("miss", "hit")
    assert len(lab.asked()) == 1
    assert ask(house, house.key(budget_usd=5)).headers["x-cache"] == "miss"
    assert len(lab.asked()) == 2


def test_c22_a_hit_costs_nothing_settles_nothing_and_its_receipt_says_so(house: House, key: Key) -> None:
    first, again = ask(house, key), ask(house, key)
    assert first.headers["x-router-cost-usd"] == "0.0000260"
    assert again.headers["x-router-cost-usd"] == "0.0000000"
    assert again.headers["x-router-reason"] == "cache_hit"
    assert again.headers["x-router-model"] == "cheap"
    assert again.headers["age"].isdigit()
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    name = again.headers["x-router-receipt-id"]
    assert name != first.headers["x-router-receipt-id"]
    until(lambda: house.fetch("GET", f"/v1/receipts/{name}", key.token).status_code == 200)
    receipt = house.fetch("GET", f"/v1/receipts/{name}", key.token).json()
    assert (receipt["reason"], receipt["status"], receipt["outcome"]) == ("cache_hit", 200, "ok")
    assert (receipt["attempts"], receipt["cost_microdollars"], receipt["route_final"]) == ([], 0, "cheap")
    assert receipt["details"]["cache"]["request_id"] == first.headers["x-request-id"]
    house.spent(key, COST)


def test_a_budget_that_is_spent_still_pays_for_what_costs_nothing(house: House, lab: Any) -> None:
    key = house.key(budget_microdollars=300)
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
    assert ask(house, key, **body).status == 200
    house.spent(key, COST)
    seeds = count(10**9)  # of one length, so that all hold the same
    while ask(house, key, seed=next(seeds), **body).status == 200:
        pass
    with no_more_asked(lab):
        assert ask(house, key, **body).headers["x-cache"] == "hit"
        assert ask(house, key, seed=next(seeds), **body).status == 402


def test_a_hit_is_a_request_to_the_limits_and_takes_no_tokens(house: House) -> None:
    key = house.key(rpm=3, daily_tokens=100_000)
    assert [ask(house, key).status for _ in range(4)] == [200, 200, 200, 429]
    until(lambda: house.admin("GET", f"/usage/{key.id}").json()["tokens"]["used"] > 0)
    assert house.admin("GET", f"/usage/{key.id}").json()["tokens"]["used"] == 26


def test_who_may_not_ask_for_a_model_is_not_told_what_it_said_before(house: House, lab: Any) -> None:
    key = house.key()
    assert ask(house, key).status == 200
    assert ask(house, key).headers["x-cache"] == "hit"
    assert house.admin("PATCH", f"/keys/{key.id}", json={"models": ["dear"]}).status_code == 200
    until(lambda: ask(house, key).status == 404)
    assert house.admin("DELETE", f"/keys/{key.id}").status_code in (200, 204)
    until(lambda: ask(house, key).status == 401)


def test_with_an_idempotency_key_a_hit_is_told_again_as_it_was(house: House, lab: Any, key: Key) -> None:
    ask(house, key)
    with no_more_asked(lab):
        hit = ask(house, key, headers={"idempotency-key": "k1"})
        again = ask(house, key, headers={"idempotency-key": "k1"})
    assert (hit.headers["x-cache"], again.headers["x-cache"]) == ("hit", "hit")
    assert again.headers["idempotent-replayed"] == "true"
    assert again.body == hit.body


@pytest.mark.parametrize("stream", [False, True])
def test_many_at_once_are_billed_for_one(house: House, lab: Any, key: Key, stream: bool) -> None:
    lab.say("cheap", streamed(chat_events("a", "b"), gap_s=0.1) if stream else whole(chat("well"), after_s=0.5))
    body = {"model": "cheap", "messages": [{"role": "user", "content": "at once"}], "temperature": 0, "stream": stream}
    body["max_tokens"] = 50
    replies = at_once(8, lambda _: house.fresh(key, **body))
    assert [reply.status_code for reply in replies] == [200] * 8
    assert sorted(reply.headers["x-cache"] for reply in replies) == ["hit"] * 7 + ["miss"]
    assert len(lab.asked()) == 1
    house.spent(key, COST)


def test_a_first_caller_that_leaves_takes_nobody_with_it(house: House, lab: Any, key: Key) -> None:
    lab.say("cheap", silent, whole(chat("well"), after_s=0.2))
    body = json.dumps({"model": "cheap", "messages": [], "temperature": 0}).encode()
    host, _, port = house.url.removeprefix("http://").partition(":")
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
    with socket.create_connection((host, int(port)), timeout=10) as first:
        first.sendall(f"{head}authorization: Bearer {key.token}\r\n\r\n".encode() + body)
        until(lambda: len(lab.asked()) == 1)

        def other(number: int) -> Any:
            if number == 3:
                time.sleep(0.3)  # the others wait by then, or come later: both must be answered
                first.close()
                return None
            return house.fresh(key, "cheap", messages=[], temperature=0)

        replies = at_once(4, other)
    assert [reply.status_code for reply in replies if reply is not None] == [200] * 3
    assert len(lab.asked()) == 2


def test_the_openai_client_reads_a_hit_as_any_answer(house: House, lab: Any, key: Key) -> None:
    with openai.OpenAI(base_url=f"{house.url}/v1", api_key=key.token, max_retries=0) as client:
        asked: dict[str, Any] = {"model": "cheap", "messages": [{"role": "user", "content": "hi"}], "temperature": 0}
        first = client.chat.completions.with_raw_response.create(**asked)
        again = client.chat.completions.with_raw_response.create(**asked)
        assert (first.headers["x-cache"], again.headers["x-cache"]) == ("miss", "hit")
        assert again.parse() == first.parse()
        told = []
        for _ in range(2):
            with client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}) as stream:
                told.append([chunk.model_dump() for chunk in stream])
        assert told[0] == told[1]
        assert told[1][-1]["usage"]["total_tokens"] == 26
        use = client.with_options(default_headers={"x-cache": "use"})
        asked["temperature"] = 1
        warm = [use.chat.completions.with_raw_response.create(**asked).headers["x-cache"] for _ in range(2)]
        assert warm == ["miss", "hit"]
    assert len(lab.asked()) == 3


def test_without_a_ttl_nothing_is_kept_and_nothing_said_of_it(serve: Any, lab: Any) -> None:
    gateway = serve(CONFIG.format(lab=lab.url))
    told = [gateway.ask("cheap", temperature=0) for _ in range(2)]
    assert all("x-cache" not in one.headers for one in told)
    assert len(lab.asked()) == 2


def test_workers_share_a_service_and_go_on_without_it(serve: Any, lab: Any) -> None:
    """`CACHE_TTL` and `CACHE_ENDPOINT` are all it takes; a service nobody runs is one line in the log."""
    gateway = serve(CONFIG.format(lab=lab.url), {"CACHE_TTL": "300", "CACHE_ENDPOINT": "http://127.0.0.1:9"})
    told = [gateway.ask("cheap", temperature=0) for _ in range(3)]
    assert [one.headers["x-cache"] for one in told] == ["miss", "hit", "hit"]
    assert len(lab.asked()) == 1
