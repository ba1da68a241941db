"""Requests as they stand on the wire, with what is to be read from each; and readers of them, whole or in pieces."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from fastroute.web._asked import Asked

GET = b"GET / HTTP/1.1\r\n"
POST = b"POST / HTTP/1.1\r\n"
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"
HEAD_MAX = 64 * 1024
TLS_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(range(32))
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

FACTS = {
    "method": "GET",
    "path": "/",
    "raw_path": b"/",
    "query": b"",
    "headers": [],
    "keep": True,
    "old": False,
    "expects": False,
}


def fed(*segments: bytes) -> Asked:
    asked = Asked()
    for segment in segments:
        asked.feed(segment)
    return asked


def singly(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def cut(data: bytes, borders: list[int]) -> list[bytes]:
    """The same bytes in segments, some of them empty."""
    places = [0, *sorted(min(border, len(data)) for border in borders), len(data)]
    return [data[start:end] for start, end in pairwise(places)]


def read(segments: list[bytes]) -> list[tuple[Asked, bytes]]:
    """Every request of a connection with its body; what follows one is fed to the next."""
    found, asked = [], Asked()
    for segment in segments:
        left: bytes | None = segment
        while left is not None:
            asked.feed(left)
            left = None
            if asked.complete:
                found.append((asked, asked.take()))
                left, asked = asked.rest, Asked()
    return [*found, (asked, asked.take())]


def facts(asked: Asked) -> dict[str, Any]:
    return {name: getattr(asked, name) for name in FACTS}


def outcome(segments: list[bytes]) -> list[tuple[object, ...]]:
    """How each request was read; of one that was refused only that, for its head may have been refused early."""
    return [(asked.kind, asked.complete, body, None if asked.kind else facts(asked)) for asked, body in read(segments)]


def padded(size: int) -> bytes:
    """A whole head of that many bytes."""
    return GET + b"x: " + b"y" * (size - len(GET) - 7) + b"\r\n\r\n"


def sent(line: bytes, value: bytes = b"") -> bytes:
    """A request whose only header is this line."""
    return GET + line + value + b"\r\n\r\n"


METHODS = [
    *["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY"],
    *["M-SEARCH", "get", "A", "!#$%&'*+-.^_`|~09"],
]
LENGTH_2 = [(b"content-length", b"2")]
IN_CHUNKS = [(b"transfer-encoding", b"chunked")]
AS_TWO = {"method": "POST", "headers": LENGTH_2}
AS_CHUNKS = {"method": "POST", "headers": IN_CHUNKS}

ACCEPTED: dict[str, tuple[bytes, bytes, dict[str, Any]]] = {
    **{
        f"the method {method}": (f"{method} / HTTP/1.1\r\n\r\n".encode(), b"", {"method": method}) for method in METHODS
    },
    "a method of 24 letters": (b"M" * 24 + b" / HTTP/1.1\r\n\r\n", b"", {"method": "M" * 24}),
    "no headers": (GET + b"\r\n", b"", {}),
    "a path": (b"GET /v1/models HTTP/1.1\r\n\r\n", b"", {"path": "/v1/models", "raw_path": b"/v1/models"}),
    "two slashes": (b"GET //v1//x/ HTTP/1.1\r\n\r\n", b"", {"path": "//v1//x/", "raw_path": b"//v1//x/"}),
    "a path with dots": (b"GET /a/../b/. HTTP/1.1\r\n\r\n", b"", {"path": "/a/../b/.", "raw_path": b"/a/../b/."}),
    "a query": (b"GET /x?a=b&c=%20 HTTP/1.1\r\n\r\n", b"", {"path": "/x", "raw_path": b"/x", "query": b"a=b&c=%20"}),
    "an empty query": (b"GET /x? HTTP/1.1\r\n\r\n", b"", {"path": "/x", "raw_path": b"/x"}),
    "a query with another": (b"GET /?a?b/c HTTP/1.1\r\n\r\n", b"", {"query": b"a?b/c"}),
    "a query that is no UTF-8": (b"GET /?%ff HTTP/1.1\r\n\r\n", b"", {"query": b"%ff"}),
    "escapes": (b"GET /a%20b%2Fc%2f HTTP/1.1\r\n\r\n", b"", {"path": "/a b/c/", "raw_path": b"/a%20b%2Fc%2f"}),
    "an escaped query mark": (
        b"GET /a%3fb?c HTTP/1.1\r\n\r\n",
        b"",
        {"path": "/a?b", "raw_path": b"/a%3fb", "query": b"c"},
    ),
    "escapes beyond ASCII": (b"GET /%C3%a9 HTTP/1.1\r\n\r\n", b"", {"path": "/é", "raw_path": b"/%C3%a9"}),
    "what only resembles escapes": (b"GET /%zz%4 HTTP/1.1\r\n\r\n", b"", {"path": "/%zz%4", "raw_path": b"/%zz%4"}),
    **{
        f"{escapes.decode()}, which is no UTF-8": (
            b"GET /%20" + escapes + b"?q HTTP/1.1\r\n\r\n",
            b"",
            {"path": "/%20" + escapes.decode(), "raw_path": b"/%20" + escapes, "query": b"q"},
        )
        for escapes in (b"%ff", b"%c3", b"%c0%af", b"%ed%a0%80", b"%c3a9")
    },
    "what a browser would escape": (
        b'GET /"<>\\^`{|} HTTP/1.1\r\n\r\n',
        b"",
        {"path": '/"<>\\^`{|}', "raw_path": b'/"<>\\^`{|}'},
    ),
    "a long target": (
        b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n",
        b"",
        {"path": "/" + "x" * 9000, "raw_path": b"/" + b"x" * 9000},
    ),
    "a whole address": (
        b"GET http://t:80/a%20b?c HTTP/1.1\r\n\r\n",
        b"",
        {"path": "/a b", "raw_path": b"/a%20b", "query": b"c"},
    ),
    "a whole address in capitals": (b"GET HTTPS://T/x HTTP/1.1\r\n\r\n", b"", {"path": "/x", "raw_path": b"/x"}),
    "an address without a path": (b"GET http://t HTTP/1.1\r\n\r\n", b"", {}),
    "an address of numbers": (b"GET http://[::1]:80/ HTTP/1.1\r\n\r\n", b"", {}),
    "an address in a query": (b"GET /?u=http://a@b/ HTTP/1.1\r\n\r\n", b"", {"query": b"u=http://a@b/"}),
    "a user behind the path's start": (
        b"GET http://t/a@b HTTP/1.1\r\n\r\n",
        b"",
        {"path": "/a@b", "raw_path": b"/a@b"},
    ),
    "options of everything": (b"OPTIONS * HTTP/1.1\r\n\r\n", b"", {"method": "OPTIONS", "path": "*", "raw_path": b"*"}),
    "HTTP/1.0": (b"GET / HTTP/1.0\r\n\r\n", b"", {"old": True, "keep": False}),
    "HTTP/1.0 that would be kept": (
        b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n",
        b"",
        {"old": True, "keep": False, "headers": [(b"connection", b"keep-alive")]},
    ),
    "HTTP/1.0 with a body": (
        b"POST / HTTP/1.0\r\ncontent-length: 2\r\n\r\nok",
        b"ok",
        {"method": "POST", "old": True, "keep": False, "headers": LENGTH_2},
    ),
    "names in any case": (
        GET + b"Host: T\r\nX-ONE: A\r\nx_two: b\r\n\r\n",
        b"",
        {"headers": [(b"host", b"T"), (b"x-one", b"A"), (b"x_two", b"b")]},
    ),
    "every letter of a name": (sent(b"!#$%&'*+-.^_`|~09AZaz: 1"), b"", {"headers": [(b"!#$%&'*+-.^_`|~09azaz", b"1")]}),
    "the same name twice": (
        GET + b"a: 1\r\nA: 2\r\na: 1\r\n\r\n",
        b"",
        {"headers": [(b"a", b"1"), (b"a", b"2"), (b"a", b"1")]},
    ),
    "two hosts": (GET + b"host: a\r\nhost: b\r\n\r\n", b"", {"headers": [(b"host", b"a"), (b"host", b"b")]}),
    "blanks around values": (
        GET + b"a:1\r\nb: \t 2 3\t4 \t\r\nc:\r\nd: \t \r\n\r\n",
        b"",
        {"headers": [(b"a", b"1"), (b"b", b"2 3\t4"), (b"c", b""), (b"d", b"")]},
    ),
    "colons in a value": (sent(b"a::b:"), b"", {"headers": [(b"a", b":b:")]}),
    "a value beyond ASCII": (sent(b"a: \x80\xa0\xff"), b"", {"headers": [(b"a", b"\x80\xa0\xff")]}),
    "content-length": (POST + b"Content-Length: 2\r\n\r\nok", b"ok", AS_TWO),
    "a GET with a body": (GET + b"content-length: 2\r\n\r\nok", b"ok", {"headers": LENGTH_2}),
    "a body of line ends": (POST + b"content-length: 2\r\n\r\n\r\n", b"\r\n", AS_TWO),
    "a body like a request": (
        POST + b"content-length: 18\r\n\r\n" + GET + b"\r\n",
        GET + b"\r\n",
        {"method": "POST", "headers": [(b"content-length", b"18")]},
    ),
    "content-length 0": (
        POST + b"content-length: 0\r\n\r\n",
        b"",
        {"method": "POST", "headers": [(b"content-length", b"0")]},
    ),
    "a length of 18 digits": (
        POST + b"content-length: 000000000000000002\r\n\r\nok",
        b"ok",
        {"method": "POST", "headers": [(b"content-length", b"000000000000000002")]},
    ),
    "a name that begins like a length": (sent(b"content-length-x: 2"), b"", {"headers": [(b"content-length-x", b"2")]}),
    "an underscore is no hyphen": (sent(b"content_length: 2"), b"", {"headers": [(b"content_length", b"2")]}),
    "chunks": (CHUNKED + b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", b"hello world", AS_CHUNKS),
    "no chunks": (CHUNKED + b"0\r\n\r\n", b"", AS_CHUNKS),
    "chunk sizes in any case": (
        CHUNKED + b"A\r\n0123456789\r\n0b\r\n0123456789a\r\n000\r\n\r\n",
        b"01234567890123456789a",
        AS_CHUNKS,
    ),
    "sixteen digits": (CHUNKED + b"0000000000000002\r\nok\r\n0\r\n\r\n", b"ok", AS_CHUNKS),
    "chunk extensions": (CHUNKED + b'2;a=b;c="d"\r\nok\r\n0;end\r\n\r\n', b"ok", AS_CHUNKS),
    "the longest extension": (CHUNKED + b"2;" + b"x" * 254 + b"\r\nok\r\n0\r\n\r\n", b"ok", AS_CHUNKS),
    "trailers": (CHUNKED + b"2\r\nok\r\n0\r\nContent-Length: 7\r\nhost: z\r\n\r\n", b"ok", AS_CHUNKS),
    "the longest trailer": (CHUNKED + b"0\r\nx: " + b"y" * 8188 + b"\r\n\r\n", b"", AS_CHUNKS),
    "chunked in any case": (
        POST + b"Transfer-Encoding:\tChunKed \r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"ok",
        {"method": "POST", "headers": [(b"transfer-encoding", b"ChunKed")]},
    ),
    "a chunk like a request": (CHUNKED + b"12\r\n" + GET + b"\r\n\r\n0\r\n\r\n", GET + b"\r\n", AS_CHUNKS),
    "an empty line before": (b"\r\n" + GET + b"\r\n", b"", {}),
    "many empty lines before": (b"\r\n" * 9 + GET + b"\r\n", b"", {}),
    "100 header lines": (GET + b"x: y\r\n" * 100 + b"\r\n", b"", {"headers": [(b"x", b"y")] * 100}),
    "the longest head": (padded(HEAD_MAX), b"", {"headers": [(b"x", b"y" * (HEAD_MAX - len(GET) - 7))]}),
    "100-continue": (
        POST + b"Expect: 100-Continue\r\ncontent-length: 2\r\n\r\nok",
        b"ok",
        {"method": "POST", "expects": True, "headers": [(b"expect", b"100-Continue"), *LENGTH_2]},
    ),
    "100-continue before chunks": (
        POST + b"transfer-encoding: chunked\r\nexpect: 100-continue\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"ok",
        {"method": "POST", "expects": True, "headers": [*IN_CHUNKS, (b"expect", b"100-continue")]},
    ),
    "100-continue before nothing": (sent(b"expect: 100-continue"), b"", {"headers": [(b"expect", b"100-continue")]}),
    "100-continue in HTTP/1.0": (
        b"POST / HTTP/1.0\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\nok",
        b"ok",
        {"method": "POST", "old": True, "keep": False, "headers": [(b"expect", b"100-continue"), *LENGTH_2]},
    ),
    "another expectation": (
        POST + b"expect: 200-maybe\r\ncontent-length: 2\r\n\r\nok",
        b"ok",
        {"method": "POST", "headers": [(b"expect", b"200-maybe"), *LENGTH_2]},
    ),
}

PROTOCOL = {
    "bare line feeds": b"GET / HTTP/1.1\nhost: t\n\n",
    "a bare LF after the first line": b"GET / HTTP/1.1\nhost: t\r\n\r\n",
    "a bare LF after a header": GET + b"host: t\nx: y\r\n\r\n",
    "a bare LF at the head's end": GET + b"host: t\r\n\n",
    "a bare LF after the last header": GET + b"host: t\n\r\n",
    "an empty line of a bare LF before": b"\n" + GET + b"\r\n",
    "an empty line of a bare LF after another": b"\r\n\n" + GET + b"\r\n",
    "a bare CR before": b"\r" + GET + b"\r\n",
    "a bare CR in the method": b"GE\rT / HTTP/1.1\r\n\r\n",
    "a bare CR in the target": b"GET /\rx HTTP/1.1\r\n\r\n",
    "a bare CR after the first line": b"GET / HTTP/1.1\rhost: t\r\n\r\n",
    "two CRs after the first line": b"GET / HTTP/1.1\r\r\nhost: t\r\n\r\n",
    "a bare CR in a name": sent(b"x\ry: z"),
    "a bare CR before the colon": sent(b"x\r: z"),
    "a bare CR after the colon": sent(b"x:\rz"),
    "a bare CR in a value": sent(b"x: y\rz"),
    "two CRs after a header": GET + b"x: y\r\r\nz: 1\r\n\r\n",
    "two CRs before the end": GET + b"x: y\r\r\n\r\n",
    "a line of one CR": GET + b"\r\r\n\r\n",
    "NUL in the method": b"G\0T / HTTP/1.1\r\n\r\n",
    "NUL in the target": b"GET /\0 HTTP/1.1\r\n\r\n",
    "NUL in a name": sent(b"x\0: y"),
    "NUL in a value": sent(b"x: a\0b"),
    "NUL first": b"\0" + GET + b"\r\n",
    **{f"{code:#04x} in a value": sent(b"x: a%cb" % code) for code in (1, 7, 8, 11, 12, 27, 31, 127)},
    **{f"{code:#04x} at a value's start": sent(b"x: %cb" % code) for code in (1, 11, 12, 127)},
    **{
        f"{letter!r} in a name": sent(b"x%by: z" % letter)
        for letter in (b"(", b"/", b'"', b"{", b"@", b",", b"\x7f", b"\x80")
    },
    "a folded line": GET + b"x: y\r\n z\r\n\r\n",
    "a line folded by a tab": GET + b"x: y\r\n\tz: 1\r\n\r\n",
    "a line folded to nothing": GET + b"x: y\r\n \r\n\r\n",
    "a first header that is folded": GET + b" host: t\r\n\r\n",
    "a folded first line": b"GET /\r\n HTTP/1.1\r\n\r\n",
    "a blank before the colon": sent(b"host : t"),
    "a tab before the colon": sent(b"host\t: t"),
    "a blank in a name": sent(b"ho st: t"),
    "an empty name": sent(b": t"),
    "no colon": sent(b"host"),
    "two lengths": POST + b"content-length: 2\r\ncontent-length: 3\r\n\r\nok!",
    "the same length twice": POST + b"content-length: 2\r\nContent-Length: 2\r\n\r\nok",
    "two lengths of nothing": POST + b"content-length: 0\r\ncontent-length: 0\r\n\r\n",
    **{
        f"the length {value!r}": POST + b"content-length: " + value + b"\r\n\r\nok"
        for value in [
            *[
                b"",
                b"+2",
                b"-2",
                b"-0",
                b"0x2",
                b"2h",
                b"2.0",
                b"2e0",
                b"1_0",
                b"2 2",
                b"2,2",
                b"2, 2",
                b",2",
                b"2;",
                b'"2"',
            ],
            *[b"\xd9\xa2", b"\xb2", b"2\x0b", b"\xa02", b"two", b"0000000000000000002", b"9" * 19, b"1" + b"0" * 19],
        ]
    },
    "length and chunked": POST + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "chunked and length": POST + b"transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "chunked and a length of nothing": POST + b"transfer-encoding: chunked\r\ncontent-length: 0\r\n\r\n0\r\n\r\n",
    **{
        f"the transfer-encoding {value!r}": POST + b"transfer-encoding: " + value + b"\r\n\r\n0\r\n\r\n"
        for value in [
            *[
                b"",
                b"identity",
                b"gzip",
                b"gzip, chunked",
                b"chunked, gzip",
                b"chunked, chunked",
                b"chunked,",
                b",chunked",
            ],
            *[
                b"xchunked",
                b"chunkedx",
                b"chunke",
                b'"chunked"',
                b"chunked;q=1",
                b"chunked chunked",
                b"chunked\xa0",
                b"\xffchunked",
            ],
        ]
    },
    "chunked twice": POST + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked, then identity": POST + b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n",
    "identity, then chunked": POST + b"transfer-encoding: identity\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": b"POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "no target": b"GET HTTP/1.1\r\n\r\n",
    "an empty target": b"GET  HTTP/1.1\r\n\r\n",
    "no method": b" / HTTP/1.1\r\n\r\n",
    "a method alone": b"GET\r\n\r\n",
    "a version of one digit": b"GET / HTTP/2\r\n\r\n",
    "a version of three digits": b"GET / HTTP/1.10\r\n\r\n",
    "another protocol": b"GET / HTTQ/1.1\r\n\r\n",
    "http in small letters": b"GET / http/1.1\r\n\r\n",
    "a blank after the version": b"GET / HTTP/1.1 \r\n\r\n",
    "a blank before the method": b" " + GET + b"\r\n",
    "two blanks before the target": b"GET  / HTTP/1.1\r\n\r\n",
    "two blanks after the target": b"GET /  HTTP/1.1\r\n\r\n",
    "a tab before the target": b"GET\t/ HTTP/1.1\r\n\r\n",
    "a tab after the target": b"GET /\tHTTP/1.1\r\n\r\n",
    "a method with a bracket": b"G(T / HTTP/1.1\r\n\r\n",
    "a method of 26 letters": b"M" * 26 + b" / HTTP/1.1\r\n\r\n",
    "an answer": b"HTTP/1.1 200 OK\r\n\r\n",
    "mail": b"EHLO mail.example\r\n\r\n",
    "TLS": TLS_HELLO,
    "TLS and a head's end": TLS_HELLO + b"\r\n\r\n",
    "a blank in the target": b"GET /a b HTTP/1.1\r\n\r\n",
    "a tab in the target": b"GET /a\tb HTTP/1.1\r\n\r\n",
    "a fragment": b"GET /a#b HTTP/1.1\r\n\r\n",
    "a fragment in a query": b"GET /?a#b HTTP/1.1\r\n\r\n",
    "a target beyond ASCII": "GET /é HTTP/1.1\r\n\r\n".encode(),
    "a query beyond ASCII": b"GET /?\xff HTTP/1.1\r\n\r\n",
    "a control character in the target": b"GET /\x01 HTTP/1.1\r\n\r\n",
    "a delete in the target": b"GET /\x7f HTTP/1.1\r\n\r\n",
    "an authority": b"CONNECT t:443 HTTP/1.1\r\n\r\n",
    "an authority alone": b"GET t HTTP/1.1\r\n\r\n",
    "a path without a slash": b"GET v1/models HTTP/1.1\r\n\r\n",
    "a query alone": b"GET ?a HTTP/1.1\r\n\r\n",
    "a backslash for a slash": b"GET \\v1 HTTP/1.1\r\n\r\n",
    "an escaped slash for a slash": b"GET %2Fv1 HTTP/1.1\r\n\r\n",
    "everything, but not to know its options": b"GET * HTTP/1.1\r\n\r\n",
    "options of everything and more": b"OPTIONS ** HTTP/1.1\r\n\r\n",
    "a user in an address": b"GET http://a@t/x HTTP/1.1\r\n\r\n",
    "a user without a path": b"GET http://a:b@t HTTP/1.1\r\n\r\n",
    "an address of nobody": b"GET http:///x HTTP/1.1\r\n\r\n",
    "an address of nothing": b"GET http:// HTTP/1.1\r\n\r\n",
    "one slash": b"GET http:/t/x HTTP/1.1\r\n\r\n",
    "another scheme": b"GET ftp://t/x HTTP/1.1\r\n\r\n",
    "no scheme": b"GET ://t/x HTTP/1.1\r\n\r\n",
    "an empty chunk size": CHUNKED + b"\r\n",
    "a chunk size in letters": CHUNKED + b"g\r\n",
    "a chunk size with a plus": CHUNKED + b"+2\r\nok\r\n",
    "a chunk size with a minus": CHUNKED + b"-1\r\n",
    "a chunk size with 0x": CHUNKED + b"0x2\r\nok\r\n",
    "a chunk size with a blank": CHUNKED + b"2 \r\nok\r\n",
    "a chunk size after a blank": CHUNKED + b" 2\r\nok\r\n",
    "a chunk size with a blank before its extension": CHUNKED + b"2 ;x\r\nok\r\n",
    "a chunk size that is all extension": CHUNKED + b";x\r\nok\r\n",
    "a chunk size with an underscore": CHUNKED + b"1_0\r\n",
    "17 digits": CHUNKED + b"00000000000000002\r\nok\r\n",
    "a chunk of 2 ** 63": CHUNKED + b"8000000000000000\r\n",
    "a chunk of 2 ** 64 - 1": CHUNKED + b"ffffffffffffffff\r\n",
    "a chunk of 2 ** 64 and some": CHUNKED + b"10000000000000002\r\nok\r\n",
    "a bare LF after a chunk size": CHUNKED + b"2\nok\r\n",
    "a bare CR after a chunk size": CHUNKED + b"2\rok\r\n",
    "a bare LF in an extension": CHUNKED + b"2;x\nok\r\n",
    "a bare CR in an extension": CHUNKED + b"2;x\ry\r\nok\r\n",
    "NUL in an extension": CHUNKED + b"2;\0\r\nok\r\n",
    "an extension of 257 bytes": CHUNKED + b"2;" + b"x" * 257 + b"\r\nok\r\n",
    "a chunk longer than its size": CHUNKED + b"2\r\nok!\r\n",
    "a chunk shorter than its size": CHUNKED + b"4\r\nok\r\n0\r\n\r\n",
    "a bare LF after a chunk": CHUNKED + b"2\r\nok\n",
    "a CR without LF after a chunk": CHUNKED + b"2\r\nok\rx",
    "a chunk without an end": CHUNKED + b"2\r\nok0\r\n\r\n",
    "a CR without LF at the end": CHUNKED + b"0\r\n\rx",
    "a bare LF at the end": CHUNKED + b"0\r\n\n",
    "a bare LF after the last size": CHUNKED + b"0\n\r\n",
    "a bare LF in a trailer": CHUNKED + b"0\r\nx: y\n\r\n",
    "a bare CR in a trailer": CHUNKED + b"0\r\nx: y\rz\r\n\r\n",
    "NUL in a trailer": CHUNKED + b"0\r\nx: \0\r\n\r\n",
    **{
        f"the trailer {line!r}": CHUNKED + b"0\r\n" + line + b"\r\n\r\n"
        for line in (
            b"GET / HTTP/1.1",
            b"nonsense",
            b": x",
            b"x : y",
            b" x: y",
            b"x: y\r\n folded",
            b"x\xff: y",
            b"x(: y",
        )
    },
    "trailers beyond 8 KiB": CHUNKED + b"0\r\n" + b"x: y\r\n" * 2000,
    "a trailer beyond 8 KiB": CHUNKED + b"0\r\nx: " + b"y" * 8189 + b"\r\n",
}

VERSION = {
    "HTTP/0.9 by name": b"GET / HTTP/0.9\r\n\r\n",
    "HTTP/1.2": b"GET / HTTP/1.2\r\n\r\n",
    "HTTP/1.x": b"GET / HTTP/1.x\r\n\r\n",
    "HTTP/1,1": b"GET / HTTP/1,1\r\n\r\n",
    "HTTP/2.0": b"GET / HTTP/2.0\r\n\r\n",
    "HTTP/3.1": b"GET / HTTP/3.1\r\n\r\n",
    "HTTP/2 from the start": PREFACE,
}

HEAD = {
    "a head of one byte too many": padded(HEAD_MAX + 1),
    "a head of 80 KiB": padded(80 * 1024),
    "a head without an end": GET + b"x: " + b"y" * HEAD_MAX,
    "a target without an end": b"GET /" + b"y" * HEAD_MAX,
    "a method without an end": b"Y" * HEAD_MAX,
    "lines without an end": GET + b"x: y\r\n" * 12_000,
    "101 header lines": GET + b"x: y\r\n" * 101 + b"\r\n",
    "10,000 header lines": GET + b"a:b\r\n" * 10_000 + b"\r\n",
}

REFUSED = {
    name: (kind, data)
    for kind, table in (("protocol", PROTOCOL), ("version", VERSION), ("head", HEAD))
    for name, data in table.items()
}
