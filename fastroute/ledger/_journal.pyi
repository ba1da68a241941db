"""Records in mapped memory: appending them without a system call, and finding them again in bytes read back."""

from typing import Final

HARDWARE: Final[bool]  # whether this processor has an instruction for crc32c
SEGMENT_HEAD_BYTES: Final[int]
RECORD_HEAD_BYTES: Final[int]
PAYLOAD_BYTES_MAX: Final[int]
KIND_MAX: Final[int]

# Why `decode` stopped: at its limit, at the end of the chunk inside a record, where nothing is published yet, where the
# segment was closed, at what is no record.
FULL: Final[int]
PART: Final[int]
EMPTY: Final[int]
ENDED: Final[int]
BROKEN: Final[int]

def crc32c(data: bytes, seed: int = 0) -> int:
    """CRC-32C, going on from `seed`: `crc32c(b, crc32c(a)) == crc32c(a + b)`."""

def crc32c_by_table(data: bytes, seed: int = 0) -> int:
    """The same without the instruction."""

class Segment:
    """A whole file mapped for writing, unmapped with the last reference; its descriptor may be closed at once.

    Every byte of it must be allocated on the disk: a store into a hole of a full disk ends the process.
    """

    size: Final[int]
    number: Final[int]
    seed: Final[int]  # where the checksum of each of its records begins
    def __init__(self, fd: int, size: int, number: int, seed: int) -> None: ...
    def flush(self, start: int, end: int) -> None:
        """Make these bytes durable; the GIL is free meanwhile."""

def warm(fd: int) -> None:
    """Read the whole file into the page cache and forget it; the GIL is free meanwhile."""

class Appender:
    """Appends records to one segment after the other; a subclass says where they go on."""

    @property
    def sequence(self) -> int:
        """The number of the last record; 0 before the first."""

    @property
    def retired(self) -> list[Segment]:
        """Segments that were left and may still be dirty; whoever flushes one takes it out."""

    def append(self, kind: int, payload: bytes) -> int:
        """Publish one record and return its number, 1 for the first; `make_room` is called when it would pass the mark."""

    def make_room(self, size: int) -> None:
        """Asked when a record of `size` bytes, its head included, would pass the mark: move the mark, enter the next
        segment, or raise. When it returns the record fits."""

    def watch(self, offset: int) -> None:
        """Set the mark; it never stands where the record that closes a segment would find no room."""

    def enter(self, segment: Segment | None) -> None:
        """Close the current segment and go on in this one, which must be empty and known to readers; None ends it all."""

    def where(self) -> tuple[Segment | None, int]:
        """The current segment and its published end."""

def decode(
    chunk: bytes, room: int, seed: int, sequence: int, limit: int
) -> tuple[list[tuple[int, bytes]], int, int, int]:
    """At most `limit` records from the chunk's start on: they, the offset behind them, the last number, why it stopped.

    `sequence` is the number of the record before the chunk, -1 when it is not known; `room` is how much of the segment
    begins with the chunk. A record that does not follow in number is none.
    """

def find(chunk: bytes, seed: int, sequence: int) -> int:
    """Where in the rest of a segment a whole record stands that is later than `sequence` (-1: any), or -1; the GIL is free."""
