"""Who is refused before the body came: the answer says that the connection ends, so that nobody asks on it again."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest

PORTS = [
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/messages"),
    ("POST", "/v1/route"),
    ("POST", "/admin/keys"),
    ("GET", "/admin/keys/x"),
    ("POST", "/nowhere"),
]
BODY = json.dumps({"model": "cheap", "messages": [{"role": "user", "content": "hi"}]}).encode()


@pytest.fixture
def line(house: Any) -> Iterator[http.client.HTTPConnection]:
    line = http.client.HTTPConnection(house.url.removeprefix("http://"), timeout=10)
    yield line
    line.close()


@pytest.mark.parametrize("length", ["content-length", "chunked"])
@pytest.mark.parametrize(("method", "path"), PORTS)
def test_a_refusal_that_leaves_a_body_unread_ends_its_connection(
    line: http.client.HTTPConnection, method: str, path: str, length: str
) -> None:
    line.putrequest(method, path)
    line.putheader("authorization", "Bearer wrong")
    line.putheader("content-type", "application/json")
    line.putheader(
        *(("content-length", str(len(BODY))) if length == "content-length" else ("transfer-encoding", length))
    )
    line.endheaders()
    reply = line.getresponse()
    assert reply.status in (401, 404)
    assert reply.getheader("connection") == "close"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/admin/keys", "/nowhere"])
def test_a_refusal_without_a_body_leaves_the_connection_open(line: http.client.HTTPConnection, path: str) -> None:
    method = "POST" if path == "/v1/chat/completions" else "GET"
    for _ in range(2):
        line.request(method, path, headers={"authorization": "Bearer wrong"})
        reply = line.getresponse()
        assert reply.status in (401, 404)
        assert reply.getheader("connection") != "close"
        reply.read()


def test_a_refusal_of_what_was_read_leaves_the_connection_open(house: Any, line: http.client.HTTPConnection) -> None:
    key = house.key()
    for path, status in (("/v1/chat/completions", 400), ("/v1/route", 422), ("/api/v1/analytics/events", 400)):
        line.request("POST", path, body=b"{}", headers={"authorization": f"Bearer {key.token}"})
        reply = line.getresponse()
        assert reply.status == status
        assert reply.getheader("connection") != "close"
        reply.read()
