"""What an attempt may cost before it is sent, and what it did cost afterwards, with what that figure rests on.

Pure: a price, what was asked and what was seen go in; a reservation's bound or a settlement comes out.
"""

from __future__ import annotations

from msgspec import Struct

from fastroute import _core
from fastroute.domain import TOKENS_MAX, Basis, Price, Reservation, Settlement, Usage
from fastroute.routing import prices

# Where neither the caller nor the catalog bounds the output.
OUTPUT_UNKNOWN = 128_000

# Output tokens a provider may have made and billed that never arrived: two seconds of the fastest models of today.
UNSEEN = 1000

NOTHING = Usage()


def bound(
    price: Price | None, input_bound: int, output_cap: int | None, max_output: int | None, choices: int = 1
) -> int | None:
    """The most an attempt can cost in microdollars; None when its price is not known. The input is billed once."""
    if price is None:
        return None
    output = output_cap if output_cap is not None else max_output if max_output is not None else OUTPUT_UNKNOWN
    output *= choices
    if input_bound > TOKENS_MAX or output > TOKENS_MAX or price.tiers:
        return prices.upper_bound(price, min(input_bound, TOKENS_MAX), min(output, TOKENS_MAX))
    flat = _flats.get(id(price)) or _flat(price)
    return _core.ceil_microdollars(_core.cost_picodollars(input_bound, output, 0, 0, flat.dearest, flat.output, 0, 0))


def exact(price: Price | None, usage: Usage) -> Settlement:
    """The provider told what it used."""
    return _priced("exact", price, usage)


def void(price: Price | None) -> Settlement:
    """Nothing was sent, or nothing that is billed."""
    return Settlement("void", 0, 0, NOTHING)


def bounded(price: Price | None, input_bound: int, content_bytes: int, reservation: Reservation) -> Settlement:
    """The provider answered and did not tell: the most that was seen can have cost, never above the reservation."""
    settlement = _priced("bounded", price, Usage(min(input_bound, TOKENS_MAX), min(content_bytes, TOKENS_MAX)))
    held = reservation.microdollars
    if held is None or settlement.microdollars is None or settlement.microdollars <= held:
        return settlement
    return _held("bounded", reservation, settlement.usage)


def presumed(reservation: Reservation) -> Settlement:
    """Nobody knows what the provider did: all that was held."""
    return _held("presumed", reservation, NOTHING)


def _held(basis: Basis, reservation: Reservation, usage: Usage) -> Settlement:
    held = reservation.microdollars
    return Settlement(basis, None if held is None else held * 1_000_000, held, usage)


def _priced(basis: Basis, price: Price | None, usage: Usage) -> Settlement:
    if price is None:
        return Settlement(basis, None, None, usage)
    if price.tiers:
        cost = prices.price(usage, price)
    else:
        flat = _flats.get(id(price)) or _flat(price)
        cost = _core.cost_picodollars(
            usage.input,
            usage.output,
            usage.cache_read,
            usage.cache_write,
            flat.input,
            flat.output,
            flat.cache_read,
            flat.cache_write,
        )
    return Settlement(basis, cost, _core.ceil_microdollars(cost), usage)


class _Flat(Struct, frozen=True):
    """A price without tiers, ready for the core: a third of what finding its rates anew costs on every attempt."""

    price: Price  # held, so that its identity stays its own
    input: int
    output: int
    cache_read: int
    cache_write: int
    dearest: int


_FLAT_MAX = 4096
_flats: dict[int, _Flat] = {}


def _flat(price: Price) -> _Flat:
    rates = price.rates
    read = rates.input if rates.cache_read is None else rates.cache_read
    write = rates.input if rates.cache_write is None else rates.cache_write
    if len(_flats) >= _FLAT_MAX:
        _flats.clear()
    dearest = max(rates.input, read, write)
    flat = _flats[id(price)] = _Flat(price, rates.input, rates.output, read, write, dearest)
    return flat
