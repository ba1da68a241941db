"""One simulated host: a disk with a page cache over what is durable, journals in memory, a store that can fail.

The journal's writer, reader and records are the shipped ones; only where their bytes lie is ours.
"""

import errno
import os
from pathlib import Path

from fastroute.errors import StoreError
from fastroute.ledger import _journal, journal
from fastroute.ledger.memory import Memory

SEGMENT_BYTES = 4096
SECTOR = 512
NOWHERE = Path("simulated")


class Died(BaseException):
    """The process that was running has been killed at this very instant."""


class File:
    """One segment: its bytes as the page cache has them, and how many of them the disk has too."""

    __slots__ = ("durable", "fd", "named", "size")

    def __init__(self, size):
        self.fd = os.memfd_create("segment")
        os.ftruncate(self.fd, size)
        self.size = size
        self.durable = 0
        self.named = False

    def __del__(self):
        os.close(self.fd)


class Disk:
    """Journals' files and locks of one state directory."""

    def __init__(self, rng):
        self.rng = rng
        self.files = {}  # holder -> {segment: File}
        self.locks = {}  # holder -> who has it; None is nobody, though the file is there
        self.full = False  # no segment can be made
        self.brim = False  # and every journal has just come to the end of its last one
        self.sick = False  # reading fails, every other time

    def drop(self, holder):
        self.files.pop(holder, None)

    def lose_power(self):
        """Of what was not made durable, any sector may be lost; nobody holds a lock any more."""
        keep = self.rng.choice((0.0, 0.0, 0.5, 0.9, 1.0))
        for holder in list(self.locks):
            self.locks[holder] = None
            segments = self.files.get(holder, {})
            for number, file in list(segments.items()):
                if not file.named and self.rng.random() < 0.5:
                    del segments[number]
                    continue
                before = os.pread(file.fd, file.size, 0)
                after = bytearray(before)
                start = file.durable
                while start < file.size:
                    end = start // SECTOR * SECTOR + SECTOR
                    if self.rng.random() >= keep:
                        after[start:end] = bytes(end - start)
                    start = end
                if after != before:
                    os.pwrite(file.fd, after, 0)
            if not segments and self.rng.random() < 0.5:
                del self.locks[holder]
                self.files.pop(holder, None)


