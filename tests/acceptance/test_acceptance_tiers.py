"""`auto` over HTTP: which tier answers and why, what it costs to the last digit, and what a poor small answer leads to."""

from __future__ import annotations

from typing import Any

import pytest
from acceptance_kit import chat, chat_events, error, provider, silent, streamed, whole

SMALL, MEDIUM = "mistral-small-latest", "mistral-medium-latest"
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object", "properties": {}}}}
FIRST_CHUNK_MS = 400
CONFIG = (
    f"relay: {{connect_ms: 500, first_chunk_ms: {FIRST_CHUNK_MS}, whole_ms: {FIRST_CHUNK_MS}, idle_ms: 400}}\n"
    "health: {threshold: 1000}\n"
)
# The predecessor's variables and its prices, in dollars per million tokens.
PRICES = {
    "PRICE_SMALL_INPUT": "0.1",
    "PRICE_SMALL_OUTPUT": "0.3",
    "PRICE_MEDIUM_INPUT": "0.4",
    "PRICE_MEDIUM_OUTPUT": "2.0",
}


mistral = provider()


@pytest.fixture(scope="module")
def env(mistral: Any) -> dict[str, str]:
    return {
        "MISTRAL_API_KEY": "sk-mistral",
        "MISTRAL_API_BASE_URL": f"{mistral.url}/v1",
        "ROUTER_MAX_INPUT_TOKENS": "4096",
        **PRICES,
    }


@pytest.fixture(scope="module")
def gateway(serve: Any, env: dict[str, str]) -> Any:
    return serve(CONFIG, env)


@pytest.fixture(autouse=True)
def _clean(mistral: Any, gateway: Any) -> None:
    """Scripts are forgotten, and the budget of retries is filled by one."""
    mistral.forget()
    for _ in range(5):
        gateway.ask("dummy")


def asked(mistral: Any) -> list[str]:
    return [one.model for one in mistral.asked()]


