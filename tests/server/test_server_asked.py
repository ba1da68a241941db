"""The parser of requests: what it accepts, and what it refuses."""

from __future__ import annotations

import string

import pytest
from asked_kit import (
    ACCEPTED,
    CHUNKED,
    FACTS,
    GET,
    HEAD,
    HEAD_MAX,
    POST,
    PREFACE,
    PROTOCOL,
    REFUSED,
    TLS_HELLO,
    VERSION,
    facts,
    fed,
    padded,
    sent,
    singly,
)

from fastroute.web._asked import Asked


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_request_is_read_whole(name):
    data, body, differs = ACCEPTED[name]
    asked = fed(data)
    assert (asked.kind, asked.complete, asked.rest, asked.unread) == (None, True, None, len(body))
    assert facts(asked) == FACTS | differs
    assert (asked.take(), asked.unread) == (body, 0)


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_request_is_complete_with_its_last_byte_and_not_before(name):
    """However it came: in one piece but for its last byte, or byte by byte."""
    data, body, differs = ACCEPTED[name]
    assert (fed(data[:-1]).kind, fed(data[:-1]).complete) == (None, False)
    asked = Asked()
    for byte in singly(data):
        assert (asked.kind, asked.complete, asked.rest) == (None, False, None)
        asked.feed(byte)
    assert (asked.kind, asked.complete, asked.rest) == (None, True, None)
    assert (facts(asked), asked.take()) == (FACTS | differs, body)


@pytest.mark.parametrize("after", [b"x", b"\r\n", b"\0", GET + b"\r\n", b"0\r\n\r\n"])
def test_what_comes_after_the_end_is_kept_as_it_came(after):
    for data, body, _ in ACCEPTED.values():
        for asked in (fed(data + after), fed(data[:-1], data[-1:] + after), fed(data, after)):
            assert (asked.kind, asked.complete, asked.rest, asked.take()) == (None, True, after, body)


@pytest.mark.parametrize(
    ("value", "keep"),
    [
        *[
            (b"close", False),
            (b"CLOSE", False),
            (b"keep-alive, close", False),
            (b"x,\tclose , y", False),
            (b",close", False),
        ],
        *[
            (b"keep-alive", True),
            (b"closed", True),
            (b"x-close", True),
            (b"close x", True),
            (b"", True),
            (b"upgrade", True),
        ],
    ],
)
def test_the_connection_header_says_whether_to_keep_it(value, keep):
    assert fed(sent(b"connection: ", value)).keep is keep
    assert fed(GET + b"connection: x\r\nconnection: " + value + b"\r\nconnection: y\r\n\r\n").keep is keep


@pytest.mark.parametrize("name", REFUSED)
def test_what_two_readers_could_read_in_two_ways_is_refused(name):
    """The same verdict whether it came at once or byte by byte, and whatever else comes."""
    kind, data = REFUSED[name]
    for asked in (fed(data), fed(*singly(data)), fed(data, GET + b"\r\n")):
        assert (asked.kind, asked.complete, asked.rest) == (kind, False, None)
        assert asked.words


def test_no_two_cases_have_one_name():
    assert len(REFUSED) == len(PROTOCOL) + len(VERSION) + len(HEAD)
    assert not REFUSED.keys() & ACCEPTED.keys()


START = b"\r!#$%&'*+-.^_`|~" + (string.ascii_letters + string.digits).encode()


@pytest.mark.parametrize(
    ("kind", "start"),
    [
        ("protocol", b" "),
        ("protocol", TLS_HELLO[:1]),
        ("protocol", b"\r\n" + TLS_HELLO[:1]),
        ("protocol", b"GET / HTTP/1.1\n"),
        ("protocol", GET + b"host: t\n"),
        ("protocol", GET + b"host: t\r\n\n"),
        ("protocol", b"\r\n\n"),
        ("version", PREFACE[:18]),
        ("head", b"G" * HEAD_MAX),
        ("head", GET + b"x: " + b"y" * (HEAD_MAX - 19)),
        ("protocol", CHUNKED + b"g"),
        ("protocol", CHUNKED + b"2\r\nokx"),
        ("protocol", CHUNKED + b"0" * 17),
        ("protocol", CHUNKED + b"7fffffffffffffff"),
        ("protocol", CHUNKED + b"0\r\n\n"),
    ],
)
def test_what_can_never_become_a_request_is_refused_though_its_end_has_not_come(kind, start):
    before = fed(start[:-1])
    assert (before.kind, before.complete) == (None, False)
    before.feed(start[-1:])
    assert (before.kind, fed(start).kind) == (kind, kind)


def test_a_request_begins_with_a_letter_of_its_method():
    for code in range(256):
        assert (fed(bytes([code])).kind is None) == (code in START), code


@pytest.mark.parametrize(("kind", "data"), [("protocol", b"\r\n" + TLS_HELLO[:3]), (None, b"\r\n" + padded(HEAD_MAX))])
def test_an_empty_line_may_itself_be_split(kind, data):
    assert (fed(data).kind, fed(data[:1], data[1:-1], data[-1:]).kind) == (kind, kind)


def test_a_target_that_was_read_before_is_read_alike():
    """What is remembered of targets belongs to no method, and there is no end to the targets there are."""
    assert fed(b"OPTIONS * HTTP/1.1\r\n\r\n").path == "*"
    assert fed(b"GET * HTTP/1.1\r\n\r\n").kind == "protocol"
    for _ in range(2):
        for n in range(1200):
            asked = fed(b"GET /%d%%20?%d HTTP/1.1\r\n\r\n" % (n, n))
            assert (asked.path, asked.raw_path, asked.query) == (f"/{n} ", b"/%d%%20" % n, b"%d" % n)


def test_a_length_may_be_as_large_as_it_likes_and_is_then_waited_for():
    for start in (POST + b"content-length: " + b"9" * 18 + b"\r\n\r\n", CHUNKED + b"3fffffffffffffff\r\n"):
        asked = fed(start, b"x" * 1000)
        assert (asked.kind, asked.complete, asked.unread, asked.take()) == (None, False, 1000, b"x" * 1000)


def test_what_was_decoded_before_a_fault_stays_readable():
    asked = fed(CHUNKED + b"5\r\nhello\r\nx")
    assert (asked.kind, asked.path, asked.take()) == ("protocol", "/", b"hello")


def test_a_body_can_be_taken_while_it_comes():
    asked = fed(POST + b"content-length: 6\r\n\r\nab")
    assert (asked.unread, asked.take(), asked.unread) == (2, b"ab", 0)
    asked.feed(b"c")
    asked.feed(b"d")
    assert (asked.unread, asked.take(), asked.take(), asked.complete) == (2, b"cd", b"", False)
    asked.feed(b"ef" + GET)
    assert (asked.take(), asked.complete, asked.rest) == (b"ef", True, GET)
