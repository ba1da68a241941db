"""The server over an engine: OpenAI's words, exact counts, one generation at a time, and nobody in without the key."""

import json
import socket
import threading
from collections.abc import Iterator

import httpx
import openai
import pytest
from gateway_kit import wait_until

from fastroute.weights import serving
from fastroute.weights.asked import Done, Refused, read
from fastroute.weights.huggingface import HuggingFace
from fastroute.weights.serving import Server

HI = [{"role": "user", "content": "one two three"}]


class Slow:
    """Says the words of the prompt, each when the test lets it; counts how many generate at once."""

    name = "slow"

    def __init__(self) -> None:
        self.go = threading.Semaphore(0)
        self.running = self.most = self.ended = 0

    def run(self, wanted, hear):
        words = wanted.messages[-1].content.split(" ")
        if words == ["refuse"]:
            raise Refused("not this", "messages")
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            for place, word in enumerate(words):
                while not self.go.acquire(timeout=0.01):
                    hear("")
                hear(word if place == 0 else f" {word}")
        finally:
            self.running -= 1
            self.ended += 1
        return Done("stop", len(words), len(words))


@pytest.fixture
def engine() -> Slow:
    return Slow()


@pytest.fixture
def server(engine: Slow) -> Iterator[Server]:
    server = Server(engine, "the-key")
    server.start()
    yield server
    engine.go.release(10_000)
    server.shutdown()
    server.server_close()


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="the-key", max_retries=0) as client:
        yield client


def test_a_whole_answer_and_a_streamed_one_say_the_same(client, engine):
    engine.go.release(100)
    whole = client.chat.completions.create(model="m", messages=HI)
    assert whole.id.startswith("hf-")
    assert whole.choices[0].message.content == "one two three"
    assert whole.choices[0].finish_reason == "stop"
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens, whole.usage.total_tokens) == (3, 3, 6)
    chunks = list(
        client.chat.completions.create(model="m", messages=HI, stream=True, stream_options={"include_usage": True})
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "one two three"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].usage == whole.usage
    assert len({c.id for c in chunks}) == 1


def test_one_generates_and_the_others_wait_their_turn(client, engine, server):
    told: list[str] = []

    def ask() -> None:
        told.append(client.chat.completions.create(model="m", messages=HI).choices[0].message.content)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: server.turns.waiting == 3, 5)
    engine.go.release(100)
    for thread in threads:
        thread.join(5)
    assert told == ["one two three"] * 4
    assert engine.most == 1


def test_beyond_the_queue_a_caller_is_told_to_come_again(server, engine, monkeypatch):
    monkeypatch.setattr(serving, "QUEUE_MAX", 1)
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", headers={"authorization": "Bearer the-key"}) as http:
        body = {"messages": HI}
        threads = [
            threading.Thread(target=httpx.post, args=(f"{http.base_url}/v1/chat/completions",), kwargs=how)
            for how in [{"json": body, "headers": dict(http.headers), "timeout": 10}] * 2
        ]
        threads[0].start()
        wait_until(lambda: engine.running == 1, 5)
        threads[1].start()
        wait_until(lambda: server.turns.waiting == 1, 5)
        refused = http.post("/v1/chat/completions", json=body)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        engine.go.release(100)
        for thread in threads:
            thread.join(5)


@pytest.mark.parametrize("stream", [True, False])
def test_a_caller_who_leaves_gives_the_turn_back(client, engine, server, stream):
    body = json.dumps({"messages": [{"role": "user", "content": "w " * 500}], "stream": stream}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nauthorization: Bearer the-key\r\ncontent-length: %d\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(head % len(body) + body)
        wait_until(lambda: engine.running == 1, 5)
        engine.go.release(3)
    wait_until(lambda: engine.ended == 1, 5)
    engine.go.release(100)
    assert client.chat.completions.create(model="m", messages=HI).choices[0].message.content == "one two three"


def test_a_caller_who_leaves_while_waiting_never_generates(client, engine, server):
    thread = threading.Thread(target=lambda: client.chat.completions.create(model="m", messages=HI))
    thread.start()
    wait_until(lambda: engine.running == 1, 5)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"http://127.0.0.1:{server.port}/v1/chat/completions",
            json={"messages": HI},
            headers={"authorization": "Bearer the-key"},
            timeout=0.2,
        )
    wait_until(lambda: server.turns.waiting == 0, 5)
    engine.go.release(100)
    thread.join(5)
    assert engine.ended == 1


def test_a_refusal_is_one_in_both_forms_and_nothing_is_streamed_before_it(server):
    for stream in (True, False):
        answer = httpx.post(
            f"http://127.0.0.1:{server.port}/v1/chat/completions",
            json={"messages": [{"role": "user", "content": "refuse"}], "stream": stream},
            headers={"authorization": "Bearer the-key"},
        )
        assert answer.status_code == 400
        assert answer.json()["error"]["message"] == "not this"


DOORS = [("POST", "/v1/chat/completions"), ("POST", "/v1/completions"), ("GET", "/v1/models")]


@pytest.mark.parametrize(("method", "path"), DOORS)
@pytest.mark.parametrize("key", [None, "Bearer wrong", "the-key"])
def test_nobody_gets_in_without_the_key(server, method, path, key):
    headers = {} if key is None else {"authorization": key}
    answer = httpx.request(method, f"http://127.0.0.1:{server.port}{path}", headers=headers, content=b"{}")
    assert answer.status_code == 401


def test_health_tells_how_many_wait_and_needs_no_key(server):
    assert httpx.get(f"http://127.0.0.1:{server.port}/healthz").json() == {"status": "ok", "waiting": 0}


ODD = [
    (b'{"messages": []}', "messages"),
    (b'{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}', "messages.0.content"),
    (b'{"messages": [{"role": "user", "content": "x"}], "tools": [{}]}', "tools"),
    (b'{"messages": [{"role": "user", "content": "x"}], "n": 2}', "n"),
    (
        b'{"messages": [{"role": "user", "content": "x"}], "response_format": {"type": "json_object"}}',
        "response_format",
    ),
    (b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": 0}', "max_tokens"),
    (b'{"messages": [{"role": "user", "content": "x"}], "temperature": 2.5}', "temperature"),
    (b'{"messages": [{"role": "user", "content": "x"}], "top_p": 0}', "top_p"),
    (b"[1]", None),
]


@pytest.mark.parametrize(("body", "param"), ODD)
def test_what_would_be_ignored_is_refused_by_name(body, param):
    with pytest.raises(Refused) as refused:
        read(body, chat=True)
    assert refused.value.param == param


def test_silence_means_sixteen_tokens_at_seven_tenths():
    wanted = read(b'{"prompt": ["once"], "stop": "x"}', chat=False)
    assert (wanted.max_tokens, wanted.temperature, wanted.prompt, wanted.stops) == (16, 0.7, "once", ("x",))


def test_weights_that_were_taught_no_form_get_the_plainest():
    class Plain:
        chat_template = None

        def __call__(self, text):
            return {"input_ids": list(text.encode())}

    engine = object.__new__(HuggingFace)
    engine._tokenizer = Plain()
    wanted = read(
        b'{"messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]}', chat=True
    )
    assert bytes(engine._tokens(wanted)) == b"system: be brief\nuser: hi\nassistant:"
