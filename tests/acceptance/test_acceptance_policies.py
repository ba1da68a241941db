"""A route with two targets: the first fails in every way there is before its first content, and the second answers.

The route is an alias here; which faults fall over (`retry_on`) becomes a matter of policies once there are any, and the
default is that a stall, a broken connection, a 5xx and a 429 do.
"""

from __future__ import annotations

import time
from typing import Any

import pytest
from acceptance_kit import chat_events, claude_events, error, event, reset, silent, streamed, whole

FIRST_CHUNK_MS, IDLE_MS = 400, 500
ROUTES = 30
BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


class Lab:
    """Routes nobody has used yet, each with two models on lanes of their own, at two providers."""

    def __init__(self, serve: Any, openai: Any, anthropic: Any) -> None:
        self.openai, self.anthropic = openai, anthropic
        models, aliases = [], []
        for number in range(ROUTES):
            for place, provider in (("first", "openai"), ("second", "anthropic")):
                name = f"{place}-{number}"
                models.append(
                    f"  - {{id: {name}, model: '{provider}:{name}', lane: {name}, "
                    "price: {input: 150000, output: 600000}, max_output: 1000}"
                )
            aliases.append(f"  helpdesk-{number}: [first-{number}, second-{number}]")
        self.gateway = serve(
            "\n".join(
                [
                    f"relay: {{connect_ms: 500, first_chunk_ms: {FIRST_CHUNK_MS}, "
                    f"whole_ms: {FIRST_CHUNK_MS}, idle_ms: {IDLE_MS}}}",
                    "providers:",
                    f'  openai: {{dialect: openai, base_url: "{openai.url}", api_key: sk-one}}',
                    f'  anthropic: {{dialect: anthropic, base_url: "{anthropic.url}", api_key: sk-two}}',
                    "models:",
                    *models,
                    "aliases:",
                    *aliases,
                    "",
                ]
            )
        )
        self._next = 0

    def route(self, *acts: Any) -> tuple[str, str, str]:
        """A fresh route, its first and its second model; `acts` are what the first does."""
        number = self._next
        self._next += 1
        for _ in range(5):  # a first attempt fills a fifth of a retry
            self.gateway.ask("dummy")
        self.openai.say(f"first-{number}", *acts)
        return f"helpdesk-{number}", f"first-{number}", f"second-{number}"


@pytest.fixture(scope="module")
def lab(serve: Any, stubs: Any) -> Lab:
    return Lab(serve, stubs.open(), stubs.open())


@BOTH
def test_p_a2_a_late_first_chunk_is_answered_by_the_backup(lab: Lab, stream: bool) -> None:
    """P-A2: one deadline from send to first content; nothing of the first provider is ever told."""
    late = 3 * FIRST_CHUNK_MS / 1000
    said = streamed(chat_events("never"), first_s=late) if stream else whole({}, after_s=late)
    route, first, second = lab.route(said)
    with (
        lab.gateway.counting("fastroute_attempts_total", lane=first, outcome="stall") as stalled,
        lab.gateway.counting("router_fallback_total", from_=first, to=second) as fell,
    ):
        started = time.monotonic()
        told = lab.gateway.ask(route, stream=stream)
        took_ms = (time.monotonic() - started) * 1000
        assert (stalled(), fell()) == (1, 1)
    assert told.text == f"I am {second}"
    assert told.headers["x-router-fallback"] == "true"
    assert told.headers["x-router-reason"] == "fallback"
    assert FIRST_CHUNK_MS <= took_ms < 2 * FIRST_CHUNK_MS
    assert not stream or told.done


@BOTH
def test_p_a2_events_without_content_do_not_move_the_deadline(lab: Lab, stream: bool) -> None:
    """P-B2: a head and a heart-beat are not a first chunk."""
    quiet = streamed([b": ping\n\n"] * 50, gap_s=0.05, end="hang") if stream else silent
    route, _, second = lab.route(quiet)
    started = time.monotonic()
    told = lab.gateway.ask(route, stream=stream)
    assert told.text == f"I am {second}"
    assert (time.monotonic() - started) * 1000 < 2 * FIRST_CHUNK_MS


