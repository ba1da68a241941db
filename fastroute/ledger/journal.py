"""A worker's journal: files of fixed size that one process appends to through memory and another one reads.

Whatever was appended is in the page cache at once, so that a killed worker loses nothing; `sync` is for the power. The
files of one life are `<holder>-<segment>.log`; `<holder>.lock` is locked from before the first record until the process
is gone, and that lock is the only proof of life or death. Numbers of holders are used once: no journal is ever reopened.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import struct
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from fastroute import mapped
from fastroute.errors import FastrouteError
from fastroute.ledger import _journal

SEGMENT_BYTES: Final = 64 * 1024 * 1024

# Magic, holder, segment, its bytes, a number drawn for this life, zeros, and the checksum of all of that. Checksums of
# records go on from the last, so that a record of another life, file or place in the order is none here.
_HEAD = struct.Struct("<8sQQQ8s20xI")
_MAGIC = b"frjourn1"
_NAME = re.compile(r"(\d+)(?:-(\d+)\.log|\.lock)")
_RETRY_SECONDS = 0.2  # between two tries to allocate on a full disk
_PATIENCE_SECONDS = 1.0  # for a segment that is being allocated when the one before it is already full
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_CHUNK_LEAST, _CHUNK_MOST = 4096, 256 * 1024
assert _HEAD.size == _journal.SEGMENT_HEAD_BYTES


class JournalError(FastrouteError):
    """A journal cannot be opened, written or read."""


class JournalFull(JournalError):
    """There is no room for the record and none could be made; a later append may find some."""


class JournalTaken(JournalError):
    """A holder of this number lives or has lived here; a new life needs a new number."""


class JournalDamaged(JournalError):
    """Records were published beyond a place where none can be read."""

    def __init__(self, path: Path, offset: int, what: str) -> None:
        self.path = path
        self.offset = offset
        super().__init__(f"journal {path} is damaged at byte {offset}: {what}; restore the file or settle it by hand")


class JournalMissing(JournalDamaged):
    """Nothing is there of a journal: it was never begun, or somebody took it away."""


class HolderLock:
    """Proof that a holder is dead, for as long as it is kept: nobody can begin or go on with that life."""

    __slots__ = ("_descriptor", "directory", "holder")

    def __init__(self, directory: Path, holder: int, descriptor: int) -> None:
        self.directory = directory
        self.holder = holder
        self._descriptor: int | None = descriptor

    def remove(self) -> None:
        """Delete the files of this life, once they have been read to their end.

        Where it never wrote, the lock's file stays: its worker may still be on the way and must find the number used.
        """
        assert self._descriptor is not None, "the lock was given back"
        # The lock's file goes first: files without it are found again, a file of its own would tell of a life unborn.
        try:
            if _segments(self.directory, self.holder):
                _lock_path(self.directory, self.holder).unlink(missing_ok=True)
            for path in self.directory.glob(f"{self.holder}-*.log*"):
                path.unlink()
        except OSError as error:
            raise JournalError(f"the files of holder {self.holder} cannot be removed: {error}") from error

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Journal(_journal.Appender):
    """The writing end, for one thread at a time; `sync` alone may run in another. Made by `create`.

    A process must not fork and live on in its child while it holds a journal: the child would keep the lock.
    """

    def __init__(self, directory: Path, holder: int, segment_bytes: int, lock: int) -> None:
        self.directory = directory
        self.holder = holder
        self._segment_bytes = segment_bytes
        self._lock: int | None = lock
        self._life = os.urandom(8)
        self._half = 0  # past it the next segment is wanted; then the mark stands at the end
        self._flushing = threading.Lock()
        self._flushed = 0, 0  # segment and offset that are durable
        self._end = 0, 0  # once closed
        self._named = -1  # the last segment whose name is durable
        # Guards what follows; the thread waits on it for work, and an append for the thread.
        self._turn = threading.Condition()
        name = f"fastroute-journal-{holder}"
        self._thread = threading.Thread(target=self._allocate_ahead, name=name, daemon=True)
        self._next: _journal.Segment | None = None
        self._fault: OSError | None = None
        self._closed = False

    @classmethod
    def create(cls, directory: Path, holder: int, *, segment_bytes: int = SEGMENT_BYTES) -> Self:
        """Begin a life: take its lock, then make its first segment. It waits for the disk.

        Raises `JournalTaken` when the number was used before and `JournalFull` when the segment finds no room.
        """
        if segment_bytes < 4096 or segment_bytes % 4096:
            raise ValueError(f"a segment of {segment_bytes} bytes is not a multiple of 4096")
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = _lock(directory, holder, os.O_EXCL)
        except FileExistsError:
            lock = None
        except OSError as error:
            raise JournalError(f"no journal can be made in {directory}: {error}") from error
        if lock is None or _segments(directory, holder):
            if lock is not None:
                os.close(lock)
            raise JournalTaken(f"holder {holder} has been used in {directory}; a new life needs a new number")
        journal = cls(directory, holder, segment_bytes, lock)
        try:
            journal._go_on(journal._allocate(0))
        except OSError as error:
            # Nothing was written: the number may be tried again once there is room.
            _lock_path(directory, holder).unlink(missing_ok=True)
            os.close(lock)
            fault = JournalFull if error.errno in _NO_ROOM else JournalError
            raise fault(f"no journal of {segment_bytes} bytes can be made in {directory}: {error}") from error
        journal._thread.start()
        return journal

    @property
    def position(self) -> tuple[int, int]:
        """The published end as segment and offset, where a reader that has read everything stands."""
        segment, offset = self.where()
        return self._end if segment is None else (segment.number, offset)

    def sync(self) -> None:
        """Make durable everything appended before the call; for a thread, since it waits for the disk.

        After a `JournalError` the records are still there for readers, but the power may take them.
        """
        with self._flushing:
            current, offset = self.where()
            try:
                for segment in tuple(self.retired):
                    self._flush(segment, segment.size)
                    self.retired.remove(segment)
                if current is not None:
                    self._flush(current, offset)
            except OSError as error:
                raise JournalError(f"the journal of holder {self.holder} did not reach the disk: {error}") from error

    def close(self) -> None:
        """Make all of it durable and give the lock back: from then on this life may be recovered and removed."""
        with self._turn:
            if self._closed:
                return
            self._closed = True
            self._turn.notify_all()
        self._thread.join()
        try:
            self.sync()
        finally:
            self._end = self.position
            self.enter(None)
            self.retired.clear()
            if self._next is not None:
                with suppress(OSError):  # whoever removes this life removes it too
                    _log_path(self.directory, self.holder, self._next.number).unlink()
                self._next = None
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def make_room(self, size: int) -> None:
        segment, offset = self.where()
        if segment is None:
            raise JournalError(f"the journal of holder {self.holder} is closed")
        most = segment.size - _journal.SEGMENT_HEAD_BYTES - _journal.RECORD_HEAD_BYTES
        if size > most:
            raise ValueError(f"a record of {size} bytes does not fit in a segment, which holds {most}")
        with self._turn:
            self._look_ahead(segment, offset + size)
            if offset + size <= segment.size - _journal.RECORD_HEAD_BYTES:
                return
            # Only a burst that outruns the disk waits here; a fault is known at once and told at once.
            self._turn.wait_for(lambda: self._next is not None or self._fault is not None, _PATIENCE_SECONDS)
            following, self._next = self._next, None
            if following is None:
                fault = self._fault or OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
                self._fault = fault  # the next append does not wait as long again
                raise JournalFull(f"no room for holder {self.holder} in {self.directory}: {fault}") from fault
            self._go_on(following)
            self._look_ahead(following, _HEAD.size + size)

    def _go_on(self, segment: _journal.Segment) -> None:
        self.enter(segment)
        self._half = segment.size // 2
        self.watch(self._half)

    def _look_ahead(self, segment: _journal.Segment, end: int) -> None:
        """Have the next segment made once records reach past the middle of this one."""
        if end > self._half:
            self._half = segment.size
            self.watch(segment.size)
            self._turn.notify_all()

    def _wanted(self) -> bool:
        segment, _ = self.where()
        return segment is not None and self._next is None and self._half == segment.size

    def _allocate_ahead(self) -> None:
        following, fault = self.where()[0], None
        while True:
            if following is not None:
                self._warm(following)
            with self._turn:
                if fault is not None:
                    self._turn.wait_for(lambda: self._closed, _RETRY_SECONDS)
                self._turn.wait_for(lambda: self._closed or self._wanted())
                segment, _ = self.where()
                if self._closed or segment is None:
                    return
            try:
                following, fault = self._allocate(segment.number + 1), None
            except OSError as error:
                following, fault = None, error
            with self._turn:
                self._next, self._fault = following, fault
                self._turn.notify_all()

    def _warm(self, segment: _journal.Segment) -> None:
        """Bring its pages into the cache here, so that appends find them there: it halves their cost."""
        with suppress(OSError), _log_path(self.directory, self.holder, segment.number).open("rb", buffering=0) as file:
            _journal.warm(file.fileno())

    def _allocate(self, number: int) -> _journal.Segment:
        """A segment with its head, under its own name only when it is whole: readers never see less."""
        size, path = self._segment_bytes, _log_path(self.directory, self.holder, number)
        room = os.statvfs(self.directory)
        if room.f_blocks and room.f_bavail * room.f_frsize < size:
            # Allocating would fail too, but only after it had taken what others could still use.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        fresh = path.with_suffix(".log.new")
        descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            mapped.allocate(descriptor, size)
            head = _HEAD.pack(_MAGIC, self.holder, number, size, self._life, 0)[:-4]
            seed = _journal.crc32c(head)
            os.pwrite(descriptor, head + seed.to_bytes(4, "little"), 0)
            segment = _journal.Segment(descriptor, size, number, seed)
            fresh.rename(path)
        except OSError:
            fresh.unlink()
            raise
        finally:
            os.close(descriptor)
        return segment

    def _flush(self, segment: _journal.Segment, end: int) -> None:
        number, start = self._flushed
        if number != segment.number:
            start = 0
        if start < end:
            segment.flush(start, end)
            self._flushed = segment.number, end
        if self._named < segment.number:
            descriptor = os.open(self.directory, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            self._named = segment.number


class Reader:
    """The reading end of one life. `segment` and `offset` say where it stands: once stored, a new one goes on there."""

    def __init__(self, directory: Path, holder: int, segment: int = 0, offset: int = 0) -> None:
        self.directory = directory
        self.holder = holder
        self.segment = segment
        self.offset = max(offset, _HEAD.size)
        self._sequence = 0 if (segment, self.offset) == (0, _HEAD.size) else -1  # -1 until one is seen
        self._descriptor: int | None = None
        self._size = 0
        self._seed = 0

    def read(self, limit: int = 4096) -> list[tuple[int, bytes]]:
        """The next records, at most `limit`, as (kind, payload) in the order they were appended; empty when none is there yet.

        Raises `JournalDamaged` where records are lost for certain. A last record that is not whole is no record.
        """
        records: list[tuple[int, bytes]] = []
        try:
            self._collect(records, limit)
        except JournalError:
            # What stands before the damage is handed out first; the next call meets it again.
            if not records:
                raise
        return records

    def check_end(self) -> None:
        """Once the holder is dead and `read` has nothing more: raise `JournalDamaged` if anything stands beyond here.

        Only a loss of power can leave such a gap; a living writer's next record may look like one.
        """
        if self._descriptor is not None or self._open():
            self._look_beyond()
        else:
            self._look_in_later_segments()
            if not _segments(self.directory, self.holder):
                raise JournalMissing(self._path, 0, "no segment of it is there")

    def drop_before(self, segment: int) -> int:
        """Delete the segments before this one, which must have been read; how many there were."""
        if segment > self.segment:
            raise ValueError(
                f"segment {segment} of holder {self.holder} is not read yet, only {self.segment} is reached"
            )
        dropped = 0
        for number in _segments(self.directory, self.holder):
            if number < segment:
                path = _log_path(self.directory, self.holder, number)
                try:
                    path.unlink(missing_ok=True)
                except OSError as error:
                    raise JournalError(f"journal {path} cannot be removed: {error}") from error
                dropped += 1
        return dropped

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _collect(self, records: list[tuple[int, bytes]], limit: int) -> None:
        size, doubted = _CHUNK_LEAST, -1
        while len(records) < limit and (self._descriptor is not None or self._open()):
            chunk = self._pread(min(size, self._size - self.offset))
            room = self._size - self.offset
            found, length, sequence, why = _journal.decode(
                chunk, room, self._seed, self._sequence, limit - len(records)
            )
            records += found
            self.offset += length
            if found:
                self._sequence = sequence
            if why == _journal.PART:
                size = size * 4 if length == 0 else min(size * 4, _CHUNK_MOST)
            elif why == _journal.ENDED:
                self.close()
                self.segment, self.offset = self.segment + 1, _HEAD.size
            elif why == _journal.EMPTY:
                return
            elif why == _journal.BROKEN and doubted != self.offset:
                # It may have been published while its bytes were copied; those of a second look are all from after that.
                doubted = self.offset
            elif why == _journal.BROKEN:
                self._look_beyond()
                return

    def _open(self) -> bool:
        """Whether the segment stands there; a head of zeros is one that the power took before anything was written."""
        path = self._path
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            there = _segments(self.directory, self.holder)
            if self.segment not in there and there and there[-1] > self.segment:
                raise JournalDamaged(path, 0, "the segment is missing and later ones are not") from None
            if self.segment not in there and self.offset > _HEAD.size:
                raise JournalDamaged(path, 0, "the segment is missing, and it was read before") from None
            return False
        except OSError as error:
            raise JournalError(f"journal {path} cannot be opened: {error}") from error
        self._descriptor, self._size = descriptor, _HEAD.size
        try:
            head = self._read_head(os.fstat(descriptor).st_size)
            if head is not None:
                self._size, self._seed = head
                return True
        except BaseException:
            self.close()
            raise
        self.close()
        return False

    def _read_head(self, file_bytes: int) -> tuple[int, int] | None:
        head = self._pread(_HEAD.size, 0) if file_bytes else b""
        if not any(head):
            return None
        magic, holder, number, size, _, seed = _HEAD.unpack(head)
        if (magic, holder, number) != (_MAGIC, self.holder, self.segment) or _journal.crc32c(head[:-4]) != seed:
            raise JournalDamaged(
                self._path, 0, f"its head is not that of segment {self.segment} of holder {self.holder}"
            )
        if file_bytes != size:
            raise JournalDamaged(
                self._path, min(file_bytes, size), f"it has {file_bytes} bytes and was made with {size}"
            )
        if self.offset % 8 or self.offset > size - _journal.RECORD_HEAD_BYTES:
            raise JournalDamaged(self._path, self.offset, "no record can begin there")
        return size, seed

    def _pread(self, count: int, offset: int | None = None) -> bytes:
        """Read rather than mapped: a bad block is an error to be told, where a mapping would end the process."""
        assert self._descriptor is not None
        at = self.offset if offset is None else offset
        try:
            chunk = os.pread(self._descriptor, count, at)
        except OSError as error:
            raise JournalError(f"journal {self._path} cannot be read at byte {at}: {error}") from error
        if len(chunk) < count:
            raise JournalDamaged(self._path, at + len(chunk), "it was cut short")
        return chunk

    def _look_beyond(self) -> None:
        if not self._is_blank():
            later = _journal.find(self._pread(self._size - self.offset), self._seed, self._sequence)
            if later >= 0:
                raise JournalDamaged(
                    self._path, self.offset, f"no record is whole there, but one at {self.offset + later} is"
                )
        self._look_in_later_segments()

    def _is_blank(self) -> bool:
        """Whether nothing was ever written from here on, as a rule: held piece by piece it is seen in a tenth of the time."""
        blank = bytes(_CHUNK_MOST)
        for at in range(self.offset, self._size, _CHUNK_MOST):
            count = min(_CHUNK_MOST, self._size - at)
            if self._pread(count, at) != blank[:count]:
                return False
        return True

    def _look_in_later_segments(self) -> None:
        for number in _segments(self.directory, self.holder):
            if number > self.segment:
                path = _log_path(self.directory, self.holder, number)
                try:
                    with path.open("rb") as file:
                        file.seek(_HEAD.size)
                        begun = any(file.read(8))
                except OSError as error:
                    raise JournalError(f"journal {path} cannot be read: {error}") from error
                if begun:
                    raise JournalDamaged(self._path, self.offset, f"it was not closed, but segment {number} was begun")

    @property
    def _path(self) -> Path:
        return _log_path(self.directory, self.holder, self.segment)


def is_dead(directory: Path, holder: int) -> HolderLock | None:
    """The lock of a holder that is dead, or has not begun and now cannot; None while it lives, stopped or not."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = _lock(directory, holder)
    except OSError as error:
        raise JournalError(f"whether holder {holder} lives cannot be seen: {error}") from error
    return None if descriptor is None else HolderLock(directory, holder, descriptor)


