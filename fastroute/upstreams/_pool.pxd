"""The compiled face of the pool's hot half."""

from fastroute.upstreams._wire cimport Connection, Exchange, Owner

cdef class LaneCore(Owner):
    cdef public PoolCore pool
    cdef public object loop, queue
    cdef public list idle

cdef class PoolCore:
    cdef public dict _lanes
    cdef public object reaper
    cdef public long long reused

    cdef Exchange asked(self, origin, bytes head, bytes body, deadlines, double now)

cdef class RemoteCore:
    cdef public object origin
    cdef public PoolCore _pool
    cdef public dict _heads
    cdef str last_operation, last_model
    cdef bint last_stream
    cdef bytes last_head

    cdef Exchange asked(self, str operation, str model, bint stream, passed, bytes body, deadlines, double now)
    cdef bytes head(self, str operation, str model, bint stream, passed)
