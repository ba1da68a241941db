"""`POST /v1/route`: where a step should run, and a grant of money to run it with.

Errors have the oracle's own shape, `{"error", "field", "message"}`; that nothing fits is an answer, not an error.
"""

from __future__ import annotations

import hashlib

from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as Path

from fastroute.clock import SystemClock, iso
from fastroute.domain import NoCandidate, Placement, Snapshot
from fastroute.errors import DescriptorError
from fastroute.relay import Failed
from fastroute.routing.descriptor import decode_route_request
from fastroute.routing.placement import CHEAPEST, Route, place
from fastroute.routing.record import answer, record
from fastroute.web import desk
from fastroute.web.envelope import JSON, refused

KEY_MAX = 255
# A descriptor is kept with its decision for a month.
DESCRIPTOR_MAX = 16 * 1024


def routes() -> list[Path]:
    return [
        Path("/v1/route", _route, methods=["POST"]),
        Path("/v1/route/explain", _explain, methods=["POST"]),
    ]


async def _explain(request: Request) -> Response:
    return await _answered(request, explain=True)


async def _route(request: Request) -> Response:
    return await _answered(request, explain=request.query_params.get("explain") in ("1", "true"))


async def _answered(request: Request, *, explain: bool) -> Response:
    try:
        return await _placed(request, explain=explain)
    except Failed as failed:
        body = {"error": failed.code or failed.kind, "field": failed.param, "message": failed.message}
        return refused(request, failed, body)


async def _placed(request: Request, *, explain: bool) -> Response:
    account = await desk.asker(request, "key")
    body = await desk.body_of(request, DESCRIPTOR_MAX)
    try:
        asked = decode_route_request(body)
    except DescriptorError as error:
        raise Failed(422, "invalid_request_error", error.kind, error.message, param=error.field) from None
    key = request.headers.get("idempotency-key")
    if key is not None and not 0 < len(key) <= KEY_MAX:
        raise Failed(
            400, "invalid_request_error", "invalid_request", f"an Idempotency-Key has 1 to {KEY_MAX} characters"
        )
    gateway = request.app.gateway
    ceiling = asked.descriptor.budget_ceiling_microdollars or 0
    left = await desk.ask(request, "grants.remaining", account=account.id, wanted=ceiling)
    snapshot = Snapshot(
        lanes=gateway.lanes(gateway.directory.catalog),
        latency=gateway.latency.facts(),
        parent_remaining_microdollars=left,
        snapshot_at=iso(SystemClock().now()),
    )
    route = Route("cheapest", CHEAPEST.ranker, allow_unpriced=gateway.config.pricing.allow_unpriced)
    if account.facts.models:
        route = replace(route, allowed_models=account.facts.models)
    outcome = place(asked.descriptor, gateway.directory.catalog, snapshot, route)
    decision = gateway.ids.decision()
    told = answer(decision, asked, snapshot, outcome)
    if explain:
        return JSON(desk.plain(told))
    result = await desk.ask(
        request,
        "grants.place",
        account=account.id,
        decision_id=decision,
        decision=desk.plain(record(decision, asked, snapshot, outcome)),
        answer=desk.plain(told),
        body_hash=hashlib.sha256(body).hexdigest(),
        key=key,
        **_wanted(outcome, asked.descriptor.budget_ceiling_microdollars),
    )
    return JSON(result, 402 if result.get("error") == "grant_failed" else 200)


def _wanted(outcome: Placement | NoCandidate, ceiling: int | None) -> dict[str, object]:
    """What a grant for the placement must and may have, and what it may be used for."""
    if isinstance(outcome, NoCandidate) or ceiling is None:
        return {}
    return {
        "ceiling": ceiling,
        "need": outcome.cost_microdollars_max or 0,
        "models": sorted({outcome.id, outcome.model, outcome.model.partition(":")[2]}),
    }
