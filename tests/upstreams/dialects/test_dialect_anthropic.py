"""Chat to the Messages API and back."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastroute.domain import Usage
from fastroute.upstreams.anthropic import JSON_ONLY, Anthropic, claude_version
from fastroute.upstreams.dialect import BrokenAnswer, DialectError

CLAUDE = Anthropic()
SONNET = "claude-sonnet-4-5"
USER = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "weather", "description": "d", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}, "strict": True}}  # fmt: skip
CALL = {"id": "toolu_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Paris"}'}}
PNG = "data:image/png;base64,aGk="


def say(chat, model=SONNET, *, stream=False, max_output=None):
    return CLAUDE.request({"messages": [USER], **chat}, model, stream=stream, max_output=max_output)


def answered(content, **fields):
    return {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": content,
            "stop_reason": "end_turn", "usage": {"input_tokens": 10, "output_tokens": 8}, **fields}  # fmt: skip


def test_r_a11_request_system_user_and_stop_become_messages_with_a_cap_of_4096():
    chat = {"messages": [{"role": "system", "content": "be brief"}, USER], "stop": "END"}
    assert CLAUDE.request(chat, SONNET, stream=False, max_output=None) == {
        "model": SONNET,
        "max_tokens": 4096,
        "system": "be brief",
        "messages": [USER],
        "stop_sequences": ["END"],
    }


def test_r_a11_answer_texts_are_joined_and_max_tokens_is_length(identity):
    told = answered([{"type": "text", "text": "one "}, {"type": "text", "text": "two"}], stop_reason="max_tokens")
    whole = CLAUDE.answer(told, **identity)
    assert whole["choices"][0]["message"] == {"role": "assistant", "content": "one two", "refusal": None}
    assert whole["choices"][0]["finish_reason"] == "length"
    assert whole["usage"]["total_tokens"] == 18
    assert (whole["id"], whole["object"], whole["created"], whole["model"]) == (
        identity["id"], "chat.completion", identity["created"], identity["model"])  # fmt: skip


def test_r_a11_a_tool_call_comes_back_as_it_went(identity):
    """Id, name and arguments survive answer, history and result."""
    told = answered(
        [{"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Paris"}}], stop_reason="tool_use"
    )
    choice = CLAUDE.answer(told, **identity)["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert choice["message"]["tool_calls"] == [CALL]
    said = say({"messages": [USER, choice["message"], {"role": "tool", "tool_call_id": "toolu_1", "content": "22"}]})
    assert said["messages"][1:] == [
        {"role": "assistant", "content": told["content"]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "22"}]},
    ]


def test_i_a13_the_stub_sees_system_and_max_tokens_and_no_nulls():
    said = say({"messages": [{"role": "developer", "content": "s"}, USER], "temperature": None, "tools": None, "n": 1})
    assert said["system"] == "s"
    assert said["max_tokens"] == 4096
    assert b"null" not in orjson.dumps(said)


@pytest.mark.parametrize(
    ("chat", "max_output", "cap"),
    [
        ({}, None, 4096), ({}, 1000, 1000), ({}, 9000, 4096), ({"max_tokens": 50}, None, 50),
        ({"max_tokens": 50, "max_completion_tokens": 60}, None, 60), ({"max_tokens": 9999}, 8192, 8192),
    ],
)  # fmt: skip
def test_the_cap_is_the_caller_s_within_the_model_s(chat, max_output, cap):
    assert say(chat, max_output=max_output)["max_tokens"] == cap


@pytest.mark.parametrize("bad", [0, -1, "5", True, 1.5])
def test_a_cap_that_is_no_count_is_refused(bad):
    with pytest.raises(DialectError, match="max_tokens"):
        say({"max_tokens": bad})


def test_several_system_messages_join_and_keep_cache_marks_as_blocks():
    two = [{"role": "system", "content": "a"}, USER, {"role": "system", "content": [{"type": "text", "text": "b"}]}]
    assert say({"messages": two})["system"] == "a\nb"
    mark = {"type": "ephemeral"}
    two[2]["content"][0]["cache_control"] = mark
    assert say({"messages": two})["system"][1] == {"type": "text", "text": "b", "cache_control": mark}


def test_same_roles_in_a_row_become_one_turn_and_results_one_user_turn():
    second = {**CALL, "id": "toolu_2"}
    turns = say({"messages": [
        {"role": "user", "content": "a"}, {"role": "user", "content": "b"},
        {"role": "assistant", "content": "", "tool_calls": [CALL, second]},
        {"role": "tool", "tool_call_id": "toolu_1", "content": "1"},
        {"role": "tool", "tool_call_id": "toolu_2", "content": [{"type": "text", "text": "2"},
                                                               {"type": "image_url", "image_url": {"url": PNG}}]},
        {"role": "user", "content": "go on"},
    ]})["messages"]  # fmt: skip
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
    assert [block["type"] for block in turns[1]["content"]] == ["tool_use", "tool_use"]
    assert [block["type"] for block in turns[2]["content"]] == ["tool_result", "tool_result", "text"]
    assert [block["type"] for block in turns[2]["content"][1]["content"]] == ["text", "image"]


def test_empty_content_is_left_out_and_nothing_at_all_is_refused():
    """The API refuses blank text blocks and empty turns; to chat they are harmless."""
    said = say({"messages": [USER, {"role": "assistant", "content": ""}, {"role": "user", "content": "  "}]})
    assert said["messages"] == [USER]
    with pytest.raises(DialectError, match="nothing to answer"):
        say({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": []}]})


@pytest.mark.parametrize(
    ("part", "block"),
    [
        ({"type": "image_url", "image_url": {"url": PNG, "detail": "low"}},
         {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}),
        ({"type": "image_url", "image_url": {"url": "https://x/y.jpg"}},
         {"type": "image", "source": {"type": "url", "url": "https://x/y.jpg"}}),
        ({"type": "file", "file": {"filename": "f.pdf", "file_data": "data:application/pdf;base64,aGk="}},
         {"type": "document", "title": "f.pdf",
          "source": {"type": "base64", "media_type": "application/pdf", "data": "aGk="}}),
        ({"type": "file", "file": {"file_data": "data:text/plain;base64,aGk="}},
         {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "hi"}}),
    ],
)  # fmt: skip
def test_pictures_and_documents_become_blocks(part, block):
    assert say({"messages": [{"role": "user", "content": [part]}]})["messages"][0]["content"] == [block]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "data:image/tiff;base64,aGk="}},
        {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
        {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}},
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "file", "file": {"file_data": "data:text/plain;base64,!"}},
        {"type": "video"}, {}, {"type": "text"},
    ],
)  # fmt: skip
def test_content_it_has_no_block_for_is_refused_by_its_place(part):
    with pytest.raises(DialectError) as refused:
        say({"messages": [USER, {"role": "user", "content": [part]}]})
    assert refused.value.param.startswith("messages[1].content[0]")


@pytest.mark.parametrize(
    ("asked", "choice"),
    [
        ({}, None), ({"tool_choice": "auto"}, {"type": "auto"}), ({"tool_choice": "none"}, {"type": "none"}),
        ({"tool_choice": "required"}, {"type": "any"}),
        ({"tool_choice": {"type": "function", "function": {"name": "weather"}}}, {"type": "tool", "name": "weather"}),
        ({"parallel_tool_calls": False}, {"type": "auto", "disable_parallel_tool_use": True}),
        ({"parallel_tool_calls": False, "tool_choice": "required"}, {"type": "any", "disable_parallel_tool_use": True}),
        ({"parallel_tool_calls": True}, None),
    ],
)  # fmt: skip
def test_tools_and_the_choice_among_them(asked, choice):
    said = say({"tools": [TOOL], **asked})
    function = TOOL["function"]
    assert said["tools"] == [
        {"name": "weather", "description": "d", "input_schema": function["parameters"], "strict": True}
    ]
    assert said.get("tool_choice") == choice


def test_foreign_call_ids_become_ones_the_api_takes_on_both_sides():
    call = {**CALL, "id": "functions.weather:0"}
    turns = say({"messages": [USER, {"role": "assistant", "tool_calls": [call]},
                              {"role": "tool", "tool_call_id": call["id"], "content": "1"}]})["messages"]  # fmt: skip
    assert turns[1]["content"][0]["id"] == turns[2]["content"][0]["tool_use_id"] == "functions_weather_0"


@pytest.mark.parametrize("arguments", ["{", "[1]", "null", "1"])
def test_arguments_that_are_no_object_are_refused(arguments):
    call = {**CALL, "function": {"name": "f", "arguments": arguments}}
    with pytest.raises(DialectError, match="arguments"):
        say({"messages": [USER, {"role": "assistant", "tool_calls": [call]}]})


def test_settings_keep_their_meaning_within_the_api_s_range():
    said = say({"temperature": 1.7, "top_p": 0.9, "top_k": 5, "stop": ["a", "b"]}, stream=True)
    assert said["temperature"] == 1
    assert (said["top_p"], said["top_k"], said["stop_sequences"], said["stream"]) == (0.9, 5, ["a", "b"], True)
    for param, value in {"n": 2, "presence_penalty": 0.5, "stop": "\n", "temperature": "hot"}.items():
        with pytest.raises(DialectError) as refused:
            say({param: value})
        assert refused.value.param == param


def test_a_json_schema_is_sent_closed_and_json_object_is_asked_for_in_words():
    inner = {"type": "object", "properties": {"a": {"type": "object", "properties": {}}}}
    said = say({"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": inner}}})
    leaf = {"type": "object", "properties": {}, "additionalProperties": False}
    closed = {"type": "object", "properties": {"a": leaf}, "additionalProperties": False}
    assert said["output_config"] == {"format": {"type": "json_schema", "schema": closed}}
    assert say({"response_format": {"type": "json_object"}})["system"] == JSON_ONLY


@pytest.mark.parametrize(
    ("model", "version"),
    [
        ("claude-3", (3, 0)), ("claude-3-7-sonnet-20250219", (3, 7)), ("claude-sonnet-4-20250514", (4, 0)),
        ("claude-opus-4-6", (4, 6)), ("anthropic/claude-sonnet-4.5", (4, 5)), ("claude-haiku-4-5-20251001", (4, 5)),
        ("claude-sonnet-5", (5, 0)), ("claude-mythos-preview", None), ("other", None),
    ],
)  # fmt: skip
def test_a_name_tells_its_generation(model, version):
    assert claude_version(model) == version


@pytest.mark.parametrize(
    ("model", "chat", "thinking", "effort"),
    [
        ("claude-3-5-haiku", {"reasoning_effort": "high"}, None, None),
        (SONNET, {"reasoning_effort": "none"}, None, None),
        (SONNET, {"reasoning_effort": "high"}, {"type": "enabled", "budget_tokens": 3276}, None),
        (SONNET, {"reasoning_effort": "low"}, {"type": "enabled", "budget_tokens": 1024}, None),
        (SONNET, {"reasoning_effort": "max", "max_tokens": 64000}, {"type": "enabled", "budget_tokens": 32000}, None),
        (SONNET, {"reasoning_effort": "low", "max_tokens": 1024}, None, None),
        (SONNET, {"reasoning_effort": "low", "tools": [TOOL], "tool_choice": "required"}, None, None),
        ("claude-opus-4-6", {"reasoning_effort": "xhigh"}, {"type": "adaptive"}, "high"),
        ("claude-opus-4-7", {"reasoning_effort": "xhigh"}, {"type": "adaptive"}, "xhigh"),
        ("claude-sonnet-5", {"reasoning_effort": "minimal"}, {"type": "adaptive"}, "low"),
        ("claude-sonnet-5", {"reasoning_effort": "none"}, None, "low"),
        ("claude-sonnet-5", {"thinking": {"type": "disabled"}, "reasoning_effort": "low"}, {"type": "disabled"}, "low"),
    ],
)  # fmt: skip
def test_effort_is_said_in_the_words_of_the_model_s_generation(model, chat, thinking, effort):
    """A budget is always at least 1024 and less than max_tokens, which goes on holding the whole output."""
    said = say(chat, model)
    assert said.get("thinking") == thinking
    assert said.get("output_config", {}).get("effort") == effort


def test_thinking_does_not_begin_in_the_middle_of_an_unsigned_tool_loop():
    loop = [USER, {"role": "assistant", "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "toolu_1", "content": "1"}]  # fmt: skip
    assert "thinking" not in say({"messages": loop, "reasoning_effort": "high"})
    block = {"type": "thinking", "thinking": "t", "signature": "s"}
    loop[1]["thinking_blocks"] = [block]
    said = say({"messages": loop, "reasoning_effort": "high"})
    assert said["thinking"]["type"] == "enabled"
    assert said["messages"][1]["content"][0] == block


@pytest.mark.parametrize("clash", [{"temperature": 0.2}, {"top_p": 0.5}, {"top_k": 3}])
def test_sampling_beside_thinking_is_refused_by_name(clash):
    with pytest.raises(DialectError) as refused:
        say({"reasoning_effort": "high", **clash})
    assert refused.value.param == next(iter(clash))


FINISHES = [
    ("end_turn", "stop"), ("stop_sequence", "stop"), ("max_tokens", "length"), ("tool_use", "tool_calls"),
    ("refusal", "content_filter"), ("pause_turn", "length"), ("model_context_window_exceeded", "length"),
    ("never_heard_of", "stop"),
]  # fmt: skip


@pytest.mark.parametrize(("native", "finish"), FINISHES)
def test_every_stop_reason_is_a_known_one_with_the_original_beside_it(native, finish, identity):
    choice = CLAUDE.answer(answered([{"type": "text", "text": "x"}], stop_reason=native), **identity)["choices"][0]
    assert (choice["finish_reason"], choice["native_finish_reason"]) == (finish, native)
    stream = CLAUDE.stream(**identity, include_usage=False)
    stream.feed("", orjson.dumps({"type": "message_delta", "delta": {"stop_reason": native}, "usage": {}}))
    assert stream.finish_reason == finish


def test_cached_tokens_are_told_in_chat_s_words(identity):
    usage = {"input_tokens": 4, "output_tokens": 8, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 20}
    told = CLAUDE.answer(answered([], usage=usage), **identity)["usage"]
    assert (told["prompt_tokens"], told["completion_tokens"], told["total_tokens"]) == (124, 8, 132)
    assert told["prompt_tokens_details"] == {"cached_tokens": 100, "cache_write_tokens": 20}


@pytest.mark.parametrize("body", [None, [], {}, {"content": "x"}, {"type": "error", "content": []},
                                  {"content": [{"type": "tool_use", "name": "f"}]}])  # fmt: skip
def test_a_body_that_is_no_answer_is_not_made_into_one(body, identity):
    with pytest.raises(BrokenAnswer):
        CLAUDE.answer(body, **identity)


# --- streams -------------------------------------------------------------------------------------------------------


def events_of(body, cut=lambda text: [text]):
    """The events a provider would send for a whole answer, text and arguments cut as told."""
    usage = body["usage"]
    yield {"type": "message_start", "message": {**body, "content": [], "stop_reason": None,
                                                "usage": {**usage, "output_tokens": 1}}}  # fmt: skip
    yield {"type": "ping"}
    for index, block in enumerate(body["content"]):
        kind = block["type"]
        empty = {"text": {"text": ""}, "thinking": {"thinking": "", "signature": ""}, "tool_use": {"input": {}}}
        yield {"type": "content_block_start", "index": index, "content_block": {**block, **empty.get(kind, {})}}
        deltas = []
        if kind == "text":
            deltas = [{"type": "text_delta", "text": piece} for piece in cut(block["text"])]
        elif kind == "thinking":
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in cut(block["thinking"])]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        elif kind == "tool_use" and block["input"]:
            pieces = cut(orjson.dumps(block["input"]).decode())
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ["", *pieces]]
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    yield {"type": "message_delta", "delta": {"stop_reason": body["stop_reason"]},
           "usage": {"output_tokens": usage["output_tokens"]}}  # fmt: skip
    yield {"type": "message_stop"}


def run(stream, events):
    return [chunk for event in events for chunk in stream.feed(event["type"], orjson.dumps(event))]


text = st.text(max_size=12)
words = st.dictionaries(st.text(max_size=4), st.one_of(st.integers(-9, 9), text, st.none()), max_size=3)
blocks = st.one_of(
    st.builds(lambda t: {"type": "text", "text": t}, text),
    st.builds(lambda t: {"type": "thinking", "thinking": t, "signature": "sig"}, text),
    st.just({"type": "redacted_thinking", "data": "zz"}),
    st.builds(
        lambda n, i: {"type": "tool_use", "id": f"toolu_{n}", "name": "f", "input": i}, st.integers(0, 99), words
    ),
)


@settings(max_examples=150, deadline=None)
@given(content=st.lists(blocks, max_size=5), size=st.integers(1, 5), native=st.sampled_from([n for n, _ in FINISHES]))
def test_a_stream_put_together_again_is_the_whole_answer(content, size, native, rebuild, outline):
    """Whatever the pieces: text, thoughts with signatures, parallel calls, finish and usage are those of the whole."""
    identity = {"model": "m", "created": 1, "id": "chatcmpl-1"}
    body = answered(content, stop_reason=native)
    stream = CLAUDE.stream(**identity, include_usage=True)
    chunks = run(stream, events_of(body, lambda t: [t[at : at + size] for at in range(0, len(t), size)]))
    rebuilt = rebuild(chunks)
    whole = CLAUDE.answer(body, **identity)
    assert outline(rebuilt) == outline(whole)
    assert rebuilt["usage"] == whole["usage"]
    assert stream.done
    assert stream.error is None
    assert stream.usage == Usage(10, 8)


def test_the_usage_chunk_is_sent_only_when_asked_and_without_choices(identity):
    body = answered([{"type": "text", "text": "é"}])
    asked, unasked = (CLAUDE.stream(**identity, include_usage=wish) for wish in (True, False))
    last = orjson.loads(run(asked, events_of(body))[-1][6:])
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 18
    assert not any(b'"usage"' in chunk for chunk in run(unasked, events_of(body)))
    assert unasked.usage == Usage(10, 8)
    assert unasked.content_bytes == 2


def test_a_cut_stream_is_not_done_and_knows_its_input_only(identity):
    body = answered([{"type": "text", "text": "abc"}])
    events = list(events_of(body))
    stream = CLAUDE.stream(**identity, include_usage=True)
    run(stream, events[:-2])
    assert not stream.done
    assert stream.usage is None
    assert stream.usage_so_far == Usage(10, 1)
    run(stream, events[-2:-1])
    assert not stream.done, "the stop reason is not yet the end"


def test_nothing_is_given_before_content_so_that_a_route_can_still_change(identity):
    stream = CLAUDE.stream(**identity, include_usage=False)
    assert run(stream, list(events_of(answered([{"type": "text", "text": "x"}])))[:3]) == []
    assert not stream.content_seen


def test_an_error_event_ends_the_stream_with_its_class(identity):
    stream = CLAUDE.stream(**identity, include_usage=False)
    fault = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    assert run(stream, [fault, {"type": "message_stop"}]) == []
    assert stream.error[:3] == ("overloaded_error", "overloaded_error", "Overloaded")
    assert not stream.done
