"""The structured sections of the file: providers, models with their prices, aliases."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Final, cast

from fastroute.config import places, values
from fastroute.config.document import Broken, Leaf, Node, Section, likely_key
from fastroute.config.model import ModelConfig, Provider
from fastroute.config.providers import DIALECTS, KNOWN_PROVIDERS, OFFLINE_DIALECTS, Dialect, Known, base_url
from fastroute.config.secret import Secret
from fastroute.config.values import Given, in_environment
from fastroute.config.walk import Walk
from fastroute.domain import (
    CAPABILITIES,
    MODEL_KINDS,
    RATE_MAX,
    RUNTIMES,
    TOKENS_MAX,
    ModelKind,
    Price,
    Rates,
    Runtime,
    Tier,
)

_PROVIDER_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PROVIDER_KEYS: Final = ("dialect", "base_url", "api_key")
_MODEL_KEYS: Final = (
    "id",
    "model",
    "lane",
    "runtime",
    "kind",
    "capabilities",
    "price",
    "context_window",
    "max_output",
    "p50_latency_ms",
    "priority",
    "endpoint",
    "weights",
)
_RATE_KEYS: Final = ("input", "output", "cache_read", "cache_write")
_UNITS: Final = ("microdollars_per_mtok", "usd_per_mtok")
_TIERS_MAX: Final = 4  # what a row of the compiled table holds
_NUMBER_MAX: Final = 1_000_000_000


def set_variable(environ: Mapping[str, str], names: tuple[str, ...]) -> Given | None:
    """The first of the variables that says something; an empty one is not set."""
    for name in names:
        text = environ.get(name, "")
        if text.strip():
            return Given(text, in_environment(name), text, textual=True, variable=name)
    return None


def source(given: Given) -> str:
    """Where a value came from, in words: `env NAME`, `file:line`, or `file:line (${NAME})`."""
    if given.place.line and given.variable:
        return f"{given.place} (${{{given.variable}}})"
    return str(given.place)


def providers(walk: Walk, section: Section, environ: Mapping[str, str]) -> tuple[dict[str, Provider], tuple[str, ...]]:
    """The providers that can be asked, those of the file first, and the places of secrets that are written out."""
    read: dict[str, Provider] = {}
    literal: list[str] = []
    for name, (line, node) in section.entries.items():
        if not _PROVIDER_NAME.fullmatch(name):
            walk.report(line, f"providers: {likely_key(name)} is no name of a provider; wanted letters, digits, . _ -")
            continue
        body = walk.section(node, f"providers.{name}")
        if body is None:
            continue
        walk.known_keys(body, _PROVIDER_KEYS, f"providers.{name}", {})
        provider = _provider(walk, name, line, body, environ, literal)
        if provider is not None:
            read[name] = provider
    for name, known in KNOWN_PROVIDERS.items():
        if name in section.entries:
            continue
        keyed, placed = set_variable(environ, known.key_env), set_variable(environ, known.base_env)
        if (keyed and known.base_url) or (known.by_url and placed):
            provider = _provider(walk, name, 0, Section(0, {}), environ, literal)
            if provider is not None:
                read[name] = provider
    return read, tuple(literal)


def _provider(
    walk: Walk, name: str, line: int, body: Section, environ: Mapping[str, str], literal: list[str]
) -> Provider | None:
    label = f"providers.{name}"
    known = KNOWN_PROVIDERS.get(name) or Known(name, name, None)
    dialect = walk.field(
        body, "dialect", label, lambda g: values.choice(g, DIALECTS), known.dialect if name in KNOWN_PROVIDERS else ""
    )
    if not dialect:
        if "dialect" not in body.entries:
            walk.report(line, f"{label}.dialect is missing; wanted one of {', '.join(DIALECTS)}")
        return None
    if dialect in OFFLINE_DIALECTS:
        for word in ("base_url", "api_key"):
            if word in body.entries:
                walk.report(
                    body.entries[word][0], f"{label}.{word}: the {dialect} dialect answers by itself; leave it out"
                )
        return Provider(name, known.display, cast("Dialect", dialect), None, None, "none", None)

    def address(given: Given) -> str:
        return base_url(given, known)

    url, url_source = known.base_url, "default"
    if (given := _given(walk, body, "base_url")) is not None:
        url, url_source = walk.attempt(given, f"{label}.base_url", address, url), source(given)
    if (given := set_variable(environ, known.base_env)) is not None:
        url, url_source = walk.attempt(given, f"{label}.base_url", address, url), source(given)
    if url is None:
        if body.silent("base_url"):
            walk.report(line, f"{label}.base_url is missing{_or_set(known.base_env)}")
        return None

    key: Secret | None = None
    key_source: str | None = None
    if (given := _given(walk, body, "api_key")) is not None:
        key, key_source = walk.attempt(given, f"{label}.api_key", values.secret, None), source(given)
        if given.literal:
            literal.append(str(given.place))
    if (given := set_variable(environ, known.key_env)) is not None:
        key, key_source = walk.attempt(given, f"{label}.api_key", values.secret, None), source(given)
    return Provider(name, known.display, cast("Dialect", dialect), url, key, url_source, key_source)


def _given(walk: Walk, body: Section, key: str) -> Given | None:
    """The entry, unless it is absent, null or already reported."""
    given = walk.given(body.entries[key][1]) if key in body.entries else None
    return None if given is None or given.value is None else given


def _or_set(variables: tuple[str, ...]) -> str:
    return f"; give it, or set {variables[0]}" if variables else "; wanted an http(s) address"


def models(walk: Walk, nodes: tuple[Node, ...], provider_names: frozenset[str]) -> tuple[ModelConfig, ...]:
    read: list[ModelConfig] = []
    lines: dict[str, int] = {}
    for index, node in enumerate(nodes):
        label = f"models[{index}]"
        body = walk.section(node, label)
        if body is None:
            continue
        walk.known_keys(body, _MODEL_KEYS, label, {})
        entry = _model(walk, body, label, provider_names)
        if entry is None:
            continue
        if entry.id in lines:
            walk.report(
                body.line, f"{label}.id: {values.shown(entry.id)} is the name of the model at line {lines[entry.id]}"
            )
        lines.setdefault(entry.id, body.line)
        read.append(entry)
    return tuple(read)


def _model(walk: Walk, body: Section, label: str, provider_names: frozenset[str]) -> ModelConfig | None:
    def number(key: str, low: int, high: int) -> int | None:
        return walk.field(body, key, label, lambda given: values.whole(given, low, high), None)

    entry_id = walk.field(body, "id", label, values.name, None)
    if body.silent("id"):
        walk.report(body.line, f"{label}.id is missing; it is the name callers use")
    model = walk.field(body, "model", label, values.name, None)
    if model is not None:
        provider, colon, rest = model.partition(":")
        if colon and (provider not in provider_names or not rest):
            near = difflib.get_close_matches(provider, provider_names, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"providers are {', '.join(sorted(provider_names))}"
            what = f"{values.shown(provider)} is no provider" if rest else f"{values.shown(model)} names no model"
            walk.report(body.entries["model"][0], f"{label}.model: {what}; wanted provider:model; {hint}")
    capabilities: list[str] | None = None
    if not body.silent("capabilities"):
        capabilities = []
        for place, each in enumerate(walk.items(body.entries["capabilities"][1], f"{label}.capabilities", "names")):
            word = walk.read(each, f"{label}.capabilities[{place}]", lambda g: values.choice(g, CAPABILITIES), None)
            if word is not None and word not in capabilities:
                capabilities.append(word)
    priority = walk.field(body, "priority", label, lambda given: values.whole(given, 0, _NUMBER_MAX), 100)
    runtime = walk.field(body, "runtime", label, lambda given: values.choice(given, RUNTIMES), None)
    kind = walk.field(body, "kind", label, lambda given: values.choice(given, MODEL_KINDS), "api")
    price = _price(walk, body.entries["price"][1], f"{label}.price") if "price" in body.entries else None
    lane = walk.field(body, "lane", label, values.name, None)
    endpoint = walk.field(body, "endpoint", label, base_url, None)
    weights = walk.field(body, "weights", label, _weights, None)
    if weights is not None:
        kind = "weight"
        for word in ("model", "endpoint", "kind", "runtime"):
            if not body.silent(word):
                walk.report(body.entries[word][0], f"{label}.{word}: weights say where the model is; leave this out")
    context_window, max_output = number("context_window", 1, TOKENS_MAX), number("max_output", 1, TOKENS_MAX)
    p50_latency_ms = number("p50_latency_ms", 0, _NUMBER_MAX)
    if entry_id is None:
        return None
    return ModelConfig(
        id=entry_id,
        model=model or (entry_id if weights is None else f"{places.engine(weights)}:{entry_id}"),
        lane=lane,
        runtime=cast("Runtime | None", runtime),
        kind=cast("ModelKind", kind),
        capabilities=None if capabilities is None else tuple(capabilities),
        price=price,
        context_window=context_window,
        max_output=max_output,
        p50_latency_ms=p50_latency_ms,
        priority=priority,
        endpoint=endpoint,
        weights=weights,
        source=str(walk.place(body.line)),
    )


def _weights(given: Given) -> str:
    try:
        return places.place(values.text(given, "a path or a repository"))
    except ValueError as error:
        raise values.Refused(str(error)) from None


def _price(walk: Walk, node: Node, label: str) -> Price | None:
    if isinstance(node, Leaf):
        if node.given.value is None:
            return None
        if node.given.value == "free":
            return Price(Rates(0, 0), source="free")
        what = values.found(node.given.value, node.given.written)
        walk.report(node.line, f"{label}: found {what}, wanted `free` or a section with input and output")
        return None
    body = walk.section(node, label)
    if body is None:
        return None
    walk.known_keys(body, ("unit", *_RATE_KEYS, "tiers"), label, {})
    unit = walk.field(body, "unit", label, lambda given: values.choice(given, _UNITS), _UNITS[0])
    reader = values.dollars_per_mtok if unit == "usd_per_mtok" else _microdollars_per_mtok
    rates = _rates(walk, body, label, reader)
    tiers: list[Tier] = []
    if "tiers" in body.entries:
        line, tier_node = body.entries["tiers"]
        nodes = walk.items(tier_node, f"{label}.tiers", "sections")
        if len(nodes) > _TIERS_MAX:
            walk.report(line, f"{label}.tiers: found {len(nodes)}, wanted at most {_TIERS_MAX}")
        for index, each in enumerate(nodes):
            tier = _tier(walk, each, f"{label}.tiers[{index}]", reader)
            if tier is not None and tiers and tier.above_tokens <= tiers[-1].above_tokens:
                walk.report(each.line, f"{label}.tiers[{index}].above_tokens: wanted more than the tier before it")
            tiers.extend([tier] if tier is not None else [])
    return None if rates is None else Price(rates, tuple(tiers))


def _tier(walk: Walk, node: Node, label: str, reader: Callable[[Given], int]) -> Tier | None:
    body = walk.section(node, label)
    if body is None:
        return None
    walk.known_keys(body, ("above_tokens", *_RATE_KEYS), label, {})
    above = walk.field(body, "above_tokens", label, lambda given: values.whole(given, 0, TOKENS_MAX), None)
    if body.silent("above_tokens"):
        walk.report(body.line, f"{label}.above_tokens is missing")
    rates = _rates(walk, body, label, reader)
    return None if above is None or rates is None else Tier(above, rates)


def _rates(walk: Walk, body: Section, label: str, reader: Callable[[Given], int]) -> Rates | None:
    read = {key: walk.field(body, key, label, reader, None) for key in _RATE_KEYS}
    for key in ("input", "output"):
        if body.silent(key):
            walk.report(
                body.line, f"{label}.{key} is missing; an unknown price is left out whole, none at all is `price: free`"
            )
    if read["input"] is None or read["output"] is None:
        return None
    return Rates(read["input"], read["output"], read["cache_read"], read["cache_write"])


def _microdollars_per_mtok(given: Given) -> int:
    try:
        return values.whole(given, 0, RATE_MAX)
    except values.Refused as refusal:
        raise values.Refused(
            f"{refusal} (microdollars per million tokens; for dollars add unit: usd_per_mtok)"
        ) from None


def aliases(walk: Walk, section: Section, model_ids: frozenset[str]) -> dict[str, tuple[str, ...]]:
    read: dict[str, tuple[str, ...]] = {}
    for alias, (line, node) in section.entries.items():
        label = f"aliases.{alias}"
        walk.attempt(Given(alias, walk.place(line), alias), "aliases", values.name, None)
        if alias in model_ids:
            walk.report(line, f"{label}: a model has that name already")
        if isinstance(node, Broken):
            continue
        if isinstance(node, Leaf):
            target = walk.read(
                node, label, lambda given: values.name(given, "the name of a model or a list of them"), None
            )
            read[alias] = (target,) if target else ()
        else:
            read[alias] = walk.names(node, label)
            if not read[alias]:
                walk.report(line, f"{label}: wanted at least one name")
        if alias in read[alias]:
            walk.report(line, f"{label}: leads to itself")
    return read
