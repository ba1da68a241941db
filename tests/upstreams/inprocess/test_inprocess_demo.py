"""The simulated providers: the same request gets the same answer, and everything in it adds up."""

from __future__ import annotations

import base64
import itertools
import os
from array import array
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastroute import _core
from fastroute.clock import ManualClock
from fastroute.domain import CAPABILITIES, RUNTIMES, Entry, Price
from fastroute.routing.catalog import Catalog
from fastroute.upstreams.demo import DEMO_MODELS, DemoUpstream, demo_routes
from fastroute.upstreams.openai import usage_of

QUESTION = "What should a small team know about budgets before the first invoice?"
MODELS = {entry.id: entry for entry in DEMO_MODELS}
TALKERS = [name for name in MODELS if name != "demo-embed"]
EXAMPLES = 5_000 if os.environ.get("FASTROUTE_TORTURE") else 100


@pytest.fixture
def demo() -> DemoUpstream:
    return DemoUpstream(clock=ManualClock())


def chat(model: str = "demo-small", content: Any = QUESTION, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": content}], **more}


def tool(name: str, parameters: Any, description: str = "") -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


WEATHER = tool(
    "get_weather",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "unit": {"enum": ["celsius", "fahrenheit"]},
            "days": {"type": "integer", "minimum": 1, "maximum": 3},
        },
        "required": ["city"],
    },
    "The weather of a place",
)


# --- the catalog ---------------------------------------------------------------------------------------------------


def test_every_model_has_a_price_a_window_and_a_latency():
    for entry in DEMO_MODELS:
        assert isinstance(entry, Entry)
        assert isinstance(entry.price, Price)
        assert entry.context_window
        assert entry.p50_latency_ms
        assert entry.runtime in RUNTIMES
        assert set(entry.capabilities) <= set(CAPABILITIES)


def test_the_catalog_takes_them_as_they_are():
    assert Catalog(DEMO_MODELS).lanes == ("demo", "demo-stall", "demo-flaky", "demo-cut")


def test_only_the_local_model_is_free():
    assert [entry.id for entry in DEMO_MODELS if entry.price.rates.input == 0] == ["demo-local"]
    assert (MODELS["demo-local"].runtime, MODELS["demo-local"].price.source) == ("local", "free")


def test_the_routes_fail_over_from_one_lane_to_another():
    for first, second in demo_routes().values():
        assert MODELS[first].lane != MODELS[second].lane
        assert set(MODELS[first].capabilities) <= set(MODELS[second].capabilities)


# --- answers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", TALKERS)
def test_an_answer_names_its_model_and_echoes_the_question(ask, demo, model):
    told = ask(demo, "chat", chat(model))
    answer = told.json
    assert (told.status, answer["object"], answer["model"]) == (200, "chat.completion", model)
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "stop"
    assert model in choice["message"]["content"]
    assert "What should a small team know" in choice["message"]["content"]


@pytest.mark.parametrize("stream", [False, True])
def test_the_same_request_gets_the_same_bytes_at_the_same_pace(ask, stream):
    tellings = [ask(DemoUpstream(clock=ManualClock()), "chat", chat(), stream=stream) for _ in range(2)]
    assert tellings[0].chunks == tellings[1].chunks


def test_another_question_gets_another_answer(ask, demo):
    answers = {ask(demo, "chat", chat(content=f"question {number}?")).raw for number in range(20)}
    assert len(answers) == 20


