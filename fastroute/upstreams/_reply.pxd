"""The compiled face of the parser, for the wire that inherits it."""

from fastroute._framing cimport Framed

cdef class Reply(Framed):
    cdef bint bodiless          # the request was a HEAD
    cdef readonly int status
    cdef readonly bint until_close
    cdef readonly bint surplus  # bytes came after the end
    cdef bytes head             # the accepted head, without its last two line ends
    cdef int interim

    cpdef int feed(self, bytes data) except -1
    cpdef int eof(self) except -1
    cpdef bytes header(self, bytes name)
    cdef Py_ssize_t heads(self, bytes data) except -1
    cdef int read_head(self, const char *line, const char *end) except -1
