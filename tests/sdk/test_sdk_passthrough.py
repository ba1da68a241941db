"""Routes nobody here interprets still pass, through the SDK where it has them, metered and unchanged."""

from __future__ import annotations

from typing import Any

import httpx
import openai
import pytest

from tests.sdk.fake_words import AUDIO


def test_moderations_pass(oai: openai.OpenAI, gateway: Any) -> None:
    reply = oai.moderations.create(model="moderation", input="Hello")
    assert reply.results[0].flagged is False
    assert gateway.last.path == "/oai/v1/moderations"
    assert gateway.last.body == {"model": "omni-moderation-latest", "input": "Hello"}


def test_speech_comes_back_as_the_bytes_and_the_type_it_is(oai: openai.OpenAI) -> None:
    raw = oai.audio.speech.with_raw_response.create(model="voice", voice="alloy", input="Hello")
    assert raw.headers["content-type"] == "audio/mpeg"
    assert raw.headers["x-router-model"] == "gpt-4o-mini-tts"
    assert raw.content == AUDIO


def test_pictures_pass_and_their_usage_is_priced(oai: openai.OpenAI) -> None:
    raw = oai.images.with_raw_response.generate(model="painter", prompt="A balloon")
    assert raw.headers["x-router-cost-usd"].rstrip("0") == "0.01206"
    assert (raw.headers["x-router-tokens-input"], raw.headers["x-router-tokens-output"]) == ("12", "300")
    data: Any = raw.parse().data
    assert data[0].b64_json == "aGk="


def test_pictures_stream(oai: openai.OpenAI) -> None:
    events = list(oai.images.generate(model="painter", prompt="A balloon", stream=True))
    assert [event.type for event in events] == ["image_generation.partial_image", "image_generation.completed"]


def test_reranking_passes_to_a_compatible_server(http: httpx.Client, gateway: Any) -> None:
    body = {"model": "ranker", "query": "q", "documents": ["a", "b"], "top_n": 2}
    for path in ("/v1/rerank", "/openai/v1/rerank"):
        reply = http.post(path, json=body)
        assert reply.json()["results"][0]["index"] == 1
        assert gateway.last.path == "/lab/v1/rerank"
        assert gateway.last.body == {**body, "model": "rerank-1"}
        assert reply.headers["x-router-tokens-input"] == "11"


@pytest.mark.parametrize(
    ("said", "raised"),
    [("fault:400", openai.BadRequestError), ("fault:429", openai.RateLimitError), ("fault:503", openai.APIStatusError)],
)
def test_their_failures_are_told_like_any_other(oai: openai.OpenAI, said: str, raised: type[Exception]) -> None:
    with pytest.raises(raised):
        oai.moderations.create(model="moderation", input=said)


def test_a_route_the_provider_has_not_is_its_404(oai: openai.OpenAI, http: httpx.Client) -> None:
    assert http.post("/v1/no/such-route", json={"model": "gpt"}).status_code == 404


def test_a_provider_of_another_dialect_is_told_so(oai: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="no provider of this model offers /v1/moderations"):
        oai.moderations.create(model="claude", input="Hello")


def test_a_body_without_a_model_names_what_is_missing(oai: openai.OpenAI, http: httpx.Client) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        oai.moderations.create(input="Hello")
    assert refused.value.param == "model"


def test_what_is_neither_json_nor_a_form_is_refused_in_words(http: httpx.Client) -> None:
    reply = http.post("/v1/audio/transcriptions", content=b"RIFF", headers={"content-type": "audio/wav"})
    assert reply.status_code == 415
    assert "only JSON and multipart/form-data" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("word", "status", "kind", "body"),
    [("created", 201, "text/x-made", b"made"), ("accepted", 202, "application/json", b'{"id": "job-1"}')],
)
def test_every_status_that_means_success_passes_with_its_type_and_body(
    http: httpx.Client, word: str, status: int, kind: str, body: bytes
) -> None:
    reply = http.post("/v1/moderations", json={"model": "moderation", "input": f"fault:{word}"})
    assert (reply.status_code, reply.headers["content-type"], reply.content) == (status, kind, body)
    assert reply.headers["x-router-model"] == "omni-moderation-latest"


def test_an_answer_without_a_body_passes_without_one(http: httpx.Client) -> None:
    """A 204 has neither bytes nor a type, and the connection goes on after it."""
    for _ in range(2):
        reply = http.post("/v1/moderations", json={"model": "moderation", "input": "fault:nothing"})
        assert (reply.status_code, reply.content) == (204, b"")
        assert "content-type" not in reply.headers


def test_only_routes_that_are_passed_on_take_a_201(oai: openai.OpenAI) -> None:
    """A chat that was `created` is nothing that a chat client could read."""
    with pytest.raises(openai.APIStatusError) as failed:
        oai.chat.completions.create(model="gpt", messages=[{"role": "user", "content": "fault:created"}])
    assert failed.value.status_code == 502


@pytest.mark.parametrize(
    "path",
    [
        "/v1/fine_tuning/jobs",
        "/v1/files",
        "/v1/realtime/client_secrets",
        "/v1/organization/admin_api_keys",
        "/v1/audio/%2e%2e/organization/admin_api_keys",
        "/v1/audio/../organization/admin_api_keys",
        "/v1/audio//speech",
        "/v1/messages/batches",
        "/anthropic/v1/moderations",
        "/admin/keys",
    ],
)
def test_what_all_callers_of_one_account_would_share_is_never_passed(
    http: httpx.Client, gateway: Any, path: str
) -> None:
    before = len(gateway.providers.seen)
    assert http.post(path, json={"model": "gpt"}).status_code == 404
    assert len(gateway.providers.seen) == before


def test_the_query_and_the_callers_headers_stay_here(http: httpx.Client, gateway: Any) -> None:
    http.post("/v1/moderations?debug=1", json={"model": "moderation", "input": "x"}, headers={"cookie": "a=b"})
    assert gateway.last.path == "/oai/v1/moderations"
    assert "cookie" not in gateway.last.headers


def test_a_voice_that_breaks_off_is_torn_and_not_ended(oai: openai.OpenAI) -> None:
    """Bytes have no place for an error: only the connection can tell."""
    with pytest.raises(openai.APIConnectionError):
        oai.audio.speech.create(model="voice", voice="alloy", input="fault:torn").read()