def test_usage_adds_up_and_stays_below_what_is_reserved_for_it(ask, demo):
    body = chat(tools=[WEATHER], tool_choice="none")
    usage = ask(demo, "chat", body).json["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage_of(usage) is not None
    assert usage["prompt_tokens"] > len(QUESTION) // 4
    assert usage["prompt_tokens"] <= _core.token_bound(len(QUESTION), 1, 1, 0, -1)


def test_one_prompt_token_is_four_characters(ask, demo):
    few, many = (ask(demo, "chat", chat(content="word " * count)).json["usage"] for count in (80, 880))
    assert many["prompt_tokens"] - few["prompt_tokens"] == 1000


@pytest.mark.parametrize("limit", [1, 3, 7])
def test_max_tokens_ends_the_answer_early_and_says_so(ask, demo, limit):
    whole = ask(demo, "chat", chat()).json["choices"][0]["message"]["content"]
    answer = ask(demo, "chat", chat(max_tokens=limit)).json
    (choice,) = answer["choices"]
    assert (choice["finish_reason"], answer["usage"]["completion_tokens"]) == ("length", limit)
    assert whole.startswith(choice["message"]["content"])


def test_a_stop_sequence_ends_the_answer_before_itself(ask, demo):
    whole = ask(demo, "chat", chat()).json["choices"][0]["message"]["content"]
    (choice,) = ask(demo, "chat", chat(stop=["never there", " simulated"])).json["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (whole.split(" simulated")[0], "stop")


def test_several_choices_are_numbered_and_counted(ask, demo):
    answer = ask(demo, "chat", chat(n=3)).json
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert answer["usage"]["completion_tokens"] > 30


def test_an_image_is_seen(ask, demo):
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
    ]
    assert "1 image" in ask(demo, "chat", chat("demo-large", parts)).json["choices"][0]["message"]["content"]


# --- streams -------------------------------------------------------------------------------------------------------


def together(objects: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Choices put together again from their chunks."""
    whole: dict[int, dict[str, Any]] = {}
    for chunk in objects:
        for choice in chunk["choices"]:
            seen = whole.setdefault(choice["index"], {"text": "", "calls": [], "finish": None})
            delta = choice.get("delta", {})
            seen["text"] += delta.get("content") or choice.get("text") or ""
            for call in delta.get("tool_calls", ()):
                if "id" in call:
                    seen["calls"].append({"id": call["id"], "name": call["function"]["name"], "arguments": ""})
                seen["calls"][call["index"]]["arguments"] += call["function"]["arguments"]
            seen["finish"] = choice["finish_reason"] or seen["finish"]
    return whole


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"n": 2},
        {"max_tokens": 4},
        {"stop": "simulated"},
        {"tools": [WEATHER]},
        {"tools": [WEATHER], "max_tokens": 2},
        {"response_format": {"type": "json_object"}},
    ],
    ids=str,
)
def test_a_stream_put_together_is_the_whole_answer(ask, demo, more):
    answer = ask(demo, "chat", chat(**more)).json
    told = ask(demo, "chat", chat(**more, stream=True, stream_options={"include_usage": True}), stream=True)
    whole = together(told.objects)
    for choice in answer["choices"]:
        message, streamed = choice["message"], whole[choice["index"]]
        assert (message["content"] or "", choice["finish_reason"]) == (streamed["text"], streamed["finish"])
        calls = [{"id": call["id"], **call["function"]} for call in message.get("tool_calls", ())]
        assert calls == streamed["calls"]
    assert told.objects[-1]["usage"] == answer["usage"]


def test_usage_is_streamed_only_when_it_is_asked_for(ask, demo):
    told = ask(demo, "chat", chat(stream=True), stream=True)
    assert not any("usage" in chunk for chunk in told.objects)


def test_a_stream_visibly_streams(ask, demo):
    told = ask(demo, "chat", chat(), stream=True)
    times = [at for at, _ in told.chunks]
    gaps = [after - before for before, after in itertools.pairwise(times[1:])]
    assert len(gaps) > 15
    assert all(9 <= gap <= 26 for gap in gaps)


@pytest.mark.parametrize(
    ("model", "least", "most"), [("demo-small", 60, 120), ("demo-medium", 150, 300), ("demo-slow", 60_000, 60_000)]
)
def test_the_first_token_comes_at_the_models_own_pace(ask, demo, model, least, most):
    told = ask(demo, "chat", chat(model), stream=True)
    role, content = told.chunks[0], told.chunks[1]
    assert role[0] <= 100
    assert b'"content":""' in role[1]
    assert least - 1 <= content[0] <= most + 1


def test_a_whole_answer_takes_as_long_as_its_stream(ask, demo):
    streamed = ask(demo, "chat", chat(), stream=True).chunks[-1][0]
    whole = ask(demo, "chat", chat()).chunks[-1][0]
    assert whole == pytest.approx(streamed, abs=2)


# --- tools and JSON ------------------------------------------------------------------------------------------------


def call_of(answer: dict[str, Any]) -> tuple[str, Any]:
    (choice,) = answer["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (None, "tool_calls")
    (call,) = choice["message"]["tool_calls"]
    assert call["type"] == "function"
    assert call["id"].startswith("call_")
    return call["function"]["name"], orjson.loads(call["function"]["arguments"])


def test_a_user_with_tools_gets_one_call_that_fits_its_schema(ask, demo):
    name, arguments = call_of(ask(demo, "chat", chat(content="How warm is it in Lisbon?", tools=[WEATHER])).json)
    assert (name, arguments["city"]) == ("get_weather", "Lisbon")
    assert fits(arguments, WEATHER["function"]["parameters"])


def test_the_tool_that_shares_words_with_the_question_is_called(ask, demo):
    tools = [tool("send_invoice", {}), WEATHER]
    assert call_of(ask(demo, "chat", chat(content="weather please", tools=tools)).json)[0] == "get_weather"
    assert call_of(ask(demo, "chat", chat(content="an invoice please", tools=tools)).json)[0] == "send_invoice"


def test_a_named_tool_is_called_and_none_calls_none(ask, demo):
    tools = [WEATHER, tool("look_up", {"type": "object", "properties": {"query": {"type": "string"}}})]
    named = {"type": "function", "function": {"name": "look_up"}}
    called = call_of(ask(demo, "chat", chat(content="the weather?", tools=tools, tool_choice=named)).json)
    assert called == ("look_up", {"query": "the weather?"})
    assert "tool_calls" not in ask(demo, "chat", chat(tools=tools, tool_choice="none")).json["choices"][0]["message"]


def test_what_the_tool_said_is_answered_in_words(ask, demo):
    body = chat(tools=[WEATHER])
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    body["messages"] += [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "21 degrees"},
    ]
    (choice,) = ask(demo, "chat", body).json["choices"]
    assert choice["finish_reason"] == "stop"
    assert "21 degrees" in choice["message"]["content"]


def test_json_mode_answers_an_object(ask, demo):
    (choice,) = ask(demo, "chat", chat(response_format={"type": "json_object"})).json["choices"]
    assert orjson.loads(choice["message"]["content"])["model"] == "demo-small"


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """The slow and obvious judge of what the tests ask for."""
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    if "anyOf" in schema:
        return any(fits(value, option) for option in schema["anyOf"])
    if "enum" in schema:
        return value in schema["enum"]
    kind = schema["type"]
    if isinstance(kind, list):
        return any(fits(value, {**schema, "type": each}) for each in kind)
    if kind in ("integer", "number"):
        right = isinstance(value, int if kind == "integer" else int | float) and not isinstance(value, bool)
        return right and schema.get("minimum", value) <= value <= schema.get("maximum", value)
    if not isinstance(value, kinds[kind]):
        return False
    if kind == "object":
        fields = schema.get("properties", {})
        return set(schema.get("required", ())) <= value.keys() and all(
            fits(value[name], fields[name]) for name in value
        )
    if kind == "array":
        return schema.get("minItems", 0) <= len(value) and all(fits(each, schema["items"]) for each in value)
    return schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 10**6) if kind == "string" else True


def _bounded(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    numbers = st.integers(-50, 50)
    return st.tuples(st.none() | numbers, st.none() | st.integers(0, 30)).map(
        lambda pair: {
            "type": kind,
            **({"minimum": pair[0]} if pair[0] is not None else {}),
            **({"maximum": (pair[0] or 0) + pair[1]} if pair[1] is not None else {}),
        }
    )


def _object(fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": list(fields)[::2]}


LEAVES = st.one_of(
    _bounded("integer"),
    _bounded("number"),
    st.sampled_from(
        [
            {"type": "string"},
            {"type": "string", "minLength": 40},
            {"type": "string", "maxLength": 2},
            {"type": "string", "format": "date", "maxLength": 10},
            {"type": "boolean"},
            {"type": "null"},
            {"type": ["null", "integer"]},
            {"enum": ["a", 1, None]},
        ]
    ),
)
NAMES = st.sampled_from(["city", "query", "count", "name", "when"])
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.dictionaries(NAMES, inner, max_size=4).map(_object),
        st.tuples(inner, st.integers(0, 3)).map(lambda pair: {"type": "array", "items": pair[0], "minItems": pair[1]}),
        st.lists(inner, min_size=1, max_size=3).map(lambda options: {"anyOf": options}),
    ),
    max_leaves=8,
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.dictionaries(NAMES, SCHEMAS, max_size=4).map(_object))
def test_every_schema_gets_a_value_that_fits(schema):
    wanted = {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}}
    demo = DemoUpstream(clock=ManualClock())
    for more in ({"response_format": wanted}, {"tools": [tool("it", schema)]}):
        script = demo.script("chat", "demo-small", False, orjson.dumps(chat(**more)))
        message = orjson.loads(script.pieces[0][1])["choices"][0]["message"]
        text = message["content"] or message["tool_calls"][0]["function"]["arguments"]
        assert fits(orjson.loads(text), schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"next": {"$ref": "#"}, "also": {"$ref": "#"}}, "required": ["next", "also"]},
        {"$ref": "#"},
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "anyOf": [{"$ref": "#/$defs/a"}]},
        {"type": "array", "items": {"$ref": "#"}, "minItems": 9},
        {"type": "array", "items": {"type": "integer"}, "minItems": 10**9},
        {"type": "string", "minLength": 10**9},
        {"type": "integer", "minimum": 5, "maximum": 1, "multipleOf": 0},
        {"type": 7, "properties": [], "required": "all", "enum": 3, "anyOf": {}},
    ],
    ids=str,
)
def test_a_schema_without_end_or_sense_is_still_answered(ask, demo, schema):
    told = ask(demo, "chat", chat(response_format={"type": "json_schema", "json_schema": {"schema": schema}}))
    assert told.status == 200
    orjson.loads(told.json["choices"][0]["message"]["content"])
    assert len(told.raw) < 200_000


def test_references_and_all_of_are_followed(ask, demo):
    schema = {
        "$defs": {"id": {"type": "integer", "minimum": 7, "maximum": 7}},
        "allOf": [
            {"type": "object", "properties": {"id": {"$ref": "#/$defs/id"}}, "required": ["id"]},
            {"properties": {"kind": {"const": "x"}}, "required": ["kind"]},
        ],
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}}
    (choice,) = ask(demo, "chat", chat(response_format=wanted)).json["choices"]
    assert orjson.loads(choice["message"]["content"]) == {"id": 7, "kind": "x"}


# --- plain completions and embeddings ------------------------------------------------------------------------------


def test_prompts_are_completed_whole_and_streamed(ask, demo):
    body = {"model": "demo-small", "prompt": ["one", "two"]}
    answer = ask(demo, "completions", body).json
    whole = together(ask(demo, "completions", {**body, "stream": True}, stream=True).objects)
    assert answer["object"] == "text_completion"
    assert [choice["text"] for choice in answer["choices"]] == [whole[0]["text"], whole[1]["text"]]
    assert all("one" in whole[0]["text"] and each["finish"] == "stop" for each in whole.values())


def embed(ask, demo, **more: Any) -> dict[str, Any]:
    return ask(demo, "embeddings", {"model": "demo-embed", **more}).json


def test_embeddings_are_unit_vectors_that_depend_on_the_text(ask, demo):
    answer = embed(ask, demo, input=["red apples", "red apples", "blue sky"])
    vectors = [row["embedding"] for row in answer["data"]]
    assert [row["index"] for row in answer["data"]] == [0, 1, 2]
    assert vectors[0] == vectors[1] != vectors[2]
    for vector in vectors:
        assert len(vector) == 256
        assert sum(each * each for each in vector) == pytest.approx(1)
    assert answer["usage"] == {"prompt_tokens": 8, "total_tokens": 8}


def test_texts_that_share_words_lie_closer(ask, demo):
    texts = ["how to reset a password", "reset my password", "the price of green tea"]
    question, near, far = (row["embedding"] for row in embed(ask, demo, input=texts)["data"])

    def cosine(other: list[float]) -> float:
        return sum(a * b for a, b in zip(question, other, strict=True))

    assert cosine(near) > cosine(far) + 0.2


@pytest.mark.parametrize("given_input", ["a text", [1, 2, 3], ["a", "b"], [[1, 2], [3]]], ids=str)
def test_base64_says_the_same_numbers(ask, demo, given_input):
    plain = embed(ask, demo, input=given_input, dimensions=32)["data"]
    packed = embed(ask, demo, input=given_input, dimensions=32, encoding_format="base64")["data"]
    for row, other in zip(plain, packed, strict=True):
        assert array("f", base64.b64decode(other["embedding"])).tolist() == row["embedding"]
        assert len(row["embedding"]) == 32


# --- failures ------------------------------------------------------------------------------------------------------


def test_the_flaky_one_fails_every_second_time(ask, demo):
    assert [ask(demo, "chat", chat("demo-flaky")).status for _ in range(6)] == [200, 503] * 3


def test_a_cut_stream_ends_half_way_without_a_last_word(ask, demo):
    whole = ask(demo, "chat", chat("demo-cut")).json["choices"][0]["message"]["content"]
    told = ask(demo, "chat", chat("demo-cut"), stream=True)
    assert told.fault is not None
    assert told.fault.kind == "cut"
    objects = [orjson.loads(event) for event in told.events]
    text = together(objects)[0]["text"]
    assert whole.startswith(text)
    assert 0.3 * len(whole) < len(text) < 0.7 * len(whole)
    assert all(choice["finish_reason"] is None for chunk in objects for choice in chunk["choices"])


@pytest.mark.parametrize(
    ("operation", "body", "status", "param"),
    [
        ("chat", chat("demo-huge"), 404, "model"),
        ("responses", chat(), 404, None),
        ("chat", chat("demo-embed"), 400, "model"),
        ("embeddings", {"model": "demo-small", "input": "x"}, 400, "model"),
        ("embeddings", {"model": "demo-embed"}, 400, "input"),
        ("embeddings", {"model": "demo-embed", "input": []}, 400, "input"),
        ("embeddings", {"model": "demo-embed", "input": "x", "dimensions": 0}, 400, "dimensions"),
        ("completions", {"model": "demo-small"}, 400, "prompt"),
        ("chat", {"model": "demo-small"}, 400, "messages"),
        ("chat", chat(n=0), 400, "n"),
        ("chat", chat(n=129), 400, "n"),
        ("chat", chat(max_tokens="9"), 400, "max_tokens"),
        (
            "chat",
            chat(tools=[WEATHER], tool_choice={"type": "function", "function": {"name": "x"}}),
            400,
            "tool_choice",
        ),
        ("chat", chat("demo-local", "word " * 40_000), 400, "messages"),
        ("chat", b"[1]", 400, None),
        ("chat", b"{", 400, None),
    ],
)
def test_a_bad_request_is_refused_in_openais_envelope(ask, demo, operation, body, status, param):
    told = ask(demo, operation, body)
    assert told.status == status
    assert told.json.keys() == {"error"}
    assert (told.json["error"]["type"], told.json["error"]["param"]) == ("invalid_request_error", param)
    assert told.json["error"]["message"]


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.sampled_from(["chat", "completions", "embeddings"]),
    st.fixed_dictionaries(
        {},
        optional={
            field: st.recursive(
                st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=4),
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(st.sampled_from(["role", "content", "type", "function", "name", "text"]), inner)
                ),
                max_leaves=6,
            )
            for field in ("messages", "prompt", "input", "tools", "tool_choice", "response_format", "stop", "n")
        },
    ),
    st.booleans(),
)
def test_no_request_makes_an_upstream_raise(operation, body, stream):
    model = "demo-embed" if operation == "embeddings" else "demo-small"
    script = DemoUpstream(clock=ManualClock()).script(operation, model, stream, orjson.dumps(body))
    assert script.status in (200, 400)
