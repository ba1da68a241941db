"""What a budget holds and what it refuses, told over HTTP: R-A3 to R-A9, P-A7, P-A11, P-A15, caps, parents and prices.

Prices of gpt-4o-mini are 0.15 and 0.60 dollars a million tokens, as in the cases; `cheap` is a microdollar a token.
"""

from __future__ import annotations

import os
import re
import socket
import time
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from acceptance_kit import HELLO, chat, chat_events, claude, error, reset, streamed, whole
from money_desk_kit import House, Key, at_once, chat_body, no_more_asked, until

pytestmark = pytest.mark.usefixtures("clean")

MINI = "gpt-4o-mini"


def hold_of(house: House, model: str, **fields: Any) -> int:
    """The most that a request can cost, as a refusal tells it."""
    told = house.ask(house.agent(budget_microdollars=1), model, **fields)
    assert told.status == 402, told.body
    found = re.search(r"requested: (\d+) microdollars", told.error["message"])
    assert found is not None, told.error
    return int(found[1])


# --- R-A3: nothing and no limit -------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_r_a3_a_budget_of_nothing_is_closed(house: House, lab: Any, stream: bool) -> None:
    agent = house.agent(budget_usd="0.0")
    with no_more_asked(lab):
        told = house.ask(agent, stream=stream)
    assert told.status == 402
    assert told.error["type"] == "iron_cage_budget_exceeded"
    assert told.error["code"] == "budget_exceeded"
    assert told.error["message"].startswith("Iron Cage budget limit exceeded.")
    assert "retry-after" not in told.headers


def test_r_a3_no_budget_is_no_limit(house: House) -> None:
    assert house.ask(house.agent()).status == 200
    assert house.ask(house.key(), "nobody-knows").status == 200


def test_a_keys_refusal_says_what_is_left_and_what_was_wanted(house: House, lab: Any) -> None:
    key = house.key(budget_microdollars=0)
    with no_more_asked(lab):
        told = house.ask(key, max_tokens=500)
    assert told.status == 402
    assert told.error["type"] == "insufficient_quota"
    assert told.error["code"] == "budget_exhausted"
    assert key.id in told.error["message"]
    assert "$0.00 of $0.00 is left" in told.error["message"]
    assert "x-router-model" not in told.headers
    assert "x-should-retry" not in told.headers
    anthropic = house.ask(key, "claude", path="/v1/messages", max_tokens=5)
    assert anthropic.status == 402
    assert set(anthropic.json) >= {"type", "error"}
    assert anthropic.json["error"]["message"]


# --- R-A5, R-A6: hold and settle ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("short", "statuses"), [(1, [200, 402]), (0, [200, 200])])
def test_r_a5_two_at_once_on_a_budget_for_two_or_one_less(
    house: House, lab: Any, short: int, statuses: list[int]
) -> None:
    hold = hold_of(house, MINI, max_tokens=500)
    agent = house.agent(budget_microdollars=2 * hold - short)
    lab.say(MINI, whole(chat("well"), after_s=0.6))
    told = at_once(2, lambda _: house.fresh(agent, messages=HELLO, max_tokens=500))
    assert sorted(one.status_code for one in told) == statuses, [one.text for one in told]
    for one in told:
        if one.status_code == 402:
            said = one.json()["error"]
            assert (said["type"], said["code"]) == ("iron_cage_insufficient_budget", "insufficient_budget")
            assert said["message"].endswith(f"requested: {hold} microdollars.")


def test_r_a6_what_was_used_is_spent_and_rounded_up_once(house: House, lab: Any) -> None:
    agent = house.agent(budget_microdollars=100_000)
    lab.say(MINI, whole(chat("well", usage=(150, 50))))
    told = house.ask(agent, max_tokens=500)
    assert told.headers["x-router-cost-usd"] == "0.0000525"
    house.spent(agent, 53)


def test_r_a4_a_few_tokens_are_never_free(house: House, lab: Any) -> None:
    agent = house.agent(budget_microdollars=100_000)
    lab.say(MINI, whole(chat("x", usage=(6, 1))))
    assert house.ask(agent, max_tokens=5).status == 200
    house.spent(agent, 2)


