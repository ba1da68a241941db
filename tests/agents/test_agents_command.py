"""`fastroute agent` as its user meets it: processes, terminals, signals, a router that comes and goes, a backend too."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from fastroute.cli import main

CONFIG = """
server: {drain_ms: 2000}
relay: {connect_ms: 500}
"""


@pytest.fixture(scope="module")
def router(serve: Any) -> Any:
    return serve(CONFIG, workers=2)


@pytest.fixture
def backend(backends: Any) -> Any:
    """A backend that lists two models."""
    return backends("qwen", "google/gemma")


def fresh(router: Any, model: str) -> int:
    """The status of a request on a connection of its own, which any worker may take."""
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    told: int = httpx.post(f"{router.gateway.url}/v1/chat/completions", json=body, verify=False).status_code  # noqa: S501  loopback, no TLS
    return told


def offered(router: Any, wait: Callable[..., None], *models: str) -> None:
    wait(lambda: router.served(*models), f"{models}")


def test_by_the_environment_alone_it_serves_and_drains(
    router: Any, backend: Any, agent: Any, say: Any, wait: Callable[..., None]
) -> None:
    """The seed's names; the default name; a stream under way when it is told to stop is told to its end."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    env = {
        "AGENT_BACKEND": f"{backend.url}/v1",
        "ROUTER_URL": router.gateway.url,
        "AGENT_ENDPOINT": f"http://localhost:{port}",
        "MODEL_LIST": "local_qwen=qwen, local_other",
        "HEARTBEAT_INTERVAL": "1",
    }
    running = agent(env=env)
    running.says("registered with")
    assert running.said.splitlines() == [
        f"agent local-agent at http://localhost:{port} offers local_qwen, local_other of {backend.url}",
        f"registered with {router.gateway.url}; a heartbeat every 1 s",
    ]
    offered(router, wait, "local_qwen")
    told = router.ask("local_qwen", temperature=0.5, unheard_of={"kept": [1, None]})
    assert (told.status, told.text) == (200, "I am qwen")
    assert backend.last.path == "/v1/chat/completions"
    assert (backend.last.json["unheard_of"], backend.last.json["model"]) == ({"kept": [1, None]}, "qwen")

    slow = say.chat_events(*"abcdef")
    backend.say("qwen", say.streamed(slow, gap_s=0.15))
    with ThreadPoolExecutor(1) as pool:
        stream = pool.submit(router.ask, "local_qwen", stream=True)
        wait(lambda: backend.asked("qwen")[-1].json.get("stream"), "the stream")
        running.process.send_signal(signal.SIGTERM)
        wait(lambda: router.ask("local_other").status == 503, "that it is off the list")
        told = stream.result(20)
    assert (told.status, told.text, told.done) == (200, "abcdef", True)
    assert told.body.count(b"x-router-latency-ms") == 1  # the router's word, and not the agent's beside it
    assert running.ended() == 0
    assert running.said.endswith("draining: 1 requests are open\nstopped\n")


