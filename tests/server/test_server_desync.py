"""Requests whose end, or whose target, two readers could see in two places.

Each is refused and its connection closed, or it is served as exactly one request; never does a provider get two, and
never are bytes after a refused request read as another.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import gateway_kit as kit
import pytest

POST = b"POST /v1/chat/completions HTTP/1.1\r\n"
HOST = b"host: t\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n"
REFUSED = frozenset({400, 408, 413, 414, 431, 505})
# What Granian reads in the one way that the RFC allows, and the compiled listener in none.
STRICTER = frozenset(
    {
        "both ways to tell a length",
        "both ways, the other order",
        "both ways, the length short",
        "both ways, the length long",
        "length twice alike",
        "end of lines bare",
        "end of the head bare",
    }
)


@dataclass(frozen=True)
class Case:
    """One request as it stands on the wire, and the body it has if it is read as it was meant."""

    name: str
    served: bool
    wire: bytes
    body: bytes


def body_of(name: str) -> bytes:
    return json.dumps({"model": f"up:desync {name}", "messages": [{"role": "user", "content": name}]}).encode()


def cases() -> Iterator[Case]:
    for name, served, first, headers, body in table():
        content = body_of(name)
        length = b"content-length: %d\r\n" % len(content)
        hexed = b"%x" % len(content)
        headers = headers.replace(b"LENGTH", length).replace(b"SIZED", b"%d" % len(content))
        wire = first + headers + b"\r\n"
        if headers.endswith(b"|"):  # the line that ends the head is part of the case
            wire = first + headers[:-1]
        wire += body.replace(b"SIZE", hexed).replace(b"BODY", content)
        yield Case(name, served, wire, content)


def table() -> Iterator[tuple[str, bool, bytes, bytes, bytes]]:
    """Name, whether it is served, request line, headers, body."""
    one = b"SIZE\r\nBODY\r\n0\r\n\r\n"

    def lengths(name: str, value: bytes, *, served: bool = False) -> tuple[str, bool, bytes, bytes, bytes]:
        return f"length {name}", served, POST, HOST + value + b"\r\n", b"BODY"

    def encodings(name: str, value: bytes, *, served: bool = False) -> tuple[str, bool, bytes, bytes, bytes]:
        return f"encoding {name}", served, POST, HOST + value + b"\r\n", one

    def chunks(name: str, body: bytes, *, served: bool = False) -> tuple[str, bool, bytes, bytes, bytes]:
        return f"chunks {name}", served, POST, HOST + CHUNKED, body

    def headers(name: str, value: bytes, *, served: bool = False) -> tuple[str, bool, bytes, bytes, bytes]:
        return f"header {name}", served, POST, HOST + value + b"\r\nLENGTH", b"BODY"

    def hosts(name: str, value: bytes, *, served: bool = False) -> tuple[str, bool, bytes, bytes, bytes]:
        return f"host {name}", served, POST, value + b"LENGTH", b"BODY"

    def lines(name: str, line: bytes, *, served: bool = False) -> tuple[str, bool, bytes, bytes, bytes]:
        return f"line {name}", served, line + b"\r\n", HOST + b"LENGTH", b"BODY"

    # The chunks count, as RFC 9112 says, and nothing more is read from such a connection.
    yield "both ways to tell a length", True, POST, HOST + b"LENGTH" + CHUNKED, one
    yield "both ways, the other order", True, POST, HOST + CHUNKED + b"LENGTH", one
    yield "both ways, the length short", True, POST, HOST + b"content-length: 3\r\n" + CHUNKED, one
    yield "both ways, the length long", True, POST, HOST + b"content-length: 9999\r\n" + CHUNKED, one

    yield "length twice alike", True, POST, HOST + b"LENGTHLENGTH", b"BODY"
    yield "length twice unlike", False, POST, HOST + b"LENGTHcontent-length: 3\r\n", b"BODY"
    yield lengths("a list", b"content-length: 5, 5")
    yield lengths("with a plus", b"content-length: +5")
    yield lengths("negative", b"content-length: -5")
    yield lengths("hexadecimal", b"content-length: 0x5")
    yield lengths("two numbers", b"content-length: 5 5")
    yield lengths("empty", b"content-length:")
    yield lengths("beyond 64 bits", b"content-length: 99999999999999999999999")
    yield lengths("just within 64 bits", b"content-length: 9223372036854775807")
    yield lengths("with an underscore", b"content-length: 1_0")
    yield lengths("a fraction", b"content-length: 5.0")
    yield lengths("non-ASCII digits", b"content-length: \xd9\xa5")
    yield lengths("a blank before the colon", b"content-length : 5")
    yield lengths("a NUL behind it", b"content-length: 5\0")
    yield "length with zeros before it", True, POST, HOST + b"content-length: 000SIZED\r\n", b"BODY"

    yield encodings("of chunks in capitals", b"TRANSFER-ENCODING: CHUNKED", served=True)
    yield encodings("of chunks behind a tab", b"transfer-encoding:\tchunked", served=True)
    yield encodings("gzip, then chunks", b"transfer-encoding: gzip, chunked")
    yield encodings("chunks, then gzip", b"transfer-encoding: chunked, gzip")
    yield encodings("chunks in chunks", b"transfer-encoding: chunked, chunked")
    yield encodings("twice", b"transfer-encoding: chunked\r\ntransfer-encoding: chunked")
    yield encodings("chunks and identity", b"transfer-encoding: chunked\r\ntransfer-encoding: identity")
    yield encodings("identity and chunks", b"transfer-encoding: identity\r\ntransfer-encoding: chunked")
    yield encodings("identity", b"transfer-encoding: identity")
    yield encodings("a word that ends so", b"transfer-encoding: xchunked")
    yield encodings("a vertical tab", b"transfer-encoding: \x0bchunked")
    yield encodings("a form feed", b"transfer-encoding: \x0cchunked")
    yield encodings("quoted", b'transfer-encoding: "chunked"')
    yield encodings("with a parameter", b"transfer-encoding: chunked;q=1")
    yield encodings("an empty element", b"transfer-encoding: ,chunked")
    yield encodings("folded", b"transfer-encoding:\r\n chunked")
    yield encodings("a blank before the colon", b"transfer-encoding : chunked")
    yield encodings("empty", b"transfer-encoding:")
    yield encodings("a NUL in it", b"transfer-encoding: chun\0ked")
    yield encodings("a high byte in it", b"transfer-encoding: chunked\xa0")
    yield "encoding in HTTP/1.0", False, POST.replace(b"1.1", b"1.0"), HOST + CHUNKED, one
    # Nobody here joins names: an underscore makes another header, and that one means nothing.
    yield "encoding with an underscore", True, POST, HOST + b"transfer_encoding: chunked\r\nLENGTH", b"BODY"
    yield "encoding named by connection", True, POST, HOST + b"connection: content-length\r\nLENGTH", b"BODY"

    yield chunks("with an extension", b"SIZE;a=b\r\nBODY\r\n0\r\n\r\n", served=True)
    yield chunks("with zeros before the size", b"00000SIZE\r\nBODY\r\n0\r\n\r\n", served=True)
    yield chunks("with trailers", b"SIZE\r\nBODY\r\n0\r\ncontent-length: 3\r\nhost: u\r\n\r\n", served=True)
    yield chunks("with a line feed in an extension", b"SIZE;a\nb\r\nBODY\r\n0\r\n\r\n")
    yield chunks("with 0x", b"0xSIZE\r\nBODY\r\n0\r\n\r\n")
    yield chunks("with a plus", b"+SIZE\r\nBODY\r\n0\r\n\r\n")
    yield chunks("with a minus", b"-SIZE\r\nBODY\r\n0\r\n\r\n")
    yield chunks("with a blank first", b" SIZE\r\nBODY\r\n0\r\n\r\n")
    yield chunks("whose size ends in a line feed", b"SIZE\nBODY\r\n0\r\n\r\n")
    yield chunks("whose data ends in a line feed", b"SIZE\r\nBODY\n0\r\n\r\n")
    yield chunks("whose data has no end", b"SIZE\r\nBODY0\r\n\r\n")
    yield chunks("longer than their size", b"SIZE\r\nBODYXX\r\n0\r\n\r\n")
    yield chunks("of 2 to the 64", b"10000000000000000\r\nBODY\r\n0\r\n\r\n")
    yield chunks("of 2 to the 64 and some", b"1000000000000000SIZE\r\nBODY\r\n0\r\n\r\n")
    yield chunks("without a size", b"\r\nBODY\r\n0\r\n\r\n")
    yield chunks("with a request for a trailer", b"SIZE\r\nBODY\r\n0\r\nGET / HTTP/1.1\r\n\r\n")
    yield chunks("with a long extension", b"SIZE;" + b"a" * 20_000 + b"\r\nBODY\r\n0\r\n\r\n")
    yield chunks("that are not", b"BODY")

    yield "end of lines bare", True, POST.replace(b"\r", b""), b"host: t\nLENGTH".replace(b"\r", b""), b"BODY"
    yield "end of the head bare", True, POST, HOST + b"LENGTH\n|", b"BODY"
    yield "carriage return bare", False, POST, b"host: t\rLENGTH", b"BODY"
    yield "carriage return twice", False, POST, b"host: t\r\r\nLENGTH", b"BODY"
    yield "empty line first", True, b"\r\n" + POST, HOST + b"LENGTH", b"BODY"
    yield "blank first", False, b" " + POST, HOST + b"LENGTH", b"BODY"

    yield hosts("missing", b"")
    yield hosts("empty", b"host:\r\n")
    yield hosts("twice", b"host: t\r\nhost: u\r\n")
    yield hosts("twice alike", b"host: t\r\nhost: t\r\n")
    yield hosts("with a path", b"host: a/admin?x=\r\n")
    yield hosts("with a query", b"host: a?x\r\n")
    yield hosts("with a fragment", b"host: a#x\r\n")
    yield hosts("with a user", b"host: a@b\r\n")
    yield hosts("with a blank", b"host: a b\r\n")
    yield hosts("with a comma", b"host: a, b\r\n")
    yield hosts("with a backslash", b"host: a\\b\r\n")
    yield hosts("non-ASCII", b"host: \xff\r\n")
    yield hosts("folded", b"host: t\r\n u\r\n")
    yield hosts("an address and a port", b"host: [::1]:8000\r\n", served=True)

    yield headers("folded", b"x-a: b\r\n c")
    yield "header folded first", False, POST, b" host: t\r\nLENGTH", b"BODY"
    yield headers("without a colon", b"x-a")
    yield headers("without a name", b": b")
    yield headers("a blank before the colon", b"x-a : b")
    yield headers("a tab before the colon", b"x-a\t: b")
    yield headers("a bracket in the name", b"x(a: b")
    yield headers("a high byte in the name", b"x\xffa: b")
    yield headers("a NUL in the name", b"x\0a: b")
    yield headers("a NUL in the value", b"x-a: b\0c")
    yield headers("a control in the value", b"x-a: b\x01c")
    yield headers("a delete in the value", b"x-a: b\x7fc")
    yield headers("a high byte in the value", b"x-a: b\xe9c", served=True)
    yield headers("credentials twice", b"authorization: Bearer a\r\nauthorization: Bearer b")
    yield headers("another key twice", b"x-api-key: a\r\nx-api-key: b")
    yield headers("content types two", b"content-type: text/plain\r\ncontent-type: application/json")
    yield headers("lines 98 in all", b"\r\n".join(b"x-%d: y" % n for n in range(96)), served=True)
    yield headers("lines 101 in all", b"\r\n".join(b"x-%d: y" % n for n in range(99)))
    yield headers("60 KiB", b"x-a: " + b"y" * 60_000, served=True)
    yield headers("140 KiB", b"x-a: " + b"y" * 140_000)

    yield lines("in absolute form", b"POST http://t/v1/chat/completions HTTP/1.1", served=True)
    yield lines("in absolute form for another", b"POST http://evil/v1/chat/completions HTTP/1.1", served=True)
    yield lines("with a long target", b"POST /v1/chat/completions?" + b"a" * 70_000 + b" HTTP/1.1")
    yield lines("with two blanks", b"POST  /v1/chat/completions HTTP/1.1")
    yield lines("with a tab", b"POST\t/v1/chat/completions HTTP/1.1")
    yield lines("with a blank in the target", b"POST /v1/chat/comp letions HTTP/1.1")
    yield lines("with a NUL in the target", b"POST /v1/chat/completions\0 HTTP/1.1")
    yield lines("with a high byte in the target", b"POST /v1/chat/completions\xff HTTP/1.1")
    yield lines("with no version", b"POST /v1/chat/completions")
    yield lines("of HTTP/1.2", b"POST /v1/chat/completions HTTP/1.2")
    yield lines("of HTTP/2.0", b"POST /v1/chat/completions HTTP/2.0")
    yield lines("with a bracket in the method", b"PO(ST /v1/chat/completions HTTP/1.1")


CASES = list(cases())
PROBE = b"GET /healthz HTTP/1.1\r\nhost: t\r\n\r\n"


def test_the_corpus_is_as_large_as_promised():
    assert len(CASES) >= 100
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_request_is_refused_whole_or_served_once(
    case: Case, gateway: kit.Gateway, upstream: kit.Upstream, listener: str
):
    """What follows on the connection is a request of its own, or is not read at all."""
    served = case.served and not (listener == "compiled" and case.name in STRICTER)
    with gateway.connect(5) as sock:
        reader = kit.Reader(sock)
        sock.sendall(case.wire + PROBE)
        reply = reader.reply()
        if served:
            assert reply.status == 200
            assert reply.json["choices"][0]["message"]["content"] == case.name
            if "both ways" in case.name:
                assert reader.ended()
            else:
                assert reader.reply().body == b"ok"
        else:
            assert reply.status in REFUSED
            assert reader.ended()
    asked = upstream.of(f"up:desync {case.name}")
    assert [kit.json.loads(request.body)["messages"][0]["content"] for request in asked] == [case.name] * served


def test_what_was_refused_is_counted(gateway: kit.Gateway):
    before = gateway.metric("fastroute_desync_rejected_total")
    for host in (b"a/b", b"a#b"):
        with gateway.connect() as sock:
            sock.sendall(kit.chat("up:any").replace(b"host: t", b"host: " + host))
            assert kit.read_reply(sock).status == 400
    assert gateway.metric("fastroute_desync_rejected_total") == before + 2


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/dummy"])
@pytest.mark.parametrize("host", ["host: a\r\nhost: b", "host: a/b", "x-a: b"])
def test_the_list_of_models_is_as_strict(gateway: kit.Gateway, path: str, host: str):
    with gateway.connect() as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\n{host}\r\n\r\n".encode())
        reader = kit.Reader(sock)
        assert reader.reply().status == 400
        assert reader.ended()


def test_a_hundred_requests_in_a_pipeline_are_answered_in_order(gateway: kit.Gateway):
    """Whole answers and streams mixed; nothing of one is in another."""
    asked = [f"number {n}" for n in range(100)]
    with gateway.connect(20) as sock:
        sock.sendall(b"".join(kit.chat("up:pipe", text, stream=n % 3 == 0) for n, text in enumerate(asked)))
        reader = kit.Reader(sock)
        for n, text in enumerate(asked):
            reply = reader.reply()
            assert reply.status == 200
            if n % 3 == 0:
                assert json.dumps(text).encode() in reply.body
                assert reply.body.endswith(b"data: [DONE]\n\n")
            else:
                assert reply.json["choices"][0]["message"]["content"] == text


def test_a_refusal_in_a_pipeline_is_the_last_answer(gateway: kit.Gateway, upstream: kit.Upstream):
    with gateway.connect() as sock:
        torn = b"POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"
        sock.sendall(kit.chat("up:kept") + torn + kit.chat("up:dropped"))
        reader = kit.Reader(sock)
        assert reader.reply().status == 200
        assert reader.reply().status == 400
        assert reader.ended()
    assert upstream.of("up:dropped") == []


def test_a_sender_who_waits_for_leave_gets_it(gateway: kit.Gateway):
    head, _, body = kit.chat("up:any").partition(b"\r\n\r\n")
    with gateway.connect() as sock:
        reader = kit.Reader(sock)
        sock.sendall(head + b"\r\nexpect: 100-continue\r\n\r\n")
        assert reader.head().status == 100
        sock.sendall(body)
        assert reader.reply().status == 200


def test_a_body_that_is_too_large_is_refused_before_it_is_asked_for(gateway: kit.Gateway):
    with gateway.connect() as sock:
        length = b"expect: 100-continue\r\ncontent-length: 9999999\r\n\r\n"
        sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\n" + length)
        reader = kit.Reader(sock)
        assert reader.head().status == 413


@pytest.mark.parametrize(
    ("request_line", "headers", "status"),
    [
        ("CONNECT t:443 HTTP/1.1", "", 404),
        ("TRACE /v1/chat/completions HTTP/1.1", "x-secret: 1\r\n", 405),
        ("OPTIONS * HTTP/1.1", "", 404),
        ("post /v1/chat/completions HTTP/1.1", "content-length: 0\r\n", 405),
        ("POST * HTTP/1.1", "content-length: 0\r\n", 404),
        ("POST t:80 HTTP/1.1", "content-length: 0\r\n", 404),
        (
            "GET /healthz HTTP/1.1",
            "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMA\r\n",
            200,
        ),
        (
            "GET /v1/chat/completions HTTP/1.1",
            "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
            "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            405,
        ),
        (
            "GET /healthz HTTP/1.1",
            "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-protocol: \xff\r\n"
            "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            200,
        ),
    ],
)
def test_what_is_not_spoken_here_is_refused_or_ignored(
    gateway: kit.Gateway, listener: str, request_line: str, headers: str, status: int
):
    """No tunnel, no echo, no other protocol: the next request on the connection is HTTP/1.1 as before."""
    no_path = listener == "compiled" and request_line.split()[1] in ("t:443", "t:80", "*") and status == 404
    refused = no_path and not request_line.startswith("OPTIONS")
    workers = gateway.workers
    with gateway.connect() as sock:
        sock.sendall(f"{request_line}\r\nhost: t\r\n{headers}\r\n".encode("latin-1") + PROBE)
        reader = kit.Reader(sock)
        reply = reader.reply()
        assert b"secret" not in reply.body
        if refused:
            assert reply.status == 400
            assert reader.ended()
        else:
            assert reply.status == status
            assert reader.reply().body == b"ok"
    assert gateway.workers == workers


@pytest.mark.parametrize(
    "noise", [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"\0\1\2\r\n\r\n"]
)
def test_what_is_no_http_ends_the_connection(gateway: kit.Gateway, noise: bytes):
    with gateway.connect() as sock:
        sock.sendall(noise)
        assert not sock.recv(4096) or not sock.recv(4096)
