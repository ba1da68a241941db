"""The placeholder model as an upstream: chat and nothing else, at once and for nothing."""

from __future__ import annotations

import re

import pytest

from fastroute.clock import ManualClock
from fastroute.upstreams.inprocess import DummyUpstream

ID = re.compile(r"cmpl-[0-9a-f]{32}")


@pytest.fixture
def dummy() -> DummyUpstream:
    return DummyUpstream(clock=ManualClock())


@pytest.mark.parametrize("model", ["dummy", "dummy-model"])
def test_i_a1_the_placeholder_says_hello_world(ask, loop, dummy, model):
    told = ask(dummy, "chat", {"model": model, "messages": [{"role": "user", "content": "hi"}]})
    answer = told.json
    assert told.status == 200
    assert ID.fullmatch(answer["id"])
    assert (answer["object"], answer["model"], answer["created"]) == ("chat.completion", model, 1_767_225_600)
    (choice,) = answer["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Hello world", "stop")
    assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (0, 0)
    assert loop.timers == []


def test_i_a1_a_stream_says_the_same_and_ends_with_usage_and_done(ask, loop, dummy):
    told = ask(dummy, "chat", {"model": "dummy"}, stream=True)
    chunks = told.objects
    assert {chunk["id"] for chunk in chunks} == {chunks[0]["id"]}
    assert ID.fullmatch(chunks[0]["id"])
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert "".join(delta.get("content", "") for delta in deltas) == "Hello world"
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] == 0
    assert loop.timers == []


@pytest.mark.parametrize("stream", [False, True])
def test_the_content_type_tells_a_stream_from_a_whole_answer(run, patient, dummy, stream):
    async def begun():
        return dummy.begin("chat", "dummy", stream, {}, b"{}", patient)

    exchange = run(begun())
    assert exchange.answer()
    assert exchange.header(b"content-type").startswith(b"text/event-stream" if stream else b"application/json")


@pytest.mark.parametrize("operation", ["completions", "embeddings", "responses", "models"])
def test_everything_but_chat_is_not_found_in_openais_envelope(ask, dummy, operation):
    told = ask(dummy, operation, {"model": "dummy"})
    assert told.status == 404
    assert told.json.keys() == {"error"}
    assert told.json["error"].keys() == {"message", "type", "param", "code"}
    assert operation in told.json["error"]["message"]


def test_no_two_answers_share_an_id_even_from_two_workers(ask, dummy):
    workers = (dummy, DummyUpstream(clock=ManualClock()))
    ids = [ask(worker, "chat", {"model": "dummy"}).json["id"] for worker in workers for _ in range(50)]
    assert len(set(ids)) == 100


def test_the_time_of_an_answer_moves_with_the_clock(ask):
    clock = ManualClock()
    dummy = DummyUpstream(clock=clock)
    before = ask(dummy, "chat", {"model": "dummy"}).json["created"]
    clock.advance(1500)
    assert ask(dummy, "chat", {"model": "dummy"}).json["created"] == before + 1


def test_invented_names_are_answered_and_forgotten(ask, dummy):
    """Anybody may write `dummy-1`, `dummy-2` and so on for ever; what is kept for speed stays small."""
    names = [f"dummy-{number}" for number in range(200)]
    assert [ask(dummy, "chat", {"model": name}).json["model"] for name in names] == names
    assert len(dummy._written) <= 64
