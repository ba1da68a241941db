"""What the ledger's tests share: a database to spoil, a book, and children in processes of their own."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import fastroute.errors
from fastroute.ledger.book import Budget
from fastroute.ledger.registry import ModelRow, Registry
from fastroute.ledger.sqlite import Store
from tests.ledger.book_kit import House

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
