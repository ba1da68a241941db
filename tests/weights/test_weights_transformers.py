"""Transformers on a tiny model that is made here: exact counts, stops across tokens, seeds, templates, callers who leave."""

import contextlib
import time
from importlib.util import find_spec

import httpx
import openai
import pytest

from fastroute.weights import WeightsError, host
from tests.weights import tiny_llama as tiny

MISSING = [name for name in ("torch", "transformers", "tokenizers", "safetensors") if find_spec(name) is None]
pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"{', '.join(MISSING)} not installed (fastroute[weights]): no weights are run by transformers"
)

HI = [{"role": "user", "content": "hé 😀"}]
PROMPT_TOKENS = len(tiny.templated(("user", "hé 😀")).encode())


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny.make(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def address(model):
    with host(str(model), threads=1, patience_s=90) as address:
        yield address


@pytest.fixture(scope="module")
def client(address):
    with openai.OpenAI(base_url=address.base_url, api_key=address.api_key, max_retries=0) as client:
        yield client


def told(client, **how):
    how = {"model": "tiny", "messages": HI, "temperature": 0, "max_tokens": 24} | how
    return client.chat.completions.create(**how)


def test_every_token_is_counted(client):
    """The prompt's bytes are its tokens, and so are the letters of the answer."""
    answer = told(client)
    text = answer.choices[0].message.content
    assert len(text) == 24
    assert answer.choices[0].finish_reason == "length"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (PROMPT_TOKENS, 24)
    assert (answer.id.startswith("hf-"), answer.model) == (True, "tiny")


def test_nobody_said_how_many_is_sixteen(client):
    """At temperature 0, as a drawn answer may end by itself before."""
    answer = client.chat.completions.create(model="tiny", messages=HI, temperature=0)
    assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (16, "length")


def test_a_stream_is_the_same_answer_in_pieces(client):
    whole = told(client)
    chunks = list(told(client, stream=True, stream_options={"include_usage": True}))
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert "".join(pieces) == whole.choices[0].message.content
    assert len(pieces) == 24, "a token is told when it is made"
    assert chunks[-1].usage == whole.usage


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_of_several_tokens_is_never_told(client, stream):
    text = told(client).choices[0].message.content
    stop = text[5:9]
    place = text.index(stop)
    answer = told(client, stop=[stop, "never said"], stream=stream)
    if stream:
        chunks = list(answer)
        content = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert (content, chunks[-1].choices[0].finish_reason) == (text[:place], "stop")
    else:
        assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (text[:place], "stop")
        assert answer.usage.completion_tokens == place + 4, "what was made is counted, told or not"


def test_a_seed_repeats_an_answer_and_nothing_else_does(client):
    def drawn(seed=None):
        return told(client, temperature=1.5, seed=seed, top_p=0.95).choices[0].message.content

    assert drawn(1) == drawn(1)
    assert len({drawn(1), drawn(2), drawn(), drawn()}) == 4


def test_the_models_own_template_words_the_conversation_and_may_refuse_it(client):
    turns = [("system", "be brief"), ("user", "hi"), ("assistant", "yes"), ("user", "more")]
    answer = told(client, messages=[{"role": role, "content": text} for role, text in turns])
    assert answer.usage.prompt_tokens == len(tiny.templated(*turns))
    with pytest.raises(openai.BadRequestError, match="no parrots"):
        told(client, messages=[{"role": "parrot", "content": "x"}])


def test_a_text_is_gone_on_from(client):
    answer = client.completions.create(model="tiny", prompt="once upon", max_tokens=5, temperature=0)
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (9, 5)
    assert len(answer.choices[0].text) == 5


def test_what_does_not_fit_is_refused_before_anything_is_made(client):
    with pytest.raises(openai.BadRequestError) as refused:
        told(client, messages=[{"role": "user", "content": "x" * tiny.CONTEXT}])
    assert refused.value.code == "context_length_exceeded"
    almost = tiny.CONTEXT - len(tiny.templated(("user", ""))) - 3
    answer = told(client, messages=[{"role": "user", "content": "x" * almost}], max_tokens=50)
    assert answer.usage.completion_tokens == 3, "an answer ends where the context does"


def test_a_caller_who_leaves_frees_the_model_within_a_token(client, address):
    body = {"messages": HI, "max_tokens": 2000, "stream": True}
    headers = {"authorization": f"Bearer {address.api_key}"}
    with (
        contextlib.suppress(httpx.ReadTimeout),
        httpx.stream("POST", f"{address.base_url}/chat/completions", json=body, headers=headers) as answer,
    ):
        next(answer.iter_lines())
    started = time.monotonic()
    told(client, max_tokens=1)
    assert time.monotonic() - started < 2, "two thousand tokens take longer than that"


def test_pickles_are_refused_unread(tmp_path):
    path = tiny.make(tmp_path / "pickled")
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"pickled has no \.safetensors"), host(str(path), patience_s=30):
        pass
