"""The one table of settings: name, type, default, bounds and help, and every way to fill it.

The file, the environment and the command line are three ways to fill it; `reference` renders it for readers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, get_args

from msgspec import Struct

from fastroute.config import values
from fastroute.config.model import Device, Listening, LogLevel, Ranker, Reserve
from fastroute.config.providers import KNOWN_PROVIDERS, base_url
from fastroute.config.secret import MASK
from fastroute.config.values import Given
from fastroute.domain import MICRODOLLARS_MAX, TOKENS_MAX
from fastroute.money import usd_from_microdollars

Kind = Literal[
    "int",
    "bool",
    "text",
    "name",
    "secret",
    "path",
    "choice",
    "thousandths",
    "usd_per_mtok",
    "names",
    "url",
    "redis_url",
]

_DAY_MS: Final = 86_400_000
_GIB: Final = 1 << 30


class Variable(Struct, frozen=True):
    """An environment variable, and what its number is multiplied by to reach the setting's unit."""

    name: str
    times: int = 1


class Setting(Struct, frozen=True):
    """One thing an operator may decide."""

    name: str  # section.word, as in the file
    kind: Kind
    default: Any  # as the file would say it; None is "no limit" or "not set"
    help: str
    env: tuple[Variable, ...] = ()
    flag: str | None = None
    low: int = 0
    high: int = 0
    choices: tuple[str, ...] = ()
    nullable: bool = False

    @property
    def secret(self) -> bool:
        return self.kind in ("secret", "redis_url")

    def read(self, given: Given, times: int = 1) -> object:
        """The value as the structs hold it; `Refused` says what is wrong with it."""
        if given.value is None and self.nullable:
            return None
        match self.kind:
            case "int":
                return values.whole(given, self.low, self.high, times)
            case "bool":
                return values.truth(given)
            case "text":
                return values.text(given)
            case "name":
                return values.name(given)
            case "secret":
                return values.secret(given)
            case "url":
                return base_url(given)
            case "redis_url":
                return values.redis_url(given)
            case "path":
                return values.path(given)
            case "choice":
                return values.choice(given, self.choices)
            case "thousandths":
                return values.thousandths(given, self.low, self.high)
            case "usd_per_mtok":
                return values.dollars_per_mtok(given)
            case "names":
                raise values.Refused(f"found {values.found(given.value, given.written)}, wanted a list of names")

    def show(self, value: Any) -> bool | int | str | list[str] | None:
        """The value as it may be printed."""
        if value is None:
            return None
        match self.kind:
            case "secret" | "redis_url":
                return MASK
            case "path":
                return str(value)
            case "names":
                return list(value)
            case "thousandths":
                whole, rest = divmod(value, 1000)
                digits = f"{rest:03d}"
                return f"{whole}.{digits[0]}{digits[1:].rstrip('0')}"
            case "usd_per_mtok":
                return usd_from_microdollars(value)
            case "int" | "bool" | "text" | "name" | "choice" | "url":
                shown: bool | int | str = value
                return shown


def _env(*names: str) -> tuple[Variable, ...]:
    return tuple(Variable(name) for name in names)


