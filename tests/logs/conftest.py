"""A log in a directory of its own, put away after the test, and a reader of its lines."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from fastroute import logs
from fastroute.clock import ManualClock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "router.log"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def started(path: Path) -> Iterator[Callable[..., logs.Logs]]:
    def start(level: str = "INFO", **options: Any) -> logs.Logs:
        return logs.setup(level, path, **options)

    yield start
    logs.shutdown()


@pytest.fixture
def lines(path: Path) -> Callable[[], list[dict[str, Any]]]:
    return lambda: [orjson.loads(line) for line in path.read_bytes().splitlines()]
