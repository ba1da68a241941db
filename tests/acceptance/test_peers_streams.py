"""Streams, fallbacks and timeouts: what other gateways were seen to do wrong, each as a case (PEERS C1b)."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from typing import Any

import pytest
from acceptance_kit import chat_events, claude_events, error, event, gemini_events, provider, silent, streamed, whole

FIRST_CHUNK_MS, IDLE_MS = 400, 500
CONFIG = """
relay: {{connect_ms: 500, first_chunk_ms: {first_chunk}, whole_ms: {first_chunk}, idle_ms: {idle}}}
health: {{threshold: 1000}}
providers:
  openai: {{dialect: openai, base_url: "{first}", api_key: k}}
  anthropic: {{dialect: anthropic, base_url: "{first}", api_key: k}}
  google: {{dialect: google, base_url: "{first}", api_key: k}}
  spare: {{dialect: openai, base_url: "{spare}", api_key: k}}
models:
  - {{id: gpt, model: "openai:gpt", price: {{input: 1000000, output: 1000000}}, max_output: 100}}
  - {{id: claude, model: "anthropic:claude", price: {{input: 1000000, output: 1000000}}, max_output: 100}}
  - {{id: gemini, model: "google:gemini", price: {{input: 1000000, output: 1000000}}, max_output: 100}}
  - {{id: spare, model: "spare:spare", price: {{input: 1000000, output: 1000000}}, max_output: 100}}
aliases:
  gpt-or-spare: [gpt, spare]
  claude-or-spare: [claude, spare]
  gemini-or-spare: [gemini, spare]
"""
WORDS = {"gpt": chat_events, "claude": claude_events, "gemini": gemini_events}
EVERY = pytest.mark.parametrize("model", WORDS)


first = provider()
spare = provider()


@pytest.fixture(scope="module")
def config(first: Any, spare: Any) -> str:
    return CONFIG.format(first_chunk=FIRST_CHUNK_MS, idle=IDLE_MS, first=first.url, spare=spare.url)


@pytest.fixture(scope="module")
def gateway(serve: Any, config: str) -> Any:
    return serve(config)


@pytest.fixture(autouse=True)
def _clean(first: Any, spare: Any, gateway: Any) -> None:
    first.forget()
    spare.forget()
    for _ in range(5):
        gateway.ask("dummy")


def begun(model: str) -> list[bytes]:
    """A stream that has said `half` and nothing of an end."""
    if model == "gpt":
        return chat_events("half", usage=None, finish=None, done=False)
    return claude_events("half")[:3] if model == "claude" else gemini_events("half", "rest")[:1]


def error_of(told: Any) -> Any:
    return json.loads(told.data[-1])["error"]


@EVERY
def test_row_21_a_cut_stream_does_not_end_as_if_it_were_whole(gateway: Any, first: Any, model: str) -> None:
    """A peer ended a stream that its provider had cut with a clean 200 and `[DONE]`."""
    first.say(model, streamed(begun(model), end="cut"))
    told = gateway.ask(model, stream=True)
    assert told.status == 200
    assert told.text.startswith("half")
    assert not told.done
    assert error_of(told)["code"] == "upstream_broken"


@EVERY
def test_row_21_a_stream_that_ends_tidily_without_its_last_word_is_cut_too(
    gateway: Any, first: Any, model: str
) -> None:
    """The framing was whole and the answer was not: no reason to finish was ever given."""
    first.say(model, streamed(begun(model)))
    told = gateway.ask(model, stream=True)
    assert not told.done
    assert error_of(told)["code"] == "upstream_broken"


IN_BAND = {
    "gpt": event(error("server_error")),
    "claude": event({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}, "error"),
    "gemini": event({"error": {"code": 503, "status": "UNAVAILABLE", "message": "busy"}}),
}


@EVERY
def test_rows_22_and_28_an_error_as_the_first_event_still_falls_over(
    gateway: Any, first: Any, spare: Any, model: str
) -> None:
    """Peers gave up on fallbacks once one event had come under a 200, even when it was the error itself."""
    start = WORDS[model]("x")[:1] if model != "gemini" else []
    first.say(model, streamed([*start, IN_BAND[model]] if model != "gpt" else [IN_BAND[model]]))
    told = gateway.ask(f"{model}-or-spare", stream=True)
    assert told.text == "I am spare"
    assert told.done
    assert told.headers["x-router-fallback"] == "true"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_row_23_waiting_for_a_head_has_a_deadline(gateway: Any, first: Any, stream: bool) -> None:
    """A peer's timeouts began with the first byte, so a provider that sent none was waited for two minutes."""
    first.say("gpt", silent)
    started = time.monotonic()
    assert gateway.ask("gpt", stream=stream).status == 504
    assert (time.monotonic() - started) * 1000 < FIRST_CHUNK_MS + 1000


@EVERY
def test_row_24_a_stream_cut_before_its_first_content_falls_over(gateway: Any, first: Any, model: str) -> None:
    """A peer never tried the next provider once a head had come."""
    first.say(model, streamed([b": hello\n\n"], end="cut"))
    told = gateway.ask(f"{model}-or-spare", stream=True)
    assert told.text == "I am spare"
    assert told.done


def test_row_25_after_content_nobody_else_is_asked_and_the_cause_is_told(gateway: Any, first: Any, spare: Any) -> None:
    """A peer continued a broken answer at another provider, whose refusal then hid what had happened."""
    first.say("gpt", streamed([*begun("gpt"), IN_BAND["gpt"]], gap_s=0.05))
    told = gateway.ask("gpt-or-spare", stream=True)
    assert error_of(told)["message"].startswith("OpenAI error")
    assert not spare.asked()


