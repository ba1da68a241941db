"""What an upstream's answer is worth and how long it may take: usage, quality, deadlines and the budget of retries.

The faults themselves are rows of `test_upstream_faults`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from fastroute.outcomes import RetryBudget, content_max


def settled(metrics: Any, basis: str) -> float:
    return metrics.get(("fastroute_settle_total", frozenset({("basis", basis)})), 0.0)


def attempts(before: Any, after: Any, lane: str) -> dict[str, float]:
    """What was tried on a lane in between, by outcome."""
    found = {}
    for key, value in after.items():
        name, labels = key
        told = dict(labels)
        if name == "fastroute_attempts_total" and told["lane"] == lane and value != before.get(key, 0):
            found[told["outcome"]] = value - before.get(key, 0)
    return found


def refused(say: Any, status: int, type_: str = "server_error") -> bytes:
    return say.whole(json.dumps({"error": {"message": "no", "type": type_, "code": None}}).encode(), status)


@pytest.mark.parametrize(
    ("usage", "basis"),
    [
        ((5, 7), "exact"),
        (None, "bounded"),
        ({"prompt_tokens": -1, "completion_tokens": 7}, "bounded"),
        ({"prompt_tokens": 5, "completion_tokens": -7}, "bounded"),
        ({"prompt_tokens": "5", "completion_tokens": 7}, "bounded"),
        ({"prompt_tokens": 5, "completion_tokens": 10**30}, "bounded"),
        ({"prompt_tokens": 5, "completion_tokens": 1e308}, "bounded"),
        ({"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 3}, "bounded"),
        ([], "bounded"),
        ("many", "bounded"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_usage_that_cannot_be_is_settled_by_what_was_seen(gateway, upstream, say, usage, basis, stream):
    """An answer with an absurd count is still an answer; its cost is bounded and never above the reservation."""
    route = gateway.route(retries=0)
    if stream:
        upstream.script(route.first, say.streamed(*say.openai_events("hel", "lo", usage=usage)))
    else:
        upstream.script(route.first, say.whole(json.dumps(say.answer("openai", "hello", usage)).encode()))
    before = gateway.metrics()
    reply = gateway.ask(route.first, stream=stream, max_tokens=500)
    after = gateway.metrics()
    assert reply.status == 200
    assert reply.text == "hello"
    assert settled(after, basis) == settled(before, basis) + 1
    cost = float(reply.told["x-router-cost-usd"])
    if basis == "exact":
        assert cost == pytest.approx(5e-6 + 14e-6)
    else:
        assert 0 < cost <= 1e-3 + 2e-4


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("text", ["", "  \n "])
def test_an_empty_answer_is_asked_for_again_elsewhere_and_both_are_paid(gateway, upstream, say, text, stream):
    """A poor answer is an attempt like any other: its tokens are in the request's cost."""
    route = gateway.route(retries=1)
    body = say.streamed(*say.openai_events()) if stream else say.whole(json.dumps(say.answer("openai", text)).encode())
    upstream.script(route.first, body)
    before = gateway.metrics()
    reply = gateway.ask(route.name, stream=stream)
    assert reply.text == f"hello from {route.second}"
    assert reply.headers["x-router-fallback"] == "true"
    assert float(reply.told["x-router-cost-usd"]) == pytest.approx(2 * 19e-6)
    assert attempts(before, gateway.metrics(), route.first) == {"low_quality": 1}


@pytest.mark.parametrize("stream", [False, True])
def test_an_empty_answer_is_better_than_none(gateway, upstream, say, stream):
    """When nobody else answers, the first answer is given after all: it was paid for."""
    route = gateway.route(retries=1)
    body = say.streamed(*say.openai_events()) if stream else say.whole(json.dumps(say.answer("openai", "")).encode())
    upstream.script(route.first, body)
    upstream.script(route.second, [upstream.fin])
    reply = gateway.ask(route.name, stream=stream)
    assert reply.status == 200
    assert reply.text == ""
    assert reply.headers["x-router-model"] == route.first
    assert reply.headers["x-router-fallback"] == "false"
    assert not stream or reply.done


