"""The parser of requests beside h11, an independent reader: what is accepted here is the same request there."""

from __future__ import annotations

import random
import re
from collections import Counter
from typing import Any
from urllib.parse import unquote

import h11
import pytest
from asked_kit import HEAD_MAX, facts, fed


class Grammar:
    """Requests by the grammar, of which some are then spoiled in a place or two."""

    SPOILS = (
        *(
            b"\r",
            b"\n",
            b"\r\n",
            b"\r\n\r\n",
            b"\0",
            b" ",
            b"\t",
            b":",
            b",",
            b";",
            b"\x01",
            b"\x0b",
            b"\x7f",
            b"\x80",
            b"\xff",
        ),
        *(b"0", b"1", b"9", b"a", b"#", b"%", b"%ff", b"?", b"/", b"*", b"-", b"+", b"0\r\n", b"HTTP/1.0", b"HTTP/1.1"),
        *(
            b"chunked",
            b"content-length: 3\r\n",
            b"transfer-encoding: chunked\r\n",
            b"connection: close\r\n",
            b"host: u\r\n",
        ),
        *(b"\r\n folded", b"x: y\r\n", b" HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nhost: t\r\n\r\n"),
    )

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def some(self, *choices: bytes, most: int = 3) -> bytes:
        return b"".join(self.rng.choices(choices, k=self.rng.randint(0, most)))

    def target(self) -> bytes:
        path = b"/" + self.some(b"v1", b"/", b"a", b"%20", b"%c3%a9", b"%", b"..", b":", b"@", b"~", b"'", b"\\")
        if self.rng.random() < 0.3:
            path += b"?" + self.some(b"a=b", b"&", b"%ff", b"?", b"/", b"http://t")
        form = self.rng.random()
        if form < 0.1:
            return self.rng.choice([b"http://t", b"HTTPS://t:80", b"http://[::1]:80"]) + path
        return b"*" if form < 0.12 else path

    def headers(self) -> list[bytes]:
        lines = [b"Host: t"]
        for _ in range(self.rng.randint(0, 4)):
            name = self.rng.choice([b"x", b"Accept", b"X-Y_Z", b"cookie", b"connection", b"Expect", b"!#$%&'*+-.^_`|~"])
            words = (
                b"a",
                b" ",
                b"\t",
                b":",
                b",",
                b"close",
                b"keep-alive",
                b"100-continue",
                b"\xe9",
                b'"',
                b"chunked",
                b"0",
            )
            lines.append(name + b":" + self.some(b" ", b"\t", most=2) + self.some(*words, most=4))
        return lines

    def chunks(self) -> bytes:
        out = b""
        for _ in range(self.rng.randint(0, 3)):
            part = self.some(b"hello", b"\r\n", b"0", b"\0", b"\xff", b"x" * 20) + b"!"
            size = b"%x" % len(part) if self.rng.random() < 0.5 else b"%04X" % len(part)
            out += size + self.extension() + b"\r\n" + part + b"\r\n"
        out += b"0" * self.rng.randint(1, 3) + self.extension() + b"\r\n"
        return out + self.some(b"x: y\r\n", b"Content-Length: 9\r\n", b"empty:\r\n", most=2) + b"\r\n"

    def extension(self) -> bytes:
        return self.rng.choice([b"", b"", b"", b";a", b";a=b", b';a="b;c"; d'])

    def request(self) -> bytes:
        method = self.rng.choice([b"GET", b"POST", b"POST", b"PUT", b"OPTIONS", b"HEAD", b"M-SEARCH", b"delete"])
        version = b"HTTP/1.0" if self.rng.random() < 0.1 else b"HTTP/1.1"
        lines, body = self.headers(), b""
        kind = self.rng.random()
        if kind < 0.4:
            lines.append(self.rng.choice([b"Transfer-Encoding: chunked", b"transfer-encoding:CHUNKED\t"]))
            body = self.chunks()
        elif kind < 0.8:
            body = self.some(b"hello", b"\r\n", b"\0\xff", b"GET / HTTP/1.1\r\n\r\n")
            lines.append(self.rng.choice([b"Content-Length: %d", b"content-length:\t%03d "]) % len(body))
        self.rng.shuffle(lines)
        head = b" ".join((method, self.target(), version))
        return self.some(b"\r\n", most=1) + b"\r\n".join((head, *lines, b"", b"")) + body

    def spoiled(self, data: bytes) -> bytes:
        at = self.rng.randint(0, len(data))
        end = min(at + self.rng.choice([0, 0, 1, 1, 2, 8]), len(data))
        other = self.rng.randint(0, len(data))
        return data[:at] + self.rng.choice([b"", data[other : other + 8], *self.SPOILS]) + data[end:]

    def wire(self) -> bytes:
        data = self.request()
        for _ in range(self.rng.choice([0, 1, 1, 1, 2, 3])):
            data = self.spoiled(data)
        return data + self.rng.choice([b"", b"", self.request(), b"\r\n", b"surplus"])


