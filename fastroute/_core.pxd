"""The compiled face of the arithmetic, for compiled code that has numbers and not objects."""

from libc.stdint cimport int64_t

cdef struct Cost:
    int64_t picodollars   # exact
    int64_t microdollars  # rounded up once

cdef int charge(Cost *cost, const int64_t *tokens, const int64_t *rates) except -1
cdef int64_t bound_of(int64_t text_bytes, int64_t messages, int64_t tools, int64_t media, int64_t window) except -1
