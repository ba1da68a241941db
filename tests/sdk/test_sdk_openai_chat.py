"""OpenAI's Python SDK, chat and its neighbours, over every kind of upstream."""

from __future__ import annotations

import json
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel

from tests.sdk.fake_words import AFTER_TOOLS, CITIES, TEXT, USAGE

HELLO: Any = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hello"}]
BOTH: Any = [{"role": "user", "content": "How is the weather in both cities?"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["celsius", "kelvin"]}},
            "required": ["city"],
        },
    },
}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


class Weather(BaseModel):
    city: str
    degrees: int
    sky: Literal["clear", "cloudy"]


def test_chat_answers_with_text_usage_and_its_request_id(oai: openai.OpenAI, model: str) -> None:
    reply = oai.chat.completions.create(model=model, messages=HELLO, max_tokens=50)
    assert reply.choices[0].message.content == TEXT
    assert reply.choices[0].finish_reason == "stop"
    assert reply.object == "chat.completion"
    assert reply.id
    assert reply.created > 0
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == USAGE
    assert reply._request_id
    assert reply._request_id.startswith("req_")


def test_streamed_chat_gives_the_same_text_and_no_usage_unless_asked(oai: openai.OpenAI, model: str) -> None:
    chunks = list(oai.chat.completions.create(model=model, messages=HELLO, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == TEXT
    assert len(chunks) > 3, "a stream comes in pieces"
    assert [chunk.usage for chunk in chunks if chunk.usage] == []
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk.id for chunk in chunks}) == 1


def test_usage_comes_in_a_last_chunk_without_choices_when_asked_for(oai: openai.OpenAI, model: str) -> None:
    options: Any = {"include_usage": True}
    chunks = list(oai.chat.completions.create(model=model, messages=HELLO, stream=True, stream_options=options))
    last = chunks[-1]
    assert last.choices == []
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens, last.usage.total_tokens) == (*USAGE, sum(USAGE))
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_the_stream_helper_accumulates_text(oai: openai.OpenAI, model: str) -> None:
    with oai.chat.completions.stream(model=model, messages=HELLO) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    assert "".join(deltas) == TEXT
    assert final.choices[0].message.content == TEXT


def test_parallel_tool_calls_are_told_apart(oai: openai.OpenAI, model: str) -> None:
    reply = oai.chat.completions.create(model=model, messages=BOTH, tools=[WEATHER])
    calls: Any = reply.choices[0].message.tool_calls
    assert reply.choices[0].finish_reason == "tool_calls"
    assert [json.loads(call.function.arguments)["city"] for call in calls] == list(CITIES)
    assert [call.function.name for call in calls] == ["get_weather"] * 2
    assert len({call.id for call in calls}) == 2


def test_parallel_tool_calls_in_a_stream_are_put_together_by_the_helper(oai: openai.OpenAI, model: str) -> None:
    with oai.chat.completions.stream(model=model, messages=BOTH, tools=[WEATHER]) as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
        final = stream.get_final_completion()
    calls: Any = final.choices[0].message.tool_calls
    assert final.choices[0].finish_reason == "tool_calls"
    assert [call.function.name for call in calls] == ["get_weather"] * 2
    assert [json.loads(call.function.arguments)["city"] for call in calls] == list(CITIES)
    assert [event.name for event in done] == ["get_weather"] * 2


def test_the_first_delta_of_a_call_carries_its_id_and_name_and_later_ones_only_arguments(
    oai: openai.OpenAI, model: str
) -> None:
    deltas = [
        call
        for chunk in oai.chat.completions.create(model=model, messages=BOTH, tools=[WEATHER], stream=True)
        for choice in chunk.choices
        for call in choice.delta.tool_calls or []
    ]
    for index in (0, 1):
        first, *rest = [delta for delta in deltas if delta.index == index]
        assert first.id
        assert first.type == "function"
        assert first.function is not None
        assert first.function.name == "get_weather"
        assert all(delta.id is None and delta.function and delta.function.name is None for delta in rest)


def test_a_tool_loop_goes_round(oai: openai.OpenAI, model: str) -> None:
    first = oai.chat.completions.create(model=model, messages=BOTH, tools=[WEATHER]).choices[0].message
    results: Any = [
        {"role": "tool", "tool_call_id": call.id, "content": '{"degrees": 21}'} for call in first.tool_calls or []
    ]
    messages: Any = [*BOTH, first.model_dump(exclude_none=True), *results]
    second = oai.chat.completions.create(model=model, messages=messages, tools=[WEATHER])
    assert second.choices[0].message.content == AFTER_TOOLS


