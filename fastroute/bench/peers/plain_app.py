"""The application of the plain peer: `python -m fastroute.bench.peers.plain_app PORT PROVIDER_PORT`."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypedDict

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from fastroute.bench.constant import serve


class State(TypedDict):
    client: httpx.AsyncClient


def application(upstream: int) -> Starlette:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[State]:
        limits = httpx.Limits(max_connections=1000, max_keepalive_connections=500)
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{upstream}", limits=limits, timeout=60, trust_env=False
        ) as client:
            yield {"client": client}

    async def relay(request: Request) -> Response:
        client: httpx.AsyncClient = request.state.client
        body = await request.body()
        asked = client.build_request(
            "POST", request.url.path, content=body, headers={"content-type": "application/json"}
        )
        answer = await client.send(asked, stream=True)
        kind = answer.headers["content-type"]
        if kind.startswith("text/event-stream"):
            return StreamingResponse(answer.aiter_raw(), answer.status_code, media_type=kind)
        content = await answer.aread()
        return Response(content, answer.status_code, media_type=kind)

    return Starlette(routes=[Route("/{path:path}", relay, methods=["POST"])], lifespan=lifespan)


if __name__ == "__main__":
    serve(application(int(sys.argv[2])), int(sys.argv[1]))
