"""Putting one worker together: configuration and registry in, a gateway with its upstreams out."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from msgspec.structs import replace

from fastroute.aside import Asides
from fastroute.beats import Beats
from fastroute.caching import caching
from fastroute.clock import SystemClock
from fastroute.config import KNOWN_PROVIDERS, Config, Provider
from fastroute.config.places import is_place
from fastroute.domain import Entry
from fastroute.errors import CatalogError, ConfigError, Problem
from fastroute.estimating import Estimating
from fastroute.fleet import Fleet
from fastroute.gateway import Gateway
from fastroute.ledger import secrets
from fastroute.ledger.agents import AgentRow, registered
from fastroute.ledger.teller import Teller
from fastroute.ledger.tokens import agent_key
from fastroute.limits import Limiter
from fastroute.logs import Logs
from fastroute.metrics import Metrics
from fastroute.policies import Policies, load_policies
from fastroute.routing.build import directory_of
from fastroute.routing.directory import Directory
from fastroute.ruling import add_policies, latency_window
from fastroute.upstreams.anthropic import Anthropic
from fastroute.upstreams.demo import DEMO_MODELS, DemoUpstream, demo_routes
from fastroute.upstreams.dialect import Dialect
from fastroute.upstreams.google import Google
from fastroute.upstreams.hosted import Hosted
from fastroute.upstreams.inprocess import DummyUpstream
from fastroute.upstreams.openai import OpenAI
from fastroute.upstreams.permits import NotPermitted, Permits
from fastroute.upstreams.pool import Pool
from fastroute.upstreams.upstream import Remote, Upstream
from fastroute.weights import Keepers, Source, spec_of

weights_log = logging.getLogger("fastroute.weights")

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
    keepers = Keepers(config.state_dir / "run" / "weights")
    upstreams = Upstreams(config, pool, agents_of(directory), keepers)
    gateway = _kind(config)(config, directory, upstreams.of, metrics, log)
    gateway.keepers = keepers
    gateway.pool, gateway.teller, gateway.limiter = pool, teller, limiter
    gateway.cache = caching(config, pool, SystemClock())
    gateway.fleet = fleet_of(config, directory, upstreams, Beats.open(beats_path(config)))
    if teller is not None:
        gateway.aside = Asides(teller, config.state_dir, metrics)
    gateway.latency.keep(latency_window(directory))
    return gateway


def renewed(before: Gateway, config: Config, directory: Directory) -> Gateway:
    """A gateway for another configuration or registry, which knows what the one before it has learned of lanes.

    Requests under way keep the gateway they began with; both connect through the same pool.
    """
    config = with_demo(config)
    pool, keepers = before.pool, before.keepers
    assert pool is not None
    assert before.fleet is not None
    upstreams = Upstreams(config, pool, agents_of(directory), keepers)
    gateway = _kind(config)(config, directory, upstreams.of, before.metrics, before.log)
    gateway.fleet = fleet_of(config, directory, upstreams, before.fleet.beats)
    gateway.keepers = keepers
    gateway.pool, gateway.teller, gateway.limiter = pool, before.teller, before.limiter
    gateway.cache = caching(config, pool, SystemClock(), before.cache)
    gateway.aside = before.aside
    before.health.threshold, before.health.probe_after_ms = config.health.threshold, config.health.probe_after_ms
    gateway.health = gateway.relay.health = before.health
    gateway.latency = gateway.relay.latency = before.latency
    gateway.latency.keep(latency_window(directory))
    gateway.relay.retries = before.relay.retries
    return gateway


def _kind(config: Config) -> type[Gateway]:
    return Estimating if config.ledger.reserve == "estimate" else Gateway


def directory_for(config: Config, policies: Policies | None = None) -> Directory:
    """Every name this configuration, its registry and its policies answer to; these are read unless somebody has."""
    try:
        Permits(config.agents.allowed)
    except NotPermitted as error:
        raise ConfigError([Problem("agents.allowed", str(error))]) from None
    directory = directory_without_policies(config)
    for model in config.models:
        refusal = None if model.weights is None else Source.of(model.weights).refusal()
        if refusal is not None:
            raise CatalogError(f"model {model.id!r}: {refusal}")
    add_policies(directory, load_policies(config.policies_dir) if policies is None else policies)
    return directory


def directory_without_policies(config: Config) -> Directory:
    """The names that come before those of policies."""
    found = registered(config.database_path)
    return directory_of(
        config,
        found.rows,
        agents=found.agents,
        once=found.once,
        built_in=DEMO_MODELS if config.demo else (),
        built_in_aliases=demo_routes() if config.demo else None,
    )


def with_demo(config: Config) -> Config:
    """With `--demo`, `auto` chooses between simulated models unless somebody chose others."""
    chosen = {setting.name: setting.source for setting in config.effective}
    if not config.demo or chosen["auto.small"] != "default" or chosen["auto.medium"] != "default":
        return config
    return replace(config, auto=replace(config.auto, small="demo-small", medium="demo-medium"))


def beats_path(config: Config) -> Path:
    """Where the agents' last beats are."""
    return config.state_dir / "run" / "agents"


