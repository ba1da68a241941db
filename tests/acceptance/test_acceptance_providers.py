"""Every provider through its own stub: the right path, the right key and nobody else's, in its own dialect and back."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from acceptance_kit import (
    chat,
    chat_events,
    claude,
    claude_events,
    error,
    event,
    gemini_events,
    reset,
    silent,
    streamed,
    whole,
)

from fastroute.ledger.registry import ModelRow, Registry
from fastroute.ledger.sqlite import Store

FIRST_CHUNK_MS = 400
# provider -> variable of its address, of its key, the header its key goes into, what stands before the key there.
PROVIDERS = {
    "openai": ("OPENAI_BASE_URL", "EXTERNAL_OPENAI_KEY", "authorization", "Bearer "),
    "anthropic": ("ANTHROPIC_BASE_URL", "EXTERNAL_ANTHROPIC_KEY", "x-api-key", ""),
    "google": ("GOOGLE_BASE_URL", "EXTERNAL_GOOGLE_KEY", "x-goog-api-key", ""),
    "openrouter": ("OPENROUTER_BASE_URL", "EXTERNAL_OPENROUTER_KEY", "authorization", "Bearer "),
    "grok": ("GROK_BASE_URL", "EXTERNAL_GROK_KEY", "authorization", "Bearer "),
    "venice": ("VENICE_BASE_URL", "EXTERNAL_VENICE_KEY", "authorization", "Bearer "),
    "llm-d": ("LLMD_ENDPOINT", None, None, ""),
    "local": ("LOCAL_AGENT_URL", None, None, ""),
}
# name callers use -> provider, path of a whole answer, path of a stream
PREFIXES = {
    "claude-3": ("anthropic", "/v1/messages", "/v1/messages"),
    "google-x": (
        "google",
        "/v1beta/models/google-x:generateContent",
        "/v1beta/models/google-x:streamGenerateContent?alt=sse",
    ),
    "openrouter/x": ("openrouter", "/api/v1/chat/completions", "/api/v1/chat/completions"),
    "grok-1": ("grok", "/openai/v1/chat/completions", "/openai/v1/chat/completions"),
    "venice-x": ("venice", "/v1/chat/completions", "/v1/chat/completions"),
    "llmd-x": ("llm-d", "/v1/chat/completions", "/v1/chat/completions"),
    "gpt-4": ("openai", "/v1/chat/completions", "/v1/chat/completions"),
    "local-x": ("local", "/infer", "/infer"),
}


def key_of(provider: str) -> str:
    return f"sk-canary-{provider}-5f2b"


class Field:
    """All providers and a gateway that was told of them by the environment alone, with a registry of its own."""

    def __init__(self, stubs: Any, serve: Any, place: Path) -> None:
        self.stubs = {provider: stubs.open() for provider in PROVIDERS}
        self.agents = {"local_a": stubs.open(), "local_b": stubs.open()}
        env = {}
        for provider, (address, key, _, _) in PROVIDERS.items():
            env[address] = self.stubs[provider].url
            if key:
                env[key] = key_of(provider)
        (place / "data").mkdir()
        with Store.open(place / "data" / "fastroute.db") as store:
            registry = Registry(store)
            for name, agent in self.agents.items():
                registry.add(ModelRow(name, "local", agent.url, "weight"))
            registry.add(ModelRow("local_dead", "local", "http://127.0.0.1:1", "weight"))
            registry.add(ModelRow("gpt-from-row", "anthropic", self.stubs["anthropic"].url))
        relay = (
            f"relay: {{connect_ms: 500, first_chunk_ms: {FIRST_CHUNK_MS}, whole_ms: {FIRST_CHUNK_MS}, idle_ms: 400}}\n"
        )
        self.gateway = serve(relay + "health: {threshold: 1000}\n", env, place)

    @property
    def everybody(self) -> list[Any]:
        return [*self.stubs.values(), *self.agents.values()]


@pytest.fixture(scope="module")
def field(stubs: Any, serve: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return Field(stubs, serve, tmp_path_factory.mktemp("providers"))


@pytest.fixture(autouse=True)
def _clean(field: Any) -> None:
    """Every case starts with providers that remember nothing."""
    for stub in field.everybody:
        stub.forget()


# --- who is asked, and with which key -------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("model", PREFIXES)
def test_i_a11_each_prefix_reaches_its_provider(field: Any, model: str, stream: bool) -> None:
    """I-A11: the family of a name decides the provider; path and key are the provider's own, and no other is asked."""
    provider, path, stream_path = PREFIXES[model]
    told = field.gateway.ask(model, stream=stream)
    assert told.status == 200
    (asked,) = field.stubs[provider].asked()
    assert asked.method == "POST"
    assert asked.path == (stream_path if stream else path)
    sent = model.removeprefix("openrouter/")
    assert told.text == f"I am {sent}"
    assert asked.model == sent
    _, _, header, before = PROVIDERS[provider]
    if header:
        assert asked.header(header) == before + key_of(provider)
    else:
        assert asked.header("authorization") is asked.header("x-api-key") is None
    if provider == "anthropic":
        assert asked.header("anthropic-version") == "2023-06-01"
    assert sum(len(stub.asked()) for stub in field.everybody) == 1