def text(characters: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": "x" * characters}]


# --- which tier, and what it costs ----------------------------------------------------------------------------------


def test_t_a1_a_short_question_goes_to_small_at_its_exact_price(gateway: Any, mistral: Any) -> None:
    """T-A1: 30 characters; 11 tokens in and 15 out are 5.6 microdollars, byte for byte."""
    told = gateway.ask("auto")
    assert asked(mistral) == [SMALL]
    assert told.headers["x-router-model"] == SMALL
    assert told.headers["x-router-reason"] == "default_small"
    assert told.headers["x-router-cost-usd"] == "0.0000056"
    assert told.headers["x-router-fallback"] == "false"
    assert told.headers["x-router-latency-ms"].isdigit()
    assert told.headers["x-router-tokens-input"] == "11"
    assert told.headers["x-router-tokens-output"] == "15"


def test_t_a2_tools_go_to_medium_at_its_exact_price(gateway: Any, mistral: Any) -> None:
    """T-A2: 210 tokens in and 34 out are 152 microdollars."""
    mistral.say(MEDIUM, whole(chat("sunny", (210, 34))))
    told = gateway.ask("auto", tools=[TOOL])
    assert told.headers["x-router-model"] == MEDIUM
    assert told.headers["x-router-reason"] == "function_calling"
    assert told.headers["x-router-cost-usd"] == "0.0001520"


def test_t_a2_the_same_tokens_on_medium(gateway: Any) -> None:
    """T-A2: 11 and 15 on medium; a pinned model is never swapped, and says why it runs."""
    told = gateway.ask(MEDIUM)
    assert told.headers["x-router-cost-usd"] == "0.0000344"
    assert told.headers["x-router-reason"] == "manual_override"


@pytest.mark.parametrize(
    ("usage", "small", "medium"),
    [
        ((200, 200), "0.0000800", "0.0004800"),
        ((1, 0), "0.0000001", "0.0000004"),
        ((0, 1), "0.0000003", "0.0000020"),
        ((3, 0), "0.0000003", "0.0000012"),
    ],
)
def test_t_a3_c1_costs_are_exact_decimals(
    gateway: Any, mistral: Any, usage: tuple[int, int], small: str, medium: str
) -> None:
    """T-A3, C1: exact decimals of at least seven digits; nothing is lost below a microdollar."""
    for model, cost in ((SMALL, small), (MEDIUM, medium)):
        mistral.say(model, whole(chat("fine", usage)))
        assert gateway.ask(model).headers["x-router-cost-usd"] == cost


@pytest.mark.parametrize(
    ("fields", "model", "reason"),
    [
        ({"messages": text(120)}, SMALL, "default_small"),
        ({"messages": text(121)}, MEDIUM, "heuristic_length"),
        ({"messages": text(3) * 6}, SMALL, "default_small"),
        ({"messages": text(3) * 7}, MEDIUM, "heuristic_conversation"),
        ({"response_format": {"type": "json_object"}}, MEDIUM, "json_mode"),
        ({"response_format": SCHEMA}, MEDIUM, "json_mode"),
        ({"tools": []}, SMALL, "default_small"),
        ({"messages": [{"role": "user", "content": "How do I improve my grip?"}]}, SMALL, "default_small"),
        ({"messages": [{"role": "user", "content": "Please review this"}]}, MEDIUM, "heuristic_keyword"),
    ],
)
def test_the_tier_rules_hold_over_http(gateway: Any, mistral: Any, fields: Any, model: str, reason: str) -> None:
    """T-A4, T-A5, T-A10 where they can be seen from outside."""
    mistral.say(MEDIUM, whole(chat("{}")))
    told = gateway.ask("auto", **fields)
    assert (told.headers["x-router-model"], told.headers["x-router-reason"]) == (model, reason)
    assert asked(mistral) == [model]


def test_t_a12_a_prompt_above_the_limit_is_refused_unsent(gateway: Any, mistral: Any) -> None:
    """T-A12: 4096 estimated tokens pass, 4097 are 400 `context_length_exceeded` with no call upstream."""
    longest = 4 * (4096 - 5)
    assert gateway.ask("auto", messages=text(longest)).status == 200
    mistral.forget()
    for stream in (False, True):
        told = gateway.ask("auto", messages=text(longest + 4), stream=stream)
        assert told.status == 400
        assert told.error["code"] == "context_length_exceeded"
    assert not mistral.asked()


# --- from small to medium -------------------------------------------------------------------------------------------


FAILING = {
    "500": whole(error("server_error"), 500),
    "timeout": silent,
    "empty": whole(chat("", (11, 0))),
    "nothing": whole(chat(None, (11, 0))),
    "no choices": whole({**chat("", (11, 0)), "choices": []}),
}


@pytest.mark.parametrize("kind", FAILING)
def test_t_a6_a_failing_small_answer_is_asked_of_medium_once(gateway: Any, mistral: Any, kind: str) -> None:
    """T-A6: one call to medium, which the headers name; the fallback is counted."""
    mistral.say(SMALL, FAILING[kind])
    with gateway.counting("router_fallback_total", from_="small", to="medium") as grown:
        told = gateway.ask("auto")
        assert grown() == 1
    assert told.status == 200
    assert asked(mistral) == [SMALL, MEDIUM]
    assert told.text == f"I am {MEDIUM}"
    assert told.headers["x-router-model"] == MEDIUM
    assert told.headers["x-router-original-model"] == SMALL
    assert told.headers["x-router-reason"] == "fallback"
    assert told.headers["x-router-fallback"] == "true"
    # 34.4 for medium; small is billed for its 11 tokens where it told of them, for what it may have done where it
    # was silent, and not for an error.
    cost = {"500": "0.0000344", "timeout": None}.get(kind, "0.0000355")
    if cost is not None:
        assert told.headers["x-router-cost-usd"] == cost
    else:
        assert float(told.headers["x-router-cost-usd"]) > 0.0000344


@pytest.mark.parametrize("blank", ["   ", "\n\t "])
def test_t_b2_a_discarded_answer_is_in_the_bill(gateway: Any, mistral: Any, blank: str) -> None:
    """T-A7, T-B2: white space is no answer; what it cost is in the header and its tokens are counted."""
    mistral.say(SMALL, whole(chat(blank)))
    with (
        gateway.counting("router_tokens_total", model=SMALL, type="output") as small,
        gateway.counting("router_tokens_total", model=MEDIUM, type="output") as medium,
    ):
        told = gateway.ask("auto")
        assert (small(), medium()) == (15, 15)
    assert told.headers["x-router-model"] == MEDIUM
    assert told.headers["x-router-cost-usd"] == "0.0000400"


@pytest.mark.parametrize("answer", ["42", "Yes", "0"])
def test_t_a7_a_short_answer_is_an_answer(gateway: Any, mistral: Any, answer: str) -> None:
    """T-A7, T-B1: right answers used to be thrown away and bought again."""
    mistral.say(SMALL, whole(chat(answer)))
    told = gateway.ask("auto")
    assert told.text == answer
    assert asked(mistral) == [SMALL]


def test_t_a7_a_tool_call_without_words_is_an_answer(gateway: Any, mistral: Any) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    mistral.say(SMALL, whole(chat("", tool_calls=[call], finish="tool_calls")))
    told = gateway.ask("auto")
    assert told.json["choices"][0]["message"]["tool_calls"][0]["id"] == "c1"
    assert asked(mistral) == [SMALL]


def test_when_medium_has_nothing_to_say_either_the_first_answer_is_given(gateway: Any, mistral: Any) -> None:
    """An empty answer is still better than an error that hides it; both are paid for."""
    mistral.say(SMALL, whole(chat("", (11, 0))))
    mistral.say(MEDIUM, whole(error("server_error"), 500))
    with gateway.counting("router_requests_total", model=SMALL, status_code="200") as counted:
        told = gateway.ask("auto")
        assert counted() == 1
    assert told.status == 200
    assert told.text == ""
    assert told.headers["x-router-model"] == SMALL
    assert told.headers["x-router-tokens-input"] == "11"
    assert told.headers["x-router-cost-usd"] == "0.0000011"


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_t_a8_a_bad_request_is_the_callers_own(gateway: Any, mistral: Any, status: int, stream: bool) -> None:
    """T-A8, T-B3: medium would say the same, so it is not asked; the provider's explanation is the caller's to read."""
    mistral.say(SMALL, whole(error("invalid_request_error", "temperature must be lower"), status))
    told = gateway.ask("auto", stream=stream)
    assert told.status == status
    assert told.error["message"] == "temperature must be lower"
    assert asked(mistral) == [SMALL]


@pytest.mark.parametrize("name", [SMALL, "small", f"mistral:{SMALL}", f"mistral/{SMALL}"])
@pytest.mark.parametrize("kind", ["500", "empty"])
def test_t_a8_a_forced_model_never_falls_back(gateway: Any, mistral: Any, name: str, kind: str) -> None:
    """T-A8, C9: whoever names a model gets that model's answer, or its error."""
    mistral.say(SMALL, FAILING[kind])
    told = gateway.ask(name)
    assert told.status == (502 if kind == "500" else 200)
    assert asked(mistral) == [SMALL]
    assert told.headers["x-router-fallback"] == "false"
    assert told.headers["x-router-reason"] == "manual_override"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_t_a9_when_both_fail_it_is_502_under_the_real_model(gateway: Any, mistral: Any, stream: bool) -> None:
    """T-A9, T-B7: the envelope of OpenAI; counted under the model that failed last, not under `unknown`."""
    for model in (SMALL, MEDIUM):
        mistral.say(model, whole(error("server_error"), 500))
    with (
        gateway.counting("router_requests_total", model=MEDIUM, status_code="502") as failed,
        gateway.counting("router_request_latency_ms_count", model=MEDIUM) as timed,
    ):
        told = gateway.ask("auto", stream=stream)
        assert (failed(), timed()) == (1, 1), "a failure has a latency too"
    assert told.status == 502
    assert told.error["code"] == "upstream_error"
    assert told.headers["x-router-model"] == MEDIUM
    assert told.headers["x-router-fallback"] == "true"


# --- streams --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "model", "reason"),
    [
        ({}, SMALL, "default_small"),
        ({"messages": text(121)}, MEDIUM, "heuristic_length"),
        ({"tools": [TOOL]}, MEDIUM, "function_calling"),
        ({"response_format": SCHEMA}, MEDIUM, "json_mode"),
    ],
)
def test_t_a13_streams_are_routed_by_the_same_rules(
    gateway: Any, mistral: Any, fields: Any, model: str, reason: str
) -> None:
    """T-A13, T-B8, C26: relayed as they come, with the headers before the first chunk and the cost before `[DONE]`."""
    mistral.say(model, streamed(chat_events("one ", "two"), gap_s=0.05))
    told = gateway.ask("auto", stream=True, **fields)
    assert (told.headers["x-router-model"], told.headers["x-router-reason"]) == (model, reason)
    assert "x-router-cost-usd" not in told.headers
    assert told.text == "one two"
    assert told.done
    assert told.comments["x-router-cost-usd"] == {SMALL: "0.0000056", MEDIUM: "0.0000344"}[model]
    assert told.body.index(b": x-router-cost-usd") < told.body.index(b"data: [DONE]")
    assert told.at[0] < mistral.last.told - 0.05
    if "response_format" in fields:
        assert mistral.last.json["response_format"] == SCHEMA


