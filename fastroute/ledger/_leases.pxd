"""The compiled face of a holder's hot half."""

cdef class Path:
    cdef public tuple windows, leases, slots
    cdef public object pick
    cdef public long long until_ms, epoch, credit
    cdef public bint shut, active

cdef class HolderCore:
    cdef public object _core, held
    cdef public dict _hungry
    cdef public list _active
    cdef public long long deadline_ms, breaches, _epoch
    cdef public bint withheld

    cpdef object reserve(self, Path path, microdollars, tokens, long long now_ms)
    cpdef tuple settle(self, hold, microdollars, tokens, requests=*)
    cpdef object void(self, hold)
    cpdef tuple spent(self, Path path, tuple slots)
