"""Clients that are stricter than OpenAI's, spoken to as they speak: Mistral's and Google's own SDKs."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import anthropic
import httpx
import pytest

from fastroute.call import Call
from fastroute.domain import Entry, ModelRef
from fastroute.gateway import SURFACES
from fastroute.web import telling
from tests.sdk.fake_words import CITIES, TEXT

MISTRAL = {"user-agent": "speakeasy-sdk/python 3.7.0 2.935.1 1.0.0 mistralai"}
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def events_of(text: str) -> list[Any]:
    return [json.loads(line[6:]) for line in text.split("\n") if line.startswith("data: {")]


def test_mistrals_clients_get_each_tool_call_in_one_delta(http: httpx.Client, model: str) -> None:
    body = {"model": model, "messages": [{"role": "user", "content": "both"}], "tools": [TOOL], "stream": True}
    text = http.post("/v1/chat/completions", json=body, headers=MISTRAL).text
    choices = [choice for event in events_of(text) for choice in event["choices"]]
    calls = [call for choice in choices for call in choice["delta"].get("tool_calls") or []]
    assert [call["function"]["name"] for call in calls] == ["get_weather"] * 2
    assert [json.loads(call["function"]["arguments"])["city"] for call in calls] == list(CITIES)
    assert [call["index"] for call in calls] == [0, 1]
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["tool_calls"]
    assert text.endswith("data: [DONE]\n\n")


def test_mistrals_clients_get_text_as_it_comes(http: httpx.Client, model: str) -> None:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "stream": True}
    text = http.post("/v1/chat/completions", json=body, headers=MISTRAL).text
    deltas = [choice["delta"].get("content") or "" for event in events_of(text) for choice in event["choices"]]
    assert len(deltas) > 3
    assert "".join(deltas) == TEXT


def test_mistrals_clients_get_an_id_with_their_embeddings(http: httpx.Client) -> None:
    body = {"model": "embed", "input": ["one"]}
    assert http.post("/v1/embeddings", json=body, headers=MISTRAL).json()["id"].startswith("req_")
    assert "id" not in http.post("/v1/embeddings", json=body).json()


def test_mistrals_word_for_a_required_tool_is_understood(http: httpx.Client) -> None:
    body = {"messages": [{"role": "user", "content": "Hello"}], "tools": [TOOL], "tool_choice": "any"}
    for model in ("claude", "gemini"):
        reply = http.post("/v1/chat/completions", json={**body, "model": model})
        assert reply.json()["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("version", ["v1", "v1beta"])
def test_googles_clients_generate_stream_count_and_embed(http: httpx.Client, model: str, version: str) -> None:
    asked = {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}
    base = f"/{version}/models/{model.replace('/', '%2F')}"
    whole = http.post(f"{base}:generateContent", json=asked).json()
    assert "".join(part["text"] for part in whole["candidates"][0]["content"]["parts"]) == TEXT
    assert whole["usageMetadata"]["totalTokenCount"] == 30
    assert http.post(f"{base}:countTokens", json=asked).json()["totalTokens"] > 0
    streamed = http.post(f"{base}:streamGenerateContent?alt=sse", json=asked).text
    parts = [
        part
        for event in events_of(streamed)
        for candidate in event["candidates"]
        for part in candidate["content"].get("parts") or []
    ]
    assert "".join(part["text"] for part in parts) == TEXT


def test_googles_clients_embed_one_and_many(http: httpx.Client) -> None:
    content = {"parts": [{"text": "one"}]}
    one = http.post("/v1beta/models/embed:embedContent", json={"content": content}).json()
    assert one == {"embedding": {"values": [0.5, -0.25, 1.0]}}
    requests = [{"model": "models/embed", "content": content}] * 2
    many = http.post("/v1/models/embed:batchEmbedContents", json={"requests": requests}).json()
    assert many == {"embeddings": [{"values": [0.5, -0.25, 1.0]}] * 2}
    wrong = http.post("/v1/models/embed:embedContent", json={"content": {"parts": [{"inlineData": {}}]}})
    assert wrong.status_code == 400
    assert wrong.json()["error"]["status"] == "INVALID_ARGUMENT"


@pytest.mark.parametrize("fault", ["", "fault:late", "fault:cut"])
def test_a_stream_for_google_holds_data_and_blank_lines_only(http: httpx.Client, model: str, fault: str) -> None:
    """Google's Python SDK reads whatever else stands there as the beginning of a JSON text, comments too."""
    asked = {"contents": [{"role": "user", "parts": [{"text": f"Hello {fault}"}]}]}
    path = f"/v1beta/models/{model.replace('/', '%2F')}:streamGenerateContent?alt=sse"
    text = http.post(path, json=asked).text
    assert all(line == "" or line.startswith("data: ") for line in text.splitlines()), text
    assert ("error" in events_of(text)[-1]) is bool(fault)


def test_the_heart_beats_for_google_in_blank_lines() -> None:
    bodies: list[bytes] = []

    async def act() -> None:
        beaten = asyncio.Event()

        async def send(message: Any) -> None:
            if message.get("body"):
                bodies.append(message["body"])
                beaten.set()

        async def receive() -> Any:
            raise AssertionError("nobody listens here")

        call = Call(SURFACES["gemini"], receive, send, "req_1", asyncio.get_running_loop().time())
        entry = Entry("gemini", ModelRef("google", "gemini-2.5-flash"), lane="google")
        call.entries, call.entry = [entry], entry
        writer = telling.StreamWriter(call, None, telling.beats(0.01))
        await asyncio.wait_for(beaten.wait(), 5)
        await writer.rest()

    asyncio.run(act())
    assert set(bodies) == {b"\n"}


def test_counting_for_an_unknown_model_is_not_found(ant: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError):
        ant.messages.count_tokens(model="no-such-model", messages=[{"role": "user", "content": "Hello"}])


def test_embeddings_behind_a_name_of_several_models(http: httpx.Client) -> None:
    assert http.post("/v1/embeddings", json={"model": "vectors", "input": "one"}).status_code == 200
