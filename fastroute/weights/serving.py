"""One generation at a time over HTTP on loopback: the dialect of OpenAI for an engine that has none.

Threads, because an engine computes for seconds and has no loop: each connection has one, they take turns, and one whose
caller left gives its turn back within a token. Nobody gets past the door without the key.
"""

from __future__ import annotations

import hmac
import json
import secrets
import select
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Protocol

from fastroute.errors import FastrouteError
from fastroute.weights import asked
from fastroute.weights.asked import Asked, Done, Refused

BODY_MAX: Final = 4 * 1024 * 1024
# Those that may wait for their turn; with one generation at a time the last of them waits long enough already.
QUEUE_MAX: Final = 32
_LOOK_S: Final = 0.05
_IDLE_S: Final = 75
_PATHS: Final = {"/v1/chat/completions": True, "/v1/completions": False}


class Engine(Protocol):
    """What generates."""

    name: str

    def run(self, wanted: Asked, hear: Callable[[str], None]) -> Done:
        """Generate, telling each piece of text; whatever `hear` raises ends it. `Refused` before the first piece."""


class Gone(FastrouteError):
    """Nobody listens any more."""


class Busy(FastrouteError):
    """Too many wait already."""


class Turns:
    """One at a time, and a bounded number in wait."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._count = threading.Lock()
        self.waiting = 0

    @contextmanager
    def turn(self, left: Callable[[], bool]) -> Iterator[None]:
        """The turn, once it comes; `Gone` when its caller left meanwhile, `Busy` when there are too many."""
        with self._count:
            if self.waiting >= QUEUE_MAX:
                raise Busy
            self.waiting += 1
        try:
            while not self._turn.acquire(timeout=_LOOK_S):
                if left():
                    raise Gone
        finally:
            with self._count:
                self.waiting -= 1
        try:
            yield
        finally:
            self._turn.release()


class Server(ThreadingHTTPServer):
    """An engine behind a port of loopback."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, engine: Engine, token: str) -> None:
        self.engine, self.token, self.turns = engine, token, Turns()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def start(self) -> None:
        """Serve beside whatever this process does."""
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": _LOOK_S}, daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke is its caller's affair; anything else is ours, and is told without its body."""
        kind, fault, where = sys.exc_info()
        if kind is not None and not isinstance(fault, OSError):
            traceback.print_tb(where)  # an exception's own words may quote what was asked
            sys.stderr.write(f"{kind.__name__}\n")


