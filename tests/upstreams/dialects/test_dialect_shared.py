"""Paths, headers, faults, usage and refusals: what holds for every dialect."""

from __future__ import annotations

import orjson
import pytest

from fastroute.domain import Usage
from fastroute.upstreams.anthropic import Anthropic
from fastroute.upstreams.anthropic import usage_of as anthropic_usage
from fastroute.upstreams.dialect import HINTS, DialectError, error_from, read_error, scrub
from fastroute.upstreams.google import Google
from fastroute.upstreams.google import usage_of as google_usage
from fastroute.upstreams.openai import OpenAI
from fastroute.upstreams.openai import usage_of as openai_usage

USER = [{"role": "user", "content": "hi"}]
BEARER = (b"authorization", b"Bearer k")


@pytest.mark.parametrize(
    ("dialect", "model", "path", "auth"),
    [
        (Anthropic(), "claude-3", "/v1/messages", (b"x-api-key", b"k")),
        (Google(), "google-x", "/v1beta/models/google-x:generateContent", (b"x-goog-api-key", b"k")),
        (OpenAI(), "gpt-4", "/v1/chat/completions", BEARER),
        (OpenAI(chat_path="/infer"), "local-x", "/infer", BEARER),
    ],
)
def test_i_a11_each_family_is_reached_at_its_path_with_its_key_header(dialect, model, path, auth):
    assert dialect.path("chat", model, False) == path
    assert auth in dialect.headers("k", {})


def test_i_b6_the_google_key_is_never_in_the_path():
    assert Google().path("chat", "gemini-2.5-flash", True) == (
        "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse"
    )


def test_a_model_name_cannot_leave_its_place_in_a_google_path():
    """Slashes, question marks and dots of a name are data, not path."""
    assert Google().path("chat", "a/../b?key=1#x", False) == "/v1beta/models/a%2F..%2Fb%3Fkey%3D1%23x:generateContent"
    assert Google().path("chat", "models/gemini-2.5-pro", False) == "/v1beta/models/gemini-2.5-pro:generateContent"


@pytest.mark.parametrize(
    ("dialect", "operation"), [(OpenAI(), "messages"), (Anthropic(), "embeddings"), (Google(), "responses")]
)
def test_an_operation_a_dialect_has_no_path_for_is_refused(dialect, operation):
    with pytest.raises(DialectError, match="operation"):
        dialect.path(operation, "m", False)


def test_only_listed_headers_of_the_caller_go_up():
    """S17: the list decides; the caller's key, cookies, addresses and idempotency keys stay here."""
    passed = {
        "Authorization": "Bearer vk-mine", "Cookie": "a=b", "X-Forwarded-For": "1.2.3.4", "traceparent": "00-1",
        "Host": "evil", "OpenAI-Beta": "assistants=v2", "openai-organization": "org-1", "openai-project": "p-1",
        "x-stainless-lang": "python", "Idempotency-Key": "1",
        "anthropic-beta": "a,b", "anthropic-version": "2026-10-21",
    }  # fmt: skip
    always = {b"content-type", b"accept", b"accept-encoding"}
    names = {name for name, _ in OpenAI().headers("k", passed)}
    assert names == always | {b"authorization", b"openai-beta", b"openai-organization", b"openai-project"}
    claude = dict(Anthropic().headers("k", passed))
    assert claude.keys() == always | {b"x-api-key", b"anthropic-version", b"anthropic-beta"}
    assert (claude[b"anthropic-version"], claude[b"anthropic-beta"]) == (b"2026-10-21", b"a,b")
    assert dict(Anthropic().headers("k", {}))[b"anthropic-version"] == b"2023-06-01"
    assert {name for name, _ in Google().headers("k", passed)} == always | {b"x-goog-api-key"}


def test_no_key_means_no_key_header_and_no_compression_is_asked_for():
    for dialect in (OpenAI(), Anthropic(), Google()):
        headers = dict(dialect.headers(None, {}))
        assert not {b"authorization", b"x-api-key", b"x-goog-api-key"} & headers.keys()
        assert headers[b"accept-encoding"] == b"identity"


@pytest.mark.parametrize("value", ["a\r\nx: y", "a\nb", "a\x00", "é", "k\n"])
def test_a_value_that_could_end_a_header_line_is_refused_and_not_repeated(value):
    """S20, for the caller's values and for keys alike."""
    with pytest.raises(DialectError) as refused:
        Anthropic().headers(None, {"anthropic-beta": value})
    assert value not in str(refused.value)
    with pytest.raises(DialectError):
        OpenAI().headers(value, {})


