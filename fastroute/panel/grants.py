"""Routed grants at the desk: money set aside from a key for one step, and the record of the decision that placed it."""

from __future__ import annotations

import hashlib
import uuid
from typing import Any

import msgspec
from msgspec import Struct

from fastroute.ledger.book import Refused
from fastroute.ledger.store import AccountRow
from fastroute.panel import keys, views
from fastroute.panel.counter import Counter

# A routed step is over within a day; what it did not spend then goes back to the key it was taken from.
GRANT_MS = 86_400_000
IDEMPOTENT_MS = 86_400_000
DECISION_MS = 30 * 86_400_000
DECISIONS_MAX = 1000


class Remaining(Struct, forbid_unknown_fields=True):
    account: int
    wanted: int = 0


class Place(Struct, forbid_unknown_fields=True):
    """A decision made for a key; with a placement, a grant is minted for it: `ceiling` at most, `need` at least."""

    account: int
    decision_id: str
    decision: dict[str, Any]
    answer: dict[str, Any]  # as it goes to the caller, but for the grant
    body_hash: str
    ceiling: int = 0
    need: int = 0
    models: list[str] = []
    key: str | None = None  # the caller's Idempotency-Key


class Kept(Struct):
    """What an idempotency key was answered with; the grant's token is made again from the same seed."""

    body_hash: str
    answer: dict[str, Any]
    granted: bool


class Show(Struct, forbid_unknown_fields=True):
    """`account` is who asks: the grant itself or whose money it is; None is an administrator."""

    id: str
    account: int | None = None


class Decision(Struct, forbid_unknown_fields=True):
    id: str
    account: int | None = None


class Decisions(Struct, forbid_unknown_fields=True):
    """The latest records, those before an instant; for administrators."""

    limit: int = 100
    before_ms: int | None = None


def remaining(counter: Counter, asked: Remaining) -> int | None:
    """What a grant for this key could have at most; None is no limit."""
    parent = counter.account(asked.account)
    counter.need(parent, asked.wanted)
    return counter.available(parent)


def place(counter: Counter, asked: Place) -> dict[str, Any]:
    """The whole answer of `/v1/route`: with a grant, or `grant_failed` when the key has no money for the placement."""
    parent = counter.account(asked.account)
    if parent.kind != "key":
        raise Refused(403, "insufficient_scope", f"a {parent.kind} cannot mint grants; ask with the key it came from")
    if counter.standing(parent) != "live":
        raise Refused(401, "invalid_api_key", "this key is not known here, or no longer")
    name = None
    if asked.key is not None:
        name = f"{parent.id}:{hashlib.sha256(asked.key.encode()).hexdigest()}"
        kept = counter.document("route", name, Kept)
        if kept is not None:
            if kept.body_hash != asked.body_hash:
                message = "this Idempotency-Key was used with another body; a new request needs a new key"
                raise Refused(422, "idempotency_key_reused", message)
            return _with_token(counter, kept, name)
    answer = {**asked.answer, "decision_id": asked.decision_id}
    granted = None
    record = {**asked.decision, "grant_id": None}
    if asked.ceiling:
        counter.need(parent, asked.ceiling)
        left = counter.available(parent)
        budget = asked.ceiling if left is None else min(asked.ceiling, left)
        if budget < max(asked.need, 1):
            record["outcome"] = "grant_failed"
            record["detail"] = "parent_exhausted"
            counter.keep("decision", asked.decision_id, parent.id, record, for_ms=DECISION_MS)
            # Nothing was set aside, so the same key may try again once there is money.
            return {"error": "grant_failed", "reason": "parent_exhausted", "decision_id": asked.decision_id}
        granted = _mint(counter, parent, budget, asked, name)
        record["grant_id"] = granted["id"]
        answer["grant"] = {**granted, "key": None}
    counter.keep("decision", asked.decision_id, parent.id, record, for_ms=DECISION_MS)
    if name is not None:
        kept = Kept(asked.body_hash, answer, granted is not None)
        counter.keep("route", name, parent.id, kept, for_ms=IDEMPOTENT_MS)
    if granted is not None:
        answer["grant"] = granted
    return answer


def _mint(counter: Counter, parent: AccountRow, budget: int, asked: Place, name: str | None) -> dict[str, Any]:
    token, digest = counter.token("grant", None if name is None else _seed(name, asked.decision_id))
    expires = counter.expires_ms(parent, counter.now_ms + GRANT_MS)
    row = counter.book.allocate(
        parent.id,
        budget,
        public_id=str(uuid.uuid4()),
        kind="grant",
        name=asked.decision_id,
        digest=digest,
        hint=token.hint,
        expires_ms=expires,
        models=tuple(asked.models),
        metadata={"decision_id": asked.decision_id},
        now_ms=counter.now_ms,
    )
    return {
        "key": token.text,
        "expires_at": views.instant(expires),
        "budget_microdollars": budget,
        "id": row.public_id,
    }


def _with_token(counter: Counter, kept: Kept, name: str) -> dict[str, Any]:
    if not kept.granted:
        return kept.answer
    token, _ = counter.token("grant", _seed(name, kept.answer["decision_id"]))
    return {**kept.answer, "grant": {**kept.answer["grant"], "key": token.text}}


def _seed(name: str, decision_id: str) -> bytes:
    # The decision is in it, for a key may be used anew once it is forgotten, and no two grants share a token.
    return f"grant:{name}:{decision_id}".encode()


def show(counter: Counter, asked: Show) -> dict[str, Any]:
    """A grant as its holder may see it."""
    row = _of(counter, asked)
    return {
        "id": row.public_id,
        "state": counter.standing(row),
        "decision_id": row.metadata.get("decision_id"),
        "models": list(row.models),
        "expires_at": views.instant(row.expires_ms),
        **views.money(counter, row),
    }


def revoke(counter: Counter, asked: Show) -> dict[str, Any]:
    row = _of(counter, asked)
    if asked.account == row.id:
        raise Refused(403, "insufficient_scope", "a grant does not end itself; ask with the key it came from")
    keys.end(counter, row)
    return show(counter, asked)


def decision(counter: Counter, asked: Decision) -> dict[str, Any]:
    """The kept record of a decision; another's is not there."""
    row = counter.row("decision", asked.id)
    found = counter.document("decision", asked.id, dict[str, Any])
    if row is None or found is None or asked.account not in (None, row.account):
        raise Refused(404, "decision_not_found", f"no decision is called {asked.id!r}", "id")
    return found


def decisions(counter: Counter, asked: Decisions) -> list[dict[str, Any]]:
    """The records that are committed and have not expired, newest first."""
    if not 1 <= asked.limit <= DECISIONS_MAX:
        raise Refused(400, "invalid_request", f"a limit is 1 to {DECISIONS_MAX}", "limit")
    rows = counter.library.records("decision", limit=asked.limit, before_ms=asked.before_ms)
    return [
        {"id": row.id, "at_ms": row.at_ms, "record": msgspec.msgpack.decode(row.body)}
        for row in rows
        if row.expires_ms is None or row.expires_ms > counter.now_ms
    ]


def _of(counter: Counter, asked: Show) -> AccountRow:
    row = counter.book.by_public(asked.id)
    if row is None or row.kind != "grant" or asked.account not in (None, row.id, row.parent):
        raise Refused(404, "grant_not_found", f"no grant is called {asked.id!r}", "id")
    return row
