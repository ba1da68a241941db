"""Usage at the desk: what an account has used, holds and has left, and what it used it for, by day and model."""

from __future__ import annotations

import heapq
from typing import Any

from msgspec import Struct

from fastroute.ledger.store import AccountRow, UsageDelta
from fastroute.panel import keys, views
from fastroute.panel.counter import ALLOCATED, Counter

DAYS = 31
DAYS_MAX = 3660
# The keys of an overview are so many, those that spent most first.
KEYS_SHOWN = 200


class Show(Struct, forbid_unknown_fields=True):
    """`id` is an account's id or name; `account` its number, when it asks for itself."""

    id: str | None = None
    account: int | None = None
    days: int = DAYS


class Overview(Struct, forbid_unknown_fields=True):
    days: int = 1


class Money(Struct, forbid_unknown_fields=True):
    pass


def show(counter: Counter, asked: Show) -> dict[str, Any]:
    """What the account spent, and the keys under it; what its grants and leases spent is told as its own."""
    row = counter.account(asked.account) if asked.account is not None else _named(counter, asked.id or "")
    days = _days(asked.days)
    used = [
        each
        for one in counter.family(row)
        if one.kind not in ALLOCATED
        for each in counter.library.usage(one.id, days=days, now_ms=counter.now_ms)
    ]
    own = counter.book.balances(row.id, counter.now_ms)
    tokens = next((each for each in own if each.unit == "token"), None)
    shown = {
        "id": row.public_id,
        "name": row.name,
        **views.money(counter, row),
        "budgets": [views.balance(counter, each) for each in (own if row.kind in ALLOCATED else counter.balances(row))],
        "by_day": _summed(used, "day"),
        "by_model": _summed(used, "model"),
    }
    if tokens is not None:
        shown["tokens"] = {
            "used": tokens.used,
            "held": tokens.held,
            "remaining": tokens.remaining,
            "resets_at": views.local(tokens.resets_ms, tokens.zone),
        }
    return shown


def overview(counter: Counter, asked: Overview) -> dict[str, Any]:
    """The whole house at a glance."""
    rows = [row for kind in (*keys.KINDS, *ALLOCATED) for row in counter.book.accounts(kind)]
    used = counter.library.usage(None, days=_days(asked.days), now_ms=counter.now_ms)
    states: dict[str, dict[str, int]] = {}
    for row in rows:
        kind = states.setdefault(row.kind, {})
        kind[row.state] = kind.get(row.state, 0) + 1
    spent: dict[int, int] = {}
    for each in used:
        payer = _payer(counter, each.account)
        spent[payer] = spent.get(payer, 0) + each.microdollars
    most = heapq.nlargest(
        KEYS_SHOWN,
        (row for row in rows if row.kind in keys.KINDS),
        key=lambda row: (row.state == "live", spent.get(row.id, 0), -row.id),
    )
    return {
        "accounts": states,
        "breaches": counter.book.breaches,
        "by_day": _summed(used, "day"),
        "by_model": _summed(used, "model"),
        "keys": [
            {"id": row.public_id, "name": row.name, "state": counter.standing(row), **views.money(counter, row)}
            for row in most
        ],
    }


def money(counter: Counter, asked: Money) -> dict[str, dict[str, int]]:
    """What there is of money by kind of account, and where it is: for gauges, which are asked for again and again."""
    return {
        kind: {"free": free, "held": held, "leased": leased, "spent": spent}
        for kind, (free, held, leased, spent) in counter.book.money(counter.now_ms).items()
    }


def _named(counter: Counter, text: str) -> AccountRow:
    return counter.book.by_public(text) or keys.find(counter, text)


def _payer(counter: Counter, account: int) -> int:
    """Whose budget it was: of a grant or a lease, the account it was taken out of."""
    row = counter.book.account(account)
    while row is not None and row.kind in ALLOCATED and row.parent is not None:
        row = counter.book.account(row.parent)
    return account if row is None else row.id


def _days(days: int) -> int:
    return min(max(days, 1), DAYS_MAX)


_SUMS = ("requests", "attempts", "input_tokens", "output_tokens", "microdollars")


def _summed(used: list[UsageDelta], field: str) -> list[dict[str, Any]]:
    sums: dict[str, dict[str, int]] = {}
    for row in used:
        into = sums.setdefault(getattr(row, field), dict.fromkeys(_SUMS, 0))
        for name in _SUMS:
            into[name] += getattr(row, name)
    return [{field: name, **sums[name]} for name in sorted(sums)]
