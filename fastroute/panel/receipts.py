"""Receipts at the desk: one by its id or its request's, or the latest; each shown to its owner only."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from fastroute.ledger.book import Refused
from fastroute.panel.counter import Counter
from fastroute.receipts.seal import receipt_id

LIMIT_MAX = 1000
Place = Annotated[int, Meta(ge=0, lt=2**62)]


class Show(Struct, forbid_unknown_fields=True):
    """By the receipt's id or the request's; `account` is who asks, None an administrator."""

    id: str
    account: int | None = None


class List(Struct, forbid_unknown_fields=True):
    account: int | None = None
    limit: int = 20
    before: Place | None = None  # the place in the chain to go back from


class Chain(Struct, forbid_unknown_fields=True):
    after: Place = 0
    limit: int = LIMIT_MAX


def show(counter: Counter, asked: Show) -> bytes:
    """The receipt's bytes, as they were signed."""
    row = counter.library.receipt(asked.id) or counter.library.receipt(receipt_id(asked.id))
    if row is None or (asked.account is not None and not counter.owns(asked.account, row.account)):
        raise Refused(404, "receipt_not_found", f"no receipt is called {asked.id!r}", "id")
    return row.body


def list_(counter: Counter, asked: List) -> list[dict[str, Any]]:
    if not 1 <= asked.limit <= LIMIT_MAX:
        raise Refused(400, "invalid_request", f"a limit is 1 to {LIMIT_MAX}", "limit")
    rows = counter.library.receipts(account=asked.account, limit=asked.limit, before=asked.before)
    return [{"seq": row.seq, "id": row.id, "body": row.body} for row in rows]


def chain(counter: Counter, asked: Chain) -> list[dict[str, Any]]:
    """Receipts in the order of their chain."""
    rows = counter.library.chain(asked.after + 1, min(max(asked.limit, 1), LIMIT_MAX))
    return [{"seq": row.seq, "id": row.id, "body": row.body} for row in rows]
