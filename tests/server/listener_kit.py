"""Our own server on the loop of a test, small applications for it, and callers that speak to it on real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, NamedTuple

import h11
import pytest

from fastroute.web import listener, serving
from tests.kits import LOOPS, run_on, until

SPACE = 64 * 1024  # of a socket's buffer, where a test wants it full
GET = b"GET / HTTP/1.1\r\nhost: t\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: t\r\ncontent-length: %d\r\n\r\n"


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Callable[..., Any]:
    return partial(run_on, request.param, within=4)


class Answer(NamedTuple):
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    continued: bool

    def header(self, name: bytes) -> bytes | None:
        (found,) = [value for key, value in self.headers if key == name] or [None]
        return found

    @property
    def code(self) -> str:
        """Of an error's envelope, which is checked on the way."""
        assert (self.header(b"content-type"), self.header(b"connection")) == (b"application/json", b"close")
        return json.loads(self.body)["error"]["code"]


class Caller:
    """A socket, read by h11 where a whole answer is wanted."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.seen = b""

    async def say(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def hear(self) -> bytes:
        """The next of what is said; nothing at the end."""
        if self.seen:
            seen, self.seen = self.seen, b""
            return seen
        return await asyncio.get_running_loop().sock_recv(self.sock, 256 * 1024)

    async def answer(self, method: str = "GET") -> Answer:
        """The next whole answer; one that is cut is h11's error."""
        reader = h11.Connection(h11.CLIENT)
        reader.send(h11.Request(method=method, target="/", headers=[("host", "t")]))
        reader.send(h11.EndOfMessage())
        head, body, continued = None, [], False
        while True:
            event = reader.next_event()
            if event is h11.NEED_DATA:
                reader.receive_data(await self.hear())
            elif isinstance(event, h11.InformationalResponse):
                continued = True
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                self.seen = reader.trailing_data[0]
                return Answer(head.status_code, list(head.headers), b"".join(body), continued)
            else:
                raise AssertionError(event)

    async def end(self) -> bytes:
        """Everything up to the end."""
        whole = b""
        while data := await self.hear():
            whole += data
        return whole

    def leave(self, how: str) -> None:
        if how == "half-close":
            self.sock.shutdown(socket.SHUT_WR)
            return
        if how == "reset":
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class Place:
    """A server on this loop, and everybody who calls it."""

    def __init__(
        self, app: Any, connections_max: int, space: int | None, refused: Callable[[str], None] | None
    ) -> None:
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=512)
        if space:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, space)
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, space)
        self.space = space
        self.address = self.sock.getsockname()
        made: Any = serving.server(app, *self.address, connections_max, self.sock, kind="compiled", refused=refused)
        self.sock.close()  # the server has a copy
        self.server: listener.Listener = made
        self.serving = asyncio.create_task(self.server.serve())
        self.callers: list[Caller] = []

    @property
    def lines(self) -> set[Any]:
        return self.server._house.lines

    def dial(self) -> Caller:
        """Connected by the kernel, before the server had its turn."""
        sock = socket.socket()
        if self.space:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.space)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.space)
        self.callers.append(Caller(sock))
        sock.connect(self.address)
        sock.setblocking(False)
        return self.callers[-1]

    async def asks(self, data: bytes = GET) -> Caller:
        caller = self.dial()
        await caller.say(data)
        return caller


@asynccontextmanager
async def place(
    app: Any,
    *,
    connections_max: int = 1000,
    idle_s: float = 10,
    head_s: float = 10,
    linger_s: float = 1,
    space: int | None = None,
    refused: Callable[[str], None] | None = None,
) -> AsyncIterator[Place]:
    """A server that has nothing left at its end: no connection, no task, and a `serve` that returned."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serving, "IDLE_S", idle_s)
        patch.setattr(listener, "HEAD_S", head_s)
        patch.setattr(listener, "LINGER_S", linger_s)
        here = Place(app, connections_max, space, refused)
    try:
        yield here
    finally:
        for caller in here.callers:
            caller.sock.close()
        here.server.end()
    await asyncio.wait_for(here.serving, 1)
    assert len(here.lines) == 0
    await until(lambda: len(asyncio.all_tasks()) == 1)


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def silent(caller: Caller, seconds: float = 0.03) -> bool:
    """Whether nothing is said for a while."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            caller.seen = await caller.hear()
            return False
    return True


async def body_of(receive: Any) -> bytes:
    parts, more = [], True
    while more:
        message = await receive()
        assert message["type"] == "http.request"
        parts.append(message["body"])
        more = message["more_body"]
    return b"".join(parts)


async def start(send: Any, status: int = 200, **headers: str) -> None:
    told = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": told})


async def say(send: Any, body: bytes = b"", more: bool = False) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the body it was sent, or with the path where there was none."""
    body = await body_of(receive)
    await start(send)
    await say(send, body or scope["path"].encode())


async def ok(scope: Any, receive: Any, send: Any) -> None:
    await start(send)
    await say(send, b"ok")


class Gate:
    """An application that waits within its answer until it is let go on."""

    def __init__(self, before: bool = True) -> None:
        self.before = before
        self.inside = 0
        self.open = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.inside += 1
        if not self.before:
            await start(send)
            await say(send, b"one,", more=True)
        await self.open.wait()
        if self.before:
            await start(send)
        await say(send, b"two")
