"""How people word what they ask of the desk, on the wire or at the terminal, and what the desk understands by it.

Dollars become microdollars here, durations and dates become instants; a field that cannot be read is named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from fastroute.errors import MoneyError
from fastroute.ledger.book import Refused
from fastroute.ledger.windows import known_zone
from fastroute.money import microdollars_from_usd
from fastroute.panel.corrections import MICRODOLLARS_MAX

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
# The last instant that can be written down as one.
INSTANT_MAX_MS: Final = (datetime(9999, 12, 31, tzinfo=UTC) - _EPOCH) // _MILLISECOND

_DURATION: Final = re.compile(r"([0-9]{1,6})([smhdw])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_WORDS: Final = {
    "name": "name",
    "kind": "kind",
    "window": "window",
    "timezone": "zone",
    "daily_tokens": "daily_tokens",
    "rpm": "rpm",
    "tpm": "tpm",
    "concurrency": "concurrency",
    "models": "models",
    "parent": "parent",
    "metadata": "metadata",
    "prefer": "prefer",
    "budget_microdollars": "budget_microdollars",
}


def key_fields(given: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """The desk's fields for what was given; `Refused` 400 names a field that is not known or cannot be read."""
    fields: dict[str, Any] = {}
    for word, value in given.items():
        if word in _WORDS:
            fields[_WORDS[word]] = value
        elif word == "budget_usd":
            fields["budget_microdollars"] = None if value is None else _dollars(value)
        elif word == "expires":
            fields["expires_ms"] = None if value is None else expiry(value, now)
        else:
            known = ", ".join(sorted((*_WORDS, "budget_usd", "expires")))
            raise Refused(400, "invalid_request", f"{word!r} is not a field; there are {known}", word)
    if "budget_usd" in given and "budget_microdollars" in given:
        raise Refused(400, "invalid_request", "a budget is given in dollars or microdollars, not both", "budget_usd")
    if "zone" in fields:
        zone(fields["zone"])
    return fields


def correction(given: Mapping[str, Any]) -> dict[str, Any]:
    """What a request cost in all, in dollars or microdollars, and why it is put right."""
    fields = dict(given)
    if unknown := fields.keys() - {"usd", "microdollars", "reason"}:
        word = min(unknown)
        raise Refused(400, "invalid_request", f"{word!r} is not a field; there are microdollars, reason, usd", word)
    if ("usd" in fields) == ("microdollars" in fields):
        raise Refused(400, "invalid_request", "what it cost is given in dollars or microdollars, one of them", "usd")
    word, value = next((word, fields[word]) for word in ("usd", "microdollars") if word in fields)
    if word == "usd":
        fields["microdollars"] = _dollars(fields.pop("usd"), "usd")
    amount = fields["microdollars"]
    if not isinstance(amount, int) or isinstance(amount, bool) or not 0 <= amount <= MICRODOLLARS_MAX:
        wanted = f"what a request cost is a whole number from 0 to {MICRODOLLARS_MAX} microdollars (a million dollars)"
        raise Refused(400, "invalid_request", f"{wanted}, not {value!r:.40}{' dollars' if word == 'usd' else ''}", word)
    return fields


def expiry(text: object, now: datetime) -> int:
    """`30d`, `12h` from now, or an ISO 8601 instant (UTC where it names no offset), in milliseconds since the epoch."""
    found = _instant(text, now) if isinstance(text, str) else None
    if found is None:
        wanted = "wanted a duration such as 30d or 12h, or an instant such as 2027-01-31T00:00:00Z"
        raise Refused(400, "invalid_request", f"{wanted}, found {text!r}", "expires")
    if not 0 <= found <= INSTANT_MAX_MS:
        raise Refused(400, "invalid_request", f"{text!r} is beyond the calendar", "expires")
    return found


def _instant(text: str, now: datetime) -> int | None:
    duration = _DURATION.fullmatch(text)
    if duration is not None:
        return (now - _EPOCH) // _MILLISECOND + int(duration[1]) * _SECONDS[duration[2]] * 1000
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return None
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    return (instant - _EPOCH) // _MILLISECOND


def zone(text: object) -> str:
    """The name of a time zone that is known here."""
    if isinstance(text, str) and text and known_zone(text):
        return text
    raise Refused(400, "invalid_request", f"{text!r} is not a time zone such as Europe/Berlin", "timezone")


def _dollars(value: object, field: str = "budget_usd") -> int:
    try:
        if isinstance(value, str | int | Decimal) and not isinstance(value, bool):
            return microdollars_from_usd(value)
    except MoneyError as error:
        raise Refused(400, "invalid_request", str(error), field) from None
    raise Refused(400, "invalid_request", f"dollars are decimal text such as '2.50', not {value!r}", field)