@pytest.mark.parametrize("model", PREFIXES)
def test_r_b5_a_key_goes_to_its_own_host_alone(field: Any, model: str) -> None:
    """R-B5: one key used to be sent to whichever provider a model's name chose."""
    provider = PREFIXES[model][0]
    field.gateway.ask(model, headers={"authorization": "Bearer sk-callers-own", "x-api-key": "sk-callers-own"})
    (asked,) = field.stubs[provider].asked()
    others = [key_of(other) for other in PROVIDERS if other != provider]
    assert not [key for key in [*others, "sk-callers-own"] if key in asked.everything]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_i_b6_googles_key_is_never_in_a_url(field: Any, stream: bool) -> None:
    """I-B6: a key in a query string lands in every access log on the way, a caller's own included."""
    told = field.gateway.ask("google-x", stream=stream)
    assert told.status == 200
    asked = field.stubs["google"].last
    assert key_of("google") not in asked.path
    assert "key=" not in asked.path
    assert asked.header("x-goog-api-key") == key_of("google")
    assert key_of("google") not in field.gateway.log.read_text()


def test_i_a11_a_registry_row_beats_the_prefix(field: Any) -> None:
    """I-A11: `gpt-from-row` looks like OpenAI's, but a row says Anthropic."""
    assert field.gateway.ask("gpt-from-row").text == "I am gpt-from-row"
    assert len(field.stubs["anthropic"].asked()) == 1
    assert not field.stubs["openai"].asked()
    assert field.stubs["anthropic"].last.header("x-api-key") == key_of("anthropic")


def test_i_a6_each_local_model_reaches_the_agent_of_its_row(field: Any) -> None:
    """I-A6, I-B2: local traffic used to go to one address whatever the registry said."""
    for name, agent in field.agents.items():
        assert field.gateway.ask(name).text == f"I am {name}"
        (asked,) = agent.asked()
        assert asked.path == "/infer"
        assert asked.model == name
        assert asked.header("authorization") is None
    assert not field.stubs["local"].asked()


def test_r_a10_a_claude_model_never_meets_openais_key(stubs: Any, serve: Any) -> None:
    """R-A10: with OpenAI alone configured, Anthropic sees neither a request nor a key, and OpenAI no claude."""
    openai, anthropic = stubs.open(), stubs.open()
    gateway = serve(
        "", {"OPENAI_API_KEY": "sk-only", "OPENAI_BASE_URL": openai.url, "ANTHROPIC_BASE_URL": anthropic.url}
    )
    for path in ("/v1/chat/completions", "/openai/v1/chat/completions"):
        told = gateway.ask("claude-x", path=path)
        assert told.status == 500
        assert told.error["message"] == "Anthropic key not configured"
    told = gateway.ask("claude-x", path="/anthropic/v1/messages", max_tokens=5)
    assert told.status == 500
    assert not anthropic.asked()
    assert not openai.asked()


