"""The compiled face of an arrival, for the wire."""

cdef class Arrival:
    cdef object loop, callback, context
    cdef bint over, lost
    cdef public bint _asyncio_future_blocking

    cdef int later(self) except -1
    cdef int finish(self, bint at_once) except -1
