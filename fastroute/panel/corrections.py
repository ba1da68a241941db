"""Corrections at the desk: what a request cost is put right, by entries that refer to those they correct.

A receipt stays what was signed; beside it stands what was changed, when and why.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from fastroute.ledger.book import Refused
from fastroute.ledger.store import EntryRow, ReceiptRow
from fastroute.panel.counter import Counter
from fastroute.receipts.seal import receipt_id

REASON_MAX: Final = 500
KIND: Final = "correction"
# A million dollars: more than any request can cost, and few enough picodollars for 64 bits.
MICRODOLLARS_MAX: Final = 10**12
_PICODOLLARS: Final = 1_000_000


class Correct(Struct, forbid_unknown_fields=True):
    """What the request behind a receipt cost in all, whatever the books have so far; asking twice changes it once."""

    id: str
    microdollars: Annotated[int, Meta(ge=0, le=MICRODOLLARS_MAX)]
    reason: str


class List(Struct, forbid_unknown_fields=True):
    """By the id of the receipt or of its request."""

    id: str


def correct(counter: Counter, asked: Correct) -> dict[str, Any]:
    """More is charged to the last attempt, less is given back from the last one backwards.

    Whatever window an attempt drew on is charged, the long over ones too; a limit does not stand in the way.
    """
    reason = " ".join(asked.reason.split())
    if not 0 < len(reason) <= REASON_MAX:
        raise Refused(400, "invalid_request", f"a reason has 1 to {REASON_MAX} characters", "reason")
    receipt = _receipt(counter, asked.id)
    attempts = _attempts(counter, receipt.request)
    if not attempts:
        raise Refused(409, "nothing_charged", f"nothing was sent to a provider for {asked.id!r}", "id")
    before = sum(each.microdollars or 0 for each in attempts)
    difference = asked.microdollars - before
    entries = []
    for attempt in reversed(attempts):
        if not difference:
            break
        part = max(difference, -(attempt.microdollars or 0))
        difference -= part
        if part:
            entries.append(_entry(counter, attempt, part))
    told = {
        "at_ms": counter.now_ms,
        "from_microdollars": before,
        "to_microdollars": asked.microdollars,
        "reason": reason,
        "entries": [{"attempt": each.attempt, "corrects": list(each.corrects or ())} for each in entries],
    }
    if entries:
        counter.keep(KIND, receipt.id, receipt.account, [*_kept(counter, receipt), told])
    return {"id": receipt.id, "request_id": receipt.request, "changed": bool(entries), **told}


def list_(counter: Counter, asked: List) -> list[dict[str, Any]]:
    """The corrections of one request, the oldest first."""
    return _kept(counter, _receipt(counter, asked.id))


def _receipt(counter: Counter, name: str) -> ReceiptRow:
    row = counter.library.receipt(name) or counter.library.receipt(receipt_id(name))
    if row is None:
        raise Refused(404, "receipt_not_found", f"no receipt is called {name!r}", "id")
    return row


def _kept(counter: Counter, receipt: ReceiptRow) -> list[dict[str, Any]]:
    return counter.document(KIND, receipt.id, list[dict[str, Any]]) or []


def _attempts(counter: Counter, request: str) -> list[EntryRow]:
    """The request's attempts in order, each with its corrections added up."""
    entries = [*counter.library.entries(request), *counter.book.entered(request)]
    found = {(entry.holder, entry.attempt): entry for entry in entries if entry.corrects is None}
    for entry in entries:
        if entry.corrects is not None:
            found[entry.corrects] = _sum(found[entry.corrects], entry)
    return list(found.values())


def _sum(attempt: EntryRow, more: EntryRow) -> EntryRow:
    return msgspec.structs.replace(
        attempt,
        charged=tuple(a + b for a, b in zip(attempt.charged, more.charged, strict=True)),
        usage=tuple(a + b for a, b in zip(attempt.usage, more.usage, strict=True)),
        picodollars=None if more.picodollars is None else (attempt.picodollars or 0) + more.picodollars,
        microdollars=None if more.microdollars is None else (attempt.microdollars or 0) + more.microdollars,
    )


def _entry(counter: Counter, attempt: EntryRow, part: int) -> EntryRow:
    """One entry that adds so much, which may be below zero, to an attempt and to the money it drew on."""
    windows = counter.library.windows(attempt.windows)
    money = {row.id for row in windows if counter.book.unit(row) == "microdollar"}
    microdollars = (attempt.microdollars or 0) + part
    return counter.book.correct(
        attempt,
        charged=tuple(
            max(0, charged + part) if window in money else charged
            for window, charged in zip(attempt.windows, attempt.charged, strict=True)
        ),
        basis=attempt.basis,
        usage=attempt.usage,
        picodollars=microdollars * _PICODOLLARS,
        microdollars=microdollars,
        now_ms=counter.now_ms,
        old_windows=windows,
    )
