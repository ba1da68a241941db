"""A house with keys: whose token announces what, and how an agent knows its router."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest


@pytest.fixture(autouse=True)
def _clean(a: Any, b: Any) -> None:
    a.forget()
    b.forget()


def code_of(told: Any) -> tuple[int, str]:
    return told.status_code, told.json()["error"]["code"]


@pytest.fixture(scope="module")
def closed(serve: Any) -> Any:
    """A router that callers need a key for."""
    return serve()


@pytest.fixture(scope="module")
def token(closed: Any) -> Callable[..., str]:
    """`token("mac", "--models", "a,b")`: a new agent's token."""

    def token(name: str, *more: str, kind: str = "agent") -> str:
        made = closed.run("keys", "create", "--name", name, "--kind", kind, *more)
        assert made.exit_code == 0, made.stderr
        return str(made.stdout.strip())

    return token


@pytest.fixture(scope="module")
def caller(closed: Any, token: Callable[..., str]) -> str:
    """A key for those who ask, which closes the house."""
    key = token("caller", kind="key")
    closed.gateway.always = {"authorization": f"Bearer {key}"}
    return key


def test_i_b3_only_an_agents_token_announces(closed: Any, caller: str, token: Callable[..., str], a: Any) -> None:
    """I-B3: anybody could announce anything."""
    assert closed.register("mac", a.url, "local_mac").status_code == 401
    assert closed.post("/heartbeat", name="mac").status_code == 401
    assert closed.register("mac", a.url, "local_mac", token="fr_live_nonsense").status_code == 401
    told = closed.register("mac", a.url, "local_mac", token=caller)
    assert code_of(told) == (403, "insufficient_scope")
    assert "--kind agent" in told.text
    closed.offered("mac", a.url, "local_mac", token=token("mac"))
    assert closed.ask("local_mac").text == "I am local_mac"
    # The caller's own key is nobody's business there.
    assert {asked.header("authorization") for asked in a.asked()} == {None}
    assert caller not in a.last.everything


def test_i_b3_a_name_stays_with_its_token(closed: Any, caller: str, token: Callable[..., str], a: Any, b: Any) -> None:
    mine, other = token("owner"), token("other")
    closed.offered("owned", a.url, "local_owned", token=mine)
    assert code_of(closed.register("owned", b.url, "local_owned", token=other)) == (409, "agent_name_taken")
    assert code_of(closed.post("/heartbeat", other, name="owned")) == (404, "agent_not_found")
    assert closed.post("/heartbeat", mine, name="owned").status_code == 200
    assert closed.ask("local_owned").status == 200
    assert not b.asked()
    assert closed.run("keys", "revoke", "owner").exit_code == 0
    assert closed.post("/heartbeat", mine, name="owned").status_code == 401
    assert "owned" not in [each["name"] for each in closed.listed()]
    assert closed.register("owned", b.url, "local_owned", token=other).status_code == 200


def test_what_was_announced_before_there_was_a_key_lives_by_no_others_word(serve: Any, a: Any) -> None:
    """Nobody is known to have announced it; an agent that has a token by now registers anew, and only then is asked."""
    house = serve()
    house.offered("early", a.url, "local_early")
    keys = [house.run("keys", "create", "--name", name, "--kind", name) for name in ("agent", "key")]
    token, caller = (made.stdout.strip() for made in keys)
    house.gateway.always = {"authorization": f"Bearer {caller}"}
    until = time.monotonic() + 10
    while house.post("/heartbeat", name="early").status_code != 401:
        assert time.monotonic() < until
    assert code_of(house.post("/heartbeat", token, name="early")) == (404, "agent_not_found")
    assert house.register("early", a.url, "local_early", token=token).status_code == 200
    assert house.post("/heartbeat", token, name="early").status_code == 200


def test_a_token_may_be_for_some_names_alone(closed: Any, caller: str, token: Callable[..., str], a: Any) -> None:
    narrow = token("narrow", "--models", "local_one,local_two")
    told = closed.register("narrow", a.url, "local_one", "local_three", token=narrow)
    assert code_of(told) == (403, "insufficient_scope")
    assert "local_three" in told.text
    assert closed.register("narrow", a.url, "local_one", token=narrow).status_code == 200


def test_an_agent_that_wants_a_key_is_shown_its_own_by_the_router_alone(
    closed: Any, caller: str, token: Callable[..., str], a: Any, b: Any
) -> None:
    mine = token("keyed")
    key = closed.register("keyed", a.url, "local_keyed", token=mine, key=True).json()["key"]
    assert closed.register("keyed", a.url, "local_keyed", token=mine, key=True).json()["key"] == key
    closed.offered("plain", b.url, "local_plain", token=mine)
    closed.offered("keyed", a.url, "local_keyed", token=mine, key=True)
    assert closed.ask("local_keyed").status == 200
    assert a.last.header("authorization") == f"Bearer {key}"
    assert closed.ask("local_plain").status == 200
    assert key not in b.last.everything
    kept = (closed.place / "data/fastroute.db").read_bytes() + closed.gateway.log.read_bytes()
    assert key.encode() not in kept
    assert mine.encode() not in kept


def test_bound_beyond_loopback_an_agent_serves_its_router_alone(
    closed: Any, caller: str, token: Callable[..., str], backends: Any, agent: Any, say: Any
) -> None:
    backend, mine = backends("qwen"), token("public")
    flags = ("--backend", backend.url, "--router", closed.gateway.url, "--port", "0", "--models", "local_public=qwen")
    running = agent(*flags, "--host", "0.0.0.0", env={"AGENT_TOKEN": mine})  # noqa: S104  what is tried
    running.says("registered with")
    assert running.url.startswith("http://127.0.0.1:")  # where it reaches its router from
    body = {"model": "local_public", "messages": say.HELLO}
    for key in ({}, {"authorization": f"Bearer {mine}"}, {"authorization": "Bearer ag_nonsense"}):
        told = httpx.post(f"{running.url}/v1/chat/completions", json=body, headers=key)
        assert code_of(told) == (401, "invalid_api_key")
        assert httpx.get(f"{running.url}/v1/models", headers=key).status_code == 401
    closed.offered("other", backend.url, "local_public", token=mine)  # waits until its model is known here
    closed.silence("other")
    assert closed.ask("local_public").text == "I am qwen"
    assert backend.last.header("authorization") is None  # the key ends at the agent
    assert mine not in running.said
    assert running.end() == 0
