"""Stores of every kind behind one protocol, and gateways with a cache inside the test's own process, whose clock it moves.

The cache service is a real HTTP server that can be told to misbehave; Redis is a real server, and where none is installed
the tests that need it are skipped by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fastroute import caching as caching_module
from fastroute import config as configuration
from fastroute.assembly import assemble
from fastroute.cache import Memory, Service, Store
from fastroute.caching import Caching, caching
from fastroute.clock import ManualClock
from fastroute.config import Secret
from fastroute.upstreams.pool import Pool
from fastroute.web.app import Application
from tests.kits import load

kit: Any = load("acceptance/acceptance_kit.py")
stubs = kit.stubs

CONFIG = """
providers:
  up: {{dialect: openai, base_url: "{up}"}}
relay: {{first_chunk_ms: 3000, whole_ms: 3000, max_attempts: 1}}
health: {{threshold: 1000}}
models:
  - {{id: small, model: "up:small", price: {{input: 1000000, output: 1000000}}}}
  - {{id: large, model: "up:large", price: {{input: 1000000, output: 1000000}}}}
aliases: {{either: [small, large]}}
cache: {{ttl_s: 60, max_bytes: {max_bytes}{more}}}
"""
HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine's store is not away; tests of one that is say how long they wait."""
    monkeypatch.setattr(caching_module, "ASK_MS", 10_000)
    if importlib.util.find_spec("redis") is not None:
        from fastroute.cache import redis

        monkeypatch.setattr(redis, "GET_S", 10.0)


# The provider behind every model here.
up = kit.provider()


# --- stores that others share ---------------------------------------------------------------------------------------