@pytest.mark.parametrize("kind", ["500", "timeout"])
def test_a_small_stream_that_fails_before_its_first_content_falls_to_medium(
    gateway: Any, mistral: Any, kind: str
) -> None:
    mistral.say(SMALL, FAILING[kind])
    told = gateway.ask("auto", stream=True)
    assert told.text == f"I am {MEDIUM}"
    assert told.done
    assert told.headers["x-router-model"] == MEDIUM
    assert told.headers["x-router-original-model"] == SMALL


def test_a_small_stream_without_content_falls_to_medium(gateway: Any, mistral: Any) -> None:
    """C8: nothing was told yet, so a stream that ends empty is asked elsewhere; both are in the bill."""
    mistral.say(SMALL, streamed(chat_events(usage=(11, 0))))
    told = gateway.ask("auto", stream=True)
    assert told.text == f"I am {MEDIUM}"
    assert told.comments["x-router-cost-usd"] == "0.0000355"


def test_t_b8_pictures_can_be_asked_about(gateway: Any, mistral: Any) -> None:
    """T-B8: several parts, of which one is an image, pass as they came."""
    parts = [
        {"type": "text", "text": "what is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
    ]
    told = gateway.ask("auto", messages=[{"role": "user", "content": parts}])
    assert told.status == 200
    assert mistral.last.json["messages"][0]["content"] == parts


# --- metrics --------------------------------------------------------------------------------------------------------


def test_t_a11_the_first_lines_of_metrics(serve: Any, env: dict[str, str]) -> None:
    """T-A11: exactly the lines that dashboards of the predecessor read, the fallback's before there was any."""
    gateway = serve(CONFIG, env)
    assert 'router_fallback_total{from="small",to="medium"} 0.0' in gateway.http.get("/metrics").text.splitlines()
    gateway.ask("auto")
    gateway.ask("auto", tools=[TOOL])
    lines = gateway.http.get("/metrics").text.splitlines()
    assert f'router_requests_total{{model="{SMALL}",status_code="200"}} 1.0' in lines
    assert f'router_requests_total{{model="{MEDIUM}",status_code="200"}} 1.0' in lines
    assert 'router_fallback_total{from="small",to="medium"} 0.0' in lines
    assert gateway.http.get("/metrics").headers["content-type"].startswith("text/plain; version=0.0.4")


def test_the_price_of_a_tier_that_an_operator_states_is_the_price(serve: Any, env: dict[str, str]) -> None:
    """A price that was said beats what the shipped table says of the same model."""
    said = serve(CONFIG, {**env, "PRICE_SMALL_INPUT": "1", "PRICE_SMALL_OUTPUT": "1"})
    assert said.ask("auto").headers["x-router-cost-usd"] == "0.0000260"


# --- tiers by other names, on lanes of their own --------------------------------------------------------------------


@pytest.fixture(scope="module")
def apart(serve: Any, stubs: Any) -> Any:
    """The tiers are aliases of models at two providers, of which the first is unwell."""
    weak, strong = stubs.open(), stubs.open()
    weak.say("weak", whole(error("server_error"), 500))
    return serve(f"""
health: {{threshold: 3, probe_after_ms: 60000}}
providers:
  first: {{dialect: openai, base_url: "{weak.url}"}}
  second: {{dialect: openai, base_url: "{strong.url}"}}
models:
  - {{id: a, model: "first:weak", price: {{input: 1, output: 1}}}}
  - {{id: b, model: "second:strong", price: {{input: 1, output: 1}}, capabilities: [vision]}}
aliases: {{cheap: a, dear: b}}
auto: {{small: cheap, medium: dear}}
""")


def test_a_tier_is_counted_by_its_word_whatever_its_model_is_called(apart: Any) -> None:
    """The labels of the fallback are `small` and `medium`, also where the tiers are aliases."""
    with apart.counting("router_fallback_total", from_="small", to="medium") as grown:
        assert apart.ask("auto").headers["x-router-model"] == "strong"
        assert grown() == 1


def test_a_reason_is_true_of_the_model_that_runs(apart: Any) -> None:
    """Once small is out of the running, medium does not run as `default_small`."""
    for _ in range(3):
        apart.ask("auto")
    told = apart.ask("auto")
    assert told.headers["x-router-model"] == "strong"
    assert told.headers["x-router-reason"] == "route_backup"
    assert told.headers["x-router-fallback"] == "false", "nobody was asked before it"


def test_a_picture_that_small_cannot_see_goes_to_medium_for_that(apart: Any) -> None:
    parts = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}]
    told = apart.ask("auto", messages=[{"role": "user", "content": parts}])
    assert told.headers["x-router-model"] == "strong"
    assert told.headers["x-router-reason"] == "route_backup"
