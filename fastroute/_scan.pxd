"""The compiled face of the readers of bodies, for those who read every request and every answer."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef enum:
    NAMES_MAX = 32

cdef struct Span:
    uint32_t start  # 0: the name is absent, since a value never stands first
    uint32_t end

cdef class Sought:
    cdef tuple names
    cdef int count
    cdef int places[NAMES_MAX]

cdef class Scan:
    cdef readonly bytes body
    cdef readonly str model
    cdef readonly bint stream
    cdef readonly Py_ssize_t text_bytes, messages, tools, media
    cdef dict places
    cdef Span spans[NAMES_MAX]
    cdef Py_ssize_t close
    cdef bint empty

    cdef Span* place(self, name) except NULL
    cdef object number(self, bytes name, Span* at)
    cdef object largest(self, Sought sought)

cdef class RequestScanner:
    cdef dict places
    cdef tuple names
    cdef int count, max_depth
    cdef const char* words[NAMES_MAX]
    cdef size_t sizes[NAMES_MAX]
    cdef uint64_t lengths  # a bit for each length a name has, so that most other keys are passed over at once

    cdef Sought sought(self, tuple names)
    cpdef Scan scan(self, bytes body)
    cdef int read_scalars(self, Scan scan) except -1

cdef class Words:
    cdef tuple words  # which the texts below are of
    cdef const char *texts[NAMES_MAX]
    cdef Py_ssize_t sizes[NAMES_MAX]
    cdef unsigned char first[257]  # where those begin that begin with a byte

    cpdef bint within(self, bytes body) except? False

cdef bint plain_tokens(bytes body, int64_t *told) except -1
