"""What a day and a month are called in a zone, and when they end."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastroute.ledger.windows import TOTAL, known_zone, window_at

HOUR = 3_600_000


def ms(*when: int, zone: str = "UTC", fold: int = 0) -> int:
    return int(datetime(*when, tzinfo=ZoneInfo(zone), fold=fold).timestamp()) * 1000


def test_a_total_window_never_ends():
    assert window_at("total", "Europe/Berlin", 0) == TOTAL == ("total", None)


def test_a_window_ends_with_the_first_instant_that_is_no_longer_in_it():
    midnight = ms(2026, 11, 22)
    assert window_at("daily", "UTC", midnight - 1) == ("2026-11-21", midnight)
    assert window_at("daily", "UTC", midnight) == ("2026-11-22", midnight + 24 * HOUR)
    assert window_at("monthly", "UTC", ms(2026, 12, 31, 23, 59)) == ("2026-12", ms(2027, 1, 1))


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", (2026, 3, 29), 23),
        ("Europe/Berlin", (2026, 10, 25), 25),
        ("Australia/Lord_Howe", (2026, 4, 5), 24.5),
        ("Africa/Cairo", (2026, 4, 24), 23),  # there is no midnight that day
        ("Asia/Kolkata", (2026, 6, 1), 24),
    ],
)
def test_a_day_has_the_hours_that_its_zone_gives_it(zone, day, hours):
    name, ends = window_at("daily", zone, ms(*day, 12, zone=zone))
    before = window_at("daily", zone, ms(*day, 12, zone=zone) - 24 * HOUR)
    assert name == "{:04}-{:02}-{:02}".format(*day)
    assert ends - before.ends_ms == hours * HOUR


def test_a_day_without_a_midnight_begins_with_its_first_instant():
    """In Sao Paulo of 2018 the clocks went from 23:59:59 on the third to 01:00 on the fourth of November."""
    zone = "America/Sao_Paulo"
    one_o_clock = ms(2018, 11, 4, 1, zone=zone)
    assert window_at("daily", zone, one_o_clock - 1) == ("2018-11-03", one_o_clock)
    assert window_at("daily", zone, one_o_clock).name == "2018-11-04"


def test_a_gap_that_begins_before_midnight_ends_the_day_where_it_begins():
    """In Toronto of 1919 the clocks went from 23:30 to 00:30."""
    zone = "America/Toronto"
    jump = ms(1919, 3, 31, 0, 30, zone=zone)
    assert window_at("daily", zone, jump - 1) == ("1919-03-30", jump)
    assert window_at("daily", zone, jump).name == "1919-03-31"


def test_a_day_that_was_left_out_is_no_window():
    """Apia had no thirtieth of December in 2011."""
    zone = "Pacific/Apia"
    jump = ms(2011, 12, 31, zone=zone)
    assert window_at("daily", zone, jump - 1) == ("2011-12-29", jump)
    assert window_at("daily", zone, jump).name == "2011-12-31"


def test_an_hour_that_comes_twice_around_midnight_does_not_bring_yesterday_back():
    """In St. John's the clocks went back at 00:01, to 23:01 of the day before."""
    zone = "America/St_Johns"
    midnight = ms(2010, 11, 7, zone=zone)
    again = ms(2010, 11, 6, 23, 30, zone=zone, fold=1)
    assert again > midnight
    assert window_at("daily", zone, midnight - 1) == ("2010-11-06", midnight)
    assert window_at("daily", zone, again) == window_at("daily", zone, midnight)
    assert window_at("daily", zone, midnight).name == "2010-11-07"


def test_an_unknown_zone_is_told_and_counts_as_utc():
    assert known_zone("Asia/Kathmandu")
    assert not any(known_zone(name) for name in ("Mars/Olympus", "", "../etc/passwd", "Europe", "a\0b"))
    assert window_at("daily", "Mars/Olympus", ms(2026, 5, 5)) == window_at("daily", "UTC", ms(2026, 5, 5))


@pytest.mark.parametrize("kind", ["daily", "monthly"])
@pytest.mark.parametrize("now_ms", [-(10**30), 10**30])
def test_instants_beyond_the_calendar_have_a_window_too(kind, now_ms):
    for zone in ("Pacific/Kiritimati", "Pacific/Niue"):
        assert isinstance(window_at(kind, zone, now_ms).ends_ms, int)


ZONES = ["UTC", "Europe/Berlin", "America/Havana", "Asia/Gaza", "America/St_Johns", "Pacific/Apia", "Africa/Casablanca"]


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["daily", "monthly"]),
    st.sampled_from(ZONES),
    st.integers(-2_000_000_000_000, 4_000_000_000_000),
    st.integers(0, 40 * 24 * HOUR),
)
def test_windows_follow_one_another_without_gap_and_never_go_back(kind, zone, now_ms, later):
    first, second = window_at(kind, zone, now_ms), window_at(kind, zone, now_ms + later)
    assert first.ends_ms > now_ms
    assert (first.name, first.ends_ms) <= (second.name, second.ends_ms)
    assert (first == second) == (now_ms + later < first.ends_ms)
    shown = datetime.fromtimestamp(now_ms // 1000, UTC).astimezone(ZoneInfo(zone)).date().isoformat()
    assert first.name >= shown[: len(first.name)]
