"""What answers on an agent's port: the gateway's own data plane in front of one backend, and little beside it."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from fastroute.call import Call, Failed
from fastroute.callers import models as shapes
from fastroute.config import Config, load
from fastroute.domain import CAPABILITIES, Entry, ModelRef
from fastroute.gateway import SURFACES, Gateway
from fastroute.ledger.accounts import Account
from fastroute.ledger.unlimited import Unlimited
from fastroute.metrics import Metrics
from fastroute.relay import encoder_for
from fastroute.routing.directory import FREE, Directory
from fastroute.upstreams.pool import Pool
from fastroute.upstreams.upstream import Upstream
from fastroute.web import reading, telling
from fastroute.web.app import Application
from fastroute.web.data import DataPlane, Door
from fastroute.web.doorman import Doorman
from fastroute.web.envelope import JSON

BODY_MAX: Final = 64 << 20
# Whoever asks has deadlines of its own, and a long answer of a slow machine is not ours to cut.
_PATIENT_MS: Final = 3_600_000


def settings() -> Config:
    """An agent's configuration: the defaults, none of what files and the environment say of a gateway."""
    flags = dict.fromkeys(("first_chunk_ms", "whole_ms", "idle_ms", "total_ms"), _PATIENT_MS)
    named = {f"relay.{name}": value for name, value in flags.items()}
    more = {"relay.max_attempts": 1, "server.workers": 1, "server.body_limit_bytes": BODY_MAX, "dummy": False}
    config = load(Path("/dev/null"), {}, {**named, **more})
    return replace(config, auth=replace(config.auth, router_key=None))


def directory(models: Mapping[str, str]) -> Directory:
    """The models by the names they are offered under, each with the backend's own name for it."""
    entries = [
        Entry(
            id=name,
            ref=ModelRef("backend", inner),
            lane="backend",
            runtime="local",
            kind="weight",
            capabilities=CAPABILITIES,
            price=FREE,
        )
        for name, inner in models.items()
    ]
    return Directory(entries, {}, (), lambda ref: FREE)


class AgentGateway(Gateway):
    """A gateway with one upstream, which needs no provider's settings."""

    def configured(self, entry: Entry) -> bool:
        return True


class Gate(Doorman):
    """Lets everybody in, or, `closed`, only whoever shows the key that the router has agreed on."""

    def __init__(self, config: Config, metrics: Metrics, *, closed: bool) -> None:
        super().__init__(config, None, None, metrics)
        self.guards = closed
        self.key: str | None = None

    def meet(self, found: dict[bytes, bytes], query: bytes) -> Account | Unlimited | None:
        if self.guards:
            if self.key is None:
                message = "this agent has not met its router yet, and serves nobody else"
                raise Failed(503, "server_error", "not_registered", message, retry_after_s=1)
            given = reading.credential(found, b"")
            if given is None or not hmac.compare_digest(given.encode("latin-1"), self.key.encode()):
                raise Failed(401, "authentication_error", "invalid_api_key", "only this agent's router may ask here")
        return super().meet(found, query)

    def admit(self, call: Call, scope: Mapping[str, Any]) -> None:
        """No limit of rates: the router has them."""


class _Writer(telling.StreamWriter):
    """Tells nothing of its own at a stream's end: what a request took is the router's to say."""

    __slots__ = ()

    def comment(self, call: Call) -> bytes:
        return b""


class _Plane(DataPlane):
    def __init__(self, gateway: Gateway, gate: Gate) -> None:
        super().__init__(gateway, gate)
        chat = self.door(SURFACES["chat"])
        self.posts = {
            "/v1/chat/completions": chat,
            "/infer": chat,
            "/v1/completions": self.door(SURFACES["completions"]),
            "/v1/embeddings": self.door(SURFACES["embeddings"]),
        }

    def post(self, path: str) -> Door | None:
        return self.posts.get(path)

    def last_resort(self, path: str) -> Door | None:
        return None

    def writer(self, call: Call) -> _Writer:
        return _Writer(call, encoder_for(call), self.beats)


class AgentApp(Application):
    """One agent's application."""

    def __init__(self, models: Mapping[str, str], upstream: Upstream, pool: Pool, *, closed: bool) -> None:
        config, metrics = settings(), Metrics.in_memory()
        gateway = AgentGateway(config, directory(models), lambda entry: upstream, metrics)
        gateway.pool = pool
        super().__init__(gateway)
        self.gate = Gate(config, metrics, closed=closed)
        self.data = _Plane(gateway, self.gate)
        self.router.routes[:] = [
            Route("/", _root),
            Route("/healthz", _live),
            Route("/readyz", _ready),
            Route("/v1/models", _models),
        ]


async def _root(request: Request) -> Response:
    return JSON({"service": "fastroute agent", "openai_base_url": "/v1", "models": "/v1/models"})


async def _live(request: Request) -> Response:
    return PlainTextResponse("ok")


async def _ready(request: Request) -> Response:
    return PlainTextResponse("ready") if request.app.ready else PlainTextResponse("not ready", 503)


async def _models(request: Request) -> Response:
    await request.app.data.who(request.scope)
    return JSON(shapes.openai_list(list(request.app.gateway.listed())))
