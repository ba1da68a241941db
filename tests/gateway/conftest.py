"""A real gateway in its own process, and an upstream that does exactly what a test tells it, byte by byte.

`serve(config)` starts `fastroute serve`, and every one started must end with exit code 0 on SIGTERM. `upstream` listens
for all three dialects and plays, for each model name it is asked for, the script registered under that name. `gateway`
is one shared server whose routes have lanes of their own: `gateway.route()` hands out the next, well and unscripted.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import itertools
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.kits import load

_kit = load("upstreams/wire/scripted.py", "scripted_upstream")
_said = load("gateway/said.py", "said_by_upstreams")

START_S = 20.0
ANSWER_S = 10.0
# Deadlines of the shared gateway: short, so that what hangs is known soon, and no shorter than a busy machine's pauses.
CONNECT_MS, FIRST_CHUNK_MS, IDLE_MS, TOTAL_MS = 300, 300, 300, 3000
DIALECTS = ("openai", "anthropic", "google")
# How many routes of each kind there are, and the providers of their two targets.
ROUTES = {
    "openai": (10, "openai", "openai"),
    "anthropic": (4, "anthropic", "anthropic"),
    "google": (4, "google", "google"),
    "mixed": (4, "openai", "anthropic"),
    "refused": (12, "refused", "openai"),
    "blackhole": (12, "blackhole", "openai"),
    "tls": (12, "tls", "openai"),
    "nameless": (12, "nameless", "openai"),
}
UPSTREAM_KEY = "sk-upstream-canary-7f3a9c"
_READ = re.compile(
    r"^(?:fastroute_(?!first_chunk_seconds)|router_(?:fallback|active|requests|tier))[^\n]*\n", re.MULTILINE
)
MESSAGES = [{"role": "user", "content": "hello"}]


# --- the upstream ---------------------------------------------------------------------------------------------------


@dataclass
class Asked:
    """One request as the upstream saw it; `gone` is set when its connection ended."""

    model: str
    dialect: str
    stream: bool
    head: bytes
    body: bytes
    connection: int
    at: float
    gone: threading.Event = field(default_factory=threading.Event)
    gone_at: float | None = None

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        for line in self.head.decode("latin-1").split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.lower() == name.lower():
                return value.strip()
        return None


class Upstream:
    """A listener for three dialects. Scripts hang on model names; a model without one answers well, with its own name.

    `script(model, first, second, ...)` gives the n-th request for a model the n-th script, and every later one the
    last. A script is a list of steps made by `send`, `pause`, `wait`, `hold`, `fin`, `reset` and `repeat`; bytes stand
    for `send`. Afterwards the connection is kept unless a step closed it.
    """

    fin = _kit.Fin()
    reset = _kit.Reset()
    hold = _kit.Hold()
    send = staticmethod(_kit.Send)
    pause = staticmethod(_kit.Pause)
    wait = staticmethod(_kit.Wait)

    def __init__(self) -> None:
        self._scripts: dict[str, list[list[Any]]] = {}
        self._asked: dict[str, list[Asked]] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._sockets: set[socket.socket] = set()
        self._numbers = itertools.count()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()
        # A full backlog drops the handshake, as a black hole does.
        self._hole = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.blackhole: int = self._hole.getsockname()[1]
        self._fill = [socket.socket() for _ in range(4)]
        for sock in self._fill:
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", self.blackhole))

    @staticmethod
    def repeat(*steps: Any) -> Any:
        return _kit.Repeat(tuple(_steps(steps)))

    def script(self, model: str, *scripts: Sequence[Any] | bytes) -> None:
        self._scripts[model] = [_steps([script] if isinstance(script, bytes) else script) for script in scripts]
        self._asked[model] = []

    def forget(self, *models: str) -> None:
        """Answer well again, as if nothing had been asked."""
        for model in models:
            self._scripts.pop(model, None)
            self._asked.pop(model, None)

    def asked(self, model: str) -> list[Asked]:
        """Every request for a model since its script was set."""
        return list(self._asked.get(model, ()))

    def close(self) -> None:
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for sock in (self._listener, self._hole, *self._fill):
            sock.close()
        for sock in list(self._sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.add(sock)
            threading.Thread(target=self._serve, args=(sock, next(self._numbers)), daemon=True).start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        current: Asked | None = None
        pending = b""
        try:
            while not self._closing.is_set():
                current = None
                current, pending = self._read(sock, number, pending)
                if current is None:
                    return
                with self._lock:
                    asked = self._asked.setdefault(current.model, [])
                    asked.append(current)
                    scripts = self._scripts.get(current.model)
                    script = scripts[min(len(asked), len(scripts)) - 1] if scripts else None
                if script is None:
                    script = _steps([_said.good(current.dialect, current.stream, f"hello from {current.model}")])
                if not self._play(sock, script):
                    return
        except OSError:
            pass
        finally:
            if current is not None:
                current.gone_at = time.monotonic()
                current.gone.set()
            self._sockets.discard(sock)
            sock.close()

    def _play(self, sock: socket.socket, script: Sequence[Any]) -> bool:
        """Whether the connection is kept."""
        for step in script:
            match step:
                case _kit.Send(data, segment, gap_s):
                    for at in range(0, len(data), segment or max(len(data), 1)):
                        if at and gap_s:
                            self._closing.wait(gap_s)
                        sock.sendall(data[at : at + segment] if segment else data)
                case _kit.Pause(seconds):
                    self._closing.wait(seconds)
                case _kit.Wait(event):
                    while not (event.wait(0.01) or self._closing.is_set()):
                        pass
                case _kit.Fin():
                    return False
                case _kit.Reset():
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return False
                case _kit.Hold():
                    while sock.recv(65536):
                        pass
                    return False
                case _kit.Repeat(steps):
                    while not self._closing.is_set():
                        if not self._play(sock, steps):
                            return False
        return True

    def _read(self, sock: socket.socket, number: int, data: bytes) -> tuple[Asked | None, bytes]:
        while b"\r\n\r\n" not in data:
            more = sock.recv(65536)
            if not more:
                return None, b""
            data += more
            if data[:1] == b"\x16":  # a TLS hello, which nobody here speaks
                sock.sendall(b"HTTP/1.1 400 No\r\n\r\n")
                return None, b""
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
        )
        while len(body) < length:
            more = sock.recv(65536)
            if not more:
                return None, b""
            body += more
        body, rest = body[:length], body[length:]
        path = head.split(b" ")[1].decode()
        if path.startswith("/v1beta/"):
            model, _, verb = path.removeprefix("/v1beta/models/").partition(":")
            return Asked(model, "google", verb.startswith("stream"), head, body, number, time.monotonic()), rest
        said = json.loads(body)
        dialect = "anthropic" if path == "/v1/messages" else "openai"
        return Asked(
            said.get("model", ""), dialect, bool(said.get("stream")), head, body, number, time.monotonic()
        ), rest


def _steps(script: Sequence[Any]) -> list[Any]:
    return [_kit.Send(step) if isinstance(step, bytes) else step for step in script]


# --- what an upstream says ------------------------------------------------------------------------------------------


class Say:
    """The words of scripts, as one value that a fixture can hand out."""

    whole = staticmethod(_said.whole)
    head = staticmethod(_said.head)
    chunk = staticmethod(_said.chunk)
    streamed = staticmethod(_said.streamed)
    event = staticmethod(_said.event)
    events = staticmethod(_said.events)
    openai_events = staticmethod(_said.openai_events)
    anthropic_events = staticmethod(_said.anthropic_events)
    google_events = staticmethod(_said.google_events)
    answer = staticmethod(_said.answer)
    good = staticmethod(_said.good)
    LAST = _said.LAST
    KEY = UPSTREAM_KEY
    FIRST_CHUNK_MS = FIRST_CHUNK_MS
    IDLE_MS = IDLE_MS
    TOTAL_MS = TOTAL_MS


# --- the gateway ----------------------------------------------------------------------------------------------------


@dataclass
class Reply:
    """What a caller got; `complete` is False when the framing broke off."""

    status: int
    headers: dict[str, str]
    body: bytes
    complete: bool
    took_s: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error of an envelope, or of the event that ended a stream."""
        if self.status != 200:
            return self.json["error"]
        return next(said["error"] for said in reversed(self.said) if "error" in said)

    @property
    def payloads(self) -> list[str]:
        """The data of every event."""
        text = self.body.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
        return [
            "\n".join(line[5:].removeprefix(" ") for line in block.split("\n") if line.startswith("data:"))
            for block in text.split("\n\n")
            if any(line.startswith("data:") for line in block.split("\n"))
        ]

    @property
    def said(self) -> list[Any]:
        """Every event's JSON; one that is not JSON fails the test."""
        return [json.loads(data) for data in self.payloads if data != "[DONE]"]

    @property
    def done(self) -> bool:
        return self.payloads[-1:] == ["[DONE]"]

    @property
    def failed(self) -> bool:
        """Whether an error was told inside the stream."""
        return any("error" in said or said.get("type") == "response.failed" for said in self.said)

    @property
    def text(self) -> str:
        """The content, of a whole answer or of a chat stream."""
        if self.headers.get("content-type", "").startswith("text/event-stream"):
            choices = [choice for said in self.said for choice in said.get("choices") or ()]
            return "".join(choice["delta"].get("content") or "" for choice in choices)
        return self.json["choices"][0]["message"]["content"]

    @property
    def told(self) -> dict[str, str]:
        """Headers and, for streams, the comment before the end."""
        comments = [line[2:] for line in self.body.decode("utf-8", "replace").split("\n") if line.startswith(": ")]
        return self.headers | dict(line.split(": ", 1) for line in comments if ": " in line)


