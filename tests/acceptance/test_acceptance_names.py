"""What a name leads to: the placeholder, unknown names, providers that nobody configured, paths that look alike."""

from __future__ import annotations

import re
from typing import Any

import pytest

CONFIG = """
models:
  - {id: llama-helpdesk, model: "dummy:dummy-model", price: {input: 0, output: 0}}
"""

KEYS = {
    "gpt-3.5-turbo": "OpenAI key not configured",
    "claude-3": "Anthropic key not configured",
    "google-x": "Google key not configured",
    "openrouter/x": "OpenRouter key not configured",
    "grok-1": "Grok key not configured",
    "venice-x": "Venice key not configured",
    "llmd-x": "LLMD_ENDPOINT not configured",
}


@pytest.fixture(scope="module")
def gateway(serve: Any) -> Any:
    """A gateway that knows no provider at all."""
    return serve(CONFIG)


@pytest.mark.parametrize("model", ["dummy", "dummy-model"])
def test_i_a1_the_placeholder_answers_hello_world(gateway: Any, model: str) -> None:
    """I-A1: 200, an id of `cmpl-` and hexadecimal digits, one choice that says `Hello world`, usage of nothing."""
    told = gateway.ask(model)
    assert told.status == 200
    assert re.fullmatch(r"cmpl-[0-9a-f]+", told.json["id"])
    assert told.json["object"] == "chat.completion"
    assert [choice["message"]["content"] for choice in told.json["choices"]] == ["Hello world"]
    assert told.json["choices"][0]["finish_reason"] == "stop"
    usage = told.json["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (0, 0, 0)
    assert told.headers["x-router-cost-usd"] == "0.0000000"


@pytest.mark.parametrize("name", ["foo-1", "gpt", "claud-3", "auto2", "mistral", ""])
def test_i_a1_an_unknown_name_is_404_and_no_placeholder(gateway: Any, name: str) -> None:
    """I-A1, I-B1: only names that lead somewhere are answered; an empty one is no name at all."""
    told = gateway.ask(name)
    assert told.status == (404 if name else 400)
    assert told.error["code"] == ("model_not_found" if name else "model_required")
    assert told.error["param"] == "model"
    assert b"Hello world" not in told.body


def test_i_b1_a_typo_is_404_and_names_the_nearest(gateway: Any) -> None:
    """I-B1: a typo used to look like success; it is refused with what was probably meant."""
    told = gateway.ask("lama-helpdesk")
    assert told.status == 404
    assert "did you mean 'llama-helpdesk'?" in told.error["message"]


@pytest.mark.parametrize(("model", "said"), KEYS.items())
@pytest.mark.parametrize("stream", [False, True])
def test_i_a5_a_provider_without_its_key_says_which_key(gateway: Any, model: str, said: str, stream: bool) -> None:
    """I-A5: 500 with the words operators search for, streams too, and no retry invited."""
    told = gateway.ask(model, stream=stream)
    assert told.status == 500
    assert told.error["message"] == said
    assert told.error["code"] == "provider_not_configured"
    assert told.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("path", ["/openaixyz", "/openaixyz/chat/completions", "/openaixyz/v1/chat/completions"])
def test_r_b16_a_prefix_is_a_whole_segment(gateway: Any, path: str) -> None:
    """R-B16: `/openaixyz` is not `/openai`."""
    told = gateway.ask("dummy", path=path)
    assert told.status == 404
    assert told.error["code"] == "not_found"


@pytest.mark.parametrize("path", ["/openai/chat/completions", "/openai/v1/chat/completions", "/v1/chat/completions"])
def test_the_prefix_itself_is_the_same_door(gateway: Any, path: str) -> None:
    assert gateway.ask("dummy", path=path).text == "Hello world"


def test_the_placeholder_can_be_switched_off(serve: Any) -> None:
    """I-B1: `dummy*` is a provider like any other, and an operator may do without it."""
    gateway = serve("dummy: false\n")
    told = gateway.ask("dummy")
    assert told.status == 404
    assert told.error["code"] == "model_not_found"
