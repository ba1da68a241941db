"""One worker's counters as one file: a header, an append-only list of what each slot counts, and the slots.

    word 0        magic
    word 1        fingerprint of the table of metrics
    word 2        a random number that tells this file from any other of its name
    word 3        bytes used of the list; published last, so a reader never sees half an entry
    NAMES         entries of (metric u16, length of labels u16, first slot u32, labels as exposed), padded to 8 bytes
    SLOTS         64-bit words

A file lives as long as its lock is held: the kernel lets go of it when the worker dies, however it dies.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from mmap import ACCESS_READ, mmap
from pathlib import Path

from msgspec import Struct

from fastroute import mapped
from fastroute.errors import FastrouteError
from fastroute.metrics._slots import Slots, acquire
from fastroute.metrics.table import FINGERPRINT, METRICS

SIZE = 1 << 20
NAMES = 64
SLOTS = SIZE // 2
MAGIC = int.from_bytes(b"frMetr01", "little")

_HEADER = struct.Struct("<QQQ")
_ENTRY = struct.Struct("<HHI")
_USED = 3


class MetricsError(FastrouteError):
    """Counters cannot be kept or read where they should be."""


class Entry(Struct, frozen=True):
    """One series of a file: the metric by its place in the table, its labels as exposed, its words."""

    metric: int
    labels: bytes
    words: list[int]


class Shelf:
    """Memory of one writer, and how much of it is taken."""

    def __init__(self, memory: mmap) -> None:
        self._memory = memory
        self._used = 0
        self._next = SLOTS // 8
        _HEADER.pack_into(memory, 0, MAGIC, FINGERPRINT, int.from_bytes(os.urandom(8), "little"))
        self.slots = Slots(memory)

    def takes(self, metric: int, labels: bytes, reserve: int = 0) -> bool:
        """Whether there is room for one more series, with so many bytes of each half left for later."""
        names = NAMES + self._used + _entry_size(labels) + reserve
        return names <= SLOTS and (self._next + METRICS[metric].width) * 8 + reserve <= SIZE

    def add(self, metric: int, labels: bytes) -> int:
        """Write one more series into the list; its first word."""
        assert self.takes(metric, labels)
        word = self._next
        at = NAMES + self._used
        _ENTRY.pack_into(self._memory, at, metric, len(labels), word)
        self._memory[at + _ENTRY.size : at + _ENTRY.size + len(labels)] = labels
        self._next += METRICS[metric].width
        self._used += _entry_size(labels)
        self.slots.publish(_USED, self._used)
        return word

    def entries(self) -> Iterator[Entry]:
        return entries(self._memory)


def create(path: Path) -> tuple[Shelf, int]:
    """A new file and the descriptor that holds its lock; it appears under its name only once it is locked and whole."""
    unborn = path.with_suffix(".new")
    try:
        unborn.unlink(missing_ok=True)  # of a process that had our id and died in the middle of this
        fd = os.open(unborn, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mapped.allocate(fd, SIZE)
            shelf = Shelf(mmap(fd, SIZE))
            unborn.rename(path)
        except OSError:
            os.close(fd)
            unborn.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise MetricsError(
            f"counters cannot be kept in {path.parent}: {error.strerror}; "
            f"it must be writable and have {SIZE >> 20} MiB for each worker"
        ) from None
    return shelf, fd


def read(fd: int) -> tuple[str, list[Entry]] | None:
    """Which file this is, and its series now; None when it was written by another version or is not ours at all."""
    if os.fstat(fd).st_size != SIZE:
        return None
    with mmap(fd, SIZE, access=ACCESS_READ) as memory:
        magic, fingerprint, nonce = _HEADER.unpack_from(memory)
        if (magic, fingerprint) != (MAGIC, FINGERPRINT):
            return None
        return f"{nonce:016x}", list(entries(memory))


def entries(memory: mmap) -> Iterator[Entry]:
    at = NAMES
    end = NAMES + acquire(memory, _USED)
    with memoryview(memory) as view, view.cast("Q") as words:
        while at < end:
            metric, length, word = _ENTRY.unpack_from(memory, at)
            labels = memory[at + _ENTRY.size : at + _ENTRY.size + length]
            yield Entry(metric, labels, words[word : word + METRICS[metric].width].tolist())
            at += _entry_size(labels)


def _entry_size(labels: bytes) -> int:
    return (_ENTRY.size + len(labels) + 7) & ~7