@dataclass(frozen=True)
class Route:
    """An alias with two targets that nobody else uses meanwhile, each on a lane of its own name."""

    name: str
    first: str
    second: str
    dialect: str


@functools.cache
def _sample(line: str) -> tuple[tuple[str, frozenset[tuple[str, str]]], float]:
    """A line of metrics, read once: most of them are the same from one look to the next."""
    [family] = text_string_to_metric_families(line)
    [sample] = family.samples
    return (sample.name, frozenset(sample.labels.items())), sample.value


class Gateway:
    """One running server."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path, upstream: Upstream) -> None:
        self.process = process
        self.upstream = upstream
        self.port = port
        self.log = log
        self.url = f"http://127.0.0.1:{port}"
        self._next = {kind: itertools.count() for kind in ROUTES}

    def ask(
        self,
        model: str,
        *,
        stream: bool = False,
        path: str = "/v1/chat/completions",
        headers: dict[str, str] | None = None,
        body: Any = None,
        **fields: Any,
    ) -> Reply:
        """One POST and all of its answer; `fields` go into the body beside model, messages and stream."""
        if body is None:
            body = {"model": model, "messages": MESSAGES, **({"stream": True} if stream else {}), **fields}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        started = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_S)
        try:
            connection.request("POST", path, data, {"content-type": "application/json", **(headers or {})})
            response = connection.getresponse()
            told = {name.lower(): value for name, value in response.getheaders()}
            try:
                return Reply(response.status, told, response.read(), True, time.monotonic() - started)
            except http.client.IncompleteRead as cut:
                return Reply(response.status, told, cut.partial, False, time.monotonic() - started)
        finally:
            connection.close()

    def get(self, path: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_S)
        try:
            connection.request("GET", path)
            return connection.getresponse().read()
        finally:
            connection.close()

    def metrics(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """Our own counters and a few of the router's; reading everything would take longer than most tests."""
        return dict(map(_sample, _READ.findall(self.get("/metrics").decode())))

    def metric(self, name: str, **labels: str) -> float:
        """One sample; 0 when nothing was counted under these labels yet."""
        return self.metrics().get((name, frozenset(labels.items())), 0.0)

    def route(self, kind: str = "openai", retries: int = 1) -> Route:
        """The next route, its lanes well again; the budget of retries is filled for so many failovers."""
        number = next(self._next[kind])
        count, *providers = ROUTES[kind]
        name = f"{kind}-{number % count}"
        route = Route(name, f"{name}-first", f"{name}-second", kind)
        mendable = providers[0] in DIALECTS
        assert number < count or mendable, f"raise ROUTES[{kind!r}]: nothing but time heals such a lane"
        self.upstream.forget(route.first, route.second)
        if number >= count:
            # One good answer ends a streak of failures and a pause that was asked for.
            self.ask(route.first)
            self.ask(route.second)
            self.upstream.forget(route.first, route.second)
        self.refill(retries)
        return route

    def refill(self, retries: int) -> None:
        """First attempts that succeed fill the budget of retries by a fifth each."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_S)
        data = json.dumps({"model": "dummy", "messages": MESSAGES}).encode()
        for _ in range(5 * retries):
            connection.request("POST", "/v1/chat/completions", data)
            connection.getresponse().read()
        connection.close()

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return -9


def shared_config(upstream: Upstream) -> str:
    """The configuration of the shared gateway."""
    lines = [
        "relay: {"
        f"connect_ms: {CONNECT_MS}, first_chunk_ms: {FIRST_CHUNK_MS}, whole_ms: {FIRST_CHUNK_MS}, "
        f"idle_ms: {IDLE_MS}, total_ms: {TOTAL_MS}"
        "}",
        "providers:",
        *(f'  {name}: {{dialect: {name}, base_url: "{upstream.url}", api_key: "{UPSTREAM_KEY}"}}' for name in DIALECTS),
        '  refused: {dialect: openai, base_url: "http://127.0.0.1:1"}',
        f'  blackhole: {{dialect: openai, base_url: "http://127.0.0.1:{upstream.blackhole}"}}',
        f'  tls: {{dialect: openai, base_url: "https://127.0.0.1:{upstream.port}"}}',
        '  nameless: {dialect: openai, base_url: "http://no-such-host.invalid"}',
        "models:",
    ]
    aliases = ["aliases:"]
    for kind, (count, *providers) in ROUTES.items():
        for number in range(count):
            for provider, place in zip(providers, ("first", "second"), strict=True):
                name = f"{kind}-{number}-{place}"
                lines.append(
                    f"  - {{id: {name}, model: '{provider}:{name}', lane: {name}, "
                    "price: {input: 1000000, output: 2000000}, max_output: 4096, capabilities: [json, tools, vision]}"
                )
            aliases.append(f"  {kind}-{number}: [{kind}-{number}-first, {kind}-{number}-second]")
    return "\n".join([*lines, *aliases, ""])


Serve = Callable[..., Gateway]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Serve]:
    """`serve(config_text, *flags, workers=1, env={})`: a running gateway that is ready; all must end well."""
    running: list[Gateway] = []

    def serve(config: str, *flags: str, workers: int = 1, env: dict[str, str] | None = None) -> Gateway:
        place = tmp_path_factory.mktemp("gateway")
        (place / "fastroute.yaml").write_text(config)
        port = _free_port()
        # Nothing of the tester's own environment: a provider's key there would switch a provider on.
        world = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        root = Path(__file__).parents[2]
        command = [sys.executable, "-m", "fastroute", "serve", "--config", str(place / "fastroute.yaml")]
        command += ["--port", str(port), "--workers", str(workers), "--state-dir", str(place / "state"), *flags]
        log = place / "log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                command, cwd=root, env={**world, **(env or {})}, stdout=out, stderr=subprocess.STDOUT
            )
        started = Gateway(process, port, log, upstream)
        running.append(started)
        deadline = time.monotonic() + START_S
        while True:
            try:
                if started.get("/readyz") == b"ready":
                    return started
            except OSError:
                pass
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)

    yield serve
    codes = {one.port: one.stop() for one in running}
    logs = {one.port: one.log.read_text() for one in running}
    assert set(codes.values()) <= {0}, (codes, logs)
    assert not [text for text in logs.values() if "Traceback" in text], logs


@pytest.fixture(scope="session")
def upstream() -> Iterator[Upstream]:
    """The scripted upstream of the whole session."""
    upstream = Upstream()
    yield upstream
    upstream.close()


@pytest.fixture(scope="session")
def gateway(serve: Serve, upstream: Upstream) -> Gateway:
    """The shared server; every test takes a route of its own."""
    return serve(shared_config(upstream))


@pytest.fixture(scope="session")
def say() -> type[Say]:
    """The words of scripts."""
    return Say
