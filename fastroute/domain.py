"""The words of fastroute: frozen facts that every room shares.

A fact is decoded once at the edge into one of these structs, compared by value, and never changed. This file
knows no room; only `_core`, `errors`, `money` and `clock` stand beside it.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

from msgspec import Struct

Capability = Literal["tools", "vision", "long_context", "json", "audio"]
CAPABILITIES: tuple[str, ...] = get_args(Capability)

Runtime = Literal["managed", "local"]
RUNTIMES: tuple[str, ...] = get_args(Runtime)

RuntimePreference = Literal["any", "managed", "local"]
RUNTIME_PREFERENCES: tuple[RuntimePreference, ...] = get_args(RuntimePreference)

LaneState = Literal["ok", "degraded", "stale"]

Exclusion = Literal["capability", "policy", "runtime", "health", "latency", "cost", "unpriced", "context"]
# The order is the order in which filters are tried; the first that fails is the reason. `_core` shares it.
EXCLUSIONS: tuple[Exclusion, ...] = get_args(Exclusion)

ModelKind = Literal["api", "weight"]
MODEL_KINDS: tuple[str, ...] = get_args(ModelKind)

# A token count, a rate and a budget have a width: four products of the first two sum to less than 2**63.
TOKENS_MAX = 1_000_000_000
RATE_MAX = 2_000_000_000
MICRODOLLARS_MAX = 9_000_000_000_000_000
# Of so many entries is kept what was made or seen of each: with fewer than a catalog has, asking for them in turn would
# never find it; without a bound, callers who invent names that stand for entries would fill the memory.
ENTRIES_MAX = 16_384
assert 4 * TOKENS_MAX * RATE_MAX < 2**63


class Rates(Struct, frozen=True):
    """Integer microdollars per million tokens, which is picodollars per token; no cache rate is the input rate."""

    input: int
    output: int
    cache_read: int | None = None
    cache_write: int | None = None


class Tier(Struct, frozen=True):
    """Rates for a whole request whose input, cached tokens included, is longer than `above_tokens`."""

    above_tokens: int
    rates: Rates


class Tariff(Rates, frozen=True):
    """The rates that one attempt was priced at, and where they are from: a version of the shipped table, or as `Price`."""

    source: str = ""


class Price(Struct, frozen=True):
    """What one model costs, and where the figure comes from: `config`, `table` (the shipped one) or `free`."""

    rates: Rates
    tiers: tuple[Tier, ...] = ()
    source: str = "config"

    def at(self, input_tokens: int) -> Rates:
        """The rates that hold for a request with so many input tokens in all."""
        rates = self.rates
        for tier in self.tiers:
            if input_tokens > tier.above_tokens:
                rates = tier.rates
        return rates


class Usage(Struct, frozen=True):
    """Tokens one attempt was billed for; `input` leaves out what was read from or written to a cache."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    reasoning: int = 0  # already inside `output`; told apart for the reader, never priced twice

    @property
    def input_total(self) -> int:
        return self.input + self.cache_read + self.cache_write


Basis = Literal["exact", "bounded", "presumed", "void"]

Outcome = Literal[
    "ok", "stall", "5xx", "rate_limit", "connect", "low_quality", "auth", "http_4xx", "cut", "protocol", "gone"
]
OUTCOMES: tuple[str, ...] = get_args(Outcome)


class Reservation(Struct, frozen=True):
    """Microdollars held on every account of the path before the first byte leaves; None when the price is not known."""

    microdollars: int | None


class Settlement(Struct, frozen=True):
    """The single act that closes a reservation, and what its amount rests on."""

    basis: Basis
    picodollars: int | None  # exact; None when the price is not known
    microdollars: int | None  # rounded up once
    usage: Usage
    tariff: Tariff | None = None  # that the usage was priced at, where the amount rests on it


class Attempt(Struct, frozen=True):
    """One try of one placement on one upstream."""

    entry_id: str
    lane: str
    model: str
    outcome: Outcome
    status: int | None
    reservation: Reservation
    settlement: Settlement
    ms: int


class ModelRef(Struct, frozen=True):
    """A model at a provider: what the upstream is asked for, and by whom."""

    provider: str
    model: str

    def __str__(self) -> str:
        return f"{self.provider}:{self.model}"


class Entry(Struct, frozen=True):
    """One routable target of the catalog."""

    id: str
    ref: ModelRef
    lane: str
    runtime: Runtime = "managed"
    kind: ModelKind = "api"
    capabilities: tuple[str, ...] = ()
    price: Price | None = None  # None is unknown, and refused unless the operator allows it; free is an explicit 0
    context_window: int | None = None
    max_output: int | None = None
    p50_latency_ms: int | None = None
    priority: int = 100
    endpoint: str | None = None  # a base URL of its own; None is the provider's


class ExpectedTokens(Struct, frozen=True, rename={"input": "in", "output": "out"}):
    """How many tokens a step expects to send and to receive."""

    input: int
    output: int


class Agent(Struct, frozen=True):
    """Who asks; it rides into the record and is never read by a decision."""

    digest: str
    name: str | None = None
    version: str | None = None


class Descriptor(Struct, frozen=True):
    """What a step needs; a ceiling or a tolerance of None is no limit, as inferred from a chat body that names none."""

    task_class: str
    budget_ceiling_microdollars: int | None
    latency_tolerance_ms: int | None
    expected_tokens: ExpectedTokens | None = None
    capabilities: tuple[str, ...] = ()
    runtime_preference: RuntimePreference = "any"
    agent: Agent | None = None
    max_outcome_iterations: int | None = None


class LatencyFact(Struct, frozen=True):
    """What the attempts of late say of one entry; None is not known."""

    p50_ms: int | None = None
    p95_ms: int | None = None
    samples: int = 0


class Snapshot(Struct, frozen=True):
    """The moving facts one decision is made with; with no inputs every lane is well and money has no limit."""

    lanes: dict[str, LaneState] = {}
    latency: dict[str, LatencyFact] = {}  # by entry id; overrides the catalog's own figure
    parent_remaining_microdollars: int | None = None
    snapshot_at: str | None = None


class Verdict(Struct, frozen=True, omit_defaults=True):
    """What became of one candidate: chosen, ranked behind, or excluded with the first filter that failed."""

    id: str
    verdict: Literal["chosen", "ranked", "excluded"]
    reason: Exclusion | None = None
    detail: Any = None


class Placement(Struct, frozen=True, tag_field="verdict", tag="placement"):
    """Where a request will run, and why every other candidate will not."""

    id: str
    lane: str
    model: str
    runtime: Runtime
    cost_microdollars_max: int | None  # None when the descriptor names no tokens or the operator allowed no price
    reasons: tuple[str, ...]
    candidates: tuple[Verdict, ...]
    order: tuple[str, ...]  # the viable entries, best first: what a failover would try


class NoCandidate(Struct, frozen=True, tag_field="verdict", tag="no_candidate"):
    """Nothing fits; the reasons are the exclusion classes in the order they were met."""

    reasons: tuple[str, ...]
    candidates: tuple[Verdict, ...]
