"""Callers of OpenAI Responses: what their bodies become, and what they are answered."""

import pytest

from fastroute.callers import NativeOnly, ShapeError, responses

TOOL = {"type": "function", "name": "weather", "description": "d", "parameters": {"type": "object"}, "strict": True}
CHAT_TOOL = {
    "type": "function",
    "function": {"name": "weather", "description": "d", "parameters": {"type": "object"}, "strict": True},
}


def body(**fields):
    return {"model": "m", "input": "hi", **fields}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {}),
        ({"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
        ({"max_output_tokens": 50, "temperature": 0, "top_p": 0.5}, {"max_tokens": 50, "temperature": 0, "top_p": 0.5}),
        ({"parallel_tool_calls": False}, {"parallel_tool_calls": False}),
        ({"user": "u", "safety_identifier": "s"}, {"user": "u"}),
        ({"safety_identifier": "s"}, {"user": "s"}),
        ({"reasoning": {"effort": "minimal", "summary": "auto"}}, {"reasoning_effort": "minimal"}),
        ({"tools": [TOOL], "tool_choice": "required"}, {"tools": [CHAT_TOOL], "tool_choice": "required"}),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "name": "weather"}},
            {"tools": [CHAT_TOOL], "tool_choice": {"type": "function", "function": {"name": "weather"}}},
        ),
        (
            {
                "tools": [TOOL, {"type": "function", "name": "other"}],
                "tool_choice": {
                    "type": "allowed_tools",
                    "mode": "auto",
                    "tools": [{"type": "function", "name": "weather"}],
                },
            },
            {"tools": [CHAT_TOOL], "tool_choice": "auto"},
        ),
        ({"text": {"format": {"type": "text"}, "verbosity": "low"}}, {}),
        ({"text": {"format": {"type": "json_object"}}}, {"response_format": {"type": "json_object"}}),
        (
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True},
                }
            },
        ),
        # What a coding agent sends and a stateless gateway may leave out.
        (
            {
                "store": True,
                "include": ["reasoning.encrypted_content"],
                "prompt_cache_key": "k",
                "metadata": {"a": "b"},
                "previous_response_id": None,
                "service_tier": "auto",
                "truncation": "auto",
            },
            {},
        ),
    ],
)
def test_a_setting_keeps_its_meaning_in_chat(given, expected):
    chat = responses.to_chat(body(**given))
    assert chat == {"model": "m", "messages": [{"role": "user", "content": "hi"}], **expected}


def test_items_become_a_conversation():
    """Calls join the message before them, outputs follow, and sealed reasoning is left out."""
    items = [
        {"role": "developer", "content": "dev"},
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "see"},
                {"type": "input_image", "image_url": "https://x/y.png", "detail": "low"},
                {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,QQ=="},
                {"type": "input_audio", "input_audio": {"data": "QQ==", "format": "wav"}},
            ],
        },
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "zzz"},
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "wait", "annotations": []}],
        },
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "weather", "arguments": '{"a":1}'},
        {"type": "function_call", "call_id": "c2", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "sun"},
        {
            "type": "function_call_output",
            "call_id": "c2",
            "output": [{"type": "input_text", "text": "pic"}, {"type": "input_image", "image_url": "data:image/png;x"}],
        },
    ]
    calls = [
        {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"a":1}'}},
        {"id": "c2", "type": "function", "function": {"name": "weather", "arguments": "{}"}},
    ]
    assert responses.to_chat(body(input=items, instructions="be kind"))["messages"] == [
        {"role": "system", "content": "be kind"},
        {"role": "system", "content": "dev"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "see"},
                {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,QQ=="}},
                {"type": "input_audio", "input_audio": {"data": "QQ==", "format": "wav"}},
            ],
        },
        {"role": "assistant", "content": "wait", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c1", "content": "sun"},
        {"role": "tool", "tool_call_id": "c2", "content": "pic"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Returned by the tools above:"},
                {"type": "image_url", "image_url": {"url": "data:image/png;x"}},
            ],
        },
    ]


