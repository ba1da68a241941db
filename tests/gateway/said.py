"""What the scripted upstream says: whole answers and streams of the three dialects, and the framing around them.

Load this file by path where the words are wanted, as the `conftest.py` beside it does.
"""

from __future__ import annotations

import json
from typing import Any


def whole(body: bytes, status: int = 200, *headers: str, content_type: str = "application/json") -> bytes:
    """An answer with a content-length."""
    lines = "".join(f"{line}\r\n" for line in (f"content-type: {content_type}", *headers))
    return f"HTTP/1.1 {status} Said\r\n{lines}content-length: {len(body)}\r\n\r\n".encode() + body


def head(*headers: str, status: int = 200, content_type: str = "text/event-stream") -> bytes:
    """The head of a chunked answer."""
    lines = "".join(f"{line}\r\n" for line in (f"content-type: {content_type}", *headers))
    return f"HTTP/1.1 {status} Said\r\n{lines}transfer-encoding: chunked\r\n\r\n".encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST = b"0\r\n\r\n"


def streamed(*parts: bytes, end: bool = True) -> bytes:
    """A streamed answer, one chunk for each part."""
    return head() + b"".join(map(chunk, parts)) + (LAST if end else b"")


def event(data: Any, name: str | None = None) -> bytes:
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return ((f"event: {name}\n" if name else "") + f"data: {text}\n\n").encode()


def openai_events(*texts: str, usage: Any = (5, 7), finish: str | None = "stop", done: bool = True) -> list[bytes]:
    base = {"id": "chatcmpl-up", "object": "chat.completion.chunk", "created": 1, "model": "up"}

    def one(delta: Any, finish: str | None = None) -> bytes:
        return event({**base, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    events = [one({"role": "assistant", "content": ""}), *(one({"content": text}) for text in texts)]
    if finish:
        events.append(one({}, finish))
    if usage is not None:
        events.append(event({**base, "choices": [], "usage": openai_usage(usage)}))
    return [*events, b"data: [DONE]\n\n"] if done else events


def openai_usage(usage: Any) -> Any:
    if not isinstance(usage, tuple):
        return usage
    return {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": usage[0] + usage[1]}


def anthropic_events(*texts: str, usage: tuple[int, int] = (5, 7)) -> list[bytes]:
    message = {
        "id": "msg_up", "type": "message", "role": "assistant", "model": "up", "content": [], "stop_reason": None,
        "stop_sequence": None, "usage": {"input_tokens": usage[0], "output_tokens": 1},
    }  # fmt: skip
    said = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}} for text in texts),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": usage[1]},
        },
        {"type": "message_stop"},
    ]
    return [event(one, one["type"]) for one in said]


def google_events(*texts: str, usage: tuple[int, int] = (5, 7)) -> list[bytes]:
    counted = {"promptTokenCount": usage[0], "candidatesTokenCount": usage[1], "totalTokenCount": sum(usage)}
    parts = [{"candidates": [{"index": 0, "content": {"role": "model", "parts": [{"text": text}]}}]} for text in texts]
    parts[-1]["candidates"][0]["finishReason"] = "STOP"
    parts[-1]["usageMetadata"] = counted
    return [event(part) for part in parts]


def events(dialect: str, *texts: str) -> list[bytes]:
    """A whole good stream, event by event."""
    return {"openai": openai_events, "anthropic": anthropic_events, "google": google_events}[dialect](*texts)


def answer(dialect: str, text: str, usage: Any = (5, 7)) -> dict[str, Any]:
    """A whole good answer's body."""
    if dialect == "openai":
        message = {"role": "assistant", "content": text}
        said = {
            "id": "chatcmpl-up", "object": "chat.completion", "created": 1, "model": "up",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        }  # fmt: skip
        return said if usage is None else {**said, "usage": openai_usage(usage)}
    if dialect == "anthropic":
        return {
            "id": "msg_up", "type": "message", "role": "assistant", "model": "up", "stop_reason": "end_turn",
            "stop_sequence": None, "content": [{"type": "text", "text": text}],
            "usage": {"input_tokens": usage[0], "output_tokens": usage[1]},
        }  # fmt: skip
    return {
        "candidates": [
            {"index": 0, "content": {"role": "model", "parts": [{"text": text}]}, "finishReason": "STOP"}
        ],
        "usageMetadata": {
            "promptTokenCount": usage[0], "candidatesTokenCount": usage[1], "totalTokenCount": sum(usage)
        },
    }  # fmt: skip


def good(dialect: str, stream: bool, text: str) -> bytes:
    """The bytes of a good answer."""
    if stream:
        return streamed(*events(dialect, *_pieces(text)))
    return whole(json.dumps(answer(dialect, text)).encode())


def _pieces(text: str) -> list[str]:
    middle = len(text) // 2
    return [text[:middle], text[middle:]]