def agents_of(directory: Directory) -> dict[str, AgentRow]:
    """The agents of a directory by their lanes."""
    return {offer.entry.lane: offer.agent for each in directory.offers.values() for offer in each}


def fleet_of(config: Config, directory: Directory, upstreams: Upstreams, beats: Beats) -> Fleet:
    """The agents of a directory, as far as they are heard."""
    return Fleet(directory.offers, beats, SystemClock(), config.agents.stale_ms, upstreams.busy)


class Upstreams:
    """Every upstream of one worker, made when an entry first asks for it; `agents` are known by their lanes.

    An agent is connected to where it may be, whatever its name resolves to by then, and is shown a key of its own.
    """

    def __init__(
        self, config: Config, pool: Pool, agents: Mapping[str, AgentRow] | None = None, keepers: Keepers | None = None
    ) -> None:
        self._config = config
        self.pool = pool
        self._agents = agents or {}
        self._permits = Permits(config.agents.allowed) if self._agents else None
        self._keepers = keepers or Keepers(config.state_dir / "run" / "weights")
        self._made: dict[tuple[str, str | None, str], Upstream] = {}

    def of(self, entry: Entry) -> Upstream:
        made = self._key(entry)
        upstream = self._made.get(made)
        if upstream is None:
            upstream = self._made[made] = self._make(entry)
        return upstream

    def busy(self, entry: Entry) -> int:
        """How many requests this worker has with an entry's upstream now."""
        upstream = self._made.get(self._key(entry))
        return self.pool.busy(upstream.origin) if isinstance(upstream, Remote) else 0

    def _key(self, entry: Entry) -> tuple[str, str | None, str]:
        return entry.ref.provider, entry.endpoint, entry.lane if entry.lane in self._agents else ""

    def _agent(self, agent: AgentRow) -> Remote:
        permits = self._permits
        assert permits is not None
        host = urlsplit(agent.endpoint).hostname or ""
        return Remote(
            "local",
            KNOWN_PROVIDERS["local"].display,
            OpenAI(chat_path="/infer"),
            agent.endpoint.rstrip("/").removesuffix("/v1"),
            agent_key(secrets.pepper(self._config.state_dir), agent.name, agent.endpoint) if agent.keyed else None,
            self.pool,
            permit=lambda address: permits.allows(address, host, agent.peer),
        )

    def _make(self, entry: Entry) -> Upstream:
        agent = self._agents.get(entry.lane)
        if agent is not None:
            return self._agent(agent)
        name = entry.ref.provider
        provider = self._config.providers.get(name)
        known = KNOWN_PROVIDERS.get(name)
        dialect_name = provider.dialect if provider else known.dialect if known else "openai"
        if name == "dummy" or dialect_name == "dummy":
            return DummyUpstream()
        if name == "demo" or dialect_name == "demo":
            return DemoUpstream()
        if entry.kind == "weight" and is_place(entry.endpoint):
            return self._hosted(entry)
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

    def _hosted(self, entry: Entry) -> Hosted:
        """Weights that this machine runs itself."""
        said = self._config.weights
        assert entry.endpoint is not None
        source = Source.of(entry.endpoint)
        token = said.hub_token.reveal() if said.hub_token is not None else None
        keeper = self._keepers.of(spec_of(source, said), token)
        return Hosted(entry.ref.provider, source.name, keeper, self.pool, partial(weights_log.error, "%s"))


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
