"""The money of a house in its metrics, as whoever watches it over a scrape sees it."""

from __future__ import annotations

from typing import Any

from money_desk_kit import House, until

NAME = "fastroute_money_microdollars"


def gauge(house: House, state: str) -> int | None:
    text = house.fetch("GET", "/metrics").text
    [line] = [each for each in text.splitlines() if each.startswith(f'{NAME}{{account_kind="key",state="{state}"')] or [
        None
    ]
    return None if line is None else int(line.split()[1].removesuffix(".0"))


def test_a_scrape_tells_what_keys_may_spend(house: House, lab: Any) -> None:
    """A few seconds old at most: what one scrape shows may be from before this test."""
    house.key(budget_microdollars=123_456_789)
    until(lambda: (gauge(house, "free") or 0) >= 123_456_789, 15)
    assert gauge(house, "held") is not None
    assert gauge(house, "spent") is not None
