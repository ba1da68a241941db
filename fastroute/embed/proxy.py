"""What answers on an embedded router's port: the gateway's own data plane, for one provider and one purse.

A key goes to its own provider and nowhere else: a model of the other one is refused here, whatever path names it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from fastroute.assembly import Upstreams
from fastroute.call import Call, Failed, Surface
from fastroute.config import KNOWN_PROVIDERS, Config, Provider, Secret, load
from fastroute.domain import Entry
from fastroute.embed.names import Names
from fastroute.embed.purse import Purse
from fastroute.estimating import Estimating
from fastroute.ledger.accounts import Account
from fastroute.ledger.unlimited import Unlimited
from fastroute.metrics import Metrics
from fastroute.routing.prices import PriceTable
from fastroute.upstreams._wire import Exchange
from fastroute.upstreams.anthropic import Anthropic
from fastroute.upstreams.faults import UpstreamFault
from fastroute.upstreams.openai import OpenAI
from fastroute.upstreams.pool import Deadlines, Origin, Pool, request_head
from fastroute.web.app import Application
from fastroute.web.data import DataPlane, Door
from fastroute.web.doorman import Doorman

BODY_MAX: Final = 10 << 20
UPSTREAM_MS: Final = 300_000
_CONNECT_MS: Final = 10_000
_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_LISTS: Final = ("/v1/models", "/openai/v1/models", "/anthropic/v1/models")
_LIST_MAX: Final = 4 << 20
_LIST_DEADLINES: Final = Deadlines(connect_ms=_CONNECT_MS, first_chunk_ms=30_000, idle_ms=30_000, total_ms=60_000)


class Target(Struct, frozen=True):
    """Whose key this router has, and where that provider is asked; no `base_url` is the provider's own address."""

    provider: str
    key: Secret
    base_url: str | None = None


def provider_of(key: str) -> str:
    """Whose key it is, by how it begins: Anthropic's say so, all others are OpenAI's or a compatible host's."""
    return "anthropic" if key.startswith("sk-ant-") else "openai"


def settings(token: Secret) -> Config:
    """An embedded router's configuration: the defaults, none of what files and the environment say."""
    config = load(
        Path("/dev/null"),
        {},
        {
            "server.host": "127.0.0.1",
            "server.workers": 1,
            "server.body_limit_bytes": BODY_MAX,
            "relay.connect_ms": _CONNECT_MS,
            "relay.first_chunk_ms": UPSTREAM_MS,
            "relay.whole_ms": UPSTREAM_MS,
            "relay.idle_ms": UPSTREAM_MS,
            "relay.total_ms": UPSTREAM_MS,
            "relay.max_attempts": 1,
            "ledger.reserve": "estimate",
            "dummy": False,
        },
    )
    return replace(config, auth=replace(config.auth, router_key=token))


class RouterGateway(Estimating):
    """A gateway with one provider; `note` is told of each request that is over."""

    note: Callable[[Call], None] | None = None

    def read(self, call: Call, body: bytes) -> int:
        super().read(call, body)
        surface = call.surface
        if isinstance(surface, _Prefixed) and call.model and not call.model.startswith(f"{surface.provider}:"):
            call.model = f"{surface.provider}:{call.model}"
        return 0

    def configured(self, entry: Entry) -> bool:
        return entry.ref.provider in self.config.providers

    def _check_configured(self, entry: Entry) -> None:
        if not self.configured(entry):
            own = next(iter(self.config.providers), "no provider")
            message = (
                f"this router has a key of {own}, and {entry.ref.model!r} is a model of {entry.ref.provider}: "
                "a key is not shown to anybody else"
            )
            raise Failed(400, "invalid_request_error", "provider_key_mismatch", message, param="model")

    def finished(self, call: Call) -> int:
        super().finished(call)
        if self.note is not None and call.attempts:
            self.note(call)
        return 0


class _Prefixed(Surface):
    """A door whose path names the provider, whatever the model's name would say."""

    __slots__ = ("provider",)

    def __init__(self, surface: Surface, provider: str) -> None:
        super().__init__(surface.name, surface.operation, surface.native, surface.caller)
        self.provider = provider