@pytest.mark.parametrize(
    "act", [whole(error("server_error"), 500), whole(error("rate_limit"), 429)], ids=["500", "429"]
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_r_a6_a_provider_that_fails_costs_nothing(house: House, lab: Any, act: Any, stream: bool) -> None:
    """All of the money is there again at once: the same request fits a budget for exactly one."""
    hold = hold_of(house, MINI, max_tokens=500, stream=stream)
    agent = house.agent(budget_microdollars=hold)
    lab.say(MINI, act)
    for _ in range(3):
        assert house.ask(agent, max_tokens=500, stream=stream).status in (429, 502)
    lab.forget()
    assert house.ask(agent, max_tokens=500, stream=stream).status == 200
    house.spent(agent, 11)


def test_r_a6_who_resets_after_it_was_asked_may_have_billed(house: House, lab: Any) -> None:
    """Nobody can know, so all that was held is charged, once, and nothing stays held."""
    hold = hold_of(house, MINI, max_tokens=500)
    agent = house.agent(budget_microdollars=2 * hold)
    lab.say(MINI, reset)
    told = house.ask(agent, max_tokens=500)
    assert told.status == 502
    house.spent(agent, hold)
    lab.forget()
    assert house.ask(agent, max_tokens=500).status == 200
    house.spent(agent, hold + 11)


def test_r_a7_ten_threads_never_spend_more_than_there_is(house: House, lab: Any) -> None:
    """0.05 dollars, looked at all the while."""
    agent = house.agent(budget_usd="0.05")
    lab.say("cheap", whole(chat("well", usage=(50, 950)), after_s=0.02))
    seen: list[tuple[int, int, int]] = []

    def act(number: int) -> list[int]:
        if number == 10:
            for _ in range(40):
                seen.append(house.money(agent))
                time.sleep(0.01)
            return []
        return [house.fresh(agent, "cheap", max_tokens=1000).status_code for _ in range(8)]

    told = [status for some in at_once(11, act) for status in some]
    assert set(told) == {200, 402}
    assert all(spent <= 50_000 and held >= 0 and left >= 0 for spent, held, left in seen)
    house.spent(agent, told.count(200) * 1000)
    assert told.count(200) * 1000 <= 50_000
    assert told.count(200) >= 30


# --- R-A8: streams --------------------------------------------------------------------------------------------------


def test_r_a8_a_stream_is_seen_as_it_comes_and_metered_by_its_usage(house: House, lab: Any) -> None:
    agent = house.agent(budget_microdollars=1_000_000)
    lab.say(MINI, streamed(chat_events("a", "b", "c", usage=(1000, 200)), gap_s=0.1))
    told = house.gateway.ask(
        MINI,
        headers=agent.bearer,
        messages=[{"role": "user", "content": "x" * 4000}],
        max_tokens=500,
        stream=True,
    )
    assert told.status == 200
    assert told.at[0] < lab.last.told - 0.2
    house.spent(agent, 270)


def test_r_a8_a_stream_without_usage_is_estimated_and_not_free(house: House, lab: Any) -> None:
    agent = house.agent(budget_microdollars=1_000_000)
    lab.say(MINI, streamed(chat_events("a word or two", usage=None)))
    assert house.ask(agent, max_tokens=500, stream=True).status == 200
    until(lambda: house.money(agent)[0] > 0)
    assert house.money(agent)[0] <= hold_of(house, MINI, max_tokens=500)


def test_r_a8_a_caller_who_leaves_in_the_middle_still_pays(house: House, lab: Any) -> None:
    agent = house.agent(budget_microdollars=1_000_000)
    lab.say(MINI, streamed(chat_events(*"abcdefgh", usage=None), end="hang"))
    leave_after(house, agent, b"abc"[:1], chat_body(MINI, stream=True, max_tokens=500))
    until(lambda: house.money(agent)[0] > 0)
    until(lambda: lab.last.left.is_set())
    assert house.money(agent)[0] <= hold_of(house, MINI, max_tokens=500)


def leave_after(house: House, key: Key, seen: bytes, body: bytes) -> None:
    """Send a request and go away once this was read."""
    host, _, port = house.url.removeprefix("http://").partition(":")
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key.token}\r\n"
    with socket.create_connection((host, int(port)), timeout=5) as line:
        line.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        read = b""
        while b"data:" not in read or seen not in read:
            piece = line.recv(4096)
            assert piece, read
            read += piece


