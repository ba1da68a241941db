"""The parser of answers: what it accepts, what it refuses, and that segment borders never matter."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastroute.upstreams._reply import Reply

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"


def fed(*segments: bytes, bodiless: bool = False, eof: bool = False) -> Reply:
    reply = Reply(bodiless)
    for segment in segments:
        reply.feed(segment)
    if eof:
        reply.eof()
    return reply


def outcome(reply: Reply) -> tuple[object, ...]:
    return reply.kind, reply.status, reply.complete, reply.surplus, reply.keep, reply.headers(), reply.take()


ACCEPTED = {
    "content-length": (OK + b"content-length: 5\r\n\r\nhello", b"hello"),
    "no reason phrase": (b"HTTP/1.1 200\r\ncontent-length: 2\r\n\r\nok", b"ok"),
    "an empty reason phrase": (b"HTTP/1.1 200 \r\ncontent-length: 2\r\n\r\nok", b"ok"),
    "content-length 0": (OK + b"Content-Length: 0\r\n\r\n", b""),
    "blanks around values": (OK + b"content-length: \t 2 \t\r\nx:\r\n\r\nok", b"ok"),
    "identity": (OK + b"content-encoding: Identity\r\ncontent-length: 2\r\n\r\nok", b"ok"),
    "chunks": (CHUNKED + b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", b"hello world"),
    "chunk sizes in any case": (
        CHUNKED + b"A\r\n0123456789\r\n0b\r\n0123456789a\r\n0\r\n\r\n",
        b"01234567890123456789a",
    ),
    "sixteen digits": (CHUNKED + b"0000000000000002\r\nok\r\n0\r\n\r\n", b"ok"),
    "chunk extensions": (CHUNKED + b'2;a=b;c="d"\r\nok\r\n0;end\r\n\r\n', b"ok"),
    "the longest extension": (CHUNKED + b"2;" + b"x" * 254 + b"\r\nok\r\n0\r\n\r\n", b"ok"),
    "trailers": (CHUNKED + b"2\r\nok\r\n0\r\nx-usage: 7\r\ny: z\r\n\r\n", b"ok"),
    "chunked in any case": (OK + b"Transfer-Encoding: Chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"ok"),
    "interim answers": (b"HTTP/1.1 103 Hints\r\nlink: x\r\n\r\n" * 8 + OK + b"content-length: 2\r\n\r\nok", b"ok"),
    "200 header lines": (OK + b"x: y\r\n" * 199 + b"content-length: 2\r\n\r\nok", b"ok"),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    "304 with a length": (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", b""),
    "a redirect is a status": (b"HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 2\r\n\r\nok", b"ok"),
    "the last status": (b"HTTP/1.1 599 Odd\r\ncontent-length: 2\r\n\r\nok", b"ok"),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_an_answer_is_read_whole(name):
    data, body = ACCEPTED[name]
    reply = fed(data)
    assert (reply.kind, reply.complete, reply.surplus, reply.take()) == (None, True, False, body)


REFUSED = {
    "status 99": b"HTTP/1.1 099 Low\r\n\r\n",
    "status 0": b"HTTP/1.1 000 Zero\r\n\r\n",
    "status 600": b"HTTP/1.1 600 High\r\n\r\n",
    "status 999": b"HTTP/1.1 999 High\r\n\r\n",
    "four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "a status in words": b"HTTP/1.1 abc OK\r\n\r\n",
    "101": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n",
    "HTTP/2": b"HTTP/2 200 OK\r\n\r\n",
    "HTTP/1.2": b"HTTP/1.2 200 OK\r\n\r\n",
    "http in small letters": b"http/1.1 200 OK\r\n\r\n",
    "another protocol": b"220 mail.example ESMTP ready\r\n\r\n",
    "a blank line first": b"\r\n" + OK + b"content-length: 0\r\n\r\n",
    "nine interim answers": b"HTTP/1.1 100 Continue\r\n\r\n" * 9,
    "a head beyond 64 KiB": OK + b"x: " + b"y" * 65536,
    "a whole head beyond 64 KiB": OK + b"x: " + b"y" * 65536 + b"\r\n\r\n",
    "201 header lines": OK + b"x: y\r\n" * 200 + b"content-length: 0\r\n\r\n",
    "10,000 header lines": OK + b"a:b\r\n" * 10_000 + b"\r\n",
    "a name with a blank": OK + b"content length: 0\r\n\r\n",
    "a blank before the colon": OK + b"content-length : 0\r\n\r\n",
    "an empty name": OK + b": x\r\ncontent-length: 0\r\n\r\n",
    "no colon": OK + b"nonsense\r\ncontent-length: 0\r\n\r\n",
    "a name beyond ASCII": OK + b"x\xe9: y\r\ncontent-length: 0\r\n\r\n",
    "a folded line": OK + b"x: y\r\n z\r\ncontent-length: 0\r\n\r\n",
    "NUL in a value": OK + b"x: a\0b\r\ncontent-length: 0\r\n\r\n",
    "CR in a value": OK + b"x: a\rb\r\ncontent-length: 0\r\n\r\n",
    "LF in a value": OK + b"x: a\nb: c\r\ncontent-length: 0\r\n\r\n",
    "CR before CRLF": OK + b"x: a\r\r\ncontent-length: 0\r\n\r\n",
    "bare line feeds": b"HTTP/1.1 200 OK\ncontent-length: 0\n\n",
    "CR in the status line": b"HTTP/1.1 200 O\rK\r\ncontent-length: 0\r\n\r\n",
    "two lengths": OK + b"content-length: 2\r\ncontent-length: 3\r\n\r\nok!",
    "the same length twice": OK + b"content-length: 2\r\ncontent-length: 2\r\n\r\nok",
    "a list of lengths": OK + b"content-length: 2, 2\r\n\r\nok",
    "a negative length": OK + b"content-length: -2\r\n\r\n",
    "a signed length": OK + b"content-length: +2\r\n\r\nok",
    "a hexadecimal length": OK + b"content-length: 0x2\r\n\r\nok",
    "an empty length": OK + b"content-length:\r\n\r\n",
    "an enormous length": OK + b"content-length: 9999999999999999999\r\n\r\n",
    "length and chunked": OK + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "gzip, chunked": OK + b"transfer-encoding: gzip, chunked\r\n\r\n",
    "chunked twice": OK + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
    "an unknown transfer-encoding": OK + b"transfer-encoding: xchunked\r\n\r\n",
    "an empty transfer-encoding": OK + b"transfer-encoding:\r\n\r\n",
    "chunked in HTTP/1.0": b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
    "no length on a connection to be kept": OK + b"content-type: x\r\n\r\nbody",
    "an empty chunk size": CHUNKED + b"\r\n",
    "a chunk size in letters": CHUNKED + b"g\r\n",
    "a chunk size with a sign": CHUNKED + b"-1\r\n",
    "a chunk size with 0x": CHUNKED + b"0x2\r\nok\r\n",
    "a chunk size with a blank": CHUNKED + b"2 \r\nok\r\n",
    "17 digits": CHUNKED + b"00000000000000002\r\nok\r\n",
    "a chunk of 2 ** 63": CHUNKED + b"8000000000000000\r\n",
    "a chunk of 2 ** 64 - 1": CHUNKED + b"ffffffffffffffff\r\n",
    "a bare LF after a chunk size": CHUNKED + b"2\nok\r\n",
    "a bare LF in an extension": CHUNKED + b"2;x\nok\r\n",
    "a CR in an extension": CHUNKED + b"2;x\ry\r\nok\r\n",
    "NUL in an extension": CHUNKED + b"2;\0\r\nok\r\n",
    "an extension of 257 bytes": CHUNKED + b"2;" + b"x" * 257 + b"\r\nok\r\n",
    "a chunk longer than its size": CHUNKED + b"2\r\nok!\r\n",
    "a bare LF after a chunk": CHUNKED + b"2\r\nok\n",
    "a CR without LF after a chunk": CHUNKED + b"2\r\nok\rx",
    "a CR without LF at the end": CHUNKED + b"0\r\n\rx",
    "a bare LF at the end": CHUNKED + b"0\r\n\n",
    "a bare LF in a trailer": CHUNKED + b"0\r\nx: y\n\r\n",
    "a trailer that is another answer": CHUNKED + b"0\r\nHTTP/1.1 200 OK\r\n\r\n",
    "a trailer without a name": CHUNKED + b"0\r\n: y\r\n\r\n",
    "a trailer without a colon": CHUNKED + b"0\r\nx\r\n\r\n",
    "a control character in a trailer": CHUNKED + b"0\r\nx: \x01\r\n\r\n",
    "a control character in a chunk extension": CHUNKED + b"2;\x01\r\nok\r\n0\r\n\r\n",
    "trailers beyond 8 KiB": CHUNKED + b"0\r\n" + b"x: y\r\n" * 2000,
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_strictly_http_is_a_protocol_fault(name):
    """The same verdict whether it came at once or byte by byte, and without waiting for an end that never comes."""
    data = REFUSED[name]
    assert (fed(data).kind, fed(data).complete) == ("protocol", False)
    singly = Reply()
    for at in range(len(data)):
        singly.feed(data[at : at + 1])
    assert (singly.kind, singly.complete) == ("protocol", False)


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "identity, gzip", "x"])
def test_a_content_encoding_nobody_asked_for_is_a_fault(coding):
    assert fed(OK + f"content-encoding: {coding}\r\ncontent-length: 2\r\n\r\nok".encode()).kind == "encoding"


def test_one_of_two_content_encodings_is_enough():
    head = b"content-encoding: identity\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\nok"
    assert fed(OK + head).kind == "encoding"


@pytest.mark.parametrize("head", [OK + b"connection: close\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n"])
def test_a_body_until_close_is_accepted_only_where_the_peer_will_close(head):
    reply = fed(head, b"some", b"thing", eof=True)
    assert (reply.complete, reply.until_close, reply.keep, reply.take()) == (True, True, False, b"something")


@pytest.mark.parametrize(
    "data",
    [b"", b"HTTP/1.1 20", OK, OK + b"content-length: 5\r\n\r\nhell", CHUNKED + b"5\r\nhello\r\n", CHUNKED + b"0\r\n"],
)
def test_an_end_before_the_end_is_a_cut(data):
    reply = fed(data, eof=True)
    assert (reply.kind, reply.complete) == ("cut", False)


@pytest.mark.parametrize(
    ("value", "keep"),
    [
        *[("close", False), ("Close", False), ("keep-alive, close", False), ("x,close , y", False)],
        *[("keep-alive", True), ("closed", True), ("x-close", True), ("", True)],
    ],
)
def test_the_connection_header_says_whether_to_keep_it(value, keep):
    assert fed(OK + f"connection: {value}\r\ncontent-length: 0\r\n\r\n".encode()).keep is keep


def test_http_1_0_is_never_kept():
    assert not fed(b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n").keep


def test_the_answer_to_a_head_request_has_no_body():
    reply = fed(OK + b"content-length: 100\r\ncontent-encoding: gzip\r\n\r\n", bodiless=True)
    assert (reply.complete, reply.surplus, reply.take()) == (True, False, b"")


@pytest.mark.parametrize("name", ACCEPTED)
def test_bytes_after_the_end_are_surplus_and_leave_the_answer_good(name):
    data, body = ACCEPTED[name]
    together, apart = fed(data + b"HTTP/1.1 200 OK\r\n"), fed(data, b"x")
    for reply in (together, apart):
        assert (reply.complete, reply.surplus, reply.take()) == (True, True, body)


def test_headers_are_found_in_any_case_and_the_first_one_counts():
    reply = fed(OK + b"X-One:  a b \r\nset-cookie: 1\r\nSet-Cookie: 2\r\ncontent-length: 0\r\n\r\n")
    assert reply.header(b"x-one") == reply.header(b"X-ONE") == b"a b"
    assert reply.header(b"Set-Cookie") == b"1"
    assert reply.header(b"x-on") is reply.header(b"x-one-more") is reply.header(b"200") is None
    assert reply.headers() == [
        (b"x-one", b"a b"),
        (b"set-cookie", b"1"),
        (b"set-cookie", b"2"),
        (b"content-length", b"0"),
    ]


def test_interim_heads_are_not_the_answers_headers():
    reply = fed(b"HTTP/1.1 103 Hints\r\nx: early\r\n\r\n" + OK + b"content-length: 0\r\n\r\n")
    assert (reply.status, reply.header(b"x")) == (200, None)


def test_what_was_decoded_before_a_fault_stays_readable():
    reply = fed(CHUNKED + b"5\r\nhello\r\nx")
    assert (reply.kind, reply.take()) == ("protocol", b"hello")


SPLIT = [data for data, _ in ACCEPTED.values() if len(data) < 400] + [
    CHUNKED + b"5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\ntrailer: x\r\n\r\nsurplus",
    b"HTTP/1.1 100 Continue\r\n\r\n" + CHUNKED + b"3\r\nabc\r\n0\r\n\r\n",
]


@pytest.mark.parametrize("data", SPLIT)
def test_a_split_at_any_offset_changes_nothing(data):
    whole = outcome(fed(data))
    for at in range(1, len(data)):
        assert outcome(fed(data[:at], data[at:])) == whole, at
    assert outcome(fed(*(data[at : at + 1] for at in range(len(data))))) == whole


@settings(max_examples=200, deadline=None)
@given(parts=st.lists(st.binary(min_size=1, max_size=400), max_size=12), seed=st.integers(0, 2**32), cut=st.booleans())
def test_chunked_bodies_survive_any_segments(parts, seed, cut):
    """Whatever the chunks and the segments: the body is their sum, and it is complete only with its end."""
    data = CHUNKED + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + (b"" if cut else b"0\r\n\r\n")
    rng = random.Random(seed)
    reply, at, body = Reply(), 0, b""
    while at < len(data):
        step = rng.randint(1, 60)
        reply.feed(data[at : at + step])
        at += step
        if rng.random() < 0.5:
            body += reply.take()
    reply.eof()
    assert body + reply.take() == b"".join(parts)
    assert (reply.kind, reply.complete) == (("cut", False) if cut else (None, True))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 300))
def test_no_bytes_break_the_parser(noise, at):
    """Noise anywhere ends in a fault, an answer or patience, and never in an exception."""
    data = CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"
    reply = fed(data[:at] + noise, data[at:], noise, eof=True)
    assert reply.complete is (reply.kind is None)


def test_a_head_in_single_bytes_costs_no_more_than_its_length():
    """Nothing is searched twice, so a dribbled head of 64 KiB is refused in well under a second."""
    import time

    reply, data = Reply(), OK + b"x: " + b"y" * 65536
    before = time.process_time()
    for at in range(len(data)):
        reply.feed(data[at : at + 1])
    assert reply.kind == "protocol"
    assert time.process_time() - before < 0.5
