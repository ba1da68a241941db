"""The application: a Starlette app whose data plane is reached before the router, and whose other routes are a list."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from fastroute import __version__
from fastroute.assembly import assemble, renewed
from fastroute.callers import CALLERS
from fastroute.callers import models as shapes
from fastroute.config import Config
from fastroute.gateway import Gateway
from fastroute.ledger.accounts import Account
from fastroute.ledger.teller import BooksUnreachable, Declined, Teller
from fastroute.limits import Limiter
from fastroute.logs import Logs
from fastroute.metrics import CONTENT_TYPE
from fastroute.relay import Failed
from fastroute.routing.directory import Directory
from fastroute.watchdog import Watchdog
from fastroute.web import admin, agents, budget, own, placing, reading
from fastroute.web._front import Gate
from fastroute.web.data import DataPlane
from fastroute.web.envelope import JSON, caller_of, error

log = logging.getLogger("fastroute.web")

# Adding up takes the bookkeeper a microsecond for each account: it is asked no more often than this by one worker.
_MONEY_S: Final = 5.0
_MONEY_WAIT_S: Final = 1.0  # for its answer; a scrape is better whole but for this than late

# Where clients that add /v1 themselves post to.
_ANTHROPIC: Final = frozenset({"/v1/messages", "/v1/messages/count_tokens"})


class Application(Gate, Starlette):
    """One worker's application; `ready` is what a load balancer is told."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.data = DataPlane(gateway)
        self.watchdog: Watchdog | None = None
        self.ready = True
        self.look: Callable[[], None] = _nobody_looks  # has the registry looked at now: it has just been changed
        self.told_agents: dict[int, int] = {}  # when the books last heard from here of each agent
        self._money: Mapping[str, Mapping[str, int]] | None = None
        self._money_until = 0.0  # in the loop's time
        self._before: list[DataPlane] = []  # those that were replaced while requests of theirs were under way
        super().__init__(
            routes=[
                Route("/", _root),
                Route("/healthz", _live),
                Route("/health", _health),
                Route("/readyz", _ready),
                Route("/metrics", _metrics),
                Route("/v1/models", _models),
                Route("/v1beta/models", _models),
                Route("/openai/v1/models", _models),
                Route("/anthropic/v1/models", _models),
                Route("/v1/models/{id:path}", _model),
                Route("/v1beta/models/{id:path}", _model),
                *own.routes(),
                *placing.routes(),
                *budget.routes(),
                *admin.routes(),
                *agents.routes(),
            ],
            exception_handlers={HTTPException: _http_error, Failed: _failed, Exception: _own_fault},
        )
        self.router.redirect_slashes = False  # an answer for one path is none for another

    data: DataPlane

    def otherwise(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        if scope["type"] == "http":
            if b"%" in scope["raw_path"]:
                _as_spelled(scope)
            if scope["method"] == "POST":
                path = scope["path"]
                door = self.data.posts.get(path) or self.data.post(path)
                if door is None and not self._own(path):
                    door = self.data.last_resort(path)
                if door is not None:
                    return door(scope, receive, send)
            leaving = reading.Leaving(scope["headers"], receive, send)
            receive, send = leaving.receive, leaving.send
        return Starlette.__call__(self, scope, receive, send)

    def refused(self, code: str) -> None:
        """The server in front refused what was no request."""
        self.data.count(code)

    def _own(self, path: str) -> bool:
        """Whether a path has a route of ours, whatever its method."""
        return any(route.path_regex.match(path) for route in self.routes if isinstance(route, Route))

    def take(self, config: Config, directory: Directory) -> None:
        """Serve another configuration or registry from the next request on; those under way keep theirs."""
        self._before = [plane for plane in (*self._before, self.data) if plane.open]
        self.gateway = renewed(self.gateway, config, directory)
        self.data = DataPlane(self.gateway)

    async def money(self) -> Mapping[str, Mapping[str, int]] | None:
        """What the books have of money by kind of account and state, a few seconds old; None while nobody can be asked."""
        teller, now = self.gateway.teller, asyncio.get_running_loop().time()
        if teller is not None and now >= self._money_until:
            self._money_until = now + _MONEY_S  # of those who scrape together one asks
            try:
                async with asyncio.timeout(_MONEY_WAIT_S):
                    self._money = await teller.ask("usage.money")
            except (BooksUnreachable, Declined, TimeoutError):
                self._money = None
        return self._money

    @property
    def busy(self) -> int:
        return sum(len(plane.open) for plane in (*self._before, self.data))

    def cut(self) -> None:
        """End every answer that is under way."""
        for plane in (*self._before, self.data):
            plane.cut()

    def cut_ended(self, teller: Teller) -> None:
        """End the answers whose account was revoked or is over."""
        for plane in (*self._before, self.data):
            for call in tuple(plane.open):
                account = call.account
                if call.exchange is not None and isinstance(account, Account) and account.id and teller.ended(account):
                    call.ended = "the key of this request was revoked, or is over"
                    call.exchange.stop()

    @property
    def degraded(self) -> bool:
        """Whether the event loop stood still a short while ago."""
        return self.watchdog is not None and self.watchdog.degraded


def _nobody_looks() -> None:
    """Where no registry is watched."""


def _as_spelled(scope: Scope) -> None:
    """Only a model's name may be escaped: a slash that a proxy in front does not see as one shall not be one here."""
    fixed, models, _ = scope["raw_path"].partition(b"/models/")
    if b"%" in fixed or not models:
        scope["path"] = scope["raw_path"].decode("latin-1")


def _gateway(request: Request) -> Gateway:
    app: Application = request.app
    return app.gateway


async def _root(request: Request) -> Response:
    return JSON({"service": "fastroute", "version": __version__, "openai_base_url": "/v1", "models": "/v1/models"})


async def _live(request: Request) -> Response:
    return PlainTextResponse("degraded" if request.app.degraded else "ok")


async def _ready(request: Request) -> Response:
    return PlainTextResponse("ready") if request.app.ready else PlainTextResponse("not ready", 503)


async def _health(request: Request) -> Response:
    lanes = _gateway(request).health.snapshot()
    status = "degraded" if request.app.degraded or "degraded" in lanes.values() else "ok"
    told = {"status": status, "service": "fastroute", "version": __version__, "lanes": lanes}
    teller = _gateway(request).teller
    if teller is not None:
        told["books"] = "reached" if teller.connected else "away"
    return JSON(told)


async def _metrics(request: Request) -> Response:
    money = await request.app.money()
    text = await run_in_threadpool(_gateway(request).metrics.exposition, money)
    return Response(text, headers={"content-type": CONTENT_TYPE})


async def _models(request: Request) -> Response:
    account = await request.app.data.who(request.scope)
    entries = list(_gateway(request).listed(account.models))
    caller = caller_of(request.headers, request.scope["path"])
    if caller is CALLERS["messages"]:
        return JSON(shapes.anthropic_list(entries))
    return JSON(shapes.gemini_list(entries) if caller is not None else shapes.openai_list(entries))


async def _model(request: Request) -> Response:
    account = await request.app.data.who(request.scope)
    wanted = request.path_params["id"]
    entry = next((entry for entry in _gateway(request).listed(account.models) if entry.id == wanted), None)
    if entry is None:
        raise Failed(
            404, "invalid_request_error", "model_not_found", f"model {wanted!r} is not known here", param="model"
        )
    caller = caller_of(request.headers, request.scope["path"])
    if caller is CALLERS["messages"]:
        return JSON(shapes.anthropic_model(entry))
    return JSON(shapes.gemini_model(entry) if caller is not None else shapes.openai_model(entry))


async def _own_fault(request: Request, fault: Exception) -> Response:
    """A fault of ours, already in the server's hands to log: the asker learns no more than that."""
    log.error("%s %s met a fault of this gateway", request.method, request.scope["path"], exc_info=fault)
    message = "this gateway met a fault of its own; its log tells more"
    return error(request, Failed(500, "server_error", "internal_error", message))


async def _failed(request: Request, fault: Exception) -> Response:
    assert isinstance(fault, Failed)
    return error(request, fault)


async def _http_error(request: Request, fault: Exception) -> Response:
    """Errors of the router itself in the asker's envelope, with the base URL that was probably meant."""
    assert isinstance(fault, HTTPException)
    path = request.scope["path"]
    posted = path in request.app.data.posts
    if fault.status_code == 405 or (fault.status_code == 404 and posted):
        allowed = "POST" if posted else (fault.headers or {}).get("Allow", "")
        message = f"{request.method} is not answered at {path}, only {allowed}"
        return error(request, Failed(405, "invalid_request_error", "method_not_allowed", message), {"Allow": allowed})
    if fault.status_code != 404:
        return error(request, Failed(fault.status_code, "invalid_request_error", None, str(fault.detail)))
    message = f"nothing is served at {path}{_hint(path, request.app.data)}"
    return error(request, Failed(404, "invalid_request_error", "not_found", message))


def _hint(path: str, data: DataPlane) -> str:
    """Which base URL was probably meant."""
    if path.startswith("/v1/v1/"):
        wanted = "without /v1" if path.removeprefix("/v1") in _ANTHROPIC else "with a single /v1"
        return f"; set the base URL {wanted}"
    if f"/v1{path}" in data.posts or path == "/models" or path.startswith("/models/"):
        return "; the base URL of OpenAI's clients ends in /v1"
    return ""


def application(
    config: Config,
    number: int = 0,
    log: Logs | None = None,
    teller: Teller | None = None,
    limiter: Limiter | None = None,
) -> Application:
    """The application of one worker, with everything it stands on."""
    return Application(assemble(config, number, log, teller, limiter))
