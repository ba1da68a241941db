"""OpenAI's Responses through its own SDK: native at OpenAI, translated everywhere else."""

from __future__ import annotations

import json
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel

from tests.sdk.fake_words import AFTER_TOOLS, CITIES, TEXT, USAGE

WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather in a city.",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
BOTH = "How is the weather in both cities?"
TEXT_ORDER = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]


class Weather(BaseModel):
    city: str
    sky: Literal["clear", "cloudy"]


def test_a_response_has_text_usage_and_a_request_id(oai: openai.OpenAI, model: str) -> None:
    reply = oai.responses.create(model=model, instructions="Be short.", input="Hello", max_output_tokens=50)
    assert reply.output_text == TEXT
    assert reply.status == "completed"
    assert reply.usage is not None
    assert (reply.usage.input_tokens, reply.usage.output_tokens, reply.usage.total_tokens) == (*USAGE, sum(USAGE))
    assert reply._request_id
    assert reply._request_id.startswith("req_")


def test_a_streamed_response_has_every_event_in_order(oai: openai.OpenAI, model: str) -> None:
    """created, in_progress, item added, part added, deltas, text done, part done, item done, completed; numbered."""
    events = list(oai.responses.create(model=model, input="Hello", stream=True))
    kinds = [event.type for event in events]
    assert list(dict.fromkeys(kinds)) == TEXT_ORDER
    assert kinds.count("response.output_text.delta") > 3
    assert [event.sequence_number for event in events] == list(range(len(events)))


def test_every_event_of_a_response_is_named(http: Any, model: str) -> None:
    body = {"model": model, "input": "Hello", "stream": True}
    text = http.post("/v1/responses", json=body).text
    blocks = [block for block in text.split("\n\n") if block.strip() and not block.startswith(":")]
    for block in blocks:
        event, data = block.split("\n")
        assert event == f"event: {json.loads(data.removeprefix('data: '))['type']}"


def test_the_stream_helper_gives_the_final_response(oai: openai.OpenAI, model: str) -> None:
    with oai.responses.stream(model=model, input="Hello") as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert "".join(deltas) == final.output_text == TEXT
    assert final.usage is not None
    assert final.usage.total_tokens == sum(USAGE)


def test_parallel_calls_and_their_results_go_round(oai: openai.OpenAI, model: str) -> None:
    first = oai.responses.create(model=model, input=BOTH, tools=[WEATHER])
    calls = [item for item in first.output if item.type == "function_call"]
    assert [json.loads(call.arguments)["city"] for call in calls] == list(CITIES)
    history: Any = [{"role": "user", "content": BOTH}, *(call.to_dict() for call in calls)]
    history += [{"type": "function_call_output", "call_id": call.call_id, "output": "sunny"} for call in calls]
    second = oai.responses.create(model=model, input=history, tools=[WEATHER])
    assert second.output_text == AFTER_TOOLS


def test_parallel_calls_stream_one_after_the_other(oai: openai.OpenAI, model: str) -> None:
    with oai.responses.stream(model=model, input=BOTH, tools=[WEATHER]) as stream:
        done = [event for event in stream if event.type == "response.function_call_arguments.done"]
        final = stream.get_final_response()
    assert [json.loads(event.arguments)["city"] for event in done] == list(CITIES)
    calls = [item for item in final.output if item.type == "function_call"]
    assert [call.name for call in calls] == ["get_weather"] * 2


def test_parse_gives_the_model_that_was_asked_for(oai: openai.OpenAI, model: str) -> None:
    reply = oai.responses.parse(model=model, input="Hello", text_format=Weather)
    assert reply.output_parsed == Weather(city="Paris", sky="clear")


def test_what_only_a_provider_keeps_is_refused_by_name_elsewhere(oai: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="previous_response_id") as refused:
        oai.responses.create(model="claude", input="Hello", previous_response_id="resp_1")
    assert refused.value.param == "previous_response_id"


def test_what_a_provider_keeps_passes_to_the_provider_itself(oai: openai.OpenAI, gateway: Any) -> None:
    oai.responses.create(model="gpt", input="Hello", previous_response_id="resp_1", store=True)
    assert gateway.last.path == "/oai/v1/responses"
    assert gateway.last.body["previous_response_id"] == "resp_1"


@pytest.mark.parametrize("fault", ["cut", "unfinished"])
def test_a_cut_response_is_an_error_and_never_a_short_answer(oai: openai.OpenAI, model: str, fault: str) -> None:
    stream = oai.responses.create(model=model, input=f"Hello fault:{fault}", stream=True)
    with pytest.raises(openai.APIError):
        list(stream)


def test_a_name_of_several_models_answers_natively_where_it_can(oai: openai.OpenAI, gateway: Any) -> None:
    raw = oai.responses.with_raw_response.create(model="either", input="Hello")
    assert raw.headers["x-router-fallback"] == "false"
    assert raw.parse().output_text == TEXT
    assert gateway.last.path == "/oai/v1/responses"
    with oai.responses.stream(model="either", input="Hello") as stream:
        assert stream.get_final_response().output_text == TEXT


def test_a_tool_only_openai_runs_reaches_it_behind_a_name_of_several(oai: openai.OpenAI, gateway: Any) -> None:
    reply = oai.responses.create(model="either", input="Hello", tools=[{"type": "web_search"}])
    assert reply.output_text == TEXT
    assert gateway.last.path == "/oai/v1/responses"
