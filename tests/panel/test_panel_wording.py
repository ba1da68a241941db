"""How limits are worded: dollars are exact, instants are within the calendar, and what cannot be read is named."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastroute.ledger.book import Refused
from fastroute.panel.wording import INSTANT_MAX_MS, correction, expiry, key_fields, zone

NOW = datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC)
NOW_MS = 1_790_000_000_000


@pytest.mark.parametrize(
    ("dollars", "microdollars"),
    [("2.01", 2_010_000), (2, 2_000_000), ("0", 0), ("0.000001", 1), (Decimal("29.99"), 29_990_000), (None, None)],
)
def test_dollars_become_microdollars_exactly(dollars, microdollars):
    """R-A9: 2.01 reads as 2,010,000."""
    assert key_fields({"budget_usd": dollars}, NOW) == {"budget_microdollars": microdollars}


@settings(deadline=None)
@given(st.integers(0, 9 * 10**11))
def test_every_cent_is_what_it_says(cents):
    """R-B7: no cent value is a microdollar off."""
    assert key_fields({"budget_usd": f"{cents // 100}.{cents % 100:02}"}, NOW)["budget_microdollars"] == cents * 10_000


@pytest.mark.parametrize(
    "dollars", [2.01, float("nan"), True, "-1", -1, "NaN", "Infinity", "", "two", "1e300", [], {}, b"1"]
)
def test_what_is_no_amount_of_dollars_is_refused(dollars):
    with pytest.raises(Refused) as refusal:
        key_fields({"budget_usd": dollars}, NOW)
    assert (refusal.value.status, refusal.value.field) == (400, "budget_usd")


def test_a_budget_is_given_once():
    with pytest.raises(Refused, match="not both"):
        key_fields({"budget_usd": "1", "budget_microdollars": 1}, NOW)


def test_a_word_that_is_not_known_is_named_with_those_that_are():
    with pytest.raises(Refused, match="budget_usd") as refusal:
        key_fields({"budgets": 1}, NOW)
    assert refusal.value.field == "budgets"


def test_other_words_pass_as_they_are():
    given = {"name": "a", "rpm": 3, "models": ["m"], "timezone": "Asia/Kolkata", "expires": None}
    assert key_fields(given, NOW) == {
        "name": "a",
        "rpm": 3,
        "models": ["m"],
        "zone": "Asia/Kolkata",
        "expires_ms": None,
    }


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("30d", NOW_MS + 30 * 86_400_000),
        ("12h", NOW_MS + 12 * 3_600_000),
        ("0s", NOW_MS),
        ("90m", NOW_MS + 5_400_000),
        ("2w", NOW_MS + 14 * 86_400_000),
        ("2026-09-21T14:13:20Z", NOW_MS),
        ("2026-09-21T14:13:20", NOW_MS),
        ("2026-09-21T16:13:20+02:00", NOW_MS),
        ("2026-09-21T14:13:20.001Z", NOW_MS + 1),
        ("1970-01-01", 0),
        ("9999-12-31", INSTANT_MAX_MS),
    ],
)
def test_an_expiry_is_a_duration_or_an_instant(text, ms):
    assert expiry(text, NOW) == ms


@pytest.mark.parametrize(
    "text", ["", "soon", "30", "30 d", "30d\n", "-1d", "1.5h", "30D", "2026-13-01", 30, None, True, "1969-12-31"]
)
def test_what_is_no_expiry_is_refused(text):
    with pytest.raises(Refused) as refusal:
        expiry(text, NOW)
    assert (refusal.value.status, refusal.value.field) == (400, "expires")


@pytest.mark.parametrize("text", ["999999w", "9999-12-31T00:00:01Z"])
def test_an_expiry_beyond_the_calendar_is_refused(text):
    with pytest.raises(Refused, match="calendar"):
        expiry(text, NOW)


@pytest.mark.parametrize("text", ["", "Mars/Olympus", "../etc/passwd", "Europe", "/etc/localtime", "a\x00b", 3, None])
def test_a_zone_is_one_that_is_known(text):
    with pytest.raises(Refused) as refusal:
        zone(text)
    assert refusal.value.field == "timezone"
    assert zone("Europe/Berlin") == "Europe/Berlin"


def test_a_correction_is_worded_in_dollars_or_microdollars():
    assert correction({"usd": "0.0125", "reason": "r"}) == {"microdollars": 12_500, "reason": "r"}
    assert correction({"microdollars": 5, "reason": "r"}) == {"microdollars": 5, "reason": "r"}


@pytest.mark.parametrize(
    ("worded", "field"),
    [
        ({"usd": "1", "microdollars": 1, "reason": "r"}, "usd"),
        ({"reason": "r"}, "usd"),
        ({"usd": 0.5, "reason": "r"}, "usd"),
        ({"usd": "-1", "reason": "r"}, "usd"),
        ({"microdollars": 1, "reason": "r", "why": "x"}, "why"),
    ],
)
def test_a_correction_that_cannot_be_read_is_refused(worded, field):
    with pytest.raises(Refused) as refusal:
        correction(worded)
    assert (refusal.value.status, refusal.value.field) == (400, field)