class Turnstile(Doorman):
    """Lets in who has the router's own key, while the router has money and a provider to spend it at."""

    def __init__(self, config: Config, metrics: Metrics, purse: Purse, obstacle: Callable[[], Failed | None]) -> None:
        super().__init__(config, None, None, metrics)
        self._purse = purse
        self._obstacle = obstacle

    def meet(self, found: dict[bytes, bytes], query: bytes) -> Account | Unlimited | None:
        super().meet(found, query)
        obstacle = self._obstacle()
        if obstacle is not None:
            raise obstacle
        return self._purse

    def admit(self, call: Call, scope: Mapping[str, Any]) -> None:
        """No limit of rates: who asks is the program itself."""


class _Plane(DataPlane):
    def __init__(self, gateway: RouterGateway, turnstile: Turnstile) -> None:
        super().__init__(gateway, turnstile)
        for path in self.posts:
            provider = path.split("/")[1]
            if provider in KNOWN_PROVIDERS:
                self.posts[path] = _prefixed(self.posts[path], provider, self)


def _prefixed(door: Door, provider: str, plane: DataPlane) -> Door:
    assert isinstance(door, partial)
    surface, serve, model, stream = door.args
    return plane.door(_Prefixed(surface, provider), serve, model=model, stream=stream)


class Proxy(Application):
    """One router's application."""

    def __init__(
        self,
        config: Config,
        pool: Pool,
        purse: Purse,
        obstacle: Callable[[], Failed | None],
        note: Callable[[Call], None] | None,
    ) -> None:
        self._config, self._pool, self._note = config, pool, note
        self._metrics = Metrics.in_memory()
        self._turnstile = Turnstile(config, self._metrics, purse, obstacle)
        gateway = self._gateway_for(None)
        super().__init__(gateway)
        self.data = _Plane(gateway, self._turnstile)
        self.router.routes[:] = [
            Route("/", _root, methods=_METHODS),
            *(Route(path, self._list) for path in _LISTS),
            *(Route(f"{path}/{{id:path}}", self._list) for path in _LISTS),
        ]

    def use(self, target: Target | None) -> None:
        """Ask this provider from the next request on; those under way keep the one they began with."""
        self._before = [plane for plane in (*self._before, self.data) if plane.open]
        self.gateway = gateway = self._gateway_for(target)
        self.data = _Plane(gateway, self._turnstile)

    def _gateway_for(self, target: Target | None) -> RouterGateway:
        config = self._config
        if target is not None:
            known = KNOWN_PROVIDERS[target.provider]
            config = replace(
                config,
                providers={
                    known.name: Provider(
                        known.name,
                        known.display,
                        known.dialect,
                        target.base_url or known.base_url,
                        target.key,
                        "argument",
                        "argument",
                    )
                },
            )
        names = Names(PriceTable.load(), elsewhere=target is not None and target.base_url is not None)
        gateway = RouterGateway(config, names, Upstreams(config, self._pool).of, self._metrics)
        gateway.pool = self._pool
        gateway.note = self._note
        return gateway

    async def _list(self, request: Request) -> Response:
        """The provider's own list of models, asked for with its key."""
        await self.data.who(request.scope)
        path = request.url.path
        named = path.split("/")[1]
        provider = next(iter(self.gateway.config.providers))
        if named in KNOWN_PROVIDERS and named != provider:
            message = f"this router has a key of {provider}: a key is not shown to anybody else"
            raise Failed(400, "invalid_request_error", "provider_key_mismatch", message)
        try:
            exchange = await _get(self._pool, self.gateway.config.providers[provider], path[path.index("/v1/models") :])
            body = await exchange.read(_LIST_MAX)
        except UpstreamFault as fault:
            message = f"the models of {provider} could not be listed ({fault.kind})"
            raise Failed(502, "server_error", "upstream_unreachable", message) from None
        return Response(body, exchange.status, media_type="application/json")


async def _get(pool: Pool, provider: Provider, path: str) -> Exchange:
    assert provider.base_url is not None
    assert provider.api_key is not None
    parts = urlsplit(provider.base_url)
    origin = Origin.of(provider.base_url)
    dialect = Anthropic() if provider.dialect == "anthropic" else OpenAI()
    headers = [(name.decode(), value.decode()) for name, value in dialect.headers(provider.api_key.reveal(), {})]
    head = request_head("GET", parts.path.rstrip("/") + path, parts.netloc, headers)
    return await pool.exchange(origin, head, b"", _LIST_DEADLINES)


async def _root(request: Request) -> Response:
    return PlainTextResponse("LlmRouter OK")
