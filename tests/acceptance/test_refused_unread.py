"""Who is refused before the body was read: a small one is passed over; else the connection ends, and the answer says so."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest

PORTS = [
    ("POST", "/v1/chat/completions", 401),
    ("POST", "/v1/messages", 401),
    ("POST", "/v1/route", 401),
    ("POST", "/admin/keys", 404),
    ("GET", "/admin/keys/x", 404),
    ("POST", "/nowhere", 404),
]
BODY = json.dumps({"model": "cheap", "messages": [{"role": "user", "content": "hi"}]}).encode()


@pytest.fixture
def line(house: Any) -> Iterator[http.client.HTTPConnection]:
    line = http.client.HTTPConnection(house.url.removeprefix("http://"), timeout=10)
    yield line
    line.close()


@pytest.mark.parametrize("length", [len(BODY), 70_000, None])
@pytest.mark.parametrize(("method", "path", "status"), PORTS)
def test_a_refusal_that_leaves_a_body_unread_ends_its_connection(
    line: http.client.HTTPConnection, method: str, path: str, status: int, length: int | None
) -> None:
    line.putrequest(method, path)
    line.putheader("authorization", "Bearer wrong")
    line.putheader("content-type", "application/json")
    line.putheader(*(("transfer-encoding", "chunked") if length is None else ("content-length", str(length))))
    line.endheaders()
    reply = line.getresponse()
    assert (reply.status, reply.getheader("connection")) == (status, "close")


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(("method", "path", "status"), PORTS)
def test_a_small_body_that_is_sent_is_passed_over(
    line: http.client.HTTPConnection, method: str, path: str, status: int, chunked: bool
) -> None:
    for _ in range(3):
        headers = {"authorization": "Bearer wrong"} | ({} if chunked else {"content-length": "60000"})
        line.request(method, path, body=iter([b"x" * 10_000] * 6), headers=headers, encode_chunked=chunked)
        reply = line.getresponse()
        assert (reply.status, reply.getheader("connection")) == (status, None)
        reply.read()


@pytest.mark.parametrize(("length", "after"), [(5, "close"), (None, "close"), (0, None)])
def test_so_does_any_other_answer_of_a_door_that_reads_none(
    line: http.client.HTTPConnection, length: int | None, after: str | None
) -> None:
    line.putrequest("GET", "/healthz")
    line.putheader(*(("transfer-encoding", "chunked") if length is None else ("content-length", str(length))))
    line.endheaders()
    reply = line.getresponse()
    assert (reply.status, reply.getheader("connection")) == (200, after)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/chat/completions", 401),
        ("GET", "/v1/models", 401),
        ("GET", "/admin/keys", 404),
        ("GET", "/nowhere", 404),
    ],
)
def test_a_refusal_without_a_body_leaves_the_connection_open(
    line: http.client.HTTPConnection, method: str, path: str, status: int
) -> None:
    for _ in range(2):
        line.request(method, path, headers={"authorization": "Bearer wrong"})
        reply = line.getresponse()
        assert (reply.status, reply.getheader("connection")) == (status, None)
        reply.read()


def test_a_refusal_of_what_was_read_leaves_the_connection_open(house: Any, line: http.client.HTTPConnection) -> None:
    key = house.key()
    for path, status in (("/v1/chat/completions", 400), ("/v1/route", 422), ("/api/v1/analytics/events", 400)):
        line.request("POST", path, body=b"{}", headers={"authorization": f"Bearer {key.token}"})
        reply = line.getresponse()
        assert (reply.status, reply.getheader("connection")) == (status, None)
        reply.read()
