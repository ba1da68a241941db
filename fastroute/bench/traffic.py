"""What is asked and what the provider answers: the bytes of requests, of one JSON answer and of one burst of events.

One source for both sides, so that an answer that came through a gateway can be compared byte by byte.
"""

from __future__ import annotations

import json
from typing import Final

import msgspec

MODEL: Final = "gpt-4o-mini"
_TEXT = b"The quick brown fox jumps over the lazy dog. " * 6
_USAGE = b'{"prompt_tokens":11,"completion_tokens":15,"total_tokens":26}'
_HEAD = b'"id":"chatcmpl-1","created":1700000000,"model":"gpt-4o-mini"'
_CHUNK = _HEAD + b',"object":"chat.completion.chunk"'

ANSWER: Final = (
    b'{%b,"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"%b"},'
    b'"finish_reason":"stop"}],"usage":%b}' % (_HEAD, _TEXT, _USAGE)
)
_CONTENT = b'{%b,"choices":[{"index":0,"delta":{"content":" word and more"},"finish_reason":null}]}' % _CHUNK
_FINISH = b'{%b,"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}' % _CHUNK
_LAST = b'{%b,"choices":[],"usage":%b}' % (_CHUNK, _USAGE)
EVENTS: Final = tuple(b"data: %b\n\n" % data for data in (*[_CONTENT] * 20, _FINISH, _LAST, b"[DONE]"))

# Around the instant at which an event of a paced stream is written.
BEFORE: Final = b'data: {%b,"choices":[{"index":0,"delta":{"content":" t=' % _CHUNK
AFTER: Final = b'"},"finish_reason":null}]}\n\n'

STREAM_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
END: Final = b"0\r\n\r\n"
MODELS: Final = b'{"object":"list","data":[{"id":"gpt-4o-mini","object":"model","owned_by":"bench"}]}'


def piece(data: bytes) -> bytes:
    """A piece of a body in chunked framing."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def whole(body: bytes) -> bytes:
    """A JSON answer with its head."""
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


class Pace(msgspec.Struct, frozen=True):
    """How a paced stream comes: the first event after a wait, then one each so many microseconds."""

    wait_us: int
    every_us: int
    events: int

    @property
    def mark(self) -> str:
        """What the provider finds in the body."""
        return f"pace={self.wait_us},{self.every_us},{self.events};"


def body(size: int, *, stream: bool = False, pace: Pace | None = None, model: str = MODEL) -> bytes:
    """A chat request of exactly so many bytes."""
    said = f"{pace.mark} " if pace else ""
    # Who asks for the usage gets every event that the provider sends; nothing has to be taken out on the way.
    streamed = {"stream": True, "stream_options": {"include_usage": True}}
    chat = {"model": model, **(streamed if stream else {})}
    system = {"role": "system", "content": "You are a helpful assistant."}

    def encoded(text: str) -> bytes:
        messages = [system, {"role": "user", "content": said + text}]
        return json.dumps({**chat, "messages": messages}, separators=(",", ":")).encode()

    missing = size - len(encoded(""))
    if missing < 0:
        raise ValueError(f"a body of {size} bytes is too short for its own fields: {size - missing} at least")
    return encoded(("hello there " * (missing // 12 + 1))[:missing])


def request(body: bytes, host: str, path: str = "/v1/chat/completions", headers: dict[str, str] | None = None) -> bytes:
    """The bytes of one request."""
    more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    return (
        f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n{more}content-length: {len(body)}\r\n\r\n"
    ).encode() + body
