"""Makes `price_table.json` from the installed genai-prices: an offline step, run by hand and committed with its diff.

The source's tiers mean what ours do: once the whole input, cached tokens included, is above a tier's start, its rate
holds for every token of the request. Prices of one day are taken; of several within that day, the dearest. What a
table of four integers cannot say is left out, and so is refused as unpriced rather than charged too little.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_CEILING, Decimal
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastroute.domain import RATE_MAX, Price, Rates, Tier
from fastroute.errors import FastrouteError

if TYPE_CHECKING:
    from genai_prices import types

_PACKAGE = "genai-prices"
_COLUMNS = ("input", "output", "cache_read", "cache_write")
# Beside the four columns: longer caching, tools asked for one by one, and other media in the input. Models that charge
# for anything else (a request, an hour, a picture drawn, a word spoken) are not priced by their text.
_OPTIONAL = {
    "cache_write_1h_mtok",
    "web_searches_kcount",
    "storage_searches_kcount",
    "input_audio_mtok",
    "cache_audio_read_mtok",
    "input_image_mtok",
    "cache_image_read_mtok",
    "input_video_mtok",
}
# `^name-\d{8}$`, `^name[-@]\d{8}$`, `^name-\d{4}-\d{2}-\d{2}$`, and `^name-\d`: a literal stem, then a date or a digit.
_DATED = re.compile(
    r"^\^(?P<stem>(?:[^\\^$()\[\]|?*+{}.]|\\\.)+)(?P<mark>\[-@\])?(?:\\d\{8\}|\\d\{4\}-\\d\{2\}-\\d\{2\})\$$"
)
_DIGIT = re.compile(r"^\^(?P<stem>(?:[^\\^$()\[\]|?*+{}.]|\\\.)+)\\d$")


class Inexpressible(FastrouteError):
    """A price that four integers and their tiers do not say."""


def build(day: date) -> tuple[str, Counter[str]]:
    """The table's text as of a day, and what was kept, rounded, narrowed or left out."""
    from genai_prices.data import providers

    counts: Counter[str] = Counter()
    head = {
        "source": _PACKAGE,
        "version": metadata.version(_PACKAGE),
        "date": day.isoformat(),
        "licence": "data from genai-prices, MIT, Copyright (c) Pydantic Services Inc. 2025 to present",
        "unit": "microdollars per million tokens; a tier is [above so many input tokens, the same columns]",
        "columns": list(_COLUMNS),
    }
    blocks = []
    for provider in sorted(providers, key=lambda each: each.id):
        lines = [f"{_text(model_id)}:{_text(line)}" for model_id, line in _models(provider, day, counts).items()]
        if not lines and not provider.fallback_model_providers:
            continue
        fallbacks = _text(provider.fallback_model_providers or [])
        blocks.append(f'{_text(provider.id)}:{{"fallbacks":{fallbacks},"models":{{\n' + ",\n".join(lines) + "\n}}")
        counts["providers"] += 1
    return f'{{"head":{_text(head)},\n"providers":{{\n' + ",\n".join(blocks) + "\n}}\n", counts


