"""Captured content at the desk: bytes that nobody here can read, by the receipt they belong to, until they expire.

Beside them stand the comparisons of shadows, which hold figures and no text.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from fastroute.ledger.book import Refused
from fastroute.panel.counter import Counter

BODY_MAX = 1024 * 1024
DAY_MS = 86_400_000
IDS_MAX = 1000
COMPARED_DAYS = 30

Days = Annotated[int, Meta(ge=1, le=3650)]


class Keep(Struct, forbid_unknown_fields=True):
    account: int
    receipt: str
    body: bytes
    days: Days


class Show(Struct, forbid_unknown_fields=True):
    """By the id of the receipt."""

    receipt: str


class Kept(Struct, forbid_unknown_fields=True):
    receipts: list[str]


class Compare(Struct, forbid_unknown_fields=True):
    """`told` is a comparison of the request behind a receipt with its shadow."""

    account: int
    receipt: str
    told: dict[str, Any]


def keep(counter: Counter, asked: Keep) -> None:
    if len(asked.body) > BODY_MAX:
        raise Refused(413, "content_too_long", f"content is at most {BODY_MAX} bytes, not {len(asked.body)}", "body")
    counter.keep("content", asked.receipt, asked.account, asked.body, for_ms=asked.days * DAY_MS)


def show(counter: Counter, asked: Show) -> dict[str, Any]:
    """`content` is None where nothing is kept, or not any more."""
    row = counter.row("content", asked.receipt)
    return {
        "content": counter.document("content", asked.receipt, bytes),
        "expires_ms": None if row is None else row.expires_ms,
        "shadow": counter.document("shadow", asked.receipt, dict[str, Any]),
    }


def kept(counter: Counter, asked: Kept) -> list[str]:
    """Those of the receipts whose content is kept."""
    if len(asked.receipts) > IDS_MAX:
        raise Refused(400, "invalid_request", f"at most {IDS_MAX} receipts at once", "receipts")
    return [name for name in asked.receipts if counter.row("content", name) is not None]


def compare(counter: Counter, asked: Compare) -> None:
    counter.keep("shadow", asked.receipt, asked.account, asked.told, for_ms=COMPARED_DAYS * DAY_MS)
