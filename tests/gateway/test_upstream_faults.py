"""The upstream rows of the failure matrix: what a provider does wrong before an answer, and what the caller sees of it.

Every row is tried pinned (the caller named the model, so nobody else is asked) and through an alias with two targets
(the next one answers), for whole answers and for streams.
"""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, NamedTuple

import pytest

from fastroute.outcomes import retry_after

CANARY = "upstream-canary-text"
SECRET_IDS = f"Incorrect API key provided: sk-proj-leaked1234. org-abc123 {CANARY}"


class Row(NamedTuple):
    """One fault: what the upstream does, what it is counted as, what it leaves to pay, what a pinned caller reads."""

    name: str
    script: Any  # say, upstream -> steps
    outcome: str
    basis: str
    status: int
    code: str
    again: bool = True
    kind: str = "openai"
    only: str = "both"  # whole | stream | both


def refusal(status: int, type_: str = "server_error", code: str | None = None, *headers: str) -> Any:
    body = json.dumps({"error": {"message": SECRET_IDS, "type": type_, "code": code, "param": None}}).encode()
    return lambda say, up: [say.whole(body, status, *headers)]


def raw(data: bytes, *after: str) -> Any:
    return lambda say, up: [data, *(getattr(up, step) for step in after)]


def inside(type_: str) -> Any:
    body = json.dumps({"error": {"message": SECRET_IDS, "type": type_, "code": None}}).encode()
    return lambda say, up: [say.whole(body)]


def first_event(type_: str) -> Any:
    said = {"error": {"message": SECRET_IDS, "type": type_, "code": None}}
    return lambda say, up: [say.streamed(b": waiting\n\n", say.event(said))]


def unable(status: int, message: str, type_: str) -> Any:
    """llama.cpp's words for what it was not started to do."""
    body = json.dumps({"error": {"code": status, "message": message, "type": type_}}).encode()
    return lambda say, up: [say.whole(body, status)]


OK_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'