def test_json_mode_gives_an_object(oai: openai.OpenAI, model: str) -> None:
    messages: Any = [{"role": "user", "content": "Greet me in JSON"}]
    reply = oai.chat.completions.create(model=model, messages=messages, response_format={"type": "json_object"})
    assert json.loads(reply.choices[0].message.content or "") == {"greeting": "hello"}


def test_parse_gives_the_model_that_was_asked_for(oai: openai.OpenAI, model: str) -> None:
    reply = oai.chat.completions.parse(model=model, messages=HELLO, response_format=Weather)
    assert reply.choices[0].message.parsed == Weather(city="Paris", degrees=7, sky="clear")


def test_parse_works_in_a_stream_too(oai: openai.OpenAI, model: str) -> None:
    with oai.chat.completions.stream(model=model, messages=HELLO, response_format=Weather) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.parsed == Weather(city="Paris", degrees=7, sky="clear")


def test_a_picture_reaches_the_provider_in_its_own_words(oai: openai.OpenAI, gateway: Any, model: str) -> None:
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    messages: Any = [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, picture]}]
    assert oai.chat.completions.create(model=model, messages=messages).choices[0].message.content == TEXT
    assert PIXEL in gateway.last.raw.decode()


def test_async_clients_share_the_gateway(gateway: Any, model: str) -> None:
    import asyncio

    async def many() -> list[str | None]:
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0) as client:
            replies = await asyncio.gather(
                *(client.chat.completions.create(model=model, messages=HELLO) for _ in range(8))
            )
            return [reply.choices[0].message.content for reply in replies]

    assert asyncio.run(many()) == [TEXT] * 8


def test_headers_say_where_the_request_ran_and_what_it_cost(oai: openai.OpenAI) -> None:
    raw = oai.chat.completions.with_raw_response.create(model="gpt", messages=HELLO)
    headers = raw.headers
    assert headers["x-router-model"] == "gpt-4o-mini"
    assert headers["x-router-reason"] == "manual_override"
    assert headers["x-router-fallback"] == "false"
    assert (headers["x-router-tokens-input"], headers["x-router-tokens-output"]) == ("23", "7")
    assert headers["x-router-cost-usd"].rstrip("0") == "0.00000765"
    assert int(headers["x-router-latency-ms"]) < 5000
    assert headers["x-router-decision-id"].startswith("rd_")
    assert raw.request_id == headers["x-router-request-id"] == headers["request-id"]
    assert raw.parse().choices[0].message.content == TEXT


def test_a_stream_has_its_headers_before_its_first_chunk(oai: openai.OpenAI) -> None:
    request = oai.chat.completions.with_streaming_response.create(model="claude", messages=HELLO, stream=True)
    with request as response:
        assert response.headers["x-router-model"] == "claude-sonnet-4-5"
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["cache-control"] == "no-cache"
        assert response.headers["x-accel-buffering"] == "no"
        assert "content-encoding" not in response.headers
        response.read()


def test_embeddings_come_as_the_base64_the_sdk_asks_for(oai: openai.OpenAI, gateway: Any) -> None:
    reply = oai.embeddings.create(model="embed", input=["one", "two"])
    assert gateway.last.body["encoding_format"] == "base64"
    assert [row.embedding for row in reply.data] == [[0.5, -0.25, 1.0]] * 2
    assert reply.usage.prompt_tokens == 9


@pytest.mark.parametrize("given", ["one", [1, 2, 3], [[1, 2], [3]]], ids=["text", "tokens", "lists-of-tokens"])
def test_embeddings_take_text_and_token_ids_and_give_floats_on_request(oai: openai.OpenAI, given: Any) -> None:
    reply = oai.embeddings.create(model="embed", input=given, encoding_format="float")
    assert reply.data[0].embedding == [0.5, -0.25, 1.0]


def test_embeddings_of_a_provider_without_any_are_refused_in_words(oai: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="no provider of this model offers embeddings"):
        oai.embeddings.create(model="claude", input="one")


def test_completions_answer_with_bare_text(oai: openai.OpenAI, model: str) -> None:
    reply = oai.completions.create(model=model, prompt="Hello", max_tokens=20)
    assert reply.choices[0].text == TEXT
    assert reply.usage is not None
    assert reply.usage.total_tokens == sum(USAGE)


def test_completions_stream(oai: openai.OpenAI, model: str) -> None:
    chunks = list(oai.completions.create(model=model, prompt="Hello", stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == TEXT
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"


def test_a_name_of_several_models_uses_the_first_that_answers(oai: openai.OpenAI) -> None:
    raw = oai.chat.completions.with_raw_response.create(model="either", messages=HELLO)
    assert raw.headers["x-router-model"] == "gpt-4o-mini"
    assert raw.parse().choices[0].message.content == TEXT