def _text(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _models(provider: types.Provider, day: date, counts: Counter[str]) -> dict[str, dict[str, Any]]:
    """A provider's lines by model id, in order; every name leads to the model the source itself would choose."""
    lines: dict[str, dict[str, Any]] = {}
    unpriced: dict[str, dict[str, Any]] = {}
    for model in provider.models:
        try:
            lines[model.id.lower()] = _line(model, day, counts)
            counts["models"] += 1
        except Inexpressible as reason:
            counts[f"left out: {reason}"] += 1
            unpriced[model.id.lower()] = {}
    every = lines | unpriced
    taken = set(every)
    for model in provider.models:
        for exact, name in sorted(set(_names(model.match, counts))):
            # The source takes its first match; no id of its own goes on with "~", so this asks who gets the prefix.
            owner = provider.find_model(name if exact else name + "~") or model
            key = "names" if exact else "prefixes"
            if (name if exact else name + "*") not in taken:
                every[owner.id.lower()].setdefault(key, []).append(name)
                taken.add(name if exact else name + "*")
    # A model without a price is listed only where a shorter prefix would lend it somebody else's.
    prefixes = tuple(prefix for line in lines.values() for prefix in line.get("prefixes", ()))
    lines |= {
        model_id: line
        for model_id, line in unpriced.items()
        if any(name.startswith(prefixes) for name in (model_id, *line.get("names", ()), *line.get("prefixes", ())))
    }
    for line in lines.values():
        for key in ("names", "prefixes"):
            if key in line:
                line[key] = sorted(line.pop(key))
    return dict(sorted(lines.items()))


def _line(model: types.ModelInfo, day: date, counts: Counter[str]) -> dict[str, Any]:
    price = _price_of(model, day, counts)
    line: dict[str, Any] = {"rates": _row(price.rates)}
    if price.tiers:
        line["tiers"] = [[tier.above_tokens, _row(tier.rates)] for tier in price.tiers]
        counts["models with tiers"] += 1
    if model.context_window:
        line["window"] = model.context_window
    return line


def _row(rates: Rates) -> list[int | None]:
    return [rates.input, rates.output, rates.cache_read, rates.cache_write]


def _price_of(model: types.ModelInfo, day: date, counts: Counter[str]) -> Price:
    """The price in force on that day; where the hour decides, the one that is nowhere the cheaper."""
    prices = [_convert(prices, counts) for prices in _in_force(model, day)]
    if len(prices) > 1:
        counts["priced by the hour, dearest taken"] += 1
    for price in prices:
        if all(_covers(price, other) for other in prices):
            return price
    raise Inexpressible("no hour is the dearest")


def _in_force(model: types.ModelInfo, day: date) -> list[types.ModelPrice]:
    from genai_prices.types import ModelPrice, TimeOfDateConstraint

    if isinstance(model.prices, ModelPrice):
        return [model.prices]
    midnight = datetime.combine(day, time(), UTC)
    instants = {midnight}
    for conditional in model.prices:
        limit = conditional.constraint
        if isinstance(limit, TimeOfDateConstraint):
            for edge in (limit.start_time, limit.end_time):
                at = datetime.combine(day, edge, edge.tzinfo or UTC).astimezone(UTC)
                # An offset may carry the edge over midnight; the hour recurs daily, the day is ours.
                instants.add(midnight + timedelta(hours=at.hour, minutes=at.minute, seconds=at.second))
    found: list[types.ModelPrice] = []
    for instant in sorted(instants):
        prices = model.get_prices(instant)
        if prices not in found:
            found.append(prices)
    return found


def _covers(price: Price, other: Price) -> bool:
    if [tier.above_tokens for tier in price.tiers] != [tier.above_tokens for tier in other.tiers]:
        return False
    pairs = [(price.rates, other.rates), *((a.rates, b.rates) for a, b in zip(price.tiers, other.tiers, strict=True))]
    return all(_filled(a)[n] >= _filled(b)[n] for a, b in pairs for n in range(len(_COLUMNS)))


def _filled(rates: Rates) -> tuple[int, int, int, int]:
    read = rates.input if rates.cache_read is None else rates.cache_read
    write = rates.input if rates.cache_write is None else rates.cache_write
    return rates.input, rates.output, read, write


def _convert(prices: types.ModelPrice, counts: Counter[str]) -> Price:
    """The source's price as ours, or `Inexpressible`."""
    given = {key: value for key, value in vars(prices).items() if value is not None}
    columns = {name: given.pop(f"{name}_mtok", None) for name in _COLUMNS}
    if columns["input"] is None:
        raise Inexpressible("no price per token")
    if given.keys() - _OPTIONAL:
        raise Inexpressible("charges for more than tokens of text")
    if columns["output"] is None:
        columns["output"] = Decimal(0)  # an embedding answers with no tokens
    starts = sorted({tier.start for value in columns.values() for tier in getattr(value, "tiers", ())})
    tiers = tuple(Tier(start, _rates(columns, start, counts)) for start in starts)
    return Price(_rates(columns, -1, counts), tiers, source="table")


def _rates(columns: dict[str, Any], start: int, counts: Counter[str]) -> Rates:
    """Every column just above a tier's start, or below the first tier for -1."""
    known = {name: _at(value, start) for name, value in columns.items()}
    rates = {name: _rounded_up(value, counts) for name, value in known.items() if value is not None}
    if not rates["input"] and not rates["output"]:
        raise Inexpressible("costs nothing, which only an operator may say")
    # A 0 for cached tokens means that nobody wrote the rate down; the input rate is the safe reading.
    return Rates(rates["input"], rates["output"], rates.get("cache_read") or None, rates.get("cache_write") or None)


def _at(value: Decimal | types.TieredPrices | None, start: int) -> Decimal | None:
    from genai_prices.types import TieredPrices

    if not isinstance(value, TieredPrices):
        return value
    return next((tier.price for tier in reversed(value.tiers) if tier.start <= start), value.base)


def _rounded_up(usd_per_mtok: Decimal, counts: Counter[str]) -> int:
    exact = usd_per_mtok.scaleb(6)
    rate = int(exact.to_integral_value(rounding=ROUND_CEILING))
    counts["rates rounded up"] += rate != exact
    if rate > RATE_MAX:
        raise Inexpressible("dearer than a rate may be")
    return rate


def _names(clause: types.MatchLogic, counts: Counter[str]) -> Iterator[tuple[bool, str]]:
    """The names a clause surely holds, as (exact, lower-case text): narrower than the clause where it is not simple."""
    from genai_prices import types

    match clause:
        case types.ClauseEquals(equals=name):
            yield True, name.lower()
        case types.ClauseStartsWith(starts_with=prefix):
            yield False, prefix.lower()
        case types.ClauseContains(contains=part):
            counts["clauses narrowed: contains, kept as a prefix"] += 1
            yield False, part.lower()
        case types.ClauseEndsWith(ends_with=part):
            counts["clauses narrowed: ends_with, kept as a name"] += 1
            yield True, part.lower()
        case types.ClauseOr(or_=parts):
            for part_ in parts:
                yield from _names(part_, counts)
        case types.ClauseAnd(and_=parts):
            for exact, name in (found for part_ in parts for found in _names(part_, counts)):
                if clause.is_match(name):
                    yield exact, name
        case types.ClauseRegex(regex=pattern):
            prefixes = _prefixes(pattern)
            counts["clauses narrowed: regex, kept as prefixes" if prefixes else "clauses dropped: regex"] += 1
            yield from ((False, prefix) for prefix in prefixes)


def _prefixes(pattern: str) -> list[str]:
    """The prefixes that say what a pattern for dated names says: its dates are of this century."""
    dated, digit = _DATED.match(pattern), _DIGIT.match(pattern)
    if dated:
        stem = dated["stem"].replace("\\", "").lower()
        return [f"{stem}{mark}20" for mark in ("-@" if dated["mark"] else ("",))]
    if digit:
        stem = digit["stem"].replace("\\", "").lower()
        return [f"{stem}{number}" for number in range(10)]
    return []


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path(__file__).with_name("price_table.json"))
@click.option("--date", "day", type=click.DateTime(["%Y-%m-%d"]), default=None, help="Prices of which day; today's.")
def main(out: Path, day: datetime | None) -> None:
    """Write the price table from the installed genai-prices."""
    text, counts = build(day.date() if day else datetime.now(UTC).date())
    out.write_text(text, encoding="utf-8")
    click.echo(f"{out}: {len(text.encode())} bytes")
    for what, count in sorted(counts.items()):
        click.echo(f"{count:6d}  {what}")


if __name__ == "__main__":
    main()
