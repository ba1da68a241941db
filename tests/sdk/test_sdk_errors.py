"""What goes wrong, as OpenAI's SDK tells it: its own exceptions, with a message, a code and a word on retrying."""

from __future__ import annotations

import time
from typing import Any

import openai
import pytest

from tests.sdk.fake_words import TEXT

HELLO: Any = [{"role": "user", "content": "Hello"}]


def saying(text: str) -> Any:
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize(
    ("said", "raised", "again"),
    [
        ("fault:400", openai.BadRequestError, None),
        ("fault:404", openai.NotFoundError, None),
        ("fault:429", openai.RateLimitError, "true"),
        ("fault:500", openai.InternalServerError, "true"),
        ("fault:503", openai.InternalServerError, "true"),
        ("fault:html", openai.InternalServerError, "true"),
        ("fault:401", openai.InternalServerError, "false"),  # our key was refused: nothing the caller can mend
    ],
)
def test_a_providers_refusal_is_the_sdks_own_exception(
    oai: openai.OpenAI, model: str, said: str, raised: type[openai.APIStatusError], again: str | None
) -> None:
    for stream in (False, True):
        with pytest.raises(raised) as caught:
            oai.chat.completions.create(model=model, messages=saying(said), stream=stream)
        body: Any = caught.value.body
        assert body.keys() == {"message", "type", "param", "code"}
        assert body["message"]
        assert "html" not in body["message"]
        assert "upstream-" not in body["message"]
        assert caught.value.request_id
        assert caught.value.response.headers["content-type"] == "application/json"
        assert caught.value.response.headers.get("x-should-retry") == again


def test_an_error_that_is_no_envelope_is_put_into_one(oai: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="the weather is bad"):
        oai.chat.completions.create(model="lab/llama:free", messages=saying("fault:detail"))


def test_a_rate_limit_tells_when_to_come_back(oai: openai.OpenAI, model: str) -> None:
    with pytest.raises(openai.RateLimitError) as caught:
        oai.chat.completions.create(model=model, messages=saying("fault:429"))
    assert caught.value.response.headers["retry-after"] == "1"


def test_the_sdk_waits_as_long_as_it_is_told_and_tries_again(gateway: Any) -> None:
    before = len(gateway.providers.seen)
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=1) as client:
        started = time.monotonic()
        with pytest.raises(openai.RateLimitError):
            client.chat.completions.create(model="gpt", messages=saying("fault:429"))
    assert 1.0 <= time.monotonic() - started < 5
    assert len(gateway.providers.seen) - before == 2


def test_a_dead_provider_key_is_not_tried_again(gateway: Any) -> None:
    before = len(gateway.providers.seen)
    with (
        openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=2) as client,
        pytest.raises(openai.InternalServerError),
    ):
        client.chat.completions.create(model="gpt", messages=saying("fault:401"))
    assert len(gateway.providers.seen) - before == 1


def test_a_wrong_key_is_an_authentication_error_everywhere(gateway: Any) -> None:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="wrong", max_retries=0) as stranger:
        for ask in (
            lambda: stranger.chat.completions.create(model="gpt", messages=HELLO),
            lambda: stranger.responses.create(model="gpt", input="Hello"),
            lambda: stranger.embeddings.create(model="embed", input="Hello"),
            lambda: stranger.moderations.create(model="moderation", input="Hello"),
            lambda: stranger.models.list(),
            lambda: stranger.models.retrieve("gpt"),
        ):
            with pytest.raises(openai.AuthenticationError) as refused:
                ask()
            assert refused.value.code == "invalid_api_key"


def test_an_unknown_model_is_not_found(oai: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        oai.chat.completions.create(model="no-such-model", messages=HELLO)
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError) as unlisted:
        oai.models.retrieve("no-such-model")
    assert unlisted.value.code == "model_not_found"


def test_a_body_that_makes_no_sense_is_a_bad_request(oai: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        oai.chat.completions.create(model="claude", messages=[])
    with pytest.raises(openai.BadRequestError) as refused:
        oai.chat.completions.create(model="gpt", messages=HELLO, max_tokens=-1)
    assert refused.value.param == "max_tokens"


@pytest.mark.parametrize("fault", ["cut", "unfinished", "late"])
def test_a_broken_stream_raises_and_is_never_a_short_answer(oai: openai.OpenAI, model: str, fault: str) -> None:
    """The SDK takes a stream that merely stops for a success, so the error must be said."""
    heard: list[str] = []
    stream = oai.chat.completions.create(model=model, messages=saying(f"fault:{fault}"), stream=True)
    with pytest.raises(openai.APIError) as caught:
        heard.extend(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    assert caught.value.message


@pytest.mark.parametrize("fault", ["cut", "unfinished", "late"])
def test_a_broken_stream_has_no_clean_end(http: Any, model: str, fault: str) -> None:
    body = {"model": model, "messages": saying(f"fault:{fault}"), "stream": True}
    text = http.post("/v1/chat/completions", json=body).text
    assert "[DONE]" not in text
    assert text.rstrip().rpartition("\n")[2].startswith('data: {"error":{"message":')


@pytest.mark.parametrize("fault", ["500", "401", "html", "429"])
def test_before_the_first_content_the_next_model_of_an_alias_answers(gateway: Any, fault: str) -> None:
    """The prompt fails wherever it goes; what matters is that both were asked. Each fault has a lane of its own to rest."""
    before = len(gateway.providers.seen)
    with (
        openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0) as client,
        pytest.raises(openai.APIStatusError),
    ):
        client.chat.completions.create(model=f"spare-{fault}", messages=saying(f"fault:{fault}"))
    paths = [seen.path for seen in gateway.providers.seen[before:]]
    assert paths == ["/lab/v1/chat/completions", "/ant/v1/messages"]


def test_a_gateway_that_is_not_there_is_a_connection_error() -> None:
    with (
        openai.OpenAI(base_url="http://127.0.0.1:9/v1", api_key="any", max_retries=0) as client,
        pytest.raises(openai.APIConnectionError),
    ):
        client.models.list()


def test_after_all_these_faults_the_gateway_answers(oai: openai.OpenAI, model: str) -> None:
    assert oai.chat.completions.create(model=model, messages=HELLO).choices[0].message.content == TEXT
