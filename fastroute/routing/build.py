"""A directory from what the operator said: configuration, registry rows and the price table, as values."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Protocol

from msgspec.structs import replace

from fastroute.config import KNOWN_PROVIDERS, Config, ModelConfig
from fastroute.config.places import is_place
from fastroute.domain import Entry, ModelRef, Price
from fastroute.errors import CatalogError
from fastroute.routing import names
from fastroute.routing.directory import (
    AUTO,
    FREE,
    OWN_HARDWARE,
    Directory,
    Offer,
    PriceOf,
    WindowOf,
    entry_of_offer,
    entry_of_row,
    lane_of_weights,
)
from fastroute.routing.prices import PriceTable
from fastroute.routing.rankers import Cheapest, Ordered, Pinned, Ranker, Tiers, Weighted
from fastroute.routing.tiers import Thresholds


class Row(Protocol):
    """A registry row, wherever it is kept."""

    @property
    def name(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def endpoint(self) -> str: ...
    @property
    def kind(self) -> str: ...


class Agent(Protocol):
    """Who offers models, wherever that is kept."""

    @property
    def name(self) -> str: ...
    @property
    def endpoint(self) -> str: ...
    @property
    def models(self) -> tuple[str, ...]: ...


def directory_of(
    config: Config,
    rows: Iterable[Row] = (),
    prices: PriceTable | None = None,
    *,
    agents: Iterable[Agent] = (),
    once: Iterable[str] = (),
    built_in: Iterable[Entry] = (),
    built_in_aliases: Mapping[str, tuple[str, ...]] | None = None,
) -> Directory:
    """Everything this configuration and registry can route to. What the configuration names wins over a row of that name.

    What is built in (the simulated providers) stands behind both, and what agents offer behind all of it; `once` are
    names that agents offered some time.
    """
    prices = prices or PriceTable.load()
    price_of = _pricing(config, prices)

    def window_of(ref: ModelRef) -> int | None:
        seller = _seller(ref)
        return prices.context_window(seller.provider, seller.model)

    entries = [_entry_of_model(model, config, price_of, window_of) for model in config.models]
    taken = {AUTO, *(entry.id for entry in entries), *config.aliases}
    if any(entry.id == AUTO for entry in entries):
        raise CatalogError(
            f"a model has the id {AUTO!r}, which is the name of the route that chooses; call it otherwise"
        )
    for row in rows:
        if row.name not in taken:
            provider = config.providers.get(row.type)
            entries.append(
                entry_of_row(
                    row.name,
                    row.type,
                    row.endpoint,
                    row.kind == "weight",
                    price_of,
                    provider.base_url if provider else None,
                )
            )
    entries = _apart(entries)
    taken = {entry.id for entry in entries}
    entries += (entry for entry in built_in if entry.id not in taken)
    aliases = {**(built_in_aliases or {}), **_with_tier_names(config, {entry.id for entry in entries})}
    taken = {AUTO, *(entry.id for entry in entries), *aliases}
    offers: dict[str, tuple[Offer, ...]] = {name: () for name in once if name not in taken}
    for agent in agents:
        for model in agent.models:
            if model not in taken:
                offer = Offer(entry_of_offer(model, agent.name, agent.endpoint), agent)
                offers[model] = (*offers.get(model, ()), offer)
    known = {*KNOWN_PROVIDERS, *config.providers, *(entry.ref.provider for entry in built_in)}
    if config.dummy:
        known.add("dummy")
    directory = Directory(
        entries,
        aliases,
        known,
        price_of,
        window_of=window_of,
        fallback_provider="gateway" if "gateway" in config.providers else None,
        unconfigured=KNOWN_PROVIDERS.keys() - config.providers.keys() - set(OWN_HARDWARE),
        allow_unpriced=config.pricing.allow_unpriced,
        offers=offers,
    )
    _add_auto(directory, config)
    return directory


def _with_tier_names(config: Config, taken: set[str]) -> dict[str, tuple[str, ...]]:
    """The configured aliases, and `small` and `medium` for the tiers' models where those names are free."""
    aliases = dict(config.aliases)
    for name, model in (("small", config.auto.small), ("medium", config.auto.medium)):
        if name not in aliases and name not in taken and model != name:
            aliases[name] = (model,)
    return aliases