# --- R-A9: budgets that change --------------------------------------------------------------------------------------


def test_r_a9_a_budget_is_raised_and_lowered_while_it_is_used(house: House, lab: Any) -> None:
    lab.say("cheap", whole(chat("well", usage=(0, 70_000))))
    big = [{"role": "user", "content": "hi"}]
    agent = house.agent(budget_usd="0.5")
    path = f"/keys/{agent.id}"
    house.admin("PATCH", path, json={"budget_usd": "2.01"})
    assert house.money(agent)[2] == 2_010_000
    house.admin("PATCH", path, json={"budget_microdollars": 5000})
    until(lambda: house.money(agent)[1] == 0)
    lab.say("cheap", whole(chat("well", usage=(10, 990))))
    for _ in range(4):
        assert house.gateway.ask("cheap", headers=agent.bearer, messages=big, max_tokens=1000).status == 200
    assert house.gateway.ask("cheap", headers=agent.bearer, messages=big, max_tokens=1000).status == 402
    house.admin("PATCH", path, json={"budget_microdollars": 20_000})
    assert house.gateway.ask("cheap", headers=agent.bearer, messages=big, max_tokens=1000).status == 200
    house.spent(agent, 5000)
    assert house.admin("PATCH", path, json={"budget_microdollars": 3000}).status_code == 200
    until(lambda: house.gateway.ask("cheap", headers=agent.bearer, messages=big, max_tokens=1).status == 402, 3)
    house.admin("PATCH", path, json={"budget_microdollars": None})
    until(lambda: house.gateway.ask("cheap", headers=agent.bearer, messages=big, max_tokens=1).status == 200, 3)


@pytest.mark.parametrize("wrong", ["-1", "NaN", "Infinity", "1e400", "ten", True, [1], -1, 2**80])
def test_r_a9_what_is_no_amount_is_refused(house: House, wrong: Any) -> None:
    for field in ("budget_usd", "budget_microdollars"):
        if field == "budget_microdollars" and isinstance(wrong, str) and wrong == "ten":
            continue
        told = house.admin("POST", "/keys", json={"name": "never", field: wrong})
        assert told.status_code == 400, (field, told.text)
        assert told.json()["error"]["message"]
    assert house.admin("GET", "/keys/never").status_code == 404


def test_r_b7_dollars_never_pass_through_a_float(house: House) -> None:
    made = house.admin(
        "POST", "/keys", content=b'{"name": "cents", "budget_usd": 2.01}', headers={"content-type": "application/json"}
    )
    assert made.json()["budgets"][0]["limit"] == 2_010_000


# --- caps -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "path", "field"),
    [
        (MINI, "/v1/chat/completions", {"max_tokens", "max_completion_tokens"}),
        ("cheap", "/v1/chat/completions", {"max_tokens", "max_completion_tokens"}),
        ("claude", "/v1/chat/completions", {"max_tokens"}),
        ("cheap", "/v1/responses", {"max_tokens", "max_completion_tokens", "max_output_tokens"}),
    ],
)
def test_who_has_a_budget_and_sets_no_cap_has_one_set(
    house: House, lab: Any, model: str, path: str, field: set[str]
) -> None:
    """What is promised to the budget is what the provider is told."""
    lab.say("claude-haiku", whole(claude("well")))
    fields = {"input": "hello"} if path.endswith("responses") else {}
    assert house.ask(house.key(), model, path=path, **fields).status == 200
    limits = {"max_tokens", "max_completion_tokens", "max_output_tokens"} & lab.last.json.keys()
    assert limits == ({"max_tokens"} if model == "claude" else set()), "a caller without a budget has its own way"
    assert house.ask(house.key(budget_usd=5), model, path=path, **fields).status == 200
    [name] = {"max_tokens", "max_completion_tokens", "max_output_tokens"} & lab.last.json.keys()
    assert name in field
    assert lab.last.json[name] == {MINI: 16_384, "cheap": 4000, "claude": 8000}[model]


def test_near_the_limit_an_answer_is_made_shorter_rather_than_refused(house: House, lab: Any) -> None:
    prompt = hold_of(house, "cheap") - 4000  # a token is a microdollar, and 4000 are its longest answer
    key = house.key(budget_microdollars=prompt + 1000)
    assert house.ask(key, "cheap").status == 200
    assert lab.last.json["max_tokens"] == 1000
    key = house.key(budget_microdollars=prompt + 256)
    assert house.ask(key, "cheap").status == 200
    assert lab.last.json["max_tokens"] == 256


