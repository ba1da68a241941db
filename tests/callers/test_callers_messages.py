"""Anthropic-shaped callers: what their bodies become, and what they are answered."""

import pytest

from fastroute.callers import NativeOnly, ShapeError, messages

HI = [{"role": "user", "content": "hi"}]
TOOL = {"name": "weather", "description": "d", "input_schema": {"type": "object", "properties": {}}}
CHAT_TOOL = {
    "type": "function",
    "function": {"name": "weather", "description": "d", "parameters": {"type": "object", "properties": {}}},
}


def body(**fields):
    return {"model": "m", "max_tokens": 64, "messages": HI, **fields}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"max_tokens": 64}),
        ({"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
        ({"stream": False, "temperature": None}, {"max_tokens": 64}),
        ({"temperature": 0.5, "top_p": 1, "top_k": 5}, {"temperature": 0.5, "top_p": 1, "top_k": 5}),
        ({"stop_sequences": ["a", "b"]}, {"stop": ["a", "b"]}),
        ({"metadata": {"user_id": "u1"}}, {"user": "u1"}),
        ({"tools": [TOOL]}, {"tools": [CHAT_TOOL]}),
        ({"tools": [{**TOOL, "type": "custom", "cache_control": {"type": "ephemeral"}}]}, {"tools": [CHAT_TOOL]}),
        ({"tool_choice": {"type": "auto"}}, {"tool_choice": "auto"}),
        ({"tool_choice": {"type": "any"}}, {"tool_choice": "required"}),
        ({"tool_choice": {"type": "none"}}, {"tool_choice": "none"}),
        (
            {"tool_choice": {"type": "tool", "name": "weather", "disable_parallel_tool_use": True}},
            {
                "tool_choice": {"type": "function", "function": {"name": "weather"}},
                "parallel_tool_calls": False,
            },
        ),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 8000}},
            {"reasoning_effort": "medium"},
        ),
        ({"thinking": {"type": "disabled"}}, {}),
        ({"thinking": {"type": "adaptive"}}, {}),
        ({"output_config": {"effort": "max"}}, {"reasoning_effort": "high"}),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "output", "schema": {"type": "object"}},
                }
            },
        ),
        ({"service_tier": "auto", "context_management": {"edits": []}, "unheard_of": 1}, {}),
    ],
)
def test_a_setting_keeps_its_meaning_in_chat(given, expected):
    chat = messages.to_chat(body(**given))
    rest = {key: chat[key] for key in chat if key not in ("model", "messages", "max_tokens")}
    assert (chat["model"], chat["messages"]) == ("m", [{"role": "user", "content": "hi"}])
    assert rest == {key: value for key, value in expected.items() if key != "max_tokens"}
    assert chat["max_tokens"] == 64


def test_a_body_for_the_token_count_has_no_max_tokens():
    assert "max_tokens" not in messages.to_chat({"model": "m", "messages": HI})


@pytest.mark.parametrize(
    "system", ["be\n\nkind", [{"type": "text", "text": "be"}, {"type": "text", "text": "kind", "cache_control": {}}]]
)
def test_the_system_prompt_is_the_first_message(system):
    assert messages.to_chat(body(system=system))["messages"][0] == {"role": "system", "content": "be\n\nkind"}


def test_a_conversation_with_tools_and_pictures_keeps_its_order():
    """Results follow their calls at once; the picture a tool returned comes in a user message after all of them."""
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}}
    conversation = [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "what is this"},
                picture,
                {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "unsigned", "signature": ""},
                {"type": "thinking", "thinking": "t", "signature": "sig"},
                {"type": "text", "text": "let me "},
                {"type": "text", "text": "look"},
                {"type": "tool_use", "id": "t1", "name": "look", "input": {"a": 1}},
                {"type": "tool_use", "id": "t2", "name": "look", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "go on"},
                {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "one"}, picture]},
                {"type": "tool_result", "tool_use_id": "t2", "content": "no", "is_error": True},
            ],
        },
    ]
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}}
    assert messages.to_chat(body(messages=conversation))["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "what is this"},
                image,
                {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
            ],
        },
        {
            "role": "assistant",
            "content": "let me look",
            "thinking_blocks": [{"type": "thinking", "thinking": "t", "signature": "sig"}],
            "tool_calls": [
                {"id": "t1", "type": "function", "function": {"name": "look", "arguments": '{"a":1}'}},
                {"id": "t2", "type": "function", "function": {"name": "look", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "t1", "content": "one"},
        {"role": "tool", "tool_call_id": "t2", "content": "Error:\nno"},
        {"role": "user", "content": [image, {"type": "text", "text": "go on"}]},
    ]


def test_documents_travel_as_files_or_text():
    blocks = [
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "QQ=="},
            "title": "a",
        },
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "plain"}},
        {"type": "search_result", "title": "t", "source": "s", "content": [{"type": "text", "text": "found"}]},
    ]
    chat = messages.to_chat(body(messages=[{"role": "user", "content": blocks}]))
    assert chat["messages"][0]["content"] == [
        {"type": "file", "file": {"filename": "a", "file_data": "data:application/pdf;base64,QQ=="}},
        {"type": "text", "text": "plain"},
        {"type": "text", "text": "t"},
        {"type": "text", "text": "found"},
    ]


