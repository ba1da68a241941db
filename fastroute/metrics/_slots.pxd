"""The compiled face of the counters, for those who count on every request."""

from libc.stdint cimport uint64_t

cdef enum:
    BOUNDS_MAX = 24

cdef class Slots:
    cdef Py_buffer buffer
    cdef uint64_t *words
    cdef readonly Py_ssize_t size

    cdef uint64_t *at(self, Py_ssize_t word, Py_ssize_t count) except NULL

cdef class Counter:
    cdef Slots slots
    cdef uint64_t *cell

    cpdef int inc(self, uint64_t by=*) except -1

cdef class Gauge:
    cdef Slots slots
    cdef uint64_t *cell

    cpdef int inc(self) except -1
    cpdef int dec(self) except -1

cdef class Histogram:
    cdef Slots slots
    cdef uint64_t *cells
    cdef uint64_t bounds[BOUNDS_MAX]
    cdef Py_ssize_t count

cdef class Finished:
    cdef Counter requests, tokens_in, tokens_out, backend_requests
    cdef Histogram latency_ms, cost_usd, latency_seconds

    cpdef int record(self, double ms, picodollars, uint64_t tokens_in, uint64_t tokens_out) except -1

cdef class Tried:
    cdef Counter attempts, settle
    cdef Histogram first_chunk

    cpdef int record(self, first_chunk_ms) except -1

cdef class Groups:
    cdef readonly dict _finished
    cdef readonly dict _tried

    cdef Finished group(self, model, int status, backend)
    cdef bint kept(self, Finished group, model, int status, backend) except -1
    cpdef int attempt(self, lane, outcome, basis=*, first_chunk_ms=*) except -1