@pytest.mark.parametrize(
    ("given", "param", "what"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id", "previous_response_id"),
        ({"conversation": {"id": "c"}}, "conversation", "conversation"),
        ({"prompt": {"id": "p"}}, "prompt", "prompt"),
        ({"background": True}, "background", "background"),
        ({"tools": [TOOL, {"type": "web_search"}]}, "tools[1].type", "'web_search'"),
        ({"tools": [{"type": "namespace", "name": "n", "tools": []}]}, "tools[0].type", "'namespace'"),
        ({"tools": [{"type": "custom", "name": "apply_patch"}]}, "tools[0].type", "'custom'"),
        ({"tool_choice": {"type": "mcp"}}, "tool_choice.type", "mcp"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type", "item_reference"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "input[0].content[0].file_id",
            "uploaded file",
        ),
    ],
)
def test_what_only_a_native_provider_can_do_is_named(given, param, what):
    with pytest.raises(NativeOnly) as caught:
        responses.to_chat(body(**given))
    assert caught.value.param == param
    assert what in caught.value.what
    assert responses.needs_native(body(**given)) == caught.value.what


def test_a_body_anyone_can_answer_needs_no_native_provider():
    assert responses.needs_native(body(tools=[TOOL])) is None


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"model": 3}, "model"),
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"content": "x"}]}, "input[0].type"),
        ({"input": [{"type": "function_call", "name": "x"}]}, "input[0].call_id"),
        ({"input": [{"role": "system", "content": [{"type": "input_image", "image_url": "u"}]}]}, "input[0].content"),
        ({"instructions": ["x"]}, "instructions"),
        ({"tools": [{"name": "x"}]}, "tools[0].type"),
        ({"tools": {}}, "tools"),
        ({"tool_choice": "maybe"}, "tool_choice"),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
        ({"metadata": 3}, "metadata"),
    ],
)
def test_a_malformed_field_is_named_by_its_path(given, param):
    with pytest.raises(ShapeError) as caught:
        responses.to_chat(body(**given))
    assert caught.value.param == param


def test_a_whole_answer_has_every_field_the_sdks_require(answer, tool_call, reply):
    chat = answer(content="It rains", reasoning_content="hmm", tool_calls=[tool_call()])
    made = responses.from_answer(chat, reply(input="hi", tools=[TOOL], reasoning={"effort": "low", "summary": "auto"}))
    assert made == {
        "id": "resp_abc",
        "object": "response",
        "created_at": 1_700_000_000,
        "status": "completed",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "metadata": {},
        "model": "some-model",
        "output": [
            {
                "id": "rs_abc_0",
                "type": "reasoning",
                "status": "completed",
                "summary": [{"type": "summary_text", "text": "hmm"}],
                "encrypted_content": None,
            },
            {
                "id": "msg_abc_1",
                "type": "message",
                "role": "assistant",
                "status": "completed",
                "content": [{"type": "output_text", "text": "It rains", "annotations": [], "logprobs": []}],
            },
            {
                "id": "fc_abc_2",
                "type": "function_call",
                "status": "completed",
                "call_id": "call_1",
                "name": "weather",
                "arguments": '{"city":"Oslo"}',
            },
        ],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "prompt_cache_key": None,
        "reasoning": {"effort": "low", "summary": "auto"},
        "safety_identifier": None,
        "service_tier": "default",
        "store": False,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [TOOL],
        "top_logprobs": 0,
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": {
            "input_tokens": 20,
            "input_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 3},
            "output_tokens": 9,
            "output_tokens_details": {"reasoning_tokens": 4},
            "total_tokens": 29,
        },
        "user": None,
    }