class _Handler(BaseHTTPRequestHandler):
    """One connection; its requests come one after another."""

    protocol_version = "HTTP/1.1"
    timeout = _IDLE_S
    server: Server
    connection: socket.socket

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's word
        """Paths and statuses are the gateway's to log."""

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def do_GET(self) -> None:
        if self.path == "/healthz":
            self._answer(200, {"status": "ok", "waiting": self.server.turns.waiting})
        elif self._admitted():
            if self.path == "/v1/models":
                listed = {"id": self.server.engine.name, "object": "model", "owned_by": "fastroute"}
                self._answer(200, {"object": "list", "data": [listed]})
            else:
                self._error(404, "not_found_error", f"there is no {self.path[:80]}")

    def do_POST(self) -> None:
        if not self._admitted():
            return
        body = self._body()
        if body is None:
            return
        chat = _PATHS.get(self.path)
        if chat is None:
            self._error(404, "not_found_error", f"there is no {self.path[:80]}")
            return
        try:
            wanted = asked.read(body, chat=chat)
            reply = _Reply(self.server.engine.name, chat=chat)
            with self.server.turns.turn(self._left):
                if wanted.stream:
                    self._stream(wanted, reply)
                else:
                    self._whole(wanted, reply)
        except Refused as error:
            self._error(400, "invalid_request_error", str(error), error.code, error.param)
        except Busy:
            self._error(429, "rate_limit_error", "too many wait for these weights already", retry_after_s=1)
        except (Gone, BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _whole(self, wanted: Asked, reply: _Reply) -> None:
        pieces: list[str] = []

        def hear(text: str) -> None:
            if self._left():
                raise Gone
            pieces.append(text)

        done = self.server.engine.run(wanted, hear)
        self._answer(200, reply.whole("".join(pieces), done))

    def _stream(self, wanted: Asked, reply: _Reply) -> None:
        begun = False

        def tell(data: bytes) -> None:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

        def begin() -> None:
            nonlocal begun
            if not begun:
                begun = True
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                for first in reply.first():
                    tell(first)

        def hear(text: str) -> None:
            if self._left():
                raise Gone
            if text:  # a refusal of the engine comes before any text, and still is one
                begin()
                tell(reply.piece(text))

        done = self.server.engine.run(wanted, hear)
        begin()
        for last in reply.last(done, usage=wanted.include_usage):
            tell(last)
        self.wfile.write(b"0\r\n\r\n")

    def _left(self) -> bool:
        """Whether the caller has hung up; what it says out of turn stays unread."""
        try:
            if not select.select([self.connection], [], [], 0)[0]:
                return False
            return not self.connection.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    def _admitted(self) -> bool:
        given = self.headers.get("authorization", "").encode()
        if hmac.compare_digest(given, f"Bearer {self.server.token}".encode()):
            return True
        self.close_connection = True
        self._error(401, "authentication_error", "the key is not the one of these weights")
        return False

    def _body(self) -> bytes | None:
        length = self.headers.get("content-length", "")
        if not length.isdecimal() or self.headers.get("transfer-encoding"):
            self.close_connection = True
            self._error(411, "invalid_request_error", "a body says its length")
            return None
        if int(length) > BODY_MAX:
            self.close_connection = True
            self._error(413, "invalid_request_error", f"a body has at most {BODY_MAX} bytes")
            return None
        body = self.rfile.read(int(length))
        return body if len(body) == int(length) else None

    def _error(
        self,
        status: int,
        kind: str,
        message: str,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        error = {"message": message, "type": kind, "param": param, "code": code}
        self._answer(status, {"error": error}, retry_after_s)

    def _answer(self, status: int, body: Any, retry_after_s: int | None = None) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        if retry_after_s is not None:
            self.send_header("retry-after", str(retry_after_s))
        self.end_headers()
        with suppress(BrokenPipeError, ConnectionResetError):
            self.wfile.write(data)


class _Reply:
    """One answer in OpenAI's words."""

    def __init__(self, model: str, *, chat: bool) -> None:
        self._chat = chat
        self._head = {"id": f"hf-{secrets.token_hex(16)}", "created": int(time.time()), "model": model}

    def whole(self, text: str, done: Done) -> dict[str, Any]:
        said = {"message": {"role": "assistant", "content": text}} if self._chat else {"text": text, "logprobs": None}
        choice = {"index": 0, **said, "finish_reason": done.finish}
        kind = "chat.completion" if self._chat else "text_completion"
        return {**self._head, "object": kind, "choices": [choice], "usage": _usage(done)}

    def first(self) -> Iterator[bytes]:
        if self._chat:
            yield self._chunk({"delta": {"role": "assistant", "content": ""}})

    def piece(self, text: str) -> bytes:
        return self._chunk({"delta": {"content": text}} if self._chat else {"text": text})

    def last(self, done: Done, *, usage: bool) -> Iterator[bytes]:
        yield self._chunk({"delta": {}} if self._chat else {"text": ""}, done.finish)
        if usage:
            yield self._event({"choices": [], "usage": _usage(done)})
        yield b"data: [DONE]\n\n"

    def _chunk(self, said: dict[str, Any], finish: str | None = None) -> bytes:
        return self._event({"choices": [{"index": 0, **said, "finish_reason": finish}]})

    def _event(self, rest: dict[str, Any]) -> bytes:
        kind = "chat.completion.chunk" if self._chat else "text_completion"
        return b"data: " + json.dumps({**self._head, "object": kind, **rest}).encode() + b"\n\n"


def _usage(done: Done) -> dict[str, int]:
    total = done.prompt_tokens + done.completion_tokens
    return {"prompt_tokens": done.prompt_tokens, "completion_tokens": done.completion_tokens, "total_tokens": total}
