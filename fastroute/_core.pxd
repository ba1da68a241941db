"""The compiled face of the core, for compiled code that has numbers and not objects: what every attempt asks of it."""

cimport cython
from libc.stdint cimport int64_t

cdef enum:
    PATH_MAX = 4  # accounts that one reservation draws on

# free is granted - released - spent - held. granted stays within AMOUNT_MAX, released and held within granted, spent
# within SPENT_MAX: free never falls below -(9 * 10**18 + 9 * 10**15) > -2**63. Reservations are counted beside the sum
# they hold, because one of 0 is a reservation too: its slot must not close, and be reused, before it settles.
cdef struct Account:
    int64_t granted, released, spent, held, reservations, next_closed
    bint is_open

# An integer within 0 to the largest amount, or the error that names it.
cdef int64_t amount_of(object value, str name) except -2

cdef struct Cost:
    int64_t picodollars   # exact
    int64_t microdollars  # rounded up once

cdef int charge(Cost *cost, const int64_t *tokens, const int64_t *rates) except -1
cdef int64_t bound_of(int64_t text_bytes, int64_t messages, int64_t tools, int64_t media, int64_t window) except -1


@cython.final
cdef class Leases:
    cdef Account *accounts
    cdef Py_ssize_t capacity
    cdef Py_ssize_t opened
    cdef int64_t next_closed

    cdef Account *account(self, object slot) except NULL
    cdef Account *numbered(self, int64_t index) except NULL
    cdef int numbers(self, tuple slots, int64_t *numbers) except -1
    cdef int path(self, int count, const int64_t *slots, Account **accounts) except -1
    # `reserve` and `settle` of amounts that `amount_of` has seen; of the first, -1 is held.
    cdef int hold(self, int count, const int64_t *slots, const int64_t *amounts) except -2
    cdef bint close_hold(self, int count, const int64_t *slots, const int64_t *held, const int64_t *charged) except? True
