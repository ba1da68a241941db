"""How both clients ask, and what they make of refusals and of silence."""

import asyncio
import json
import socket
import subprocess
import sys

import pytest

import fastroute
from fastroute import (
    AsyncRouteClient,
    RouteClient,
    RouteError,
    RouteHTTPError,
    RouteResponseError,
    RouteTransportError,
    parse_descriptor,
)
from fastroute.client import TIMEOUT_S

KEY = "fr_live_secret_0123456789"
PLACED = {"verdict": "placement", "placement": {"model": "m"}, "grant": {"key": "vk-0123456789"}}


def body_of(asked):
    return json.loads(asked.partition(b"\r\n\r\n")[2])


def test_a_route_is_asked_with_the_key_and_the_names_of_the_step(ask, router, descriptor):
    router.answers(PLACED)
    told = ask(
        router.url, KEY, "route", descriptor, workflow_id="w", step_id="s", parent_step_id="p", idempotency_key="again"
    )
    assert told.placement.model == "m"
    [asked] = router.asked
    head = asked.lower()
    assert asked.startswith(b"POST /v1/route HTTP/1.1\r\n")
    assert f"authorization: bearer {KEY}\r\n".encode() in head
    assert b"idempotency-key: again\r\n" in head
    assert b"content-type: application/json\r\n" in head
    assert f"user-agent: fastroute/{fastroute.__version__}\r\n".encode() in head
    assert body_of(asked) == {**descriptor, "workflow_id": "w", "step_id": "s", "parent_step_id": "p"}


def test_a_parsed_descriptor_is_sent_as_its_json(ask, router, descriptor):
    router.answers(PLACED)
    ask(router.url, KEY, "route", parse_descriptor({**descriptor, "agent": {"digest": "sha256:1"}}))
    sent = body_of(router.asked[0])
    assert sent.pop("agent")["digest"] == "sha256:1"
    assert sent == {**descriptor, "runtime_preference": "any"}
    assert parse_descriptor(sent) == parse_descriptor(descriptor)


def test_what_is_not_named_is_not_sent(ask, router, descriptor):
    """Names that stand in the descriptor itself stay, as in the seed's own request."""
    router.answers(PLACED)
    ask(router.url, KEY, "route", {**descriptor, "workflow_id": "w"})
    assert body_of(router.asked[0]) == {**descriptor, "workflow_id": "w"}
    assert b"idempotency-key" not in router.asked[0].lower()


@pytest.mark.parametrize("tail", ["", "/", "//", "/v1", "/v1/"])
def test_the_path_is_appended_to_the_base(router, descriptor, tail):
    router.answers(PLACED)
    with RouteClient(router.url + tail, KEY) as client:
        client.explain(descriptor)
        assert client.base_url == router.url
    assert router.asked[0].startswith(b"POST /v1/route/explain HTTP/1.1\r\n")


def test_a_base_may_have_a_path_of_its_own(router, descriptor):
    router.answers(PLACED)
    with RouteClient(router.url + "/gateway", KEY) as client:
        client.route(descriptor)
    assert router.asked[0].startswith(b"POST /gateway/v1/route HTTP/1.1\r\n")


@pytest.mark.parametrize(("method", "verb"), [("grant", b"GET"), ("revoke", b"DELETE")])
def test_a_grant_is_asked_for_by_its_id(ask, router, method, verb):
    router.answers({"id": "g-1", "state": "live"})
    assert ask(router.url, KEY, method, "g-1").state == "live"
    assert router.asked[0].startswith(verb + b" /v1/grants/g-1 HTTP/1.1\r\n")


@pytest.mark.parametrize("grant_id", ["", "..", "a/b", "a?b", "a b", "%2e", "ä", "g\n"])
def test_an_id_that_would_lead_elsewhere_is_not_asked_for(ask, router, grant_id):
    with pytest.raises(ValueError, match="grant's id"):
        ask(router.url, KEY, "grant", grant_id)
    assert router.asked == []


@pytest.mark.parametrize(
    ("status", "body", "seen"),
    [
        (422, {"error": "invalid_descriptor", "field": "budget"}, {"error": "invalid_descriptor", "field": "budget"}),
        (402, {"error": "grant_failed"}, {"error": "grant_failed"}),
        (500, b"<html>oops</html>", "<html>oops</html>"),
        (503, b"", ""),
        (502, b"\xff\xfe", "\ufffd\ufffd"),
        (429, [1], [1]),
    ],
)
def test_an_answer_that_is_not_2xx_is_an_error_with_its_status_and_body(ask, router, descriptor, status, body, seen):
    """And it is asked once: who repeats a route without an idempotency key may be granted money twice."""
    router.answers(body, status)
    with pytest.raises(RouteHTTPError, match=f"answered {status}") as caught:
        ask(router.url, KEY, "route", descriptor)
    assert (caught.value.status, caught.value.body) == (status, seen)
    assert len(router.asked) == 1


def test_a_redirect_is_not_followed_for_it_would_take_the_key_along(ask, router, descriptor):
    router.answers(b"", 307, "location: /elsewhere\r\n")
    with pytest.raises(RouteHTTPError) as caught:
        ask(router.url, KEY, "route", descriptor)
    assert caught.value.status == 307
    assert len(router.asked) == 1


