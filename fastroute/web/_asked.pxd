"""The compiled face of a request's parser, for the connection that feeds it."""

from fastroute._framing cimport Framed

cdef class Asked(Framed):
    cdef readonly str method, path
    cdef readonly bytes raw_path, query
    cdef readonly list headers
    cdef readonly bytes rest       # what came after the request's end
    cdef readonly bint expects     # the sender waits to be told to go on

    cpdef int feed(self, bytes data) except -1
    cdef Py_ssize_t read(self, bytes data) except -1
    cdef int read_head(self, const char *line, const char *end) except -1
    cdef const char *read_first(self, const char *line, const char *end) except? NULL
    cdef int read_target(self, const char *at, const char *end) except -1
    cdef int read_lines(self, const char *line, const char *end) except -1
