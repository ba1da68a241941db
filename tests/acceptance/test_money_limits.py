"""How often, how much and how many at once: I-A2, I-A15, P-A8, and what every limit says when it refuses."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import httpx
import pytest
from acceptance_kit import chat, whole
from money_desk_kit import ADMIN, CONFIG, House, Key, at_once, chat_body, no_more_asked, until

pytestmark = pytest.mark.usefixtures("clean")

ADDRESSES = 10_000 if os.environ.get("FASTROUTE_TORTURE") == "1" else 1000


@pytest.fixture(scope="module")
def open_house(serve: Any, lab: Any) -> House:
    """Nobody has a key; behind a proxy that is believed, with two requests a minute for each address."""
    config = CONFIG.format(lab=lab.url) + "limits: {anonymous_requests: 2, window_s: 60, trusted_proxies: [127.0.0.1]}"
    return House(serve(config, {"FASTROUTE_ADMIN_KEY": ADMIN}, workers=2))


def ask_from(house: House, address: str) -> httpx.Response:
    with httpx.Client(timeout=15, verify=False) as http:  # noqa: S501 - loopback, no TLS
        headers = {"x-forwarded-for": address}
        return http.post(f"{house.url}/v1/chat/completions", content=chat_body("cheap"), headers=headers)


# --- I-A2 -----------------------------------------------------------------------------------------------------------


def test_i_a2_the_third_of_two_is_told_and_metrics_are_not_limited(open_house: House, lab: Any) -> None:
    told = [ask_from(open_house, "203.0.113.7") for _ in range(2)]
    assert [one.status_code for one in told] == [200, 200]
    with no_more_asked(lab):
        third = ask_from(open_house, "203.0.113.7")
    assert third.status_code == 429
    said = third.json()["error"]
    assert said["message"].startswith("Rate limit exceeded")
    assert (said["type"], said["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert 1 <= int(third.headers["retry-after"]) <= 67
    assert third.headers["x-ratelimit-limit-requests"] == "2"
    assert third.headers["x-ratelimit-remaining-requests"] == "0"
    for _ in range(20):
        for path in ("/metrics", "/healthz", "/health", "/"):
            assert open_house.fetch("GET", path, headers={"x-forwarded-for": "203.0.113.7"}).status_code == 200
    assert ask_from(open_house, "203.0.113.8").status_code == 200


def test_s19_only_what_a_proxy_of_ours_says_counts(open_house: House) -> None:
    """The last address that is not one of ours; all before it is only what the client says."""
    for forged in ("1.1.1.1", "2.2.2.2"):
        assert ask_from(open_house, f"{forged}, 203.0.113.20").status_code == 200
    assert ask_from(open_house, "3.3.3.3, 203.0.113.20").status_code == 429


def test_s19_where_no_proxy_is_believed_an_address_cannot_be_made_up(serve: Any, lab: Any) -> None:
    house = House(serve(CONFIG.format(lab=lab.url) + "limits: {anonymous_requests: 2}"))
    assert [ask_from(house, f"203.0.113.{n}").status_code for n in range(3)] == [200, 200, 429]


# --- I-A15 ----------------------------------------------------------------------------------------------------------


def test_i_a15_addresses_without_number_take_no_more_room_than_there_is(open_house: House) -> None:
    """The table of limits has one size, however many addresses come; refusals cost nothing upstream."""
    table = open_house.state_dir / "run" / "limits"
    before = size_of(table)
    body = chat_body("no-such-model")

    def come(number: int) -> list[int]:
        with httpx.Client(timeout=15, verify=False) as http:  # noqa: S501 - loopback, no TLS
            return [
                http.post(
                    f"{open_house.url}/v1/chat/completions",
                    content=body,
                    headers={"x-forwarded-for": f"10.{number}.{each >> 8}.{each & 255}"},
                ).status_code
                for each in range(ADDRESSES // 4)
            ]

    statuses = [status for some in at_once(4, come) for status in some]
    assert set(statuses) == {404}
    assert size_of(table) == before
    with open_house.gateway.http.stream("GET", "/metrics") as reply:
        assert sum(1 for _ in reply.iter_lines()) < 5000


def size_of(path: Path) -> int:
    return path.stat().st_size if path.is_file() else sum(each.stat().st_size for each in path.rglob("*"))


# --- P-A8 -----------------------------------------------------------------------------------------------------------


def test_p_a8_of_ten_at_once_with_three_a_minute_three_pass(house: House) -> None:
    key = house.key(rpm=3)
    told = at_once(10, lambda _: house.fresh(key, "cheap"))
    assert sorted(one.status_code for one in told) == [200] * 3 + [429] * 7


def test_p_a8_the_fourth_is_told_of_requests_and_not_of_tokens(house: House, lab: Any) -> None:
    key = house.key(rpm=3)
    told = [house.ask(key, "cheap") for _ in range(3)]
    assert [one.status for one in told] == [200] * 3
    assert [one.headers["x-ratelimit-remaining-requests"] for one in told] == ["2", "1", "0"]
    assert {one.headers["x-ratelimit-limit-requests"] for one in told} == {"3"}
    with no_more_asked(lab):
        fourth = house.ask(key, "cheap")
    assert fourth.status == 429
    assert fourth.error["message"].startswith("Rate limit exceeded: 3 requests in 60 s are allowed")
    assert fourth.error["code"] == "rate_limit_exceeded"
    assert 1 <= int(fourth.headers["retry-after"]) <= 67
    assert fourth.headers["x-ratelimit-remaining-requests"] == "0"
    assert fourth.headers["x-ratelimit-reset-requests"]
    assert fourth.headers["x-should-retry"] == "true"


# --- the others -----------------------------------------------------------------------------------------------------


def test_tokens_of_a_minute_are_refused_by_what_a_request_may_need(house: House, lab: Any) -> None:
    key = house.key(tpm=10_000)
    lab.say("dear", whole(chat("well", usage=(100, 5000))))
    assert house.ask(key, "dear", max_tokens=8000).status == 200
    with no_more_asked(lab):
        told = house.ask(key, "dear", max_tokens=5000)
    assert told.status == 429
    assert told.error["code"] == "tpm_limit_exceeded"
    assert told.error["message"].startswith(
        "Token rate limit exceeded: 10000 tokens in 60 s are allowed, 4900 are left"
    )
    assert told.headers["x-ratelimit-limit-tokens"] == "10000"
    assert told.headers["x-ratelimit-remaining-tokens"] == "4900"
    assert 1 <= int(told.headers["retry-after"]) <= 67
    assert house.ask(key, "dear", max_tokens=4500).status == 200, "what was not used came back"


def test_a_request_that_never_fits_is_told_so_and_not_to_wait(house: House) -> None:
    told = house.ask(house.key(tpm=100), "cheap", max_tokens=4000)
    assert told.status == 429
    assert "make it smaller" in told.error["message"]
    assert "retry-after" not in told.headers


def test_so_many_at_once_and_no_more(house: House, lab: Any) -> None:
    key = house.key(concurrency=2)
    lab.say("cheap", whole(chat("well"), after_s=0.5))
    told = at_once(6, lambda _: house.fresh(key, "cheap"))
    assert sorted(one.status_code for one in told) == [200] * 2 + [429] * 4
    [said] = {one.json()["error"]["code"] for one in told if one.status_code == 429}
    assert said == "concurrency_limit_exceeded"
    assert {one.headers["retry-after"] for one in told if one.status_code == 429} <= {"1", "2"}
    lab.forget()
    assert [house.fresh(key, "cheap").status_code for _ in range(4)] == [200] * 4


def test_a_place_is_free_again_when_a_request_failed_or_was_refused(house: House, lab: Any) -> None:
    key = house.key(concurrency=1, budget_microdollars=0)
    for _ in range(3):
        assert house.ask(key, "cheap").status == 402
        assert house.ask(key, "no-such-model").status == 404
    house.admin("PATCH", f"/keys/{key.id}", json={"budget_usd": 1})
    until(lambda: house.ask(key, "cheap").status == 200, 2)


@pytest.mark.parametrize(("limit", "message"), [({"rpm": 0}, "no requests"), ({"concurrency": 0}, "no requests")])
def test_a_limit_of_nothing_is_closed(house: House, limit: Any, message: str) -> None:
    told = house.ask(house.key(**limit), "cheap")
    assert told.status == 429
    assert message in told.error["message"]


def test_a_parents_limit_counts_for_all_its_children(house: House) -> None:
    parent = house.key(rpm=3)
    children = [house.key(parent=parent.id) for _ in range(2)]
    statuses = [house.fresh(child, "cheap").status_code for child in (*children, *children)]
    assert statuses == [200, 200, 200, 429]


def test_a_limit_is_told_in_the_callers_own_envelope(house: House) -> None:
    key = house.key(rpm=0)
    told = house.ask(key, "claude", path="/v1/messages", max_tokens=5)
    assert told.status == 429
    assert told.json["type"] == "error"
    assert told.json["error"]["type"] == "rate_limit_error"
    gemini = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}
    told = house.ask(key, "", path="/v1beta/models/cheap:generateContent", **gemini)
    assert told.status == 429
    assert told.json["error"]["status"] == "RESOURCE_EXHAUSTED"


def test_a_refusal_is_counted_by_its_kind(house: House) -> None:
    limits: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("rpm", {"rpm": 0}, {}),
        ("tpm", {"tpm": 0}, {}),
        ("budget", {"budget_usd": 0}, {}),
        ("daily_tokens", {"daily_tokens": 0}, {}),
    ]
    for kind, limit, fields in limits:
        with house.gateway.counting("fastroute_refusals_total", kind=kind) as grown:
            assert house.ask(house.key(**limit), "cheap", max_tokens=5, **fields).status in (402, 429)
            assert grown() == 1, kind


def test_what_is_not_limited_says_nothing_of_limits(house: House) -> None:
    told = house.ask(house.key(), "cheap")
    assert not [name for name in told.headers if "ratelimit" in name]
    assert isinstance(house.key(), Key)
