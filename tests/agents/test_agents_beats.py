"""The table of beats: written by whoever hears, read by all, forgotten by no restart but the machine's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastroute import mapped
from fastroute.beats import PLACES, QUEUE_MAX, Beat, Beats, BeatsError


def test_a_beat_is_read_as_it_was_written() -> None:
    beats = Beats.in_memory()
    assert beats.last(7) is None
    beats.beat(7, 123_456, 5)
    assert beats.last(7) == Beat(123_456, 5, False)
    beats.beat(7, 123_457, 0, leaving=True)
    assert beats.last(7) == Beat(123_457, 0, True)
    assert beats.last(6) is None
    assert beats.last(PLACES - 1) is None


@pytest.mark.parametrize(("told", "kept"), [(-1, 0), (0, 0), (QUEUE_MAX, QUEUE_MAX), (1 << 40, QUEUE_MAX)])
def test_a_queue_beyond_what_fits_is_the_longest(told: int, kept: int) -> None:
    beats = Beats.in_memory()
    beats.beat(1, (1 << 44) - 1, told)
    assert beats.last(1) == Beat((1 << 44) - 1, kept, False)


def test_fresh_is_who_beat_lately_and_stays() -> None:
    assert Beat(1000, 0, False).fresh(1000, 90)
    assert Beat(1000, 0, False).fresh(1090, 90)
    assert not Beat(1000, 0, False).fresh(1091, 90)
    assert not Beat(1000, 0, True).fresh(1000, 90)
    assert not Beat(5000, 0, False).fresh(999, 90)  # of another boot


def test_a_beat_that_comes_while_the_clock_is_looked_at_is_fresh() -> None:
    """Another worker may write it between the look at the clock and the look at the table."""
    assert Beat(1001, 0, False).fresh(1000, 90)
    assert Beat(1001, 0, False).silent_ms(1000) == 0
    assert Beat(2001, 0, False).silent_ms(1000) is None


def test_two_processes_see_one_table(tmp_path: Path) -> None:
    path = tmp_path / "run" / "agents"
    mine = Beats.open(path)
    code = (
        "import sys; from pathlib import Path; from fastroute.beats import Beats; "
        "Beats.open(Path(sys.argv[1])).beat(3, 99, 4)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, timeout=30)
    assert mine.last(3) == Beat(99, 4, False)
    assert Beats.open(path).last(3) == Beat(99, 4, False)
    assert path.stat().st_mode & 0o777 == 0o600


def test_another_boots_table_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Beats.open(tmp_path / "agents").beat(3, 99)
    other = tmp_path / "boot_id"
    other.write_text("00000000-0000-0000-0000-000000000001\n")
    monkeypatch.setattr(mapped, "BOOT_ID", other)
    assert Beats.open(tmp_path / "agents").last(3) is None


@pytest.mark.parametrize("content", [b"", b"x" * 100, os.urandom(8256)])
def test_what_is_no_table_of_ours_is_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "agents").write_bytes(content)
    beats = Beats.open(tmp_path / "agents")
    assert all(beats.last(place) is None for place in range(PLACES))


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(BeatsError, match=str(tmp_path / "run")):
        Beats.open(tmp_path / "run" / "agents")
