"""A provider and a panel that do as they are told, and callers of a router."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from fastroute import LlmRouter
from fastroute.embed.funding import Pace

Play = Callable[["Handler", dict[str, Any]], None]


class Handler(BaseHTTPRequestHandler):
    """One connection; `say` answers with JSON, or with bytes as they are."""

    protocol_version = "HTTP/1.1"
    server: Any

    def log_message(self, *args: Any) -> None:
        """Tests are quiet."""

    def do_GET(self) -> None:
        self.server.asked.append((self.path, dict(self.headers), {}))
        self.say(200, {"object": "list", "data": [{"id": "m"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        self.server.play(self, body)

    def say(self, status: int, body: Any) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def event(self, data: Any) -> None:
        text = b"data: " + (data if isinstance(data, bytes) else json.dumps(data).encode()) + b"\n\n"
        self.wfile.write(b"%x\r\n%b\r\n" % (len(text), text))
        self.wfile.flush()

    def begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()

    def end_stream(self) -> None:
        self.event(b"[DONE]")
        self.wfile.write(b"0\r\n\r\n")


class Server(ThreadingHTTPServer):
    """`asked` has (path, headers, body) of every request; `play` answers the next ones."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, play: Play, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.play = play
        self.asked: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def to(self, path: str) -> list[dict[str, Any]]:
        """The bodies posted to a path."""
        return [body for asked, _, body in list(self.asked) if asked.endswith(path)]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Callers that leave are a part of these tests."""

    def close(self) -> None:
        self.shutdown()
        self.server_close()


def whole(prompt: int = 150, output: int = 50) -> Play:
    """A short good answer with this usage, in OpenAI's words."""

    def play(handler: Handler, body: dict[str, Any]) -> None:
        message = {"role": "assistant", "content": "well"}
        usage = {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        about = {"id": "c", "object": "chat.completion", "created": 1, "model": body.get("model", "")}
        handler.say(200, {**about, "choices": choices, "usage": usage})

    return play


class FakePanel:
    """A panel whose every answer can be replaced: `answers[path]` is a function of (handler, body)."""

    def __init__(self, upstream: Server, port: int = 0) -> None:
        self.leases = 0
        self.granted = 10_000_000
        self.lifetime: str | None = None
        self.key = {"provider_key": "sk-panel", "provider": "openai", "base_url": upstream.url}
        self.answers: dict[str, Play] = {
            "/agents/provider-key": lambda handler, _: handler.say(200, self.key),
            "/budget/handshake": lambda handler, _: handler.say(200, self.lease()),
            "/budget/refresh": lambda handler, _: handler.say(200, {"status": "approved", **self.lease()}),
            "/budget/report": lambda handler, _: handler.say(200, {"success": True, "budget_remaining": 1}),
            "/budget/return": lambda handler, _: handler.say(200, {"success": True, "returned": 1}),
            "/analytics/events": lambda handler, _: handler.say(202, {"status": "accepted"}),
        }
        self.server = Server(self._play, port)

    def lease(self) -> dict[str, Any]:
        self.leases += 1
        told: dict[str, Any] = {
            "ip_token": "ip_x",
            "lease_id": f"lease_{self.leases}",
            "budget_granted": self.granted,
            "budget_remaining": 50_000_000,
        }
        return told if self.lifetime is None else {**told, "expires_at": self.lifetime}

    def to(self, path: str) -> list[dict[str, Any]]:
        return self.server.to(path)

    def _play(self, handler: Handler, body: dict[str, Any]) -> None:
        self.answers[handler.path.removeprefix("/api/v1")](handler, body)


class Quick(LlmRouter):
    """A router in a hurry with its panel."""

    _pace = Pace(ask_s=2.0, retries_s=(0.02, 0.05), dry_s=5.0, sync_s=0.05, stop_s=2.0, drain_s=10.0)


class Answer:
    def __init__(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.status, self.body, self.headers = status, body, headers

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json["error"]["code"])


def chat(model: str = "gpt-4o-mini", text: str = "x" * 4000, **more: Any) -> dict[str, Any]:
    return {"model": model, "max_tokens": 500, "messages": [{"role": "user", "content": text}], **more}


def post(router: LlmRouter, body: dict[str, Any], path: str = "/v1/chat/completions", **headers: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", router.port, timeout=10)
    try:
        given = headers or {"authorization": f"Bearer {router.api_key}"}
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json", **given})
        answer = connection.getresponse()
        return Answer(answer.status, answer.read(), {k.lower(): v for k, v in answer.getheaders()})
    finally:
        connection.close()


def wait_until(true: Callable[[], bool], within_s: float = 5.0) -> None:
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.005)


class Kit:
    """What tests of the embedded router share."""

    Server, Quick, FakePanel, Pace = Server, Quick, FakePanel, Pace
    whole, chat, post, wait_until = (
        staticmethod(whole),
        staticmethod(chat),
        staticmethod(post),
        staticmethod(wait_until),
    )


@pytest.fixture
def kit() -> type[Kit]:
    return Kit


@pytest.fixture
def upstream() -> Iterator[Server]:
    server = Server(whole())
    yield server
    server.close()


@pytest.fixture
def make(upstream: Server) -> Iterator[Callable[..., LlmRouter]]:
    """Routers in front of `upstream`, with a key for it; they are stopped at the end."""
    made: list[LlmRouter] = []

    def start(**given: Any) -> LlmRouter:
        router = Quick(**{"provider_key": "sk-own", "provider_base_url": upstream.url, **given})
        made.append(router)
        return router

    yield start
    for router in made:
        router.stop()


@pytest.fixture
def panel(upstream: Server) -> Iterator[FakePanel]:
    fake = FakePanel(upstream)
    yield fake
    fake.server.close()


@pytest.fixture
def leased(panel: FakePanel) -> Iterator[Callable[..., LlmRouter]]:
    """Routers with a token for `panel`; they are stopped at the end."""
    made: list[LlmRouter] = []

    def start(**given: Any) -> LlmRouter:
        kind = given.pop("kind", Quick)
        router = kind(**{"api_key": "ic_token", "server_url": panel.server.url, **given})
        made.append(router)
        return router

    yield start
    for router in made:
        router.stop()
