"""The parser of requests: one HTTP/1.1 request, strictly, as its bytes arrive."""

from typing import Literal

class Asked:
    """Feed it segments, then look; it holds no socket and no clock.

    Accepted are a head of at most 64 KiB and 100 lines, names that are tokens, values without control characters, lines
    that end in CRLF only, a target that is a path or a whole address; one content-length, or exactly `chunked`, or no
    body. Anything else shows as a `kind`.
    """

    method: str
    path: str
    """The target's path, unescaped."""

    raw_path: bytes
    query: bytes
    headers: list[tuple[bytes, bytes]]
    """In order, names in lower case."""

    rest: bytes | None
    """What came after the request's end, with the segment that held it; nothing is to be fed after that."""

    old: bool
    """The sender speaks HTTP/1.0."""

    expects: bool
    """The sender waits to be told that it may send the body."""

    keep: bool
    """The sender may ask again on this connection."""

    kind: Literal["protocol", "head", "version"] | None
    words: str
    unread: int

    def __init__(self) -> None: ...
    @property
    def complete(self) -> bool:
        """The whole request has arrived, and nothing was wrong with it."""

    def feed(self, data: bytes) -> int:
        """Take what has arrived; what was decoded before a fault stays readable."""

    def take(self) -> bytes:
        """What of the body has arrived and was not read yet."""