def test_an_answer_shorter_than_256_tokens_is_refused_and_one_that_was_asked_for_so_is_not(
    house: House, lab: Any
) -> None:
    key = house.key(budget_microdollars=hold_of(house, "cheap") - 4000 + 255)
    with no_more_asked(lab):
        told = house.ask(key, "cheap")
    assert told.status == 402
    assert told.error["code"] == "budget_exhausted"
    assert house.ask(key, "cheap", max_tokens=200).status == 200


def test_a_callers_own_cap_is_never_raised_or_lowered(house: House, lab: Any) -> None:
    hold = hold_of(house, "cheap", max_tokens=600)
    key = house.key(budget_microdollars=hold)
    assert house.ask(key, "cheap", max_tokens=600).status == 200
    assert lab.last.json["max_tokens"] == 600
    with no_more_asked(lab):
        assert house.ask(house.key(budget_microdollars=hold - 1), "cheap", max_tokens=600).status == 402


# --- prices nobody knows --------------------------------------------------------------------------------------------


def test_an_unpriced_model_under_a_budget_is_refused(house: House, lab: Any) -> None:
    for account in (house.key(budget_usd=5), house.agent(budget_usd=5), house.key(parent=house.key(budget_usd=5).id)):
        with no_more_asked(lab):
            told = house.ask(account, "nobody-knows")
        assert told.status == 402
        assert told.error["code"] == "unpriced"
        assert told.error["param"] == "model"
    assert house.ask(house.key(daily_tokens=1_000_000), "nobody-knows", max_tokens=5).status == 200


# --- parents --------------------------------------------------------------------------------------------------------


def test_a_child_draws_on_its_own_budget_and_on_its_parents(house: House, lab: Any) -> None:
    lab.say("cheap", whole(chat("well", usage=(10, 990))))
    parent = house.key(budget_microdollars=2500)
    children = [house.key(budget_microdollars=1_000_000, parent=parent.id) for _ in range(2)]
    assert [house.ask(child, "cheap", max_tokens=1000).status for child in children] == [200, 200]
    with no_more_asked(lab):
        told = house.ask(children[0], "cheap", max_tokens=1000)
    assert told.status == 402
    assert parent.id in told.error["message"]
    house.spent(parent, 2000)
    house.spent(children[0], 1000)


def test_a_childs_own_budget_holds_whatever_its_parent_has(house: House) -> None:
    parent = house.key(budget_usd=10)
    child = house.key(budget_microdollars=0, parent=parent.name)
    told = house.ask(child, "cheap", max_tokens=5)
    assert told.status == 402
    assert child.id in told.error["message"]
    assert house.ask(parent, "cheap", max_tokens=5).status == 200


# --- which models ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_key_reaches_only_the_models_it_may(house: House, lab: Any, stream: bool) -> None:
    key = house.key(models=["cheap", f"openai:{MINI}"])
    for model in ("cheap", MINI, f"openai:{MINI}", "lab:cheap"):
        assert house.ask(key, model, stream=stream).status == 200, model
    with no_more_asked(lab):
        for model in ("dear", "lab:dear", "claude", "lab:anything", "nobody-knows"):
            told = house.ask(key, model, stream=stream)
            assert told.status in (403, 404), (model, told.body)
            assert told.error["code"] in ("model_not_allowed", "model_not_found")


@pytest.mark.parametrize("model", ["auto", "either"])
def test_a_route_chooses_only_among_the_models_a_key_may(house: House, lab: Any, model: str) -> None:
    assert house.ask(house.key(), model).headers["x-router-model"] == "cheap"
    only = house.key(models=["dear"])
    told = house.ask(only, model)
    assert told.status == 200
    assert told.headers["x-router-model"] == "dear"
    lab.say("dear", whole(error("server_error"), 500))
    assert house.ask(only, model).status == 502, "a fallback is no way around it either"
    with no_more_asked(lab):
        told = house.ask(house.key(models=["claude"]), model)
    assert told.status in (400, 403, 404)


