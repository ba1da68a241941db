"""The compiled face of a holder's hot half."""

from libc.stdint cimport int64_t

from fastroute._core cimport PATH_MAX, Leases

cdef class Path:
    cdef readonly tuple windows, leases
    cdef public long long until_ms, epoch, credit
    cdef public bint shut, active
    # Of each window: what it counts in, its slot, and what was spent on it in slots given up before this one.
    cdef int kinds[PATH_MAX]
    cdef int count
    cdef int64_t places[PATH_MAX]
    cdef int64_t past[PATH_MAX]

    cdef int amounts(self, int count, microdollars, tokens, int64_t requests, int64_t *amounts) except -1

cdef tuple told(int count, const int64_t *numbers)

cdef class Hold:
    cdef readonly object microdollars, tokens
    cdef readonly Path path
    cdef public long long attempt
    cdef public bint open, sent
    cdef int count
    cdef int64_t places[PATH_MAX]
    cdef int64_t held[PATH_MAX]

cdef class HolderCore:
    cdef public Leases _core
    cdef public dict _hungry
    cdef public list _active
    cdef public long long deadline_ms, breaches, _epoch
    cdef public bint withheld

    cpdef Hold reserve(self, Path path, microdollars, tokens, long long now_ms)
    cpdef tuple settle(self, Hold hold, microdollars, tokens, requests=*)
    cpdef object void(self, Hold hold)
    # What this life has spent on each window, into as many numbers.
    cdef int totals(self, Path path, int count, const int64_t *places, int64_t *spent) except -1
