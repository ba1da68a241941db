"""Scripted providers and a real gateway in front of them, for acceptance cases told over HTTP.

`Stub` is one listening provider that records what reaches it and answers by the model it is asked for; without a script
it answers well in the dialect of the path. `start` runs `python -m fastroute serve` with an environment of nothing but
what it is given.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
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
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

START_S = 30.0
ROOT = Path(__file__).parents[2]
HELLO = [{"role": "user", "content": "What is the capital of France?"}]


# --- what a provider says -------------------------------------------------------------------------------------------


def chat(text: str | None, usage: tuple[int, int] | None = (11, 15), finish: str = "stop", **message: Any) -> Any:
    """A whole OpenAI answer."""
    whole = {
        "id": "chatcmpl-up",
        "object": "chat.completion",
        "created": 1,
        "model": "up",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}
        ],
    }
    return whole if usage is None else {**whole, "usage": _openai_usage(usage)}


def _openai_usage(usage: tuple[int, int]) -> Any:
    return {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}


def event(data: Any, name: str = "") -> bytes:
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()


def chat_events(
    *texts: str, usage: tuple[int, int] | None = (11, 15), finish: str | None = "stop", done: bool = True
) -> list[bytes]:
    """The same as a stream: a role, the texts, a reason, the usage, the last word."""
    deltas: list[tuple[Any, str | None]] = [({"role": "assistant", "content": ""}, None)]
    deltas += [({"content": text}, None) for text in texts]
    deltas += [({}, finish)] if finish else []
    head = {"id": "chatcmpl-up", "object": "chat.completion.chunk", "created": 1, "model": "up"}
    events = [event({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": end}]}) for delta, end in deltas]
    if usage is not None:
        events.append(event({**head, "choices": [], "usage": _openai_usage(usage)}))
    return [*events, event("[DONE]")] if done else events


def claude(*blocks: Any, usage: tuple[int, int] = (11, 15), stop: str = "end_turn") -> Any:
    """A whole Anthropic answer; a block given as text is a text block."""
    content = [{"type": "text", "text": block} if isinstance(block, str) else block for block in blocks]
    return {
        "id": "msg_up",
        "type": "message",
        "role": "assistant",
        "model": "up",
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": {"input_tokens": usage[0], "output_tokens": usage[1]},
    }


def claude_events(*texts: str, usage: tuple[int, int] = (11, 15)) -> list[bytes]:
    start = {**claude(usage=(usage[0], 1)), "stop_reason": None}
    said: list[dict[str, Any]] = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": one}} for one in texts),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": usage[1]},
        },
        {"type": "message_stop"},
    ]
    return [event(one, one["type"]) for one in said]


def gemini(text: str, usage: tuple[int, int] | None = (11, 15), finish: str | None = "STOP") -> Any:
    """A whole Google answer, or one piece of its stream."""
    candidate = {"index": 0, "content": {"role": "model", "parts": [{"text": text}]}}
    whole: dict[str, Any] = {"candidates": [{**candidate, **({"finishReason": finish} if finish else {})}]}
    if usage is not None:
        counted = {"promptTokenCount": usage[0], "candidatesTokenCount": usage[1], "totalTokenCount": sum(usage)}
        whole["usageMetadata"] = counted
    return whole


def gemini_events(*texts: str) -> list[bytes]:
    last = len(texts) - 1
    return [
        event(gemini(text, (11, 15) if place == last else None, "STOP" if place == last else None))
        for place, text in enumerate(texts)
    ]


def error(status_type: str, message: str = "the provider's own words", code: str | None = None) -> Any:
    return {"error": {"message": message, "type": status_type, "param": None, "code": code}}


# --- how a provider says it -----------------------------------------------------------------------------------------


Act = Callable[["Asked", asyncio.StreamWriter], Awaitable[None]]


def whole(body: Any, status: int = 200, headers: Mapping[str, str] | None = None, after_s: float = 0.0) -> Act:
    """One JSON answer, as it is or after a while."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = {"content-type": "application/json", **(headers or {})}

    async def act(asked: Asked, out: asyncio.StreamWriter) -> None:
        if after_s:
            await asyncio.sleep(after_s)
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        out.write(f"HTTP/1.1 {status} Said\r\n{head}content-length: {len(data)}\r\n\r\n".encode() + data)
        await out.drain()

    return act