@pytest.mark.parametrize(
    ("given", "param", "what"),
    [
        (
            {"tools": [TOOL, {"type": "web_search_20250305", "name": "web_search"}]},
            "tools[1].type",
            "web_search_20250305",
        ),
        ({"mcp_servers": [{"type": "url"}]}, "mcp_servers", "MCP"),
        ({"container": "c_1"}, "container", "container"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image", "source": {"type": "file", "file_id": "f"}}]}
                ]
            },
            "messages[0].content[0].source.type",
            "uploaded file",
        ),
        (
            {"messages": [{"role": "assistant", "content": [{"type": "server_tool_use", "id": "x"}]}]},
            "messages[0].content[0].type",
            "server_tool_use",
        ),
    ],
)
def test_what_only_anthropic_can_do_is_named(given, param, what):
    with pytest.raises(NativeOnly) as caught:
        messages.to_chat(body(**given))
    assert caught.value.param == param
    assert what in caught.value.what
    assert messages.needs_native(body(**given)) == caught.value.what


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [3]}, "messages[0]"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages[0].content[0].type"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"stream": 1}, "stream"),
        ({"system": [{"type": "image"}]}, "system[0].type"),
        ({"tools": [{"name": "x"}]}, "tools[0].input_schema"),
        ({"tool_choice": {"type": "maybe"}}, "tool_choice.type"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"stop_sequences": ["a", 1]}, "stop_sequences[1]"),
    ],
)
def test_a_malformed_field_is_named_by_its_path(given, param):
    with pytest.raises(ShapeError) as caught:
        messages.to_chat(body(**given))
    assert caught.value.param == param
    assert messages.needs_native(body(**given)) is None


