# cython: language_level=3, auto_pickle=False
"""The three records of every request, written as `records.encode` writes them, without a struct made for each.

A record that is unusual (a number beyond 63 bits, a text of kilobytes) is `records`' own.
"""

from msgspec.structs import astuple

from fastroute.ledger import records
from fastroute.ledger.records import Finish, Send, Settle

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.long cimport PyLong_AsLongLongAndOverflow
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL

from fastroute._domain cimport of_tariff
from fastroute._fields cimport at
from fastroute.ledger._leases cimport told

cdef object encode = records.encode
cdef enum:
    ROOM = 4096
    NUMBER = 9  # the most that a number takes, or the head of anything

# Each record is written and copied in one stretch under the GIL.
cdef char space[ROOM]


cdef struct Out:
    char *at  # NULL once something did not fit in here


cdef inline bint fits(Out *out, Py_ssize_t size) noexcept:  # pointers, compared
    if out.at == NULL or size > space + ROOM - out.at:
        out.at = NULL
        return False
    return True


cdef inline void put(Out *out, int byte) noexcept:  # a byte into `space`, whose room `fits` has seen
    out.at[0] = <char>byte
    out.at += 1


cdef inline void big_endian(Out *out, uint64_t value, int size) noexcept:  # as above, of a C number
    while size:
        size -= 1
        put(out, <int>(value >> (8 * size) & 0xff))


cdef void whole(Out *out, long long value) noexcept:  # as above; what does not fit is NULL in `out`
    if not fits(out, NUMBER):
        return
    if value < 0:
        out.at = NULL
    elif value < 128:
        put(out, <int>value)
    elif value < 1 << 8:
        put(out, 0xcc)
        put(out, <int>value)
    elif value < 1 << 16:
        put(out, 0xcd)
        big_endian(out, value, 2)
    elif value < <long long>1 << 32:
        put(out, 0xce)
        big_endian(out, value, 4)
    else:
        put(out, 0xcf)
        big_endian(out, value, 8)


cdef int number(Out *out, value) except -1:
    cdef int overflow = 0
    cdef long long small
    if value is None:
        if fits(out, NUMBER):
            put(out, 0xc0)
    elif type(value) is int:
        small = PyLong_AsLongLongAndOverflow(value, &overflow)
        if overflow:
            out.at = NULL
        else:
            whole(out, small)
    else:
        out.at = NULL
    return 0


cdef int text(Out *out, str value) except -1:
    cdef Py_ssize_t size
    cdef const char *utf8
    if value is None:
        out.at = NULL
        return 0
    utf8 = PyUnicode_AsUTF8AndSize(value, &size)
    if not fits(out, size + NUMBER):
        return 0
    if size < 32:
        put(out, 0xa0 | <int>size)
    elif size < 1 << 8:
        put(out, 0xd9)
        put(out, <int>size)
    else:
        put(out, 0xda)
        big_endian(out, size, 2)
    memcpy(out.at, utf8, size)
    out.at += size
    return 0


cdef int numbers(Out *out, tuple values) except -1:
    if values is None or len(values) > 15 or not fits(out, NUMBER):
        out.at = NULL
        return 0
    put(out, 0x90 | <int>len(values))
    for value in values:
        number(out, value)
    return 0


cdef void amounts(Out *out, int count, const int64_t *values) noexcept:  # as `whole`, of as many as a path has
    cdef int place
    if fits(out, NUMBER):
        put(out, 0x90 | count)
        for place in range(count):
            whole(out, values[place])


cdef int rated(Out *out, tariff) except -1:
    if tariff is None:
        return number(out, None)
    if fits(out, NUMBER):
        put(out, 0x95)
    number(out, at(tariff, of_tariff.input))
    number(out, at(tariff, of_tariff.output))
    number(out, at(tariff, of_tariff.cache_read))
    number(out, at(tariff, of_tariff.cache_write))
    return text(out, at(tariff, of_tariff.source))


cdef inline bytes written(Out *out):
    return None if out.at == NULL else PyBytes_FromStringAndSize(space, out.at - space)


cdef bytes send(
    long long attempt, str request, account, tuple windows, int count, const int64_t *reserved, str entry, str model,
    str lane, long long at_ms, microdollars
):
    cdef Out out
    out.at = space
    put(&out, 0x9a)
    whole(&out, attempt)
    text(&out, request)
    number(&out, account)
    numbers(&out, windows)
    amounts(&out, count, reserved)
    text(&out, entry)
    text(&out, model)
    text(&out, lane)
    whole(&out, at_ms)
    number(&out, microdollars)
    if out.at != NULL:
        return written(&out)
    return encode(
        Send(attempt, request, account, windows, told(count, reserved), entry, model, lane, at_ms, microdollars)
    )


cdef bytes settle(
    long long attempt, str basis, str outcome, status, int count, const int64_t *charged, const int64_t *spent,
    input, output, cache_read, cache_write, reasoning, picodollars, microdollars, ms, tariff
):
    cdef Out out
    out.at = space
    put(&out, 0x9b)
    whole(&out, attempt)
    text(&out, basis)
    text(&out, outcome)
    number(&out, status)
    amounts(&out, count, charged)
    amounts(&out, count, spent)
    if fits(&out, NUMBER):
        put(&out, 0x95)
    number(&out, input)
    number(&out, output)
    number(&out, cache_read)
    number(&out, cache_write)
    number(&out, reasoning)
    number(&out, picodollars)
    number(&out, microdollars)
    number(&out, ms)
    rated(&out, tariff)
    if out.at != NULL:
        return written(&out)
    return encode(
        Settle(
            attempt, basis, outcome, status, told(count, charged), told(count, spent),
            (input, output, cache_read, cache_write, reasoning), picodollars, microdollars, ms,
            None if tariff is None else astuple(tariff),
        )
    )


cdef bytes finish(
    str request, account, str decision, str surface, str asked, str entry, str reason, int status, bint stream,
    long long started_ms, long long latency_ms, first_chunk_ms, dict details
):
    cdef Out out
    cdef bytes more
    out.at = space
    put(&out, 0x9d)
    text(&out, request)
    number(&out, account)
    text(&out, decision)
    text(&out, surface)
    text(&out, asked)
    text(&out, entry)
    text(&out, reason)
    whole(&out, status)
    if fits(&out, NUMBER):
        put(&out, 0xc3 if stream else 0xc2)
    whole(&out, started_ms)
    whole(&out, latency_ms)
    number(&out, first_chunk_ms)
    if not details:
        if fits(&out, NUMBER):
            put(&out, 0x80)
    else:
        more = encode(details)
        if fits(&out, PyBytes_GET_SIZE(more)):
            memcpy(out.at, PyBytes_AS_STRING(more), PyBytes_GET_SIZE(more))
            out.at += PyBytes_GET_SIZE(more)
    if out.at != NULL:
        return written(&out)
    return encode(
        Finish(
            request, account, decision, surface, asked, entry, reason, status, bool(stream), started_ms, latency_ms,
            first_chunk_ms, details,
        )
    )
