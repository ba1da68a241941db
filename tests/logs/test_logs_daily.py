"""A day is a file: renamed once at midnight UTC by whoever comes first, fourteen kept, whatever the clock does."""

import os
from datetime import UTC, datetime, timedelta

import pytest

from fastroute.clock import ManualClock
from fastroute.logs import DailyFile

DAY_MS = 86_400_000


@pytest.fixture
def files(path, clock):
    """Several writers of one file; the clock stands at 2026-01-01."""
    made = []

    def make(**options) -> DailyFile:
        file = DailyFile(path, clock, **options)
        file.open()
        made.append(file)
        return file

    yield make
    for file in made:
        file.close()


def tree(path):
    """Names without the common stem, and what is in them."""
    found = {p.name.removeprefix("router.log"): p.read_text() for p in sorted(path.parent.iterdir())}
    found.pop(".lock")
    return found


def test_lines_of_a_day_are_in_the_file_of_that_day(files, path, clock):
    file = files()
    file.write(b"one\n")
    clock.advance(DAY_MS - 1)
    file.write(b"late\n")
    clock.advance(1)
    file.write(b"two\n")
    assert tree(path) == {"": "two\n", ".2026-01-01": "one\nlate\n"}


def test_of_several_writers_one_renames_and_the_others_follow(files, path, clock):
    first, second, third = files(), files(), files()
    for file in (first, second, third):
        file.write(b"old\n")
    clock.advance(DAY_MS)
    second.write(b"b\n")
    first.write(b"a\n")
    third.write(b"c\n")
    assert tree(path) == {"": "b\na\nc\n", ".2026-01-01": "old\n" * 3}


def test_the_last_fourteen_days_are_kept(files, path, clock):
    file = files()
    for _ in range(20):
        file.write(b"x\n")
        clock.advance(DAY_MS)
    file.write(b"x\n")
    assert sorted(tree(path)) == ["", *(f".2026-01-{day:02d}" for day in range(7, 21))]


def test_a_midnight_nobody_saw_is_made_up_for(files, path, clock):
    """A server that was down over midnight does not put two days into one file."""
    files().write(b"old\n")
    clock.advance(3 * DAY_MS)
    files().write(b"new\n")
    assert tree(path) == {"": "new\n", ".2026-01-01": "old\n"}


def test_a_clock_that_goes_back_renames_nothing(files, path):
    clock = ManualClock(datetime(2026, 5, 5, tzinfo=UTC))
    file = DailyFile(path, clock)
    file.open()
    file.write(b"one\n")
    clock.advance(-2 * DAY_MS)
    file.write(b"two\n")
    clock.advance(2 * DAY_MS)
    file.write(b"three\n")
    file.close()
    assert tree(path) == {"": "one\ntwo\nthree\n"}


def test_a_clock_that_jumps_ahead_and_back_loses_no_line_and_no_file(files, path, clock):
    file = files()
    file.write(b"one\n")
    clock.advance(400 * DAY_MS)
    file.write(b"future\n")
    clock.advance(-400 * DAY_MS)
    file.write(b"back\n")
    other = files()
    other.write(b"other\n")
    assert tree(path) == {"": "future\nback\nother\n", ".2026-01-01": "one\n"}


def test_midnight_is_that_of_utc(path):
    zone = timedelta(hours=5, minutes=30)
    clock = ManualClock(datetime(2026, 1, 2, 1, 0, tzinfo=UTC) - zone)
    file = DailyFile(path, clock)
    file.open()
    file.write(b"x\n")
    clock.advance(4 * 3_600_000)
    file.write(b"y\n")
    clock.advance(3_600_000)
    file.write(b"z\n")
    file.close()
    assert tree(path) == {"": "z\n", ".2026-01-01": "x\ny\n"}


def test_a_file_somebody_removed_or_moved_is_made_anew(files, path):
    file = files()
    file.write(b"one\n")
    path.rename(path.with_name("elsewhere"))
    file.write(b"two\n")
    assert path.read_text() == "two\n"


def test_a_file_of_unknown_day_is_of_the_day_it_was_last_written(files, path, clock):
    path.parent.mkdir()
    path.write_text("old\n")
    os.utime(path, (0, datetime(2025, 12, 30, tzinfo=UTC).timestamp()))
    files().write(b"new\n")
    assert tree(path) == {"": "new\n", ".2025-12-30": "old\n"}


def test_no_rename_falls_on_a_file_that_is_there(files, path, clock):
    file = files()
    file.write(b"one\n")
    path.with_name("router.log.2026-01-01").write_text("mine\n")
    clock.advance(DAY_MS)
    file.write(b"two\n")
    assert tree(path) == {"": "two\n", ".2026-01-01": "mine\n", ".2026-01-01.1": "one\n"}


def test_the_file_is_private(files, path):
    files().write(b"x\n")
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_is_no_file_has_no_days(tmp_path, clock):
    """`/dev/null` and `/dev/stdout` are where some people want a log; they are not renamed."""
    (tmp_path / "null").symlink_to("/dev/null")
    file = DailyFile(tmp_path / "null", clock)
    file.open()
    clock.advance(DAY_MS)
    file.write(b"x\n")
    file.close()
    assert [p.name for p in tmp_path.iterdir()] == ["null"]
