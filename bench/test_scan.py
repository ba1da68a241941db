"""What reading costs: a request's body at three sizes, and one event of a stream.

Run with `pytest bench/test_scan.py --benchmark-enable --benchmark-columns=min,median,iqr`. Wanted, as medians: 0.5 KB under
2 us, 4.4 KB under 10, 33 KB under 60; an event well under 1. The last benchmarks are the yardsticks of the same run.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
import orjson
import pytest

from fastroute._scan import ChatStreamScanner, EventSplitter, RequestScanner, json_string

SCANNER = RequestScanner((b"max_tokens", b"max_completion_tokens", b"n", b"temperature", b"response_format"))


def body(size: int) -> bytes:
    """A conversation of about so many bytes, with quotes and line ends in it."""
    text = 'The quick brown fox says "jump" over the lazy dog.\n' * 6
    chat: dict[str, Any] = {"model": "gpt-4o-mini", "stream": True, "temperature": 0.7, "max_tokens": 256}
    chat["messages"] = [{"role": "system", "content": text[: size // 4]}]
    while len(json.dumps(chat)) < size - len(text):
        chat["messages"].append({"role": ("assistant", "user")[len(chat["messages"]) % 2], "content": text})
    return json.dumps(chat).encode()


BODIES = {"0.5 KB": body(500), "4.4 KB": body(4_400), "33 KB": body(33_000)}
CHUNK = (
    b'data: {"id":"chatcmpl-AbCdEfGhIjKlMnOpQrStUvWx","object":"chat.completion.chunk","created":1760000000,'
    b'"model":"gpt-4o-mini-2024-07-18","service_tier":"default","system_fingerprint":"fp_0123456789","choices":[{"index":0,'
    b'"delta":{"content":" hello"},"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":"aB3dE6gH"}\n\n'
)


@pytest.mark.parametrize("size", BODIES)
def test_scan(benchmark: Any, size: str) -> None:
    assert benchmark(SCANNER.scan, BODIES[size]).model == "gpt-4o-mini"


def test_rewrite_of_model_and_stream_options_at_4_kb(benchmark: Any) -> None:
    scan = SCANNER.scan(BODIES["4.4 KB"])
    model = json_string("mistral-small-latest")

    def rewrite() -> bytes:
        return scan.rewrite(((b"model", model), (b"stream_options", scan.usage_options() or b"null")))

    assert b"mistral-small-latest" in benchmark(rewrite)


@pytest.mark.parametrize("events", [1, 20])
def test_relay_of_events_in_one_piece(benchmark: Any, events: int) -> None:
    scanner = ChatStreamScanner(True)
    piece = CHUNK * events
    assert benchmark(scanner.feed, piece) == piece


def test_relay_of_an_event_in_two_halves(benchmark: Any) -> None:
    scanner = ChatStreamScanner(True)
    feed, first, second = scanner.feed, CHUNK[:150], CHUNK[150:]

    def halves() -> bytes:
        return feed(first) + feed(second)

    assert benchmark(halves) == CHUNK


@pytest.mark.parametrize("events", [1, 20])
def test_split_of_events_in_one_piece(benchmark: Any, events: int) -> None:
    assert len(benchmark(EventSplitter().feed, CHUNK * events)) == events


@pytest.mark.parametrize("size", BODIES)
def test_yardstick_orjson(benchmark: Any, size: str) -> None:
    benchmark(orjson.loads, BODIES[size])


class Said(msgspec.Struct):
    role: str
    content: str


class Chat(msgspec.Struct):
    model: str
    messages: list[Said]
    stream: bool = False
    max_tokens: int | None = None
    temperature: float | None = None


@pytest.mark.parametrize("size", BODIES)
def test_yardstick_msgspec_typed(benchmark: Any, size: str) -> None:
    benchmark(msgspec.json.Decoder(Chat).decode, BODIES[size])


def test_yardstick_orjson_of_one_event(benchmark: Any) -> None:
    benchmark(orjson.loads, CHUNK[6:-2])
