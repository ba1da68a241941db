"""What the wire's tests share: scripted upstreams, both event loops, and a pool that must be clean at the end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from fastroute.upstreams.pool import Deadlines, Origin, Pool, request_head
from tests import kits

scripted = kits.load("upstreams/wire/scripted.py", "scripted_upstream").scripted


@pytest.fixture(params=kits.LOOPS)
def run(request: pytest.FixtureRequest) -> Callable[..., Any]:
    return partial(kits.run_on, request.param, within=20)


@pytest.fixture
def until() -> Callable[[Callable[[], Any]], Awaitable[None]]:
    return kits.until


class Wire:
    """A pool pointed at one scripted upstream."""

    def __init__(self, upstream: Any, **options: Any) -> None:
        self.upstream = upstream
        self.pool = Pool(**{name: options.pop(name) for name in ("idle_ms", "resolver") if name in options})
        options = {"scheme": "https" if upstream.tls else "http", "host": "127.0.0.1", "port": upstream.port} | options
        self.origin = Origin(**options)

    async def post(self, body: bytes = b"{}", *, method: str = "POST", **deadlines: int | None) -> Any:
        within = {"connect_ms": 2000, "first_chunk_ms": 5000, "idle_ms": 5000, "total_ms": 10_000} | deadlines
        head = request_head(method, "/v1/chat", self.origin.authority, [])
        return await self.pool.exchange(self.origin, head, body, Deadlines(**within))

    @property
    def state(self) -> tuple[int, int, int, int]:
        """(in use, idle, waiting, opening)."""
        return self.pool.in_use, self.pool.idle, self.pool.waiting, self.pool.opening


@pytest.fixture
def wired() -> Callable[..., Any]:
    """`async with wired(upstream) as wire`: a pool for one upstream, closed at the end with every slot free."""

    @asynccontextmanager
    async def wired(upstream: Any, **options: Any) -> AsyncIterator[Wire]:
        wire = Wire(upstream, **options)
        try:
            yield wire
        finally:
            await wire.pool.aclose()
        assert wire.state == (0, 0, 0, 0), wire.pool

    return wired
