"""The compiled face of the pool's hot half."""

cdef class LaneCore:
    cdef public PoolCore pool
    cdef public object loop, queue
    cdef public list idle

cdef class PoolCore:
    cdef public dict _lanes
    cdef public object reaper
    cdef public long long reused

cdef class RemoteCore:
    cdef public object origin
    cdef public PoolCore _pool
    cdef public dict _heads
