"""Chat to Gemini's generateContent and back."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastroute.domain import Usage
from fastroute.upstreams.dialect import BrokenAnswer, DialectError
from fastroute.upstreams.google import Google

GEMINI = Google()
FLASH = "gemini-2.5-flash"
USER = {"role": "user", "content": "hi"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "weather", "description": "d", "parameters": SCHEMA}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Paris"}'}}
COUNTS = {"promptTokenCount": 10, "candidatesTokenCount": 5, "thoughtsTokenCount": 3, "totalTokenCount": 18}


def say(chat, model=FLASH, *, stream=False, max_output=None):
    return GEMINI.request({"messages": [USER], **chat}, model, stream=stream, max_output=max_output)


def answered(parts, native="STOP", **fields):
    return {"candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": native, "index": 0}],
            "usageMetadata": COUNTS, "modelVersion": FLASH, **fields}  # fmt: skip


def test_i_b5_a_chat_becomes_contents_with_a_system_instruction_and_no_nulls():
    said = say({
        "messages": [{"role": "system", "content": "s"}, USER, {"role": "user", "content": "more"},
                     {"role": "assistant", "content": "ok"}, USER],
        "max_tokens": 9, "temperature": 1.5, "top_p": 0.9, "top_k": 3, "stop": "END", "seed": 7, "n": 2,
        "presence_penalty": 0.5, "frequency_penalty": None,
    })  # fmt: skip
    assert said == {
        "systemInstruction": {"parts": [{"text": "s"}]},
        "contents": [
            {"role": "user", "parts": [{"text": "hi"}, {"text": "more"}]},
            {"role": "model", "parts": [{"text": "ok"}]},
            {"role": "user", "parts": [{"text": "hi"}]},
        ],
        "generationConfig": {
            "maxOutputTokens": 9, "temperature": 1.5, "topP": 0.9, "topK": 3, "stopSequences": ["END"], "seed": 7,
            "candidateCount": 2, "presencePenalty": 0.5,
        },
    }  # fmt: skip


def test_no_cap_is_made_up_where_the_api_needs_none():
    assert "generationConfig" not in say({}, max_output=8192)
    assert say({"max_tokens": 9999}, max_output=8192)["generationConfig"]["maxOutputTokens"] == 8192


def test_results_carry_the_name_of_the_call_they_answer():
    second = {**CALL, "id": "call_2", "function": {"name": "clock", "arguments": ""}}
    turns = say({"messages": [
        USER, {"role": "assistant", "content": None, "tool_calls": [CALL, second]},
        {"role": "tool", "tool_call_id": "call_2", "content": '{"hour": 9}'},
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "sunny"}]},
    ]})["contents"]  # fmt: skip
    assert turns[1]["parts"] == [
        {"functionCall": {"id": "call_1", "name": "weather", "args": {"city": "Paris"}}},
        {"functionCall": {"id": "call_2", "name": "clock", "args": {}}},
    ]
    assert turns[2]["parts"] == [
        {"functionResponse": {"id": "call_2", "name": "clock", "response": {"hour": 9}}},
        {"functionResponse": {"id": "call_1", "name": "weather", "response": {"output": "sunny"}}},
    ]
    with pytest.raises(DialectError, match=r"messages\[1\]\.tool_call_id"):
        say({"messages": [USER, {"role": "tool", "tool_call_id": "nobody", "content": "1"}]})


def test_gemini_3_gets_its_signatures_back_and_a_stand_in_where_another_model_called():
    signed = {**CALL, "extra_content": {"google": {"thought_signature": "sig"}}}
    history = [USER, {"role": "assistant", "tool_calls": [signed, CALL]}]
    parts = say({"messages": history}, "gemini-3-flash")["contents"][1]["parts"]
    assert [part.get("thoughtSignature") for part in parts] == ["sig", None]
    history[1]["tool_calls"] = [CALL, CALL]
    parts = say({"messages": history}, "gemini-3-flash")["contents"][1]["parts"]
    assert [part.get("thoughtSignature") for part in parts] == ["skip_thought_signature_validator", None]
    assert "thoughtSignature" not in say({"messages": history})["contents"][1]["parts"][0]


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
         {"inlineData": {"mimeType": "image/png", "data": "aGk="}}),
        ({"type": "image_url", "image_url": {"url": "https://x/y.JPG?z=1"}},
         {"fileData": {"fileUri": "https://x/y.JPG?z=1", "mimeType": "image/jpeg"}}),
        ({"type": "image_url", "image_url": {"url": "https://x/y"}}, {"fileData": {"fileUri": "https://x/y"}}),
        ({"type": "file", "file": {"file_data": "data:application/pdf;base64,aGk="}},
         {"inlineData": {"mimeType": "application/pdf", "data": "aGk="}}),
        ({"type": "input_audio", "input_audio": {"data": "aGk=", "format": "mp3"}},
         {"inlineData": {"mimeType": "audio/mp3", "data": "aGk="}}),
    ],
)  # fmt: skip
def test_pictures_documents_and_sound_become_parts(part, said):
    assert say({"messages": [{"role": "user", "content": [part]}]})["contents"][0]["parts"] == [said]


@pytest.mark.parametrize(
    ("asked", "calling"),
    [
        ({}, None), ({"tool_choice": "auto"}, {"mode": "AUTO"}), ({"tool_choice": "none"}, {"mode": "NONE"}),
        ({"tool_choice": "required"}, {"mode": "ANY"}),
        ({"tool_choice": {"type": "function", "function": {"name": "weather"}}},
         {"mode": "ANY", "allowedFunctionNames": ["weather"]}),
    ],
)  # fmt: skip
def test_tools_and_the_choice_among_them(asked, calling):
    said = say({"tools": [TOOL], **asked})
    declared = {"name": "weather", "description": "d", "parametersJsonSchema": SCHEMA}
    assert said["tools"] == [{"functionDeclarations": [declared]}]
    assert said.get("toolConfig") == (calling and {"functionCallingConfig": calling})


def test_strict_tools_are_held_to_their_schemas_and_one_call_at_a_time_is_refused():
    strict = {"type": "function", "function": {**TOOL["function"], "strict": True}}
    assert say({"tools": [strict]})["toolConfig"] == {"functionCallingConfig": {"mode": "VALIDATED"}}
    with pytest.raises(DialectError, match="parallel_tool_calls"):
        say({"tools": [TOOL], "parallel_tool_calls": False})
    assert "tools" not in say({"parallel_tool_calls": False})


def test_structured_output_has_fields_of_its_own():
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
    assert say({"response_format": wanted})["generationConfig"] == {
        "responseMimeType": "application/json",
        "responseJsonSchema": SCHEMA,
    }
    said = say({"response_format": {"type": "json_object"}})
    assert said["generationConfig"] == {"responseMimeType": "application/json"}


@pytest.mark.parametrize(
    ("model", "effort", "thinking"),
    [
        ("gemini-2.0-flash", "high", None), ("gemma-3", "high", None),
        (FLASH, "none", {"thinkingBudget": 0, "includeThoughts": False}),
        ("gemini-2.5-pro", "none", {"thinkingBudget": 128, "includeThoughts": False}),
        (FLASH, "low", {"thinkingBudget": 1024, "includeThoughts": True}),
        (FLASH, "medium", {"thinkingBudget": 8192, "includeThoughts": True}),
        (FLASH, "max", {"thinkingBudget": 24576, "includeThoughts": True}),
        ("gemini-3-flash", "minimal", {"thinkingLevel": "MINIMAL", "includeThoughts": True}),
        ("gemini-3-pro-preview", "medium", {"thinkingLevel": "HIGH", "includeThoughts": True}),
        ("gemini-3.1-pro", "medium", {"thinkingLevel": "MEDIUM", "includeThoughts": True}),
        ("gemini-3.1-pro", "none", {"thinkingLevel": "LOW", "includeThoughts": False}),
        ("gemini-flash-latest", "xhigh", {"thinkingLevel": "HIGH", "includeThoughts": True}),
    ],
)  # fmt: skip
def test_effort_is_said_in_the_words_of_the_model_s_generation(model, effort, thinking):
    assert say({"reasoning_effort": effort}, model).get("generationConfig", {}).get("thinkingConfig") == thinking


FINISHES = [
    ("STOP", "stop"), ("MAX_TOKENS", "length"), ("OTHER", "stop"), ("MALFORMED_FUNCTION_CALL", "stop"),
    *[(native, "content_filter") for native in (
        "SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR", "IMAGE_SAFETY",
        "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION")],
]  # fmt: skip


@pytest.mark.parametrize(("native", "finish"), FINISHES)
def test_every_finish_reason_is_a_known_one_with_the_original_beside_it(native, finish, identity):
    choice = GEMINI.answer(answered([{"text": "x"}], native), **identity)["choices"][0]
    assert (choice["finish_reason"], choice["native_finish_reason"]) == (finish, native)


def test_an_answer_has_text_thoughts_calls_and_usage(identity):
    whole = GEMINI.answer(
        answered([
            {"text": "hm", "thought": True}, {"text": "a"}, {"text": "b"},
            {"functionCall": {"name": "weather", "args": {"city": "Paris"}}, "thoughtSignature": "sig"},
            {"functionCall": {"id": "x", "name": "clock"}},
        ]),
        **identity,
    )  # fmt: skip
    message = whole["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("ab", "hm")
    assert [call["id"] for call in message["tool_calls"]] == ["call_a1b2_0", "x"]
    assert message["tool_calls"][0]["extra_content"] == {"google": {"thought_signature": "sig"}}
    assert whole["choices"][0]["finish_reason"] == "tool_calls"
    assert whole["usage"]["total_tokens"] == 18
    assert whole["usage"]["completion_tokens_details"] == {"reasoning_tokens": 3}
    again = say({"messages": [USER, message]})["contents"][1]["parts"]
    assert again[1]["functionCall"] == {"id": "call_a1b2_0", "name": "weather", "args": {"city": "Paris"}}
    assert again[1]["thoughtSignature"] == "sig"


def test_a_blocked_prompt_is_a_filtered_answer_whole_and_streamed(identity, rebuild):
    body = {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {"promptTokenCount": 4}}
    choice = GEMINI.answer(body, **identity)["choices"][0]
    assert (choice["finish_reason"], choice["native_finish_reason"]) == ("content_filter", "PROHIBITED_CONTENT")
    assert "PROHIBITED_CONTENT" in choice["message"]["refusal"]
    stream = GEMINI.stream(**identity, include_usage=True)
    assert rebuild(stream.feed("", orjson.dumps(body)))["choices"][0]["finish_reason"] == "content_filter"
    assert stream.done
    assert stream.usage == Usage(4)


@pytest.mark.parametrize("body", [None, {}, {"candidates": [1]}, {"candidates": "x"}, {"promptFeedback": {}},
                                  answered([1]), answered([{"functionCall": {"args": {}}}])])  # fmt: skip
def test_a_body_that_is_no_answer_is_not_made_into_one(body, identity):
    with pytest.raises(BrokenAnswer):
        GEMINI.answer(body, **identity)


parts = st.one_of(
    st.builds(lambda t: {"text": t}, st.text(max_size=9)),
    st.builds(lambda t: {"text": t, "thought": True}, st.text(max_size=9)),
    st.builds(lambda n: {"functionCall": {"name": "f", "args": {"n": n}}}, st.integers(0, 9)),
    st.just({"functionCall": {"id": "own", "name": "g", "args": {}}}),
)


@settings(max_examples=150, deadline=None)
@given(
    said=st.lists(st.lists(st.lists(parts, max_size=3), max_size=4), min_size=1, max_size=2),
    native=st.sampled_from([n for n, _ in FINISHES]),
)
def test_a_stream_put_together_again_is_the_whole_answer(said, native, rebuild, outline):
    """One or two candidates, cut into events anywhere between parts; ids made up on the way are the same."""
    identity = {"model": "m", "created": 1, "id": "chatcmpl-1"}
    stream = GEMINI.stream(**identity, include_usage=True)
    chunks, whole = [], {"candidates": [], "usageMetadata": COUNTS}
    for index, pieces in enumerate(said):
        flat = [part for piece in pieces for part in piece]
        candidate = {"index": index, "content": {"parts": flat}, "finishReason": native}
        whole["candidates"].append(candidate)
    longest = max(len(pieces) for pieces in said)
    for step in range(longest + 1):
        last = step == longest
        event = {"candidates": [], "usageMetadata": COUNTS if last else {"promptTokenCount": 10}}
        for index, pieces in enumerate(said):
            candidate = {"index": index, "content": {"parts": pieces[step] if step < len(pieces) else []}}
            event["candidates"].append(candidate | ({"finishReason": native} if last else {}))
        chunks += stream.feed("", orjson.dumps(event))
    expected = GEMINI.answer(whole, **identity)
    rebuilt = rebuild(chunks)
    assert outline(rebuilt) == outline(expected)
    assert rebuilt["usage"] == expected["usage"]
    assert stream.done
    assert stream.usage == Usage(10, 8, reasoning=3)


def test_a_cut_stream_is_not_done_and_an_error_inside_is_classed(identity):
    stream = GEMINI.stream(**identity, include_usage=True)
    stream.feed("", orjson.dumps({"candidates": [{"content": {"parts": [{"text": "a"}]}}], "usageMetadata": COUNTS}))
    assert (stream.done, stream.usage, stream.content_seen) == (False, None, True)
    assert stream.usage_so_far == Usage(10, 8, reasoning=3)
    assert stream.feed("", b'{"error":{"code":503,"message":"busy","status":"UNAVAILABLE"}}') == []
    assert stream.error[:3] == ("overloaded_error", "unavailable", "busy")
