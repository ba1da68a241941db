"""How fast a broken lane is got out of the way: after its third failure nobody waits for it again, but for one probe."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from acceptance_kit import silent

FIRST_CHUNK_MS, PROBE_AFTER_MS = 250, 1200
AT_ONCE_MS = FIRST_CHUNK_MS / 2


@pytest.fixture
def lab(serve: Any, stubs: Any) -> Any:
    """Two providers, the first of which says nothing at all."""
    slow, well = stubs.open(), stubs.open()
    slow.say("slow", silent)
    gateway = serve(f"""
relay: {{first_chunk_ms: {FIRST_CHUNK_MS}, whole_ms: {FIRST_CHUNK_MS}}}
health: {{threshold: 3, probe_after_ms: {PROBE_AFTER_MS}}}
providers:
  slow: {{dialect: openai, base_url: "{slow.url}"}}
  well: {{dialect: openai, base_url: "{well.url}"}}
models:
  - {{id: slow, model: "slow:slow", price: {{input: 1, output: 1}}}}
  - {{id: well, model: "well:well", price: {{input: 1, output: 1}}}}
aliases: {{both: [slow, well]}}
""")
    return gateway, slow, well


def timed(gateway: Any, **fields: Any) -> tuple[float, Any]:
    started = time.monotonic()
    told = gateway.ask("both", **fields)
    return (time.monotonic() - started) * 1000, told


def test_a_degraded_lane_costs_nobody_its_deadline(lab: Any) -> None:
    """Three callers wait for the deadline, the next do not; after the cool-down exactly one of many does."""
    gateway, slow, _ = lab
    for _ in range(3):
        took_ms, told = timed(gateway)
        assert took_ms >= FIRST_CHUNK_MS
        assert told.text == "I am well"
    degraded_at = time.monotonic()
    assert gateway.http.get("/health").json()["lanes"]["slow"] == "degraded"

    for stream in (False, True) * 3:
        took_ms, told = timed(gateway, stream=stream)
        assert took_ms < AT_ONCE_MS
        assert told.text == "I am well"
    assert len(slow.asked()) == 3

    time.sleep(max(0.0, degraded_at + PROBE_AFTER_MS / 1000 + 0.05 - time.monotonic()))
    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(lambda _: timed(gateway), range(8)))
    assert all(told.text == "I am well" for _, told in answers)
    assert sorted(took_ms >= FIRST_CHUNK_MS for took_ms, _ in answers) == [False] * 7 + [True]
    assert len(slow.asked()) == 4

    took_ms, _ = timed(gateway)
    assert took_ms < AT_ONCE_MS, "a failed probe starts the cool-down anew"


def test_a_probe_that_succeeds_heals_the_lane(lab: Any) -> None:
    gateway, slow, _ = lab
    for _ in range(3):
        timed(gateway)
    slow.forget()
    degraded_at = time.monotonic()
    assert timed(gateway)[1].text == "I am well"
    time.sleep(max(0.0, degraded_at + PROBE_AFTER_MS / 1000 + 0.05 - time.monotonic()))
    assert [timed(gateway)[1].text for _ in range(3)] == ["I am slow"] * 3
    assert gateway.http.get("/health").json()["lanes"]["slow"] == "ok"
