"""A provider that answers at once: one JSON answer or one burst of 23 events, as fast as a bare protocol can write.

    python -m bench.upstream PORT

Nothing in it parses more than a body's length, so that it is never what is measured.
"""

from __future__ import annotations

import asyncio
import sys

import uvloop

TEXT = b"The quick brown fox jumps over the lazy dog. " * 6
USAGE = b'{"prompt_tokens":11,"completion_tokens":15,"total_tokens":26}'
HEAD = b'"id":"chatcmpl-1","created":1700000000,"model":"gpt-4o-mini"'
ANSWER = (
    b'{%b,"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"%b"},'
    b'"finish_reason":"stop"}],"usage":%b}' % (HEAD, TEXT, USAGE)
)
CHUNK_HEAD = HEAD + b',"object":"chat.completion.chunk"'
CONTENT = b'{%b,"choices":[{"index":0,"delta":{"content":" word and more"},"finish_reason":null}]}' % CHUNK_HEAD
FINISH = b'{%b,"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}' % CHUNK_HEAD
LAST = b'{%b,"choices":[],"usage":%b}' % (CHUNK_HEAD, USAGE)
EVENTS = [b"data: %b\n\n" % data for data in (*[CONTENT] * 20, FINISH, LAST, b"[DONE]")]

JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER)
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
BURST = STREAM_HEAD + b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in EVENTS) + b"0\r\n\r\n"
PACED = b"gpt-paced-"  # a model whose name starts so gets an event each 100 ms


class Provider(asyncio.Protocol):
    """One connection, answering requests in their order."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # a stream's
        self.transport = transport
        self.rest = b""

    def data_received(self, data: bytes) -> None:
        data = self.rest + data if self.rest else data
        while (end := data.find(b"\r\n\r\n")) >= 0:
            place = data.find(b"content-length:", 0, end)
            length = int(data[place + 15 : data.index(b"\r\n", place)])
            if len(data) < end + 4 + length:
                break
            body = data[end + 4 : end + 4 + length]
            data = data[end + 4 + length :]
            if b'"stream":true' not in body:
                self.transport.write(JSON)
            elif PACED in body:
                self.transport.write(STREAM_HEAD)
                self.pace(0)
            else:
                self.transport.write(BURST)
        self.rest = data

    def pace(self, place: int) -> None:
        if self.transport.is_closing():
            return
        event = EVENTS[0] if place < 100 else EVENTS[place - 80]
        self.transport.write(b"%x\r\n%b\r\n" % (len(event), event))
        if place < 102:
            asyncio.get_running_loop().call_later(0.1, self.pace, place + 1)
        else:
            self.transport.write(b"0\r\n\r\n")


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Provider, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
