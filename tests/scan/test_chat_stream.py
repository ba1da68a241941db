"""The relay scanner: byte-exact passage, and the few facts a relay needs from an OpenAI-shaped stream."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fastroute._scan import ChatStreamScanner, ScanError

TORTURE = os.environ.get("FASTROUTE_TORTURE") == "1"
Cuttings = Callable[[bytes], Iterator[list[bytes]]]

FACTS = ("content_seen", "content_bytes", "finish_reason", "model", "usage", "error", "done", "events", "malformed")


def relay(pieces: list[bytes], hide_usage: bool = True) -> tuple[bytes, dict[str, Any]]:
    scanner = ChatStreamScanner(hide_usage)
    out = b"".join(scanner.feed(piece) for piece in pieces)
    cut = scanner.end()
    return out, {name: getattr(scanner, name) for name in FACTS} | {"cut": cut}


def event(chunk: Any, end: bytes = b"\n") -> bytes:
    return b"data: " + (chunk if isinstance(chunk, bytes) else json.dumps(chunk).encode()) + end + end


def delta(**fields: Any) -> dict[str, Any]:
    return {"id": "c1", "object": "chat.completion.chunk", "model": "m-1", "choices": [{"index": 0, "delta": fields}]}


ROLE = event(delta(role="assistant", content=""))
HELLO = event(delta(content="Hello"))
FINISH = event({"model": "m-2", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": None})
USAGE = event({"id": "c1", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}})
DONE = event(b"[DONE]")
ERROR = event({"error": {"message": "overloaded", "code": 529}})


def test_a_whole_stream_however_it_is_cut(cuttings: Cuttings) -> None:
    """Events leave byte for byte; the usage chunk is read and withheld; `[DONE]` is told and not relayed."""
    for pieces in cuttings(b": hi\n\n" + ROLE + HELLO + FINISH + USAGE + DONE):
        out, facts = relay(pieces)
        assert out == b": hi\n\n" + ROLE + HELLO + FINISH
        assert facts == {
            "content_seen": True,
            "content_bytes": 5,
            "finish_reason": "stop",
            "model": "m-1",
            "usage": b'{"prompt_tokens": 3, "completion_tokens": 1}',
            "error": None,
            "done": True,
            "events": 5,
            "malformed": 0,
            "cut": False,
        }


def test_usage_is_relayed_to_a_caller_who_asked_for_it() -> None:
    out, facts = relay([HELLO + USAGE + DONE], hide_usage=False)
    assert out == HELLO + USAGE
    assert facts["usage"] == b'{"prompt_tokens": 3, "completion_tokens": 1}'


def test_usage_beside_a_choice_is_read_and_the_event_relayed() -> None:
    both = event({"choices": [{"delta": {"content": "x"}, "finish_reason": "stop"}], "usage": {"a": 1}})
    assert relay([both + USAGE])[1]["usage"] == b'{"prompt_tokens": 3, "completion_tokens": 1}'
    out, facts = relay([both])
    assert (out, facts["usage"], facts["finish_reason"]) == (both, b'{"a": 1}', "stop")


@pytest.mark.parametrize("choices", [{}, {"choices": None}, {"choices": []}])
def test_a_usage_chunk_without_choices_is_hidden_too(choices: dict[str, Any]) -> None:
    assert relay([event({"usage": {"a": 1}, **choices})])[0] == b""


@pytest.mark.parametrize("usage", [None, 0, "none", [], False])
def test_usage_that_is_no_object_is_no_usage(usage: Any) -> None:
    out, facts = relay([event({"choices": [], "usage": usage})])
    assert out != b""
    assert facts["usage"] is None


def test_usage_is_kept_as_it_was_said() -> None:
    """Absurd figures are for the settlement to judge, so they arrive untouched."""
    raw = b'{"prompt_tokens":-1, "completion_tokens":1e308,"x":' + b"9" * 80 + b"}"
    assert relay([event(b'{"choices":[],"usage": ' + raw + b"}")])[1]["usage"] == raw


def test_complete_events_leave_at_once_and_halves_wait() -> None:
    scanner = ChatStreamScanner(True)
    assert scanner.feed(HELLO) == HELLO
    assert scanner.feed(HELLO[:20]) == b""
    assert scanner.feed(HELLO[20:] + ROLE + HELLO[:-1]) == HELLO + ROLE
    assert scanner.content_bytes == 10
    assert scanner.feed(b"\n") == HELLO
    assert scanner.feed(b": ping\n") == b": ping\n"
    crlf = HELLO.replace(b"\n", b"\r\n")
    assert scanner.feed(crlf[:-1]) == crlf[:-1]
    assert scanner.feed(b"\n") == b"\n"
    assert scanner.end() is False


def test_the_line_end_of_a_withheld_event_is_withheld_with_it(cuttings: Cuttings) -> None:
    crlf = USAGE.replace(b"\n", b"\r\n")
    for pieces in cuttings(HELLO + crlf + HELLO):
        assert relay(pieces)[0] == HELLO + HELLO


@pytest.mark.parametrize(
    ("said", "size"),
    [
        ({"content": "é"}, 2),
        ({"content": [{"type": "text", "text": "hi"}]}, 6),
        ({"reasoning_content": "hm"}, 2),
        ({"reasoning": "hm"}, 2),
        ({"refusal": "no"}, 2),
        ({"tool_calls": [{"index": 0, "function": {"arguments": '{"'}}]}, 2),
        ({"function_call": {"name": "f"}}, 1),
        ({"some_new_field": "x"}, 1),
        ({"role": "assistant"}, 0),
        ({"role": "assistant", "content": None, "refusal": None}, 0),
        ({"content": "", "tool_calls": [], "reasoning": "", "n": 5}, 0),
        ({}, 0),
    ],
)
def test_whatever_a_delta_says_but_its_role_is_content(said: dict[str, Any], size: int) -> None:
    facts = relay([event(delta(**said))])[1]
    assert (facts["content_seen"], facts["content_bytes"]) == (size > 0, size)


def test_text_of_the_older_completions_is_content() -> None:
    facts = relay([event({"choices": [{"text": "abc", "index": 0, "finish_reason": "length"}]})])[1]
    assert (facts["content_bytes"], facts["finish_reason"]) == (3, "length")


@pytest.mark.parametrize(
    "chunk",
    [
        b'{"choices":[{"delta":{"content":"hi"}}]}',
        b'{ "choices" : [ { "delta" : { "content"\t:\t"hi" } } ] }',
        b'{"ch\\u006fices":[{"d\\u0065lta":{"\\u0063ontent":"\\u0068\\u0069"}}]}',
        b'{"choices":[null,{"logprobs":{"content":[{"logprob":-Infinity}]},"delta":{"content":"hi","x":NaN}}]}',
        b'{"choices":[{"delta":{"content":"\xff\xfe"}}]}',
        b'{"choices":[{"delta":{"content":"\x01\t"}}]}',
        b'{"choices":\ndata: [{"delta":{"content":"hi"}}]}',
        b'{"choices":[{"message":{"role":"assistant","content":"hi"}}]}',
    ],
)
def test_content_is_found_in_any_spelling(chunk: bytes) -> None:
    out, facts = relay([event(chunk)])
    assert out == event(chunk)
    assert (facts["content_seen"], facts["content_bytes"], facts["malformed"]) == (True, 2, 0)


@pytest.mark.parametrize(
    "chunk",
    [
        delta(content='{"error":{"message":"x"},"usage":{"a":1}}')["choices"][0]["delta"] | {"content": ""},
        {"content": "", "choices": [{"delta": {"role": "error"}}]},
        {"id": "content", "choices": [{"index": 0, "delta": {"role": "assistant"}, "logprobs": {"content": ["x"]}}]},
        {"delta": {"content": "x"}},
    ],
)
def test_what_only_looks_like_content_is_not(chunk: dict[str, Any]) -> None:
    assert relay([event(chunk)])[1]["content_seen"] is False


def test_a_model_that_talks_of_errors_and_usage_is_only_talking() -> None:
    """Words inside a string, escaped quotes and all, are never taken for fields of the event."""
    said = '{"error":{"message":"x"}} "usage":{"a":1} [DONE]\n\ndata: [DONE]\n\n'
    stream = event(delta(content=said))
    out, facts = relay([stream])
    assert out == stream
    assert (facts["error"], facts["usage"], facts["done"]) == (None, None, False)
    assert facts["content_bytes"] == len(said)


@pytest.mark.parametrize(
    "failure",
    [
        ERROR,
        event({"error": "overloaded"}),
        event({"id": "c1", "choices": [{"delta": {"content": ""}, "finish_reason": "error"}], "error": {"code": 502}}),
        event({"object": "error", "message": "x"}),
        b"event: error\ndata: plain words\n\n",
        b'event: error\r\ndata: {"type":"error"}\r\n\r\n',
        event(b'{"\\u0065rror" : {}}'),
        event(b'{"error":{"message":"cut'),
    ],
)
def test_an_error_event_is_told_and_nothing_passes_after_it(failure: bytes, cuttings: Cuttings) -> None:
    """P17: it can be judged before anything of it is relayed; a `[DONE]` behind it ends nothing cleanly."""
    data = b"\n".join(line[6:] for line in failure.splitlines() if line.startswith(b"data: "))
    for pieces in cuttings(HELLO + failure + HELLO + DONE):
        out, facts = relay(pieces)
        assert (out, facts["error"], facts["done"], facts["cut"]) == (HELLO, data, False, False)


@pytest.mark.parametrize("nothing", [None, False, ""])
def test_an_error_field_that_says_nothing_is_none(nothing: Any) -> None:
    stream = event({"error": nothing, "choices": []})
    assert relay([stream])[0] == stream


@pytest.mark.parametrize("data", [b"hello", b"[1]", b'{"choices":[', b'{"a":1}x', b"{}{}", b'{"a":' * 80 + b"1", b""])
def test_what_cannot_be_read_is_relayed_counted_and_paid_for(data: bytes) -> None:
    out, facts = relay([event(data) + HELLO])
    assert out == event(data) + HELLO
    assert (facts["malformed"], facts["content_bytes"]) == (1, len(data) + 5)


def test_blocks_that_are_no_events_pass(cuttings: Cuttings) -> None:
    stream = b"\xef\xbb\xbf: c\r\n\n\r\rid: 5\n\nretry: 1\nevent: x\n\n:\r" + HELLO
    for pieces in cuttings(stream):
        out, facts = relay(pieces)
        assert (out, facts["events"]) == (stream, 1)


def test_nothing_passes_after_the_end(cuttings: Cuttings) -> None:
    for pieces in cuttings(HELLO + DONE + HELLO + b": late\n\n"):
        out, facts = relay(pieces)
        assert (out, facts["events"], facts["done"]) == (HELLO, 2, True)


@pytest.mark.parametrize("tail", [b"data: [DONE]", b"data: [DONE]\n", b"data:[DONE]\r\n"])
def test_an_end_mark_that_lacks_its_blank_line_is_an_end(tail: bytes, cuttings: Cuttings) -> None:
    for pieces in cuttings(HELLO + tail):
        out, facts = relay(pieces)
        assert (out, facts["done"], facts["cut"]) == (HELLO, True, False)


def test_a_stream_cut_anywhere_never_looks_done() -> None:
    """P17: short of the whole end mark there is no `done`, and a cut event is never relayed half."""
    stream = ROLE + HELLO + FINISH + USAGE + DONE
    marks = [len(ROLE), len(ROLE + HELLO), len(ROLE + HELLO + FINISH)]
    for at in range(len(stream) - 2):
        out, facts = relay([stream[:at]])
        assert facts["done"] is False
        assert len(out) == max((mark for mark in marks if mark <= at), default=0)
        assert facts["cut"] is (at not in (0, *marks, len(stream) - len(DONE)))


def test_utf8_cut_at_every_byte_is_relayed_byte_for_byte() -> None:
    stream = event('{"choices":[{"delta":{"content":"é中😀"}}]}'.encode())
    for at in range(len(stream)):
        out, facts = relay([stream[:at], stream[at:]])
        assert (out, facts["content_bytes"]) == (stream, 9)


def test_what_is_too_large_is_refused_after_what_came_before_it(cuttings: Cuttings) -> None:
    for pieces in cuttings(HELLO + event(delta(content="x" * 400)) + HELLO):
        scanner = ChatStreamScanner(True, max_event_bytes=300)
        out = []
        for piece in [*pieces, b""]:
            try:
                out.append(scanner.feed(piece))
            except ScanError as refused:
                out.append(refused.why.encode())
                break
        assert b"".join(out) == HELLO + b"event_too_large"


def random_event(rng: random.Random) -> tuple[bytes, str]:
    """An event and what becomes of it: kept, hidden, or the end of all."""
    end = rng.choice([b"\n", b"\r", b"\r\n"])
    text = "".join(rng.choice('ab"\\\n é中😀') for _ in range(rng.randrange(12)))
    chunk = delta(content=text)
    fate = "kept"
    kind = rng.randrange(12)
    if kind == 0:
        return b": ping" + end + end, fate
    if kind == 1:
        return b"id: 1" + end + b"event: chunk" + end + event(b"words", end), fate
    if kind == 2:
        chunk, fate = {"usage": {"n": rng.randrange(99)}, "choices": []}, "hidden"
    elif kind == 3 and rng.random() < 0.2:
        return event(b"[DONE]", end), "end"
    elif kind == 4 and rng.random() < 0.2:
        chunk, fate = {"error": {"message": text}}, "end"
    elif kind == 5:
        chunk["choices"][0]["finish_reason"] = rng.choice(["stop", "length", None])
    elif kind == 6:
        chunk["usage"] = rng.choice([None, {"n": 1}])
    spelled = json.dumps(
        chunk, ensure_ascii=rng.random() < 0.5, separators=rng.choice([None, (",", ":"), (" , ", " : ")])
    )
    return event(spelled.encode(), end), fate


def test_random_streams_are_relayed_and_read_the_same_however_they_are_cut(cuttings: Cuttings) -> None:
    rng = random.Random(16)
    for _ in range(20_000 if TORTURE else 300):
        events = [random_event(rng) for _ in range(rng.randrange(1, 8))]
        fates = [fate for _, fate in events]
        live = events[: fates.index("end")] if "end" in fates else events
        expected = b"".join(raw for raw, fate in live if fate == "kept")
        first = None
        for pieces in cuttings(b"".join(raw for raw, _ in events)):
            out, facts = relay(pieces)
            assert out == expected
            first = first or facts
            assert facts == first