def test_directly_it_speaks_as_its_router_does(
    agent: Any, backend: Any, router: Any, say: Any, wait: Callable[..., None]
) -> None:
    """Loopback is open: chat, completions, the seed's own path, the list, and errors in one envelope."""
    running = agent(
        "--backend", backend.url, "--router", router.gateway.url, "--port", "0", "--name", "direct", "--models",
        "local_direct=qwen",
    )  # fmt: skip
    running.says("registered with")
    with httpx.Client(base_url=running.url, verify=False, timeout=10) as http:  # noqa: S501  loopback, no TLS
        body = {"model": "local_direct", "messages": say.HELLO}
        for path in ("/infer", "/v1/chat/completions"):
            assert http.post(path, json=body).json()["choices"][0]["message"]["content"] == "I am qwen"
        streamed = http.post("/infer", json={**body, "stream": True}).text
        assert streamed.endswith("data: [DONE]\n\n")
        assert "x-router" not in streamed
        assert [each["id"] for each in http.get("/v1/models").json()["data"]] == ["local_direct"]
        assert http.get("/healthz").text == "ok"
        assert http.get("/readyz").text == "ready"
        refused = http.post("/v1/chat/completions", json={**body, "model": "other"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
        assert http.post("/v1/messages", json=body).status_code == 404
        assert http.post("/register", json={}).status_code == 404
        backend.say("qwen", say.whole(say.error("server_error"), 500))
        assert http.post("/infer", json=body).status_code == 502
    place = next(each["id"] for each in router.listed() if each["name"] == "direct")
    backend.say("qwen", say.silent)
    asked = json.dumps(body).encode()
    address = ("127.0.0.1", int(running.url.rpartition(":")[2]))
    with socket.create_connection(address) as one, socket.create_connection(address) as two:
        for each in (one, two):
            each.sendall(b"POST /infer HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(asked) + asked)
        wait(lambda: router.beats.last(place).queue == 2, "that a queue is told before its beat is due")
    wait(lambda: router.beats.last(place).queue == 0, "an empty queue")


def test_one_of_two_is_killed_and_nobody_notices(
    router: Any, backend: Any, agent: Any, say: Any, wait: Callable[..., None]
) -> None:
    """kill -9 of one agent under load: what had not begun goes to the other, from the next request on."""
    flags = ("--backend", backend.url, "--router", router.gateway.url, "--port", "0", "--models", "local_pair=qwen")
    first, second = agent(*flags, "--name", "first"), agent(*flags, "--name", "second")
    for each in (first, second):
        each.says("registered with")
    # Each is asked alone, by every worker, before one of them goes.
    for silent, name in (("first", "second"), ("second", "first")):

        def known(silent: str = silent, name: str = name) -> bool:
            router.beat(name)
            router.silence(silent)
            return all(fresh(router, "local_pair") == 200 for _ in range(12))

        wait(known, f"that {name} is known to all")
    router.beat("first"), router.beat("second")
    answered: list[int] = []
    stop = threading.Event()

    def ask() -> None:
        # A client of its own for each: the fixture's is one connection.
        with httpx.Client(base_url=router.gateway.url, verify=False, timeout=10) as http:  # noqa: S501  loopback, no TLS
            while not stop.is_set():
                body = {"model": "local_pair", "messages": say.HELLO}
                answered.append(http.post("/v1/chat/completions", json=body).status_code)

    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(ask) for _ in range(3)]
        wait(lambda: len(answered) > 20, "some answers")
        first.process.kill()
        before = len(answered)
        wait(lambda: len(answered) > before + 40, "answers after it")
        stop.set()
        for each in asking:
            each.result(15)
    # At most what was under way at that very moment is lost; from the next request on all are answered.
    assert set(answered[before + 3 :]) == {200}
    assert answered.count(200) >= len(answered) - 3, answered
    assert second.end() == 0


def test_a_backend_is_waited_for_and_offers_what_it_lists(agent: Any, backends: Any, router: Any, say: Any) -> None:
    """Weights take their time to load; a name that leads elsewhere is refused in words, and the mend is in reach."""
    backend = backends()
    loading = say.whole(say.error("unavailable_error", "Loading model"), 503)
    backend.lists(loading, say.whole({"data": [{"id": "qwen"}, {"id": "google/gemma"}]}))
    running = agent("--backend", backend.url, "--router", router.gateway.url, "--port", "0", "--name", "lists")
    assert running.ended() == 1
    assert f"the backend {backend.url} is not ready: it answers 503; waiting for it\n" in running.said
    assert "offers qwen, google/gemma of" in running.said
    assert "model 'google/gemma' is owned by google" in running.said


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 2, "Give one of --backend and --weights"),
        (("--backend", "http://x", "--weights", "x.gguf"), 2, "Give one of --backend and --weights"),
        (("--weights", "no such repository"), 1, "is neither a path"),
        (("--backend", "nowhere"), 78, "--backend: found the text 'nowhere', wanted an http(s) address"),
        (("--backend", "http://x", "--router", "ftp://y", "--models", "a=,b,b"), 78, "--models: 'b' is named twice"),
        (("--backend", "http://x", "--token", "with blanks in it"), 78, "--token: has characters that no key has"),
        (("--backend", "http://x", "--host", "203.0.113.7"), 1, "cannot listen on 203.0.113.7:5000"),
    ],
)
def test_what_cannot_be_is_said_at_the_start(arguments: tuple[str, ...], code: int, words: str) -> None:
    ran = CliRunner().invoke(
        main, ["agent", *arguments], env={"AGENT_BACKEND": None, "AGENT_WEIGHTS": None, "AGENT_TOKEN": None}
    )
    assert (ran.exit_code, "Traceback" in ran.output) == (code, False)
    assert words in ran.output
    assert "with blanks in it" not in ran.output


def test_in_a_terminal_what_happens_is_said_and_ctrl_c_ends_it(
    router: Any, backend: Any, wait: Callable[..., None]
) -> None:
    """A pseudo-terminal, as a person would; a router that forgot the agent is told again."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "fastroute", "agent", "--backend", backend.url, "--router", router.gateway.url]
    process = subprocess.Popen(
        [*command, "--port", "0", "--name", "terminal", "--models", "local_tty=qwen", "--interval", "0.2"],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path.cwd()), "TERM": "xterm"},
        start_new_session=True,
    )
    os.close(slave)
    said = b""

    def says(words: bytes) -> None:
        nonlocal said
        while words not in said:
            assert select.select([master], [], [], 15)[0], said
            said += os.read(master, 4096)

    try:
        says(b"registered with")
        assert router.run("agents", "remove", "terminal").exit_code == 0
        says(b"the router does not know this agent any more; registering again")
        said = said.partition(b"again")[2]
        says(b"registered with")
        process.send_signal(signal.SIGINT)
        says(b"stopped")
        wait(lambda: process.poll() is not None, "its end")
    finally:
        process.kill()
        process.wait()
        os.close(master)
    assert process.returncode == 0