def streamed(
    events: list[bytes],
    headers: Mapping[str, str] | None = None,
    *,
    first_s: float = 0.0,
    gap_s: float = 0.0,
    end: str = "clean",
) -> Act:
    """A stream, one write for each event; `end` is clean, cut (the connection closes) or hang (nothing more comes)."""
    lines = {"content-type": "text/event-stream", "transfer-encoding": "chunked", **(headers or {})}

    async def act(asked: Asked, out: asyncio.StreamWriter) -> None:
        if first_s:
            await asyncio.sleep(first_s)
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        out.write(f"HTTP/1.1 200 Said\r\n{head}\r\n".encode())
        for place, data in enumerate(events):
            if place and gap_s:
                await asyncio.sleep(gap_s)
            out.write(b"%x\r\n%b\r\n" % (len(data), data))
            await out.drain()
            asked.told = time.monotonic()
        if end == "cut":
            out.close()
        elif end == "hang":
            await asked.left.wait()
        else:
            out.write(b"0\r\n\r\n")
            await out.drain()

    return act


async def silent(asked: Asked, out: asyncio.StreamWriter) -> None:
    """Takes the request and says nothing at all."""
    await asked.left.wait()


async def reset(asked: Asked, out: asyncio.StreamWriter) -> None:
    """Ends the connection with a reset."""
    sock = out.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    out.close()


@dataclass
class Asked:
    """One request as a provider saw it."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes
    at: float
    told: float = 0.0  # when the last piece was said
    left: asyncio.Event = field(default_factory=asyncio.Event)  # the gateway closed this connection

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def model(self) -> str:
        found = re.match(r"/.*v1beta/models/([^:]+):", self.path)
        return found[1] if found else str(self.json.get("model"))

    @property
    def stream(self) -> bool:
        return ":stream" in self.path or bool(self.json.get("stream"))

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    @property
    def everything(self) -> str:
        """Path, headers and body as one text, to look for what should not be there."""
        return "\n".join([self.path, *(f"{name}: {value}" for name, value in self.headers), self.body.decode()])


class Stub:
    """One provider at an address of its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._scripts: dict[str, list[Act]] = {}
        self._asked: list[Asked] = []
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def say(self, model: str, *acts: Act) -> None:
        """What the next requests for a model get, one act each; the last goes on for ever."""
        self._scripts[model] = list(acts)

    def asked(self, model: str | None = None) -> list[Asked]:
        return [one for one in self._asked if model is None or one.model == model]

    @property
    def last(self) -> Asked:
        return self._asked[-1]

    def forget(self) -> None:
        self._asked.clear()
        self._scripts.clear()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=512)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, out: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while not out.is_closing():
                asked = await self._read(reader)
                self._asked.append(asked)
                acts = self._scripts.get(asked.model)
                act = _good(asked) if not acts else acts.pop(0) if len(acts) > 1 else acts[0]
                # Nothing follows a request before its answer, so what ends here is a gateway that left.
                leaving = asyncio.create_task(self._watch(reader, asked))
                try:
                    await act(asked, out)
                finally:
                    leaving.cancel()
                    await asyncio.gather(leaving, return_exceptions=True)
                if asked.left.is_set():
                    return
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._tasks.discard(task)
            out.close()

    @staticmethod
    async def _watch(reader: asyncio.StreamReader, asked: Asked) -> None:
        while not reader.at_eof() and reader.exception() is None:  # noqa: ASYNC110 - reading would take the next request
            await asyncio.sleep(0.01)
        asked.left.set()

    @staticmethod
    async def _read(reader: asyncio.StreamReader) -> Asked:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        request, *lines = head.rstrip("\r\n").split("\r\n")
        headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        length = int(next((value for name, value in headers if name == "content-length"), "0"))
        method, path, _ = request.split(" ")
        return Asked(method, path, headers, await reader.readexactly(length), time.monotonic())


def _good(asked: Asked) -> Act:
    """A good answer in the dialect of the path, which names the model it was asked for."""
    text = f"I am {asked.model}"
    if asked.path.endswith("/v1/messages"):
        return streamed(claude_events(text)) if asked.stream else whole(claude(text))
    if "/v1beta/" in asked.path:
        return streamed(gemini_events(text)) if asked.stream else whole(gemini(text))
    return streamed(chat_events(text)) if asked.stream else whole(chat(text))


class Stubs:
    """A thread with a loop in which all providers live."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._opened: list[Stub] = []

    def open(self) -> Stub:
        stub = Stub(self._loop)
        self._do(stub.open())
        self._opened.append(stub)
        return stub

    def close(self) -> None:
        for stub in self._opened:
            self._do(stub.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def _do(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(5)


@pytest.fixture(scope="session")
def stubs() -> Iterator[Stubs]:
    """Where providers are opened."""
    stubs = Stubs()
    yield stubs
    stubs.close()


def provider() -> Any:
    """A provider for the tests of a module: `lab = provider()` where the module's fixtures stand."""

    @pytest.fixture(scope="module")
    def opened(stubs: Stubs) -> Stub:
        return stubs.open()

    return opened


# --- the gateway ----------------------------------------------------------------------------------------------------


