"""An agent's own weights: loaded before it is announced, asked like any backend, gone when it ends."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastroute.agent.backend import BackendAway, BackendError
from fastroute.agent.weights import WeightsBackend
from fastroute.config import load
from fastroute.upstreams.pool import Deadlines, Pool
from fastroute.weights import Source, keeper, source

# A process of weights whose engine is a play; the place, the key and the life are the real ones.
STUB = Path(__file__).parents[1] / "weights" / "stub_host.py"
LONG = Deadlines(connect_ms=10_000, first_chunk_ms=10_000, idle_ms=10_000, total_ms=10_000)


@pytest.fixture(autouse=True)
def _play(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "PROGRAM", (str(STUB),))
    monkeypatch.setitem(source.NEEDED, "gguf", ((), "gguf"))


@pytest.fixture
def backed(tmp_path: Path) -> Callable[..., Any]:
    """`backed(work, load_s=0.1)`: what `work(backend)` comes to, with a play for weights."""

    def backed(work: Callable[[WeightsBackend], Any], *, missing: bool = False, **how: Any) -> Any:
        path = tmp_path / "play.gguf"
        if not missing:
            path.write_text(json.dumps(how))

        async def whole() -> Any:
            pool = Pool()
            said = load(Path("/dev/null"), {}, {}).weights
            backend = WeightsBackend(Source.of(str(path)), said, pool, lambda why: None)
            try:
                return await work(backend)
            finally:
                await backend.close()
                await pool.aclose()

        return asyncio.run(whole())

    return backed


def test_weights_are_loaded_asked_and_let_go(backed: Callable[..., Any]) -> None:
    pids: list[int] = []

    async def work(backend: WeightsBackend) -> Any:
        assert backend.words == "play.gguf"
        assert await backend.open() == ("play.gguf",)
        pids.append(backend._keeper._child or 0)
        body = json.dumps({"model": "play.gguf", "messages": [{"role": "user", "content": "one two"}]}).encode()
        exchange = backend.upstream().begin("chat", "play.gguf", False, {}, body, LONG)
        while not exchange.answer():
            await exchange.coming()
        return json.loads(await exchange.read())

    answer = backed(work, load_s=0.1)
    assert answer["choices"][0]["message"]["content"] == "one two"
    assert answer["usage"]["total_tokens"] == 4
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_what_cannot_be_loaded_now_is_waited_for(backed: Callable[..., Any]) -> None:
    async def work(backend: WeightsBackend) -> Any:
        return await backend.open()

    with pytest.raises(BackendAway, match=r"no room in memory \(/.*/[0-9a-f]{16}\.log\)"):
        backed(work, refuses="no room in memory")


def test_weights_that_are_not_there_are_said_at_once(backed: Callable[..., Any]) -> None:
    async def work(backend: WeightsBackend) -> Any:
        return await backend.open()

    with pytest.raises(BackendError, match=r"there is no file play\.gguf"):
        backed(work, missing=True)
