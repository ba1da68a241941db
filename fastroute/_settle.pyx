# cython: language_level=3, auto_pickle=False
"""The two figures that every attempt has: the bound it is reserved with, and what its usage comes to.

The arithmetic is `_core`'s; here a price without tiers is made ready for it once. `_settle.pyi` states the contracts.
"""

from fastroute import _core
from fastroute.domain import TOKENS_MAX, Settlement
from fastroute.routing import prices

OUTPUT_UNKNOWN = 128_000

cdef object cost_of = _core.cost_picodollars, ceiled = _core.ceil_microdollars
cdef object UNKNOWN_OUTPUT = OUTPUT_UNKNOWN, MOST = TOKENS_MAX
cdef object ZERO = 0
cdef dict flats = {}
cdef enum:
    FLATS_MAX = 4096


cdef class Flat:
    """A price without tiers: a third of what finding its rates anew costs on every attempt."""

    cdef object price  # held, so that its identity stays its own
    cdef object input, output, cache_read, cache_write, dearest


cdef Flat flat_of(price):
    cdef Flat flat
    key = <size_t><void *>price
    found = flats.get(key)
    if found is not None:
        return <Flat>found
    rates = price.rates
    flat = Flat()
    flat.price = price
    flat.input, flat.output = rates.input, rates.output
    flat.cache_read = rates.input if rates.cache_read is None else rates.cache_read
    flat.cache_write = rates.input if rates.cache_write is None else rates.cache_write
    flat.dearest = max(flat.input, flat.cache_read, flat.cache_write)
    if len(flats) >= FLATS_MAX:
        flats.clear()
    flats[key] = flat
    return flat


cpdef object bound(price, input_bound, output_cap, max_output, choices=1):
    cdef Flat flat
    if price is None:
        return None
    output = output_cap if output_cap is not None else max_output if max_output is not None else UNKNOWN_OUTPUT
    output = output * choices
    if input_bound > MOST or output > MOST or price.tiers:
        return prices.upper_bound(price, min(input_bound, MOST), min(output, MOST))
    flat = flat_of(price)
    return ceiled(cost_of(input_bound, output, ZERO, ZERO, flat.dearest, flat.output, ZERO, ZERO))


cpdef object exact(price, usage):
    return priced("exact", price, usage)


cpdef object priced(str basis, price, usage):
    cdef Flat flat
    if price is None:
        return Settlement(basis, None, None, usage)
    if price.tiers:
        cost = prices.price(usage, price)
    else:
        flat = flat_of(price)
        cost = cost_of(
            usage.input,
            usage.output,
            usage.cache_read,
            usage.cache_write,
            flat.input,
            flat.output,
            flat.cache_read,
            flat.cache_write,
        )
    return Settlement(basis, cost, ceiled(cost), usage)