@pytest.mark.parametrize(
    ("text", "gone"),
    [
        ("Incorrect API key provided: sk-proj-abc***xyz9.", "xyz9"),
        ("bad vk-0123456789", "0123456789"),
        ("token ic_abcdefgh refused", "abcdefgh"),
        ("your key xai-abcdef0123 is blocked", "abcdef0123"),
        ("?key=AIzaSyD-1234567890&x=1", "1234567890"),
        ("/v1?key=plainsecret&alt=sse", "plainsecret"),
        ("Authorization: bearer abcdef0123456789", "abcdef0123456789"),
    ],
)
def test_keys_are_taken_out_of_what_a_provider_says(text, gone):
    assert gone not in scrub(text)
    assert "***" in scrub(text)


@pytest.mark.parametrize("text", ["task-force ask-me disk-full1", "basic_auth public_key", "a bearer of news"])
def test_words_that_only_look_like_keys_stay(text):
    assert scrub(text) == text


def test_a_fault_repeats_at_most_500_characters_on_one_line():
    told = read_error(500, orjson.dumps({"error": {"message": "x\r\n" + "y" * 9000 + " sk-abcdefgh"}}))
    assert len(told.message) == 500
    assert "\n" not in told.message
    straddling = scrub("z" * 490 + " sk-abcdefghijklmnopqrstuvwxyz")
    assert "abcd" not in straddling


@pytest.mark.parametrize(
    ("status", "body", "kind", "code"),
    [
        (401, {"error": {"message": "m", "type": "invalid_request_error", "code": "invalid_api_key"}},
         "authentication_error", "invalid_api_key"),
        (429, {"error": {"message": "m", "type": "insufficient_quota", "code": "insufficient_quota"}},
         "insufficient_quota", "insufficient_quota"),
        (429, {"type": "error", "error": {"type": "rate_limit_error", "message": "m"}},
         "rate_limit_error", "rate_limit_error"),
        (529, {"type": "error", "error": {"type": "overloaded_error", "message": "m"}},
         "overloaded_error", "overloaded_error"),
        (400, {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 9 > 8"}},
         "invalid_request_error", "context_length_exceeded"),
        (429, {"error": {"code": 429, "message": "m", "status": "RESOURCE_EXHAUSTED"}},
         "rate_limit_error", "resource_exhausted"),
        (400, {"error": {"code": 400, "message": "m", "status": "INVALID_ARGUMENT",
                         "details": [{"reason": "API_KEY_INVALID"}]}}, "authentication_error", "api_key_invalid"),
        (500, [{"error": {"code": 500, "message": "m", "status": "INTERNAL"}}], "server_error", "internal"),
        (400, {"object": "error", "message": "m", "type": "BadRequestError", "code": 400},
         "invalid_request_error", "badrequesterror"),
        (404, {"detail": "m"}, "not_found_error", "http_404"),
        (418, {"error": "m"}, "invalid_request_error", "http_418"),
    ],
)  # fmt: skip
def test_every_provider_s_error_is_told_in_one_vocabulary(status, body, kind, code):
    told = read_error(status, orjson.dumps(body))
    assert (told.type, told.code) == (kind, code)
    assert told.message in ("m", "prompt is too long: 9 > 8")


def test_an_error_inside_an_answer_is_classed_by_its_own_words():
    assert error_from(200, {"error": {"code": 503, "message": "m"}}).type == "overloaded_error"
    assert error_from(200, {"type": "error", "error": {"type": "overloaded_error"}}).type == "overloaded_error"


@pytest.mark.parametrize(
    "body", [b"", b"<html>login</html>", b'{"error":', b"[]", b"null", b"\xff\xfe", b"x" * 300_000]
)
def test_a_body_that_is_no_error_still_makes_one(body):
    told = read_error(502, body)
    assert told.type == "server_error"
    assert "<" not in told.message
    assert 0 < len(told.message) <= 500


@pytest.mark.parametrize(
    ("read", "told", "usage"),
    [
        (openai_usage, {"prompt_tokens": 10, "completion_tokens": 8, "total_tokens": 18}, Usage(10, 8)),
        (openai_usage, {"prompt_tokens": 9, "total_tokens": 9}, Usage(9)),
        (openai_usage, {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150,
                        "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 10},
                        "completion_tokens_details": {"reasoning_tokens": 40}}, Usage(30, 50, 60, 10, 40)),
        (openai_usage, {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 112,
                        "completion_tokens_details": {"reasoning_tokens": 100}}, Usage(5, 107, reasoning=100)),
        (openai_usage, {"input_tokens": 5, "output_tokens": 7, "input_tokens_details": {"cached_tokens": 2}},
         Usage(3, 7, 2)),
        (openai_usage, {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 13}, None),
        (openai_usage, {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 6}}, None),
        (openai_usage, {"prompt_tokens": -1}, None),
        (openai_usage, {"prompt_tokens": "5"}, None),
        (openai_usage, {"prompt_tokens": True}, None),
        (openai_usage, {"prompt_tokens": 10**9 + 1}, None),
        (openai_usage, {"prompt_tokens": 1, "completion_tokens": 1e308}, None),
        (openai_usage, {"prompt_tokens": 1, "completion_tokens": 1,
                        "completion_tokens_details": {"reasoning_tokens": 2}}, None),
        (openai_usage, None, None),
        (anthropic_usage, {"input_tokens": 10, "output_tokens": 8}, Usage(10, 8)),
        (anthropic_usage, {"input_tokens": 4, "output_tokens": 8, "cache_read_input_tokens": 100,
                           "cache_creation_input_tokens": 20, "output_tokens_details": {"thinking_tokens": 3}},
         Usage(4, 8, 100, 20, 3)),
        (anthropic_usage, {"input_tokens": 4, "output_tokens": 8, "cache_read_input_tokens": None}, Usage(4, 8)),
        (anthropic_usage, {"input_tokens": 4}, None),
        (anthropic_usage, {"input_tokens": 4, "output_tokens": -8}, None),
        (google_usage, {"promptTokenCount": 10, "candidatesTokenCount": 8, "totalTokenCount": 18}, Usage(10, 8)),
        (google_usage, {"promptTokenCount": 100, "cachedContentTokenCount": 60, "candidatesTokenCount": 8,
                        "thoughtsTokenCount": 30, "toolUsePromptTokenCount": 5, "totalTokenCount": 143},
         Usage(45, 38, 60, reasoning=30)),
        (google_usage, {"promptTokenCount": 10, "totalTokenCount": 25}, Usage(10, 15)),
        (google_usage, {"promptTokenCount": 10, "candidatesTokenCount": 1, "totalTokenCount": 99}, None),
        (google_usage, {"promptTokenCount": 10, "totalTokenCount": 9}, None),
        (google_usage, {"promptTokenCount": 10, "cachedContentTokenCount": 11}, None),
    ],
)  # fmt: skip
def test_usage_is_exact_where_it_adds_up_and_unknown_where_it_does_not(read, told, usage):
    """Cached tokens are inside OpenAI's and Google's input and beside Anthropic's; an absurd count is never billed."""
    assert read(told) == usage


