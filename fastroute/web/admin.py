"""The operator's doors, behind the admin key alone: keys, usage, receipts, and the house at a glance."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fastroute.clock import SystemClock
from fastroute.ledger.book import Refused
from fastroute.panel import wording
from fastroute.relay import Failed
from fastroute.web import desk
from fastroute.web.envelope import JSON

# Accounts that one answer lists; `after` asks for those that follow.
PAGE = 1000


def routes() -> list[Route]:
    return [
        Route("/admin/keys", _keys, methods=["GET", "POST"]),
        Route("/admin/keys/{id}", _key, methods=["GET", "PATCH", "DELETE"]),
        Route("/admin/keys/{id}/rotate", _rotate, methods=["POST"]),
        Route("/admin/grants/{id}", _grant, methods=["GET", "DELETE"]),
        Route("/admin/decisions/{id}", _decision),
        Route("/admin/usage/{id}", _usage),
        Route("/admin/overview", _overview),
        Route("/admin/receipts", _receipts),
        Route("/admin/receipts/{id}", _receipt),
        Route("/admin/receipts/{id}/corrections", _corrections, methods=["GET", "POST"]),
    ]


async def _keys(request: Request) -> Response:
    desk.administrator(request)
    if request.method == "POST":
        given = await desk.fields(request)
        return JSON(await desk.ask(request, "keys.create", **_worded(given)), 201)
    asked: dict[str, Any] = {"kinds": request.query_params.get("kinds", "key,agent,user").split(","), "limit": PAGE}
    asked |= {name: value for name, value in page(request).items() if name == "limit"}
    if "after" in request.query_params:
        asked["after"] = request.query_params["after"]
    if "live" in request.query_params:
        asked["live"] = request.query_params["live"] in ("1", "true")
    found = await desk.ask(request, "keys.list", **asked)
    return JSON({"data": found, "after": found[-1]["id"] if len(found) == asked["limit"] else None})


async def _key(request: Request) -> Response:
    desk.administrator(request)
    name = request.path_params["id"]
    if request.method == "DELETE":
        return JSON(await desk.ask(request, "keys.revoke", id=name))
    if request.method == "PATCH":
        return JSON(await desk.ask(request, "keys.change", id=name, changes=_worded(await desk.fields(request))))
    return JSON(await desk.ask(request, "keys.show", id=name))


async def _rotate(request: Request) -> Response:
    desk.administrator(request)
    given = await desk.fields(request)
    grace = given.pop("grace_s", 0)
    if given or type(grace) is not int:
        raise Failed(400, "invalid_request_error", "invalid_request", "wanted nothing but grace_s, a whole number")
    return JSON(await desk.ask(request, "keys.rotate", id=request.path_params["id"], grace_ms=grace * 1000))


async def _grant(request: Request) -> Response:
    desk.administrator(request)
    operation = "grants.revoke" if request.method == "DELETE" else "grants.show"
    return JSON(await desk.ask(request, operation, id=request.path_params["id"]))


async def _decision(request: Request) -> Response:
    desk.administrator(request)
    return JSON(await desk.ask(request, "decisions.show", id=request.path_params["id"]))


async def _usage(request: Request) -> Response:
    desk.administrator(request)
    return JSON(await desk.ask(request, "usage.show", id=request.path_params["id"], days=_days(request)))


async def _overview(request: Request) -> Response:
    desk.administrator(request)
    return JSON(await desk.ask(request, "usage.overview", days=_days(request)))


async def _receipts(request: Request) -> Response:
    desk.administrator(request)
    return receipts_page(await desk.ask(request, "receipts.list", **page(request)))


async def _receipt(request: Request) -> Response:
    desk.administrator(request)
    body = await desk.ask(request, "receipts.show", id=request.path_params["id"])
    return Response(body, media_type="application/json")


async def _corrections(request: Request) -> Response:
    desk.administrator(request)
    name = request.path_params["id"]
    if request.method == "GET":
        return JSON({"data": await desk.ask(request, "receipts.corrections", id=name)})
    given = await desk.fields(request)
    try:
        asked = wording.correction(given)
    except Refused as refused:
        raise _failed(refused) from None
    return JSON(await desk.ask(request, "receipts.correct", id=name, **asked))


def receipts_page(rows: list[dict[str, Any]]) -> JSON:
    """Receipts as they were signed, the latest first; `before` asks for those that follow."""
    data = [orjson.loads(row["body"]) for row in rows]
    return JSON({"data": data, "before": rows[-1]["seq"] if rows else None})


def page(request: Request) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ("limit", "before"):
        text = request.query_params.get(name)
        if text is not None:
            found[name] = _whole(name, text)
    return found


def _days(request: Request) -> int:
    return _whole("days", request.query_params.get("days", "31"))


def _whole(name: str, text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise Failed(400, "invalid_request_error", "invalid_request", f"{name} is a whole number", param=name)
    return int(text)


def _worded(given: dict[str, Any]) -> dict[str, Any]:
    try:
        return wording.key_fields(given, SystemClock().now())
    except Refused as refused:
        raise _failed(refused) from None


def _failed(refused: Refused) -> Failed:
    return Failed(refused.status, "invalid_request_error", refused.code, str(refused), param=refused.field or None)
