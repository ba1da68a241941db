"""Captured content at the desk: bytes that nobody here can read, by the receipt they belong to, until they expire.

Beside them stand the comparisons of shadows, which hold figures and no text.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
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


class List(Struct, forbid_unknown_fields=True):
    """Of those after this receipt, in the order of their names."""

    after: str = ""
    limit: Annotated[int, Meta(ge=1, le=200)] = 200


class Forget(Struct, forbid_unknown_fields=True):
    receipts: list[str]


class _Paper(Struct):
    details: dict[str, Any] = {}


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
    return [name for name in _few(asked.receipts) if counter.row("content", name) is not None]


def list_(counter: Counter, asked: List) -> list[dict[str, Any]]:
    """Whose content is kept, since when and under which policy: None where there is no receipt that says so."""
    found = counter.library.record_names("content", after=asked.after, limit=asked.limit)
    return [{"receipt": name, "kept_ms": at_ms, "policy": _policy(counter, name)} for name, at_ms in found]


def forget(counter: Counter, asked: Forget) -> int:
    """Keep the content of these no longer; of how many there was one."""
    found = [name for name in dict.fromkeys(_few(asked.receipts)) if counter.row("content", name) is not None]
    for name in found:
        counter.forget("content", name)
    return len(found)


def _few(receipts: list[str]) -> list[str]:
    if len(receipts) > IDS_MAX:
        raise Refused(400, "invalid_request", f"at most {IDS_MAX} receipts at once", "receipts")
    return receipts


def _policy(counter: Counter, name: str) -> str | None:
    row = counter.library.receipt(name)
    policy = None if row is None else msgspec.json.decode(row.body, type=_Paper).details.get("policy")
    return policy if isinstance(policy, str) else None


def compare(counter: Counter, asked: Compare) -> None:
    counter.keep("shadow", asked.receipt, asked.account, asked.told, for_ms=COMPARED_DAYS * DAY_MS)