@pytest.mark.parametrize("dialect", [Anthropic(), Google()], ids=["anthropic", "google"])
@pytest.mark.parametrize(
    "asked",
    [
        {"logprobs": True}, {"top_logprobs": 3}, {"logit_bias": {"1": 2}}, {"modalities": ["text", "audio"]},
        {"audio": {"voice": "a"}}, {"functions": [{"name": "f"}]}, {"web_search_options": {}}, {"never_heard_of": 1},
    ],
    ids=lambda asked: next(iter(asked)),
)  # fmt: skip
def test_what_would_change_the_meaning_is_refused_by_name(dialect, asked):
    with pytest.raises(DialectError) as refused:
        dialect.request({"messages": USER, **asked}, "m", stream=False, max_output=None)
    assert refused.value.param == next(iter(asked))


@pytest.mark.parametrize("dialect", [Anthropic(), Google()], ids=["anthropic", "google"])
def test_hints_nulls_and_neutral_values_leave_no_trace(dialect):
    """I-A13: no nulls; parameters that only hint are dropped, values that say nothing are not refused."""
    quiet = {
        "n": 1, "logprobs": False, "presence_penalty": None, "logit_bias": {}, "modalities": ["text"], "stop": None,
        "top_p": None, "tools": None, "response_format": {"type": "text"},
    }  # fmt: skip
    hints = {hint: "x" for hint in HINTS if hint != "seed"}
    said = dialect.request({"messages": USER, **quiet, **hints}, "m", stream=False, max_output=None)
    assert said == dialect.request({"messages": USER}, "m", stream=False, max_output=None)
    assert b"null" not in orjson.dumps(said)


@pytest.mark.parametrize("dialect", [OpenAI(), Anthropic(), Google()], ids=["openai", "anthropic", "google"])
def test_a_request_is_left_as_it_was(dialect):
    """A second attempt in another dialect starts from the same chat."""
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    chat = {
        "messages": [*USER, {"role": "user", "content": "more"}, {"role": "assistant", "tool_calls": [call]},
                     {"role": "tool", "tool_call_id": "c1", "content": "1"}, *USER],
        "stream": True, "stream_options": {},
        "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object", "properties": {}}}},
    }  # fmt: skip
    before = orjson.dumps(chat)
    dialect.request(chat, "m", stream=True, max_output=9)
    assert orjson.dumps(chat) == before
