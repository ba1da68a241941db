"""The record of a decision: what was asked, what was known, what was decided, under an id that can be quoted."""

from __future__ import annotations

import base64
from typing import Any

from msgspec import Struct

from fastroute.domain import Descriptor, NoCandidate, Placement, Snapshot, Verdict
from fastroute.routing.descriptor import RouteRequest

ENTROPY_BYTES = 16


def decision_id(entropy: bytes) -> str:
    """`rd_` and 26 characters of lower-case base32; sixteen random bytes are handed in."""
    if len(entropy) != ENTROPY_BYTES:
        raise ValueError(f"a decision id takes {ENTROPY_BYTES} bytes, not {len(entropy)}")
    return "rd_" + base64.b32encode(entropy).decode().rstrip("=").lower()


class RecordedSnapshot(Struct, frozen=True):
    """The snapshot as far as it is kept; the price table never is, its version is enough."""

    snapshot_at: str | None
    degraded_lanes: tuple[str, ...]


class RecordedVerdict(Struct, frozen=True):
    """The outcome in one shape for both."""

    outcome: str
    model: str | None
    lane: str | None
    reasons: tuple[str, ...]
    candidates: tuple[Verdict, ...]


class DecisionRecord(Struct, frozen=True):
    """One decision, complete enough to be taken again; the bearer of a grant is never in it."""

    decision_id: str
    workflow_id: str | None
    step_id: str | None
    grant_id: str | None
    descriptor: Descriptor
    snapshot: RecordedSnapshot
    verdict: RecordedVerdict


def record(
    decision_id: str,
    request: RouteRequest,
    snapshot: Snapshot,
    outcome: Placement | NoCandidate,
    grant_id: str | None = None,
) -> DecisionRecord:
    """The record of an outcome of `place()`."""
    placed = isinstance(outcome, Placement)
    return DecisionRecord(
        decision_id=decision_id,
        workflow_id=request.workflow_id,
        step_id=request.step_id,
        grant_id=grant_id,
        descriptor=request.descriptor,
        snapshot=RecordedSnapshot(
            snapshot.snapshot_at, tuple(sorted(lane for lane, state in snapshot.lanes.items() if state != "ok"))
        ),
        verdict=RecordedVerdict(
            outcome="placed" if placed else "no_candidate",
            model=outcome.model if isinstance(outcome, Placement) else None,
            lane=outcome.lane if isinstance(outcome, Placement) else None,
            reasons=outcome.reasons,
            candidates=outcome.candidates,
        ),
    )


def answer(
    decision_id: str, request: RouteRequest, snapshot: Snapshot, outcome: Placement | NoCandidate
) -> dict[str, Any]:
    """The body of an answer of `POST /v1/route`, without its grant: minting is another room's act."""
    head: dict[str, Any] = {"decision_id": decision_id, "snapshot_at": snapshot.snapshot_at}
    ids = {"workflow_id": request.workflow_id, "step_id": request.step_id}
    if isinstance(outcome, NoCandidate):
        return {
            "verdict": "no_candidate",
            "reasons": outcome.reasons,
            "candidates": outcome.candidates,
            **ids,
            **head,
        }
    placement = {
        "id": outcome.id,
        "lane": outcome.lane,
        "model": outcome.model,
        "runtime": outcome.runtime,
        "cost_microdollars_max": outcome.cost_microdollars_max,
        "reasons": outcome.reasons,
        "candidates": outcome.candidates,
    }
    return {"verdict": "placement", "placement": placement, "grant": None, **ids, **head}
