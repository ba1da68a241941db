"""Journals that came to harm: a reader hands out the truth up to there, says where it ends, and never invents."""

import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastroute.errors import FastrouteError
from fastroute.ledger import _journal
from fastroute.ledger.journal import Journal, JournalDamaged, Reader, is_dead

TORTURE = os.environ.get("FASTROUTE_TORTURE") == "1"
SPOILT = 20_000 if TORTURE else 400
HEAD, RECORD = _journal.SEGMENT_HEAD_BYTES, _journal.RECORD_HEAD_BYTES
SMALL = 4096  # bytes of the smallest segment

Records = list[tuple[int, bytes]]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal"


def everything(reader: Reader, limit: int = 4096) -> Records:
    records: Records = []
    while found := reader.read(limit):
        assert len(found) <= limit
        records += found
    return records


def read_all(directory: Path) -> Records:
    with Reader(directory, 1) as reader:
        return everything(reader)


def fill(directory: Path, records: Records) -> tuple[int, int]:
    """One whole life; where it ended."""
    with Journal.create(directory, 1, segment_bytes=SMALL) as writer:
        for kind, payload in records:
            writer.append(kind, payload)
    return writer.position


SOME: Records = [(1 + n % 5, bytes([65 + n % 26]) * (n * 37 % 300)) for n in range(60)]


def spoilt(directory: Path, segment: int, offset: int, new: bytes) -> None:
    with (directory / f"1-{segment}.log").open("r+b") as file:
        file.seek(offset)
        file.write(new)


