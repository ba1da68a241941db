"""The compiled face of the wire, for the pool that gives turns to connections and the relay that reads answers."""

from fastroute.upstreams._arrival cimport Arrival
from fastroute.upstreams._reply cimport Reply

# What the reader of a turn waits for.
cdef enum Want:
    ANSWER
    BYTES
    END

cdef class Owner:
    cdef int freed(self, Connection connection) except -1

cdef class Terms:
    cdef bint pooled
    cdef double connect_s, pool_s, write_s, first_chunk_s, idle_s, total_s

    @staticmethod
    cdef Terms of(deadlines)

cdef class Turn(Reply):
    cdef object loop
    cdef Owner lane
    cdef Arrival waiter
    cdef Want want
    cdef bytes prefix
    cdef bytes body
    cdef Connection connection
    cdef Terms terms
    cdef readonly double total_at
    cdef double started, sent_at, first_chunk_at
    cdef double first_byte_at, last_byte_at
    cdef readonly bint sent
    cdef readonly bint reused
    cdef readonly bint retried
    cdef bint content
    cdef bint whole
    cdef Py_ssize_t limit

    cdef int meant(self, Owner lane, loop, bytes prefix, bytes body, deadlines, double now) except -1
    cdef double by(self, double allowed_s, bint anew) except? -1
    cdef int wake(self, bint at_once=*) except -1
    cdef Arrival arrival(self, Want want)
    cdef int stop(self) except -1
    cdef object fault(self)
    cdef double write_at(self) except? -1
    cdef double due(self) except? -1
    cdef int expire(self, double now) except -1

cdef class Connection:
    cdef object loop
    cdef Owner lane
    cdef object transport
    cdef object timer
    cdef double timer_at
    cdef Turn turn
    cdef int fd
    cdef readonly int served
    cdef readonly double idle_since
    cdef readonly bint closed
    cdef readonly bint early    # bytes came before any request
    cdef bint plain             # no TLS between us and the socket
    cdef bint held              # its transport may hold bytes that the socket did not take
    cdef bint paused            # we do not read
    cdef bint stuck             # the peer does not read

    cdef bint start(self, Turn turn, double now) except? False
    cdef int write(self, bytes prefix, bytes body) except -1
    cpdef int close(self) except -1
    cdef bint farewell(self) except? False
    cdef int ended(self, bint cleanly) except -1
    cdef int finish(self, Turn turn) except -1
    cdef int fail(self, str kind, str words, bint timed_out=*) except -1
    cdef int resume(self) except -1
    cdef int arm(self) except -1

cdef class Exchange:
    cdef readonly Turn turn

    @staticmethod
    cdef Exchange begun(Owner lane, loop, bytes prefix, bytes body, deadlines, double now)
    cpdef bytes header(self, bytes name)
    cpdef bint answer(self) except? False
    cpdef coming(self)
    cpdef bytes taken(self)
    cdef bytes here(self)
    cdef Arrival more(self)