def test_models_are_refused_on_every_surface(house: House, lab: Any) -> None:
    key = house.key(models=["dear"])
    asks: list[tuple[str, dict[str, Any]]] = [
        ("/v1/messages", {"max_tokens": 5}),
        ("/v1/responses", {"input": "hello"}),
        ("/v1/embeddings", {"input": "hello"}),
        ("/v1/completions", {"prompt": "hello"}),
        ("/openai/v1/chat/completions", {}),
        ("/v1beta/models/cheap:generateContent", {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}),
    ]
    with no_more_asked(lab):
        for path, fields in asks:
            told = house.ask(key, "cheap", path=path, **fields)
            assert told.status in (403, 404), (path, told.body)


# --- tokens of a day ------------------------------------------------------------------------------------------------


def test_p_a7_a_days_tokens_are_refused_before_anything_is_sent(house: House, lab: Any) -> None:
    lab.say("cheap", whole(chat("well", usage=(100, 19_800))))
    key = house.key(daily_tokens=20_000, timezone="Asia/Kolkata")
    assert house.ask(key, "cheap", max_tokens=19_500).status == 200
    with no_more_asked(lab):
        told = house.ask(key, "cheap", max_tokens=500)
    assert told.status == 429
    assert told.error["type"] == "rate_limit_error"
    assert told.error["code"] == "quota_exhausted"
    assert re.match(r"daily token cap reached: \d+ of 20000 tokens are left", told.error["message"])
    assert "Asia/Kolkata" in told.error["message"]
    now = datetime.now(ZoneInfo("Asia/Kolkata"))
    midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    seconds = (midnight - now).total_seconds()
    assert abs(int(told.headers["retry-after"]) - seconds) < 10
    assert told.headers["x-ratelimit-limit"] == "20000"
    assert int(told.headers["x-ratelimit-remaining"]) < 20_000
    assert abs(int(told.headers["x-ratelimit-reset"]) - seconds) < 10


def test_p_a15_usage_tells_used_remaining_and_the_reset_with_its_offset(house: House, lab: Any) -> None:
    lab.say("cheap", whole(chat("well", usage=(20, 1480))))
    key = house.key(daily_tokens=20_000, timezone="Asia/Kolkata")
    assert house.ask(key, "cheap", max_tokens=1500).status == 200
    until(lambda: house.fetch("GET", "/v1/usage", key.token).json()["tokens"]["used"] == 1500)
    tokens = house.fetch("GET", "/v1/usage", key.token).json()["tokens"]
    assert tokens["remaining"] + tokens["held"] == 18_500
    assert tokens["resets_at"].endswith("T00:00:00+05:30")
    day = house.fetch("GET", "/v1/usage", key.token).json()
    until(lambda: house.fetch("GET", "/v1/usage", key.token).json()["by_model"])
    [model] = house.fetch("GET", "/v1/usage", key.token).json()["by_model"]
    assert (model["requests"], model["input_tokens"], model["output_tokens"]) == (1, 20, 1480)
    assert day["name"] == key.name


def test_p_a11_165_microdollars_are_told_exactly(house: House, lab: Any) -> None:
    key = house.key(budget_usd=5)
    lab.say(MINI, whole(chat("well", usage=(300, 200))))
    told = house.gateway.ask(MINI, headers=key.bearer, messages=[{"role": "user", "content": "x" * 1200}])
    assert told.headers["x-router-cost-usd"] == "0.0001650"
    house.spent(key, 165)
    receipt = told.headers["x-router-receipt-id"]
    until(lambda: house.fetch("GET", f"/v1/receipts/{receipt}", key.token).status_code == 200)
    assert house.fetch("GET", f"/v1/receipts/{receipt}", key.token).json()["cost_usd"] == "0.0001650"


# --- at rest --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.environ.get("FASTROUTE_TORTURE") != "1", reason="waits for ten idle seconds of real time")
def test_r_a6_what_nobody_uses_any_more_is_reserved_no_more(house: House, lab: Any) -> None:
    """Workers keep rights they may need again; left alone they give them back, and nothing is held."""
    key = house.key(budget_usd=5)
    lab.say(MINI, whole(error("server_error"), 500))
    assert house.ask(key, max_tokens=50).status == 502
    until(lambda: house.money(key) == (0, 0, 5_000_000), 20)
