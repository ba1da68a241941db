"""A lane's health: streaks, one success, one probe."""

import pytest

from fastroute.clock import ManualClock
from fastroute.lanes import Health


@pytest.fixture
def clock():
    return ManualClock()


def test_m_a10_the_third_failure_in_a_row_degrades_and_one_success_heals(clock):
    health = Health(clock)
    health.failure("a")
    health.failure("a")
    assert health.state("a") == "ok"
    health.failure("a")
    assert health.state("a") == "degraded"
    assert health.state("b") == "ok"
    health.success("a")
    assert health.state("a") == "ok"
    assert health.snapshot() == {"a": "ok"}


def test_m_a10_a_threshold_of_one_degrades_at_once(clock):
    health = Health(clock, threshold=1)
    health.failure("a")
    assert health.state("a") == "degraded"


def test_m_a10_after_the_cool_down_exactly_one_probe_is_admitted(clock):
    health = Health(clock, threshold=1, probe_after_ms=5000)
    health.failure("a")
    clock.advance(4999)
    assert not health.admit("a")
    clock.advance(1)
    assert health.state("a") == "ok"
    assert [health.admit("a") for _ in range(5)] == [True, False, False, False, False]
    assert health.state("a") == "degraded"


def test_a_failed_probe_starts_the_cool_down_anew_and_a_good_one_ends_it(clock):
    health = Health(clock, threshold=1, probe_after_ms=5000)
    health.failure("a")
    clock.advance(5000)
    assert health.admit("a")
    health.failure("a")
    clock.advance(4999)
    assert not health.admit("a")
    clock.advance(1)
    assert health.admit("a")
    health.success("a")
    assert health.admit("a")
    assert health.admit("a")


def test_a_probe_whose_caller_left_lets_the_next_one_try(clock):
    health = Health(clock, threshold=1, probe_after_ms=1)
    health.failure("a")
    clock.advance(1)
    assert health.admit("a")
    health.forgo("a")
    assert health.admit("a")


def test_a_threshold_below_one_is_refused(clock):
    with pytest.raises(ValueError, match="at least 1"):
        Health(clock, threshold=0)


def test_a_pause_the_provider_asks_for_is_kept_up_to_a_minute(clock):
    health = Health(clock)
    health.rest("a", 1000)
    assert (health.state("a"), health.admit("a"), health.troubled) == ("degraded", False, {"a": "degraded"})
    clock.advance(1000)
    assert (health.state("a"), health.admit("a"), health.troubled) == ("ok", True, {})
    health.rest("a", 10**9)
    clock.advance(59_999)
    assert not health.admit("a")
    clock.advance(1)
    assert health.admit("a")


def test_a_probe_that_is_asked_to_wait_leaves_the_next_one_free(clock):
    health = Health(clock, threshold=1, probe_after_ms=5000)
    health.failure("a")
    clock.advance(5000)
    assert health.admit("a")
    health.rest("a", 1000)
    assert not health.admit("a")
    clock.advance(1000)
    assert health.admit("a")


def test_a_straggler_that_succeeds_does_not_end_a_pause_but_a_later_attempt_does(clock):
    health = Health(clock)
    clock.advance(1000)
    health.failure("a")
    health.rest("a", 30_000)
    health.success("a", started_ms=900)
    assert not health.admit("a")
    health.success("a", started_ms=1000)
    assert health.admit("a")
