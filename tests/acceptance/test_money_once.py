"""Who asks twice with one Idempotency-Key is billed once and reads the same: whole answers, streams and messages."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from typing import Any

import httpx
import pytest
from acceptance_kit import chat, chat_events, claude, error, streamed, whole
from money_desk_kit import House, Key, at_once, no_more_asked, until

from fastroute.ledger.teller import BooksUnreachable
from fastroute.web import once

pytestmark = pytest.mark.usefixtures("clean")

HELLO = [{"role": "user", "content": "hello"}]
ASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"model": "cheap", "messages": HELLO, "max_tokens": 50}),
    "stream": ("/v1/chat/completions", {"model": "cheap", "messages": HELLO, "max_tokens": 50, "stream": True}),
    "messages": ("/v1/messages", {"model": "claude", "messages": HELLO, "max_tokens": 50}),
    "messages stream": ("/v1/messages", {"model": "claude", "messages": HELLO, "max_tokens": 50, "stream": True}),
    "responses": ("/v1/responses", {"model": "cheap", "input": "hello", "max_output_tokens": 50}),
    "embeddings": ("/v1/embeddings", {"model": "cheap", "input": "hello"}),
}


def ask(house: House, key: Key, kind: str, name: str = "once", **fields: Any) -> httpx.Response:
    path, body = ASKS[kind]
    headers = {**key.bearer, "idempotency-key": name}
    data = json.dumps({**body, **fields}).encode()
    with httpx.Client(timeout=15, verify=False) as http:  # noqa: S501 - loopback, no TLS
        return http.post(house.url + path, content=data, headers=headers)


def slowly(lab: Any, kind: str) -> None:
    """The provider takes its time."""
    if kind in ("chat", "responses"):
        lab.say("cheap", whole(chat("well"), after_s=0.3))
    elif kind == "stream":
        lab.say("cheap", streamed(chat_events("a", "b", "c"), gap_s=0.1))
    elif kind == "messages":
        lab.say("claude-haiku", whole(claude("well"), after_s=0.3))


@pytest.mark.parametrize("kind", [kind for kind in ASKS if kind != "embeddings"])
def test_an_answer_is_told_again_byte_for_byte(house: House, lab: Any, key: Key, kind: str) -> None:
    first = ask(house, key, kind)
    assert first.status_code == 200, first.text
    assert "idempotent-replayed" not in first.headers
    for _ in range(4):
        again = ask(house, key, kind)
        assert again.status_code == 200
        assert again.content == first.content
        assert again.headers["idempotent-replayed"] == "true"
        assert again.headers["content-type"] == first.headers["content-type"]
        assert again.headers["x-router-receipt-id"] == first.headers["x-router-receipt-id"]
    assert len(lab.asked()) == 1


@pytest.mark.parametrize("kind", ["chat", "stream", "messages"])
def test_those_who_ask_while_the_first_runs_join_it(house: House, lab: Any, key: Key, kind: str) -> None:
    slowly(lab, kind)
    told = at_once(6, lambda _: ask(house, key, kind))
    assert [one.status_code for one in told] == [200] * 6
    assert len({one.content for one in told}) == 1
    assert len(lab.asked()) == 1
    assert sum("idempotent-replayed" in one.headers for one in told) == 5


def test_it_is_billed_once_and_has_one_receipt(house: House, lab: Any, key: Key) -> None:
    lab.say("cheap", whole(chat("well", usage=(10, 40))))
    receipts = {ask(house, key, "chat").headers["x-router-receipt-id"] for _ in range(3)}
    assert len(receipts) == 1
    house.spent(key, 50)
    time.sleep(0.2)
    house.spent(key, 50)
    assert len(house.fetch("GET", "/v1/receipts", key.token).json()["data"]) == 1


@pytest.mark.parametrize("kind", ["chat", "stream", "messages"])
def test_another_body_is_422(house: House, lab: Any, key: Key, kind: str) -> None:
    assert ask(house, key, kind).status_code == 200
    with no_more_asked(lab):
        told = ask(house, key, kind, max_tokens=51)
    assert told.status_code == 422
    said = told.json()["error"]
    if kind == "messages":
        assert said["message"]
    else:
        assert said["code"] == "idempotency_key_reused"


def test_another_path_is_another_request(house: House, key: Key) -> None:
    assert ask(house, key, "chat").status_code == 200
    assert ask(house, key, "messages").status_code == 422


def test_the_same_key_of_another_caller_is_its_own(house: House, lab: Any, key: Key) -> None:
    other = house.key(budget_usd=5)
    assert ask(house, key, "chat").status_code == 200
    told = ask(house, other, "chat", max_tokens=49)
    assert told.status_code == 200
    assert "idempotent-replayed" not in told.headers
    assert len(lab.asked()) == 2


def test_without_the_header_everything_runs(house: House, lab: Any, key: Key) -> None:
    for _ in range(2):
        assert house.ask(key, "cheap").status == 200
    assert len(lab.asked()) == 2


@pytest.mark.parametrize("name", ["", "x" * 256])
def test_a_key_that_cannot_be_is_refused(house: House, lab: Any, key: Key, name: str) -> None:
    with no_more_asked(lab):
        told = ask(house, key, "chat", name)
    assert told.status_code == 400
    assert told.json()["error"]["code"] == "invalid_idempotency_key"
    assert ask(house, key, "chat", "x" * 255).status_code == 200


@pytest.mark.parametrize("kind", ["chat", "stream"])
def test_who_leaves_and_asks_again_gets_the_answer_of_the_first_run(
    house: House, lab: Any, key: Key, kind: str
) -> None:
    slowly(lab, kind)
    path, body = ASKS[kind]
    host, _, port = house.url.removeprefix("http://").partition(":")
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key.token}\r\nidempotency-key: once\r\n"
    with socket.create_connection((host, int(port)), timeout=5) as line:
        line.sendall(f"{head}content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data)
        until(lambda: lab.asked())
    told = ask(house, key, kind)
    assert told.status_code == 200
    assert told.headers["idempotent-replayed"] == "true"
    assert len(lab.asked()) == 1
    assert ask(house, key, kind).content == told.content
    if kind == "stream":
        assert told.content.rstrip().endswith(b"data: [DONE]")


@pytest.mark.parametrize("kind", ["chat", "stream"])
def test_a_refusal_is_not_kept(house: House, lab: Any, key: Key, kind: str) -> None:
    """Who was told no for nothing may try again, with the same key."""
    lab.say("cheap", whole(error("server_error"), 500))
    assert ask(house, key, kind).status_code == 502
    lab.forget()
    told = ask(house, key, kind)
    assert told.status_code == 200
    assert "idempotent-replayed" not in told.headers


def test_a_refusal_for_money_is_not_kept(house: House, lab: Any) -> None:
    poor = house.key(budget_microdollars=0)
    with no_more_asked(lab):
        assert ask(house, poor, "chat").status_code == 402
    house.admin("PATCH", f"/keys/{poor.id}", json={"budget_usd": 1})
    until(lambda: ask(house, poor, "chat").status_code == 200, 2)


def test_a_replay_is_refused_to_a_key_that_is_over(house: House, lab: Any, key: Key) -> None:
    assert ask(house, key, "chat").status_code == 200
    house.admin("DELETE", f"/keys/{key.id}")
    with no_more_asked(lab):
        until(lambda: ask(house, key, "chat").status_code == 401, 2)


def test_what_was_billed_without_an_answer_is_not_run_again(house: House, lab: Any, key: Key) -> None:
    lab.say("cheap", streamed(chat_events("a", "b", usage=None, finish=None, done=False), end="cut"))
    first = ask(house, key, "stream")
    assert first.status_code == 200
    assert b"[DONE]" not in first.content or b'"error"' in first.content
    lab.forget()
    with no_more_asked(lab):
        again = ask(house, key, "stream")
    assert again.content == first.content or again.status_code in (409, 502)


def test_s34_nobody_is_told_anothers_answer(house: House, lab: Any) -> None:
    """Nothing else is remembered of answers: the same prompt of two tenants is asked twice."""
    told = [house.ask(house.key(), "cheap") for _ in range(2)]
    assert len(lab.asked()) == 2
    assert all("idempotent-replayed" not in one.headers for one in told)
    assert not re.search(r"router_cache_hits_total\{[^}]*\} [1-9]", house.gateway.http.get("/metrics").text)


def test_books_that_were_away_when_a_run_ended_are_told_of_it_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else whoever asks again would wait for a run that ended long ago."""
    said: list[str] = []

    class Away:
        async def ask(self, operation: str, **run: Any) -> None:
            said.append(operation)
            if len(said) < 3:
                raise BooksUnreachable("the bookkeeper is away")

    monkeypatch.setattr(once, "AGAIN_S", 0.001)

    async def told() -> None:
        assert not await once._told_to_books(Away(), "answers.keep", {"request": "r"})
        await once._tell_later(Away(), "answers.keep", {"request": "r"})

    asyncio.run(told())
    assert said == ["answers.keep"] * 3
