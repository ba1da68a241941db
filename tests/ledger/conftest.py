"""What the ledger's tests share: a database to spoil, a book, and bookkeepers and children in processes of their own."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

import fastroute.errors
from fastroute.ledger.book import Budget
from fastroute.ledger.memory import Memory
from fastroute.ledger.registry import ModelRow, Registry
from fastroute.ledger.sqlite import Store
from tests.ledger.book_kit import House
from tests.ledger.bookkeeper_kit import FORK, Here, Started, Wire

ROOT = Path(fastroute.errors.__file__).parents[1]

Child = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "state" / "fastroute.db"


@pytest.fixture
def store(database: Path) -> Iterator[Store]:
    with Store.open(database) as store:
        yield store


@pytest.fixture
def registry(store: Store) -> Registry:
    return Registry(store)


@pytest.fixture
def filled(database: Path) -> Path:
    """A closed database of a few dozen pages."""
    with Store.open(database) as store:
        Registry(store).seed([ModelRow(f"model-{n:04}", "local", "http://127.0.0.1:5000") for n in range(1500)])
    return database


@pytest.fixture
def child() -> Iterator[Child]:
    """Starts Python with a source and arguments, talking over pipes; whoever still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(source: str, *arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", source, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=10)


@pytest.fixture
def house() -> Iterator[House]:
    """A book with one key of a thousand microdollars, which finds no fault with itself when the test is over."""
    house = House(Budget("microdollar", 1000))
    yield house
    assert house.book.check() == []


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def start() -> Iterator[Started]:
    """Processes of a house, all of which are gone at its end."""
    processes: list[BaseProcess] = []

    def started(target: Callable[..., None], *args: Any) -> BaseProcess:
        process = FORK.Process(target=target, args=args)
        process.start()
        processes.append(process)
        return process

    yield started
    for process in processes:
        if process.is_alive():
            process.kill()
        process.join(5)


@pytest.fixture
def closed() -> Iterator[None]:
    """No connection outlives its test."""
    yield
    while Wire.opened:
        Wire.opened.pop().close()


@pytest.fixture
def here(state: Path) -> Iterator[Callable[[Memory], Here]]:
    """Bookkeepers in threads of this process, all of which have stopped at its end."""
    with contextlib.ExitStack() as stack:

        def made(store: Memory) -> Here:
            one = Here(state, store)
            stack.callback(one.close)
            return one

        yield made
