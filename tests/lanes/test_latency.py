"""What is known of an entry's latency: its last attempts, while they are recent."""

import pytest

from fastroute.clock import ManualClock
from fastroute.domain import LatencyFact
from fastroute.lanes import Latency


@pytest.fixture
def clock():
    return ManualClock()


def test_p_a9_p95_is_the_nearest_lower_element(clock):
    latency = Latency(clock)
    for ms in range(1000, 99, -100):
        latency.note("a", ms)
    latency.note("b", 7)
    assert latency.facts() == {"a": LatencyFact(500, 900, 10), "b": LatencyFact(7, 7, 1)}


def test_only_the_last_attempts_count(clock):
    latency = Latency(clock, window=3)
    for ms in (9000, 1, 2, 3):
        latency.note("a", ms)
    assert latency.facts() == {"a": LatencyFact(2, 2, 3)}


def test_invented_names_are_forgotten_before_what_is_in_use(clock, monkeypatch):
    """A caller may invent as many names as it likes that stand for an entry by themselves."""
    monkeypatch.setattr("fastroute.lanes.latency.ENTRIES_MAX", 8)
    latency = Latency(clock)
    for n in range(100):
        latency.note(f"invented-{n}", 5)
        clock.advance(1)
        latency.note("mine", n)
    assert len(latency.facts()) <= 8
    assert latency.facts()["mine"] == LatencyFact(74, 96, 50)


def test_a_slow_sample_does_not_lock_an_entry_out_for_ever(clock):
    latency = Latency(clock, age_max_ms=60_000)
    latency.note("slow-once", 10_000)
    clock.advance(60_000)
    assert latency.facts() == {"slow-once": LatencyFact(10_000, 10_000, 1)}
    clock.advance(1)
    assert latency.facts() == {}
