"""The budget protocol at the desk: a runtime leases money from its agent's budget, reports what it spends, returns the rest.

A reported spend is charged whatever the lease's state: money that was spent is never dropped, only refused for more.
"""

from __future__ import annotations

import uuid
from typing import Any

from msgspec import Struct

from fastroute.domain import TOKENS_MAX
from fastroute.ledger.book import Refused
from fastroute.ledger.store import AccountRow
from fastroute.panel import views
from fastroute.panel.counter import Counter

LEASE_MS = 3_600_000
# After its last instant a lease may still be reported on, and is not taken back: its runtime's clock may be slow.
GRACE_MS = 60_000
TRANCHE = 10_000_000
HANDSHAKE_MAX = 100_000_000
REFRESH_MAX = 1_000_000_000
# A million dollars: whoever reports that one call or lease cost more than it has miscounted.
COST_MAX = 1_000_000_000_000
EVENTS_MS = 30 * 86_400_000


class ChargedAll(Refused):
    """A refusal after which what was spent is in the books all the same."""


class Handshake(Struct, forbid_unknown_fields=True):
    """`account` is the agent that asks."""

    account: int
    provider: str
    requested: int | None = None


class Report(Struct, forbid_unknown_fields=True):
    account: int
    lease_id: str
    request_id: str
    tokens: int
    cost_microdollars: int
    model: str
    provider: str


class Refresh(Struct, forbid_unknown_fields=True):
    account: int
    current_lease_id: str
    requested: int | None = None


class Return(Struct, forbid_unknown_fields=True):
    account: int
    lease_id: str
    spent_microdollars: int = 0


class Event(Struct, forbid_unknown_fields=True):
    account: int
    event_id: str
    body: dict[str, Any]


def handshake(counter: Counter, asked: Handshake) -> dict[str, Any]:
    wanted = _wanted(asked.requested, HANDSHAKE_MAX)
    agent = _agent(counter, asked.account)
    counter.need(agent, wanted)
    left = counter.available(agent)
    granted = wanted if left is None else min(wanted, left)
    if granted <= 0:
        raise Refused(403, "BUDGET_EXCEEDED", "Budget limit exceeded")
    return _lease(counter, agent, granted, asked.provider)


def report(counter: Counter, asked: Report) -> dict[str, Any]:
    """Charge one call; told twice it is charged once, and a lease that is over refuses after it has charged.

    A request's id is one call of its lease: two leases may count their calls alike.
    """
    lease = _lease_of(counter, asked.account, asked.lease_id)
    if not 0 < asked.tokens <= TOKENS_MAX:
        raise Refused(400, "VALIDATION_ERROR", f"tokens are 1 to {TOKENS_MAX}, not {asked.tokens}", "tokens")
    _cost(asked.cost_microdollars, "cost_microdollars")
    name = f"{lease.id}:{asked.request_id}"
    before = counter.document("report", name, int)
    if before is None:
        new = asked.cost_microdollars - _explain(counter, lease, asked.cost_microdollars)
        _post(counter, lease, asked.request_id, new, asked.model, asked.provider, asked.tokens)
        counter.keep("report", name, asked.account, asked.cost_microdollars)
    elif before != asked.cost_microdollars:
        message = f"request {asked.request_id!r} was reported before, as {before} microdollars"
        raise Refused(409, "REPORT_CHANGED", message, "cost_microdollars")
    state = _state(counter, lease)
    left = _left(counter, lease)
    # What was spent is in the books by now; the refusal says only that there must be no more of it.
    told = None if state == "live" else f"Lease {'has been revoked' if state == 'revoked' else state}"
    if told is None and left < 0:
        told = "Insufficient lease budget"
    free = counter.available(counter.account(asked.account))
    return {"success": told is None, "refused": told, "budget_remaining": free, "lease_remaining": max(left, 0)}


def refresh(counter: Counter, asked: Refresh) -> dict[str, Any]:
    """A new lease in place of the old, whose rest goes back first; one that is denied leaves the old as it is.

    Asked again, because the answer went missing, it takes the place of the new lease, as long as that one is unused.
    """
    wanted = _wanted(asked.requested, REFRESH_MAX)
    old = _lease_of(counter, asked.account, asked.current_lease_id)
    agent = _agent(counter, asked.account)
    if old.state == "revoked":
        return {"status": "denied", "budget_remaining": counter.available(agent), "reason": "Lease has been revoked"}
    followed = _lease_of(counter, asked.account, counter.document("refresh", str(old.id), str) or old.public_id)
    if followed.id != old.id and followed.state == "live":
        if _spent(counter, followed):
            reason = f"{old.public_id} was refreshed, and {followed.public_id} is in use"
            return {"status": "denied", "budget_remaining": counter.available(agent), "reason": reason}
        counter.book.end_allocation(followed.id, "ended")
    counter.need(agent, wanted)
    reason = "Budget limit exceeded"
    if old.state == "live":
        if counter.available(agent) == 0 and _left(counter, old) <= 0:
            return {"status": "denied", "budget_remaining": 0, "reason": reason}
        counter.book.end_allocation(old.id, "ended")
        reason = "what the old lease has left is not back yet; ask again"
    left = counter.available(agent)
    granted = wanted if left is None else min(wanted, left)
    if granted <= 0:
        return {"status": "denied", "budget_remaining": 0, "reason": reason}
    lease = _lease(counter, agent, granted, str(old.metadata.get("provider", "")))
    counter.keep("refresh", str(old.id), asked.account, lease["lease_id"], for_ms=LEASE_MS)
    return {"status": "approved", "reason": "ok", **lease}