def _add_auto(directory: Directory, config: Config) -> None:
    auto = config.auto
    ranker: Ranker
    match auto.ranker:
        case "tiers":
            small, medium = (_single(directory, name) for name in (auto.small, auto.medium))
            thresholds = Thresholds(
                auto.length_threshold, auto.token_threshold, auto.conversation_threshold, auto.max_input_tokens
            )
            directory.add_route(AUTO, Tiers(small, medium, thresholds), (auto.small, auto.medium))
            return
        case "cheapest":
            ranker = Cheapest()
        case "weighted":
            ranker = Weighted(
                auto.cost_weight, auto.latency_weight, auto.cost_threshold, auto.cost_threshold_microdollars
            )
        case "ordered":
            targets = auto.targets or tuple(directory.catalog.position)
            ranker = Ordered(tuple(_single(directory, name) for name in targets))
    directory.add_route(AUTO, ranker, auto.targets)


def _single(directory: Directory, name: str) -> str:
    if directory.absent(name) is not None:
        return name
    ranker = directory.resolve(name).route.ranker
    if not isinstance(ranker, Pinned):
        raise CatalogError(f"auto names single models; {name!r} is a route of several")
    return ranker.entry_id


def _apart(entries: list[Entry]) -> list[Entry]:
    """Weights of one name that lie in several places are several processes: each has a lane, told apart by its place."""
    places: dict[str, set[str]] = {}
    for entry in entries:
        if _has_own_lane(entry):
            places.setdefault(entry.lane, set()).add(entry.endpoint or "")
    return [
        replace(entry, lane=f"{entry.lane}#{hashlib.sha256((entry.endpoint or '').encode()).hexdigest()[:6]}")
        if _has_own_lane(entry) and len(places[entry.lane]) > 1
        else entry
        for entry in entries
    ]


def _has_own_lane(entry: Entry) -> bool:
    place = entry.endpoint
    return place is not None and is_place(place) and entry.lane == lane_of_weights(entry.ref.provider, place)


def _pricing(config: Config, table: PriceTable) -> PriceOf:
    auto = config.auto
    said = {setting.name for setting in config.effective if setting.source != "default"}
    stated: dict[str, Price] = {}
    guessed: dict[str, Price] = {}
    for tier, model, price in (("small", auto.small, auto.small_price), ("medium", auto.medium, auto.medium_price)):
        # What an operator says of a tier's price is its price; what nobody said only fills a gap in the table.
        by_operator = said & {f"auto.price_{tier}_input", f"auto.price_{tier}_output"}
        (stated if by_operator else guessed)[model] = price

    def price_of(ref: ModelRef) -> Price | None:
        ref = _seller(ref)
        return stated.get(ref.model) or table.find(ref.provider, ref.model) or guessed.get(ref.model)

    return price_of


def _seller(ref: ModelRef) -> ModelRef:
    """Whose price list has it: a gateway in front of others sells under their names, `openai/gpt-4o-mini`."""
    maker, found, model = ref.model.partition("/")
    return ModelRef(maker, names.spelled_out(maker, model)) if found and ref.provider == "gateway" else ref


def _entry_of_model(model: ModelConfig, config: Config, price_of: PriceOf, window_of: WindowOf) -> Entry:
    known = {*KNOWN_PROVIDERS, *config.providers, "dummy"}
    ref = names.split(model.model, known) if model.weights is None else ModelRef(*model.model.split(":", 1))
    if ref is None:
        raise CatalogError(
            f"model {model.id!r}: {model.model!r} names no provider; write provider:model with one of "
            f"{', '.join(sorted(config.providers)) or 'your providers'}"
        )
    own = ref.provider in OWN_HARDWARE or model.weights is not None
    runtime = model.runtime or ("local" if own else "managed")
    return Entry(
        id=model.id,
        ref=ref,
        lane=model.lane or (ref.provider if model.weights is None else lane_of_weights(ref.provider, model.weights)),
        runtime=runtime,
        kind=model.kind,
        capabilities=names.capabilities_of(ref.model) if model.capabilities is None else model.capabilities,
        price=model.price or (FREE if own else price_of(ref)),
        context_window=window_of(ref) if model.context_window is None else model.context_window,
        max_output=model.max_output,
        p50_latency_ms=model.p50_latency_ms,
        priority=model.priority,
        endpoint=model.weights or model.endpoint,
    )
