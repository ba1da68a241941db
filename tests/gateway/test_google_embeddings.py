"""Embeddings asked for as OpenAI's and made by Google: alone or in an array, of any size, as numbers or packed."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest

VECTOR = [0.25, -0.5, 1.0]


@pytest.fixture
def model(gateway: Any) -> str:
    """A model behind Google alone."""
    return gateway.route("google", retries=0).first


def embeddings(gateway: Any, model: str, given: Any, **more: Any) -> Any:
    return gateway.ask(model, path="/v1/embeddings", body={"model": model, "input": given, **more})


def vectors(say: Any, *rows: list[float], alone: bool = False, **more: Any) -> bytes:
    made = [{"values": row} for row in rows]
    return say.whole(json.dumps({**({"embedding": made[0]} if alone else {"embeddings": made}), **more}).encode())


def asked(upstream: Any, model: str) -> tuple[str, Any]:
    """(path, body) of what reached the provider last."""
    last = upstream.asked(model)[-1]
    return last.head.split(b" ")[1].decode(), json.loads(last.body)


def test_one_text_is_asked_for_alone(gateway, upstream, say, model):
    upstream.script(model, vectors(say, VECTOR, alone=True))
    reply = embeddings(gateway, model, "red apples")
    assert reply.status == 200, reply.body
    assert asked(upstream, model) == (
        f"/v1beta/models/{model}:embedContent",
        {"model": f"models/{model}", "content": {"parts": [{"text": "red apples"}]}},
    )
    assert reply.json["object"] == "list"
    assert reply.json["model"] == model
    assert reply.json["data"] == [{"object": "embedding", "index": 0, "embedding": VECTOR}]


def test_an_array_is_one_batch_answered_in_its_order(gateway, upstream, say, model):
    upstream.script(model, vectors(say, [1.0], [2.0]))
    reply = embeddings(gateway, model, ["a", "b"], dimensions=1, user="somebody")
    path, body = asked(upstream, model)
    assert path.endswith(":batchEmbedContents")
    assert [each["content"]["parts"][0]["text"] for each in body["requests"]] == ["a", "b"]
    assert {each["outputDimensionality"] for each in body["requests"]} == {1}
    assert [(row["index"], row["embedding"]) for row in reply.json["data"]] == [(0, [1.0]), (1, [2.0])]


def test_packed_vectors_are_32_bit_floats_little_end_first(gateway, upstream, say, model):
    """What OpenAI's SDKs ask for by themselves."""
    upstream.script(model, vectors(say, VECTOR))
    reply = embeddings(gateway, model, ["a"], encoding_format="base64")
    assert struct.unpack("<3f", base64.b64decode(reply.json["data"][0]["embedding"])) == tuple(VECTOR)


def test_what_google_says_it_used_is_told_and_paid(gateway, upstream, say, model):
    upstream.script(model, vectors(say, VECTOR, usageMetadata={"promptTokenCount": 9}))
    reply = embeddings(gateway, model, ["a"])
    assert reply.json["usage"] == {"prompt_tokens": 9, "total_tokens": 9}
    assert reply.headers["x-router-cost-usd"].rstrip("0") == "0.000009"


def test_without_a_word_from_google_the_usage_is_an_estimate(gateway, upstream, say, model):
    upstream.script(model, vectors(say, VECTOR))
    reply = embeddings(gateway, model, ["a" * 400])
    assert 50 < reply.json["usage"]["prompt_tokens"] < 400


@pytest.mark.parametrize(
    ("given", "more", "param"),
    [
        ([1, 2, 3], {}, "input[0]"),
        ([[1, 2], [3]], {}, "input[0]"),
        ([], {}, "input"),
        ({"text": "a"}, {}, "input"),
        ("a", {"dimensions": "many"}, "dimensions"),
        ("a", {"dimensions": 0}, "dimensions"),
        ("a", {"encoding_format": "int8"}, "encoding_format"),
        ("a", {"truncate": True}, "truncate"),
    ],
)
def test_what_google_cannot_be_asked_is_refused_by_name(gateway, upstream, model, given, more, param):
    reply = embeddings(gateway, model, given, **more)
    assert reply.status == 400, reply.body
    assert reply.error["param"] == param
    assert not upstream.asked(model)


@pytest.mark.parametrize(
    "body", [{}, {"embeddings": []}, {"embeddings": [{}]}, {"embeddings": [{"values": ["a"]}]}, {"embeddings": "x"}]
)
def test_an_answer_that_is_none_is_the_providers_fault(gateway, upstream, say, model, body):
    upstream.script(model, say.whole(json.dumps(body).encode()))
    assert embeddings(gateway, model, ["a"]).status == 502


def test_geminis_own_embeddings_reach_google_as_they_were(gateway, upstream, say, model):
    upstream.script(model, vectors(say, [1.0], [2.0]))
    body = {"requests": [{"model": f"models/{model}", "content": {"parts": [{"text": text}]}} for text in "ab"]}
    reply = gateway.ask(model, path=f"/v1beta/models/{model}:batchEmbedContents", body=body)
    assert reply.json == {"embeddings": [{"values": [1.0]}, {"values": [2.0]}]}
    assert asked(upstream, model)[1] == body


@pytest.mark.parametrize(
    ("delay", "told"), [("34.074824224s", "35"), ("5s", "5"), ("2.0s", "2"), ("soon", None), ("999999999s", "86400")]
)
def test_googles_retry_delay_is_a_retry_after(gateway, upstream, say, model, delay, told):
    """RetryInfo in a 429's details says what others say in a header."""
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}
    error = {"code": 429, "message": "Quota", "status": "RESOURCE_EXHAUSTED", "details": [{"@type": "x"}, info]}
    upstream.script(model, say.whole(json.dumps({"error": error}).encode(), 429))
    reply = gateway.ask(model)
    assert reply.status == 429
    assert reply.headers.get("retry-after") == told


def test_a_header_goes_before_what_the_details_say(gateway, upstream, say, model):
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34s"}
    error = {"code": 429, "message": "Quota", "status": "RESOURCE_EXHAUSTED", "details": [info]}
    upstream.script(model, say.whole(json.dumps({"error": error}).encode(), 429, "retry-after: 3"))
    assert gateway.ask(model).headers["retry-after"] == "3"