def test_no_key_is_in_an_error_though_the_router_repeats_it(ask, router, descriptor):
    """M-B13: ours, another one, and the bearer of a header are masked; a task-oriented word is left alone."""
    said = {
        "error": f"bad key {KEY}",
        "seen": f"Authorization: Bearer {KEY}",
        "other": "vk-0123456789",
        "word": "task-oriented",
    }
    router.answers(said, 401)
    with pytest.raises(RouteHTTPError) as caught:
        ask(router.url, KEY, "route", descriptor)
    for shown in (str(caught.value), repr(caught.value), repr(caught.value.body)):
        assert KEY not in shown
        assert "0123456789" not in shown
        assert "task-oriented" in shown


def test_a_long_error_is_cut_in_the_message_only(ask, router, descriptor):
    router.answers(b"x" * 5_000, 500)
    with pytest.raises(RouteHTTPError) as caught:
        ask(router.url, KEY, "route", descriptor)
    assert len(caught.value.body) == 5_000
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("body", [b"", b"hello", [], {"verdict": "maybe"}, {"verdict": "placement", "placement": {}}])
def test_a_200_that_says_nothing_is_no_answer(ask, router, descriptor, body):
    router.answers(body)
    with pytest.raises(RouteResponseError):
        ask(router.url, KEY, "route", descriptor)


def test_nobody_there_is_a_transport_error(ask, descriptor):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(RouteTransportError, match="ConnectError") as caught:
        ask(f"http://127.0.0.1:{port}", KEY, "route", descriptor)
    assert caught.value.reason


def test_a_router_that_hangs_up_is_a_transport_error_and_asked_once(ask, router, descriptor):
    with pytest.raises(RouteTransportError):
        ask(router.url, KEY, "route", descriptor)
    assert len(router.asked) == 1


def test_a_router_that_is_silent_is_given_up(ask, router, descriptor):
    router.silent = True
    with pytest.raises(RouteTransportError, match="Timeout"):
        ask(router.url, KEY, "route", descriptor, timeout_s=0.1)


@pytest.mark.parametrize(
    "said",
    [
        b"nonsense " + KEY.encode() + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc",
    ],
)
def test_an_answer_that_is_no_http_is_a_transport_error_without_the_key(ask, router, descriptor, said):
    router.says = said
    with pytest.raises(RouteTransportError) as caught:
        ask(router.url, KEY, "route", descriptor)
    assert KEY not in str(caught.value)
    assert caught.value.__cause__ is None


def test_half_a_minute_of_silence_is_the_default():
    assert TIMEOUT_S == 30
    with RouteClient("http://127.0.0.1:1", KEY) as client:
        assert set(client._http.timeout.as_dict().values()) == {30}


@pytest.mark.parametrize(
    "url", ["", "localhost:8000", "ftp://h", "http://", "http://u:p@h", "http://h?key=1", "http://h#a", "http://h:x"]
)
@pytest.mark.parametrize("kind", [RouteClient, AsyncRouteClient])
def test_a_base_url_that_cannot_be_asked_is_refused_at_once(kind, url):
    with pytest.raises(ValueError, match="base_url"):
        kind(url, KEY)


@pytest.mark.parametrize("key", ["", f"{KEY}\n", f" {KEY}", f"{KEY}\r\nx: y", "ключ", "a\0b"])
def test_a_key_no_header_can_carry_is_refused_without_being_shown(key):
    """A line break at the end of a secret's file is the usual one."""
    with pytest.raises(ValueError, match=r"^key is printable ASCII") as caught:
        RouteClient("http://127.0.0.1:1", key)
    assert KEY not in str(caught.value)


def test_an_idempotency_key_no_header_can_carry_is_refused(ask, router, descriptor):
    with pytest.raises(ValueError, match=r"^idempotency_key is printable ASCII"):
        ask(router.url, KEY, "route", descriptor, idempotency_key="a\r\nb: c")
    assert router.asked == []


@pytest.mark.parametrize("kind", [RouteClient, AsyncRouteClient])
def test_a_client_shows_where_it_asks_and_not_with_what(kind):
    client = kind("http://127.0.0.1:1/v1", KEY)
    assert KEY not in repr(client)
    assert repr(client).startswith(f"{kind.__name__}('http://127.0.0.1:1', key={KEY[:8]}...")
    if kind is RouteClient:
        client.close()
    else:
        asyncio.run(client.aclose())


def test_every_error_is_a_route_error():
    assert {RouteHTTPError, RouteTransportError, RouteResponseError} <= set(RouteError.__subclasses__())


def test_importing_fastroute_draws_in_no_http_library_until_a_client_is_named():
    code = """
import sys, fastroute, fastroute.guard, fastroute.routed, fastroute.sessions
assert "RouteClient" in dir(fastroute)
assert "httpx" not in sys.modules
assert fastroute.RouteClient is fastroute.client.RouteClient
assert "httpx" in sys.modules
try:
    fastroute.NoSuchName
except AttributeError as error:
    assert "NoSuchName" in str(error)
else:
    raise SystemExit("a name that is not there was found")
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
