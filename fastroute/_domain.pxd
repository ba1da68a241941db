"""The compiled face of the domain's structs: where their fields lie, for those who read them on every request."""

from libc.stdint cimport int64_t

from fastroute._fields cimport at, must_be

cdef object USAGE, SETTLEMENT, ATTEMPT, ENTRY, REF, TARIFF  # the classes, which `must_be` is asked about first

cdef struct Usages:
    Py_ssize_t input, output, cache_read, cache_write, reasoning

cdef struct Settlements:
    Py_ssize_t basis, picodollars, microdollars, usage, tariff

cdef struct Tariffs:
    Py_ssize_t input, output, cache_read, cache_write, source

cdef struct Attempts:
    Py_ssize_t lane, model, outcome, settlement

cdef struct Entries:
    Py_ssize_t id, ref, price

cdef struct Refs:
    Py_ssize_t model

cdef Usages of_usage
cdef Settlements of_settlement
cdef Tariffs of_tariff
cdef Attempts of_attempt
cdef Entries of_entry
cdef Refs of_ref


cdef inline object settlement_of(attempt):
    must_be(attempt, ATTEMPT)
    settlement = at(attempt, of_attempt.settlement)
    must_be(settlement, SETTLEMENT)
    return settlement


cdef inline object usage_of(settlement):
    """Of a settlement that is one."""
    usage = at(settlement, of_settlement.usage)
    must_be(usage, USAGE)
    return usage


cdef inline int64_t input_total(usage) except? -1:
    """`Usage.input_total`, of one that is one."""
    return (
        <int64_t>at(usage, of_usage.input)
        + <int64_t>at(usage, of_usage.cache_read)
        + <int64_t>at(usage, of_usage.cache_write)
    )
