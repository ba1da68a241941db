"""The compiled face of the ledger's hot half."""

cdef class TillCore:
    cdef public object holder, journal, clock, _loop, _late
    cdef public long long attempts, underway, unjournalled, _wall_ms
    cdef public bint _dirty, _closed

    cpdef bint write(self, int kind, bytes payload) except -1
    cpdef int write_late(self, int kind, bytes payload) except -1

cdef class AccountCore:
    cdef public object id, facts, path, models, expires_ms, _till
    cdef public str state
    cdef public bint hard, limited
