"""What makes two requests the same, whose answers are worth keeping, and what a caller may say about it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from fastroute.cache import (
    Answer,
    Wishes,
    answer_of,
    canonical,
    deterministic,
    name_of,
    root_of,
    sealed,
    secret_of,
    unsealed,
    wishes,
)
from fastroute.caching import likely

ROOT = root_of(b"a pepper of thirty-two bytes ...")
BODY = {"messages": [{"role": "user", "content": "hi"}], "temperature": 0, "max_tokens": 5}


@pytest.mark.parametrize("fields", [{"user": "u1"}, {"metadata": {"a": "b"}}, {"stream": True}, {"model": "other"}])
def test_who_asks_and_what_is_said_beside_the_body_is_not_in_its_form(fields):
    assert canonical("chat", {**BODY, **fields}) == canonical("chat", BODY)


def test_the_order_of_keys_is_not_in_its_form():
    assert canonical("chat", dict(reversed(BODY.items()))) == canonical("chat", BODY)
    turned = {**BODY, "messages": [dict(reversed(turn.items())) for turn in BODY["messages"]]}
    assert canonical("chat", turned) == canonical("chat", BODY)


@pytest.mark.parametrize(
    "place", ["response_format", "tools", "functions", "text", "generationConfig", "output_format"]
)
def test_the_order_of_a_schemas_keys_is(place):
    """Structured answers are written in the order of their schema: what comes first is thought of first."""
    one, other = ({**BODY, place: {"schema": {"properties": {key: {} for key in names}}}} for names in ("ab", "ba"))
    assert canonical("chat", one) != canonical("chat", other)
    assert canonical("chat", dict(reversed(one.items()))) == canonical("chat", one)


@pytest.mark.parametrize("fields", [{"user": "u1"}, {"metadata": {"a": "b"}}, {"safety_identifier": "s"}])
def test_what_an_answer_of_responses_repeats_is_in_its_form(fields):
    assert canonical("responses", {**BODY, **fields}) != canonical("responses", BODY)
    assert canonical("responses", {**BODY, "stream": True, "model": "other"}) == canonical("responses", BODY)


@pytest.mark.parametrize(
    "fields",
    [
        {"seed": 1},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"response_format": {"type": "json_object"}},
        {"max_tokens": 6},
        {"n": 2},
        {"messages": [{"role": "user", "content": "hi "}]},
        {"stream_options": {"include_usage": True}},
        {"anything": "a provider may know"},
    ],
)
def test_everything_else_is(fields):
    assert canonical("chat", {**BODY, **fields}) != canonical("chat", BODY)


def test_names_are_of_one_tenant_and_parts_do_not_run_together():
    mine, yours = secret_of(ROOT, "account a"), secret_of(ROOT, "account b")
    assert name_of(mine, [b"ab", b"c"]) == name_of(mine, [b"ab", b"c"])
    names = {
        name_of(secret, parts)
        for secret in (mine, yours, secret_of(root_of(b"another pepper"), "account a"))
        for parts in ([b"ab", b"c"], [b"a", b"bc"], [b"abc"], [b"abc", b""])
    }
    assert len(names) == 12
    assert all(len(name) == 64 and set(name) <= set("0123456789abcdef") for name in names)


@pytest.mark.parametrize(
    ("surface", "body", "same"),
    [
        ("chat", {"temperature": 0}, True),
        ("chat", {"temperature": 0.0}, True),
        ("chat", {"temperature": False}, False),
        ("chat", {"temperature": "0"}, False),
        ("chat", {"temperature": 0.1}, False),
        ("chat", {}, False),
        ("messages", {"temperature": 0}, True),
        ("embeddings", {"input": "a"}, True),
        ("gemini", {"generationConfig": {"temperature": 0}}, True),
        ("gemini", {"generation_config": {"temperature": 0}}, True),
        ("gemini", {"generationConfig": {"temperature": 0}, "generation_config": {"temperature": 1}}, False),
        ("gemini", {"temperature": 0}, False),
    ],
)
def test_an_answer_is_expected_to_be_the_same_at_a_temperature_of_zero(surface, body, same):
    assert deterministic(surface, body) is same


@pytest.mark.parametrize(
    ("body", "may"),
    [
        (b'{"temperature": 0}', True),
        (b'{"temperature":0.0,"a":1}', True),
        (b'{"temperature" : -0e5 }', True),
        (b'{"a": "\\"temperature\\": 0,", "temperature": 0}', True),
        (b'{"a": "\\"temperature\\": 0,"}', False),
        (b'{"temperature": 0.5}', False),
        (b'{"temperature": 10}', False),
        (b'{"temperature": null}', False),
        (b"{}", False),
    ],
)
def test_most_bodies_are_passed_over_at_a_glance(body, may):
    call = SimpleNamespace(surface=SimpleNamespace(name="chat"), body=body)
    assert likely(call) is may


@pytest.mark.parametrize(
    ("cache_control", "x_cache", "wanted"),
    [
        (None, None, Wishes()),
        (b"no-store", None, Wishes(reads=False, keeps=False)),
        (b"no-cache", None, Wishes(reads=False)),
        (b"max-age=0", None, Wishes(reads=False, max_age_s=0)),
        (b"Max-Age=30", None, Wishes(asked=True, max_age_s=30)),
        (b"max-age=5, no-cache", b"use", Wishes(reads=False, asked=True, max_age_s=5)),
        (None, b" Use ", Wishes(asked=True)),
        (None, b"yes", Wishes()),
        (b"max-age=-1, max-age=x, private, ,", None, Wishes()),
        (b"max-age=999999999999999", None, Wishes(asked=True, max_age_s=2**31)),
        (b"max-age=" + b"9" * 5000, None, Wishes()),
    ],
)
def test_wishes_are_read_from_two_headers(cache_control, x_cache, wanted):
    assert wishes(cache_control, x_cache) == wanted


# --- what is kept ---------------------------------------------------------------------------------------------------

STREAM = (
    b': ping\n\ndata: {"a": "\\n: not a comment"}\n\n: OPENROUTER PROCESSING\n\n'
    b"data: 2\n\n: x-router-latency-ms: 5\n: x-router-cost-usd: 0.1\n\ndata: [DONE]\n\n"
)


def test_of_a_stream_the_events_are_kept_and_the_place_of_our_comment():
    kept = answer_of("req_1", "small", 7, STREAM, stream=True)
    assert kept == Answer(
        "req_1", "small", 7, True, b'data: {"a": "\\n: not a comment"}\n\ndata: 2\n\n', b"data: [DONE]\n\n"
    )
    bare = answer_of("req_1", "small", 7, b": ping\r\n\r\ndata: 1\r\n\r\n", stream=True)
    assert bare is not None
    assert (bare.before, bare.after) == (b"data: 1\r\n\r\n", None)


@pytest.mark.parametrize(
    "told",
    [
        b"data: 1\n: within\n\ndata: 2\n\n",
        b": before\ndata: 1\n\n: alone\n: and another\n\n: ping\n\ndata: 2\n\n",
        b"data: 1\n\ndata: 2\n: within\n: and another\n\n: the last\n\n",
    ],
)
@pytest.mark.parametrize("ends", [b"\n", b"\r\n"])
def test_a_comment_leaves_the_events_beside_it_two(told, ends):
    kept = answer_of("req_1", "small", 7, told.replace(b"\n", ends), stream=True)
    assert kept is not None
    assert kept.before == b"data: 1\n\ndata: 2\n\n".replace(b"\n", ends)


@pytest.mark.parametrize(
    "told",
    [
        b'{"choices":[{"finish_reason":"content_filter"}]}',
        b'{"choices": [{"finish_reason" : "content_filter"}]}',
        b'{"stop_reason":"refusal"}',
        b'{"candidates":[{"finishReason":"SAFETY"}]}',
        b'{"promptFeedback":{"blockReason":"OTHER"}}',
        b'{"message":{"refusal":"I will not"}}',
        b"",
        b"x" * (1 << 20) + b"x",
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_was_refused_or_is_too_long_is_not_kept(told, stream):
    assert answer_of("req_1", "small", 7, told, stream=stream) is None


def test_a_text_that_speaks_of_refusals_is_kept():
    told = b'{"message":{"content":"say \\"finish_reason\\":\\"content_filter\\" and \\"refusal\\": \\"no\\"","refusal":null}}'
    assert answer_of("req_1", "small", 7, told, stream=False) is not None


def test_a_sealed_answer_opens_under_its_own_name_and_secret_alone():
    secret, other = secret_of(ROOT, "account a"), secret_of(ROOT, "account b")
    answer = Answer("req_1", "small", 7, False, b"{}")
    value = sealed(secret, "name", answer)
    assert unsealed(secret, "name", value) == answer
    assert unsealed(other, "name", value) is None
    assert unsealed(secret, "another", value) is None
    for place in range(len(value)):
        spoiled = value[:place] + bytes([value[place] ^ 1]) + value[place + 1 :]
        assert unsealed(secret, "name", spoiled) is None
    for cut in range(len(value)):
        assert unsealed(secret, "name", value[:cut]) is None
    assert unsealed(secret, "name", b"fr1" + bytes(32) + answer.pack()) is None
