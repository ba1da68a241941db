"""The dialect that is our own shape: bodies pass, and only what clients trip over is mended. And the placeholder."""

from __future__ import annotations

import orjson
import pytest

from fastroute.domain import Usage
from fastroute.upstreams.dialect import BrokenAnswer
from fastroute.upstreams.dummy import Dummy
from fastroute.upstreams.openai import OpenAI

OPENAI = OpenAI()
COUNTS = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def chunk(delta=None, finish=None, **fields):
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices, **fields}


def run(stream, *chunks):
    return [out for each in chunks for out in stream.feed("", orjson.dumps(each))]


def test_a_request_passes_with_only_the_model_changed():
    """Unknown fields are kept, and max_tokens stays the word the caller used."""
    chat = {
        "model": "alias",
        "messages": [],
        "max_completion_tokens": 5,
        "never_heard_of": {"a": None},
        "stream": False,
    }
    assert OPENAI.request(chat, "gpt", stream=False, max_output=1) == {**chat, "model": "gpt"}


def test_a_stream_is_always_asked_for_usage_and_a_whole_answer_never():
    chat = {"messages": [], "stream": True, "stream_options": {"include_usage": False, "x": 1}}
    streamed = OPENAI.request(chat, "gpt", stream=True, max_output=None)
    assert streamed["stream_options"] == {"include_usage": True, "x": 1}
    whole = OPENAI.request(chat, "gpt", stream=False, max_output=None)
    assert whole == {"messages": [], "model": "gpt", "stream": False}


def test_an_answer_passes_as_it_came_and_what_is_missing_is_filled(identity):
    choice = {"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}
    good = {"id": "own", "object": "chat.completion", "created": 5, "model": "gpt-x", "choices": [choice],
            "usage": COUNTS, "system_fingerprint": "fp"}  # fmt: skip
    assert OPENAI.answer(good, **identity) == good
    bare = OPENAI.answer({"choices": [{"message": {"content": "x"}, "finish_reason": "eos"}]}, **identity)
    assert (bare["id"], bare["created"], bare["model"]) == (identity["id"], identity["created"], identity["model"])
    assert bare["object"] == "chat.completion"
    assert bare["usage"]["total_tokens"] == 0
    assert bare["choices"][0]["index"] == 0
    assert (bare["choices"][0]["finish_reason"], bare["choices"][0]["native_finish_reason"]) == ("stop", "eos")


@pytest.mark.parametrize(
    ("native", "finish"),
    [("stop", "stop"), ("length", "length"), ("tool_calls", "tool_calls"), ("content_filter", "content_filter"),
     ("function_call", "function_call"), ("model_length", "length"), ("tool_use", "tool_calls"), ("odd", "stop"),
     (7, "stop"), (["stop"], "stop")],
)  # fmt: skip
def test_finish_reasons_are_known_ones(native, finish, identity):
    body = {"choices": [{"message": {}, "finish_reason": native}]}
    assert OPENAI.answer(body, **identity)["choices"][0]["finish_reason"] == finish
    stream = OPENAI.stream(**identity, include_usage=False)
    (out,) = run(stream, chunk({}, native))
    assert orjson.loads(out[6:])["choices"][0]["finish_reason"] == finish == stream.finish_reason


@pytest.mark.parametrize("body", [None, [], {}, {"choices": None}, {"choices": [1]}, {"choices": [{}]}, {"error": {}}])
def test_a_body_that_is_no_answer_is_not_made_into_one(body, identity):
    with pytest.raises(BrokenAnswer):
        OPENAI.answer(body, **identity)


def test_good_chunks_pass_byte_for_byte(identity):
    stream = OPENAI.stream(**identity, include_usage=False)
    head = b'{ "id":"c","object":"chat.completion.chunk","created":1,"model":"m","x":1.0,'
    raw = head + b'"choices":[{"index":0,"delta":{"content":"\xc3\xa9"}}]}'
    assert stream.feed("", raw) == [b"data: " + raw + b"\n\n"]
    assert (stream.content_seen, stream.content_bytes) == (True, 2)


def test_the_usage_chunk_is_hidden_unless_asked_for(identity):
    told = chunk(usage=COUNTS)
    for asked, seen in ((True, 1), (False, 0)):
        stream = OPENAI.stream(**identity, include_usage=asked)
        run(stream, chunk({"content": "x"}), chunk({}, "stop"))
        assert len(run(stream, told)) == seen
        assert stream.usage == Usage(3, 2)


def test_usage_in_the_middle_of_a_stream_is_not_yet_final(identity):
    stream = OPENAI.stream(**identity, include_usage=False)
    run(stream, chunk({"content": "x"}, usage=COUNTS))
    assert (stream.usage, stream.usage_so_far) == (None, Usage(3, 2))
    run(stream, chunk({}, "stop", usage={**COUNTS, "prompt_tokens": -1}))
    assert stream.usage is None, "an absurd count takes back an earlier one"


def test_done_needs_the_terminal_event_and_a_finish_reason(identity):
    cut = OPENAI.stream(**identity, include_usage=False)
    run(cut, chunk({"content": "x"}))
    assert cut.feed("", b"[DONE]") == []
    assert not cut.done
    good = OPENAI.stream(**identity, include_usage=False)
    run(good, chunk({"content": "x"}), chunk({}, "stop"))
    assert (good.done, good.whole) == (False, True)
    good.feed("", b"[DONE]")
    assert good.done


def test_a_chunk_without_what_clients_need_is_mended(identity):
    stream = OPENAI.stream(**identity, include_usage=True)
    (out,) = run(stream, {"choices": [{"delta": {"content": "x"}}]})
    told = orjson.loads(out[6:])
    assert (told["id"], told["object"]) == (identity["id"], "chat.completion.chunk")
    assert told["choices"][0]["index"] == 0
    (out,) = run(stream, {**chunk(), "choices": None, "usage": COUNTS})
    assert orjson.loads(out[6:])["choices"] == []


def calls_of(chunks):
    return [call for out in chunks for call in orjson.loads(out[6:])["choices"][0]["delta"]["tool_calls"]]


def test_tool_deltas_get_their_index_and_say_their_name_once(identity):
    """Clients glue repeated names and need an index; some servers repeat the first and leave out the second."""

    def delta(arguments, **fields):
        return chunk({"tool_calls": [{**fields, "function": {"name": "f", "arguments": arguments}}]})

    stream = OPENAI.stream(**identity, include_usage=False)
    out = calls_of(run(stream, delta("{", id="a", type="function"), delta("}", id="a"), delta("{}", id="b")))
    assert out == [
        {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "{"}},
        {"index": 0, "function": {"arguments": "}"}},
        {"index": 1, "id": "b", "function": {"name": "f", "arguments": "{}"}},
    ]
    lying = OPENAI.stream(**identity, include_usage=False)
    out = calls_of(run(lying, delta("{}", id="a", index=0), delta("{}", id="b", index=0)))
    assert [(call["index"], call["id"]) for call in out] == [(0, "a"), (1, "b")]


