"""A policy as frozen structs: which models answer under a name, how fast, how dear, for whom, and what is kept of it.

The structs follow the sections of the file; `reading` fills them and `writing` turns them back into a file. What routes,
the relay and the books have to know of a policy is told by its properties, so that nobody reads it twice.
"""

from __future__ import annotations

from typing import Any, Final, Literal, get_args

from msgspec import Struct

from fastroute.domain import OUTCOMES, Outcome

Prefer = Literal["order", "cost", "latency"]
Pinned = Literal["stay", "failover"]
RetryWord = Literal[
    "5xx", "rate_limit", "connect", "connect_timeout", "stall", "low_quality", "cut", "protocol", "auth"
]
RETRY_WORDS: Final[tuple[str, ...]] = get_args(RetryWord)
# All but one are outcomes of attempts; which connections merely took too long only the fault tells.
assert set(RETRY_WORDS) - {"connect_timeout"} <= set(OUTCOMES)

# What a gateway in front of the provider would have answered with 502 or 504: a route that leaves on 5xx leaves on these.
_AS_5XX: Final = frozenset({"5xx", "connect", "cut", "protocol"})

# The judge that is no model: it looks at an answer's form alone.
STRUCTURE: Final = "structure"

CALL_TOKENS_MAX: Final = 2048
CALL_TOKENS: Final = 1024


class Objectives(Struct, frozen=True):
    """What is aimed at; None is no aim."""

    p95_latency_ms: int | None = None
    max_cost_microdollars: int | None = None
    max_tokens: int = CALL_TOKENS
    prefer: Prefer | None = None  # how the models rank: as they are written, or by price or latency; None: as they are
    # written, unless the caller's key prefers otherwise


class Parameters(Struct, frozen=True):
    """How a model is to answer; None is not said, and an empty `stop` says that nothing stops it."""

    temperature_thousandths: int | None = None
    top_p_thousandths: int | None = None
    stop: tuple[str, ...] | None = None
    json_mode: bool | None = None

    def over(self, other: Parameters) -> Parameters:
        """These, and the other's where these say nothing."""
        said = {name: getattr(self, name) for name in self.__struct_fields__}
        return Parameters(**{name: getattr(other, name) if value is None else value for name, value in said.items()})


class Routing(Struct, frozen=True):
    """Who may answer, and in which order; `params` is by the model's name as it is written here."""

    primary: tuple[str, ...]
    backups: tuple[str, ...] = ()
    p95_window_n: int = 50
    params: dict[str, Parameters] = {}


class Strategy(Struct, frozen=True):
    """How long is waited for a first chunk, and what happens then."""

    stream: bool = True
    retry_on: tuple[RetryWord, ...] = ("5xx",)
    fallback_on_latency_ms: int = 1500
    max_attempts: int = 3
    backoff_ms: tuple[int, ...] = (100, 300)
    first_chunk_gate_ms: int = 250
    escalate_after_fallbacks: int = 0


class Budgets(Struct, frozen=True):
    """What each user may spend: tokens on one civil day of the zone, requests in a minute. None is no limit, 0 closed."""

    daily_tokens: int | None = 20_000
    rpm: int | None = 30
    zone: str = "Asia/Kolkata"


class Capture(Struct, frozen=True):
    """Whether prompts are kept so that they can be replayed, and answers beside them, and for how long.

    Nothing is kept unless asked for.
    """

    prompts: bool = False
    retention_days: int = 30
    answers: bool = False


class Shadow(Struct, frozen=True):
    """Which model is asked again what users asked, in how many of a thousand cases; nobody reads its answer."""

    model: str
    share_thousandths: int = 1000


class Policy(Struct, frozen=True):
    """Everything said under one name."""

    name: str
    routing: Routing
    objectives: Objectives = Objectives()
    strategy: Strategy = Strategy()
    budgets: Budgets = Budgets()
    system: str | None = None
    gen: Parameters = Parameters()
    judge: str | None = None  # a model, or `STRUCTURE`; None is nobody
    pinned: Pinned = "stay"
    capture: Capture = Capture()
    shadow: Shadow | None = None
    version: int | None = None
    notes: str | None = None

    @property
    def models(self) -> tuple[str, ...]:
        """Everybody who may answer, in the order in which they are asked."""
        return (*self.routing.primary, *self.routing.backups)

    @property
    def target_p95_ms(self) -> int | None:
        """Above this the first model gives way to the fastest of the others; a ranked policy has no first model."""
        return self.objectives.p95_latency_ms if self.objectives.prefer in (None, "order") else None

    @property
    def max_tokens_of_call(self) -> int:
        """The most tokens one answer may have."""
        return min(self.objectives.max_tokens, CALL_TOKENS_MAX)

    def generation_for(self, model: str) -> dict[str, Any]:
        """The fields of a chat body that hold where the caller left them out.

        What the caller says comes first, then `routing.params` of the model, then `gen`; each field by itself. Whether a
        system message is put in front (`system`) is not among them, since it is no field of the body.
        """
        said = self.routing.params.get(model, Parameters()).over(self.gen)
        fields: dict[str, Any] = {}
        if said.temperature_thousandths is not None:
            fields["temperature"] = said.temperature_thousandths / 1000
        if said.top_p_thousandths is not None:
            fields["top_p"] = said.top_p_thousandths / 1000
        if said.stop:
            fields["stop"] = list(said.stop)
        if said.json_mode:
            fields["response_format"] = {"type": "json_object"}
        return fields

    def falls_over(self, outcome: Outcome, fault: str | None = None) -> bool:
        """Whether an attempt that ended so, before its first content, may be followed by one at the next model.

        A stall always may: its limit is a field of its own. `fault` is the connection's own word for what broke.
        """
        words = self.strategy.retry_on
        return (
            outcome == "stall"
            or outcome in words
            or ("5xx" in words and outcome in _AS_5XX)
            or ("connect_timeout" in words and fault == "connect_timeout")
        )

    def pause_ms(self, fallbacks: int) -> int:
        """How long to wait before the first, second ... fallback; the last figure holds for all that follow."""
        pauses = self.strategy.backoff_ms
        return pauses[min(fallbacks, len(pauses)) - 1] if pauses else 0

    def escalates(self, fallbacks: int) -> bool:
        """Whether so many fallbacks are worth telling somebody; a threshold of 0 is never."""
        return 0 < self.strategy.escalate_after_fallbacks <= fallbacks
