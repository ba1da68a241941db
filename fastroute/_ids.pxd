"""The compiled face of the names."""

cdef class Counted:
    cdef str prefix, high
    cdef bytes request_prefix
    cdef long long count, thousands

    cpdef str decision(self)
    cpdef str request(self)
    cdef int carry(self, long long thousands) except -1
