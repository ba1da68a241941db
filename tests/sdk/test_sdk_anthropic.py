"""Anthropic's Python SDK over every kind of upstream."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import pytest
from pydantic import BaseModel

from tests.sdk.fake_words import AFTER_TOOLS, CITIES, SIGNATURE, TEXT, THOUGHT, USAGE

HELLO: Any = [{"role": "user", "content": "Hello"}]
BOTH: Any = [{"role": "user", "content": "How is the weather in both cities?"}]
WEATHER: Any = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


class Weather(BaseModel):
    city: str
    degrees: int


def test_a_message_has_text_usage_and_a_request_id(ant: anthropic.Anthropic, model: str) -> None:
    reply = ant.messages.create(model=model, max_tokens=50, system="Be short.", messages=HELLO)
    assert [block.type for block in reply.content] == ["text"]
    assert reply.content[0].type == "text"
    assert reply.content[0].text == TEXT
    assert reply.stop_reason == "end_turn"
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == USAGE
    assert reply._request_id
    assert reply._request_id.startswith("req_")


def test_a_streamed_message_accumulates(ant: anthropic.Anthropic, model: str) -> None:
    with ant.messages.stream(model=model, max_tokens=50, messages=HELLO) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == TEXT
    assert final.stop_reason == "end_turn"
    assert final.usage.output_tokens == USAGE[1]


def test_events_come_in_the_one_order_and_by_name(ant: anthropic.Anthropic, http: Any, model: str) -> None:
    body = {"model": model, "max_tokens": 50, "messages": HELLO, "stream": True}
    text = http.post("/v1/messages", json=body).text
    events = [line.removeprefix("event: ") for line in text.split("\n") if line.startswith("event: ")]
    assert list(dict.fromkeys(event for event in events if event != "ping")) == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert text.count("data: ") == len(events)


def test_parallel_tool_use_and_its_results_go_round(ant: anthropic.Anthropic, model: str) -> None:
    first = ant.messages.create(model=model, max_tokens=100, messages=BOTH, tools=[WEATHER])
    calls = [block for block in first.content if block.type == "tool_use"]
    assert first.stop_reason == "tool_use"
    assert [call.input for call in calls] == [{"city": city} for city in CITIES]
    results = [{"type": "tool_result", "tool_use_id": call.id, "content": "sunny"} for call in calls]
    history: Any = [*BOTH, {"role": "assistant", "content": first.content}, {"role": "user", "content": results}]
    second = ant.messages.create(model=model, max_tokens=100, messages=history, tools=[WEATHER])
    assert second.content[0].type == "text"
    assert second.content[0].text == AFTER_TOOLS


def test_parallel_tool_use_streams_block_by_block(ant: anthropic.Anthropic, model: str) -> None:
    with ant.messages.stream(model=model, max_tokens=100, messages=BOTH, tools=[WEATHER]) as stream:
        partial = "".join(event.partial_json for event in stream if event.type == "input_json")
        final = stream.get_final_message()
    calls = [block for block in final.content if block.type == "tool_use"]
    assert [call.input for call in calls] == [{"city": city} for city in CITIES]
    assert all(city in partial for city in CITIES)


def test_parse_gives_the_model_that_was_asked_for(ant: anthropic.Anthropic, model: str) -> None:
    reply = ant.messages.parse(model=model, max_tokens=100, messages=HELLO, output_format=Weather)
    assert reply.parsed_output == Weather(city="Paris", degrees=7)


def test_thinking_is_told_with_its_signature_and_taken_back(ant: anthropic.Anthropic, gateway: Any) -> None:
    thinking: Any = {"type": "enabled", "budget_tokens": 1024}
    reply = ant.messages.create(model="claude", max_tokens=2000, messages=HELLO, thinking=thinking)
    thought, text = reply.content
    assert thought.type == "thinking"
    assert (thought.thinking, thought.signature) == (THOUGHT, SIGNATURE)
    history: Any = [*HELLO, {"role": "assistant", "content": [thought, text]}, *HELLO]
    ant.messages.create(model="claude", max_tokens=2000, messages=history, thinking=thinking)
    assert gateway.last.body["messages"][1]["content"][0]["signature"] == SIGNATURE


def test_thinking_streams(ant: anthropic.Anthropic) -> None:
    thinking: Any = {"type": "enabled", "budget_tokens": 1024}
    with ant.messages.stream(model="claude", max_tokens=2000, messages=HELLO, thinking=thinking) as stream:
        final = stream.get_final_message()
    assert [block.type for block in final.content] == ["thinking", "text"]
    assert final.content[0].type == "thinking"
    assert final.content[0].signature == SIGNATURE


def test_thinking_of_another_dialect_is_told_as_thinking(ant: anthropic.Anthropic) -> None:
    thinking: Any = {"type": "enabled", "budget_tokens": 1024}
    reply = ant.messages.create(model="gemini", max_tokens=2000, messages=HELLO, thinking=thinking)
    assert [block.type for block in reply.content] == ["thinking", "text"]
    assert reply.content[0].type == "thinking"
    assert reply.content[0].thinking == THOUGHT


def test_a_picture_reaches_the_provider_in_its_own_words(ant: anthropic.Anthropic, gateway: Any, model: str) -> None:
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    messages: Any = [{"role": "user", "content": [picture, {"type": "text", "text": "What is this?"}]}]
    assert ant.messages.create(model=model, max_tokens=50, messages=messages).content
    assert PIXEL in gateway.last.raw.decode()


def test_tokens_are_counted(ant: anthropic.Anthropic, model: str) -> None:
    short = ant.messages.count_tokens(model=model, messages=HELLO).input_tokens
    longer: Any = [{"role": "user", "content": "Hello there, how is the weather today? " * 20}]
    assert 0 < short < 40
    assert ant.messages.count_tokens(model=model, messages=longer).input_tokens > 100


def test_an_async_client_streams(gateway: Any, model: str) -> None:
    import asyncio

    async def one() -> str:
        async with (
            anthropic.AsyncAnthropic(base_url=gateway.url, api_key=gateway.key, max_retries=0) as client,
            client.messages.stream(model=model, max_tokens=50, messages=HELLO) as stream,
        ):
            return await stream.get_final_text()

    assert asyncio.run(one()) == TEXT


@pytest.mark.parametrize("fault", ["cut", "unfinished", "late"])
def test_a_broken_stream_raises_and_is_never_a_short_answer(ant: anthropic.Anthropic, model: str, fault: str) -> None:
    messages: Any = [{"role": "user", "content": f"Hello fault:{fault}"}]
    with (
        pytest.raises(anthropic.APIError),
        ant.messages.stream(model=model, max_tokens=50, messages=messages) as stream,
    ):
        stream.until_done()


def test_models_are_listed_and_found_in_anthropics_shape(ant: anthropic.Anthropic) -> None:
    listed = list(ant.models.list())
    assert {"gpt", "claude", "lab/llama:free"} <= {each.id for each in listed}
    assert all(each.type == "model" for each in listed)
    assert ant.models.retrieve("claude").id == "claude"


@pytest.mark.parametrize(
    ("said", "raised"),
    [
        ("fault:400", anthropic.BadRequestError),
        ("fault:404", anthropic.NotFoundError),
        ("fault:429", anthropic.RateLimitError),
        ("fault:500", anthropic.InternalServerError),
        ("fault:503", anthropic.InternalServerError),
        ("fault:401", anthropic.InternalServerError),  # the gateway's own key was refused: nothing the caller can mend
    ],
)
def test_a_providers_refusal_is_the_sdks_own_exception(
    ant: anthropic.Anthropic, model: str, said: str, raised: type[anthropic.APIStatusError]
) -> None:
    with pytest.raises(raised) as caught:
        ant.messages.create(model=model, max_tokens=50, messages=[{"role": "user", "content": said}])
    body: Any = caught.value.body
    assert body.keys() == {"type", "error", "request_id"}
    assert body["error"].keys() == {"type", "message"}
    assert body["request_id"] == caught.value.request_id
    assert "sk-upstream" not in json.dumps(body)


def test_refusals_of_the_router_are_in_anthropics_envelope(gateway: Any, ant: anthropic.Anthropic) -> None:
    with (
        anthropic.Anthropic(base_url=gateway.url, api_key="wrong", max_retries=0) as stranger,
        pytest.raises(anthropic.AuthenticationError) as refused,
    ):
        stranger.messages.create(model="claude", max_tokens=5, messages=HELLO)
    assert _told(refused)["error"]["type"] == "authentication_error"
    with pytest.raises(anthropic.NotFoundError, match="no-such-model") as missing:
        ant.messages.create(model="no-such-model", max_tokens=5, messages=HELLO)
    assert _told(missing)["error"]["type"] == "not_found_error"
    with pytest.raises(anthropic.NotFoundError, match="no-such-model") as unlisted:
        ant.models.retrieve("no-such-model")
    assert _told(unlisted)["type"] == "error"
    with pytest.raises(anthropic.BadRequestError, match="token cap"):
        ant.messages.create(model="gpt", max_tokens=-1, messages=HELLO)


def _told(caught: pytest.ExceptionInfo[anthropic.APIStatusError]) -> Any:
    return caught.value.body


def test_a_name_of_several_models_answers_natively_where_it_can(ant: anthropic.Anthropic, gateway: Any) -> None:
    raw = ant.messages.with_raw_response.create(model="ether", max_tokens=50, messages=HELLO)
    assert raw.headers["x-router-fallback"] == "false"
    assert gateway.last.path == "/ant/v1/messages"
    search: Any = {"type": "web_search_20250305", "name": "web_search", "max_uses": 5}
    assert ant.messages.create(model="ether", max_tokens=50, messages=HELLO, tools=[search]).content
