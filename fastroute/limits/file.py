"""The one file all workers of a host share: made once, mapped by each, and kept while its windows may still count.

    words 0-4    magic, slots, milliseconds of a window, workers seen, identities pushed out
    words 5-6    the machine's boot: its monotonic clock begins anew with each
    words 7-8    a secret for the hashes of anonymous callers' addresses

Every process holds a shared lock on it as long as it lives. Who finds nobody else there knows that no request is in
progress; windows outlive everybody, so that a restart admits nothing it should not.
"""

from __future__ import annotations

import fcntl
import os
import struct
from mmap import mmap
from pathlib import Path

from fastroute import mapped
from fastroute.errors import FastrouteError
from fastroute.limits._table import HEADER, SLOT, SLOTS_MIN, WORKERS_MAX, Table

SLOTS = 65_536
WINDOW_S = 60
WINDOW_S_MAX = 86_400
SLOTS_MAX = 1 << 22

_MAGIC = int.from_bytes(b"frLimi01", "little")
_HEAD = struct.Struct("<QQQQQ16s16s")
_SECRET = 56


class LimitsError(FastrouteError):
    """The table of limits cannot be kept where it should be."""


class Shared:
    """A mapped table and the lock that says so."""

    def __init__(self, table: Table, secret: bytes, fd: int) -> None:
        self.table = table
        self.secret = secret
        self._fd = fd

    def close(self) -> None:
        """Let go of the lock; the memory goes with the last pass."""
        if self._fd >= 0:
            fcntl.flock(self._fd, fcntl.LOCK_UN)  # the map has a descriptor of its own, and with it the same lock
            os.close(self._fd)
            self._fd = -1


def open_table(path: Path, worker: int, *, slots: int = SLOTS, window_s: int = WINDOW_S, guest: bool = False) -> Shared:
    """The table at this path, made if there is none, or if the one there is of other sizes, another boot or not ours.

    `slots` is rounded up to a power of two. The place of `worker` is taken over: what was in progress there is over. A
    guest takes the table as it is where somebody uses it.
    """
    if not SLOTS_MIN <= slots <= SLOTS_MAX:
        raise ValueError(f"slots are {SLOTS_MIN} to {SLOTS_MAX}, not {slots}")
    if not 1 <= window_s <= WINDOW_S_MAX:
        raise ValueError(f"a window is 1 to {WINDOW_S_MAX} seconds, not {window_s}")
    if not 0 <= worker < WORKERS_MAX:
        raise ValueError(f"worker {worker} is none of {WORKERS_MAX}")
    slots = 1 << (slots - 1).bit_length()
    try:
        with mapped.one_at_a_time(path.with_name(path.name + ".lock")):
            fd, alone = _join(path, (_MAGIC, slots, window_s * 1000), guest=guest)
            try:
                fcntl.flock(fd, fcntl.LOCK_SH)
                memory = mmap(fd, os.fstat(fd).st_size)
                table = Table(memory, worker)
                if alone:
                    table.clear_workers()
                else:
                    table.clear_worker(worker)
            except BaseException:
                os.close(fd)
                raise
    except OSError as error:
        raise LimitsError(
            f"limits cannot be kept in {path.parent}: {error.strerror}; "
            f"it must be writable and have {(_size(slots) >> 20) + 1} MiB for them"
        ) from None
    return Shared(table, memory[_SECRET : _SECRET + 16], fd)


def in_memory(worker: int = 0, *, slots: int = SLOTS_MIN * 64, window_s: int = WINDOW_S) -> Shared:
    """A table of this process alone."""
    memory = bytearray(_size(slots))
    secret = os.urandom(16)
    _HEAD.pack_into(memory, 0, _MAGIC, slots, window_s * 1000, 0, 0, b"", secret)
    return Shared(Table(memory, worker), secret, -1)


def _size(slots: int) -> int:
    return HEADER + slots * SLOT


def _join(path: Path, shape: tuple[int, int, int], *, guest: bool) -> tuple[int, bool]:
    """The file, and whether nobody else has it."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return _make(path, shape), True
    try:
        alone = True
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            alone = False
        boot = mapped.boot_bytes()
        # Where boots cannot be told apart, a file nobody uses may be of an earlier one.
        if os.fstat(fd).st_size >= HEADER and (any(boot) or not alone):
            head = _HEAD.unpack(os.pread(fd, _HEAD.size, 0))
            fits = head[:3] == shape or (guest and not alone and head[0] == _MAGIC)
            if fits and head[5] == boot and os.fstat(fd).st_size == _size(head[1]):
                return fd, alone
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    # Workers of other settings, on their way out, keep the file they have; it only loses its name.
    return _make(path, shape), True


def _make(path: Path, shape: tuple[int, int, int]) -> int:
    head = _HEAD.pack(*shape, 0, 0, mapped.boot_bytes(), os.urandom(16))
    return mapped.make(path, _size(shape[1]), head)
