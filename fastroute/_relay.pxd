"""The compiled face of the relay's core, for the relay itself and the door before it."""

from fastroute._call cimport Call
from fastroute._made cimport Made
from fastroute._sweep cimport Sweep
from fastroute.upstreams._pool cimport RemoteCore
from fastroute.upstreams._wire cimport Exchange

cdef class Standing:
    cdef object entry, upstream, price, max_output, sampled
    cdef str id, lane, model
    cdef RemoteCore remote  # its upstream, where that is one behind a base URL
    cdef bint chats  # its upstream takes and gives chat as OpenAI words it

cdef class Core:
    cdef Made standings
    cdef public object kind, upstream_of, health, latency, note, metrics, clock, retries
    cdef object healthy  # whose quiet lanes these are
    cdef set quiet
    cdef public object deadlines, whole, patient
    cdef public Sweep unwatched, leaving
    cdef public int max_attempts

    cdef Standing standing(self, entry)
    cdef set well(self)

cdef class Try:
    cdef Standing standing
    cdef bytes body
    cdef readonly Core relay
    cdef readonly Call call
    cdef readonly object entry, upstream
    cdef public object reservation, exchange
    cdef readonly bint poor_matters
    cdef readonly double started
    cdef public bint settled

    cdef int made(
        self, Core relay, Call call, Standing standing, reservation, bint poor_matters, double now
    ) except -1
    cpdef object begin(self)
    cdef object sound(self, exchange)
    cpdef int named(self, exchange) except -1
    cpdef object told(self, usage)
    cpdef int succeed(self, usage, Py_ssize_t content_bytes, str outcome=*) except -1
    cpdef int close(self, str outcome, status, settlement) except -1
    cpdef int stop(self) except -1
