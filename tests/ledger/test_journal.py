"""A worker's journal: nothing appended is lost to a kill, nothing is ever invented, and only the lock says who is dead."""

import errno
import os
import random
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastroute.ledger import _journal, journal
from fastroute.ledger.journal import (
    Journal,
    JournalError,
    JournalFull,
    JournalMissing,
    JournalTaken,
    Reader,
    boot_id,
    holders,
    is_dead,
)
from tests.ledger.bookkeeper_kit import wait_until

TORTURE = os.environ.get("FASTROUTE_TORTURE") == "1"
KILLS = 1000 if TORTURE else 40
HEAD, RECORD = _journal.SEGMENT_HEAD_BYTES, _journal.RECORD_HEAD_BYTES
SMALL = 4096  # bytes of the smallest segment

Child = Callable[..., subprocess.Popen[str]]
Records = list[tuple[int, bytes]]

# Says which records it has appended, some at a time, until somebody ends it or it has appended as many as asked.
WRITER = """
import os, sys
from pathlib import Path
from fastroute.ledger.journal import Journal
directory, holder, segment_bytes, count = Path(sys.argv[1]), *map(int, sys.argv[2:])
print("ready", flush=True)
sys.stdin.readline()
journal = Journal.create(directory, holder, segment_bytes=segment_bytes)
for n in range(1, count + 1):
    assert journal.append(1 + n % 7, b"%d/%d " % (holder, n) * (n % 40)) == n
    if n % 8 == 0:
        os.write(1, b"%d\\n" % n)
journal.close()
"""

LIVE = """
import sys
from pathlib import Path
from fastroute.ledger.journal import Journal
journal = Journal.create(Path(sys.argv[1]), int(sys.argv[2]), segment_bytes=4096)
print("ready", flush=True)
sys.stdin.readline()
"""


def written(holder: int, count: int) -> Records:
    """What `WRITER` has appended after so many."""
    return [(1 + n % 7, b"%d/%d " % (holder, n) * (n % 40)) for n in range(1, count + 1)]


def everything(reader: Reader, limit: int = 4096) -> Records:
    records: Records = []
    while found := reader.read(limit):
        assert len(found) <= limit
        records += found
    return records


def read_all(directory: Path, holder: int = 1) -> Records:
    with Reader(directory, holder) as reader:
        return everything(reader)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal"


@pytest.fixture
def small(directory: Path) -> Iterator[Journal]:
    with Journal.create(directory, 1, segment_bytes=SMALL) as small:
        yield small


def fill(directory: Path, records: Records, holder: int = 1, segment_bytes: int = SMALL) -> tuple[int, int]:
    """One whole life; where it ended."""
    with Journal.create(directory, holder, segment_bytes=segment_bytes) as writer:
        for kind, payload in records:
            writer.append(kind, payload)
    return writer.position


SOME: Records = [(1 + n % 5, bytes([65 + n % 26]) * (n * 37 % 300)) for n in range(60)]


# What is appended is read


def test_what_is_appended_is_read_back_in_order_and_numbered_from_one(small: Journal, directory: Path) -> None:
    assert [small.append(kind, payload) for kind, payload in SOME] == list(range(1, 61))
    assert small.sequence == 60
    assert read_all(directory) == SOME
    assert small.position[0] > 1


def test_a_record_is_there_for_others_before_append_returns(small: Journal, directory: Path) -> None:
    with Reader(directory, 1) as reader:
        assert reader.read() == []
        for kind, payload in SOME:
            small.append(kind, payload)
            assert reader.read() == [(kind, payload)]
            assert reader.read() == []


def test_a_reader_may_come_before_the_journal(directory: Path) -> None:
    with Reader(directory, 1) as reader:
        assert reader.read() == []
        fill(directory, SOME)
        assert everything(reader) == SOME


def test_a_reader_stands_where_the_writer_does_when_it_has_read_everything(small: Journal, directory: Path) -> None:
    with Reader(directory, 1) as reader:
        for record in SOME:
            small.append(*record)
            reader.read()
            assert (reader.segment, reader.offset) == small.position


