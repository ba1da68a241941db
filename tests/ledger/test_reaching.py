"""The desk reached by a command: whoever begins to keep the books, or just ends, is waited for and not complained of."""

import asyncio
import fcntl
import os
import socket
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from fastroute import reaching, visiting
from fastroute.clock import SystemClock
from fastroute.config import Config, load
from fastroute.errors import StoreError
from fastroute.ledger import bookkeeper
from fastroute.ledger.bookkeeper import reachable, socket_path
from fastroute.ledger.journal import Journal
from fastroute.reaching import Asking, reach
from fastroute.visiting import visit


@pytest.fixture
def config(tmp_path: Path) -> Config:
    config = load(None, {}, {"state_dir": str(tmp_path / "state")})
    with reach(config) as ask:  # makes the directory and its books
        assert ask("receipts.list") == []
    return config


class Keeper:
    """Holds the lock of the books like somebody who opens them, or who has just stopped listening."""

    def __init__(self, config: Config) -> None:
        self._fd = os.open(config.state_dir / "run" / "bookkeeper.lock", os.O_RDWR)
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def leave(self) -> None:
        os.close(self._fd)


def test_books_that_somebody_is_about_to_close_are_waited_for(config: Config) -> None:
    keeper = Keeper(config)
    leaving = threading.Timer(0.2, keeper.leave)
    leaving.start()
    with reach(config) as ask:
        assert ask("receipts.list") == []
    leaving.join()


def test_a_connection_that_was_taken_and_dropped_is_nobodys(config: Config) -> None:
    """A bookkeeper that ends takes connections to its last moment; what was never answered is asked of the next one."""
    keeper, taken = Keeper(config), []
    with socket.socket(socket.AF_UNIX) as listener:
        with reachable(socket_path(config.state_dir)) as name:
            listener.bind(name)
        listener.listen()

        def end() -> None:
            taken.append(listener.accept()[0])
            socket_path(config.state_dir).unlink()
            taken[0].close()
            keeper.leave()

        ending = threading.Thread(target=end)
        ending.start()
        with reach(config) as ask:
            assert ask("receipts.list") == []
        ending.join()
    assert taken


def test_books_that_nobody_gives_up_are_told_of_in_the_end(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaching, "_CHANGE_S", 0.1)
    keeper = Keeper(config)
    with pytest.raises(StoreError, match="runs and does not answer"), reach(config):
        pass
    keeper.leave()


def test_a_command_asks_to_its_end_though_the_visit_that_opened_the_books_is_over(config: Config) -> None:
    """The bookkeeper of a prompt stays for a command that came meanwhile."""
    with ExitStack() as held:

        async def one_visit() -> Asking:
            async with visit(config, SystemClock()):
                return await asyncio.to_thread(held.enter_context, reach(config))

        ask = asyncio.run(one_visit())
        assert ask("receipts.list") == []


def test_the_books_of_a_visit_are_closed_as_soon_as_it_is_over(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """A visitor hangs up and lets go of its journal a moment later: no look that is due some day is waited for."""
    monkeypatch.setattr(bookkeeper, "TURN_S", 30.0)
    monkeypatch.setattr(bookkeeper, "IDLE_S", 30.0)
    monkeypatch.setattr(visiting, "_FAREWELL_S", 10.0)
    close = Journal.close

    def close_later(journal: Journal) -> None:
        time.sleep(0.1)
        close(journal)

    monkeypatch.setattr(Journal, "close", close_later)

    async def one_visit() -> None:
        async with visit(config, SystemClock()) as teller:
            assert teller.connected

    asyncio.run(one_visit())
    assert not socket_path(config.state_dir).exists()