SETTINGS: Final[tuple[Setting, ...]] = (
    Setting("server.host", "name", "127.0.0.1", "address to listen on", _env("FASTROUTE_HOST"), "--host"),
    Setting(
        "server.port",
        "int",
        8000,
        "port to listen on; 0 takes a free one",
        _env("FASTROUTE_PORT"),
        "--port",
        high=65_535,
    ),
    Setting(
        "server.listener",
        "choice",
        "granian",
        "the HTTP server of a worker: Granian, or our own compiled one, which takes less CPU and memory",
        _env("FASTROUTE_LISTENER"),
        choices=get_args(Listening),
    ),
    Setting(
        "server.workers",
        "int",
        None,
        "worker processes; 0 or null is one for each core",
        _env("FASTROUTE_WORKERS"),
        "--workers",
        high=1024,
        nullable=True,
    ),
    Setting("server.backpressure", "int", 8192, "requests one worker holds at a time", low=1, high=1_000_000),
    Setting("server.drain_ms", "int", 60_000, "how long requests in flight may take to end at shutdown", high=_DAY_MS),
    Setting("server.body_limit_bytes", "int", 4 << 20, "longest request body that is read", low=1, high=_GIB),
    Setting(
        "state_dir",
        "path",
        "./data",
        "directory of the books, receipts, secrets and sockets",
        _env("FASTROUTE_STATE_DIR"),
        "--state-dir",
    ),
    Setting(
        "database",
        "path",
        None,
        "file of the registry; null is fastroute.db in the state directory",
        _env("SQLITE_DB_PATH"),
        nullable=True,
    ),
    Setting(
        "auth.admin_key",
        "secret",
        None,
        "key of /admin; without one these endpoints are closed",
        _env("FASTROUTE_ADMIN_KEY"),
        nullable=True,
    ),
    Setting(
        "auth.router_key",
        "secret",
        None,
        "one shared key for every caller; with no key at all only loopback is served",
        _env("ROUTER_API_KEY", "ROUTER_SHARED_SECRET"),
        nullable=True,
    ),
    Setting("relay.connect_ms", "int", 2000, "longest wait for a connection to a provider", low=1, high=_DAY_MS),
    Setting(
        "relay.first_chunk_ms",
        "int",
        10_000,
        "longest wait for the first piece of a streamed answer",
        low=1,
        high=_DAY_MS,
    ),
    Setting(
        "relay.whole_ms",
        "int",
        60_000,
        "longest wait for the first byte of an answer that is not streamed; the variable is in seconds",
        (Variable("ROUTER_CLIENT_TIMEOUT_S", 1000),),
        low=1,
        high=_DAY_MS,
    ),
    Setting("relay.idle_ms", "int", 30_000, "longest silence within an answer", low=1, high=_DAY_MS),
    Setting("relay.total_ms", "int", 600_000, "longest time for a whole answer", low=1, high=_DAY_MS),
    Setting("relay.max_attempts", "int", 3, "most attempts for one request", low=1, high=10),
    Setting("auto.ranker", "choice", "tiers", "how `auto` chooses among models", choices=get_args(Ranker)),
    Setting("auto.small", "name", "mistral-small-latest", "model of the small tier", _env("MODEL_SMALL")),
    Setting("auto.medium", "name", "mistral-medium-latest", "model of the medium tier", _env("MODEL_MEDIUM")),
    Setting(
        "auto.price_small_input",
        "usd_per_mtok",
        "0.1",
        "US dollars per million input tokens of the small tier; once set, it beats the price table",
        _env("PRICE_SMALL_INPUT"),
    ),
    Setting(
        "auto.price_small_output",
        "usd_per_mtok",
        "0.3",
        "US dollars per million output tokens of the small tier; once set, it beats the price table",
        _env("PRICE_SMALL_OUTPUT"),
    ),
    Setting(
        "auto.price_medium_input",
        "usd_per_mtok",
        "0.4",
        "US dollars per million input tokens of the medium tier; once set, it beats the price table",
        _env("PRICE_MEDIUM_INPUT"),
    ),
    Setting(
        "auto.price_medium_output",
        "usd_per_mtok",
        "2.0",
        "US dollars per million output tokens of the medium tier; once set, it beats the price table",
        _env("PRICE_MEDIUM_OUTPUT"),
    ),
    Setting(
        "auto.length_threshold",
        "int",
        120,
        "characters above which the medium tier answers",
        _env("ROUTER_LENGTH_THRESHOLD"),
        high=TOKENS_MAX,
    ),
    Setting(
        "auto.token_threshold",
        "int",
        150,
        "estimated tokens above which the medium tier answers",
        _env("ROUTER_TOKEN_THRESHOLD"),
        high=TOKENS_MAX,
    ),
    Setting(
        "auto.conversation_threshold",
        "int",
        6,
        "messages above which the medium tier answers",
        _env("ROUTER_CONVERSATION_THRESHOLD"),
        high=1_000_000,
    ),
    Setting(
        "auto.max_input_tokens",
        "int",
        None,
        "estimated input tokens above which a request is refused; null is no limit",
        _env("ROUTER_MAX_INPUT_TOKENS"),
        high=TOKENS_MAX,
        nullable=True,
    ),
    Setting(
        "auto.cost_weight",
        "thousandths",
        1,
        "weight of cost in the weighted ranker",
        _env("ROUTER_COST_WEIGHT"),
        high=1_000_000_000,
    ),
    Setting(
        "auto.latency_weight",
        "thousandths",
        1,
        "weight of latency in the weighted ranker",
        _env("ROUTER_LATENCY_WEIGHT"),
        high=1_000_000_000,
    ),
    Setting(
        "auto.cost_threshold",
        "int",
        1000,
        "prompt characters above which the weighted ranker stays local",
        _env("ROUTER_COST_THRESHOLD"),
        high=TOKENS_MAX,
    ),
    Setting(
        "auto.cost_threshold_microdollars",
        "int",
        None,
        "cost above which the weighted ranker stays local; null is no limit",
        _env("ROUTER_COST_THRESHOLD_MICRODOLLARS"),
        high=MICRODOLLARS_MAX,
        nullable=True,
    ),
    Setting("auto.targets", "names", (), "models the other rankers choose among; empty is the whole catalog"),
    Setting("health.threshold", "int", 3, "failures in a row that degrade a lane", low=1, high=1000),
    Setting("health.probe_after_ms", "int", 5000, "rest of a degraded lane before it is tried", low=1, high=_DAY_MS),
    Setting("pricing.allow_unpriced", "bool", False, "use models whose price is not known, at no charge"),
    Setting(
        "ledger.reserve",
        "choice",
        "strict",
        "what a prompt is held for: the most it can have in tokens, or a guess that a request may overrun",
        choices=get_args(Reserve),
    ),
    Setting(
        "limits.anonymous_requests",
        "int",
        None,
        "requests a caller without a key may make in a window, by its address; null is no limit",
        _env("RATE_LIMIT_REQUESTS"),
        high=1_000_000_000,
        nullable=True,
    ),
    Setting(
        "limits.window_s",
        "int",
        60,
        "seconds in the window of every limit of requests and tokens",
        _env("RATE_LIMIT_WINDOW"),
        low=1,
        high=86_400,
    ),
    Setting(
        "limits.trusted_proxies",
        "names",
        (),
        "addresses or networks of proxies whose X-Forwarded-For is believed",
    ),
    Setting(
        "cache.ttl_s",
        "int",
        0,
        "seconds an answer is kept for whoever asks the same again; 0 keeps none",
        _env("CACHE_TTL"),
        high=2_592_000,
    ),
    Setting(
        "cache.max_bytes",
        "int",
        64 << 20,
        "most memory that kept answers take in one worker",
        low=1 << 20,
        high=64 * _GIB,
    ),
    Setting(
        "cache.endpoint",
        "url",
        None,
        "address of a cache service that workers and hosts share; null is each worker's memory alone",
        _env("CACHE_ENDPOINT"),
        nullable=True,
    ),
    Setting(
        "cache.redis_url",
        "redis_url",
        None,
        "the same as a Redis or Valkey: `redis://`, `rediss://` or `unix://`; it needs `fastroute[redis]`",
        _env("CACHE_REDIS_URL"),
        nullable=True,
    ),
    Setting(
        "agents.stale_ms",
        "int",
        90_000,
        "an agent that was not heard of for so long is asked no more; three of its heartbeats",
        low=1,
        high=_DAY_MS,
    ),
    Setting(
        "agents.allowed",
        "names",
        (),
        "networks and hosts where agents may be, beside the address they announce themselves from",
    ),
    Setting("receipts.mirror", "bool", False, "write every receipt as a file of its own too, under receipts/"),
    Setting(
        "receipts.secret",
        "secret",
        None,
        "what receipts are signed with; without one a key is made in secrets/",
        _env("JWT_SECRET"),
        nullable=True,
    ),
    Setting(
        "weights.device",
        "choice",
        "cpu",
        "what runs the weights of this machine; auto is a GPU where there is one",
        _env("HF_DEVICE"),
        choices=get_args(Device),
    ),
    Setting("weights.cache_dir", "path", "data/hf_models", "directory of fetched repositories", _env("HF_CACHE_DIR")),
    Setting(
        "weights.hub_token",
        "secret",
        None,
        "token for repositories of the hub that want one",
        _env("HUGGING_FACE_HUB_TOKEN", "HF_TOKEN"),
        nullable=True,
    ),
    Setting("weights.download", "bool", False, "ask the hub for weights that are not on this machine"),
    Setting(
        "weights.threads",
        "int",
        None,
        "threads that compute an answer on a CPU; null is one fewer than the cores",
        low=1,
        high=1024,
        nullable=True,
    ),
    Setting("weights.parallel", "int", 1, "answers made at a time by one GGUF model", low=1, high=256),
    Setting(
        "weights.context",
        "int",
        4096,
        "tokens that a prompt and its answer may have together; memory is set aside for them",
        low=128,
        high=10_000_000,
    ),
    Setting(
        "log.level",
        "choice",
        "INFO",
        "least severity that is logged",
        _env("LOG_LEVEL"),
        choices=get_args(LogLevel),
    ),
    Setting("log.path", "path", "logs/router.log", "file of the log", _env("LOG_PATH")),
    Setting("policies_dir", "path", "policies", "directory of the policies"),
    Setting("demo", "bool", False, "offer the simulated providers", flag="--demo"),
    Setting("dummy", "bool", True, "offer the model `dummy`, which answers by itself"),
)

