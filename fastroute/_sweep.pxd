"""The compiled face of a sweep, for those who meet it on every request."""

cdef class Sweep:
    cdef double seconds
    cdef object act
    cdef dict since  # in the order of time
    cdef object loop
    cdef object timer

    cdef int add_at(self, waiting, loop, double now) except -1
    cpdef bint drop(self, waiting) except? False
