"""A gateway process, callers on raw sockets who say what no client library would, and an upstream that does as it is told."""

from __future__ import annotations

import contextlib
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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.kits import is_gone

LAUNCHER = Path(__file__).with_name("launcher.py")


# --- the upstream ---------------------------------------------------------------------------------------------------


@dataclass
class Asked:
    """One request as the upstream got it; `gone` is set, at `gone_at`, when its connection ended."""

    model: str
    head: bytes
    body: bytes
    gone: threading.Event = field(default_factory=threading.Event)
    gone_at: float = 0.0


Play = Callable[[socket.socket, Asked], None]


class Upstream:
    """Speaks OpenAI's dialect; what it answers hangs on the model's name, and `up:NAME` reaches it from outside.

    A model without a play of its own gets a short good answer, in the form it was asked for.
    """

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self._plays: dict[str, Play] = {}
        self._names = itertools.count()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def plays(self, play: Play) -> str:
        """The name of a new model that answers so."""
        name = f"model-{next(self._names)}"
        self._plays[name] = play
        return f"up:{name}"

    def of(self, name: str) -> list[Asked]:
        """What was asked of a model."""
        return [asked for asked in list(self.asked) if asked.model == name.removeprefix("up:")]

    def first(self, name: str, within_s: float = 5.0) -> Asked:
        """The first request for a model, as soon as it is there."""
        wait_until(lambda: bool(self.of(name)), within_s)
        return self.of(name)[0]

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        asked = None
        with sock, contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while (asked := self._read(sock)) is not None:
                self.asked.append(asked)
                self._plays.get(asked.model, good)(sock, asked)
        if asked is not None:
            asked.gone_at = time.monotonic()
            asked.gone.set()

    def _read(self, sock: socket.socket) -> Asked | None:
        data = b""
        while b"\r\n\r\n" not in data:
            more = sock.recv(65536)
            if not more:
                return None
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        found = re.search(rb"\r\ncontent-length: (\d+)", head)
        length = int(found[1]) if found else 0
        while len(body) < length:
            body += sock.recv(65536)
        return Asked(json.loads(body).get("model", ""), head, body)


def said(text: str, finish: str | None = None) -> bytes:
    """One event of a chat stream."""
    choice = {"index": 0, "delta": {"content": text} if finish is None else {}, "finish_reason": finish}
    data = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "up", "choices": [choice]}
    return b"data: " + json.dumps(data).encode() + b"\n\n"


LAST_WORDS = said("", "stop") + b"data: [DONE]\n\n"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def whole(text: str) -> bytes:
    message = {"role": "assistant", "content": text}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    body = json.dumps(
        {"id": "c", "object": "chat.completion", "created": 1, "model": "up", "choices": choices, "usage": usage}
    ).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body


def good(sock: socket.socket, asked: Asked) -> None:
    """A short answer that repeats the last thing the user said."""
    body = json.loads(asked.body)
    text = str(body["messages"][-1]["content"])
    if not body.get("stream"):
        sock.sendall(whole(text))
        return
    sock.sendall(STREAM_HEAD + chunk(said(text)) + chunk(LAST_WORDS) + chunk(b""))


def hold(sock: socket.socket, asked: Asked) -> None:
    """Say nothing until the other side goes."""
    while sock.recv(65536):
        pass
    raise OSError("gone")


def begin_and_hold(sock: socket.socket, asked: Asked) -> None:
    """One event of content, and then nothing until the other side goes."""
    sock.sendall(STREAM_HEAD + chunk(said("hello")))
    hold(sock, asked)


# --- the gateway ----------------------------------------------------------------------------------------------------


def configured(upstream: Upstream, drain_ms: int = 2000) -> str:
    """The file of a gateway in front of an upstream."""
    provider = f'{{dialect: openai, base_url: "http://127.0.0.1:{upstream.port}"}}'
    return f"server: {{drain_ms: {drain_ms}}}\nproviders: {{up: {provider}}}\n"


class Gateway:
    """A gateway process of our own; `log` is what it has said so far."""

    def __init__(self, process: subprocess.Popen[str], host: str, state_dir: Path) -> None:
        self.process = process
        self.state_dir = state_dir
        self.host = host
        self.port = 0
        self.log: list[str] = []
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    @property
    def workers(self) -> list[int]:
        """The process ids of its workers now."""
        return [pid for pid, name in self.children() if name.startswith("worker-")]

    @property
    def bookkeeper(self) -> int:
        """The process id of its bookkeeper now."""
        [pid] = [pid for pid, name in self.children() if name == "bookkeeper"]
        return pid

    def children(self) -> list[tuple[int, str]]:
        """Its living processes and what they are called."""
        tasks = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        living = []
        for pid in map(int, tasks.read_text().split()):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it may end as it is looked at
                name = Path(f"/proc/{pid}/comm").read_text().strip()
                if not is_gone(pid):
                    living.append((pid, name))
        return living

    def connect(self, timeout_s: float = 10.0) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout=timeout_s)

    def get(self, path: str) -> Reply:
        with self.connect() as sock:
            sock.sendall(b"GET %b HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n" % path.encode())
            return read_reply(sock)

    def ask(self, model: str, text: str = "hi", **more: Any) -> Reply:
        """One chat request on a connection of its own."""
        with self.connect() as sock:
            sock.sendall(chat(model, text, **more))
            return read_reply(sock)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's series that carry these labels."""
        total = 0.0
        for line in self.get("/metrics").body.decode().splitlines():
            found = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
            if found and all(f'{key}="{value}"' in (found[1] or "") for key, value in labels.items()):
                total += float(found[2])
        return total

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(8)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(5)
        self._reading.join(5)
        assert self.process.stderr is not None
        self.process.stderr.close()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.log.extend(self.process.stderr)


