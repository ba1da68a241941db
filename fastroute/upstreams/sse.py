"""Writing server-sent events: the one encoder of the house. `fastroute._scan` reads them.

A line of the stream ends at CR, LF or CRLF, so data is split at all three and nothing said in it can begin an event
or a field of its own.
"""

from __future__ import annotations

import re

DONE = b"data: [DONE]\n\n"

_LINE_END = re.compile(rb"\r\n|\r|\n")


def encode(data: str | bytes, event: str | None = None) -> bytes:
    """One event; a reader gets `data` back with its line ends as LF. An event name of several lines is refused.

    Text that has no UTF-8 form (half a surrogate pair) is written with `?` in its place.
    """
    head = b""
    if event is not None:
        name = _bytes(event)
        if _LINE_END.search(name):
            raise ValueError("the name of an event is one line")
        head = b"event: " + name + b"\n"
    return head + b"data: " + b"\ndata: ".join(_LINE_END.split(_bytes(data))) + b"\n\n"


def comment(text: str) -> bytes:
    """Lines every reader ignores."""
    return b": " + b"\n: ".join(_LINE_END.split(_bytes(text))) + b"\n\n"


def _bytes(text: str | bytes) -> bytes:
    return text.encode("utf-8", "replace") if isinstance(text, str) else text
