"""What is kept of one request and its answer, with everything that looks like a key masked and an end to its length."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import msgspec
import orjson
from msgspec import Struct

from fastroute.redaction import clip, scrub, scrub_text

PROMPT_MAX: Final = 256 * 1024
ANSWER_MAX: Final = 64 * 1024
# A key that begins before the cut is masked whole: what is looked through is a little longer than what is kept.
_BEYOND: Final = 4096


class Content(Struct, frozen=True):
    """One request, in its caller's dialect, and its answer; `cut` names what is not there in full."""

    surface: str  # the door it came through: chat, messages, responses ...
    prompt: str  # the request's body as JSON text; of one that was cut only the beginning
    stream: bool
    wants_json: bool
    answer: str | None = None  # its text; None is not kept
    finish: str | None = None
    calls: int = 0  # of tools, in the answer
    cut: tuple[str, ...] = ()  # prompt | answer

    def encode(self) -> bytes:
        return msgspec.msgpack.encode(self)


_decoder: msgspec.msgpack.Decoder[Content] = msgspec.msgpack.Decoder(Content)


def decode(body: bytes) -> Content:
    """What `encode` made; `DecodeError` for anything else."""
    return _decoder.decode(body)


def content_of(
    surface: str,
    body: bytes,
    *,
    stream: bool,
    wants_json: bool,
    answer: str | None = None,
    answer_cut: bool = False,
    finish: str | None = None,
    calls: int = 0,
) -> Content:
    """Scrubbed and bounded. A prompt that is too long is kept as the text it begins with, which cannot be run again."""
    cut: list[str] = []
    prompt = None
    if len(body) <= PROMPT_MAX:
        with suppress(orjson.JSONDecodeError):  # a number that nothing holds: no request to run again either
            prompt = orjson.dumps(scrub(orjson.loads(body))).decode()
    if prompt is None:
        cut.append("prompt")
        prompt = _bounded(body[: PROMPT_MAX + _BEYOND].decode("utf-8", "ignore"), PROMPT_MAX)
    if answer is not None:
        bounded = _bounded(answer, ANSWER_MAX)
        if answer_cut or len(answer.encode("utf-8", "replace")) > ANSWER_MAX:
            cut.append("answer")
        answer = bounded
    return Content(surface, prompt, stream, wants_json, answer, finish, calls, tuple(cut))


def _bounded(text: str, most: int) -> str:
    return clip(scrub_text(text[: most + _BEYOND]), most)
