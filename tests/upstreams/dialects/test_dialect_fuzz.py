"""Whatever is fed in, nothing but a `DialectError` comes out, and streams do not even raise that."""

from __future__ import annotations

import os

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastroute.domain import Usage
from fastroute.upstreams.anthropic import Anthropic
from fastroute.upstreams.dialect import DialectError, ProviderError
from fastroute.upstreams.google import Google
from fastroute.upstreams.openai import OpenAI

EXAMPLES = 20_000 if os.environ.get("FASTROUTE_TORTURE") == "1" else 60
DIALECTS = [OpenAI(), Anthropic(), Google()]
IDENTITY = {"model": "m", "created": 1, "id": "chatcmpl-1"}
each_dialect = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
fuzzed = settings(max_examples=EXAMPLES, deadline=None)

# The words of all three wires, so that random bodies get past the first door.
KEYS = st.sampled_from([
    "messages", "role", "content", "type", "text", "tools", "tool_calls", "function", "name", "arguments",
    "id", "tool_call_id", "image_url", "url", "file", "file_data", "tool_choice", "response_format",
    "json_schema", "schema", "stop", "max_tokens", "reasoning_effort", "thinking", "thinking_blocks",
    "choices", "message", "delta", "index", "finish_reason", "usage", "prompt_tokens", "completion_tokens",
    "total_tokens", "error", "code", "status", "candidates", "parts", "functionCall", "args", "inlineData",
    "finishReason", "promptFeedback", "blockReason", "usageMetadata", "promptTokenCount", "totalTokenCount",
    "content_block", "stop_reason", "input_tokens", "output_tokens", "input", "partial_json",
    "prompt_tokens_details", "cached_tokens", "input_audio", "extra_content", "google", "parameters",
    "properties", "details",
])  # fmt: skip
WORDS = st.sampled_from([
    "system", "user", "assistant", "tool", "function", "text", "image_url", "file", "auto", "none",
    "required", "json_schema", "json_object", "object", "high", "tool_use", "thinking", "text_delta",
    "input_json_delta", "thinking_delta", "signature_delta", "message_start", "message_delta", "error",
    "message_stop", "content_block_start", "content_block_delta", "content_block_stop", "STOP", "SAFETY",
    "stop", "{}", "data:image/png;base64,a", "https://x",
])  # fmt: skip
leaf = st.one_of(st.none(), st.booleans(), st.integers(-2, 3), st.just(10**12), st.floats(allow_nan=False), WORDS)
value = st.recursive(
    st.one_of(leaf, st.text(max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=5)),
    max_leaves=25,
)
body = st.one_of(value, st.dictionaries(KEYS, value, max_size=6))
message = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool"])},
    optional={"content": value, "tool_calls": value, "tool_call_id": WORDS, "thinking_blocks": value},
)
chat = st.dictionaries(KEYS, value, max_size=4).flatmap(
    lambda rest: st.lists(message, max_size=4).map(lambda messages: {**rest, "messages": messages})
)


@each_dialect
@fuzzed
@given(chat=st.one_of(chat, st.dictionaries(KEYS, value, max_size=6)), stream=st.booleans())
def test_any_request_is_said_or_refused(dialect, chat, stream):
    try:
        said = dialect.request(chat, "gemini-3-claude-sonnet-4-5", stream=stream, max_output=100)
    except DialectError as refused:
        assert refused.param  # noqa: PT017 - most requests are not refused
        return
    orjson.dumps(said)


@each_dialect
@fuzzed
@given(told=body)
def test_any_answer_is_understood_or_refused(dialect, told):
    usage = dialect.usage(told)
    assert usage is None or isinstance(usage, Usage)
    try:
        whole = dialect.answer(told, **IDENTITY)
    except DialectError:
        return
    assert whole["id"]
    assert isinstance(whole["choices"], list)
    assert isinstance(whole["usage"], dict)


@each_dialect
@fuzzed
@given(status=st.integers(0, 999), raw=st.one_of(st.binary(max_size=40), body.map(orjson.dumps)))
def test_any_error_body_makes_an_error(dialect, status, raw):
    told = dialect.error(status, raw)
    assert isinstance(told, ProviderError)
    assert told.type
    assert told.code
    assert 0 < len(told.message) <= 500


@each_dialect
@fuzzed
@given(
    events=st.lists(
        st.tuples(WORDS, st.one_of(st.just(b"[DONE]"), st.binary(max_size=20), body.map(orjson.dumps))), max_size=8
    )
)
def test_any_stream_is_relayed_or_ends_in_an_error(dialect, events):
    stream = dialect.stream(**IDENTITY, include_usage=True)
    for event in events:
        for out in stream.feed(*event):
            assert out.startswith(b"data: ")
            assert out.endswith(b"\n\n")
    assert stream.error is None or isinstance(stream.error, ProviderError)


@each_dialect
def test_nesting_without_end_is_an_error_and_not_a_crash(dialect):
    """A parser takes 1000 levels, a writer 254: what cannot be written again is the provider's fault."""
    deep = b'{"a":' * 400 + b"1" + b"}" * 400
    shapes = {
        "openai": b'{"choices":[{"delta":{"content":"x","deep":%b}}]}',
        "anthropic": b'{"type":"content_block_start","content_block":{"type":"tool_use","id":"a",'
        b'"name":"f","input":%b}}',
        "google": b'{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":%b}}]}}]}',
    }
    stream = dialect.stream(**IDENTITY, include_usage=False)
    stream.feed("", shapes[dialect.name] % deep)
    stream.feed("", b'{"type":"content_block_stop"}')
    assert stream.error is not None
    assert stream.error.code == "malformed_event"
