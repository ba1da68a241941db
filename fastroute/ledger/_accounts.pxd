"""The compiled face of the ledger's hot half."""

from fastroute.ledger._leases cimport HolderCore, Path

cdef class TillCore:
    cdef public HolderCore holder
    cdef public object journal, clock, _loop, _late
    cdef public long long attempts, underway, unjournalled, _wall_ms
    cdef public bint _dirty, _closed

    cpdef bint write(self, int kind, bytes payload) except -1
    cpdef int write_late(self, int kind, bytes payload) except -1

cdef class AccountCore:
    cdef public object id, facts, models, expires_ms
    cdef public Path path
    cdef public TillCore _till
    cdef public str state
    cdef public bint hard, limited, metered
