"""A gateway process with a key of its own, a router that says what it is told to, and both clients as one."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fastroute.client import AsyncRouteClient, RouteClient
from fastroute.config import load
from fastroute.reaching import reach
from tests import kits

DESCRIPTOR = {
    "task_class": "extraction",
    "budget_ceiling_microdollars": 50_000,
    "latency_tolerance_ms": 30_000,
    "expected_tokens": {"in": 2_000, "out": 500},
    "capabilities": ["tools"],
}
MODELS = """
dummy: false
models:
  - {id: haiku, model: 'up:haiku', lane: up, capabilities: [tools], price: {input: 1000000, output: 5000000}}
  - {id: sonnet, model: 'up:sonnet', lane: up, capabilities: [tools], price: {input: 3000000, output: 15000000}}
"""


class Served:
    """A running gateway, and keys to ask it with."""

    def __init__(self, gateway: Any) -> None:
        self._gateway = gateway
        self._names = itertools.count()
        self.url = f"http://127.0.0.1:{gateway.port}"

    def key(self, budget_microdollars: int | None = None) -> str:
        with self._desk() as ask:
            made = ask("keys.create", name=f"key-{next(self._names)}", budget_microdollars=budget_microdollars)
        key: str = made["key"]
        return key

    def _desk(self) -> Any:
        return reach(load(self._gateway.state_dir / "fastroute.yaml", {}, {"state_dir": str(self._gateway.state_dir)}))


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    kit = kits.load("server/gateway_kit.py")
    upstream = kit.Upstream()
    gateway = kit.start(tmp_path_factory.mktemp("client") / "data", config=kit.configured(upstream) + MODELS)
    yield Served(gateway)
    gateway.stop()
    upstream.close()
    assert gateway.process.returncode == 0, "".join(gateway.log)


class Router:
    """Listens, keeps what it was asked, and answers with the bytes it was given; None is to hang up without a word."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.says: bytes | None = None
        self.silent = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._over = threading.Event()
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def answers(self, body: Any, status: int = 200, headers: str = "") -> None:
        """An answer over HTTP: JSON, or the bytes as they are."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = f"HTTP/1.1 {status} Told\r\n{headers}content-length: {len(content)}\r\nconnection: close\r\n\r\n"
        self.says = head.encode() + content

    def close(self) -> None:
        self._over.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                line, _ = self._listener.accept()
            except OSError:
                return
            with line, contextlib.suppress(OSError):
                line.settimeout(5)
                self.asked.append(self._read(line))
                if self.silent:
                    self._over.wait(5)
                elif self.says is not None:
                    line.sendall(self.says)

    def _read(self, line: socket.socket) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            data += line.recv(65536)
        head, _, body = data.partition(b"\r\n\r\n")
        for each in head.lower().split(b"\r\n"):
            if each.startswith(b"content-length: "):
                while len(body) < int(each[16:]):
                    body += line.recv(65536)
        return head + b"\r\n\r\n" + body


@pytest.fixture
def router() -> Iterator[Router]:
    router = Router()
    yield router
    router.close()


Asking = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Asking:
    """`ask(url, key, "route", descriptor, ...)` with either client; what holds of one holds of the other."""

    def waiting(url: str, key: str, method: str, *args: Any, timeout_s: float = 5.0, **named: Any) -> Any:
        with RouteClient(url, key, timeout_s=timeout_s) as client:
            return getattr(client, method)(*args, **named)

    def awaiting(url: str, key: str, method: str, *args: Any, timeout_s: float = 5.0, **named: Any) -> Any:
        async def run() -> Any:
            async with AsyncRouteClient(url, key, timeout_s=timeout_s) as client:
                return await getattr(client, method)(*args, **named)

        return asyncio.run(run())

    return waiting if request.param == "sync" else awaiting


@pytest.fixture
def descriptor() -> dict[str, Any]:
    """The step of the acceptance cases."""
    return dict(DESCRIPTOR)
