"""The callers room: the dialects people speak to us, each turned into OpenAI chat and back.

Every dialect is a module with the shape of `shape.Caller`. Nothing here reads a clock, makes an id or does I/O; what a
reply needs of those is handed in as a `shape.Reply`.
"""

from __future__ import annotations

from fastroute.callers import completions, gemini, messages, responses
from fastroute.callers.shape import Caller, Encoder, NativeOnly, Reply, ShapeError

CALLERS: dict[str, Caller] = {
    "messages": messages,
    "responses": responses,
    "gemini": gemini,
    "completions": completions,
}

__all__ = [
    "CALLERS",
    "Caller",
    "Encoder",
    "NativeOnly",
    "Reply",
    "ShapeError",
    "completions",
    "gemini",
    "messages",
    "responses",
]