def test_payloads_of_any_length_that_a_segment_holds(directory: Path) -> None:
    """Chunks in which they are read grow with them."""
    most = 2**20 - HEAD - 2 * RECORD
    records = [(9, os.urandom(length)) for length in (0, 1, 7, 8, 9, 4080, 70_000, 300_000, most)]
    fill(directory, records, segment_bytes=2**20)
    assert read_all(directory) == records


def test_a_kind_or_payload_that_cannot_be_is_refused_and_nothing_is_written(small: Journal, directory: Path) -> None:
    for kind in (0, 255, -1):
        with pytest.raises(ValueError, match="kind"):
            small.append(kind, b"x")
    for length in (SMALL - HEAD - 2 * RECORD + 1, 2**24):
        with pytest.raises(ValueError, match="bytes"):
            small.append(1, bytes(length))
    assert read_all(directory) == []
    assert small.append(1, b"x") == 1


def test_segments_of_a_size_that_cannot_be_mapped_are_refused(directory: Path) -> None:
    for size in (0, 4095, 6000):
        with pytest.raises(ValueError, match="4096"):
            Journal.create(directory, 1, segment_bytes=size)
    assert not directory.exists()


@settings(max_examples=500 if TORTURE else 40, deadline=None)
@given(lengths=st.lists(st.integers(0, 1200), max_size=40), limit=st.integers(1, 9))
def test_reading_goes_on_from_every_position_that_was_stored(lengths: list[int], limit: int) -> None:
    """Records read before a position and from it on are all of them once, wherever reading stopped."""
    records = [(1 + n % 250, bytes([n % 256]) * length) for n, length in enumerate(lengths)]
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        fill(directory, records)
        before: Records = []
        position = 0, 0
        while True:
            with Reader(directory, 1, *position) as reader:
                assert everything(reader, 1000) == records[len(before) :]
            with Reader(directory, 1, *position) as reader:
                found = reader.read(limit)
                before += found
                position = reader.segment, reader.offset
            if not found:
                break
        assert before == records


def test_segments_that_were_read_can_be_dropped_and_no_others(small: Journal, directory: Path) -> None:
    for record in SOME:
        small.append(*record)
    with Reader(directory, 1) as reader:
        with pytest.raises(ValueError, match="not read"):
            reader.drop_before(1)
        assert everything(reader) == SOME
        assert reader.drop_before(reader.segment) == reader.segment
        assert reader.drop_before(reader.segment) == 0
        assert not (directory / "1-0.log").exists()
        small.append(3, b"goes on")
        with Reader(directory, 1, reader.segment, reader.offset) as another:
            assert another.read() == [(3, b"goes on")]


# The files


def test_files_are_private_and_whole_on_the_disk(small: Journal, directory: Path) -> None:
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    for path in directory.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (directory / "1-0.log").stat().st_blocks * 512 >= SMALL


def test_a_platform_without_fallocate_gets_zeros_written(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "posix_fallocate")
    fill(directory, SOME, segment_bytes=3 * 2**20)
    assert (directory / "1-0.log").stat().st_blocks * 512 >= 3 * 2**20
    assert read_all(directory) == SOME


def test_the_next_segment_stands_ready_from_the_middle_of_one_on(directory: Path) -> None:
    with Journal.create(directory, 1, segment_bytes=SMALL) as small:
        small.append(1, bytes(1000))
        assert not (directory / "1-1.log").exists()
        small.append(1, bytes(1000))
        wait_until((directory / "1-1.log").exists, 10)
        assert len(read_all(directory)) == 2
    assert not (directory / "1-1.log").exists(), "closing takes away what was not used"


def test_a_closed_journal_takes_nothing_and_keeps_its_position(directory: Path) -> None:
    with Journal.create(directory, 1, segment_bytes=SMALL) as small:
        small.append(1, b"x")
        position = small.position
    small.close()
    small.sync()
    assert small.position == position == (0, HEAD + 24)
    with pytest.raises(JournalError, match="closed"):
        small.append(1, b"x")
    assert read_all(directory) == [(1, b"x")]