@pytest.mark.parametrize(
    "from_the_front", [True, False], ids=["the front reached the disk", "the rear reached the disk"]
)
def test_a_last_record_torn_at_any_byte_is_no_record(directory: Path, from_the_front: bool) -> None:
    kept = SOME[:5]
    fill(directory, [*kept, (7, b"last record")])
    path = directory / "1-0.log"
    whole = path.read_bytes()
    start = HEAD + sum((RECORD + len(payload) + 7) // 8 * 8 for _, payload in kept)
    length = RECORD + len(b"last record")
    for cut in range(1, length):
        torn = bytearray(whole)
        gone = slice(start + cut, start + length) if from_the_front else slice(start, start + cut)
        torn[gone] = bytes(gone.stop - gone.start)
        if torn == whole:
            continue  # one checksum in 256 begins with a zero
        path.write_bytes(torn)
        with Reader(directory, 1) as reader:
            assert everything(reader) == kept
            reader.check_end()
            assert (reader.segment, reader.offset) == (0, start)


def test_a_reused_directory_shows_nothing_of_an_earlier_life(directory: Path) -> None:
    """Same number, same segment, same places: what is left of another life is no record of this one."""
    fill(directory, SOME[:20])
    path = directory / "1-0.log"
    old = path.read_bytes()
    with is_dead(directory, 1) as lock:  # type: ignore[union-attr]  # None would be the failure
        lock.remove()
    _, end = fill(directory, SOME[:4])
    new = path.read_bytes()
    path.write_bytes(new[:end] + old[end:])
    assert read_all(directory) == SOME[:4]
    path.write_bytes(new[:HEAD] + old[HEAD:])
    assert read_all(directory) == []


@pytest.mark.parametrize("name", ["1-1.log", "2-0.log"])
def test_a_segment_under_another_name_is_damage(directory: Path, name: str) -> None:
    fill(directory, SOME[:4])
    (directory / "1-0.log").rename(directory / name)
    holder, segment = int(name[0]), int(name[2])
    with Reader(directory, holder, segment) as reader, pytest.raises(JournalDamaged, match="head") as raised:
        reader.read()
    assert (raised.value.path, raised.value.offset) == (directory / name, 0)


def test_a_bad_record_before_good_ones_is_damage_after_what_stands_before_it(directory: Path) -> None:
    fill(directory, [(1, b"a" * 8)] * 5)
    spoilt(directory, 0, HEAD + 2 * 24 + RECORD, b"b")
    with Reader(directory, 1) as reader:
        assert reader.read() == [(1, b"a" * 8)] * 2
        for _ in range(2):
            with pytest.raises(JournalDamaged, match=f"1-0.log is damaged at byte {HEAD + 2 * 24}") as raised:
                reader.read()
    assert isinstance(raised.value, FastrouteError)
    assert raised.value.offset == HEAD + 2 * 24


def test_whole_records_in_another_order_are_damage(directory: Path) -> None:
    fill(directory, [(1, b"a" * 8), (2, b"b" * 8), (3, b"c" * 8), (4, b"d" * 8)])
    whole = (directory / "1-0.log").read_bytes()
    second, third = whole[HEAD + 24 : HEAD + 48], whole[HEAD + 48 : HEAD + 72]
    for new in (third + second, third + third, second + second):
        spoilt(directory, 0, HEAD + 24, new)
        with Reader(directory, 1) as reader:
            found = reader.read()
            assert found == [(1, b"a" * 8), (2, b"b" * 8)][: len(found)]
            with pytest.raises(JournalDamaged):
                reader.read()


def test_a_bad_last_record_of_a_segment_is_damage_when_the_next_was_begun(directory: Path) -> None:
    fill(directory, [(1, b"a" * 4000), (2, b"b")])
    spoilt(directory, 0, HEAD + RECORD, b"x")
    spoilt(directory, 0, SMALL - 200, bytes(200))
    with Reader(directory, 1) as reader, pytest.raises(JournalDamaged, match="segment 1 was begun"):
        reader.read()


def test_a_gap_that_the_power_left_is_found_once_the_end_is_checked(directory: Path) -> None:
    """A page that never reached the disk reads as zeros, like the place where nothing was appended yet."""
    fill(directory, [(1, b"a" * 8)] * 5)
    spoilt(directory, 0, HEAD + 2 * 24, bytes(24))
    with Reader(directory, 1) as reader:
        assert everything(reader) == [(1, b"a" * 8)] * 2
        with pytest.raises(JournalDamaged, match=f"one at {HEAD + 3 * 24}"):
            reader.check_end()


def test_a_segment_whose_head_never_reached_the_disk_is_the_end_unless_a_later_one_was_begun(directory: Path) -> None:
    fill(directory, [(1, b"a" * 3000)] * 3)
    spoilt(directory, 2, 0, bytes(SMALL))
    with Reader(directory, 1) as reader:
        assert len(everything(reader)) == 2
        reader.check_end()
    spoilt(directory, 1, 0, bytes(SMALL))
    spoilt(directory, 2, HEAD, b"something")
    with Reader(directory, 1) as reader:
        assert len(everything(reader)) == 1
        with pytest.raises(JournalDamaged, match="segment 2 was begun"):
            reader.check_end()


def test_a_missing_segment_is_damage_when_later_ones_are_there(directory: Path) -> None:
    fill(directory, [(1, b"a" * 3000)] * 3)
    (directory / "1-1.log").unlink()
    with Reader(directory, 1) as reader:
        assert len(reader.read()) == 1
        with pytest.raises(JournalDamaged, match="missing"):
            reader.read()


def test_a_file_cut_short_is_damage(directory: Path) -> None:
    fill(directory, SOME[:10])
    with Reader(directory, 1) as reader:
        reader.read(1)
        os.truncate(directory / "1-0.log", 100)
        with pytest.raises(JournalDamaged, match="cut short"):
            reader.read()
    for length in (2000, HEAD, 10):
        os.truncate(directory / "1-0.log", length)
        with Reader(directory, 1) as reader, pytest.raises(JournalDamaged):
            reader.read()


@pytest.mark.parametrize("offset", [HEAD + 3, SMALL, 10**9])
def test_a_place_where_no_record_can_begin_is_refused(directory: Path, offset: int) -> None:
    fill(directory, SOME[:4])
    with Reader(directory, 1, 0, offset) as reader, pytest.raises(JournalDamaged, match="no record can begin"):
        reader.read()


def test_a_place_inside_a_record_is_damage(directory: Path) -> None:
    fill(directory, [(1, b"a" * 64)] * 4)
    with (
        Reader(directory, 1, 0, HEAD + RECORD) as reader,
        pytest.raises(JournalDamaged, match="no record is whole there"),
    ):
        reader.read()


def test_a_reader_of_spoilt_files_reads_a_beginning_of_the_truth_or_says_where_it_is_damaged(tmp_path: Path) -> None:
    """Bits flipped, runs zeroed, noise, pieces of the file elsewhere: never a crash, never a record that was not written."""
    rng = random.Random(4)
    whole = tmp_path / "whole"
    segment, _ = fill(whole, SOME)
    texts = {n: (whole / f"1-{n}.log").read_bytes() for n in range(segment + 1)}
    directory = tmp_path / "spoilt"
    directory.mkdir()
    told = 0
    for _ in range(SPOILT):
        for n, text in texts.items():
            (directory / f"1-{n}.log").write_bytes(text)
        for _ in range(rng.choice((1, 1, 1, 2, 8))):
            victim = rng.randrange(segment + 1)
            text, at, length = texts[victim], rng.randrange(SMALL), rng.choice((1, 8, 24, 512))
            other = 8 * rng.randrange(SMALL // 8)
            new = rng.choice(
                (
                    bytes([text[at] ^ 1 << rng.randrange(8)]),
                    bytes(length),
                    rng.randbytes(length),
                    text[other : other + length],
                )
            )
            spoilt(directory, victim, at, new[: SMALL - at])
        found: Records = []
        with Reader(directory, 1) as reader:
            try:
                while some := reader.read(rng.choice((1, 7, 4096))):
                    found += some
                reader.check_end()
            except JournalDamaged:
                told += 1
        assert found == SOME[: len(found)]
    assert told > SPOILT // 2


def test_any_single_bit_flipped_before_the_last_record_is_told(directory: Path) -> None:
    records = [(1, b"a" * 16), (2, b"b" * 16), (3, b"c" * 16)]
    fill(directory, records)
    path = directory / "1-0.log"
    whole = path.read_bytes()
    for bit in range(8 * HEAD, 8 * (HEAD + 2 * 32)):
        text = bytearray(whole)
        text[bit // 8] ^= 1 << bit % 8
        path.write_bytes(text)
        place = (bit // 8 - HEAD) // 32
        with Reader(directory, 1) as reader:
            if place:
                assert reader.read() == records[:place]
            with pytest.raises(JournalDamaged) as raised:
                reader.read()
        assert raised.value.offset == HEAD + place * 32


@settings(max_examples=5000 if TORTURE else 200, deadline=None)
@given(st.binary(max_size=400), st.integers(0, 500), st.integers(-1, 5))
def test_noise_is_no_record(noise: bytes, room: int, sequence: int) -> None:
    found, at, _, _ = _journal.decode(noise, room, 12345, sequence, 10)
    assert (found, at) == ([], 0)
    assert _journal.find(noise, 12345, sequence) == -1
