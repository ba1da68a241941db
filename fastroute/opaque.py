"""Answers nobody here interprets: bytes on their way through, looked at for nothing but what they say they used.

JSON is kept until it is whole, so that its head can tell what it cost; anything else is passed on as it comes.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from fastroute import _scan
from fastroute.domain import Usage
from fastroute.pipes import chat_error
from fastroute.upstreams.dialect import ProviderError
from fastroute.upstreams.openai import usage_of

# Ten pictures in base64 fit; what is longer is passed on as it comes and settled by its length.
KEPT_MAX: Final = 32 << 20


class OpaquePipe:
    """A pipe that changes nothing. The body's own framing says whether it is whole."""

    complete = True
    ended = False

    def __init__(self, content_type: bytes) -> None:
        self.content_seen = False
        self.content_bytes = 0
        self.error: ProviderError | None = None
        self._usage: Usage | None = None
        self._kept: list[bytes] | None = [] if content_type.startswith(b"application/json") else None
        streamed = content_type.startswith(b"text/event-stream")
        self._splitter = _scan.EventSplitter(KEPT_MAX) if streamed else None

    @property
    def usage(self) -> Usage | None:
        """What the body says; of one that is kept, once all of it has come."""
        if self._kept:
            self._kept = [b"".join(self._kept)]
            return _told(self._kept[0])
        return self._usage

    def feed(self, data: bytes) -> bytes:
        self.content_bytes += len(data)
        if self._kept is not None:
            self._kept.append(data)
            if self.content_bytes <= KEPT_MAX:
                return b""
            data, self._kept = b"".join(self._kept), None
        self.content_seen = True
        if self._splitter is not None:
            for _, payload in self._splitter.feed(data):
                if b'"usage"' in payload:
                    self._usage = _told(payload) or self._usage
        return data

    def finish(self, comment: bytes) -> bytes:
        return b"".join(self._kept or ())

    def fail(self, kind: str, code: str, message: str) -> bytes:
        # What was relayed may end in the middle of an event; a blank line makes sure that ours begins by itself.
        return b"" if self._splitter is None else b"\n\n" + chat_error(kind, code, message)


def _told(payload: bytes) -> Usage | None:
    try:
        said: Any = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None
    return usage_of(said.get("usage")) if isinstance(said, dict) else None
