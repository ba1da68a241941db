"""A gateway of its own for every module that asks, in front of providers that record what reaches them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Test folders are no packages, so the kit is loaded by its path and imported by its name from then on.
if "acceptance_kit" not in sys.modules:
    _spec = importlib.util.spec_from_file_location("acceptance_kit", Path(__file__).with_name("acceptance_kit.py"))
    assert _spec is not None
    assert _spec.loader is not None
    sys.modules[_spec.name] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules[_spec.name])
kit: Any = sys.modules["acceptance_kit"]


@pytest.fixture(scope="session")
def stubs() -> Iterator[Any]:
    """Where providers are opened."""
    stubs = kit.Stubs()
    yield stubs
    stubs.close()


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """`serve(config, env={}, place=None)`: a running gateway; each must end well and say nothing it should not."""
    running: list[Any] = []

    def serve(config: str, env: dict[str, str] | None = None, place: Path | None = None) -> Any:
        gateway = kit.start(place or tmp_path_factory.mktemp("gateway"), config, env)
        running.append(gateway)
        return gateway

    yield serve
    for gateway in running:
        gateway.end()
    codes = [gateway.ended() for gateway in running]
    logs = [gateway.log.read_text() for gateway in running]
    assert codes == [0] * len(codes), logs
    assert not [log for log in logs if "Traceback" in log], logs
