"""Gateways to talk to: one for everybody who only asks, and as many more as a test wants to hurt."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Test folders are no packages, so the kit is loaded by its path.
_spec = importlib.util.spec_from_file_location("gateway_kit", Path(__file__).with_name("gateway_kit.py"))
assert _spec is not None
assert _spec.loader is not None
kit = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = kit
_spec.loader.exec_module(kit)


@pytest.fixture(scope="session")
def upstream() -> Iterator[kit.Upstream]:
    upstream = kit.Upstream()
    yield upstream
    upstream.close()


@pytest.fixture(scope="session")
def gateway(upstream: kit.Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[kit.Gateway]:
    """One worker, with deadlines for bodies and writes that a test can wait for."""
    gateway = kit.start(
        tmp_path_factory.mktemp("shared") / "data",
        config=kit.configured(upstream),
        constants={
            "fastroute.web.reading.FIRST_BYTE_S": 0.4,
            "fastroute.web.reading.WHOLE_BODY_S": 0.8,
            "fastroute.web.worker.WRITE_S": 1.5,
        },
    )
    yield gateway
    gateway.stop()
    assert gateway.process.returncode == 0, "".join(gateway.log)


@pytest.fixture
def serve(upstream: kit.Upstream, tmp_path: Path) -> Iterator[Callable[..., kit.Gateway]]:
    """`serve(workers=2, drain_ms=500, ...)`: a gateway of the test's own; all are gone when it ends."""
    started: list[kit.Gateway] = []

    def serve(*, drain_ms: int = 2000, more: str = "", **how: Any) -> kit.Gateway:
        state_dir = tmp_path / f"data-{len(started)}"
        started.append(kit.start(state_dir, config=kit.configured(upstream, drain_ms) + more, **how))
        return started[-1]

    yield serve
    for gateway in started:
        gateway.stop()
