"""Every server mistake that is known to break a client, as a statement about what leaves this gateway.

The upstream is a compatible server that makes the mistake itself, where it can.
"""

from __future__ import annotations

import json
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tests.sdk.fake_words import CITIES, TEXT, USAGE

HELLO = "Hello"
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
SLOPPY = "lab/llama:free"
FINISH_REASONS = {"stop", "length", "tool_calls", "content_filter", "function_call"}


def chat(model: str, text: str, **more: Any) -> Any:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def chunks_of(http: httpx.Client, body: Any) -> list[Any]:
    text = http.post("/v1/chat/completions", json={**body, "stream": True}).text
    lines = [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_replies_have_id_created_object_model_choices_and_usage(http: httpx.Client, model: str) -> None:
    """Without them mistralai and pydantic-ai fail."""
    told = http.post("/v1/chat/completions", json=chat(model, HELLO)).json()
    assert isinstance(told["id"], str)
    assert isinstance(told["created"], int)
    assert told["object"] == "chat.completion"
    assert told["model"]
    assert told["usage"]["total_tokens"] == sum(USAGE)


def test_every_chunk_has_an_array_of_choices_and_an_id(http: httpx.Client, model: str) -> None:
    """A usage chunk without choices, or with null, is a type error in `ai` and in OpenAI's Node helper."""
    for options in ({}, {"stream_options": {"include_usage": True}}):
        for chunk in chunks_of(http, chat(model, HELLO, **options)):
            assert isinstance(chunk["choices"], list)
            assert isinstance(chunk["id"], str)
            assert chunk["object"] == "chat.completion.chunk"


def test_tool_deltas_have_an_index_and_their_name_once(http: httpx.Client, model: str) -> None:
    """Without an index openai-py, openai-js and @ai-sdk/openai fail; a repeated name is glued together."""
    deltas = [
        call
        for chunk in chunks_of(http, chat(model, "both", tools=[WEATHER]))
        for choice in chunk["choices"]
        for call in choice["delta"].get("tool_calls") or []
    ]
    assert {delta["index"] for delta in deltas} == {0, 1}
    names = [delta["function"]["name"] for delta in deltas if delta["function"].get("name")]
    assert names == ["get_weather"] * 2


def test_finish_reasons_are_of_the_known_set(http: httpx.Client, model: str) -> None:
    reasons = [
        choice["finish_reason"]
        for chunk in chunks_of(http, chat(model, HELLO))
        for choice in chunk["choices"]
        if choice["finish_reason"]
    ]
    assert reasons == ["stop"]


@pytest.mark.parametrize("odd", ["no_done", "comments", "empty_first"])
def test_what_breaks_nobody_breaks_nothing_here(oai: openai.OpenAI, odd: str) -> None:
    """No `[DONE]` after a finish reason, comments and CRLF, an empty first list of choices."""
    with oai.chat.completions.stream(**chat(SLOPPY, f"odd:{odd}")) as stream:
        assert stream.get_final_completion().choices[0].message.content == TEXT


@pytest.mark.parametrize("odd", ["bare", "eos", "usage_without_choices", "usage_with_null"])
def test_a_sloppy_servers_text_is_whole_in_every_translation(
    ant: anthropic.Anthropic, oai: openai.OpenAI, odd: str
) -> None:
    said = f"odd:{odd}"
    with ant.messages.stream(model=SLOPPY, max_tokens=50, messages=[{"role": "user", "content": said}]) as message:
        final = message.get_final_message()
    assert (final.content[0].text, final.stop_reason) == (TEXT, "end_turn")  # type: ignore[union-attr]  # text alone
    with oai.responses.stream(model=SLOPPY, input=said) as response:
        assert response.get_final_response().output_text == TEXT
    assert oai.responses.create(model=SLOPPY, input=said).output_text == TEXT


@pytest.mark.parametrize("odd", ["no_index", "repeated_name"])
def test_a_sloppy_servers_calls_are_told_apart_in_every_translation(
    ant: anthropic.Anthropic, oai: openai.OpenAI, odd: str
) -> None:
    said = f"both odd:{odd}"
    tool: Any = {"name": "get_weather", "input_schema": WEATHER["function"]["parameters"]}
    messages: Any = [{"role": "user", "content": said}]
    with ant.messages.stream(model=SLOPPY, max_tokens=50, messages=messages, tools=[tool]) as message:
        blocks = message.get_final_message().content
    assert [(block.name, block.input) for block in blocks if block.type == "tool_use"] == [
        ("get_weather", {"city": city}) for city in CITIES
    ]
    flat: Any = {"type": "function", **WEATHER["function"]}
    with oai.responses.stream(model=SLOPPY, input=said, tools=[flat]) as response:
        calls = [item for item in response.get_final_response().output if item.type == "function_call"]
    assert [(call.name, json.loads(call.arguments)) for call in calls] == [
        ("get_weather", {"city": city}) for city in CITIES
    ]


@pytest.mark.parametrize("odd", ["bare", "eos", "usage_without_choices", "usage_with_null"])
def test_a_sloppy_servers_chat_is_mended(oai: openai.OpenAI, http: httpx.Client, odd: str) -> None:
    said = f"odd:{odd}"
    whole = oai.chat.completions.create(**chat(SLOPPY, said))
    assert whole.id
    assert whole.usage is not None
    assert whole.choices[0].finish_reason in FINISH_REASONS
    for chunk in chunks_of(http, chat(SLOPPY, said, stream_options={"include_usage": True})):
        assert isinstance(chunk["choices"], list)
        assert isinstance(chunk["id"], str)
        for choice in chunk["choices"]:
            assert choice["finish_reason"] is None or choice["finish_reason"] in FINISH_REASONS


@pytest.mark.parametrize("odd", ["no_index", "repeated_name"])
def test_a_sloppy_servers_calls_are_mended_in_chat(oai: openai.OpenAI, odd: str) -> None:
    with oai.chat.completions.stream(**chat(SLOPPY, f"both odd:{odd}", tools=[WEATHER])) as stream:
        calls: Any = stream.get_final_completion().choices[0].message.tool_calls
    assert [call.function.name for call in calls] == ["get_weather"] * 2
    assert [json.loads(call.function.arguments)["city"] for call in calls] == list(CITIES)
