"""A loop that stands still is told with its stack, makes the worker degraded, and ends it when it stays."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import pytest

from fastroute import watchdog
from fastroute.watchdog import BEAT_S, DEGRADED_S, FATAL_S, STUCK_S, Vigil, Watchdog


def looks(vigil: Vigil, seconds: float) -> list[str]:
    """What is found while the loop does not beat for so long."""
    found = [vigil.look(BEAT_S) for _ in range(int(seconds / BEAT_S))]
    return [word for word in found if word]


def test_a_loop_that_beats_is_left_alone():
    vigil = Vigil()
    for _ in range(100):
        vigil.beats += 1
        assert vigil.look(BEAT_S) is None
    assert not vigil.degraded


def test_a_stall_is_told_once_and_degrades():
    vigil = Vigil()
    assert looks(vigil, STUCK_S - BEAT_S) == []
    assert not vigil.degraded
    assert looks(vigil, 5) == ["stuck"]
    assert vigil.degraded


def test_a_stall_that_is_over_is_remembered_for_a_while():
    vigil = Vigil()
    looks(vigil, STUCK_S)
    for _ in range(int(DEGRADED_S / BEAT_S)):
        assert vigil.degraded
        vigil.beats += 1
        vigil.look(BEAT_S)
    assert not vigil.degraded
    assert looks(vigil, STUCK_S) == ["stuck"]


def test_a_loop_that_stays_is_fatal():
    assert looks(Vigil(), FATAL_S) == ["stuck", "fatal"]


def test_a_process_that_did_not_run_is_not_blamed():
    """After SIGSTOP and SIGCONT an hour has passed for everybody, and the loop has a right to its next beat."""
    vigil = Vigil()
    assert vigil.look(3600) is None
    vigil.beats += 1
    assert vigil.look(BEAT_S) is None
    assert not vigil.degraded


def blocked_here(until: Callable[[], object]) -> None:
    """A call that never gives the loop back; its name must stand in the log."""
    while not until():
        time.sleep(0.002)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same proportions, a hundred times as fast."""
    for name in ("BEAT_S", "STUCK_S", "FATAL_S"):
        monkeypatch.setattr(watchdog, name, getattr(watchdog, name) / 50)


@pytest.mark.usefixtures("quick")
def test_the_stack_of_a_blocked_loop_is_logged_and_the_worker_ends(caplog: pytest.LogCaptureFixture) -> None:
    killed: list[bool] = []

    async def run() -> None:
        dog = Watchdog(lambda late: None, kill=lambda: killed.append(True))
        patience = time.monotonic() + 10
        blocked_here(lambda: killed or time.monotonic() > patience)
        dog.close()

    with caplog.at_level(logging.ERROR, "fastroute.watchdog"):
        asyncio.run(run())
    assert killed
    assert "blocked_here" in caplog.records[0].getMessage()
    assert "ends itself" in caplog.records[-1].getMessage()


@pytest.mark.usefixtures("quick")
def test_how_late_each_beat_came_is_told() -> None:
    async def run() -> list[int]:
        late: list[int] = []
        dog = Watchdog(late.append, kill=lambda: None)
        await asyncio.sleep(0.02)
        asyncio.get_running_loop().call_soon(time.sleep, 0.05)  # a callback that takes too long
        await asyncio.sleep(0.2)
        dog.close()
        return late

    late = asyncio.run(run())
    assert max(late) > 20_000
    assert all(each >= 0 for each in late)