def spelled(raw: bytes) -> str:
    try:
        return unquote(raw.decode(), errors="strict")
    except UnicodeDecodeError:
        return raw.decode()


class Peer:
    """What h11 says of the same bytes."""

    def __init__(self, data: bytes) -> None:
        self.fault = ""
        self.request: h11.Request | None = None
        self.body = b""
        self.complete = self.waits = self.keep = False
        line = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_MAX)
        # It takes an empty line for a request without a first line; RFC 9112 asks a server to pass over it.
        line.receive_data(re.sub(rb"\A(\r\n)+", b"", data))
        try:
            while (event := line.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                if isinstance(event, h11.Request):
                    self.request = event
                    self.waits = line.they_are_waiting_for_100_continue
                elif isinstance(event, h11.Data):
                    self.body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    self.complete, self.keep = True, line.their_state is not h11.MUST_CLOSE
                    break
        except h11.RemoteProtocolError as fault:
            self.fault = str(fault)
        self.rest = line.trailing_data[0]

    @property
    def leaves_it_to_others(self) -> bool:
        """It has refused a host, which the application looks at here, or what a trailer says, which nobody hears."""
        return "Host: header" in self.fault or (
            self.request is not None
            and self.fault != ""
            and not self.fault.startswith(("illegal chunk header", "malformed chunk"))
        )

    def facts(self) -> dict[str, Any]:
        assert self.request is not None
        target = self.request.target
        address = re.fullmatch(rb"(?i)https?://[^/?@]+(.*)", target)
        raw, _, query = ((address[1] or b"/") if address else target).partition(b"?")
        headers = [
            (name, b"chunked" if name == b"transfer-encoding" else value) for name, value in self.request.headers
        ]
        return {
            "method": self.request.method.decode(),
            "path": spelled(raw),
            "raw_path": raw,
            "query": query,
            "headers": headers,
            "keep": self.keep,
            "old": self.request.http_version == b"1.0",
        }


@pytest.mark.parametrize("seed", range(4))
def test_what_is_accepted_is_the_same_request_to_another_reader(seed):
    """Method, target, headers, body and end; where only the other accepts, this one has refused and says why."""
    grammar, tally = Grammar(seed), Counter[str]()
    for _ in range(1500):
        data = grammar.wire()
        asked, peer = fed(data), Peer(data)
        if asked.complete:
            if peer.leaves_it_to_others:
                tally["left to others"] += 1
                continue
            assert (peer.fault, peer.complete) == ("", True), data
            mine = facts(asked)
            mine["headers"] = [(n, v.lower() if n == b"transfer-encoding" else v) for n, v in mine["headers"]]
            assert mine.pop("expects") <= peer.waits, data
            assert mine == peer.facts(), data
            assert (asked.take(), asked.rest or b"") == (peer.body, peer.rest), data
            tally["agreed"] += 1
        elif peer.complete:
            assert asked.kind is not None, data
            tally[asked.words] += 1
        else:
            tally["both refused" if asked.kind and peer.fault else "one waits"] += 1
    # A generator that has gone dull would prove nothing.
    assert tally["agreed"] > 300, tally
    assert tally["both refused"] > 200, tally
    assert len(tally) > 8, tally