def return_(counter: Counter, asked: Return) -> dict[str, Any]:
    """Reconcile and close: the larger of what was reported and what the runtime claims is spent.

    A lease that is over has nothing to return, but a claim above what was reported is charged to its agent.
    """
    lease = _lease_of(counter, asked.account, asked.lease_id)
    _cost(asked.spent_microdollars, "spent_microdollars")
    missing = asked.spent_microdollars - _spent(counter, lease)
    if missing > 0:
        _post(counter, lease, f"return:{asked.lease_id}", missing, "", "", 0)
        unexplained = counter.document("claim", str(lease.id), int) or 0
        counter.keep("claim", str(lease.id), asked.account, unexplained + missing)
    if lease.state != "live":
        raise ChargedAll(400, "LEASE_NOT_ACTIVE", "Lease is not active")
    left = max(_left(counter, lease), 0)
    counter.book.end_allocation(lease.id, "ended")
    return {"success": True, "returned": left}


def _explain(counter: Counter, lease: AccountRow, microdollars: int) -> int:
    """How much of a report was charged already, when its lease was returned with more spent than was reported."""
    unexplained = counter.document("claim", str(lease.id), int) or 0
    explained = min(unexplained, microdollars)
    if explained:
        counter.keep("claim", str(lease.id), lease.parent or 0, unexplained - explained)
    return explained


def note(counter: Counter, asked: Event) -> dict[str, Any]:
    """Keep one event of an agent; the same one again changes nothing."""
    name = f"{asked.account}:{asked.event_id}"
    if counter.document("event", name, dict[str, Any]) is not None:
        return {"status": "duplicate"}
    counter.keep("event", name, asked.account, asked.body, for_ms=EVENTS_MS)
    return {"status": "accepted"}


def _wanted(requested: int | None, most: int) -> int:
    if requested is None:
        return TRANCHE
    if not 0 < requested <= most:
        raise Refused(400, "VALIDATION_ERROR", f"requested_budget is 1 to {most}, not {requested}", "requested_budget")
    return requested


def _cost(microdollars: int, field: str) -> None:
    if not 0 <= microdollars <= COST_MAX:
        raise Refused(400, "VALIDATION_ERROR", f"{field} is 0 to {COST_MAX}, not {microdollars}", field)


def _agent(counter: Counter, account: int) -> AccountRow:
    agent = counter.account(account)
    if agent.kind != "agent" or counter.standing(agent) != "live":
        raise Refused(403, "UNAUTHORIZED", "only an agent that is live leases money")
    return agent


def _lease(counter: Counter, agent: AccountRow, granted: int, provider: str) -> dict[str, Any]:
    token, digest = counter.token("lease")
    expires = counter.expires_ms(agent, counter.now_ms + LEASE_MS)
    row = counter.book.allocate(
        agent.id,
        granted,
        public_id=f"lease_{uuid.uuid4()}",
        kind="lease",
        name=agent.name,
        digest=digest,
        hint=token.hint,
        expires_ms=expires + GRACE_MS,
        models=agent.models,
        metadata={"provider": provider, "expires_ms": str(expires)},
        now_ms=counter.now_ms,
    )
    return {
        "ip_token": token.text,
        "lease_id": row.public_id,
        "budget_granted": granted,
        "budget_remaining": counter.available(agent),
        "expires_at": views.instant(expires),
    }


def _lease_of(counter: Counter, account: int, lease_id: str) -> AccountRow:
    row = counter.book.by_public(lease_id)
    if row is None or row.kind != "lease" or row.parent != account:
        raise Refused(404, "LEASE_NOT_FOUND", f"no lease is called {lease_id!r}", "lease_id")
    return row


def _post(
    counter: Counter, lease: AccountRow, request: str, microdollars: int, model: str, provider: str, tokens: int
) -> None:
    counter.book.post(
        lease.id, request, microdollars, model=model, lane=provider, usage=(tokens, 0, 0, 0, 0), now_ms=counter.now_ms
    )


def _state(counter: Counter, lease: AccountRow) -> str:
    if lease.state == "live" and counter.now_ms > int(lease.metadata["expires_ms"]):
        return "expired"
    return "expired" if lease.state == "ended" else lease.state


def _spent(counter: Counter, lease: AccountRow) -> int:
    [money] = counter.book.balances(lease.id, counter.now_ms)
    return money.used


def _left(counter: Counter, lease: AccountRow) -> int:
    [money] = counter.book.balances(lease.id, counter.now_ms)
    return money.remaining
