"""A gateway of its own for every module that asks, in front of providers that record what reaches them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Test folders are no packages, so the kits are loaded by their paths and imported by their names from then on.
for _name in ("acceptance_kit", "money_desk_kit"):
    if _name not in sys.modules:
        _spec = importlib.util.spec_from_file_location(_name, Path(__file__).with_name(f"{_name}.py"))
        assert _spec is not None
        assert _spec.loader is not None
        sys.modules[_name] = importlib.util.module_from_spec(_spec)
        _spec.loader.exec_module(sys.modules[_name])
kit: Any = sys.modules["acceptance_kit"]
desk: Any = sys.modules["money_desk_kit"]


@pytest.fixture(scope="session")
def stubs() -> Iterator[Any]:
    """Where providers are opened."""
    stubs = kit.Stubs()
    yield stubs
    stubs.close()


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """`serve(config, env={}, place=None, workers=1)`: a running gateway; each must end well, with no traceback told."""
    running: list[Any] = []

    def serve(config: str, env: dict[str, str] | None = None, place: Path | None = None, workers: int = 1) -> Any:
        gateway = kit.start(place or tmp_path_factory.mktemp("gateway"), config, env, workers)
        running.append(gateway)
        return gateway

    yield serve
    for gateway in running:
        gateway.end()
    codes = [gateway.ended() for gateway in running]
    logs = [gateway.log.read_text() for gateway in running]
    assert codes == [0] * len(codes), logs
    assert not [log for log in logs if "Traceback" in log], logs


@pytest.fixture(scope="module")
def lab(stubs: Any) -> Any:
    """The provider behind every model of the house."""
    return stubs.open()


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
