"""A raw-socket upstream that says exactly the bytes a test chose, when and in what pieces it chose.

It runs in threads, so it serves blocking and async clients alike and never waits on the loop under test. A script is a
list of steps for one connection; `scripted(first, second, ...)` gives the n-th connection the n-th script and every
later one the last. Load this file by path where the fixture is wanted, as the `conftest.py` beside it does.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest

PATIENCE_S = 10.0


@dataclass(frozen=True)
class Request:
    """Read one whole request and remember it."""


@dataclass(frozen=True)
class Send:
    """Write bytes, in segments of `segment` bytes with `gap_s` between them when given."""

    data: bytes
    segment: int = 0
    gap_s: float = 0.0


@dataclass(frozen=True)
class Pause:
    seconds: float


@dataclass(frozen=True)
class Wait:
    """Go on when the test sets this event."""

    event: threading.Event


@dataclass(frozen=True)
class Fin:
    """Close in order."""


@dataclass(frozen=True)
class Farewell:
    """Say over TLS that no more will come; without it a `Fin` looks like a cut."""


@dataclass(frozen=True)
class Reset:
    """Close with an RST; what the peer has not read is lost."""


@dataclass(frozen=True)
class Hold:
    """Say nothing more and wait until the peer closes."""


@dataclass(frozen=True)
class Repeat:
    """These steps again and again, until the peer closes."""

    steps: tuple[Step, ...]


Step = Request | Send | Pause | Wait | Fin | Farewell | Reset | Hold | Repeat
Script = Sequence[Step]


class PeerGone(Exception):
    """The client closed its side."""


@dataclass
class Served:
    """What one connection saw."""

    requests: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    gone: threading.Event = field(default_factory=threading.Event)
    gone_at: float | None = None


class Upstream:
    """A listening script; a context manager."""

    def __init__(self, scripts: Sequence[Script], tls: ssl.SSLContext | None, backlog: int) -> None:
        self.scripts = scripts
        self.tls = tls
        self.connections: list[Served] = []
        self._closing = threading.Event()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=backlog)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        if scripts:
            self._threads.append(threading.Thread(target=self._accept, daemon=True))
            self._threads[0].start()

    def __enter__(self) -> Upstream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def requests(self) -> list[bytes]:
        """The heads of all requests, connection by connection."""
        return [head for served in self.connections for head in served.requests]

    @property
    def bodies(self) -> list[bytes]:
        return [body for served in self.connections for body in served.bodies]

    def wait_gone(self, connection: int = 0, within: float = PATIENCE_S) -> bool:
        """Whether that connection saw its peer close within so many seconds; blocks."""
        until = time.monotonic() + within
        while len(self.connections) <= connection:
            if time.monotonic() > until:
                return False
            time.sleep(0.002)
        return self.connections[connection].gone.wait(max(0.0, until - time.monotonic()))

    def close(self) -> None:
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in list(self._sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            served = Served()
            script = self.scripts[min(len(self.connections), len(self.scripts) - 1)]
            self.connections.append(served)
            self._sockets.add(sock)
            thread = threading.Thread(target=self._serve, args=(sock, script, served), daemon=True)
            self._threads = [one for one in self._threads if one.is_alive()]
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket, script: Script, served: Served) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A wrapped socket takes over the descriptor; both are closed here.
        stream = sock
        try:
            if self.tls is not None:
                sock.settimeout(PATIENCE_S)
                stream = self.tls.wrap_socket(sock, server_side=True)
                self._sockets.add(stream)
            stream.settimeout(PATIENCE_S)
            self._play(stream, script, served)
        except (PeerGone, OSError):
            served.gone_at = time.monotonic()
            served.gone.set()
        finally:
            self._sockets.discard(sock)
            self._sockets.discard(stream)
            stream.close()
            sock.close()

    def _play(self, sock: socket.socket, script: Script, served: Served) -> None:
        for step in script:
            match step:
                case Request():
                    self._read_request(sock, served)
                case Send(data, segment, gap_s):
                    for at in range(0, len(data), segment or max(len(data), 1)):
                        if at and gap_s:
                            self._closing.wait(gap_s)
                        sock.sendall(data[at : at + segment] if segment else data)
                case Pause(seconds):
                    self._closing.wait(seconds)
                case Wait(event):
                    while not (event.wait(0.01) or self._closing.is_set()):
                        pass
                case Fin():
                    return
                case Farewell():
                    assert isinstance(sock, ssl.SSLSocket)
                    with contextlib.suppress(OSError):
                        sock.unwrap()
                case Reset():
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return
                case Hold():
                    while sock.recv(65536):
                        pass
                    raise PeerGone
                case Repeat(steps):
                    while True:
                        self._play(sock, steps, served)

    def _read_request(self, sock: socket.socket, served: Served) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._some(sock)
        head, _, body = data.partition(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        parts, size = [body], len(body)
        while size < length:
            parts.append(self._some(sock))
            size += len(parts[-1])
        served.requests.append(head)
        served.bodies.append(b"".join(parts))

    def _some(self, sock: socket.socket) -> bytes:
        data = sock.recv(65536)
        if not data:
            raise PeerGone
        return data


class Scripted:
    """What the fixture hands out: call it with scripts for a running upstream; the words of scripts hang on it."""

    request = Request()
    fin = Fin()
    farewell = Farewell()
    reset = Reset()
    hold = Hold()
    send = staticmethod(Send)
    pause = staticmethod(Pause)
    wait = staticmethod(Wait)

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack

    def __call__(self, *scripts: Script, tls: ssl.SSLContext | None = None, backlog: int = 512) -> Upstream:
        """Without a script nobody accepts: connections stay in the backlog."""
        return self._stack.enter_context(Upstream(scripts, tls, backlog))

    @staticmethod
    def serve(*steps: Step) -> Script:
        """Answer every request of a kept connection with these steps."""
        return [Repeat((Request(), *steps))]

    @staticmethod
    def answer(body: bytes = b"{}", status: int = 200, headers: Sequence[str] = ()) -> Send:
        """A whole answer with a content-length."""
        lines = "".join(f"{line}\r\n" for line in (*headers, f"content-length: {len(body)}"))
        return Send(f"HTTP/1.1 {status} Scripted\r\n{lines}\r\n".encode() + body)

    @staticmethod
    def head(*headers: str, status: int = 200) -> Send:
        return Send(
            f"HTTP/1.1 {status} Scripted\r\n{''.join(f'{line}{chr(13)}{chr(10)}' for line in headers)}\r\n".encode()
        )

    @staticmethod
    def chunks(*parts: bytes, end: bool = True) -> bytes:
        """The chunked framing of these parts, with its end or without."""
        return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + (b"0\r\n\r\n" if end else b"")


@pytest.fixture
def scripted() -> Iterator[Callable[..., Upstream]]:
    """Upstreams that do as they are told, all closed at the end of the test."""
    with contextlib.ExitStack() as stack:
        yield Scripted(stack)
