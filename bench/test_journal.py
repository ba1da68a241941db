"""What a worker's journal costs: one record appended, one read back by another, one look that finds nothing new.

Run with `pytest bench/test_journal.py --benchmark-enable`; records have 200 bytes, and where a round is a thousand of them
divide by a thousand. Goals: an append under 0.3 us, its first touch of each page included; a read under 0.5 us.
Appended without a pause, records outrun the thread that makes the next segment; the largest rounds are waits for it.
"""

from pathlib import Path

import pytest

from fastroute.ledger import _journal
from fastroute.ledger.journal import Journal, Reader

PAYLOAD = b"x" * 200
COUNT = 1000


@pytest.fixture
def journal(tmp_path: Path):
    with Journal.create(tmp_path, 1) as journal:
        yield journal


def fill(journal: Journal) -> None:
    append = journal.append
    for _ in range(COUNT):
        append(1, PAYLOAD)


def test_append_1000_records(benchmark, journal):
    """Across segments of 64 MiB, each made while the one before it is written."""
    benchmark.pedantic(fill, (journal,), rounds=1000, warmup_rounds=10)
    assert journal.sequence == 1_010_000
    assert journal.position[0] == 3


def test_read_1000_records(benchmark, journal, tmp_path: Path):
    for _ in range(200):
        fill(journal)
    with Reader(tmp_path, 1) as reader:
        benchmark.pedantic(reader.read, (COUNT,), rounds=190, warmup_rounds=10)
        assert reader.read() == []


def test_a_look_that_finds_nothing(benchmark, journal, tmp_path: Path):
    fill(journal)
    with Reader(tmp_path, 1) as reader:
        reader.read()
        assert benchmark(reader.read) == []


def test_sync_after_1000_records(benchmark, journal):
    """What a thread waits for the disk, not what a request waits."""
    benchmark.pedantic(journal.sync, setup=lambda: fill(journal), rounds=30)
    assert journal.retired == []


@pytest.mark.parametrize("crc", [_journal.crc32c, _journal.crc32c_by_table], ids=["instruction", "table"])
def test_checksum_of_200_bytes(benchmark, crc):
    benchmark.pedantic(crc, (PAYLOAD,), rounds=300, iterations=1000, warmup_rounds=5)
