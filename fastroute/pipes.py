"""What stands between an upstream's stream and its caller: read, watch, translate, and end honestly.

Every pipe has one face. `feed` takes the bytes that came and gives the bytes to send; the attributes say what was seen.
A clean end is only written by `finish`, and only when the provider said its own last word.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

import orjson

from fastroute import _scan
from fastroute.callers import Encoder
from fastroute.domain import Usage
from fastroute.upstreams import sse
from fastroute.upstreams.dialect import ChatStream, ProviderError, error_from
from fastroute.upstreams.openai import usage_of
from fastroute.upstreams.responses import ResponsesStream

# A line may end in CR, LF or CRLF; two ends in a row end an event.
_BLANK_LINE: Final = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r)")


class Pipe(Protocol):
    """One streamed answer on its way to one caller."""

    @property
    def content_seen(self) -> bool:
        """Whether anything a caller would call an answer has come."""

    @property
    def content_bytes(self) -> int:
        """An upper bound of the content's bytes so far."""

    @property
    def complete(self) -> bool:
        """Whether the answer is whole, so that a clean end of its message may stand."""

    @property
    def ended(self) -> bool:
        """Whether the provider said its last word, after which nothing is waited for."""

    @property
    def usage(self) -> Usage | None: ...

    @property
    def error(self) -> ProviderError | None:
        """What the provider said went wrong, inside a stream that began well."""

    def feed(self, data: bytes) -> bytes: ...

    def finish(self, comment: bytes) -> bytes:
        """The clean end, with a comment before the last word where the dialect has one."""

    def fail(self, kind: str, code: str, message: str) -> bytes:
        """A typed error in place of an end."""


def chat_error(kind: str, code: str, message: str) -> bytes:
    """The event that tells an OpenAI-shaped caller of a stream's failure; no `[DONE]` follows it."""
    return sse.encode(orjson.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}}))


class ChatPipe:
    """OpenAI to OpenAI: events pass byte for byte, the last word is ours to say."""

    def __init__(self, *, hide_usage: bool, several: bool) -> None:
        self._scanner = _scan.ChatStreamScanner(hide_usage)
        self._several = several

    @property
    def content_seen(self) -> bool:
        return self._scanner.content_seen

    @property
    def content_bytes(self) -> int:
        return self._scanner.content_bytes

    @property
    def complete(self) -> bool:
        # One choice's finish reason says nothing of its siblings; then only `[DONE]` does.
        return self._scanner.finish_reason is not None and (self._scanner.done or not self._several)

    @property
    def ended(self) -> bool:
        return self._scanner.done

    @property
    def usage(self) -> Usage | None:
        raw = self._scanner.usage
        if raw is None:
            return None
        plain = _scan.plain_usage(raw)
        if plain is None:
            return usage_of(_loads(raw))
        prompt, output, cached, reasoning = plain
        return Usage(prompt - cached, output, cached, 0, reasoning)

    @property
    def error(self) -> ProviderError | None:
        raw = self._scanner.error
        return None if raw is None else error_from(200, _loads(raw))

    def feed(self, data: bytes) -> bytes:
        return self._scanner.feed(data)

    def finish(self, comment: bytes) -> bytes:
        return comment + sse.DONE

    def fail(self, kind: str, code: str, message: str) -> bytes:
        return chat_error(kind, code, message)


class _Reading:
    """What the reader of a provider's events has seen, as its pipe says it."""

    def __init__(self, reader: ChatStream | ResponsesStream) -> None:
        self._reader = reader
        self._splitter = _scan.EventSplitter()

    @property
    def content_seen(self) -> bool:
        return self._reader.content_seen

    @property
    def content_bytes(self) -> int:
        return self._reader.content_bytes

    @property
    def ended(self) -> bool:
        return self._reader.ended

    @property
    def usage(self) -> Usage | None:
        return self._reader.usage

    @property
    def error(self) -> ProviderError | None:
        return self._reader.error


class NativePipe(_Reading):
    """A caller and a provider of the same dialect, not OpenAI's: whole events pass byte for byte, a translator looks on.

    Never relayed in passing: a half event, an error and whatever follows it, and the last word, which `finish` gives.
    """

    def __init__(self, observer: ChatStream | ResponsesStream, encoder: Encoder) -> None:
        super().__init__(observer)
        self._encoder = encoder
        self._tail = bytearray()
        self._last: list[bytes] = []

    @property
    def complete(self) -> bool:
        return self._reader.done

    def feed(self, data: bytes) -> bytes:
        tail, observer = self._tail, self._reader
        searched = max(len(tail) - 3, 0)
        tail += data
        out: list[bytes] = []
        start = 0
        for found in _BLANK_LINE.finditer(tail, searched):
            block = bytes(tail[start : found.end()])
            start = found.end()
            for event, payload in self._splitter.feed(block):
                observer.feed(event, payload)
            if observer.error is not None:
                break
            # Where nothing marks the last event, what looked like it may not have been: it goes out before the next.
            self._last.append(block)
            if not observer.done:
                out += self._last
                self._last.clear()
            elif observer.ended:
                break
        del tail[:start]
        if len(tail) > _scan.MAX_EVENT_BYTES:
            raise _scan.ScanError("event_too_large", len(tail))
        return b"".join(out)

    def finish(self, comment: bytes) -> bytes:
        return comment + b"".join(self._last)

    def fail(self, kind: str, code: str, message: str) -> bytes:
        return self._encoder.fail(kind, code, message)


class TranslatedPipe(_Reading):
    """A provider's dialect into chat chunks, and those into the caller's own dialect when it is not chat."""

    def __init__(self, translator: ChatStream, encoder: Encoder | None) -> None:
        super().__init__(translator)
        self._translator = translator
        self._encoder = encoder

    @property
    def complete(self) -> bool:
        return self._translator.whole

    def feed(self, data: bytes) -> bytes:
        out = []
        for event, payload in self._splitter.feed(data):
            chunks = self._translator.feed(event, payload)
            if self._encoder is None:
                out += chunks
            else:
                # A chunk is `data: {...}\n\n`, made by us a moment ago.
                out += [self._encoder.feed(orjson.loads(chunk[6:-2])) for chunk in chunks]
        return b"".join(out)

    def finish(self, comment: bytes) -> bytes:
        if self._encoder is None:
            return comment + sse.DONE
        return self._encoder.finish(self.usage) + comment

    def fail(self, kind: str, code: str, message: str) -> bytes:
        return chat_error(kind, code, message) if self._encoder is None else self._encoder.fail(kind, code, message)


def _loads(raw: bytes) -> object:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
