"""Putting one worker together: configuration and registry in, a gateway with its upstreams out."""

from __future__ import annotations

from msgspec.structs import replace

from fastroute.caching import caching
from fastroute.clock import SystemClock
from fastroute.config import KNOWN_PROVIDERS, Config, Provider
from fastroute.domain import Entry
from fastroute.errors import CatalogError
from fastroute.estimating import Estimating
from fastroute.gateway import Gateway
from fastroute.ledger.registry import registry_rows
from fastroute.ledger.teller import Teller
from fastroute.limits import Limiter
from fastroute.logs import Logs
from fastroute.metrics import Metrics
from fastroute.policies import load_policies
from fastroute.routing.build import directory_of
from fastroute.routing.directory import Directory
from fastroute.ruling import add_policies, latency_window
from fastroute.upstreams.anthropic import Anthropic
from fastroute.upstreams.demo import DEMO_MODELS, DemoUpstream, demo_routes
from fastroute.upstreams.dialect import Dialect
from fastroute.upstreams.google import Google
from fastroute.upstreams.inprocess import DummyUpstream
from fastroute.upstreams.openai import OpenAI
from fastroute.upstreams.pool import Pool
from fastroute.upstreams.upstream import Remote, Upstream

# Providers that answer /v1/responses themselves.
NATIVE_RESPONSES = frozenset({"openai"})


def assemble(
    config: Config, number: int, log: Logs | None = None, teller: Teller | None = None, limiter: Limiter | None = None
) -> Gateway:
    """The gateway of one worker; without a teller nobody's money is counted."""
    config = with_demo(config)
    directory = directory_for(config)
    pool = Pool()
    metrics = Metrics.open(config.state_dir / "run" / "metrics", number)
    if log is not None:
        log.on_drop = metrics.events_dropped.inc
    gateway = _kind(config)(config, directory, Upstreams(config, pool).of, metrics, log)
    gateway.pool, gateway.teller, gateway.limiter = pool, teller, limiter
    gateway.cache = caching(config, pool, SystemClock())
    gateway.latency.keep(latency_window(directory))
    return gateway


def renewed(before: Gateway, config: Config, directory: Directory) -> Gateway:
    """A gateway for another configuration or registry, which knows what the one before it has learned of lanes.

    Requests under way keep the gateway they began with; both connect through the same pool.
    """
    config = with_demo(config)
    pool = before.pool
    assert pool is not None
    gateway = _kind(config)(config, directory, Upstreams(config, pool).of, before.metrics, before.log)
    gateway.pool, gateway.teller, gateway.limiter = pool, before.teller, before.limiter
    gateway.cache = caching(config, pool, SystemClock(), before.cache)
    before.health.threshold, before.health.probe_after_ms = config.health.threshold, config.health.probe_after_ms
    gateway.health = gateway.relay.health = before.health
    gateway.latency = gateway.relay.latency = before.latency
    gateway.latency.keep(latency_window(directory))
    gateway.relay.retries = before.relay.retries
    return gateway


def _kind(config: Config) -> type[Gateway]:
    return Estimating if config.ledger.reserve == "estimate" else Gateway


def directory_for(config: Config) -> Directory:
    """Every name this configuration, its registry and its policies answer to."""
    directory = directory_without_policies(config)
    add_policies(directory, load_policies(config.policies_dir))
    return directory


def directory_without_policies(config: Config) -> Directory:
    """The names that come before those of policies."""
    return directory_of(
        config,
        registry_rows(config.database_path),
        built_in=DEMO_MODELS if config.demo else (),
        built_in_aliases=demo_routes() if config.demo else None,
    )


def with_demo(config: Config) -> Config:
    """With `--demo`, `auto` chooses between simulated models unless somebody chose others."""
    chosen = {setting.name: setting.source for setting in config.effective}
    if not config.demo or chosen["auto.small"] != "default" or chosen["auto.medium"] != "default":
        return config
    return replace(config, auto=replace(config.auto, small="demo-small", medium="demo-medium"))


class Upstreams:
    """Every upstream of one worker, made when an entry first asks for it."""

    def __init__(self, config: Config, pool: Pool) -> None:
        self._config = config
        self.pool = pool
        self._made: dict[tuple[str, str | None], Upstream] = {}

    def of(self, entry: Entry) -> Upstream:
        made = (entry.ref.provider, entry.endpoint)
        upstream = self._made.get(made)
        if upstream is None:
            upstream = self._made[made] = self._make(entry)
        return upstream

    def _make(self, entry: Entry) -> Upstream:
        name = entry.ref.provider
        provider = self._config.providers.get(name)
        known = KNOWN_PROVIDERS.get(name)
        dialect_name = provider.dialect if provider else known.dialect if known else "openai"
        if name == "dummy" or dialect_name == "dummy":
            return DummyUpstream()
        if name == "demo" or dialect_name == "demo":
            return DemoUpstream()
        base_url = entry.endpoint or (provider.base_url if provider else known.base_url if known else None)
        if base_url is None:
            raise CatalogError(f"entry {entry.id!r}: provider {name!r} has no address")
        return Remote(
            name,
            provider.display if provider else known.display if known else name,
            _dialect(name, dialect_name, provider, entry),
            base_url.rstrip("/").removesuffix("/v1"),
            provider.api_key.reveal() if provider and provider.api_key and entry.endpoint is None else None,
            self.pool,
            native_responses=name in NATIVE_RESPONSES,
        )


def _dialect(name: str, dialect: str, provider: Provider | None, entry: Entry) -> Dialect:
    if dialect == "anthropic":
        return Anthropic()
    if dialect == "google":
        return Google()
    # The registry's local agents have one endpoint of their own; a local server from the file speaks OpenAI's paths.
    from_file = provider is not None and ":" in provider.base_url_source
    if name == "local" and (entry.endpoint is not None or not from_file):
        return OpenAI(chat_path="/infer")
    return OpenAI()
