"""The compiled face of the door."""

from fastroute._call cimport Call

cdef class DoorCore:
    cdef public object _teller, _limiter, _anonymous
    cdef public bint _plain, guards

    cpdef object meet(self, dict found, bytes query)
    cpdef object admit(self, Call call, scope)
