"""Bodies that are too large, too slow, too short or not what they say: refused early, and never passed on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Callable

import gateway_kit as kit
import pytest

from fastroute.relay import Failed
from fastroute.web import reading

LIMIT = 4 << 20
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\n"
HEADS = [HEAD, b"POST /api/v1/budget/handshake HTTP/1.1\r\nhost: t\r\n"]  # a hot door, and one of the desk's
START = b'{"model":"up:unread","messages":[{"role":"user","content":"'


# --- too large ------------------------------------------------------------------------------------------------------


def test_no_more_is_read_than_the_limit_and_one_piece():
    """A body without an announced length is given up as soon as it is too long."""
    read = 0

    async def receive():
        nonlocal read
        read += 65_536
        return {"type": "http.request", "body": bytes(65_536), "more_body": True}

    async def read_whole():
        length = reading.length_of({b"transfer-encoding": b"chunked"}, LIMIT)
        return await reading.rest_of(receive, await receive(), length, LIMIT)

    with pytest.raises(Failed) as refused:
        asyncio.run(read_whole())
    assert (refused.value.status, refused.value.closes) == (413, True)
    assert LIMIT < read <= LIMIT + 65_536


def test_an_announced_length_beyond_the_limit_is_refused_unread():
    with pytest.raises(Failed) as refused:
        reading.length_of({b"content-length": b"%d" % (LIMIT + 1)}, LIMIT)
    assert refused.value.status == 413


def test_a_body_at_the_limit_is_read(gateway: kit.Gateway):
    text = "a" * (LIMIT - len(kit.chat("up:large").partition(b"\r\n\r\n")[2]) + 2)
    assert gateway.ask("up:large", text).status == 200
    with gateway.connect() as sock:
        with contextlib.suppress(ConnectionError):
            sock.sendall(kit.chat("up:large", text + "a"))
        assert kit.read_reply(sock).status == 413


@pytest.mark.parametrize("lead", [b"content-length: %d\r\n\r\n" % (LIMIT * 16), b"transfer-encoding: chunked\r\n\r\n"])
def test_who_sends_too_much_reads_why_and_is_cut_off(gateway: kit.Gateway, upstream: kit.Upstream, lead: bytes):
    piece = b"a" * 65_536
    if b"chunked" in lead:
        piece = kit.chunk(piece)
    with gateway.connect() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        sock.sendall(HEAD + lead + (kit.chunk(START) if b"chunked" in lead else START))
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 8 * LIMIT:
                sock.sendall(piece)
                sent += len(piece)
        assert sent < 3 * LIMIT  # what lies in the buffers of two kernels is counted too
        reader = kit.Reader(sock)
        with contextlib.suppress(ConnectionError):  # a reset may outrun the answer
            assert reader.reply().status == 413
            assert reader.ended()
    assert upstream.of("up:unread") == []


def test_limits_are_counted(gateway: kit.Gateway):
    before = gateway.metric("fastroute_limit_total", what="body")
    with gateway.connect() as sock:
        sock.sendall(HEAD + b"content-length: 99999999\r\n\r\n")
        assert kit.read_reply(sock).status == 413
    assert gateway.metric("fastroute_limit_total", what="body") == before + 1


# --- too slow -------------------------------------------------------------------------------------------------------


def test_the_limits_of_patience_are_what_is_promised():
    assert (reading.FIRST_BYTE_S, reading.WHOLE_BODY_S) == (10.0, 30.0)


@pytest.mark.parametrize("head", HEADS)
def test_a_body_that_never_begins_is_given_up(gateway: kit.Gateway, head: bytes):
    """After the deadline for its first byte: 0.4 s here."""
    before = gateway.metric("fastroute_limit_total", what="body_slow")
    with gateway.connect() as sock:
        began = time.monotonic()
        sock.sendall(head + b"content-length: 200\r\n\r\n")
        reader = kit.Reader(sock)
        assert reader.reply().status == 408
        assert 0.35 < time.monotonic() - began < 2
        assert reader.ended()
    assert gateway.metric("fastroute_limit_total", what="body_slow") == before + 1


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_drips_is_given_up(gateway: kit.Gateway, upstream: kit.Upstream, chunked: bool, head: bytes):
    """After the deadline for the whole, 0.8 s here, however steadily it comes."""
    with gateway.connect() as sock:
        began = time.monotonic()
        sock.sendall(head + (b"transfer-encoding: chunked\r\n\r\n" if chunked else b"content-length: 2000\r\n\r\n"))
        sock.settimeout(0.05)
        answer = b""
        while b"\r\n\r\n" not in answer:
            sock.sendall(kit.chunk(b"a") if chunked else b"a")
            with contextlib.suppress(TimeoutError):
                answer += sock.recv(4096)
            assert time.monotonic() - began < 5
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"connection: close" in answer
        assert 0.7 < time.monotonic() - began < 3
    assert upstream.of("up:unread") == []


# --- too short ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["fin", "reset", "half-close"])
@pytest.mark.parametrize(
    "wire",
    [
        b"content-length: 4000\r\n\r\n" + START,
        b"content-length: 67\r\n\r\n" + START + b'"}]',
        b"transfer-encoding: chunked\r\n\r\n" + kit.chunk(START),
        b"transfer-encoding: chunked\r\n\r\n" + kit.chunk(START + b'"}]}'),
        b"transfer-encoding: chunked\r\n\r\n" + kit.chunk(START + b'"}]}') + b"0\r\n",
        b"transfer-encoding: chunked\r\n\r\n" + kit.chunk(START)[:-9],
    ],
    ids=["length", "one byte short", "chunks", "no last chunk", "half a last chunk", "half a chunk"],
)
def test_a_body_whose_sender_leaves_is_never_passed_on(
    gateway: kit.Gateway, upstream: kit.Upstream, wire: bytes, how: str
):
    """Not even when what came of it is whole JSON by chance."""
    before = gateway.metric("fastroute_body_aborted_total")
    with gateway.connect() as sock:
        sock.sendall(HEAD + wire)
        time.sleep(0.02)
        if how == "reset":
            kit.reset(sock)
        elif how == "half-close":
            sock.shutdown(socket.SHUT_WR)
            assert kit.read_reply(sock).json["error"]["code"] == "body_aborted"
    kit.wait_until(lambda: gateway.metric("fastroute_body_aborted_total") == before + 1, 2, 0.02)
    assert upstream.of("up:unread") == []


def test_a_length_that_is_too_small_cuts_no_request_in_two(gateway: kit.Gateway, upstream: kit.Upstream):
    """The body up to the length is no JSON, and what follows it is no request."""
    body = START + b'"}]}'
    with gateway.connect() as sock:
        sock.sendall(HEAD + b"content-length: %d\r\n\r\n" % (len(body) - 2) + body)
        reader = kit.Reader(sock)
        assert [reader.reply().status, reader.reply().status] == [400, 400]
        assert reader.ended()
    assert upstream.of("up:unread") == []


# --- not what they say ----------------------------------------------------------------------------------------------

USER = '{"role":"user","content":"hi"}'


def bodies() -> dict[str, bytes]:
    def chat(more: str = "", content: str = '"hi"', messages: str = "") -> bytes:
        messages = messages or f'{{"role":"user","content":{content}}}'
        return f'{{"model":"up:unread",{more}"messages":[{messages}]}}'.encode("utf-8", "surrogatepass")

    return {
        "nothing": b"",
        "blanks": b"  \n",
        "no JSON": b"model=gpt",
        "an array": b"[" + chat() + b"]",
        "a text": b'"hi"',
        "null": b"null",
        "two": chat() + chat(),
        "garbage behind": chat() + b"x",
        "half": chat()[:-1],
        "a comment": chat().replace(b"{", b"{/**/", 1),
        "a trailing comma": chat()[:-1] + b",}",
        "single quotes": chat().replace(b'"', b"'"),
        "a key twice": chat('"model":"up:other",'),
        "a key twice below": chat(messages='{"role":"user","content":"a","content":"b"}'),
        "a key twice, escaped": chat('"mod\\u0065l":"up:other",'),
        "depth 65": chat('"x":' + "[" * 65 + "]" * 65 + ","),
        "depth 200,000": chat('"x":' + "[" * 200_000 + "]" * 200_000 + ","),
        "objects 200,000 deep": chat('"x":' + '{"a":' * 200_000 + "1" + "}" * 200_000 + ","),
        "brackets that never close": b"[" * 1_000_000,
        "a number of a million digits": chat('"seed":' + "1" * 1_000_000 + ","),
        "NaN": chat('"temperature":NaN,'),
        "Infinity": chat('"temperature":-Infinity,'),
        "a number with a zero before it": chat('"seed":01,'),
        "a hexadecimal number": chat('"seed":0x10,'),
        "a lone high surrogate": chat(content='"\\ud800"'),
        "a lone low surrogate": chat(content='"\\udc00x"'),
        "a lone surrogate in a key": chat('"\\ud800":1,'),
        "an encoded surrogate": chat(content='"\ud800"'),
        "an escape that is none": chat(content='"\\x41"'),
        "a raw control character": chat(content='"a\nb"'),
        "a NUL": chat(content='"a\0b"'),
        "a byte that is no UTF-8": chat().replace(b"hi", b"h\xff"),
        "half a character": chat().replace(b"hi", b"h\xc3"),
        "an overlong slash": chat().replace(b"hi", b"h\xc0\xaf"),
        "beyond Unicode": chat().replace(b"hi", b"\xf4\x90\x80\x80"),
        "a byte order mark": b"\xef\xbb\xbf" + chat(),
        "UTF-16": chat().decode().encode("utf-16"),
        "UTF-16 without a mark": chat().decode().encode("utf-16-le"),
        "UTF-32": chat().decode().encode("utf-32"),
        "400,000 messages": chat(messages=",".join(["{}"] * 400_000)),
        "100,000 messages with roles": chat(messages=",".join([USER] * 100_000)),
        "300 tools": chat('"tools":[' + ",".join(['{"type":"function"}'] * 300) + "],"),
        "100,000 keys": chat("".join(f'"k{n}":1,' for n in range(100_000))),
        "a model that is no text": chat().replace(b'"up:unread"', b'["up:unread"]'),
        "messages that are no list": b'{"model":"auto","messages":"hi"}',
        "a negative cap": chat('"max_tokens":-1,'),
        "a cap that is no number": chat('"max_tokens":"9",'),
    }


BODIES = bodies()


@pytest.mark.parametrize("name", BODIES)
def test_a_body_two_parsers_could_disagree_on_is_refused(gateway: kit.Gateway, upstream: kit.Upstream, name: str):
    """400 in the envelope, quickly, and the connection lives: the framing was good."""
    body = BODIES[name]
    with gateway.connect() as sock:
        began = time.monotonic()
        sock.sendall(kit.post(body))
        reader = kit.Reader(sock)
        reply = reader.reply()
        took = time.monotonic() - began
        assert reply.status == 400
        assert set(reply.json["error"]) == {"message", "type", "param", "code"}
        assert len(reply.body) < 1000
        assert took < 0.5
        sock.sendall(b"GET /healthz HTTP/1.1\r\nhost: t\r\n\r\n")
        assert reader.reply().body == b"ok"
    assert upstream.of("up:unread") == []


def test_the_worst_body_costs_others_little(gateway: kit.Gateway, figure: Callable[[str], None]):
    """Best of three, so that a busy machine is not taken for a slow parser."""
    slowest = {}
    for name, body in BODIES.items():
        if len(body) > 100_000:
            took = []
            for _ in range(3):
                with gateway.connect() as sock:
                    began = time.monotonic()
                    sock.sendall(kit.post(body))
                    assert kit.read_reply(sock).status == 400
                    took.append(time.monotonic() - began)
            slowest[name] = round(min(took) * 1000, 1)
    figure(f"refusal of the largest bad bodies, ms: {json.dumps(slowest)}")
    assert max(slowest.values()) < 60


def test_a_body_in_another_encoding_is_refused(gateway: kit.Gateway):
    for coding in (b"gzip", b"br", b"deflate", b"zstd", b"identity, gzip"):
        with gateway.connect() as sock:
            sock.sendall(kit.chat("up:unread").replace(b"host: t", b"host: t\r\ncontent-encoding: " + coding))
            assert kit.read_reply(sock).status == 415


def test_what_was_wrong_is_counted(gateway: kit.Gateway):
    whys = {
        "a key twice": "duplicate_key",
        "depth 65": "depth",
        "half a character": "utf8",
        "400,000 messages": "too_many_messages",
    }
    for name, why in whys.items():
        before = gateway.metric("fastroute_bad_json_total", why=why)
        with gateway.connect() as sock:
            sock.sendall(kit.post(BODIES[name]))
            assert kit.read_reply(sock).status == 400
        assert gateway.metric("fastroute_bad_json_total", why=why) == before + 1


@pytest.mark.parametrize("wrapped", [False, True])
def test_gemini_counts_contents_and_whole_requests(gateway: kit.Gateway, wrapped: bool) -> None:
    """A `countTokens` body holds the contents themselves or the request that would be sent."""
    request = {"model": "models/up:x", "contents": [{"role": "user", "parts": [{"text": "word " * 40}]}]}
    body = json.dumps({"generateContentRequest": request} if wrapped else request).encode()
    with gateway.connect() as sock:
        sock.sendall(kit.post(body, "/v1beta/models/up:x:countTokens"))
        reply = kit.read_reply(sock)
    assert reply.status == 200, reply.body
    assert reply.json["totalTokens"] >= 40