@pytest.mark.parametrize(("text", "poor"), [('{"a": 1}', False), ('{"a": ', True)])
def test_json_that_was_asked_for_must_parse(gateway, upstream, say, text, poor):
    route = gateway.route(retries=1)
    upstream.script(route.first, say.whole(json.dumps(say.answer("openai", text)).encode()))
    reply = gateway.ask(route.name, response_format={"type": "json_object"})
    assert (reply.headers["x-router-fallback"] == "true") == poor


def test_short_is_not_poor(gateway, upstream, say):
    route = gateway.route(retries=1)
    upstream.script(route.first, say.whole(json.dumps(say.answer("openai", "42")).encode()))
    assert gateway.ask(route.name).text == "42"


def test_a_pinned_models_empty_answer_is_its_answer(gateway, upstream, say):
    route = gateway.route(retries=0)
    upstream.script(route.first, say.whole(json.dumps(say.answer("openai", "")).encode()))
    assert gateway.ask(route.first).text == ""


def test_a_long_answer_that_keeps_coming_is_not_silence(gateway, upstream, say):
    """The first-chunk deadline is for the first byte; a body that comes slowly is held to the idle deadline."""
    route = gateway.route(retries=0)
    data = json.dumps(say.answer("openai", "slow but sure")).encode()
    pieces = [data[at : at + 40] for at in range(0, len(data), 40)]
    steps = [say.head(content_type="application/json")]
    for piece in pieces:
        steps += [upstream.pause(0.1), say.chunk(piece)]
    upstream.script(route.first, [*steps, say.LAST])
    reply = gateway.ask(route.first)
    assert reply.text == "slow but sure"
    assert reply.took_s > say.FIRST_CHUNK_MS / 1000


def test_an_answer_that_drips_for_ever_ends_with_the_total_deadline(gateway, upstream, say):
    """White space before JSON keeps a connection alive and is no answer."""
    route = gateway.route(retries=0)
    drip = upstream.repeat(say.chunk(b" " * 64), upstream.pause(0.1))
    upstream.script(route.first, [say.head(content_type="application/json"), drip])
    reply = gateway.ask(route.first)
    assert (reply.status, reply.error["code"]) == (504, "upstream_timeout")
    assert say.TOTAL_MS / 1000 - 0.1 < reply.took_s < say.TOTAL_MS / 1000 + 0.5


def test_an_answer_without_end_is_not_kept_without_end(gateway, upstream, say):
    """A whole answer has to be held until it is whole, so it may have 64 MiB and no more."""
    route = gateway.route()
    flood = upstream.repeat(say.chunk(b" " * 1_000_000))
    upstream.script(route.first, [say.head(content_type="application/json"), flood])
    before = gateway.metric("fastroute_limit_total", what="answer")
    assert gateway.ask(route.name).text == f"hello from {route.second}"
    assert gateway.metric("fastroute_limit_total", what="answer") == before + 1
    assert upstream.asked(route.first)[0].gone.wait(1)