def test_sync_reaches_the_segments_that_were_left(small: Journal) -> None:
    for record in SOME:
        small.append(*record)
    assert len(small.retired) == small.position[0]
    small.sync()
    assert small.retired == []
    small.sync()


def test_sync_runs_beside_appending(directory: Path) -> None:
    done = threading.Event()
    with Journal.create(directory, 1, segment_bytes=64 * 1024) as writer:

        def sync() -> None:
            while not done.is_set():
                writer.sync()

        thread = threading.Thread(target=sync)
        thread.start()
        for n in range(5000):
            writer.append(1, b"%d" % n * 10)
        done.set()
        thread.join(timeout=10)
    assert read_all(directory) == [(1, b"%d" % n * 10) for n in range(5000)]


def test_a_sync_that_fails_says_so_and_the_next_one_tries_again(
    small: Journal, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.append(1, b"x")

    def broken(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", broken)
        with pytest.raises(JournalError, match="did not reach the disk"):
            small.sync()
    small.sync()
    assert read_all(directory) == [(1, b"x")]


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_appending_makes_no_system_call(directory: Path, tmp_path: Path) -> None:
    """Between two marks in the trace, calls that nothing else makes, there is nothing."""
    source = """
import os, sys
from pathlib import Path
from fastroute.ledger.journal import Journal
journal = Journal.create(Path(sys.argv[1]), 1)
payload, numbers = b"x" * 200, range(5000)
append = journal.append
append(1, payload)
os.getpgid(0)
for _ in numbers:
    append(1, payload)
os.getpgid(0)
journal.close()
"""
    trace = tmp_path / "trace"
    command = ["strace", "-o", str(trace), sys.executable, "-c", source, str(directory)]
    if subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, timeout=10).returncode:
        pytest.skip("this system lets nobody trace")
    subprocess.run(command, check=True, timeout=30, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    lines = trace.read_text().splitlines()
    marks = [n for n, line in enumerate(lines) if line.startswith("getpgid(")]
    assert len(marks) == 2
    between = [line for line in lines[marks[0] + 1 : marks[1]] if not line.startswith("---")]
    assert between == []
    assert len(read_all(directory)) == 5001


# Killed and stopped


def test_a_killed_writer_loses_nothing_it_acknowledged_and_nothing_is_invented(child: Child, directory: Path) -> None:
    """SIGKILL at random instants: all it said it had appended is read, then at most what it had no time to say."""
    rng = random.Random(20)
    beyond = 0
    for first in range(1, KILLS + 1, 20):
        batch = range(first, min(first + 20, KILLS + 1))
        writers = {holder: child(WRITER, directory, holder, 16 * 1024, 10**9) for holder in batch}
        for holder, writer in writers.items():
            assert writer.stdin is not None
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
            writer.stdin.write("go\n")
            writer.stdin.flush()
            for _ in range(rng.choice((0, 1, 2, 10, 50, rng.randrange(200)))):
                writer.stdout.readline()
            writer.kill()
            acknowledged = max([0, *map(int, writer.stdout.read().split())])
            writer.wait(timeout=10)
            with is_dead(directory, holder) as lock:  # type: ignore[union-attr]  # None would be the failure
                with Reader(directory, holder) as reader:
                    found = everything(reader)
                    assert len(found) >= acknowledged
                    assert found == written(holder, len(found))
                    with suppress(*(() if found else (JournalMissing,))):  # it was killed before it had any
                        reader.check_end()
                beyond += len(found) - acknowledged
                lock.remove()
    assert beyond > 0, "every one was killed between its records"


def test_a_reader_in_another_process_follows_a_writer_through_its_segments(child: Child, directory: Path) -> None:
    count = 30_000
    writer = child(WRITER, directory, 5, 64 * 1024, count)
    assert writer.stdin is not None
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    drain = threading.Thread(target=writer.stdout.read)
    drain.start()
    writer.stdin.write("go\n")
    writer.stdin.flush()
    found: Records = []
    with Reader(directory, 5) as reader:

        def done() -> bool:
            found.extend(reader.read(500))
            reader.drop_before(reader.segment)
            return len(found) >= count

        wait_until(done, 20)
        assert reader.segment > 20
    assert found == written(5, count)
    drain.join(timeout=10)
    assert writer.wait(timeout=10) == 0


def test_a_stopped_writer_is_not_dead_and_a_killed_one_is(child: Child, directory: Path) -> None:
    writer = child(LIVE, directory, 3)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    assert is_dead(directory, 3) is None
    writer.send_signal(signal.SIGSTOP)
    os.waitpid(writer.pid, os.WUNTRACED)
    assert is_dead(directory, 3) is None
    writer.kill()
    writer.wait(timeout=10)
    lock = is_dead(directory, 3)
    assert lock is not None
    assert is_dead(directory, 3) is None, "whoever recovers it keeps the lock"
    lock.close()
    with is_dead(directory, 3) as again:  # type: ignore[union-attr]  # None would be the failure
        assert again.holder == 3


# Numbers are used once


def test_a_second_writer_of_the_same_number_is_refused(small: Journal, child: Child, directory: Path) -> None:
    small.append(1, b"x")
    with pytest.raises(JournalTaken, match="holder 1"):
        Journal.create(directory, 1, segment_bytes=SMALL)
    other = child(LIVE, directory, 3)
    assert other.stdout is not None
    assert other.stdout.readline() == "ready\n"
    with pytest.raises(JournalTaken, match="holder 3"):
        Journal.create(directory, 3, segment_bytes=SMALL)
    small.append(2, b"y")
    assert read_all(directory) == [(1, b"x"), (2, b"y")]


def test_a_number_of_a_dead_life_is_refused_too(directory: Path) -> None:
    fill(directory, SOME)
    with pytest.raises(JournalTaken):
        Journal.create(directory, 1)
    (directory / "1.lock").unlink()
    with pytest.raises(JournalTaken):
        Journal.create(directory, 1)
    assert read_all(directory) == SOME


def test_a_life_declared_dead_before_it_began_cannot_begin(directory: Path) -> None:
    with is_dead(directory, 4) as lock:  # type: ignore[union-attr]  # None would be the failure
        with pytest.raises(JournalTaken):
            Journal.create(directory, 4)
        lock.remove()
    with pytest.raises(JournalTaken):
        Journal.create(directory, 4)


def test_removing_a_life_leaves_nothing_of_it_and_everything_of_others(directory: Path) -> None:
    assert holders(directory) == []
    for holder in (1, 11, 2):
        fill(directory, SOME, holder)
    (directory / "1-9.log.new").touch()
    assert holders(directory) == [1, 2, 11]
    with is_dead(directory, 1) as lock:  # type: ignore[union-attr]  # None would be the failure
        lock.remove()
    assert holders(directory) == [2, 11]
    assert not list(directory.glob("1[-.]*"))
    assert read_all(directory, 11) == read_all(directory, 2) == SOME


# Full disks


def exhaust(writer: Journal, payload: bytes) -> int:
    """Appends until there is no room; the number of the last record."""
    last = 0
    try:
        while True:
            last = writer.append(1, payload)
    except JournalFull:
        return last


def append_when_there_is_room(writer: Journal, payload: bytes) -> int:
    numbers: list[int] = []

    def appended() -> bool:
        try:
            numbers.append(writer.append(1, payload))
        except JournalFull:
            return False
        return True

    wait_until(appended, 10)
    return numbers[0]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_RETRY_SECONDS", 0.01)


@pytest.fixture
def file_limit() -> Iterator[Callable[[int | None], None]]:
    """Files of this process may grow so far; None lifts the limit."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int | None) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, before if size is None else (size, before[1]))

    yield limit
    limit(None)


@pytest.mark.usefixtures("impatient")
def test_without_room_for_a_segment_appends_are_refused_until_there_is_some(
    directory: Path, file_limit: Callable[[int | None], None]
) -> None:
    payload = b"p" * 2000
    with Journal.create(directory, 1, segment_bytes=2**20) as writer:
        file_limit(2**19)
        last = exhaust(writer, payload)
        assert last == (2**20 - HEAD - RECORD) // 2016
        assert exhaust(writer, payload) == 0
        assert writer.append(1, b"a small one still fits") == last + 1
        assert not list(directory.glob("*.new"))
        file_limit(None)
        assert append_when_there_is_room(writer, payload) == last + 2
        assert writer.position[0] == 1
    records = read_all(directory)
    assert records == [(1, payload)] * last + [(1, b"a small one still fits"), (1, payload)]


def test_a_life_that_finds_no_room_does_not_begin_and_may_try_again(
    directory: Path, file_limit: Callable[[int | None], None]
) -> None:
    file_limit(2**19)
    with pytest.raises(JournalFull):
        Journal.create(directory, 1, segment_bytes=2**20)
    assert list(directory.iterdir()) == []
    file_limit(None)
    with Journal.create(directory, 1, segment_bytes=2**20) as writer:
        assert writer.append(1, b"x") == 1


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(JournalError, match="no journal can be made"):
        Journal.create(tmp_path / "file" / "journal", 1)


@pytest.mark.usefixtures("impatient")
def test_a_full_disk_kills_nobody_and_room_that_is_made_is_used(tmp_path: Path) -> None:
    """A real disk of 16 MiB, filled by another file: a store into memory never meets a hole."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, timeout=10).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        directory = disk / "journal"
        with Journal.create(directory, 1, segment_bytes=2**22) as writer:
            with (disk / "filler").open("wb") as filler:
                os.posix_fallocate(filler.fileno(), 0, 10 * 2**20)
            last = exhaust(writer, b"p" * 2000)
            assert read_all(directory) == [(1, b"p" * 2000)] * last
            with pytest.raises(JournalFull):
                Journal.create(directory, 2, segment_bytes=2**22)
            (disk / "filler").unlink()
            assert append_when_there_is_room(writer, b"p" * 2000) == last + 1
            writer.sync()
        assert len(read_all(directory)) == last + 1
    finally:
        subprocess.run(["umount", str(disk)], check=True, timeout=10)


@pytest.mark.usefixtures("impatient")
def test_a_disk_that_hangs_stops_appends_once_and_then_refuses_them_at_once(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Journal.create(directory, 1, segment_bytes=SMALL) as small:
        answers = threading.Event()
        real = os.posix_fallocate

        def slow(descriptor: int, offset: int, length: int) -> None:
            answers.wait(10)
            real(descriptor, offset, length)

        monkeypatch.setattr(os, "posix_fallocate", slow)
        monkeypatch.setattr(journal, "_PATIENCE_SECONDS", 0.02)
        exhaust(small, bytes(1000))
        monkeypatch.setattr(journal, "_PATIENCE_SECONDS", 100)
        exhaust(small, bytes(1000))
        answers.set()
        append_when_there_is_room(small, bytes(1000))


# Checksums and boots


def test_the_checksum_is_crc32c() -> None:
    """The check value of the catalogue, and the examples of RFC 3720, B.4."""
    for crc in (_journal.crc32c, _journal.crc32c_by_table):
        assert crc(b"123456789") == 0xE3069283
        assert crc(bytes(32)) == 0x8A9136AA
        assert crc(b"\xff" * 32) == 0x62A8AB43
        assert crc(bytes(range(32))) == 0x46DD794E


@given(st.binary(max_size=100), st.binary(max_size=100), st.integers(0, 2**32 - 1))
def test_the_processor_and_the_table_agree_and_go_on_from_one_another(a: bytes, b: bytes, seed: int) -> None:
    assert _journal.crc32c(a + b, seed) == _journal.crc32c_by_table(b, _journal.crc32c(a, seed))


def test_the_boot_has_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert boot_id() == boot_id() != ""

    def absent(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", absent)
    assert boot_id().startswith("booted-")