@dataclass
class CacheService:
    """`GET /<key>`, `PUT /<key>?ttl=S` on a socket, by a clock of its own; it can fall silent or answer 500."""

    port: int = 0
    kept: dict[str, tuple[bytes, float]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    now: float = 0.0
    mood: str = "well"
    server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def open(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self.server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        assert self.server is not None
        self.server.close()

    def advance(self, seconds: float) -> None:
        self.now += seconds

    async def _serve(self, reader: asyncio.StreamReader, out: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                method, path, _ = head.split(" ", 2)
                length = re.search(r"content-length: (\d+)", head, re.IGNORECASE)
                body = await reader.readexactly(int(length[1]) if length else 0)
                self.asked.append(f"{method} {path}")
                if self.mood == "silent":
                    await reader.read()
                    break
                status, answer = (500, b"{}") if self.mood == "sick" else self._answer(method, path, body)
                out.write(f"HTTP/1.1 {status} Said\r\ncontent-length: {len(answer)}\r\n\r\n".encode() + answer)
                await out.drain()
        out.close()

    def _answer(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        key, _, query = path.removeprefix("/").partition("?ttl=")
        if method == "PUT":
            json.loads(body)
            self.kept[key] = (body, self.now + int(query))
            return 204, b""
        value, until = self.kept.get(key, (b"", -1.0))
        return (200, value) if until > self.now else (404, b"")


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis of the tests' own, on a socket file."""
    pytest.importorskip("redis", reason="the redis package is not installed")
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        pytest.skip("neither redis-server nor valkey-server is installed")
    place = tmp_path_factory.mktemp("redis")
    path = place / "r.sock"
    command = [program, "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(place)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 10
    try:
        while not _listens(path):
            assert process.poll() is None, "the Redis of the tests ended"
            assert time.monotonic() < deadline, "the Redis of the tests does not listen"
            time.sleep(0.02)
        yield f"unix://{path}"
    finally:
        process.kill()
        process.wait()


def _listens(path: Path) -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        return True
    return False


@dataclass
class Kept:
    """A store under test, and how its time is made to pass."""

    store: Store
    pass_time: Callable[[float], Coroutine[Any, Any, None]]


@pytest.fixture(params=["memory", "service", "redis"])
def kept(request: pytest.FixtureRequest) -> Callable[[], contextlib.AbstractAsyncContextManager[Kept]]:
    """`async with kept() as it`: one store, new and empty."""
    if request.param == "redis":
        url = request.getfixturevalue("redis_url")

    @contextlib.asynccontextmanager
    async def memory() -> AsyncIterator[Kept]:
        clock = ManualClock()

        async def pass_time(seconds: float) -> None:
            clock.advance(int(seconds * 1000))

        yield Kept(Memory(1 << 20, clock), pass_time)

    @contextlib.asynccontextmanager
    async def service() -> AsyncIterator[Kept]:
        server = CacheService()
        await server.open()
        pool = Pool()

        async def pass_time(seconds: float) -> None:
            server.advance(seconds)

        try:
            yield Kept(Service(_asking(pool, server.url)), pass_time)
        finally:
            await pool.aclose()
            await server.close()

    @contextlib.asynccontextmanager
    async def redis() -> AsyncIterator[Kept]:
        from fastroute.cache.redis import Redis

        store = Redis(Secret(url))
        await store._client.flushall()

        async def pass_time(seconds: float) -> None:
            # Its clock is the machine's own: instead of waiting, every key is brought nearer to its end.
            for key in await store._client.keys("*"):
                left = await store._client.pttl(key)
                if left - seconds * 1000 <= 0:
                    await store._client.delete(key)
                else:
                    await store._client.pexpire(key, int(left - seconds * 1000))

        try:
            yield Kept(store, pass_time)
        finally:
            await store.close()

    return {"memory": memory, "service": service, "redis": redis}[request.param]


def _asking(pool: Pool, url: str) -> Any:
    from fastroute.caching import _Asking

    return _Asking(pool, url)


# --- gateways in this process ---------------------------------------------------------------------------------------


@dataclass
class Reply:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    complete: bool = False


class Inside:
    """One worker's application, called as its server would."""

    def __init__(self, app: Application, clock: ManualClock) -> None:
        self.app = app
        self.clock = clock
        cache = app.gateway.cache
        assert cache is not None
        self.cache: Caching = cache

    async def ask(
        self,
        body: dict[str, Any] | bytes | None = None,
        path: str = "/v1/chat/completions",
        leaves: asyncio.Event | None = None,
        **headers: str,
    ) -> Reply:
        """One request; `leaves` is when its caller goes away."""
        data = body if isinstance(body, bytes) else json.dumps(asked() if body is None else body).encode()
        given = {"host": "here", "content-type": "application/json", "content-length": str(len(data))}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "client": ("127.0.0.1", 1),
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
        }
        reply = Reply()
        sent = iter([{"type": "http.request", "body": data, "more_body": False}])

        async def receive() -> dict[str, Any]:
            message = next(sent, None)
            if message is None:
                await (leaves or asyncio.Event()).wait()
                return {"type": "http.disconnect"}
            return message

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                reply.status = message["status"]
                reply.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                reply.body += message["body"]
                reply.complete = not message.get("more_body", False)

        await self.app(scope, receive, send)
        return reply

    def counted(self, name: str) -> float:
        """All samples of one counter together."""
        text = self.app.gateway.metrics.exposition().decode()
        return sum(float(line.rpartition(" ")[2]) for line in text.split("\n") if line.startswith(name + "{"))


@pytest.fixture
def inside(up: Any, tmp_path: Path) -> Callable[..., contextlib.AbstractAsyncContextManager[Inside]]:
    """`async with inside(max_bytes=..., place=..., endpoint=...) as it`; `top` is more of the file.

    Workers of one `place` share its secrets.
    """
    up.forget()
    numbers = iter(range(100))

    @contextlib.asynccontextmanager
    async def inside(
        max_bytes: int = 64 << 20, place: str = "data", top: str = "", **settings: str
    ) -> AsyncIterator[Inside]:
        number = next(numbers)
        file = tmp_path / f"{number}.yaml"
        more = "".join(f', {name}: "{value}"' for name, value in settings.items())
        file.write_text(CONFIG.format(up=up.url, max_bytes=max_bytes, more=more) + top)
        config = configuration.load(file, {"FASTROUTE_STATE_DIR": str(tmp_path / place)}, {})
        gateway = assemble(config, number)
        clock = ManualClock()
        assert gateway.pool is not None
        gateway.cache = caching(config, gateway.pool, clock)
        it = Inside(Application(gateway), clock)
        try:
            yield it
        finally:
            await it.cache.close()
            await gateway.pool.aclose()
            gateway.metrics.close()

    return inside


def asked(**fields: Any) -> dict[str, Any]:
    return {"model": "small", "messages": HELLO, "temperature": 0, **fields}


@pytest.fixture
def ask_body() -> Callable[..., dict[str, Any]]:
    """A request that is answered the same each time, with other fields."""
    return asked


@pytest.fixture
def say() -> Any:
    """The words of the scripted provider."""
    return kit


@pytest.fixture
def cache_service() -> Callable[[], CacheService]:
    return CacheService
