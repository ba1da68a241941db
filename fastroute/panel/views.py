"""How accounts and balances are shown: the same words on the wire, at the terminal and in a client."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from fastroute.clock import iso
from fastroute.ledger.book import Balance
from fastroute.ledger.store import AccountRow
from fastroute.ledger.windows import known_zone
from fastroute.panel.counter import Counter


def instant(ms: int | None) -> str | None:
    """Milliseconds since the epoch as ISO 8601."""
    return None if ms is None else iso(datetime.fromtimestamp(ms / 1000, UTC))


def account(counter: Counter, row: AccountRow) -> dict[str, Any]:
    """One account, with the budgets it draws on."""
    parent = None if row.parent is None else counter.account(row.parent)
    return {
        "id": row.public_id,
        "kind": row.kind,
        "name": row.name,
        "hint": row.hint,
        "state": counter.standing(row),
        "created_at": instant(row.created_ms),
        "expires_at": instant(row.expires_ms),
        "parent": None if parent is None else parent.public_id,
        "models": list(row.models),
        "rpm": row.rpm,
        "tpm": row.tpm,
        "concurrency": row.concurrency,
        "prefer": row.prefer,
        "metadata": row.metadata,
        "budgets": [balance(counter, each) for each in counter.balances(row)],
    }


def balance(counter: Counter, each: Balance) -> dict[str, Any]:
    """One limit as it stands: `used + held + remaining` is the limit, with `remaining` below 0 after a breach."""
    return {
        "unit": each.unit,
        "limit": each.limit,
        "used": each.used,
        "held": each.held,
        "remaining": each.remaining,
        "window": each.kind,
        "window_name": each.name,
        "zone": each.zone,
        "resets_at": local(each.resets_ms, each.zone),
        "owner": counter.account(each.account).public_id,
    }


def local(ms: int | None, zone: str) -> str | None:
    """An instant in its own zone, offset included: that is where the day turns."""
    if ms is None:
        return None
    # Books may come from a machine that knows more zones; here the windows of those turn in UTC.
    rules = ZoneInfo(zone if known_zone(zone) else "UTC")
    return datetime.fromtimestamp(ms / 1000, rules).isoformat(timespec="seconds")


def money(counter: Counter, row: AccountRow) -> dict[str, Any]:
    """The account's own budget of money in the words of `usage`; null where it has none."""
    for each in counter.book.balances(row.id, counter.now_ms):
        if each.unit == "microdollar":
            return {
                "limit_microdollars": each.limit,
                "spent_microdollars": each.used,
                "held_microdollars": each.held,
                "remaining_microdollars": each.remaining,
                "resets_at": local(each.resets_ms, each.zone),
            }
    return dict.fromkeys(
        ("limit_microdollars", "spent_microdollars", "held_microdollars", "remaining_microdollars", "resets_at")
    )
