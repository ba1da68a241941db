"""Gateways to talk to: one for everybody who only asks, and as many more as a test wants to hurt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kits import load

kit: Any = load("server/gateway_kit.py")
load("server/asked_kit.py")


@pytest.fixture(scope="session", params=["granian", "compiled"])
def listener(request: pytest.FixtureRequest) -> str:
    """Which server takes the callers' connections: what is promised of one is promised of both."""
    return str(request.param)


@pytest.fixture(scope="session")
def upstream(listener: str) -> Iterator[kit.Upstream]:
    """Each server's own, which was asked by nobody else."""
    upstream = kit.Upstream()
    yield upstream
    upstream.close()


@pytest.fixture(scope="session")
def gateway(upstream: kit.Upstream, tmp_path_factory: pytest.TempPathFactory, listener: str) -> Iterator[kit.Gateway]:
    """One worker, with deadlines for bodies and writes that a test can wait for."""
    gateway = kit.start(
        tmp_path_factory.mktemp("shared") / "data",
        listener=listener,
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
def serve(upstream: kit.Upstream, tmp_path: Path, listener: str) -> Iterator[Callable[..., kit.Gateway]]:
    """`serve(workers=2, drain_ms=500, ...)`: a gateway of the test's own; all are gone when it ends."""
    started: list[kit.Gateway] = []

    def serve(*, drain_ms: int = 2000, more: str = "", **how: Any) -> kit.Gateway:
        state_dir = tmp_path / f"data-{len(started)}"
        config = kit.configured(upstream, drain_ms) + more
        started.append(kit.start(state_dir, config=config, listener=listener, **how))
        return started[-1]

    yield serve
    for gateway in started:
        gateway.stop()
