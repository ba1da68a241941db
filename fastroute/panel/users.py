"""People at a terminal, at the desk: whoever asks under a policy for the first time gets an account with its budgets."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from fastroute.panel import keys
from fastroute.panel.counter import Counter


class Open(Struct, forbid_unknown_fields=True):
    """The live user of that name; the limits are for one who is new, and null is none."""

    name: str
    daily_tokens: int | None = None
    rpm: int | None = None
    zone: str = "UTC"


def open_(counter: Counter, asked: Open) -> dict[str, Any]:
    """Who it is: `account` is the number that a teller asks for, `made` whether it is new."""
    known = counter.called("user", asked.name)
    made = known is None or known.state != "live"
    if made:
        wanted = keys.Create(
            name=asked.name, kind="user", daily_tokens=asked.daily_tokens, rpm=asked.rpm, zone=asked.zone
        )
        public_id = keys.create(counter, wanted)["id"]
        known = counter.book.by_public(public_id)
    assert known is not None
    return {"id": known.public_id, "account": known.id, "made": made}