def test_row_26_naming_the_model_switches_fallbacks_off(gateway: Any, first: Any, spare: Any) -> None:
    """A peer's switch against fallbacks was ignored; here the target's own name is the switch."""
    first.say("gpt", whole(error("server_error"), 500))
    assert gateway.ask("gpt").status == 502
    assert not spare.asked()


def test_row_27_the_deadline_is_for_the_first_content_exactly(gateway: Any, first: Any, spare: Any) -> None:
    """A peer's stream time-out counted something else: heads, roles and comments do not stop this one, content does."""
    role = chat_events()[:1]
    first.say("gpt", streamed([*role, *[b": ping\n\n"] * 40], gap_s=0.05, end="hang"))
    started = time.monotonic()
    assert gateway.ask("gpt-or-spare", stream=True).text == "I am spare"
    took_ms = (time.monotonic() - started) * 1000
    assert FIRST_CHUNK_MS <= took_ms < FIRST_CHUNK_MS + 400


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_row_29_tool_calls_survive_any_chunking(gateway: Any, first: Any, size: int) -> None:
    """Peers lost the index or the id of a call, or said its arguments twice, when pieces came in odd sizes."""
    use = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}
    pieces = ['{"city": "Z', 'ürich", "days"', ": 3}"]
    said: list[dict[str, Any]] = [
        json.loads(claude_events("x")[0].split(b"data: ")[1]),
        {"type": "content_block_start", "index": 0, "content_block": use},
        *(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": piece}}
            for piece in pieces
        ),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
    ]
    raw = b"".join(event(one, one["type"]) for one in said)
    first.say("claude", streamed([raw[at : at + size] for at in range(0, len(raw), size)]))
    told = gateway.ask("claude", stream=True)
    calls = [
        call
        for data in told.data
        if data != "[DONE]"
        for choice in json.loads(data)["choices"]
        for call in choice["delta"].get("tool_calls") or ()
    ]
    assert {call["index"] for call in calls} == {0}
    assert [call["id"] for call in calls if call.get("id")] == ["toolu_1"]
    assert [call["function"]["name"] for call in calls if call["function"].get("name")] == ["weather"]
    arguments = "".join(call["function"].get("arguments") or "" for call in calls)
    assert json.loads(arguments) == {"city": "Zürich", "days": 3}


@EVERY
def test_row_30_characters_are_never_broken_at_chunk_borders(gateway: Any, first: Any, model: str) -> None:
    """Peers decoded each chunk by itself and told replacement characters; here every byte may come alone."""
    words = "Zürich 東京 🦊\u200d🔥 naïve"
    raw = b"".join(WORDS[model](words))
    first.say(model, streamed([raw[at : at + 1] for at in range(len(raw))]))
    told = gateway.ask(model, stream=True)
    assert told.text == words
    assert told.done


def test_row_31_two_providers_never_speak_in_one_answer(gateway: Any, first: Any) -> None:
    """In a peer the first provider's late words were mixed into the second's answer."""
    first.say("gpt", streamed(chat_events(*["late "] * 20), first_s=FIRST_CHUNK_MS / 1000 + 0.02, gap_s=0.005))
    told = [gateway.ask("gpt-or-spare", stream=True) for _ in range(2)]
    assert [one.text for one in told] == ["I am spare"] * 2
    assert all(one.done for one in told)


@pytest.mark.parametrize("model", ["gpt", "claude"])
def test_row_32_a_body_with_a_large_picture_passes(gateway: Any, first: Any, model: str) -> None:
    """A peer answered 413 above 32 KiB; four mebibytes pass here unless an operator says otherwise."""
    picture = "data:image/png;base64," + "iVBORw0KGgoAAAANSUhEUgAA" * 120_000
    parts = [{"type": "text", "text": "what?"}, {"type": "image_url", "image_url": {"url": picture}}]
    told = gateway.ask(model, messages=[{"role": "user", "content": parts}])
    assert told.status == 200
    assert len(first.last.body) > 2_800_000
    told = gateway.ask(model, messages=[{"role": "user", "content": "x" * (4 << 20)}])
    assert told.status == 413
    assert str(4 << 20) in told.error["message"]


def test_row_33_a_stop_lets_streams_end(serve: Any, config: str, first: Any) -> None:
    """Peers cut open streams at shutdown; here they get their time, and the process ends well after them."""
    gateway = serve(config)
    first.say("gpt", streamed(chat_events(*["word "] * 10), gap_s=0.1))
    answers: list[Any] = []
    caller = threading.Thread(target=lambda: answers.append(gateway.ask("gpt", stream=True)))
    caller.start()
    while not first.asked():
        time.sleep(0.01)
    time.sleep(0.2)
    gateway.process.send_signal(signal.SIGTERM)
    caller.join(10)
    assert answers[0].text == "word " * 10
    assert answers[0].done
    assert gateway.process.wait(10) == 0


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_caller_who_leaves_stops_the_provider(gateway: Any, first: Any, stream: bool) -> None:
    """Peers went on paying for answers that nobody was waiting for."""
    first.say("gpt", streamed(chat_events(*["word "] * 200), gap_s=0.02, first_s=0.1) if stream else silent)
    body = json.dumps({"model": "gpt", "messages": [{"role": "user", "content": "x"}], "stream": stream}).encode()
    with socket.create_connection(("127.0.0.1", int(gateway.url.rsplit(":", 1)[1]))) as caller:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        caller.sendall(head.encode() + body)
        while not first.asked():
            time.sleep(0.01)
        time.sleep(0.15)
    deadline = time.monotonic() + 1
    while not first.last.left.is_set() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert first.last.left.is_set()
