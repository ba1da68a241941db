"""The configuration as frozen structs: what every room above is handed, checked whole and never changed.

Field names are the words of the settings table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from msgspec import Struct

from fastroute.config.providers import KNOWN_PROVIDERS, Dialect, Known
from fastroute.config.secret import Secret
from fastroute.domain import ModelKind, Price, Runtime

Ranker = Literal["tiers", "cheapest", "weighted", "ordered"]
Reserve = Literal["strict", "estimate"]
Listening = Literal["granian", "compiled"]
Device = Literal["cpu", "cuda", "auto"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


# Workers that are told to stop are killed so long after their drain.
KILL_AFTER_DRAIN_S: Final = 5.0


class Server(Struct, frozen=True):
    """Where and how the workers listen."""

    host: str
    port: int
    listener: Listening
    workers: int
    backpressure: int
    drain_ms: int
    body_limit_bytes: int


class Auth(Struct, frozen=True):
    """The keys that stand in the configuration; all others are in the books."""

    admin_key: Secret | None
    router_key: Secret | None


class Relay(Struct, frozen=True):
    """How long an attempt may take, and how many there may be."""

    connect_ms: int
    first_chunk_ms: int
    whole_ms: int
    idle_ms: int
    total_ms: int
    max_attempts: int


class Auto(Struct, frozen=True):
    """The rules behind `model: auto`."""

    ranker: Ranker
    small: str
    medium: str
    small_price: Price  # set by somebody: the price; else where no entry and no table has one
    medium_price: Price
    length_threshold: int
    token_threshold: int
    conversation_threshold: int
    max_input_tokens: int | None
    cost_weight: int  # thousandths
    latency_weight: int  # thousandths
    cost_threshold: int  # characters
    cost_threshold_microdollars: int | None
    targets: tuple[str, ...]  # empty is the whole catalog


class Health(Struct, frozen=True):
    """When a lane counts as degraded, and when it is tried again."""

    threshold: int
    probe_after_ms: int


class Pricing(Struct, frozen=True):
    """What is done with a model nobody knows the price of."""

    allow_unpriced: bool


class Ledger(Struct, frozen=True):
    """How much is held for a request before it is sent."""

    reserve: Reserve


class Limits(Struct, frozen=True):
    """How often callers may ask; what keys may is in the books."""

    anonymous_requests: int | None
    window_s: int
    trusted_proxies: tuple[str, ...]


class Cache(Struct, frozen=True):
    """How long answers are kept to be told again, and where beside a worker's own memory."""

    ttl_s: int  # 0 keeps none
    max_bytes: int
    endpoint: str | None
    redis_url: Secret | None


class Agents(Struct, frozen=True):
    """Who may announce models of its own, and for how long it is believed."""

    stale_ms: int
    allowed: tuple[str, ...]


class Receipts(Struct, frozen=True):
    """How receipts are signed, and whether they are files too."""

    mirror: bool
    secret: Secret | None


class Weights(Struct, frozen=True):
    """How the weights that this machine runs itself are run."""

    device: Device
    cache_dir: Path
    hub_token: Secret | None
    download: bool
    threads: int | None
    parallel: int
    context: int


class Log(Struct, frozen=True):
    """What is logged, and where."""

    level: LogLevel
    path: Path


class Provider(Struct, frozen=True):
    """An upstream that can be asked."""

    name: str
    display: str
    dialect: Dialect
    base_url: str | None  # None only for the dialects that answer by themselves
    api_key: Secret | None
    base_url_source: str
    api_key_source: str | None


class ModelConfig(Struct, frozen=True):
    """One entry of `models:`."""

    id: str
    model: str  # `provider:model`, or a bare name whose family tells the provider
    lane: str | None  # None is the provider's name
    runtime: Runtime | None  # None is what the provider is
    kind: ModelKind
    capabilities: tuple[str, ...] | None  # None is what the family of the name tells; empty is none at all
    price: Price | None
    context_window: int | None
    max_output: int | None
    p50_latency_ms: int | None
    priority: int
    endpoint: str | None
    weights: str | None  # the address of weights that this machine runs itself
    source: str  # `fastroute.yaml:12`


class Effective(Struct, frozen=True):
    """One setting as it holds: the value as it may be shown, and where it came from."""

    name: str
    value: bool | int | str | list[str] | None
    source: str


class Config(Struct, frozen=True):
    """Everything that was said, by anybody, once and for all."""

    server: Server
    state_dir: Path
    database: Path | None
    auth: Auth
    relay: Relay
    auto: Auto
    health: Health
    pricing: Pricing
    ledger: Ledger
    limits: Limits
    cache: Cache
    agents: Agents
    receipts: Receipts
    weights: Weights
    log: Log
    policies_dir: Path
    demo: bool
    dummy: bool
    providers: dict[str, Provider]  # those that can be asked; `KNOWN_PROVIDERS` has the others
    models: tuple[ModelConfig, ...]
    aliases: dict[str, tuple[str, ...]]
    file: Path | None
    effective: tuple[Effective, ...]
    literal_secrets: tuple[str, ...]  # places in the file where a secret is written out

    @property
    def database_path(self) -> Path:
        """The file of the registry."""
        return self.database or self.state_dir / "fastroute.db"

    def secrets(self) -> list[str]:
        """Every secret of the configuration, for whoever has to keep them out of what is written."""
        own = (
            self.auth.admin_key,
            self.auth.router_key,
            self.receipts.secret,
            self.cache.redis_url,
            self.weights.hub_token,
        )
        given = [*own, *(each.api_key for each in self.providers.values())]
        return [secret.reveal() for secret in given if secret is not None]

    def unconfigured(self, name: str) -> Known | None:
        """The known provider of that name, when nobody configured it; its `refusal` is what a caller reads."""
        return None if name in self.providers else KNOWN_PROVIDERS.get(name)
