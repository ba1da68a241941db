"""What a server owes its clients: shapes by caller, keys in four places, helpful refusals, streams as they must look."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import openai
import pytest

from fastroute.call import Call
from fastroute.domain import Entry, ModelRef
from fastroute.gateway import SURFACES
from fastroute.web import telling
from tests.sdk.fake_words import TEXT

CHAT: Any = {"model": "gpt", "messages": [{"role": "user", "content": "Hello"}]}


# --- models --------------------------------------------------------------------------------------------------------


def test_openai_lists_models_as_a_dict_with_what_mistrals_clients_need(oai: openai.OpenAI, http: httpx.Client) -> None:
    assert {"gpt", "lab/llama:free"} <= {each.id for each in oai.models.list()}
    body = http.get("/v1/models").json()
    assert body["object"] == "list"
    for each in body["data"]:
        assert each["object"] == "model"
        assert each["type"] == "base"
        assert isinstance(each["capabilities"]["completion_chat"], bool)


def test_a_model_whose_id_has_slashes_and_colons_is_found(oai: openai.OpenAI, http: httpx.Client) -> None:
    assert oai.models.retrieve("lab/llama:free").id == "lab/llama:free"
    assert http.get("/v1/models/lab%2Fllama%3Afree").json()["id"] == "lab/llama:free"


def test_models_have_the_shape_of_whoever_asks(http: httpx.Client) -> None:
    anthropic = http.get("/v1/models", headers={"anthropic-version": "2099-01-01"}).json()
    assert anthropic["data"][0]["type"] == "model"
    for gemini in (
        http.get("/v1/models", headers={"x-goog-api-key": "router-key-of-the-tests"}),
        http.get("/v1beta/models"),
    ):
        assert gemini.json()["models"][0]["name"] == "models/gpt"


# --- who asks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({"authorization": "Bearer {key}"}, ""),
        ({"authorization": "bearer {key}"}, ""),
        ({"x-api-key": "{key}"}, ""),
        ({"x-goog-api-key": "{key}"}, ""),
        ({}, "?key={key}"),
    ],
)
def test_the_key_is_taken_from_any_of_four_places(gateway: Any, headers: dict[str, str], query: str) -> None:
    told = {name: value.format(key=gateway.key) for name, value in headers.items()}
    with httpx.Client(base_url=gateway.url, headers=told) as client:
        for path in ("/v1/chat/completions", "/openai/v1/chat/completions", "/openai/chat/completions"):
            assert client.post(path + query.format(key=gateway.key), json=CHAT).status_code == 200
        assert client.get("/v1/models" + query.format(key=gateway.key)).status_code == 200
    assert gateway.key not in str(gateway.last.headers), "the caller's key stays here"
    assert gateway.last.headers["authorization"] == "Bearer sk-upstream-openai"


def test_each_provider_gets_its_own_key_in_its_own_header(http: httpx.Client, gateway: Any) -> None:
    for model, header, value in (
        ("gpt", "authorization", "Bearer sk-upstream-openai"),
        ("claude", "x-api-key", "sk-upstream-anthropic"),
        ("gemini", "x-goog-api-key", "AIza-upstream-google"),
    ):
        http.post("/v1/chat/completions", json={**CHAT, "model": model})
        assert gateway.last.headers[header] == value
        assert "key=" not in gateway.last.path
    http.post("/v1/chat/completions", json={**CHAT, "model": "lab/llama:free"})
    assert "authorization" not in gateway.last.headers


# --- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/v1/v1/chat/completions", "set the base URL with a single /v1"),
        ("/v1/v1/messages", "set the base URL without /v1"),
        ("/chat/completions", "the base URL of OpenAI's clients ends in /v1"),
        ("/responses", "the base URL of OpenAI's clients ends in /v1"),
    ],
)
def test_a_wrong_base_url_is_answered_with_the_right_one(http: httpx.Client, path: str, hint: str) -> None:
    reply = http.post(path, json=CHAT)
    assert reply.status_code == 404
    assert hint in reply.text
    assert reply.headers["content-type"] == "application/json"


def test_sdks_with_a_wrong_base_url_read_the_right_one(gateway: Any) -> None:
    for base in (gateway.url, f"{gateway.url}/v1/v1"):
        with openai.OpenAI(base_url=base, api_key=gateway.key, max_retries=0) as client:
            with pytest.raises(openai.NotFoundError, match="base URL"):
                client.chat.completions.create(**CHAT)
            if base == gateway.url:
                with pytest.raises(openai.NotFoundError, match="base URL"):
                    client.models.list()


@pytest.mark.parametrize(
    ("headers", "path", "keys"),
    [
        ({}, "/v1/nothing", {"message", "type", "param", "code"}),
        ({"anthropic-version": "2023-06-01"}, "/v1/nothing", {"type", "message"}),
        ({"x-goog-api-key": "router-key-of-the-tests"}, "/v1beta/nothing", {"code", "message", "status"}),
    ],
)
def test_a_refusal_of_the_router_is_in_the_askers_envelope_with_both_request_ids(
    http: httpx.Client, headers: dict[str, str], path: str, keys: set[str]
) -> None:
    reply = http.get(path, headers=headers)
    assert reply.status_code == 404
    assert reply.json()["error"].keys() == keys
    assert reply.headers["x-request-id"] == reply.headers["request-id"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/embeddings"])
def test_a_wrong_method_is_told_which_is_right(http: httpx.Client, path: str) -> None:
    reply = http.get(path)
    assert reply.status_code == 405
    assert reply.headers["allow"] == "POST"
    assert "POST" in reply.json()["error"]["message"]


def test_a_wrong_method_on_a_list_is_told_too(http: httpx.Client) -> None:
    reply = http.post("/v1/models", json={})
    assert reply.status_code == 405
    assert "GET" in reply.headers["allow"]


def test_bad_json_and_a_missing_model_are_told_in_words(http: httpx.Client) -> None:
    broken = http.post("/v1/chat/completions", content=b'{"model": ', headers={"content-type": "application/json"})
    assert (broken.status_code, broken.json()["error"]["code"]) == (400, "invalid_json")
    missing = http.post("/v1/chat/completions", json={"messages": []})
    assert (missing.status_code, missing.json()["error"]["param"]) == (400, "model")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/embeddings", "/v1/responses"])
def test_every_reply_has_both_request_ids(http: httpx.Client, path: str) -> None:
    for body in (CHAT, {"model": "nothing"}):
        headers = http.post(path, json=body).headers
        assert headers["x-request-id"] == headers["request-id"] == headers["x-router-request-id"]


def test_a_body_beyond_the_limit_is_413_in_the_envelope(http: httpx.Client) -> None:
    reply = http.post("/v1/chat/completions", json={**CHAT, "user": "x" * (5 << 20)})
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "body_too_large")


def test_three_megabytes_with_a_picture_pass(http: httpx.Client, gateway: Any) -> None:
    url = "data:image/png;base64," + "A" * (3 << 20)
    content = [{"type": "image_url", "image_url": {"url": url}}]
    reply = http.post("/v1/chat/completions", json={**CHAT, "messages": [{"role": "user", "content": content}]})
    assert reply.status_code == 200
    assert len(gateway.last.raw) > 3 << 20


# --- what passes -----------------------------------------------------------------------------------------------------


def test_fields_nobody_here_knows_reach_a_provider_of_the_same_dialect_byte_for_byte(
    http: httpx.Client, gateway: Any
) -> None:
    body = b'{"model": "gpt", "messages": [{"role":"user","content":"Hello"}], "brand_new": {"depth": [1, 2.50,null]}}'
    http.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert gateway.last.raw == body.replace(b'"gpt"', b'"gpt-4o-mini"')


def test_what_a_dialect_cannot_say_is_refused_by_name(http: httpx.Client) -> None:
    reply = http.post("/v1/chat/completions", json={**CHAT, "model": "claude", "logprobs": True})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "logprobs")


def test_text_beyond_ascii_survives_every_translation(http: httpx.Client, gateway: Any, model: str) -> None:
    said = "日本語 \u2028 🎈 \x00 é"
    body = {**CHAT, "model": model, "messages": [{"role": "user", "content": said}]}
    assert http.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"] == TEXT
    assert said in _strings(gateway.last.body)


def _strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for each in value.values() for text in _strings(each)]
    if isinstance(value, list):
        return [text for each in value for text in _strings(each)]
    return [value] if isinstance(value, str) else []


# --- streams -------------------------------------------------------------------------------------------------------


def test_the_cost_is_told_in_a_comment_just_before_the_last_word(http: httpx.Client) -> None:
    text = http.post("/v1/chat/completions", json={**CHAT, "stream": True}).text
    before, comment, last, rest = text.rsplit("\n\n", 3)
    assert (last, rest) == ("data: [DONE]", "")
    assert ": x-router-cost-usd: 0.00000765" in comment.split("\n")
    assert before.rpartition("data: ")[2].startswith("{")


def test_streams_are_not_compressed_even_if_asked(http: httpx.Client) -> None:
    headers = {"accept-encoding": "gzip, br, zstd"}
    reply = http.post("/v1/chat/completions", json={**CHAT, "stream": True}, headers=headers)
    assert "content-encoding" not in reply.headers


@pytest.mark.parametrize("silent_beats", [0, 2])
def test_a_heart_beats_until_the_first_content(silent_beats: int) -> None:
    """A comment every while, which every client passes over; none once content flows, and none where it came at once."""
    sent: list[Any] = []
    entry = Entry("gpt", ModelRef("openai", "gpt-4o-mini"), lane="openai")
    beaten = asyncio.Event()

    async def send(message: Any) -> None:
        sent.append(message)
        if sum(message.get("body", b"").startswith(b": ping") for message in sent) >= silent_beats:
            beaten.set()

    async def receive() -> Any:
        raise AssertionError("nobody listens here")

    async def act() -> None:
        call = Call(SURFACES["chat"], receive, send, "req_1", asyncio.get_running_loop().time())
        call.entries, call.entry = [entry], entry
        writer = telling.StreamWriter(call, None, telling.beats(0.01))
        if silent_beats:
            await asyncio.wait_for(beaten.wait(), 5)
        await writer.begin(call, entry)
        before = len(sent)
        await writer.send(b"data: {}\n\n")
        await asyncio.sleep(0.03)
        assert len(sent) == before + 1, "the heart rests once content flows"
        await writer.end(b"data: [DONE]\n\n")
        await writer.rest()

    asyncio.run(act())
    assert [message["type"] for message in sent].count("http.response.start") == 1
    beats = [message for message in sent if message.get("body") == b": ping\n\n"]
    assert len(beats) >= silent_beats
    assert silent_beats or not beats


def test_a_failure_after_a_heart_beat_is_told_as_an_event() -> None:
    """The head said 200 already, so the envelope comes as an event and nothing like a clean end follows."""
    sent: list[Any] = []
    entry = Entry("gpt", ModelRef("openai", "gpt-4o-mini"), lane="openai")

    async def act(surface: str) -> bytes:
        sent.clear()
        beaten = asyncio.Event()

        async def send(message: Any) -> None:
            sent.append(message)
            if message.get("body", b"").startswith(b": ping"):
                beaten.set()

        call = Call(SURFACES[surface], send, send, "req_1", asyncio.get_running_loop().time())  # type: ignore[arg-type]  # nothing is received
        call.entries, call.entry = [entry], entry
        caller = SURFACES[surface].caller
        from fastroute.callers import Reply

        encoder = None if caller is None else caller.stream(Reply("1", 0, "gpt"))
        writer = telling.StreamWriter(call, encoder, telling.beats(0.01))
        await asyncio.wait_for(beaten.wait(), 5)
        await writer.fail(telling.Failed(504, "server_error", "upstream_timeout", "silent for too long"))
        await writer.rest()
        return b"".join(message.get("body", b"") for message in sent)

    chat = asyncio.run(act("chat"))
    assert b'data: {"error":{"message":"silent for too long"' in chat
    assert b"[DONE]" not in chat
    assert b'event: error\ndata: {"type":"error","error":{"type":"timeout_error"' in asyncio.run(act("messages"))
