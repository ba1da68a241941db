"""What is kept of an answer, and how it is kept where others can write: sealed, so that nobody but us can put one there.

A stream is kept as its events; what was told of the first request in comments is left out, and the place for the next
request's own is kept.
"""

from __future__ import annotations

import hmac
import re
from typing import Final

import msgspec
from msgspec import Struct

# A longer answer is not kept.
ANSWER_MAX: Final = 1 << 20
_SEAL_BYTES: Final = 32
_FORMAT: Final = b"fr1"
# Comments that stand alone go with the blank line after them; the blank line after one within an event is the event's end.
_COMMENT: Final = re.compile(rb"(?:\A|(?<=\n\n)|(?<=\n\r\n))(?::[^\n]*\n)+(?:\r?\n)?|^:[^\n]*\n", re.MULTILINE)
# A refusal of the model's, or an answer that a filter or a fault broke off, may be none the next time. Inside a text the
# quotes would be escaped.
_REFUSED: Final = re.compile(
    rb'"(?:finish_reason|stop_reason|finishReason)"\s*:\s*"(?:content_filter|refusal|error|pause_turn|SAFETY|RECITATION'
    rb"|LANGUAGE|OTHER|BLOCKLIST|PROHIBITED_CONTENT|SPII|MALFORMED_FUNCTION_CALL|IMAGE_SAFETY|UNEXPECTED_TOOL_CALL)\""
    rb'|"refusal"\s*:\s*"|"blockReason"\s*:'
).search


class Answer(Struct, frozen=True, array_like=True, gc=False):
    """One answer: which request it was first given to, by which entry and when, and its bytes.

    `after` is what follows the place of our own comment in a stream that has one; `before` is all there is of any other.
    """

    request: str
    entry_id: str
    stored_ms: int  # wall clock
    stream: bool
    before: bytes
    after: bytes | None = None

    def pack(self) -> bytes:
        return _ENCODER.encode(self)

    @classmethod
    def unpack(cls, packed: bytes) -> Answer | None:
        """None for what is no answer."""
        try:
            return _DECODER.decode(packed)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Answer)


def answer_of(request: str, entry_id: str, stored_ms: int, body: bytes, *, stream: bool) -> Answer | None:
    """What is kept of a body that ended well; None for one that should not be told again."""
    if not body or len(body) > ANSWER_MAX:
        return None
    if _REFUSED(body) is not None:
        return None
    if not stream:
        return Answer(request, entry_id, stored_ms, False, body)
    told = body.find(b"\n: x-router-")
    if told < 0:
        return Answer(request, entry_id, stored_ms, True, _COMMENT.sub(b"", body))
    return Answer(
        request, entry_id, stored_ms, True, _COMMENT.sub(b"", body[: told + 1]), _COMMENT.sub(b"", body[told + 1 :])
    )


def sealed(secret: bytes, name: str, answer: Answer) -> bytes:
    """An answer as others may keep it: whoever changes a bit of it, or moves it under another name, breaks the seal."""
    packed = answer.pack()
    return _FORMAT + _seal(secret, name, packed) + packed


def unsealed(secret: bytes, name: str, value: bytes) -> Answer | None:
    """The answer that was sealed under this name; None for anything else."""
    begin = len(_FORMAT) + _SEAL_BYTES
    if not value.startswith(_FORMAT) or len(value) <= begin:
        return None
    packed = value[begin:]
    if not hmac.compare_digest(value[len(_FORMAT) : begin], _seal(secret, name, packed)):
        return None
    return Answer.unpack(packed)


def _seal(secret: bytes, name: str, packed: bytes) -> bytes:
    return hmac.digest(secret, b"seal\0" + name.encode() + b"\0" + packed, "sha256")
