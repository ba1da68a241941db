"""The compiled face of a holder's hot half."""

cdef class HolderCore:
    cdef public object _core, held
    cdef public dict _hungry
    cdef public list _active
    cdef public long long deadline_ms, breaches, _epoch
    cdef public bint withheld
