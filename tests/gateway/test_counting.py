"""Counting tokens: asked of the provider where it speaks the caller's dialect, estimated everywhere else."""

from __future__ import annotations

import json
from typing import Any

import pytest

PROMPT = [{"role": "user", "content": "how are you today, dear model?"}]
CONTENTS = {"contents": [{"role": "user", "parts": [{"text": "how are you today, dear model?"}]}]}


def claude(gateway: Any, model: str) -> Any:
    return gateway.ask(model, path="/v1/messages/count_tokens", body={"model": model, "messages": PROMPT})


def told(say: Any, status: int = 200, **body: Any) -> bytes:
    return say.whole(json.dumps(body).encode(), status)


@pytest.fixture
def anthropic(gateway: Any) -> str:
    return gateway.route("anthropic", retries=0).first


@pytest.fixture
def google(gateway: Any) -> str:
    return gateway.route("google", retries=0).first


def test_claudes_tokens_are_counted_by_its_provider(gateway, upstream, say, anthropic):
    upstream.script(anthropic, told(say, input_tokens=4711))
    reply = claude(gateway, anthropic)
    assert (reply.status, reply.json) == (200, {"input_tokens": 4711})
    asked = upstream.asked(anthropic)[-1]
    assert asked.head.startswith(b"POST /v1/messages/count_tokens ")
    assert asked.json == {"model": anthropic, "messages": PROMPT}
    assert asked.header("x-api-key") == say.KEY


def test_geminis_tokens_are_counted_by_its_provider(gateway, upstream, say, google):
    """All that Google says of them passes, and a request inside the request names the model that counts."""
    answer = {"totalTokens": 4711, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 4711}]}
    upstream.script(google, told(say, **answer))
    asked = {"generateContentRequest": {"model": "models/some-alias", **CONTENTS}}
    reply = gateway.ask(google, path=f"/v1beta/models/{google}:countTokens", body=asked)
    assert (reply.status, reply.json) == (200, answer)
    assert upstream.asked(google)[-1].head.startswith(f"POST /v1beta/models/{google}:countTokens ".encode())
    assert upstream.asked(google)[-1].json["generateContentRequest"]["model"] == f"models/{google}"


def test_counting_costs_nothing_and_is_no_attempt(gateway, upstream, say, anthropic):
    upstream.script(anthropic, told(say, input_tokens=4711))
    before = gateway.metrics()
    assert not claude(gateway, anthropic).headers["x-router-cost-usd"].strip("0.")
    after = gateway.metrics()
    changed = {name for (name, labels), value in after.items() if before.get((name, labels), 0) != value}
    assert not changed & {"fastroute_attempts_total", "fastroute_settle_total"}


def test_an_alias_is_counted_by_the_first_it_leads_to(gateway, upstream, say):
    route = gateway.route("anthropic", retries=0)
    upstream.script(route.first, told(say, input_tokens=4711))
    assert claude(gateway, route.name).json == {"input_tokens": 4711}
    assert upstream.asked(route.first)[-1].json["model"] == route.first


def test_a_provider_of_another_dialect_is_not_asked(gateway, upstream):
    route = gateway.route(retries=0)
    reply = claude(gateway, route.first)
    assert 0 < reply.json["input_tokens"] < 40
    assert not upstream.asked(route.first)


@pytest.mark.parametrize("status", [401, 404, 429, 500, 529])
def test_a_provider_that_cannot_count_now_is_replaced_by_the_estimate(gateway, upstream, say, anthropic, status):
    kind = {404: "not_found_error"}.get(status, "api_error")
    upstream.script(anthropic, told(say, status, type="error", error={"type": kind, "message": "no"}))
    reply = claude(gateway, anthropic)
    if status == 404:  # the caller's to read, as for a request
        assert reply.status == 404
    else:
        assert 0 < reply.json["input_tokens"] < 40


@pytest.mark.parametrize("body", [b"{}", b"[1]", b"<html>", b'{"input_tokens": "many"}'])
def test_an_answer_that_is_no_count_is_replaced_by_the_estimate(gateway, upstream, say, anthropic, body):
    upstream.script(anthropic, say.whole(body))
    assert 0 < claude(gateway, anthropic).json["input_tokens"] < 40


def test_a_connection_that_breaks_is_replaced_by_the_estimate(gateway, upstream, anthropic):
    upstream.script(anthropic, [upstream.reset])
    assert 0 < claude(gateway, anthropic).json["input_tokens"] < 40


def test_what_the_provider_says_of_the_request_is_the_callers_to_read(gateway, upstream, say, anthropic):
    error = {"type": "invalid_request_error", "message": "messages: at least one message is required"}
    upstream.script(anthropic, told(say, 400, type="error", error=error))
    reply = claude(gateway, anthropic)
    assert reply.status == 400
    assert "at least one message" in reply.json["error"]["message"]
