"""A gateway of its own for every module that asks, in front of providers that record what reaches them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kits import load

kit: Any = load("acceptance/acceptance_kit.py")
desk: Any = load("acceptance/money_desk_kit.py")
stubs = kit.stubs


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """`serve(config, env={}, place=None, workers=1)`: a running gateway; each must end well, with no traceback told."""
    running: list[Any] = []

    def serve(config: str, env: dict[str, str] | None = None, place: Path | None = None, workers: int = 1) -> Any:
        gateway = kit.start(place or tmp_path_factory.mktemp("gateway"), config, env, workers)
        running.append(gateway)
        return gateway

    yield serve
    kit.end_well(running)


# The provider behind every model of the house.
lab = kit.provider()


@pytest.fixture(scope="module")
def house(serve: Any, lab: Any) -> Any:
    """A gateway with two workers and its books open, closed to whoever has no key."""
    house = desk.House(
        serve(desk.CONFIG.format(lab=lab.url), {"FASTROUTE_ADMIN_KEY": desk.ADMIN, "LOG_LEVEL": "DEBUG"}, workers=2)
    )
    house.key("the first")
    return house


@pytest.fixture
def clean(lab: Any) -> None:
    """The provider has forgotten what it was told to say and what it was asked."""
    lab.forget()


@pytest.fixture
def key(house: Any) -> Any:
    """A key worth five dollars, of nobody else."""
    return house.key(budget_usd=5)