def holders(directory: Path) -> list[int]:
    """The numbers of all lives that have left a file here, in order."""
    return sorted({int(found[1]) for found in _names(directory)})


def boot_id() -> str:
    """What changes with each boot of this machine and never within one.

    Where the kernel gives no such name it is the second of the boot by the wall clock. A step of that clock then looks
    like a boot, which charges too much and never too little.
    """
    return mapped.boot() or f"booted-{round(time.time() - time.clock_gettime(time.CLOCK_MONOTONIC))}"


def _lock(directory: Path, holder: int, flags: int = 0) -> int | None:
    """A descriptor that holds the lock, or None when somebody else does."""
    path = _lock_path(directory, holder)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever held it may have deleted the file between our two steps: then the lock is on nothing.
        if os.fstat(descriptor).st_ino == path.stat().st_ino:
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _lock_path(directory: Path, holder: int) -> Path:
    return directory / f"{holder}.lock"


def _log_path(directory: Path, holder: int, segment: int) -> Path:
    return directory / f"{holder}-{segment}.log"


def _names(directory: Path) -> list[re.Match[str]]:
    try:
        return [found for path in directory.iterdir() if (found := _NAME.fullmatch(path.name))]
    except FileNotFoundError:
        return []


def _segments(directory: Path, holder: int) -> list[int]:
    return sorted(int(found[2]) for found in _names(directory) if found[2] is not None and int(found[1]) == holder)
