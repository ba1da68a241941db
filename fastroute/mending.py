"""Servers that only nearly speak OpenAI's chat: looked over in passing, and mended where known clients would trip.

A good answer passes byte for byte: a whole one after a few searches, a stream by what its reader saw. What trips clients:
fields that are missing, finish reasons nobody knows, usage without choices, tool calls without an index or with their name
repeated.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from fastroute import _scan
from fastroute.call import Call
from fastroute.pipes import ChatPipe
from fastroute.upstreams.dialect import FINISH_REASONS, ChatStream, ProviderError

_NEEDED: Final = (b'"id"', b'"object"', b'"created"', b'"model"', b'"choices"')
_USAGE: Final = re.compile(rb'"usage"\s*:\s*\{')
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


class MendingPipe(ChatPipe):
    """A chat stream whose doubtful events are read, and all of them once one of those had to be changed."""

    def __init__(self, read: Callable[[], ChatStream], *, hide_usage: bool, several: bool) -> None:
        """`read` makes what reads events; most streams need none."""
        super().__init__(hide_usage=hide_usage, several=several)
        self._read = read
        self._stream: ChatStream | None = None
        self._splitter = _scan.EventSplitter()
        self._sloppy = False

    @property
    def error(self) -> ProviderError | None:
        return super().error or (None if self._stream is None else self._stream.error)

    def feed(self, data: bytes) -> bytes:
        out = self._scanner.feed(data)
        if not (self._sloppy or self._scanner.doubtful):
            return out
        stream = self._stream = self._stream or self._read()
        mended = b"".join(chunk for event, payload in self._splitter.feed(out) for chunk in stream.feed(event, payload))
        self._sloppy = self._sloppy or mended != out
        return mended
