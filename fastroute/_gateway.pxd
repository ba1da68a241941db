"""The compiled face of the gateway's core."""

from fastroute._call cimport Call
from fastroute._ids cimport Counted
from fastroute._lines cimport Lines
from fastroute._scan cimport RequestScanner, Sought
from fastroute.metrics._slots cimport Counter, Finished, Groups

cdef class Kin:
    cdef str surface, reason
    cdef object model, lane
    cdef int status
    cdef Py_ssize_t attempts
    cdef bint stream
    cdef Finished group
    cdef tuple form  # of its lines in the log; None where none are written

cdef class Core:
    cdef readonly RequestScanner scanner
    cdef readonly Groups metrics
    cdef readonly Counter chosen
    cdef readonly Counted ids
    cdef public Lines log
    cdef public object relay
    cdef dict caps
    cdef Sought any_cap
    cdef int choices_at, more_choices_at
    cdef dict pinned
    cdef dict kins
    cdef Kin last
    cdef set learned

    cdef Kin kin(self, Call call, model, lane)
    cdef int booked(self, Call call, final, long long latency_ms, bint hit) except -1

    cpdef int read(self, Call call, bytes body) except -1
    cpdef int plan(self, Call call) except -1
    cpdef int attempted(self, Call call, attempt) except -1
    cpdef int finished(self, Call call) except -1