def test_an_answer_cut_by_its_limit_is_incomplete(answer, reply):
    made = responses.from_answer(answer("length", content="It"), reply())
    assert (made["status"], made["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert made["output"][-1]["status"] == "incomplete"


def test_events_come_numbered_and_in_the_order_the_sdks_accept(chunk, reply, run, read_sse, usage):
    chunks = [
        chunk(role="assistant"),
        chunk(reasoning_content="hmm"),
        chunk(content="It "),
        chunk(content="rains"),
        chunk(tool_calls=[{"index": 0, "id": "call_1", "function": {"name": "weather", "arguments": '{"a"'}}]),
        chunk(tool_calls=[{"index": 0, "function": {"arguments": ":1}"}}]),
        chunk(finish="tool_calls"),
        {"choices": [], "usage": usage},
    ]
    events = read_sse(run(responses.stream(reply(reasoning={"summary": "auto"})), chunks))
    assert all(name == data["type"] for name, data in events)
    assert [data["sequence_number"] for _, data in events] == list(range(len(events)))
    assert [(name.removeprefix("response."), data.get("output_index")) for name, data in events] == [
        ("created", None),
        ("in_progress", None),
        ("output_item.added", 0),
        ("reasoning_summary_part.added", 0),
        ("reasoning_summary_text.delta", 0),
        ("reasoning_summary_text.done", 0),
        ("reasoning_summary_part.done", 0),
        ("output_item.done", 0),
        ("output_item.added", 1),
        ("content_part.added", 1),
        ("output_text.delta", 1),
        ("output_text.delta", 1),
        ("output_text.done", 1),
        ("content_part.done", 1),
        ("output_item.done", 1),
        ("output_item.added", 2),
        ("function_call_arguments.delta", 2),
        ("function_call_arguments.delta", 2),
        ("function_call_arguments.done", 2),
        ("output_item.done", 2),
        ("completed", None),
    ]
    by_name = dict(events)
    assert by_name["response.created"]["response"]["status"] == "in_progress"
    assert by_name["response.created"]["response"]["usage"] is None
    assert by_name["response.output_text.done"]["text"] == "It rains"
    assert by_name["response.output_text.delta"]["logprobs"] == []
    assert by_name["response.function_call_arguments.done"]["arguments"] == '{"a":1}'
    assert by_name["response.function_call_arguments.done"]["name"] == "weather"
    added = events[8][1]["item"]
    assert added == {"id": "msg_abc_1", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
    done = by_name["response.completed"]["response"]
    assert [item["type"] for item in done["output"]] == ["reasoning", "message", "function_call"]
    assert done["output"] == [data["item"] for name, data in events if name == "response.output_item.done"]
    assert done["usage"]["output_tokens"] == 9


def test_a_refusal_has_events_of_its_own(chunk, reply, run, read_sse):
    events = read_sse(run(responses.stream(reply()), [chunk(refusal="I can"), chunk(refusal="not", finish="stop")]))
    assert [name for name, _ in events][2:-1] == [
        "response.output_item.added",
        "response.content_part.added",
        "response.refusal.delta",
        "response.refusal.delta",
        "response.refusal.done",
        "response.content_part.done",
        "response.output_item.done",
    ]
    assert events[-1][1]["response"]["output"][0]["content"] == [{"type": "refusal", "refusal": "I cannot"}]


def test_a_stream_cut_by_its_limit_ends_incomplete(chunk, reply, run, read_sse):
    events = read_sse(run(responses.stream(reply()), [chunk(content="It"), chunk(finish="length")]))
    assert events[-1][0] == "response.incomplete"
    response = events[-1][1]["response"]
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response["output"][-1]["status"] == "incomplete"
    assert events[-2][1]["item"]["status"] == "incomplete"


def test_a_failure_is_told_to_readers_and_raises_in_loops(chunk, reply, read_sse):
    """openai-python raises on any event with an `error` object; `response.failed` alone would pass for an end."""
    encoder = responses.stream(reply())
    encoder.start()
    encoder.feed(chunk(content="x"))
    (failed, told), (name, data) = read_sse(encoder.fail("server_error", "upstream_cut", "The model stopped"))
    assert (failed, name) == ("response.failed", "error")
    assert told["response"]["status"] == "failed"
    assert told["response"]["error"] == {"code": "server_error", "message": "The model stopped"}
    plain = {"message": "The model stopped", "code": "upstream_cut", "param": None}
    assert data["error"] == {"type": "server_error", **plain}
    assert data.items() >= {"type": "error", "sequence_number": told["sequence_number"] + 1, **plain}.items()
    assert encoder.finish() == b""


def test_a_stream_that_named_no_finish_reason_does_not_end_cleanly(chunk, reply, read_sse):
    encoder = responses.stream(reply())
    encoder.feed(chunk(content="x"))
    assert [name for name, _ in read_sse(encoder.finish())] == ["response.failed", "error"]


def test_the_error_envelope_is_openais():
    assert responses.error(402, "iron_cage_budget_exceeded", "budget_exceeded", "said", "req_1", "input") == {
        "error": {"message": "said", "type": "iron_cage_budget_exceeded", "param": "input", "code": "budget_exceeded"}
    }
