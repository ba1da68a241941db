"""What holds for every dialect: a stream adds up to the whole answer, and no body raises but a ShapeError."""

import json
import os

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastroute.callers import CALLERS, Reply, ShapeError, embeddings, gemini
from fastroute.callers.shape import sse, usage_of, without_extensions
from fastroute.domain import Usage

EXAMPLES = 5_000 if os.environ.get("FASTROUTE_TORTURE") else 60
bounded = settings(deadline=None, max_examples=EXAMPLES)

ASKING = {
    "thinking": {"type": "adaptive"},
    "reasoning": {"effort": "low"},
    "generationConfig": {"thinkingConfig": {"includeThoughts": True}},
    "stream_options": {"include_usage": True},
}
REPLY = Reply(id="abc", created=7, model="m", body=ASKING)

said = st.text(min_size=1, max_size=12) | st.sampled_from(["\u2028", "\x85", "é\U0001f600", "data: x\n\n", "\r"])
pieces = st.lists(said, max_size=4)
arguments = st.dictionaries(
    st.text(max_size=4), st.none() | st.integers(-9, 9) | said | st.lists(said, max_size=2), max_size=3
)
reasons = st.sampled_from(["stop", "length", "tool_calls", "content_filter"])
counts = st.integers(0, 1000)


@st.composite
def calls(draw):
    """A tool call with its arguments cut into pieces at random places."""
    text = json.dumps(draw(arguments), ensure_ascii=draw(st.booleans()))
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=3)))
    return text, [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@st.composite
def answers(draw):
    """A chat answer, whole and as chunks whose tool deltas may interleave."""
    reasoning, text, made = draw(pieces), draw(pieces), draw(st.lists(calls(), max_size=3))
    reason = draw(reasons)
    message = {"role": "assistant", "content": "".join(text) or None}
    if reasoning:
        message["reasoning_content"] = "".join(reasoning)
    deltas = [{"role": "assistant", "content": ""}]
    deltas += [{"reasoning_content": piece} for piece in reasoning] + [{"content": piece} for piece in text]
    heads, rest = [], []
    for i, (whole, cut) in enumerate(made):
        function = {"name": f"f{i}", "arguments": whole}
        message.setdefault("tool_calls", []).append({"id": f"call_{i}", "type": "function", "function": function})
        heads.append(
            {"index": i, "id": f"call_{i}", "type": "function", "function": {"name": f"f{i}", "arguments": ""}}
        )
        rest.append([{"index": i, "function": {"arguments": piece}} for piece in cut])
    if draw(st.booleans()):
        order = draw(st.permutations([i for i, deltas_of in enumerate(rest) for _ in deltas_of]))
        tools = heads + [rest[i].pop(0) for i in order]
    else:
        tools = [delta for head, tail in zip(heads, rest, strict=True) for delta in [head, *tail]]
    deltas += [{"tool_calls": [tool]} for tool in tools]
    usage = {"prompt_tokens": draw(counts), "completion_tokens": draw(counts)}
    chunks = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks += [{"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}, {"choices": [], "usage": usage}]
    return {"choices": [{"index": 0, "message": message, "finish_reason": reason}], "usage": usage}, chunks


def assemble_message(events):
    """A Message as Anthropic's SDKs accumulate it, with one block open at a time."""
    message, current = None, None
    buffers = {}
    for name, data in events:
        assert name == data["type"]
        if name == "message_start":
            assert message is None
            message = data["message"]
        elif name == "content_block_start":
            assert current is None
            assert data["index"] == len(message["content"])
            current = data["index"]
            message["content"].append(data["content_block"])
        elif name == "content_block_delta":
            assert data["index"] == current
            block, delta = message["content"][current], data["delta"]
            if delta["type"] == "input_json_delta":
                buffers[current] = buffers.get(current, "") + delta["partial_json"]
            else:
                key = delta["type"].removesuffix("_delta")
                block[key] += delta[key]
        elif name == "content_block_stop":
            assert data["index"] == current
            if message["content"][current]["type"] == "tool_use":
                message["content"][current]["input"] = json.loads(buffers.get(current) or "{}")
            current = None
        elif name == "message_delta":
            assert current is None
            message |= data["delta"]
            message["usage"] |= data["usage"]
    assert events[-1][0] == "message_stop"
    return message


def assemble_response(events):
    """A Response built from its items' own events, checked against the one that its last event tells."""
    output, parts = [], {}
    for i, (name, data) in enumerate(events):
        assert (data["type"], data["sequence_number"]) == (name, i)
        if name == "response.output_item.added":
            assert data["output_index"] == len(output)
            output.append(data["item"])
        elif name.endswith(".delta"):
            assert data["item_id"] == output[-1]["id"]
            parts[data["item_id"]] = parts.get(data["item_id"], "") + data["delta"]
        elif name.endswith((".arguments.done", "_text.done", "refusal.done", "arguments.done")):
            told = data.get("arguments", data.get("text", data.get("refusal")))
            assert told == parts.get(data["item_id"], "")
        elif name == "response.output_item.done":
            assert data["output_index"] == len(output) - 1
            output[-1] = data["item"]
    response = events[-1][1]["response"]
    assert events[-1][0] == f"response.{response['status']}"
    assert response["output"] == output
    return response


def assemble_gemini(events):
    """A GenerateContentResponse with the text of neighbouring parts joined."""
    parts, last = [], events[-1][1]
    for name, data in events:
        assert name is None
        (candidate,) = data["candidates"]
        parts += candidate["content"]["parts"]
    last["candidates"][0]["content"]["parts"] = parts
    return joined(last)


def joined(response):
    content = response["candidates"][0]["content"]
    parts = []
    for part in content["parts"]:
        if parts and "text" in part and "text" in parts[-1] and part.get("thought") == parts[-1].get("thought"):
            parts[-1] = {**parts[-1], "text": parts[-1]["text"] + part["text"]}
        elif part != {"text": ""}:
            parts.append(part)
    content["parts"] = [part for part in parts if part != {"text": ""}]
    return response


def assemble_completion(events):
    assert events[-1] == (None, "[DONE]")
    whole = {**events[0][1], "choices": [{"text": "", "index": 0, "logprobs": None, "finish_reason": None}]}
    for _, data in events[:-1]:
        for choice in data["choices"]:
            whole["choices"][0]["text"] += choice["text"]
            whole["choices"][0]["finish_reason"] = choice["finish_reason"]
        whole |= {"usage": data["usage"]} if "usage" in data else {}
    return whole


ASSEMBLE = {
    "messages": assemble_message,
    "responses": assemble_response,
    "gemini": assemble_gemini,
    "completions": assemble_completion,
}


@pytest.mark.parametrize("dialect", CALLERS)
@bounded
@given(made=answers(), asks=st.booleans())
def test_a_stream_adds_up_to_the_whole_answer(dialect, read_sse, run, made, asks):
    """With reasoning or, when nobody asked for it, without: then no place is left empty."""
    whole, chunks = made
    body = ASKING if asks else {"stream_options": ASKING["stream_options"]}
    reply = Reply(id="abc", created=7, model="m", body=body)
    events = read_sse(run(CALLERS[dialect].stream(reply), chunks))
    expected = CALLERS[dialect].from_answer(whole, reply)
    assert ASSEMBLE[dialect](events) == (joined(expected) if dialect == "gemini" else expected)


@pytest.mark.parametrize("dialect", CALLERS)
@bounded
@given(made=answers(), after=st.integers(0, 20))
def test_a_stream_cut_anywhere_never_looks_finished(dialect, read_sse, made, after):
    """Whatever came before, a failure adds exactly its error and silences the encoder."""
    _, chunks = made
    encoder = CALLERS[dialect].stream(REPLY)
    raw = b"".join(encoder.feed(chunk) for chunk in chunks[:after])
    events = read_sse(raw + encoder.fail("server_error", "upstream_cut", "cut", 502))
    assert b"[DONE]" not in raw
    assert not {name for name, _ in events} & {"message_stop", "response.completed", "response.incomplete"}
    assert events[-1][1]["error"]["message"] == "cut"
    assert encoder.feed(chunks[0]) + encoder.finish() + encoder.start() + encoder.fail("a", None, "b") == b""


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.just(10**30) | st.floats(-2, 2) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
GOOD = {
    "messages": {
        "model": "m",
        "max_tokens": 5,
        "system": [{"type": "text", "text": "s"}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "a"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QQ"}},
                    {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "c"}]}},
                ],
            },
            {"role": "assistant", "content": [{"type": "tool_use", "id": "i", "name": "n", "input": {"a": [1]}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "i", "content": [{"type": "text"}]}]},
        ],
        "tools": [{"name": "n", "input_schema": {}, "description": "d", "strict": True}],
        "tool_choice": {"type": "tool", "name": "n", "disable_parallel_tool_use": True},
        "thinking": {"type": "enabled", "budget_tokens": 2000},
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {}}},
        "metadata": {"user_id": "u"},
        "stop_sequences": ["x"],
    },
    "responses": {
        "model": "m",
        "instructions": "i",
        "input": [
            {
                "role": "user",
                "content": [{"type": "input_text", "text": "a"}, {"type": "input_image", "image_url": "u"}],
            },
            {"type": "function_call", "call_id": "c", "name": "n", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "x"}]},
            {"type": "reasoning", "summary": []},
        ],
        "tools": [{"type": "function", "name": "n", "parameters": {}}],
        "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "n"}]},
        "reasoning": {"effort": "low"},
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {}}},
        "metadata": {},
    },
    "gemini": {
        "model": "m",
        "contents": [
            {"role": "user", "parts": [{"text": "a"}, {"inlineData": {"mimeType": "image/png", "data": "Q"}}]},
            {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": "s"}]},
            {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"a": 1}}}]},
        ],
        "systemInstruction": {"parts": [{"text": "s"}]},
        "tools": [{"functionDeclarations": [{"name": "f", "parameters": {"type": "OBJECT", "properties": {"a": {}}}}]}],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}},
        "generationConfig": {
            "topK": 4,
            "responseMimeType": "application/json",
            "responseSchema": {"type": "ARRAY", "items": {"type": "STRING"}, "minItems": "1"},
            "thinkingConfig": {"thinkingBudget": 5},
        },
    },
    "completions": {"model": "m", "prompt": ["a"], "n": 1, "stop": ["a"], "logit_bias": {}, "stream_options": {}},
}