@dataclass
class Told:
    """What a caller got, with the instant of each piece for streams."""

    status: int
    headers: httpx.Headers
    body: bytes
    at: list[float]
    complete: bool = True

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        body = self.json
        assert set(body) == {"error"}, f"the envelope has nothing beside `error`: {body}"
        assert set(body["error"]) == {"message", "type", "param", "code"}, body
        return body["error"]

    @property
    def data(self) -> list[str]:
        """The data of every event of a stream."""
        return [line[5:].strip() for line in self.body.decode().split("\n") if line.startswith("data:")]

    @property
    def comments(self) -> dict[str, str]:
        lines = [line[1:].strip() for line in self.body.decode().split("\n") if line.startswith(":")]
        return dict(line.split(": ", 1) for line in lines if ": " in line)

    @property
    def text(self) -> str:
        """The content of a chat answer or a chat stream."""
        if not self.headers["content-type"].startswith("text/event-stream"):
            return str(self.json["choices"][0]["message"]["content"])
        chunks = [json.loads(data) for data in self.data if data != "[DONE]"]
        choices = [choice for chunk in chunks for choice in chunk.get("choices", ())]
        return "".join(choice["delta"].get("content") or "" for choice in choices)

    @property
    def done(self) -> bool:
        return self.data[-1:] == ["[DONE]"]


class Gateway:
    """One running server."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, log: Path) -> None:
        self.process = process
        self.url = url
        self.log = log
        self.always: dict[str, str] = {}  # headers of everything that is asked
        # Without `verify` no certificates are loaded, which would take longer than most cases.
        self.http = httpx.Client(base_url=url, timeout=15, verify=False)  # noqa: S501 - loopback, no TLS

    def ask(
        self,
        model: str,
        *,
        path: str = "/v1/chat/completions",
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        **fields: Any,
    ) -> Told:
        """One POST and all of its answer; `fields` go into the body beside model and messages."""
        data = content if content is not None else json.dumps({"model": model, "messages": HELLO, **fields}).encode()
        given = {"content-type": "application/json", **self.always, **(headers or {})}
        with self.http.stream("POST", path, content=data, headers=given) as reply:
            told = Told(reply.status_code, reply.headers, b"", [])
            try:
                for piece in reply.iter_raw():
                    told.body += piece
                    told.at.append(time.monotonic())
            except httpx.RemoteProtocolError:
                told.complete = False
        return told

    def metrics(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        families = text_string_to_metric_families(self.http.get("/metrics").text)
        return {(one.name, frozenset(one.labels.items())): one.value for family in families for one in family.samples}

    @contextlib.contextmanager
    def counting(self, name: str, **labels: str) -> Iterator[Callable[[], float]]:
        """By how much one sample grew since here; labels may be given with a trailing underscore."""
        wanted = {(label.rstrip("_"), value) for label, value in labels.items()}

        def value() -> float:
            for line in self.http.get("/metrics").text.split("\n"):
                if line.startswith(f"{name}{{") and set(re.findall(r'(\w+)="([^"]*)"', line)) == wanted:
                    return float(line.rpartition(" ")[2])
            return 0.0

        before = value()
        yield lambda: value() - before

    def end(self) -> None:
        """Ask it to stop."""
        self.http.close()
        self.process.send_signal(signal.SIGTERM)

    def ended(self) -> int:
        """The exit code, once it has."""
        try:
            return self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def start(place: Path, config: str, env: Mapping[str, str] | None = None, workers: int = 1) -> Gateway:
    """A gateway that answers; nothing of the tester's own environment reaches it but the path to programs."""
    place.mkdir(parents=True, exist_ok=True)
    (place / "fastroute.yaml").write_text(config)
    log = place / "log"
    command = [sys.executable, "-m", "fastroute", "serve", "--config", str(place / "fastroute.yaml")]
    command += ["--port", "0", "--workers", str(workers), "--state-dir", str(place / "data")]
    world = {"PATH": os.environ["PATH"], "HOME": str(place), **(env or {})}
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=ROOT, env=world, stdout=out, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + START_S
    url = ""
    while time.monotonic() < deadline and process.poll() is None:
        said = log.read_text()
        if " ended with " in said:
            break  # its worker cannot start, and the next will not either
        found = re.search(r"listening on (http://\S+:[1-9]\d*)", said)
        url = found[1] if found else ""
        if url and _answers(url):
            return Gateway(process, url, log)
        time.sleep(0.02)
    process.kill()
    process.wait()
    raise AssertionError(f"the gateway did not start:\n{log.read_text()}")


def end_well(running: list[Gateway]) -> None:
    """All are told to end; each does so with 0, and none has told a traceback."""
    for gateway in running:
        gateway.end()
    codes = [gateway.ended() for gateway in running]
    logs = [gateway.log.read_text() for gateway in running]
    assert codes == [0] * len(codes), logs
    assert not [log for log in logs if "Traceback" in log], logs


def _answers(url: str) -> bool:
    host, _, port = url.removeprefix("http://").partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
