"""What a model costs: the shipped price table, and the arithmetic from a usage to money.

The table is made offline by `price_build`; here it is only read. The sums themselves are `_core`'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import msgspec
from msgspec import Struct

from fastroute import _core
from fastroute.domain import Price, Rates, Tariff, Tier, Usage

# The seeds call Groq `grok`; xAI, whose models bear that name, is `x-ai` in the table.
_ALSO_KNOWN_AS = {"grok": "groq"}

_Row = tuple[int, int, int | None, int | None]  # input, output, cache_read, cache_write


class _Model(Struct, frozen=True):
    """One line of the table; without rates it only keeps a shorter prefix from pricing what is not text."""

    rates: _Row | None = None
    tiers: tuple[tuple[int, _Row], ...] = ()  # above so many input tokens
    window: int | None = None
    names: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()

    def price(self) -> Price | None:
        if self.rates is None:
            return None
        tiers = tuple(Tier(above, Rates(*row)) for above, row in self.tiers)
        return Price(Rates(*self.rates), tiers, source="table")


class _Provider(Struct, frozen=True):
    models: dict[str, _Model]
    fallbacks: tuple[str, ...] = ()  # whose models this provider sells at their price


class _Head(Struct, frozen=True):
    source: str
    version: str
    date: str
    licence: str
    unit: str
    columns: tuple[str, ...]


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    head: _Head
    providers: dict[str, _Provider]


class _Names:
    """One provider's models by exact name and by prefix."""

    def __init__(self, models: dict[str, _Model]) -> None:
        self.exact: dict[str, _Model] = {}
        self.prefixes: dict[str, _Model] = {}
        for model_id, model in models.items():
            self.exact[model_id] = model
            for name in model.names:
                self.exact[name] = model
            for prefix in model.prefixes:
                self.prefixes[prefix] = model
        self._lengths = sorted({len(prefix) for prefix in self.prefixes}, reverse=True)

    def find(self, name: str) -> _Model | None:
        found = self.exact.get(name)
        if found is not None:
            return found
        return next((self.prefixes[name[:n]] for n in self._lengths if name[:n] in self.prefixes), None)


class PriceTable:
    """Prices and context windows by provider and model, as of one day; it never changes."""

    def __init__(self, data: bytes) -> None:
        """The table in `data`, as `price_build` writes it; `msgspec.ValidationError` when it is of another shape."""
        file = msgspec.json.decode(data, type=_File)
        self._providers = file.providers
        self._names: dict[str, _Names] = {}
        self.version = f"{file.head.source} {file.head.version} {file.head.date}"

    @staticmethod
    def load() -> PriceTable:
        """The table shipped with the package, read at the first call."""
        return _shipped()

    def __len__(self) -> int:
        return sum(
            model.rates is not None for provider in self._providers.values() for model in provider.models.values()
        )

    def __repr__(self) -> str:
        return f"PriceTable({self.version!r}, {len(self)} models)"

    def find(self, provider: str, model: str) -> Price | None:
        """The price of what `provider` calls `model`: by exact name, then by the longest prefix; None is unknown."""
        found = self._find(provider, model)
        return found.price() if found else None

    def context_window(self, provider: str, model: str) -> int | None:
        """How many tokens the model takes in, when the source says."""
        found = self._find(provider, model)
        return found.window if found else None

    def providers(self) -> tuple[str, ...]:
        """Whose prices are known, under the source's names."""
        return tuple(self._providers)

    def models(self, provider: str) -> Iterator[tuple[str, Price]]:
        """Every priced model of a provider under its own id."""
        known = self._providers.get(_ALSO_KNOWN_AS.get(provider, provider))
        for model_id, model in known.models.items() if known else ():
            price = model.price()
            if price is not None:
                yield model_id, price

    def _find(self, provider: str, model: str) -> _Model | None:
        provider = _ALSO_KNOWN_AS.get(provider, provider)
        known = self._providers.get(provider)
        if known is None:
            return None
        name = model.lower()
        for seller in (provider, *known.fallbacks):
            found = self._index(seller).find(name)
            if found is not None:
                return found
        return None

    def _index(self, provider: str) -> _Names:
        # Made per provider and on demand: a gateway asks for a few of nearly fifty.
        names = self._names.get(provider)
        if names is None:
            names = self._names[provider] = _Names(self._providers[provider].models)
        return names


@cache
def _shipped() -> PriceTable:
    return PriceTable(Path(__file__).with_name("price_table.json").read_bytes())


def price(usage: Usage, price: Price) -> int:
    """The exact picodollars of a usage; a cache rate that is not known is the input rate."""
    return _picodollars(usage, price)


def tariff(price: Price, input_tokens: int = 0) -> Tariff:
    """What a request with so much input in all is priced at, and where that is from."""
    rates = price.at(input_tokens)
    source = PriceTable.load().version if price.source == "table" else price.source
    return Tariff(rates.input, rates.output, rates.cache_read, rates.cache_write, source)


def microdollars(usage: Usage, price: Price) -> int:
    """What one attempt is charged: the exact price, rounded up once."""
    return _core.ceil_microdollars(_picodollars(usage, price))


def _picodollars(usage: Usage, price: Price) -> int:
    rates = price.at(usage.input_total)
    return _core.cost_picodollars(
        usage.input,
        usage.output,
        usage.cache_read,
        usage.cache_write,
        rates.input,
        rates.output,
        rates.input if rates.cache_read is None else rates.cache_read,
        rates.input if rates.cache_write is None else rates.cache_write,
    )


def misses_cache_rate(usage: Usage, rates: Rates) -> bool:
    """Whether cached tokens were priced at the input rate because their own is not known."""
    return bool((usage.cache_read and rates.cache_read is None) or (usage.cache_write and rates.cache_write is None))


def upper_bound(price: Price, input_tokens: int, output_tokens: int) -> int:
    """Microdollars that no attempt with at most so many tokens can cost, however its input splits into classes.

    The input may turn out shorter than its bound, and a longer tier may be the cheaper one, so every tier up to the
    bound counts.
    """
    reachable = [price.rates, *(tier.rates for tier in price.tiers if input_tokens > tier.above_tokens)]
    dearest_input = max(max(rates.input, rates.cache_read or 0, rates.cache_write or 0) for rates in reachable)
    dearest_output = max(rates.output for rates in reachable)
    return _core.ceil_microdollars(
        _core.cost_picodollars(input_tokens, output_tokens, 0, 0, dearest_input, dearest_output, 0, 0)
    )