def test_the_fallback_starts_as_soon_as_the_deadline_has_passed(gateway, upstream, say, record_property):
    """P18: at most 20 ms after the first-chunk deadline on a quiet machine; a crowded one is given 150."""
    late = []
    for _ in range(8):
        route = gateway.route(retries=1)
        upstream.script(route.first, [say.head(), upstream.hold])
        began = time.monotonic()
        assert gateway.ask(route.name, stream=True).text == f"hello from {route.second}"
        first, second = upstream.asked(route.first)[0], upstream.asked(route.second)[0]
        late.append((second.at - first.at) * 1000 - say.FIRST_CHUNK_MS)
        # On a crowded machine the provider here sees a request some time after it was sent.
        sent = min(first.at, began + 0.005)
        assert (second.at - sent) * 1000 - say.FIRST_CHUNK_MS > -5, "no upstream is given up early"
    # `pytest -rA` shows the figure.
    record_property("late_ms", sorted(round(one, 1) for one in late))
    sys.stdout.write(f"the fallback started {sorted(round(one, 1) for one in late)} ms after the deadline\n")
    assert max(late) < 150
    assert -5 < sorted(late)[len(late) // 2] < 60


def test_an_upstream_that_is_given_up_is_hung_up_on(gateway, upstream, say):
    """An abandoned exchange holds no connection: the provider sees it close with the deadline."""
    route = gateway.route(retries=1)
    upstream.script(route.first, [upstream.hold])
    gateway.ask(route.name, stream=True)
    first = upstream.asked(route.first)[0]
    assert first.gone.wait(1)
    assert first.gone_at - first.at < (say.FIRST_CHUNK_MS + 200) / 1000


def test_deadlines_leak_no_connection(gateway, upstream):
    """P18: exchanges that were given up, many at a time, leave nothing behind and nobody waiting."""
    rounds = 250 if os.environ.get("FASTROUTE_TORTURE") == "1" else 1
    route = gateway.route(retries=0)
    for _ in range(rounds):
        upstream.script(route.first, [upstream.hold])
        with ThreadPoolExecutor(40) as callers:
            replies = list(callers.map(lambda _: gateway.ask(route.first), range(40)))
        assert {reply.status for reply in replies} == {504}
        assert all(asked.gone.wait(1) for asked in upstream.asked(route.first))
    upstream.forget(route.first)
    assert [gateway.ask(route.first).status for _ in range(20)] == [200] * 20
    assert gateway.metric("router_active_requests") == 0


@pytest.mark.parametrize("n", [1, 4])
def test_each_of_several_choices_is_reserved_for(gateway, upstream, n):
    """The whole cap may be used by every choice, so the hold of an attempt nobody knows more of is so many times as high."""
    route = gateway.route(retries=0)
    upstream.script(route.first, [upstream.fin])
    reply = gateway.ask(route.first, n=n, max_tokens=1000)
    output = 2e-6 * 1000 * n
    assert output < float(reply.headers["x-router-cost-usd"]) < output + 2e-4


def test_a_refused_connection_costs_no_time(gateway):
    """The next candidate is asked within milliseconds."""
    took = []
    for _ in range(5):
        route = gateway.route("refused", retries=1)
        took.append(gateway.ask(route.name).took_s)
    assert sorted(took)[2] < 0.05


def test_retries_stay_a_fifth_of_first_attempts(serve, upstream, say):
    """P9: when everything fails, upstreams get at most 1.2 times the requests that callers made, after a small start."""
    config = (
        f'providers: {{openai: {{dialect: openai, base_url: "{upstream.url}"}}}}\n'
        "health: {threshold: 1000}\npricing: {allow_unpriced: true}\n"
        "models:\n  - {id: storm-a, model: 'openai:storm-a', lane: a}\n  - {id: storm-b, model: 'openai:storm-b', lane: b}\n"
        "aliases: {storm: [storm-a, storm-b]}\n"
    )
    gateway = serve(config)
    for model in ("storm-a", "storm-b"):
        upstream.script(model, refused(say, 500))
    for _ in range(100):
        assert gateway.ask("storm").status == 502
    assert len(upstream.asked("storm-a")) == 100
    assert len(upstream.asked("storm-b")) <= 10 + 20
    assert gateway.metric("fastroute_retry_budget_exhausted_total") >= 70
    assert gateway.metric("fastroute_pricing_miss_total") >= 110


def test_the_retry_budget_starts_small_and_fills_by_a_fifth():
    budget = RetryBudget()
    for _ in range(10):
        assert not budget.spent
        budget.take()
    assert budget.spent
    for _ in range(6):
        budget.first()
    assert not budget.spent


def test_signals_of_what_was_given_up_are_counted(gateway, upstream, say):
    route = gateway.route(retries=2)
    names = ("fastroute_first_chunk_timeout_total", "fastroute_upstream_error_in_200_total")
    before = [gateway.metric(name) for name in names]
    upstream.script(route.first, [upstream.hold], [refused(say, 200)])
    gateway.ask(route.first)
    gateway.ask(route.first)
    assert [gateway.metric(name) for name in names] == [count + 1 for count in before]


def test_content_is_held_to_the_cap_it_was_asked_for_with():
    assert content_max(None) is None
    assert content_max(0) == 64 * 1024
    assert content_max(100, 3) == 300 * 16 + 240 + 64 * 1024
    assert content_max(100) == 100 * 16 + 80 + 64 * 1024
