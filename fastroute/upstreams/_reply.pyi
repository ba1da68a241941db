"""The parser of the wire: one HTTP/1.1 answer, strictly, as its bytes arrive."""

from fastroute.upstreams.faults import FaultKind

class Reply:
    """Feed it segments, then look; it holds no socket and no clock.

    Accepted are a final head of at most 64 KiB and 200 lines after at most 8 interim ones, a status of 100 to 599 but
    101, names that are tokens, lines that end in CRLF only; one content-length, or exactly `chunked`, or an end by
    closing where the peer said so or speaks HTTP/1.0; no content-encoding but identity. Anything else shows as a
    `kind`.
    """

    def __init__(self, bodiless: bool = False) -> None: ...
    @property
    def status(self) -> int:
        """The status of the accepted head; 0 before it."""

    @property
    def complete(self) -> bool:
        """The whole message has arrived, and nothing was wrong with it."""

    @property
    def kind(self) -> FaultKind | None:
        """What was wrong, once something was."""

    @property
    def keep(self) -> bool:
        """The peer allows another request after this message."""

    @property
    def until_close(self) -> bool:
        """The body has no end but that of the connection."""

    @property
    def surplus(self) -> bool:
        """Bytes came after the end of the message."""

    @property
    def unread(self) -> int:
        """Decoded bytes that were not taken yet."""

    def feed(self, data: bytes) -> int:
        """Take what has arrived; what was decoded before a fault stays readable."""

    def eof(self) -> int:
        """The peer will say no more: an end where the message has no other, else `cut`."""

    def take(self) -> bytes:
        """Everything that has arrived and was not read yet."""

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header, in any case of letters."""

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Every header in order, names in lower case."""
