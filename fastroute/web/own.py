"""What a caller may see of its own: usage, receipts, grants and decisions. Another's are not there."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fastroute.web import admin, desk
from fastroute.web.envelope import JSON


def routes() -> list[Route]:
    return [
        Route("/v1/usage", _usage),
        Route("/v1/receipts", _receipts),
        Route("/v1/receipts/{id}", _receipt),
        Route("/v1/grants/{id}", _grant, methods=["GET", "DELETE"]),
        Route("/v1/decisions/{id}", _decision),
    ]


async def _usage(request: Request) -> Response:
    account = await desk.asker(request)
    return JSON(await desk.ask(request, "usage.show", account=account.id))


async def _receipts(request: Request) -> Response:
    account = await desk.asker(request)
    return admin.receipts_page(await desk.ask(request, "receipts.list", account=account.id, **admin.page(request)))


async def _receipt(request: Request) -> Response:
    account = await desk.asker(request)
    body = await desk.ask(request, "receipts.show", id=request.path_params["id"], account=account.id)
    return Response(body, media_type="application/json")


async def _grant(request: Request) -> Response:
    account = await desk.asker(request)
    operation = "grants.revoke" if request.method == "DELETE" else "grants.show"
    return JSON(await desk.ask(request, operation, id=request.path_params["id"], account=account.id))


async def _decision(request: Request) -> Response:
    account = await desk.asker(request, "key")
    return JSON(await desk.ask(request, "decisions.show", id=request.path_params["id"], account=account.id))
