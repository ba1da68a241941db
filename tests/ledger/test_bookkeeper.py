"""The bookkeeper as a process: killed or stopped at any point, it loses nothing and tells nothing twice."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from fastroute.ledger.books import Books
from fastroute.ledger.door import socket_path
from fastroute.ledger.sqlite import Store
from tests.ledger.bookkeeper_kit import FORK, Started, Wire, keep, stored, wait_until, working

pytestmark = pytest.mark.usefixtures("closed")
TORTURE = bool(os.environ.get("FASTROUTE_TORTURE"))


# --- killed at any point ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20 if TORTURE else 1))
def test_killed_between_any_two_steps_it_loses_and_doubles_nothing(state: Path, start: Started, seed: int) -> None:
    """Twenty deaths under load, each at a random step; the worker goes on meanwhile and with its successor."""
    dice = random.Random(seed)
    first = start(keep, state)
    account = Wire(state).desk("open", name="k", amount=10**9)
    ours, theirs = FORK.Pipe()
    kept = first
    worker = start(working, state, account, theirs)
    ours.recv()
    first.kill()
    for _ in range(20):
        kept.join(5)
        kept = start(keep, state, dice.randint(1, 120))
        kept.join(5)
        assert kept.exitcode == -signal.SIGKILL
    last = start(keep, state)
    ours.send("end")
    assert ours.poll(10)
    done, spent, _ = ours.recv()
    worker.join(5)
    wire = Wire(state)
    wait_until(lambda: wire.desk("used", account=account) == spent)
    wait_until(lambda: not list((state / "journal").glob("*.log")))
    last.terminate()
    last.join(5)
    assert last.exitcode == 0
    assert stored(state) == (done, spent, done)
    assert done > 20


def test_a_worker_killed_with_an_attempt_open_is_charged_for_it_within_a_second(state: Path, start: Started) -> None:
    start(keep, state)
    wire = Wire(state)
    account = wire.desk("open", name="k", amount=10**6)
    ours, theirs = FORK.Pipe()
    worker = start(working, state, account, theirs)
    ours.recv()
    time.sleep(0.05)
    ours.send("hang")
    assert ours.poll(5)
    done, spent, _ = ours.recv()
    worker.kill()
    assert wait_until(lambda: wire.desk("used", account=account) == spent + 10) < 1
    assert stored(state) == (done, spent + 10, done)
    wait_until(lambda: not list((state / "journal").glob("*.log")))


def test_a_worker_that_is_stopped_keeps_what_it_has(state: Path, start: Started) -> None:
    """SIGSTOP is not death: nothing of it is given away, and it goes on as if nothing had been."""
    start(keep, state)
    wire = Wire(state)
    account = wire.desk("open", name="k", amount=10**6)
    ours, theirs = FORK.Pipe()
    worker = start(working, state, account, theirs)
    holder = ours.recv()
    time.sleep(0.05)
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGSTOP)
    time.sleep(0.5)
    assert (state / "journal" / f"{holder}.lock").exists()
    os.kill(worker.pid, signal.SIGCONT)
    ours.send("end")
    assert ours.poll(5)
    done, spent, _ = ours.recv()
    wait_until(lambda: wire.desk("used", account=account) == spent)
    assert stored(state) == (done, spent, done)


def test_a_bookkeeper_that_is_stopped_for_a_while_only_answers_later(state: Path, start: Started) -> None:
    kept = start(keep, state)
    account = Wire(state).desk("open", name="k", amount=10**6)
    ours, theirs = FORK.Pipe()
    start(working, state, account, theirs)
    ours.recv()
    assert kept.pid is not None
    os.kill(kept.pid, signal.SIGSTOP)
    time.sleep(0.3)
    os.kill(kept.pid, signal.SIGCONT)
    ours.send("end")
    assert ours.poll(5)
    done, spent, _ = ours.recv()
    wire = Wire(state)
    wait_until(lambda: wire.desk("used", account=account) == spent)
    assert stored(state) == (done, spent, done)


def test_loss_of_power_charges_what_was_out(state: Path, start: Started) -> None:
    """Another boot id and no clean stop: what a lost end of the journal may have held is charged, and not more."""
    kept = start(keep, state, 0, "boot-1")
    account = Wire(state).desk("open", name="k", amount=10**6)
    ours, theirs = FORK.Pipe()
    worker = start(working, state, account, theirs, "boot-1")
    ours.recv()
    time.sleep(0.05)
    ours.send("hang")
    assert ours.poll(5)
    _, _, granted = ours.recv()
    for process in (kept, worker):
        process.kill()
        process.join(5)
    start(keep, state, 0, "boot-2")
    assert Wire(state).desk("used", account=account) == granted


# --- stopping ---------------------------------------------------------------------------------------------------------


def test_it_stops_cleanly_after_its_workers(state: Path, start: Started) -> None:
    """Told to stop together with them, it waits until they have told everything."""
    kept = start(keep, state)
    account = Wire(state).desk("open", name="k", amount=10**6)
    ours, theirs = FORK.Pipe()
    start(working, state, account, theirs)
    ours.recv()
    kept.terminate()
    time.sleep(0.05)
    ours.send("end")
    assert ours.poll(5)
    done, spent, _ = ours.recv()
    kept.join(5)
    assert kept.exitcode == 0
    assert stored(state) == (done, spent, done)
    with Store.open(state / "fastroute.db") as store:
        assert "clean_stop" in Books(store).load().notes
    assert not socket_path(state).exists()


def test_a_worker_that_does_not_end_is_not_waited_for_for_ever(state: Path, start: Started) -> None:
    kept = start(keep, state)
    account = Wire(state).desk("open", name="k", amount=10**6)
    ours, theirs = FORK.Pipe()
    start(working, state, account, theirs)
    ours.recv()
    kept.terminate()
    kept.join(3)
    assert kept.exitcode == 0
    with Store.open(state / "fastroute.db") as store:
        assert "clean_stop" not in Books(store).load().notes
