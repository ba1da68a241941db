"""A gateway with its books open, as an operator and its callers meet it: keys made over /admin, money told by /v1/usage.

What a worker did reaches the books a moment after its caller was answered, so whoever looks there waits with `until`.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeVar

import httpx

T = TypeVar("T")

ADMIN = "adm_0Qm7vK2xR9sT4wZ8bN5cJ1hL6fD3gY0p"
PROVIDER_KEY = "sk-proj-8f3Kd02mXw71LqZt55RbYc94TnVe6HsA"
ANTHROPIC_KEY = "sk-ant-api03-Vq83mZx07Lk52Rw19Tb64Ny"

CONFIG = """
server: {{drain_ms: 3000}}
health: {{threshold: 1000}}
relay: {{max_attempts: 2}}
providers:
  openai: {{base_url: "{lab}", api_key: "%s"}}
  anthropic: {{base_url: "{lab}", api_key: "%s"}}
  lab: {{dialect: openai, base_url: "{lab}"}}
models:
  - {{id: gpt-4o-mini, model: "openai:gpt-4o-mini", price: {{input: 150000, output: 600000}}, max_output: 16384}}
  - {{id: dear, model: "lab:dear", price: {{input: 3000000, output: 15000000}}, max_output: 8000}}
  - {{id: cheap, model: "lab:cheap", price: {{input: 1000000, output: 1000000}}, max_output: 4000}}
  - {{id: claude, model: "anthropic:claude-haiku", price: {{input: 1000000, output: 5000000}}, max_output: 8000}}
  - {{id: nobody-knows, model: "lab:nobody-knows"}}
aliases:
  either: [cheap, dear]
auto: {{ranker: cheapest, targets: [cheap, dear]}}
""" % (PROVIDER_KEY, ANTHROPIC_KEY)  # noqa: UP031 (the braces are the caller's)

_names = count(1)


@dataclass(frozen=True)
class Key:
    """One account that was made, and its token."""

    id: str
    name: str
    token: str

    @property
    def bearer(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"}


class House:
    """A running gateway with an admin key."""

    def __init__(self, gateway: Any) -> None:
        self.gateway = gateway
        self.url = gateway.url
        self.state_dir = gateway.log.parent / "data"

    # --- the operator ---------------------------------------------------------------------------------------------

    def admin(self, method: str, path: str, **how: Any) -> httpx.Response:
        return self.fetch(method, f"/admin{path}", ADMIN, **how)

    def fetch(self, method: str, path: str, token: str | None = None, **how: Any) -> httpx.Response:
        headers = dict(how.pop("headers", {}))
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        reply: httpx.Response = self.gateway.http.request(method, path, headers=headers, **how)
        return reply

    def key(self, name: str | None = None, **fields: Any) -> Key:
        made = self.admin("POST", "/keys", json={"name": name or f"k{next(_names)}", **fields})
        assert made.status_code == 201, made.text
        told = made.json()
        return Key(told["id"], told["name"], told.get("key", ""))

    def agent(self, **fields: Any) -> Key:
        return self.key(kind="agent", **{"metadata": {"provider": "openai"}, **fields})

    def money(self, key: Key) -> tuple[int, int, int]:
        """(spent, held, remaining) of the account's own budget, as the books have it now."""
        told = self.admin("GET", f"/usage/{key.id}").json()
        return told["spent_microdollars"], told["held_microdollars"], told["remaining_microdollars"]

    def spent(self, key: Key, microdollars: int) -> None:
        """Wait until the books tell this spend; more would be as wrong as less."""
        with contextlib.suppress(TimeoutError):
            until(lambda: self.money(key)[0] >= microdollars)
        assert self.money(key)[0] == microdollars

    # --- the callers ----------------------------------------------------------------------------------------------

    def ask(self, key: Key | None, model: str = "gpt-4o-mini", **how: Any) -> Any:
        headers = {**({} if key is None else key.bearer), **how.pop("headers", {})}
        return self.gateway.ask(model, headers=headers, **how)

    def fresh(self, key: Key | None, model: str = "gpt-4o-mini", **fields: Any) -> httpx.Response:
        """One request over a connection of its own, so that any worker may get it."""
        body = {"model": model, "messages": [{"role": "user", "content": "hello"}], **fields}
        headers = {} if key is None else key.bearer
        with httpx.Client(timeout=15, verify=False) as http:  # noqa: S501 - loopback, no TLS
            return http.post(f"{self.url}/v1/chat/completions", json=body, headers=headers)


def until(true: Callable[[], Any], seconds: float = 6.0) -> None:
    """Wait until it is true; `TimeoutError` when it does not become so."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.02)


def raw(house: House, method: str, path: str, lines: list[tuple[str, str]], body: bytes = b"") -> int:
    """A request as it is spelled here; the status it is answered with, 0 when it is cut off without one."""
    host, _, port = house.url.removeprefix("http://").partition(":")
    head = "".join(f"{name}: {value}\r\n" for name, value in lines)
    with socket.create_connection((host, int(port)), timeout=5) as line:
        line.sendall(f"{method} {path} HTTP/1.1\r\n{head}content-length: {len(body)}\r\n\r\n".encode("latin-1") + body)
        with contextlib.suppress(ConnectionError):
            told = line.recv(4096)
            found = re.match(rb"HTTP/1\.1 (\d+)", told)
            return int(found[1]) if found else 0
    return 0


def at_once(times: int, act: Callable[[int], T]) -> list[T]:
    """The act that many times, all begun together."""
    gate = threading.Barrier(times)

    def one(number: int) -> T:
        gate.wait(10)
        return act(number)

    with ThreadPoolExecutor(times) as pool:
        return list(pool.map(one, range(times)))


@contextlib.contextmanager
def no_more_asked(stub: Any) -> Iterator[None]:
    """Within it nothing reaches the provider."""
    before = len(stub.asked())
    yield
    assert len(stub.asked()) == before, "the provider was asked"


def chat_body(model: str, **fields: Any) -> bytes:
    return json.dumps({"model": model, "messages": [{"role": "user", "content": "hello"}], **fields}).encode()
