"""The strict reader of policy files: every field has bounds, every mistake has its line, and all are told at once.

The YAML is the configuration's, with its limits (one mebibyte, no aliases, anchors or tags). Unlike there, `${NAME}` is
plain text: a policy reads no environment, so that the same file means the same everywhere.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Final, TypeVar, cast, get_args
from zoneinfo import ZoneInfo, available_timezones

from msgspec import Struct

from fastroute.config import values
from fastroute.config.document import Items, Node, Section, read
from fastroute.config.values import Given, Mistakes, Place, Refused, found, shown
from fastroute.config.walk import Walk
from fastroute.domain import TOKENS_MAX
from fastroute.errors import ConfigError, MoneyError
from fastroute.money import microdollars_from_usd
from fastroute.policies.policy import (
    RETRY_WORDS,
    Budgets,
    Capture,
    Objectives,
    Parameters,
    Pinned,
    Policy,
    Prefer,
    RetryWord,
    Routing,
    Shadow,
    Strategy,
)

T = TypeVar("T")

_PARAMETERS: Final = ("temperature", "top_p", "stop", "json_mode")
_SECTIONS: Final[dict[str, tuple[str, ...]]] = {
    "objectives": ("p95_latency_ms", "max_cost_usd", "max_tokens", "prefer"),
    "routing": ("primary", "backups", "p95_window_n", "params"),
    "strategy": (
        "stream",
        "retry_on",
        "fallback_on_latency_ms",
        "max_attempts",
        "max_retries",
        "backoff_ms",
        "first_chunk_gate_ms",
        "escalate_after_fallbacks",
    ),
    "tenancy": ("per_user_daily_tokens", "per_user_rpm", "timezone"),
    "gen": ("system", *_PARAMETERS),
    "quality": ("judge",),
    "capture": ("prompts", "answers", "retention_days"),
    "shadow": ("model", "share"),
}
_TOP: Final = ("policy", "policy_version", "notes", "pinned", *_SECTIONS)
_ELSEWHERE: Final = {word: [f"{name}.{word}"] for name, words in _SECTIONS.items() for word in words}

MODELS_MAX: Final = 255  # what the core can rank
_DAY_MS: Final = 86_400_000
_PAUSE_MS_MAX: Final = 60_000
_NUMBER_MAX: Final = 1_000_000_000
_ATTEMPTS_MAX: Final = 10
_WINDOW_MAX: Final = 10_000
_DAYS_MAX: Final = 3650
_PROSE_MAX: Final = 100_000
_STOPS_MAX: Final = 16
# The route that chooses by itself; a policy of that name could never be asked for.
_RESERVED: Final = frozenset({"auto"})


class PolicyError(ConfigError):
    """A policy cannot be used; every mistake is told at once."""


class Found(Struct, frozen=True):
    """A policy and the place that names it."""

    policy: Policy
    place: Place


class _AsWritten(Mapping[str, str]):
    """An environment in which every variable stands for itself: `${NAME}` stays what it is."""

    def __getitem__(self, name: str) -> str:
        return f"${{{name}}}"

    def __contains__(self, name: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def read_policy(path: Path) -> Policy:
    """The policy in one file, or `PolicyError` with every mistake."""
    mistakes = Mistakes()
    read_in = policy_at(path, mistakes)
    if mistakes:
        raise PolicyError(mistakes.problems())
    assert read_in is not None
    return read_in.policy


def policy_at(path: Path, mistakes: Mistakes) -> Found | None:
    """The policy in one file; what is wrong is added to the mistakes of that file, and then it is not to be used."""
    document = read(path, _AsWritten(), mistakes)
    if mistakes and not document.entries:
        return None  # the file as a whole could not be read; that it names nothing is not worth telling as well
    walk = Walk(str(path), mistakes)
    walk.known_keys(document, _TOP, "", _ELSEWHERE)
    parts = {name: _section(walk, document, name, words) for name, words in _SECTIONS.items()}
    name = _top(walk, document, "policy", _name, None)
    if document.silent("policy"):
        walk.report(document.line, "policy is missing; it is the name callers use")
    routing = _routing(walk, parts["routing"], document, name)
    policy = Policy(
        name=name or "",
        routing=routing,
        objectives=_objectives(walk, parts["objectives"]),
        strategy=_strategy(walk, parts["strategy"]),
        budgets=_budgets(walk, parts["tenancy"]),
        system=walk.field(parts["gen"], "system", "gen", _prose, None),
        gen=_parameters(walk, parts["gen"], "gen"),
        judge=walk.field(parts["quality"], "judge", "quality", values.text, None),
        pinned=cast("Pinned", _top(walk, document, "pinned", lambda g: values.choice(g, get_args(Pinned)), "stay")),
        capture=_capture(walk, parts["capture"]),
        shadow=_shadow(walk, parts["shadow"], document),
        version=_top(walk, document, "policy_version", lambda g: values.whole(g, 1, _NUMBER_MAX), None),
        notes=_top(walk, document, "notes", _prose, None),
    )
    line = document.entries["policy"][0] if "policy" in document.entries else document.line
    return Found(policy, walk.place(line)) if name else None


def _top(walk: Walk, document: Section, key: str, reader: Callable[[Given], T], default: T | None) -> T | None:
    """One entry of the document itself; null is the same as leaving it out."""
    return default if document.silent(key) else walk.read(document.entries[key][1], key, reader, default)


def _section(walk: Walk, document: Section, key: str, words: tuple[str, ...]) -> Section:
    nothing = Section(document.line, {})
    if key not in document.entries:
        return nothing
    section = walk.section(document.entries[key][1], key) or nothing
    walk.known_keys(section, words, key, _ELSEWHERE)
    return section


def _name(given: Given) -> str:
    name = values.name(given, "the name callers use")
    if name in _RESERVED:
        raise Refused(f"found {shown(name)}, which is the name of the route that chooses; call it otherwise")
    return name


def _objectives(walk: Walk, section: Section) -> Objectives:
    label = "objectives"
    plain = Objectives()
    return Objectives(
        p95_latency_ms=walk.field(section, "p95_latency_ms", label, lambda g: values.whole(g, 1, _DAY_MS), None),
        max_cost_microdollars=walk.field(section, "max_cost_usd", label, _dollars, None),
        max_tokens=walk.field(section, "max_tokens", label, lambda g: values.whole(g, 1, TOKENS_MAX), plain.max_tokens),
        prefer=cast(
            "Prefer | None",
            walk.field(section, "prefer", label, lambda g: values.choice(g, get_args(Prefer)), plain.prefer),
        ),
    )


def _dollars(given: Given) -> int:
    """An amount in dollars as microdollars, exactly or not at all."""
    refused = Refused(
        f"found {found(given.value, given.written)}, wanted an amount in US dollars above 0 such as 0.010, "
        "with at most six decimals"
    )
    value = given.value
    if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
        raise refused
    try:
        # Decimal reads more as a number than people write, such as 1_0; what YAML found to be one is sound already.
        if isinstance(value, str) and not set(value) <= set("0123456789."):
            raise refused
        amount = Decimal(value)
        microdollars = microdollars_from_usd(amount)
    except (InvalidOperation, MoneyError):
        raise refused from None
    if not microdollars or Decimal(microdollars).scaleb(-6) != amount:
        raise refused
    return microdollars


def _routing(walk: Walk, section: Section, document: Section, name: str | None) -> Routing:
    label = "routing"
    primary = _models(walk, section, "primary")
    backups = _models(walk, section, "backups")
    line = document.entries[label][0] if label in document.entries else document.line
    if not primary and (section.silent("primary") or _is_empty(section, "primary")):
        walk.report(line, "routing.primary is missing; wanted a list of at least one model")
    both = [each for each in backups if each in primary]
    for each in both:
        walk.report(section.entries["backups"][0], f"routing.backups: {shown(each)} is in routing.primary already")
    models = (*primary, *backups)
    if len(models) > MODELS_MAX:
        walk.report(line, f"routing: found {len(models)} models, wanted at most {MODELS_MAX}")
    if name is not None and name in models:
        walk.report(line, f"routing: {shown(name)} is the policy itself; wanted models")
    window = walk.field(section, "p95_window_n", label, lambda g: values.whole(g, 1, _WINDOW_MAX), 50)
    return Routing(primary, backups, window, _params(walk, section, models))


def _is_empty(section: Section, key: str) -> bool:
    node = section.entries[key][1]
    return isinstance(node, Items) and not node.nodes


def _models(walk: Walk, section: Section, key: str) -> tuple[str, ...]:
    return walk.names(section.entries[key][1], f"routing.{key}") if key in section.entries else ()


def _params(walk: Walk, section: Section, models: tuple[str, ...]) -> dict[str, Parameters]:
    if "params" not in section.entries:
        return {}
    read_in: dict[str, Parameters] = {}
    by_model = walk.section(section.entries["params"][1], "routing.params") or Section(section.line, {})
    for model, (line, node) in by_model.entries.items():
        label = f"routing.params[{shown(model)}]"
        body = walk.section(node, label)
        if body is None:
            continue
        if models and model not in models:
            near = difflib.get_close_matches(model, models, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"the models are {', '.join(models)}"
            walk.report(line, f"{label}: no model of this policy has that name; {hint}")
        walk.known_keys(body, _PARAMETERS, label, {"system": ["gen.system"]})
        read_in[model] = _parameters(walk, body, label)
    return read_in


def _parameters(walk: Walk, section: Section, label: str) -> Parameters:
    stop: tuple[str, ...] | None = None
    if not section.silent("stop"):
        nodes = walk.items(section.entries["stop"][1], f"{label}.stop", "texts")
        if len(nodes) > _STOPS_MAX:
            walk.report(section.entries["stop"][0], f"{label}.stop: found {len(nodes)}, wanted at most {_STOPS_MAX}")
        stop = tuple(walk.read(each, f"{label}.stop[{place}]", _stop, "") for place, each in enumerate(nodes))
    return Parameters(
        temperature_thousandths=walk.field(
            section, "temperature", label, lambda g: values.thousandths(g, 0, 2000), None
        ),
        top_p_thousandths=walk.field(section, "top_p", label, lambda g: values.thousandths(g, 0, 1000), None),
        stop=stop,
        json_mode=walk.field(section, "json_mode", label, values.truth, None),
    )


def _strategy(walk: Walk, section: Section) -> Strategy:
    label, plain = "strategy", Strategy()

    def whole(key: str, low: int, high: int, default: int) -> int:
        return walk.field(section, key, label, lambda given: values.whole(given, low, high), default)

    attempts = whole("max_attempts", 1, _ATTEMPTS_MAX, plain.max_attempts)
    if "max_retries" in section.entries:
        if "max_attempts" in section.entries:
            lines = {key: section.entries[key][0] for key in ("max_attempts", "max_retries")}
            walk.report(
                lines["max_retries"],
                f"strategy.max_retries: is another word for max_attempts, which line {lines['max_attempts']} says; "
                "keep one of them",
            )
        attempts = whole("max_retries", 1, _ATTEMPTS_MAX, plain.max_attempts)
    return Strategy(
        stream=walk.field(section, "stream", label, values.truth, plain.stream),
        retry_on=_retry_on(walk, section, plain.retry_on),
        fallback_on_latency_ms=whole("fallback_on_latency_ms", 1, _DAY_MS, plain.fallback_on_latency_ms),
        max_attempts=attempts,
        backoff_ms=_backoff(walk, section, plain.backoff_ms),
        first_chunk_gate_ms=whole("first_chunk_gate_ms", 0, _DAY_MS, plain.first_chunk_gate_ms),
        escalate_after_fallbacks=whole("escalate_after_fallbacks", 0, _ATTEMPTS_MAX, plain.escalate_after_fallbacks),
    )


def _retry_on(walk: Walk, section: Section, default: tuple[RetryWord, ...]) -> tuple[RetryWord, ...]:
    """The words of the list; an empty one says that nothing but a stall makes an attempt elsewhere."""
    if section.silent("retry_on"):
        return default
    words: dict[RetryWord, None] = {}
    for place, node in enumerate(walk.items(section.entries["retry_on"][1], "strategy.retry_on", "words")):
        label = f"strategy.retry_on[{place}]"
        word = cast("RetryWord | None", walk.read(node, label, lambda g: values.choice(g, RETRY_WORDS), None))
        if word is None:
            continue
        if word in words:
            walk.report(node.line, f"{label}: {shown(word)} is in the list already")
        words[word] = None
    return tuple(words)


def _backoff(walk: Walk, section: Section, default: tuple[int, ...]) -> tuple[int, ...]:
    if section.silent("backoff_ms"):
        return default
    node: Node = section.entries["backoff_ms"][1]

    def pause(given: Given) -> int:
        return values.whole(given, 0, _PAUSE_MS_MAX)

    if not isinstance(node, Items):
        return (walk.read(node, "strategy.backoff_ms", pause, 0),)
    return tuple(walk.read(each, f"strategy.backoff_ms[{place}]", pause, 0) for place, each in enumerate(node.nodes))


def _budgets(walk: Walk, section: Section) -> Budgets:
    plain = Budgets()

    def limit(key: str, high: int, default: int | None) -> int | None:
        """Left out is the default, null no limit, 0 closed."""
        if key not in section.entries:
            return default
        return walk.field(section, key, "tenancy", lambda given: values.whole(given, 0, high), None)

    return Budgets(
        daily_tokens=limit("per_user_daily_tokens", TOKENS_MAX, plain.daily_tokens),
        rpm=limit("per_user_rpm", _NUMBER_MAX, plain.rpm),
        zone=walk.field(section, "timezone", "tenancy", _zone, plain.zone),
    )


def _zone(given: Given) -> str:
    zone = values.name(given, "a time zone such as Asia/Kolkata")
    try:
        ZoneInfo(zone)
    except (KeyError, ValueError, OSError):  # not there, no name of a zone, a directory of zones
        near = difflib.get_close_matches(zone, sorted(available_timezones()), 1)
        hint = f"did you mean {near[0]!r}?" if near else "wanted a name such as Asia/Kolkata or UTC"
        raise Refused(f"this machine knows no time zone {shown(zone)}; {hint}") from None
    return zone


def _capture(walk: Walk, section: Section) -> Capture:
    plain = Capture()
    prompts = walk.field(section, "prompts", "capture", values.truth, plain.prompts)
    answers = walk.field(section, "answers", "capture", values.truth, plain.answers)
    days = walk.field(
        section, "retention_days", "capture", lambda g: values.whole(g, 1, _DAYS_MAX), plain.retention_days
    )
    for key in ("answers", "retention_days"):
        if key in section.entries and ("prompts" not in section.entries or (key == "answers" and answers > prompts)):
            walk.report(
                section.entries[key][0],
                f"capture.{key}: nothing is kept without `prompts: true`; say it, or leave this out",
            )
    return Capture(prompts, days, answers)


def _shadow(walk: Walk, section: Section, document: Section) -> Shadow | None:
    model = walk.field(section, "model", "shadow", lambda g: values.name(g, "the model that is asked again"), None)
    share = walk.field(section, "share", "shadow", lambda g: values.thousandths(g, 0, 1000), 1000)
    if model is None:
        if section.entries and section.silent("model"):
            walk.report(document.entries["shadow"][0], "shadow.model is missing; it is the model that is asked again")
        return None
    return Shadow(model, share)


def _prose(given: Given) -> str:
    """Text of any number of lines, kept as it is written."""
    value = _text(given, "text", _PROSE_MAX)
    if not value.strip():
        raise Refused("found blanks alone, wanted text; or leave it out")
    return value


def _stop(given: Given) -> str:
    """What ends an answer; a lone newline may."""
    return _text(given, "text that ends an answer", 1000)


def _text(given: Given, what: str, longest: int) -> str:
    value = given.value
    if not isinstance(value, str):
        raise Refused(f"found {found(value, given.written)}, wanted {what} in quotes")
    if not 0 < len(value) <= longest:
        raise Refused(f"found text of {len(value)} characters, wanted 1 to {longest}")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise Refused("found half of a character (a lone surrogate), which nobody could be sent")
    return value
