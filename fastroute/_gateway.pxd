"""The compiled face of the gateway's core."""

from fastroute._call cimport Call
from fastroute._ids cimport Counted

cdef class Core:
    cdef readonly object scanner, metrics, chosen
    cdef readonly Counted ids
    cdef public object log
    cdef dict caps
    cdef tuple any_cap
    cdef dict pinned
    cdef set learned

    cpdef int read(self, Call call, bytes body) except -1
    cpdef int plan(self, Call call) except -1
    cpdef int attempted(self, Call call, attempt) except -1
    cpdef int finished(self, Call call) except -1