def test_c27_a_base_url_is_normalised_once(stubs: Any, serve: Any) -> None:
    """C27: with or without `/v1` and a slash, the adapter's path is the same."""
    stub = stubs.open()
    endings = {"bare": "", "slash": "/", "version": "/v1", "both": "/v1/"}
    lines = [f'  {name}: {{dialect: openai, base_url: "{stub.url}{end}"}}' for name, end in endings.items()]
    gateway = serve("\n".join(["providers:", *lines, ""]))
    for name in endings:
        assert gateway.ask(f"{name}:llama").status == 200
    assert [asked.path for asked in stub.asked()] == ["/v1/chat/completions"] * len(endings)


# --- dialects -------------------------------------------------------------------------------------------------------


def test_i_a13_anthropic_is_asked_in_its_own_words(field: Any) -> None:
    """I-A13, I-B5: `system` apart, `max_tokens` always, no nulls; the caller reads OpenAI's shape with usage."""
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    told = field.gateway.ask("claude-3", messages=messages, temperature=None, tools=None, max_tokens=None, stop=None)
    asked = field.stubs["anthropic"].last.json
    assert asked["system"] == "Be brief."
    assert asked["max_tokens"] == 4096
    assert asked["messages"] == [{"role": "user", "content": "Hello"}]
    assert "null" not in json.dumps(asked)
    assert told.json["object"] == "chat.completion"
    assert told.json["choices"][0]["message"]["role"] == "assistant"
    assert told.json["choices"][0]["finish_reason"] == "stop"
    usage = told.json["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (11, 15, 26)


def test_r_a11_the_request_is_translated(field: Any) -> None:
    """R-A11: system, user and a stop word give `system`, one message, `stop_sequences` and 4096."""
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    field.gateway.ask("claude-3", messages=messages, stop="END")
    assert field.stubs["anthropic"].last.json == {
        "model": "claude-3",
        "max_tokens": 4096,
        "system": "S",
        "messages": [{"role": "user", "content": "U"}],
        "stop_sequences": ["END"],
    }


def test_r_a11_the_answer_is_translated(field: Any) -> None:
    """R-A11: two text blocks are joined, `max_tokens` is `length`, and the usage adds up."""
    field.stubs["anthropic"].say("claude-3", whole(claude("one ", "two", usage=(10, 8), stop="max_tokens")))
    told = field.gateway.ask("claude-3")
    assert told.text == "one two"
    assert told.json["choices"][0]["finish_reason"] == "length"
    assert told.json["usage"]["total_tokens"] == 18


def test_r_a11_tool_calls_make_the_round_trip(field: Any) -> None:
    """R-A11, R-B15: id, name and arguments survive both ways; the reason is `tool_calls`."""
    use = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Zürich"}}
    field.stubs["anthropic"].say("claude-3", whole(claude(use, stop="tool_use")))
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
    first = field.gateway.ask("claude-3", tools=[tool])
    choice = first.json["choices"][0]
    (call,) = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls"
    assert (call["id"], call["function"]["name"]) == ("toolu_1", "weather")
    assert json.loads(call["function"]["arguments"]) == {"city": "Zürich"}
    result = {"role": "tool", "tool_call_id": "toolu_1", "content": "sunny"}
    field.gateway.ask("claude-3", messages=[{"role": "user", "content": "?"}, choice["message"], result], tools=[tool])
    spoken, answered = field.stubs["anthropic"].last.json["messages"][1:]
    assert [block for block in spoken["content"] if block["type"] == "tool_use"] == [use]
    (block,) = answered["content"]
    assert (block["type"], block["tool_use_id"]) == ("tool_result", "toolu_1")
    assert "sunny" in json.dumps(block["content"])


# --- streams --------------------------------------------------------------------------------------------------------


def stream_of(provider: str, *texts: str, **how: Any) -> Any:
    words = {"anthropic": claude_events, "google": gemini_events}.get(provider, chat_events)
    return streamed(words(*texts), **how)


@pytest.mark.parametrize("model", PREFIXES)
def test_i_a14_streams_arrive_in_order_and_end_in_done(field: Any, model: str) -> None:
    """I-A14: chunks pass as they come, in order, `[DONE]` last and once."""
    provider = PREFIXES[model][0]
    texts = [f"piece {number} " for number in range(5)]
    stub = field.stubs[provider]
    stub.say(model.removeprefix("openrouter/"), stream_of(provider, *texts, gap_s=0.03))
    told = field.gateway.ask(model, stream=True)
    assert told.headers["content-type"].startswith("text/event-stream")
    assert told.text == "".join(texts)
    assert told.done
    assert told.data.count("[DONE]") == 1
    assert told.at[0] < stub.last.told - 0.03, "the first chunk came before the last was said"


@pytest.mark.parametrize("model", PREFIXES)
def test_i_a14_an_error_before_the_first_byte_is_no_stream(field: Any, model: str) -> None:
    """I-A14, I-B8: 502 with an envelope, not a 200 that breaks off."""
    provider = PREFIXES[model][0]
    field.stubs[provider].say(model.removeprefix("openrouter/"), whole(error("server_error"), 500))
    told = field.gateway.ask(model, stream=True)
    assert told.status == 502
    assert told.headers["content-type"] == "application/json"
    assert told.error["code"] == "upstream_error"


def test_an_error_inside_a_stream_before_any_content_is_no_stream_either(field: Any) -> None:
    field.stubs["openai"].say("gpt-4", streamed([event(error("server_error"))]))
    assert field.gateway.ask("gpt-4", stream=True).status in (502, 503)


# --- a local agent that is unwell ------------------------------------------------------------------------------------


def test_i_a4_a_local_agent_that_fails_is_502(field: Any) -> None:
    """I-A4: the agent's 500 is a 502 that says who failed, and not in the agent's own words."""
    field.stubs["local"].say("local-x", whole(error("boom", "a secret of the agent"), 500))
    told = field.gateway.ask("local-x")
    assert told.status == 502
    assert told.error["message"].startswith("Local agent error")
    assert "secret" not in told.error["message"]


def test_i_a4_a_local_agent_that_breaks_off_is_502(field: Any) -> None:
    field.stubs["local"].say("local-x", reset)
    told = field.gateway.ask("local-x")
    assert told.status == 502
    assert told.error["message"].startswith("Local agent error")


def test_i_a4_a_local_agent_that_refuses_connections_is_502(field: Any) -> None:
    """I-A4, I-B7: refused connections used to be 500."""
    told = field.gateway.ask("local_dead")
    assert told.status == 502
    assert told.error["message"].startswith("Local agent error")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_i_a4_a_local_agent_that_hangs_is_504_at_the_deadline(field: Any, stream: bool) -> None:
    """I-A4: never 500, and not before nor long after the deadline."""
    field.stubs["local"].say("local-x", silent)
    started = time.monotonic()
    told = field.gateway.ask("local-x", stream=stream)
    took_ms = (time.monotonic() - started) * 1000
    assert told.status == 504
    assert told.error["code"] == "upstream_timeout"
    assert FIRST_CHUNK_MS <= took_ms < FIRST_CHUNK_MS + 1500


def test_an_agents_answer_is_an_openai_answer(field: Any) -> None:
    """An agent that leaves out what clients trip over is mended."""
    field.stubs["local"].say("local-x", whole(chat("Echo: hello", usage=None)))
    told = field.gateway.ask("local-x")
    assert told.text == "Echo: hello"
    assert told.headers["x-router-cost-usd"] == "0.0000000", "nobody sends a bill for one's own machine"