_TYPES: Final[dict[str, str]] = {
    "int": "whole number",
    "bool": "true or false",
    "name": "text",
    "path": "path",
    "thousandths": "decimal",
    "usd_per_mtok": "decimal",
    "names": "list of names",
    "url": "address",
    "redis_url": "secret address",
}


def reference() -> str:
    """The settings and the known providers as Markdown."""
    rows = [("Setting", "Type", "Default", "Environment", "Flag", "Meaning"), ("---",) * 6]
    for each in SETTINGS:
        kind = " \\| ".join(each.choices) or _TYPES.get(each.kind, each.kind)
        variables = [variable.name for variable in each.env]
        rows.append((f"`{each.name}`", kind, _default(each), _code(variables), _code([each.flag or ""]), each.help))
    known = [("Provider", "Dialect", "Base URL", "Variable of the URL", "Variables of the key, the first set wins")]
    known.append(("---",) * 5)
    known.extend(
        (f"`{one.name}`", one.dialect, one.base_url or "", _code(one.base_env), _code(one.key_env))
        for one in KNOWN_PROVIDERS.values()
    )
    return "\n".join([*map(_row, rows), "", *map(_row, known), ""])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _code(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names if name)


def _default(setting: Setting) -> str:
    if setting.default is None:
        return "null"
    if setting.kind == "names":
        return "`[]`"
    return f"`{str(setting.default).lower() if setting.kind == 'bool' else setting.default}`"
