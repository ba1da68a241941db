"""The compiled face of what was made of objects that stay the same."""

cimport cython

@cython.final
cdef class Made:
    cdef object source, last  # what was asked for last, as it mostly is again
    cdef dict found           # by the object's identity, with the object, which is nobody else's that long
    cdef Py_ssize_t most

    cdef object of(self, source)
    cdef object keep(self, source, made)