def test_an_error_in_the_stream_is_kept_for_the_relay(identity):
    stream = OPENAI.stream(**identity, include_usage=False)
    assert run(stream, {"error": {"message": "boom sk-12345678", "type": "server_error", "code": None}}) == []
    assert stream.error[:3] == ("server_error", "server_error", "boom sk-***")
    broken = OPENAI.stream(**identity, include_usage=False)
    assert broken.feed("", b'{"choices":') == []
    assert broken.error.code == "malformed_event"


def test_bytes_that_are_not_utf_8_pass_and_are_still_understood(identity):
    stream = OPENAI.stream(**identity, include_usage=False)
    raw = orjson.dumps(chunk({"content": "Q"})).replace(b"Q", b"\xff")
    assert stream.feed("", raw) == [b"data: " + raw + b"\n\n"]
    assert stream.content_seen


def test_i_a1_the_placeholder_says_hello_world(identity, rebuild):
    """Id, text, finish and a usage of nothing, whole and in three chunks."""
    dummy = Dummy()
    body = dummy.body("dummy", created=9, hex="ab12")
    assert dummy.answer(body, **identity) == body
    assert (body["id"], body["object"], body["created"]) == ("cmpl-ab12", "chat.completion", 9)
    assert body["choices"][0]["message"]["content"] == "Hello world"
    assert body["choices"][0]["finish_reason"] == "stop"
    assert {body["usage"][f"{kind}_tokens"] for kind in ("prompt", "completion", "total")} == {0}
    stream = dummy.stream(**identity, include_usage=False)
    events = dummy.events("dummy", created=9, hex="ab12")
    assert events[-1] == ("", b"[DONE]")
    chunks = [out for event in events for out in stream.feed(*event)]
    assert len(chunks) == 3
    assert rebuild(chunks)["choices"][0]["message"]["content"] == "Hello world"
    assert stream.done
    assert stream.usage == Usage()