def start(
    state_dir: Path,
    *,
    port: int = 0,
    workers: int = 1,
    config: str | None = None,
    listener: str = "granian",
    constants: dict[str, Any] | None = None,
    files_max: int | None = None,
    ready: bool = True,
) -> Gateway:
    """A gateway that listens on a free port and, unless told otherwise, is ready."""
    state_dir.mkdir(parents=True, exist_ok=True)
    given = []
    if config is not None:
        path = state_dir / "fastroute.yaml"
        path.write_text(config)
        given = ["--config", str(path)]
    program = [str(LAUNCHER), json.dumps(constants)] if constants else ["-m", "fastroute"]
    flags = ["--port", str(port), "--workers", str(workers), "--state-dir", str(state_dir)]
    limited = ["sh", "-c", f'ulimit -n {files_max}; exec "$@"', "sh"] if files_max else []
    process = subprocess.Popen(
        [*limited, sys.executable, *program, "serve", *given, *flags],
        # Nothing of ours: no key of a provider, no setting of the one who runs the tests.
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(state_dir),
            "PYTHONPATH": str(Path.cwd()),
            "FASTROUTE_LISTENER": listener,
        },
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    gateway = Gateway(process, "127.0.0.1", state_dir)
    address = re.compile(r"listening on http://[^ ]+:(\d+)")
    try:
        wait_until(lambda: process.poll() is not None or any(map(address.search, gateway.log)), 15)
        found = next(filter(None, map(address.search, gateway.log)), None)
        if found is None:
            pytest.fail("the gateway did not start:\n" + "".join(gateway.log))
        gateway.port = int(found[1])
        if ready:
            wait_until(lambda: is_ready(gateway), 15)
    except BaseException:
        process.kill()
        gateway.stop()
        raise
    return gateway


def listeners(port: int) -> int:
    """How many sockets of this machine listen on a port."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[3] == "0A" and int(row[1].partition(":")[2], 16) == port for row in rows)


def is_ready(gateway: Gateway) -> bool:
    try:
        return gateway.get("/readyz").status == 200
    except OSError:
        return False


# --- the callers ----------------------------------------------------------------------------------------------------


@dataclass
class Reply:
    """What came back on a connection: one answer, and whether anything was left of it."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class NoReply(OSError):
    """The connection ended, or fell silent, before an answer."""


def chat(model: str, text: str = "hi", *, path: str = "/v1/chat/completions", **more: Any) -> bytes:
    """A chat request as it stands on the wire."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": text}], **more}).encode()
    return post(body, path)


def post(body: bytes, path: str = "/v1/chat/completions") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Reader:
    """Answers off one connection, one after the other; what is left over stays for the next."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.rest = b""

    def head(self) -> Reply:
        head = self._until(b"\r\n\r\n").decode("latin-1")
        first, *lines = head.split("\r\n")[:-2]
        pairs = [line.partition(":") for line in lines]
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        return Reply(int(first.split(" ")[1]), headers, b"")

    def reply(self) -> Reply:
        reply = self.head()
        while reply.status in (100, 103):
            reply = self.head()
        if reply.headers.get("transfer-encoding") == "chunked":
            reply.body = b"".join(self.chunks())
        elif "content-length" in reply.headers:
            reply.body = self._exactly(int(reply.headers["content-length"]))
        return reply

    def chunks(self) -> Iterator[bytes]:
        while size := int(self._until(b"\r\n"), 16):
            yield self._exactly(size)
            self._exactly(2)
        self._exactly(2)

    def ended(self, within_s: float = 2.0) -> bool:
        """Whether the other side closed, and said nothing more before."""
        if self.rest:
            return False
        self.sock.settimeout(within_s)
        try:
            return self.sock.recv(1) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False

    def _until(self, mark: bytes) -> bytes:
        while mark not in self.rest:
            self._more()
        at = self.rest.index(mark) + len(mark)
        found, self.rest = self.rest[:at], self.rest[at:]
        return found

    def _exactly(self, size: int) -> bytes:
        while len(self.rest) < size:
            self._more()
        found, self.rest = self.rest[:size], self.rest[size:]
        return found

    def _more(self) -> None:
        try:
            data = self.sock.recv(262_144)
        except TimeoutError:
            raise NoReply(f"silence after {self.rest[-80:]!r}") from None
        if not data:
            raise NoReply(f"closed after {self.rest[-80:]!r}")
        self.rest += data


def read_reply(sock: socket.socket) -> Reply:
    return Reader(sock).reply()


def reset(sock: socket.socket) -> None:
    """Leave without a word."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def wait_until(true: Callable[[], bool], within_s: float, step_s: float = 0.005) -> float:
    """Wait for something to become true; how long it took. It fails where it is not true in time."""
    began = time.monotonic()
    while not true():
        if time.monotonic() - began > within_s:
            pytest.fail(f"it was not so within {within_s} s")
        time.sleep(step_s)
    return time.monotonic() - began
