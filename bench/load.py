"""A closed-loop client: so many connections, each asking again as soon as its answer is whole.

    python -m bench.load PORT CONNECTIONS SECONDS json|stream [KEY]

Prints one line of JSON: answers, failures, events and seconds.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import uvloop

WORDS = "hello there " * 24


def request(port: int, stream: bool, model: str = "gpt-4o-mini", key: str = "") -> bytes:
    """The bytes of one chat request of about half a kilobyte."""
    chat = {
        "model": model,
        "messages": [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": WORDS}],
    }
    body = json.dumps({**chat, "stream": True} if stream else chat, separators=(",", ":")).encode()
    bearer = b"authorization: Bearer %b\r\n" % key.encode() if key else b""
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:%d\r\ncontent-type: application/json\r\n%b"
        b"content-length: %d\r\n\r\n%b" % (port, bearer, len(body), body)
    )


class Caller(asyncio.Protocol):
    """One connection that asks until the time is over."""

    answers = failures = events = 0
    until = 0.0

    def __init__(self, asked: bytes, over: asyncio.Event) -> None:
        self.asked = asked
        self.over = over
        self.head = b""
        self.left = -1  # bytes of a body with a length; -1 while in a head or a chunked body
        self.chunked = False
        self.tail = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # a stream's
        self.transport = transport
        transport.write(self.asked)

    def data_received(self, data: bytes) -> None:
        if not self.chunked and self.left < 0:
            self.head += data
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                return
            head, data = self.head[: end + 2].lower(), self.head[end + 4 :]
            self.head = b""
            Caller.failures += not head.startswith(b"http/1.1 200")
            place = head.find(b"content-length:")
            self.chunked = place < 0
            self.tail = b""
            if place >= 0:
                self.left = int(head[place + 15 : head.index(b"\r\n", place)])
        if self.chunked:
            Caller.events += data.count(b"\n\n")
            self.tail = (self.tail + data)[-5:]
            if self.tail == b"0\r\n\r\n":
                self.chunked = False
                self.again()
        else:
            self.left -= len(data)
            if self.left <= 0:
                self.left = -1
                self.again()

    def again(self) -> None:
        Caller.answers += 1
        if time.monotonic() < Caller.until:
            self.transport.write(self.asked)
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if time.monotonic() < Caller.until:
            Caller.failures += 1
        self.over.set()


async def main(port: int, connections: int, seconds: float, stream: bool, key: str) -> None:
    asked = request(port, stream, key=key)
    overs = [asyncio.Event() for _ in range(connections)]
    began = time.monotonic()
    Caller.until = began + seconds
    loop = asyncio.get_running_loop()
    for over in overs:
        await loop.create_connection(lambda over=over: Caller(asked, over), "127.0.0.1", port)  # type: ignore[misc]  # bound now
    async with asyncio.timeout(seconds + 10):
        await asyncio.gather(*(over.wait() for over in overs))
    told = {"answers": Caller.answers, "failures": Caller.failures, "events": Caller.events}
    print(json.dumps({**told, "seconds": time.monotonic() - began}))


if __name__ == "__main__":
    uvloop.run(
        main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4] == "stream", "".join(sys.argv[5:]))
    )