ROWS = [
    Row("no-images", unable(500, "image input is not supported - hint: ...", "server_error"), "http_4xx", "void", 400,
        "unsupported"),
    Row("no-embeddings", unable(501, "This server does not support it", "not_supported_error"), "http_4xx", "void", 400,
        "unsupported"),
    Row("connect-refused", None, "connect", "void", 502, "upstream_unreachable", kind="refused"),
    Row("syn-blackhole", None, "connect", "void", 502, "upstream_unreachable", kind="blackhole"),
    Row("not-tls", None, "connect", "void", 502, "upstream_unreachable", kind="tls"),
    Row("no-such-name", None, "connect", "void", 502, "upstream_unreachable", kind="nameless"),
    Row("fin-before-head", lambda say, up: [up.fin], "cut", "presumed", 502, "upstream_broken"),
    Row("reset-before-head", lambda say, up: [up.reset], "cut", "presumed", 502, "upstream_broken"),
    Row("silence", lambda say, up: [up.hold], "stall", "presumed", 504, "upstream_timeout"),
    Row(
        "head-a-byte-at-a-time",
        lambda say, up: [up.send(OK_HEAD, 1, 0.05), up.hold],
        "stall",
        "presumed",
        504,
        "upstream_timeout",
    ),
    Row(
        "head-then-silence",
        lambda say, up: [OK_HEAD + b"content-length: 100\r\n\r\n", up.hold],
        "stall",
        "presumed",
        504,
        "upstream_timeout",
        only="whole",
    ),
    Row(
        "half-a-body-then-silence",
        lambda say, up: [OK_HEAD + b'content-length: 100\r\n\r\n{"id":', up.hold],
        "stall",
        "presumed",
        504,
        "upstream_timeout",
        only="whole",
    ),
    Row(
        "head-and-comments-but-no-content",
        lambda say, up: [say.head(), up.repeat(say.chunk(b": ping\n\n"), up.pause(0.05))],
        "stall",
        "presumed",
        504,
        "upstream_timeout",
        only="stream",
    ),
    Row(
        "a-role-is-no-content",
        lambda say, up: [say.head() + say.chunk(ROLE), up.hold],
        "stall",
        "presumed",
        504,
        "upstream_timeout",
        only="stream",
    ),
    Row(
        "cut-before-content",
        lambda say, up: [say.head() + say.chunk(ROLE), up.fin],
        "cut",
        "presumed",
        502,
        "upstream_broken",
        only="stream",
    ),
    Row("short-body", raw(OK_HEAD + b"content-length: 99\r\n\r\n{}", "fin"), "cut", "presumed", 502, "upstream_broken"),
    Row("no-last-chunk", raw(OK_HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n", "fin"), "cut", "presumed", 502,
        "upstream_broken"),
    *(Row(f"status-{status}", refusal(status), "5xx", "void", 502, "upstream_error") for status in (500, 502, 503, 529)),
    Row("too-many", refusal(429, "rate_limit_error"), "rate_limit", "void", 429, "rate_limit_error"),
    Row("spend-cap", refusal(429, "insufficient_quota", "insufficient_quota"), "auth", "void", 502,
        "upstream_key_rejected"),
    *(
        Row(f"key-rejected-{status}", refusal(status, "authentication_error", "invalid_api_key"), "auth", "void", 502,
            "upstream_key_rejected")
        for status in (401, 402, 403)
    ),
    *(
        Row(f"callers-fault-{status}", refusal(status, "invalid_request_error", "bad"), "http_4xx", "void", status,
            "bad", again=False)
        for status in (400, 409, 413, 415, 422)
    ),
    Row("model-not-found", refusal(404, "invalid_request_error", "model_not_found"), "http_4xx", "void", 404,
        "model_not_found"),
    *(
        Row(f"redirect-{status}", refusal(status, "x", None, "location: http://127.0.0.1:1/elsewhere"), "protocol",
            "void", 502, "bad_upstream_answer")
        for status in (301, 302, 307, 308)
    ),
    Row("nothing-at-all", raw(b"HTTP/1.1 204 No\r\n\r\n"), "protocol", "void", 502, "bad_upstream_answer"),
    *(
        Row(f"encoding-{name}", raw(OK_HEAD + f"content-encoding: {name}\r\ncontent-length: 2\r\n\r\n{{}}".encode()),
            "protocol", "presumed", 502, "upstream_broken")
        for name in ("gzip", "br", "zstd")
    ),
    Row("a-page", lambda say, up: [say.whole(f"<html>login {CANARY}</html>".encode(), content_type="text/html")],
        "protocol", "presumed", 502, "bad_upstream_answer"),
    *(
        Row(f"status-line-{word}", raw(f"HTTP/1.1 {word} X\r\ncontent-length: 0\r\n\r\n".encode()), "protocol",
            "presumed", 502, "upstream_broken")
        for word in ("000", "099", "600", "999", "20", "abc", "1000")
    ),
    Row("upgrade", raw(b"HTTP/1.1 101 Go\r\nupgrade: x\r\n\r\n"), "protocol", "presumed", 502, "upstream_broken"),
    Row("interim-flood", raw(b"HTTP/1.1 100 Go on\r\n\r\n" * 500), "protocol", "presumed", 502, "upstream_broken"),
    Row("ten-thousand-headers", raw(OK_HEAD + b"x: y\r\n" * 10_000 + b"\r\n"), "protocol", "presumed", 502,
        "upstream_broken"),
    Row("megabyte-header", raw(OK_HEAD + b"x: " + b"y" * 1_000_000 + b"\r\n\r\n"), "protocol", "presumed", 502,
        "upstream_broken"),
    Row("bare-line-feeds", raw(b"HTTP/1.1 200 OK\ncontent-type: application/json\ncontent-length: 2\n\n{}"),
        "protocol", "presumed", 502, "upstream_broken"),
    Row("nul-in-head", raw(OK_HEAD + b"x: \0\r\ncontent-length: 2\r\n\r\n{}"), "protocol", "presumed", 502,
        "upstream_broken"),
    Row("two-lengths", raw(OK_HEAD + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}x"), "protocol", "presumed", 502,
        "upstream_broken"),
    Row("length-and-chunks", raw(OK_HEAD + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        "protocol", "presumed", 502, "upstream_broken"),
    Row("not-http", raw(b"SSH-2.0-OpenSSH_9.9\r\n\r\n"), "protocol", "presumed", 502, "upstream_broken"),
    Row("broken-json", lambda say, up: [say.whole(b'{"id": "x", ')], "protocol", "presumed", 502, "bad_upstream_answer"),
    Row("json-that-is-no-object", lambda say, up: [say.whole(b"[1,2]")], "protocol", "presumed", 502,
        "bad_upstream_answer"),
    Row("an-empty-body", lambda say, up: [say.whole(b"")], "protocol", "presumed", 502, "bad_upstream_answer"),
    Row("error-in-200-5xx", inside("server_error"), "5xx", "void", 502, "upstream_error"),
    Row("error-in-200-429", inside("rate_limit_error"), "rate_limit", "void", 429, "rate_limit_error"),
    Row("error-in-200-401", inside("authentication_error"), "auth", "void", 502, "upstream_key_rejected"),
    Row("error-in-200-400", inside("invalid_request_error"), "http_4xx", "void", 400, "invalid_request_error",
        again=False),
    Row("error-in-first-event-5xx", first_event("server_error"), "5xx", "void", 502, "upstream_error", only="stream"),
    Row("error-in-first-event-529", first_event("overloaded_error"), "5xx", "void", 502, "upstream_error",
        only="stream"),
    Row("error-in-first-event-429", first_event("rate_limit_error"), "rate_limit", "void", 429, "rate_limit_error",
        only="stream"),
    Row("empty-stream", lambda say, up: [say.streamed()], "cut", "presumed", 502, "upstream_broken", only="stream"),
    Row("done-and-nothing-else", lambda say, up: [say.streamed(b"data: [DONE]\n\n")], "cut", "presumed", 502,
        "upstream_broken", only="stream"),
]  # fmt: skip

CASES = [
    pytest.param(row, stream, id=f"{row.name}-{'stream' if stream else 'whole'}")
    for row in ROWS
    for stream in (False, True)
    if row.only in ("both", "stream" if stream else "whole")
]


def settled(metrics: Any, basis: str) -> float:
    return metrics.get(("fastroute_settle_total", frozenset({("basis", basis)})), 0.0)


@pytest.mark.parametrize(("row", "stream"), CASES)
def test_a_pinned_model_that_fails_says_so_in_one_envelope(gateway, upstream, say, row, stream):
    """Nobody else is asked, the reservation is closed once, and nothing of the provider's own words gets through."""
    route = gateway.route(row.kind, retries=0)
    if row.script:
        upstream.script(route.first, row.script(say, upstream))
    before = gateway.metrics()

    reply = gateway.ask(route.first, stream=stream)

    after = gateway.metrics()
    assert reply.status == row.status, reply.body
    assert reply.complete
    assert set(reply.json) == {"error"}
    assert reply.error["code"] == row.code
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-router-fallback"] == "false"
    assert reply.headers["x-router-model"] == route.first
    assert_nothing_leaked(reply, words=row.outcome != "http_4xx")
    assert attempts(before, after, route.first) == {row.outcome: 1}
    assert attempts(before, after, route.second) == {}
    assert settled(after, row.basis) == settled(before, row.basis) + 1
    assert len(upstream.asked(route.second)) == 0


@pytest.mark.parametrize(("row", "stream"), CASES)
def test_a_route_with_another_target_answers_all_the_same(gateway, upstream, say, row, stream):
    """The fallback's answer is whole and its own; a caller's own mistake is told at once instead."""
    route = gateway.route(row.kind, retries=1)
    if row.script:
        upstream.script(route.first, row.script(say, upstream))
    before = gateway.metrics()

    reply = gateway.ask(route.name, stream=stream)

    after = gateway.metrics()
    assert attempts(before, after, route.first) == {row.outcome: 1}
    assert settled(after, row.basis) == settled(before, row.basis) + 1
    if not row.again:
        assert reply.status == row.status
        assert attempts(before, after, route.second) == {}
        return
    assert reply.status == 200, reply.body
    assert reply.complete
    assert reply.text == f"hello from {route.second}"
    assert reply.headers["x-router-fallback"] == "true"
    assert reply.headers["x-router-reason"] == "fallback"
    assert reply.headers["x-router-model"] == route.second
    assert reply.headers["x-router-original-model"] == route.first
    if stream:
        assert reply.done
        assert not reply.failed
    assert_nothing_leaked(reply)
    assert attempts(before, after, route.second) == {"ok": 1}
    assert settled(after, "exact") == settled(before, "exact") + 1
    fallback = ("router_fallback_total", frozenset({("from", route.first), ("to", route.second)}))
    assert after[fallback] == before.get(fallback, 0) + 1
    # A request costs what all its attempts cost.
    presumed = row.basis == "presumed"
    assert (float(reply.told["x-router-cost-usd"]) > 0.001) == presumed


def attempts(before: Any, after: Any, lane: str) -> dict[str, float]:
    """What was tried on a lane in between, by outcome."""
    found = {}
    for key, value in after.items():
        name, labels = key
        told = dict(labels)
        if name == "fastroute_attempts_total" and told["lane"] == lane and value != before.get(key, 0):
            found[told["outcome"]] = value - before.get(key, 0)
    return found


def assert_nothing_leaked(reply: Any, words: bool = True) -> None:
    told = reply.body.decode("utf-8", "replace") + "".join(reply.headers.values())
    assert "sk-proj-leaked" not in told
    assert "sk-upstream" not in told
    if words:
        assert CANARY not in told
        assert "org-abc123" not in told


@pytest.mark.parametrize(
    ("kind", "status", "body"),
    [
        ("google", 400, {"error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT",
         "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]}}),
        ("anthropic", 401, {"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}}),
        ("anthropic", 400, {"type": "error", "error": {"type": "invalid_request_error",
         "message": "Your credit balance is too low to access the Anthropic API."}}),
        ("anthropic", 403, {"type": "error", "error": {"type": "permission_error", "message": "no"}}),
        ("google", 403, {"error": {"code": 403, "message": "no", "status": "PERMISSION_DENIED"}}),
    ],
)  # fmt: skip
def test_a_refused_provider_key_is_never_the_callers_fault(gateway, upstream, say, kind, status, body):
    """Some providers answer a bad key with 400; the caller's own key was good, so it reads 502 and the next one is asked."""
    route = gateway.route(kind, retries=1)
    upstream.script(route.first, say.whole(json.dumps(body).encode(), status))
    assert gateway.ask(route.first).error["code"] == "upstream_key_rejected"
    reply = gateway.ask(route.name)
    assert (reply.status, reply.text) == (200, f"hello from {route.second}")


@pytest.mark.parametrize(("type_", "rests"), [("authentication_error", True), ("insufficient_quota", True)])
def test_a_lane_whose_key_is_refused_is_left_alone(gateway, upstream, say, type_, rests):
    """No second request is spent on a key that will not get better in a moment."""
    route = gateway.route(retries=1)
    upstream.script(route.first, refusal(401 if type_.startswith("auth") else 429, type_, type_)(say, upstream))
    for _ in range(3):
        assert gateway.ask(route.name).text == f"hello from {route.second}"
    assert len(upstream.asked(route.first)) == 1


@pytest.mark.parametrize(
    ("told", "shown"),
    [("7", "7"), ("1.5", "2"), ("315360000", "86400"), ("soon", None), ("-5", None), ("", None), (None, None)],
)
def test_a_lane_rests_after_429_as_long_as_it_asked_but_not_for_ever(gateway, upstream, say, told, shown):
    """`Retry-After` is honoured up to a minute; without a usable one the lane still rests for a moment."""
    route = gateway.route(retries=1)
    headers = () if told is None else (f"retry-after: {told}",)
    upstream.script(route.first, refusal(429, "rate_limit_error", None, *headers)(say, upstream))

    pinned = gateway.ask(route.first)
    assert pinned.status == 429
    assert pinned.headers.get("retry-after") == shown
    reply = gateway.ask(route.name)
    assert reply.text == f"hello from {route.second}"
    assert reply.headers["x-router-fallback"] == "false", "the resting lane is no candidate"
    assert len(upstream.asked(route.first)) == 1


@pytest.mark.parametrize("form", ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT"])
def test_a_retry_after_date_counts_from_the_answers_own_date(gateway, upstream, say, form):
    """The provider's clock may be years away from ours."""
    route = gateway.route(retries=0)
    then = datetime(2031, 5, 4, 12, 0, 0, tzinfo=UTC)
    headers = [
        f"date: {format_datetime(then, usegmt=True)}",
        f"retry-after: {(then + timedelta(seconds=9)).strftime(form)}",
    ]
    upstream.script(route.first, refusal(429, "rate_limit_error", None, *headers)(say, upstream))
    assert gateway.ask(route.first).headers["retry-after"] == "9"


@pytest.mark.parametrize(
    ("told", "date", "seconds"),
    [
        (b"0", None, 0),
        (b"Wed, 21 Oct 2026 07:28:30 GMT", None, 30),
        (b"Wed, 21 Oct 2026 07:27:30 GMT", None, 0),
        (b"Wed, 21 Oct 2026 07:28:30 GMT", b"Wed, 21 Oct 2026 07:28:25 GMT", 5),
        (b"Wed, 21 Oct 2026 07:28:30 GMT", b"nonsense", 30),
        (b"Fri, 31 Dec 9999 23:59:59 GMT", None, 86_400),
        (b"Wed, 99 Oct 2026 07:28:30 GMT", None, None),
        (b"Wed, 21 Oct 2026 07:28:30", None, 30),
        (b"1e9", None, None),
        (b"9" * 400, None, None),
        (b"\xff\xfe", None, None),
        (b"x" * 10_000, None, None),
    ],
)
def test_retry_after_reads_numbers_and_dates_and_nothing_else(told, date, seconds):
    assert retry_after(told, date, datetime(2026, 10, 21, 7, 28, 0, tzinfo=UTC)) == seconds


def test_two_answers_on_one_connection_never_meet_the_next_request(gateway, upstream, say):
    """Bytes beyond an answer close the connection: another request must not read them as its own."""
    route = gateway.route(retries=0)
    own = say.whole(json.dumps(say.answer("openai", "mine")).encode())
    stolen = say.whole(json.dumps(say.answer("openai", "somebody else's")).encode())
    upstream.script(route.first, [own + stolen], [own], [own, upstream.pause(0.05), stolen], [own])
    assert [gateway.ask(route.first).text for _ in range(2)] == ["mine", "mine"]
    assert gateway.ask(route.first).text == "mine"
    time.sleep(0.1)
    assert gateway.ask(route.first).text == "mine"
    connections = [asked.connection for asked in upstream.asked(route.first)]
    assert connections[0] != connections[1]
    assert connections[2] != connections[3]


def test_headers_of_the_upstream_stay_there(gateway, upstream, say):
    """Cookies, server names and account ids are not the caller's to see; nor can a header smuggle in another."""
    route = gateway.route(retries=0)
    headers = (
        "set-cookie: a=b",
        "server: secret",
        "openai-organization: org-1",
        "x-router-model: lie",
        "x-request-id: up",
    )
    upstream.script(route.first, say.whole(json.dumps(say.answer("openai", "hi")).encode(), 200, *headers))
    reply = gateway.ask(route.first)
    assert not {"set-cookie", "openai-organization"} & reply.headers.keys()
    assert reply.headers["x-router-model"] == route.first
    assert reply.headers["x-request-id"].startswith("req_")


def test_the_log_of_all_this_names_no_key_and_no_words_of_an_upstream(gateway):
    """Whatever was answered above, the server's own output holds none of it."""
    text = gateway.log.read_text()
    assert not re.search(rf"sk-|{CANARY}|Traceback", text), text[-2000:]
