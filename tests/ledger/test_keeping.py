"""The supervisor with a bookkeeper: it is there first, leaves last, and comes back when it dies."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fastroute.ledger import protocol
from fastroute.ledger.books import Books
from fastroute.ledger.door import answers, socket_path
from fastroute.ledger.journal import boot_id
from fastroute.ledger.sqlite import Store
from tests.kits import is_gone
from tests.ledger.bookkeeper_kit import wait_until

Child = Callable[..., subprocess.Popen[str]]

HOUSE = """
import logging, pathlib, signal, sys, time
from fastroute.config import load
from fastroute.keeping import keep
from fastroute.ledger.door import answers
from fastroute.supervisor import Supervisor

def work(config, number):
    said = "open" if answers(config.state_dir) else "shut"
    (config.state_dir / f"worker-{number}").write_text(said)
    def end(*_):
        said = "open" if answers(config.state_dir) else "shut"
        (config.state_dir / f"ended-{number}").write_text(said)
        sys.exit()
    signal.signal(signal.SIGTERM, end)
    while True:
        time.sleep(1)

logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
given = {"state_dir": sys.argv[1], "server.port": 0, "log.path": sys.argv[1] + "/log"}
sys.exit(Supervisor(load(None, {}, given), 2, work, keep).run())
"""


@pytest.fixture
def state(tmp_path: Path) -> Path:
    path = tmp_path / "state"
    path.mkdir()
    return path


@pytest.fixture
def house(state: Path, child: Child) -> subprocess.Popen[str]:
    return child(HOUSE, state)


def bookkeeper_of(house: subprocess.Popen[str]) -> int:
    """The process that says it keeps the books."""
    assert house.stdout is not None
    for line in house.stdout:
        if line.startswith("bookkeeper runs as process "):
            return int(line.split()[-1])
    pytest.fail("no bookkeeper was started")


def test_workers_begin_when_the_books_are_open_and_end_before_they_are_closed(
    state: Path, house: subprocess.Popen[str]
) -> None:
    wait_until(lambda: all((state / f"worker-{n}").exists() for n in range(2)), 10)
    wait_until(lambda: (state / "worker-1").read_text() != "", 10)
    house.terminate()
    assert house.wait(10) == 0
    assert [(state / f"{when}-{n}").read_text() for when in ("worker", "ended") for n in range(2)] == ["open"] * 4
    assert not socket_path(state).exists()
    with Store.open(state / "fastroute.db") as store:
        assert Books(store).load().notes == {"boot_id": boot_id().encode(), "clean_stop": b"1"}


def test_a_killed_bookkeeper_is_back_within_a_second(state: Path, house: subprocess.Popen[str]) -> None:
    pid = bookkeeper_of(house)
    wait_until(lambda: (state / "worker-1").exists(), 10)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not answers(state), 10)
    assert wait_until(lambda: answers(state), 10) < 1
    assert house.poll() is None


def test_the_bookkeeper_does_not_outlive_its_supervisor(state: Path, house: subprocess.Popen[str]) -> None:
    pid = bookkeeper_of(house)
    wait_until(lambda: answers(state), 10)
    house.kill()
    wait_until(lambda: is_gone(pid), 10)


def test_books_that_cannot_be_opened_end_it_and_say_why(state: Path, child: Child) -> None:
    """Nobody serves beside damaged books, and nobody writes over them."""
    (state / "fastroute.db").write_bytes(b"not a database" * 100)
    house = child(HOUSE, state)
    assert house.wait(10) == 74
    assert (state / "fastroute.db").read_bytes() == b"not a database" * 100
    assert not (state / "worker-0").exists()


def test_a_weak_pepper_ends_it(state: Path, child: Child) -> None:
    (state / "secrets").mkdir()
    (state / "secrets" / "pepper").write_bytes(b"changeme")
    assert child(HOUSE, state).wait(10) == 74


def test_questions_are_answered_with_receipts_and_secrets_in_place(state: Path, house: subprocess.Popen[str]) -> None:
    wait_until(lambda: answers(state), 10)
    with socket.socket(socket.AF_UNIX) as wire:
        wire.settimeout(5)
        wire.connect(str(socket_path(state)))
        wire.sendall(protocol.frame(protocol.Ask(1, "fly")))
        size = int.from_bytes(wire.recv(4), "big")
        reply = protocol.reply(wire.recv(size))
    assert isinstance(reply, protocol.Answered)
    assert reply.refusal is not None
    assert reply.refusal[:2] == (404, "unknown_operation")
    assert sorted(path.name for path in (state / "secrets").iterdir()) == ["pepper", "receipts-1.key"]
