"""Servers that only nearly speak OpenAI's chat: looked over in passing, and mended where known clients would trip.

A good answer passes byte for byte, at the price of a few searches for bytes. What trips clients: fields that are
missing, finish reasons nobody knows, usage without choices, tool calls without an index or with their name repeated.
"""

from __future__ import annotations

import re
from typing import Final

from fastroute import _scan
from fastroute.call import Call
from fastroute.pipes import ChatPipe
from fastroute.upstreams.dialect import FINISH_REASONS, ChatStream, ProviderError

_NEEDED: Final = (b'"id"', b'"object"', b'"created"', b'"model"', b'"choices"')
_USAGE: Final = re.compile(rb'"usage"\s*:\s*\{')
_CHOICES: Final = re.compile(rb'"choices"\s*:\s*\[')
_ODD_FINISH: Final = re.compile(
    rb'"finish_reason"\s*:\s*+(?!null\b|"(?:%s)")' % b"|".join(word.encode() for word in sorted(FINISH_REASONS))
)


def trips(call: Call, body: bytes) -> bool:
    """Whether a whole chat answer must be made anew. A name inside a text is escaped, so it is never taken for a field."""
    if call.surface.name != "chat":
        return False
    if _USAGE.search(body) is None or _ODD_FINISH.search(body) is not None:
        return True
    return any(name not in body for name in _NEEDED)


def _fits(out: bytes, usage: re.Match[bytes]) -> bool:
    """Whether the event that has this usage is as clients need it, by its bytes; those of one event end with a blank line."""
    if b"\r" in out:
        return False
    event = out[out.rfind(b"\n\n", 0, usage.start()) + 1 : out.find(b"\n\n", usage.end()) + 1]
    return _CHOICES.search(event) is not None and all(name in event for name in _NEEDED)


class MendingPipe(ChatPipe):
    """A chat stream whose doubtful events are read, and all of them once one of those had to be changed."""

    def __init__(self, stream: ChatStream, *, hide_usage: bool, several: bool) -> None:
        super().__init__(hide_usage=hide_usage, several=several)
        self._stream = stream
        self._splitter = _scan.EventSplitter()
        self._begun = False
        self._sloppy = False

    @property
    def error(self) -> ProviderError | None:
        return super().error or self._stream.error

    def feed(self, data: bytes) -> bytes:
        out = self._scanner.feed(data)
        if not self._sloppy and not self._doubtful(out):
            return out
        mended = b"".join(
            chunk for event, payload in self._splitter.feed(out) for chunk in self._stream.feed(event, payload)
        )
        self._sloppy = self._sloppy or mended != out
        return mended

    def _doubtful(self, out: bytes) -> bool:
        if not self._begun and b"data" in out:
            # A server that fills its first chunk fills them all.
            self._begun = True
            if any(name not in out for name in _NEEDED):
                self._sloppy = True
                return True
        # What opens a call may open it again; what goes on with one needs its own index beside its choice's.
        if b'"tool_calls"' in out and (b'"name"' in out or out.count(b'"index"') < 2 * out.count(b'"tool_calls"')):
            return True
        if b'"usage"' in out and not all(_fits(out, found) for found in _USAGE.finditer(out)):
            return True
        reason = self._scanner.finish_reason
        return reason is not None and reason not in FINISH_REASONS
