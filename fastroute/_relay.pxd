"""The compiled face of the relay's core, for the relay itself and the door before it."""

from fastroute._call cimport Call
from fastroute._sweep cimport Sweep

cdef class Core:
    cdef public object upstream_of, health, latency, note, metrics, clock, retries
    cdef public object deadlines, whole, patient
    cdef public Sweep unwatched
    cdef public int max_attempts

cdef class Try:
    cdef readonly Core relay
    cdef readonly Call call
    cdef readonly object entry, upstream
    cdef public object reservation, exchange
    cdef readonly bint poor_matters
    cdef readonly double started
    cdef public bint settled

    cpdef object begin(self)
    cpdef int named(self, exchange) except -1
    cpdef object told(self, usage)
    cpdef int succeed(self, usage, Py_ssize_t content_bytes, str outcome=*) except -1
    cpdef int close(self, str outcome, status, settlement) except -1
    cpdef int stop(self) except -1
