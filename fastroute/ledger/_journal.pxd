"""The compiled face of the journal's writing end."""

from libc.stdint cimport uint32_t, uint64_t

cdef class Segment:
    cdef char *base
    cdef readonly Py_ssize_t size
    cdef readonly uint64_t number
    cdef readonly uint32_t seed

cdef class Appender:
    cdef Segment segment
    cdef char *base  # of the segment
    cdef Py_ssize_t at  # the published end
    cdef Py_ssize_t mark  # beyond it the subclass is asked; always room for END after it
    cdef readonly uint64_t sequence
    cdef readonly list retired

    cpdef uint64_t append(self, int kind, bytes payload) except 0
