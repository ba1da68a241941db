"""What a request was asked for by another name, and second chances that come back with time."""

from __future__ import annotations

from typing import Any

import pytest

from fastroute.outcomes import RETRIES_A_MINUTE, RETRY_START, RetryBudget


@pytest.fixture(scope="module")
def tiered(serve: Any, upstream: Any) -> Any:
    return serve(
        f'providers: {{up: {{dialect: openai, base_url: "{upstream.url}"}}}}\n'
        "pricing: {allow_unpriced: true}\n"
        "models: [{id: little, model: 'up:little'}, {id: big, model: 'up:big'}]\n"
        "aliases: {tiny: little, either: [big, little]}\n"
        "auto: {small: tiny, medium: big}\n"
    )


LONG = [{"role": "user", "content": "tell me everything about it, please; " * 4000}]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("asked", "model", "logical"),
    [
        ("little", "little", None),
        ("up:little", "little", None),
        ("tiny", "little", "tiny"),
        ("either", "big", "either"),
    ],
)
def test_the_name_that_led_to_the_model_is_told(tiered, asked, model, logical, stream):
    """A model that was asked for by its own name has no other."""
    reply = tiered.ask(asked, stream=stream)
    assert (reply.headers["x-router-model"], reply.headers.get("x-router-model-logical")) == (model, logical)


def test_auto_tells_the_tier_and_counts_it(tiered):
    before = {tier: tiered.metric("router_tier_requests_total", tier=tier) for tier in ("small", "medium")}
    assert tiered.ask("auto").headers["x-router-model-logical"] == "small"
    assert tiered.ask("auto", messages=LONG).headers["x-router-model-logical"] == "medium"
    after = {tier: tiered.metric("router_tier_requests_total", tier=tier) for tier in ("small", "medium")}
    assert after == {tier: count + 1 for tier, count in before.items()}


def test_a_fallback_tells_the_tier_that_answered(tiered, upstream, say):
    upstream.script("little", say.whole(b'{"error": {"message": "no"}}', 500))
    reply = tiered.ask("auto")
    assert (reply.headers["x-router-model"], reply.headers["x-router-model-logical"]) == ("big", "medium")


def spent() -> RetryBudget:
    budget = RetryBudget()
    budget.recover(100.0)
    while not budget.spent:
        budget.take()
    return budget


def test_the_retry_budget_recovers_with_time():
    """Ten a minute: a gateway that is asked twice an hour still has its second chances."""
    budget = spent()
    budget.recover(100.0 + 60 / RETRIES_A_MINUTE - 0.1)
    assert budget.spent
    budget.recover(100.0 + 60 / RETRIES_A_MINUTE + 0.1)
    assert not budget.spent


def test_the_retry_budget_never_holds_more_than_its_start():
    budget = spent()
    budget.recover(1_000_000.0)
    for _ in range(int(RETRY_START)):
        assert not budget.spent
        budget.take()
    assert budget.spent


def test_a_clock_that_stands_gives_nothing():
    budget = spent()
    for _ in range(1000):
        budget.recover(100.0)
    assert budget.spent