def places(value, path=()):
    """Every path in a body."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from places(item, (*path, key))


def replaced(value, path, new):
    if not path:
        return new
    head, *rest = path
    made = dict(value) if isinstance(value, dict) else list(value)
    made[head] = replaced(value[head], rest, new)
    return made


@pytest.mark.parametrize("dialect", CALLERS)
@bounded
@given(data=st.data())
def test_a_broken_body_raises_nothing_but_a_shape_error(dialect, data):
    """One or two places of a good body hold something else; what is accepted can be sent, echoed and stripped."""
    body = GOOD[dialect]
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(list(places(body))))
        body = replaced(body, path, data.draw(JSON))
    caller = CALLERS[dialect]
    try:
        chat = caller.to_chat(body)
    except ShapeError as refusal:
        said = str(refusal)
        chat = None
    if chat is None:
        assert said
        return
    assert caller.needs_native(body) is None
    assert chat["messages"]
    assert isinstance(chat["model"], str)
    orjson.dumps(without_extensions(chat))
    reply = Reply(id="x", created=1, model="m", body=body)
    whole = {"choices": [{"message": {"content": "x", "reasoning": "y"}, "finish_reason": "stop"}]}
    orjson.dumps(caller.from_answer(whole, reply))
    encoder = caller.stream(reply)
    encoder.start()
    encoder.feed({"choices": [{"index": 0, "delta": {"content": "x", "reasoning": "y"}, "finish_reason": "stop"}]})
    assert encoder.finish()


@bounded
@given(body=JSON)
def test_any_json_at_all_raises_nothing_but_a_shape_error(body):
    for translate in [caller.to_chat for caller in CALLERS.values()]:
        with pytest.raises(ShapeError):
            translate(body)
    with pytest.raises(ShapeError):
        embeddings.to_embeddings(body, "m")
    with pytest.raises(ShapeError):
        gemini.count_to_chat(body, "m")


@pytest.mark.parametrize("dialect", CALLERS)
@bounded
@given(data=st.data(), made=answers())
def test_an_upstream_that_lies_about_shapes_raises_nothing(dialect, read_sse, run, data, made):
    whole, chunks = made
    caller = CALLERS[dialect]
    path = data.draw(st.sampled_from(list(places(whole))))
    broken = replaced(whole, path, data.draw(JSON))
    if isinstance(broken, dict):
        orjson.dumps(caller.from_answer(broken, REPLY))
    at = data.draw(st.integers(0, len(chunks) - 1))
    path = data.draw(st.sampled_from([place for place in places(chunks[at]) if place]))
    chunks[at] = replaced(chunks[at], path, data.draw(JSON))
    assert read_sse(run(caller.stream(REPLY), chunks))


def test_a_number_no_encoder_takes_is_refused_where_it_stands():
    call = {"type": "tool_use", "id": "i", "name": "n", "input": {"a": 10**30}}
    with pytest.raises(ShapeError, match=r"content\[0\].input: holds a number beyond 64 bits"):
        CALLERS["messages"].to_chat({"model": "m", "messages": [{"role": "assistant", "content": [call]}]})
    with pytest.raises(ShapeError, match="metadata: holds a number"):
        CALLERS["responses"].to_chat({"model": "m", "input": "x", "metadata": {"a": 10**30}})


def test_a_schema_nested_without_end_is_refused():
    schema = {"type": "STRING"}
    for _ in range(200):
        schema = {"type": "ARRAY", "items": schema}
    body = {**GOOD["gemini"], "generationConfig": {"responseMimeType": "application/json", "responseSchema": schema}}
    with pytest.raises(ShapeError, match="deeper"):
        gemini.to_chat(body)


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85"])
def test_line_separators_of_unicode_never_stand_bare_in_an_event(separator):
    """Several SDKs split lines as Python does, and would cut the event in two."""
    raw = sse({"a": f"x{separator}\u2019y"})
    assert raw.decode().splitlines() == [raw.decode().rstrip("\n"), ""]
    assert json.loads(raw.decode().removeprefix("data: ")) == {"a": f"x{separator}\u2019y"}


def test_extensions_are_taken_out_for_a_strict_upstream():
    chat = {
        "model": "m",
        "top_k": 1,
        "reasoning_effort": "low",
        "messages": [
            {
                "role": "assistant",
                "content": None,
                "thinking_blocks": [1],
                "tool_calls": [{"id": "1", "extra_content": {}}],
            }
        ],
    }
    before = json.dumps(chat)
    assert without_extensions(chat) == {
        "model": "m",
        "reasoning_effort": "low",
        "messages": [{"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}],
    }
    assert json.dumps(chat) == before


@pytest.mark.parametrize(
    ("given_usage", "expected"),
    [
        (None, Usage()),
        ({}, Usage()),
        ({"prompt_tokens": -1, "completion_tokens": True, "prompt_tokens_details": 3}, Usage()),
        ({"prompt_tokens": 10**40}, Usage()),
        ({"prompt_tokens": 10, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}, Usage(6, 2, 4)),
        ({"prompt_tokens": 9, "prompt_tokens_details": {"cache_creation_tokens": 4}}, Usage(5, 0, 0, 4)),
        (Usage(1, 2), Usage(1, 2)),
    ],
)
def test_usage_is_read_once_for_every_dialect(given_usage, expected):
    assert usage_of(given_usage) == expected


@pytest.mark.parametrize("dialect", CALLERS)
def test_usage_given_at_the_end_wins_over_what_the_stream_said(dialect, read_sse, run):
    chunks = [
        {"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}},
    ]
    raw = run(CALLERS[dialect].stream(REPLY), chunks, Usage(4321, 1234))
    assert b"4321" in raw
    assert b"1234" in raw