@BOTH
@pytest.mark.parametrize(
    ("act", "outcome"),
    [
        (whole(error("overloaded"), 503), "5xx"),
        (whole(error("server_error"), 500), "5xx"),
        (whole(error("rate_limit_error"), 429, {"retry-after": "7"}), "rate_limit"),
        (reset, "cut"),
    ],
    ids=["503", "500", "429", "reset"],
)
def test_p_a3_a_provider_in_trouble_is_answered_by_the_backup(lab: Lab, act: Any, outcome: str, stream: bool) -> None:
    """P-A3: 503 and 429 fall over on a route of several, each with its own reason."""
    route, first, second = lab.route(act)
    with lab.gateway.counting("fastroute_attempts_total", lane=first, outcome=outcome) as counted:
        told = lab.gateway.ask(route, stream=stream)
        assert counted() == 1
    assert told.status == 200
    assert told.text == f"I am {second}"


@BOTH
def test_p_a3_a_bad_request_is_not_tried_elsewhere(lab: Lab, stream: bool) -> None:
    """P-A3, P-B11: 400 used to burn every route."""
    route, _, second = lab.route(whole(error("invalid_request_error", "no such parameter"), 400))
    told = lab.gateway.ask(route, stream=stream)
    assert told.status == 400
    assert told.error["message"] == "no such parameter"
    assert not lab.anthropic.asked(second)


def test_p_a4_a_long_healthy_stream_is_left_alone(lab: Lab) -> None:
    """P-A4, P-B1: the deadline is for the first content; a stream may last many times as long."""
    words = [f"{number} " for number in range(12)]
    route, _, second = lab.route(streamed(chat_events(*words), gap_s=FIRST_CHUNK_MS / 4000))
    started = time.monotonic()
    told = lab.gateway.ask(route, stream=True)
    assert (time.monotonic() - started) * 1000 > 3 * FIRST_CHUNK_MS
    assert told.text == "".join(words)
    assert told.done
    assert told.headers["x-router-fallback"] == "false"
    assert not lab.anthropic.asked(second)


def test_p_a5_a_stall_after_the_first_chunk_ends_in_an_error(lab: Lab) -> None:
    """P-A5, P-B14: told as broken within the idle limit, charged, and no second answer behind the first."""
    events = chat_events("half an ", "answer", usage=None, finish=None, done=False)
    route, first, second = lab.route(streamed(events, end="hang"))
    with (
        lab.gateway.counting("router_tokens_total", model=first, type="output") as tokens,
        lab.gateway.counting("router_cost_usd_sum", model=first) as dollars,
    ):
        started = time.monotonic()
        told = lab.gateway.ask(route, stream=True)
        assert IDLE_MS <= (time.monotonic() - started) * 1000 < IDLE_MS + 1000
        assert tokens() > 0
        assert dollars() > 0
    assert told.status == 200
    assert told.text == "half an answer"
    assert not told.done
    assert '"error"' in told.data[-1]
    assert "upstream_timeout" in told.data[-1]
    assert not lab.anthropic.asked(second)


def test_an_error_event_after_content_is_told_and_ends_the_stream(lab: Lab) -> None:
    """P-B14: error events inside a 200 used to be ignored."""
    events = [*chat_events("half", usage=None, finish=None, done=False), event(error("server_error"))]
    route, _, second = lab.route(streamed(events, gap_s=0.05))
    told = lab.gateway.ask(route, stream=True)
    assert not told.done
    assert '"error"' in told.data[-1]
    assert not lab.anthropic.asked(second)


@BOTH
def test_when_both_fail_the_last_error_is_told(lab: Lab, stream: bool) -> None:
    """P-B18: two attempts were made, and the headers name the last."""
    route, first, second = lab.route(whole(error("server_error"), 500))
    lab.anthropic.say(second, silent)
    told = lab.gateway.ask(route, stream=stream)
    assert told.status == 504
    assert told.headers["x-router-model"] == second
    assert told.headers["x-router-original-model"] == first


def test_the_backup_may_speak_another_dialect(lab: Lab) -> None:
    """A stream of Claude behind a route that began at OpenAI reads like any other."""
    route, _, second = lab.route(whole(error("server_error"), 500))
    lab.anthropic.say(second, streamed(claude_events("bon", "jour")))
    told = lab.gateway.ask(route, stream=True)
    assert told.text == "bonjour"
    assert told.done
    assert told.comments["x-router-tokens-output"] == "15"
