"""The compiled face of the door."""

cdef class DoorCore:
    cdef public object _teller
    cdef public bint _plain, guards

    cpdef object meet(self, dict found, bytes query)