def test_a_whole_answer_has_every_field_of_a_message(answer, tool_call, reply):
    chat = answer(content="It rains", reasoning_content="hmm", tool_calls=[tool_call(), tool_call("", id="call_2")])
    assert messages.from_answer(chat, reply(thinking={"type": "enabled", "budget_tokens": 2000})) == {
        "id": "msg_abc",
        "type": "message",
        "role": "assistant",
        "model": "some-model",
        "content": [
            {"type": "thinking", "thinking": "hmm", "signature": ""},
            {"type": "text", "text": "It rains", "citations": None},
            {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Oslo"}},
            {"type": "tool_use", "id": "call_2", "name": "weather", "input": {}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 12,
            "cache_creation_input_tokens": 3,
            "cache_read_input_tokens": 5,
            "output_tokens": 9,
            "output_tokens_details": {"thinking_tokens": 4},
            "server_tool_use": None,
        },
    }


def test_signed_thinking_keeps_each_signature_with_its_text(answer, reply, chunk, run, read_sse):
    """Several signed thoughts in one answer are several blocks, whole or streamed; one may have its text withheld."""
    signed = [
        {"type": "thinking", "thinking": "one", "signature": "s1"},
        {"type": "thinking", "thinking": "", "signature": "s2"},
    ]
    asking = reply(thinking={"type": "adaptive"})
    chat = answer("stop", content="x", reasoning_content="one", thinking_blocks=signed)
    text = {"type": "text", "text": "x", "citations": None}
    assert messages.from_answer(chat, asking)["content"] == [*signed, text]
    chunks = [
        chunk(reasoning_content="o"),
        chunk(reasoning_content="ne"),
        chunk(thinking_blocks=signed[:1]),
        chunk(thinking_blocks=signed[1:]),
        chunk(content="x", finish="stop"),
    ]
    events = [data for _, data in read_sse(run(messages.stream(asking), chunks))]
    signatures = [
        (e["index"], e["delta"]["signature"]) for e in events if e.get("delta", {}).get("type") == "signature_delta"
    ]
    assert signatures == [(0, "s1"), (1, "s2")]
    assert [e["content_block"]["type"] for e in events if "content_block" in e] == ["thinking", "thinking", "text"]


def test_reasoning_nobody_asked_for_is_not_told(answer, reply):
    """Most programs read the first block as the text."""
    made = messages.from_answer(answer("stop", content="x", reasoning_content="hmm"), reply())
    assert [block["type"] for block in made["content"]] == ["text"]


def test_arguments_that_are_no_object_arrive_as_evidence(answer, tool_call, reply):
    made = messages.from_answer(answer(tool_calls=[tool_call('{"a":')]), reply())
    assert made["content"][0]["input"] == {"raw_arguments": '{"a":'}


@pytest.mark.parametrize(
    ("finish", "message", "expected"),
    [
        ("stop", {"content": "x"}, "end_turn"),
        ("length", {"content": "x"}, "max_tokens"),
        ("content_filter", {"content": "x"}, "refusal"),
        ("eos", {"content": "x"}, "end_turn"),
        (None, {"content": "x"}, "end_turn"),
        ("stop", {"refusal": "no"}, "refusal"),
        ("stop", {"tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]}, "tool_use"),
    ],
)
def test_every_finish_reason_becomes_one_anthropic_knows(answer, reply, finish, message, expected):
    assert messages.from_answer(answer(finish, **message), reply())["stop_reason"] == expected


def test_the_stop_sequence_that_was_hit_is_told_when_the_upstream_tells_it(answer, reply):
    chat = answer("stop", content="x")
    chat["choices"][0]["stop_reason"] = "END"
    made = messages.from_answer(chat, reply(stop_sequences=["END"]))
    assert (made["stop_reason"], made["stop_sequence"]) == ("stop_sequence", "END")


def test_events_come_in_the_order_the_sdks_accept(chunk, reply, run, read_sse, usage):
    chunks = [
        chunk(role="assistant", content=""),
        chunk(reasoning_content="hm"),
        chunk(reasoning_content="m"),
        chunk(thinking_blocks=[{"type": "thinking", "signature": "sig"}]),
        chunk(content="It "),
        chunk(content="rains"),
        chunk(tool_calls=[{"index": 0, "id": "call_1", "function": {"name": "weather", "arguments": ""}}]),
        chunk(tool_calls=[{"index": 0, "function": {"arguments": '{"city":'}}]),
        chunk(tool_calls=[{"index": 0, "function": {"arguments": '"Oslo"}'}}]),
        chunk(finish="tool_calls"),
        {"choices": [], "usage": usage},
    ]
    raw = run(messages.stream(reply(thinking={"type": "adaptive"})), chunks)
    events = read_sse(raw)
    assert all(name == data["type"] for name, data in events)
    delta = "content_block_delta"
    assert [(data["type"], data.get("index"), data.get("delta", {}).get("type")) for _, data in events] == [
        ("message_start", None, None),
        ("content_block_start", 0, None),
        (delta, 0, "thinking_delta"),
        (delta, 0, "thinking_delta"),
        (delta, 0, "signature_delta"),
        ("content_block_stop", 0, None),
        ("content_block_start", 1, None),
        (delta, 1, "text_delta"),
        (delta, 1, "text_delta"),
        ("content_block_stop", 1, None),
        ("content_block_start", 2, None),
        (delta, 2, "input_json_delta"),
        (delta, 2, "input_json_delta"),
        ("content_block_stop", 2, None),
        ("message_delta", None, None),
        ("message_stop", None, None),
    ]
    begun = events[0][1]["message"]
    assert begun["content"] == []
    assert begun["stop_reason"] is None
    assert begun["usage"]["input_tokens"] == 11
    assert events[1][1]["content_block"] == {"type": "thinking", "thinking": "", "signature": ""}
    assert events[10][1]["content_block"] == {"type": "tool_use", "id": "call_1", "name": "weather", "input": {}}
    ended = events[-2][1]
    assert ended["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert ended["usage"]["input_tokens"] == 12
    assert ended["usage"]["output_tokens"] == 9


def test_a_failure_is_an_error_event_and_no_end(chunk, reply, read_sse):
    encoder = messages.stream(reply())
    encoder.feed(chunk(content="x"))
    events = read_sse(encoder.fail("server_error", "upstream_cut", "The model stopped", 502))
    assert events == [
        ("error", {"type": "error", "error": {"type": "api_error", "message": "The model stopped"}}),
    ]
    assert encoder.finish() == encoder.feed(chunk(content="y")) == encoder.fail("a", None, "b") == b""


def test_a_stream_that_named_no_finish_reason_does_not_end_cleanly(chunk, reply, read_sse):
    encoder = messages.stream(reply())
    encoder.feed(chunk(content="x"))
    assert [name for name, _ in read_sse(encoder.finish())] == ["error"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (402, "billing_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (502, "api_error"),
        (503, "overloaded_error"),
        (504, "timeout_error"),
    ],
)
def test_the_error_envelope_is_anthropics(status, kind):
    assert messages.error(status, "whatever", "a_code", "said", "req_1") == {
        "type": "error",
        "error": {"type": kind, "message": "said"},
        "request_id": "req_1",
    }


def test_the_token_count_is_one_field():
    assert messages.count(7) == {"input_tokens": 7}
