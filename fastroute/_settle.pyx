# cython: language_level=3, auto_pickle=False
"""The two figures that every attempt has: the bound it is reserved with, and what its usage comes to.

The arithmetic is `_core`'s; here a price without tiers is made ready for it once. `_settle.pyi` states the contracts.
"""

from fastroute._core import ceil_microdollars
from fastroute.domain import ENTRIES_MAX, TOKENS_MAX, Settlement
from fastroute.routing import prices

from libc.stdint cimport int64_t

from fastroute cimport _core
from fastroute._domain cimport USAGE, of_usage
from fastroute._fields cimport at, must_be
from fastroute._made cimport Made

OUTPUT_UNKNOWN = 128_000

cdef int64_t UNKNOWN_OUTPUT = OUTPUT_UNKNOWN, MOST = TOKENS_MAX
cdef Made flats = Made(ENTRIES_MAX)


cdef class Flat:
    """A price without tiers: a third of what finding its rates anew costs on every attempt."""

    cdef object tariff  # None where tiers are looked at first
    cdef int64_t rates[4]  # input, output, cache_read, cache_write
    cdef int64_t dearest[4]


cdef Flat flat_of(price):
    cdef Flat flat
    found = flats.of(price)
    if found is not None:
        return <Flat>found
    rates = price.rates
    flat = Flat()
    flat.tariff = None if price.tiers else prices.tariff(price)
    flat.rates[0], flat.rates[1] = rates.input, rates.output
    flat.rates[2] = rates.input if rates.cache_read is None else rates.cache_read
    flat.rates[3] = rates.input if rates.cache_write is None else rates.cache_write
    flat.dearest[0] = max(flat.rates[0], flat.rates[2], flat.rates[3])
    flat.dearest[1] = flat.rates[1]
    return <Flat>flats.keep(price, flat)


cpdef object bound(price, input_bound, output_cap, max_output, choices=1):
    cdef Flat flat
    cdef _core.Cost cost
    cdef int64_t tokens[4]
    if price is None:
        return None
    output = output_cap if output_cap is not None else max_output if max_output is not None else UNKNOWN_OUTPUT
    output = output * choices
    flat = flat_of(price)
    if input_bound > MOST or output > MOST or flat.tariff is None:
        return prices.upper_bound(price, min(input_bound, MOST), min(output, MOST))
    tokens[0], tokens[1], tokens[2], tokens[3] = input_bound, output, 0, 0
    _core.charge(&cost, tokens, flat.dearest)
    return cost.microdollars


cpdef object exact(price, usage):
    return priced("exact", price, usage)


cpdef object priced(str basis, price, usage):
    cdef Flat flat
    cdef _core.Cost cost
    cdef int64_t tokens[4]
    if price is None:
        return Settlement(basis, None, None, usage)
    flat = flat_of(price)
    if flat.tariff is None:
        picodollars = prices.price(usage, price)
        tariff = prices.tariff(price, usage.input_total)
        return Settlement(basis, picodollars, ceil_microdollars(picodollars), usage, tariff)
    must_be(usage, USAGE)
    tokens[0], tokens[1] = at(usage, of_usage.input), at(usage, of_usage.output)
    tokens[2], tokens[3] = at(usage, of_usage.cache_read), at(usage, of_usage.cache_write)
    _core.charge(&cost, tokens, flat.rates)
    return Settlement(basis, cost.picodollars, cost.microdollars, usage, flat.tariff)
