"""When each agent was last heard of, and how much it has to do: one small file that all workers of a host map.

    words 0-1    magic, places
    words 2-3    the machine's boot: its monotonic clock begins anew with each
    words 8-     a word for each agent, by its place

A beat is one aligned word, written whole by whoever received it and read whole by whoever places a request: no lock, no
database, no message between workers. The file outlives every process, so a restart forgets nobody.
"""

from __future__ import annotations

import os
import struct
from mmap import mmap
from pathlib import Path
from typing import Final, NamedTuple

from fastroute import mapped
from fastroute.errors import FastrouteError

PLACES: Final = 1024
QUEUE_MAX: Final = (1 << 19) - 1

_HEADER: Final = 64
_SIZE: Final = _HEADER + PLACES * 8
_HEAD: Final = struct.Struct("<QQ16s")
_MAGIC: Final = int.from_bytes(b"frBeat01", "little")

# A word: milliseconds of the monotonic clock (44 bits, 557 years), the queue (19), and whether it is leaving (1).
_QUEUE_SHIFT: Final = 1
_AT_SHIFT: Final = 20
_LEAVING: Final = 1
# Who looks at the clock and then at a beat may meet one that came meanwhile.
_MEANWHILE_MS: Final = 1000


class BeatsError(FastrouteError):
    """The table of beats cannot be kept where it should be."""


class Beat(NamedTuple):
    """One agent's last beat, on the monotonic clock of the machine."""

    at_ms: int
    queue: int
    leaving: bool

    def silent_ms(self, now_ms: int) -> int | None:
        """How long nothing was heard since; None for a beat of the future, which is one of another boot."""
        gone_ms = now_ms - self.at_ms
        return None if gone_ms < -_MEANWHILE_MS else max(gone_ms, 0)

    def fresh(self, now_ms: int, stale_ms: int) -> bool:
        """Whether requests may be sent there."""
        silent_ms = self.silent_ms(now_ms)
        return not self.leaving and silent_ms is not None and silent_ms <= stale_ms


class Beats:
    """The mapped table; several processes and threads may hold it."""

    def __init__(self, memory: mmap | bytearray) -> None:
        self._words = memoryview(memory)[_HEADER:].cast("Q")

    @classmethod
    def open(cls, path: Path) -> Beats:
        """The table at this path, made if there is none, or if the one there is of another boot or not ours."""
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with mapped.one_at_a_time(path.with_name(path.name + ".lock")):
                fd = _usable(path)
                fd = mapped.make(path, _SIZE, _head()) if fd is None else fd
            try:
                return cls(mmap(fd, _SIZE))
            finally:
                os.close(fd)  # the map has a descriptor of its own
        except OSError as error:
            raise BeatsError(f"beats of agents cannot be kept in {path.parent}: {error.strerror}") from None

    @classmethod
    def in_memory(cls) -> Beats:
        """A table of this process alone."""
        return cls(bytearray(_SIZE))

    def beat(self, place: int, at_ms: int, queue: int = 0, *, leaving: bool = False) -> None:
        """Note what an agent has said."""
        self._words[place] = at_ms << _AT_SHIFT | min(max(queue, 0), QUEUE_MAX) << _QUEUE_SHIFT | leaving

    def last(self, place: int) -> Beat | None:
        """The last that was heard of an agent; None when it never was."""
        word = self._words[place]
        if not word:
            return None
        return Beat(word >> _AT_SHIFT, word >> _QUEUE_SHIFT & QUEUE_MAX, bool(word & _LEAVING))


def _usable(path: Path) -> int | None:
    """The file as it is, if it can go on being used."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    if os.fstat(fd).st_size == _SIZE and os.pread(fd, _HEAD.size, 0) == _head():
        return fd
    os.close(fd)
    return None


def _head() -> bytes:
    """What begins a file that counts now. Where boots cannot be told apart, a beat of the last one may count for a while."""
    return _HEAD.pack(_MAGIC, PLACES, mapped.boot_bytes())