class SimJournal(journal.Journal):
    """The shipped journal on a simulated disk. `instant` is asked before and after each record whether to die there."""

    def __init__(self, disk, holder, instant):
        super().__init__(NOWHERE, holder, SEGMENT_BYTES, None)
        self._life = disk.rng.randbytes(8)
        self.disk = disk
        self.instant = instant
        self.wrote = None  # who is told of what was appended

    @classmethod
    def begin(cls, disk, holder, instant):
        if holder in disk.locks or disk.files.get(holder):
            raise journal.JournalTaken(f"holder {holder} has been used")
        made = cls(disk, holder, instant)
        try:
            first = made._allocate(0)
        except OSError as error:
            raise journal.JournalFull(str(error)) from error
        disk.locks[holder] = made
        made._go_on(first)
        return made

    def append(self, kind, payload):
        if self.disk.brim:
            raise journal.JournalFull("no room")
        if self.instant(kind, 0):
            self.tear(kind, payload)
            raise Died
        number = super().append(kind, payload)
        self.wrote(kind, payload)
        if self.instant(kind, 1):
            raise Died
        return number

    def tear(self, kind, payload):
        """What a kill within an append leaves: some of the bytes, without the word that makes them a record."""
        segment, at = self.where()
        if at + 32 + len(payload) < segment.size:
            file = self.disk.files[self.holder][segment.number]
            os.pwrite(file.fd, (self.sequence + 1).to_bytes(8, "little") + payload[: len(payload) // 2], at + 8)

    def _look_ahead(self, segment, end):
        if end <= self._half and self._fault is None:
            return
        self._half = segment.size
        self.watch(segment.size)
        if self._next is None:
            try:
                self._next, self._fault = self._allocate(segment.number + 1), None
            except OSError as error:
                self._fault = error

    def _allocate(self, number):
        if self.disk.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        file = File(SEGMENT_BYTES)
        head = journal._HEAD.pack(journal._MAGIC, self.holder, number, SEGMENT_BYTES, self._life, 0)[:-4]
        seed = _journal.crc32c(head)
        os.pwrite(file.fd, head + seed.to_bytes(4, "little"), 0)
        self.disk.files.setdefault(self.holder, {})[number] = file
        return _journal.Segment(file.fd, SEGMENT_BYTES, number, seed)

    def _flush(self, segment, end):
        file = self.disk.files.get(self.holder, {}).get(segment.number)
        if file is not None:
            file.durable = max(file.durable, end)
            file.named = True

    def close(self):
        self.sync()
        self.release()

    def release(self):
        """The process is gone, and its lock with it."""
        if self.disk.locks.get(self.holder) is self:
            self.disk.locks[self.holder] = None


class SimReader(journal.Reader):
    """The shipped reader over a simulated disk."""

    def __init__(self, disk, holder, segment, offset, step):
        super().__init__(NOWHERE, holder, segment, offset)
        self.disk = disk
        self.step = step

    def read(self, limit=4096):
        if self.disk.sick and self.disk.rng.random() < 0.5:
            raise journal.JournalError("a bad block")
        return super().read(limit)

    def _open(self):
        there = self.disk.files.get(self.holder, {})
        file = there.get(self.segment)
        if file is None:
            if there and max(there) > self.segment:
                raise journal.JournalDamaged(NOWHERE, 0, "the segment is missing and later ones are not")
            return False
        self._descriptor, self._size = file.fd, journal._HEAD.size
        head = self._read_head(file.size)
        if head is None:
            self.close()
            return False
        self._size, self._seed = head
        return True

    def close(self):
        self._descriptor = None

    def _look_in_later_segments(self):
        for number, file in self.disk.files.get(self.holder, {}).items():
            if number > self.segment and any(os.pread(file.fd, 8, journal._HEAD.size)):
                raise journal.JournalDamaged(NOWHERE, self.offset, f"segment {number} was begun")

    def drop_before(self, segment):
        assert segment <= self.segment, "only what was read is dropped"
        self.step("drop a segment")
        there = self.disk.files.get(self.holder, {})
        dropped = [number for number in there if number < segment]
        for number in dropped:
            del there[number]
        return len(dropped)


class SimGrave:
    def __init__(self, disk, holder, step):
        self.disk = disk
        self.holder = holder
        self.step = step
        disk.locks[holder] = self

    def remove(self):
        self.step("remove a lock")
        if self.disk.files.get(self.holder):
            self.disk.locks.pop(self.holder, None)
        self.step("remove a journal")
        self.disk.drop(self.holder)

    def close(self):
        if self.disk.locks.get(self.holder) is self:
            self.disk.locks[self.holder] = None


class SimJournals:
    """`keeper.Journals` over a simulated disk; `step` is where the bookkeeper may die."""

    def __init__(self, disk, step):
        self.disk = disk
        self.step = step

    def open(self, holder, segment, offset):
        return SimReader(self.disk, holder, segment, offset, self.step)

    def grave(self, holder):
        if self.disk.locks.get(holder) is not None:
            return None
        self.step("take a lock")
        return SimGrave(self.disk, holder, self.step)

    def holders(self):
        return sorted(self.disk.files.keys() | self.disk.locks.keys())

    def release(self):
        """The bookkeeper is gone, and its locks with it."""
        for holder, owner in self.disk.locks.items():
            if isinstance(owner, SimGrave):
                self.disk.locks[holder] = None


class SimStore(Memory):
    """The books in memory, which here means on a disk that survives everything; commits can fail, whole or unclear."""

    def __init__(self, step, committed):
        super().__init__()
        self.step = step
        self.committed = committed
        self.down = False
        self.fail = ""  # how the next commit fails: "" | "lost" | "kept"

    def load(self):
        if self.down:
            raise StoreError("the store is down")
        return super().load()

    def commit(self, changes):
        self.step("before commit")
        if self.down:
            raise StoreError("the store is down")
        fail, self.fail = self.fail, ""
        if fail == "lost":
            raise StoreError("no space left on device")
        super().commit(changes)
        self.committed(changes)
        self.step("after commit")
        if fail == "kept":
            raise StoreError("the disk did not say whether it has it")
