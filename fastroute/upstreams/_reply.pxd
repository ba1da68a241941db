"""The compiled face of the parser, for the wire that inherits it."""

# In the order a message passes through them; everything from DONE on is over.
cdef enum State:
    HEAD
    LENGTH
    UNTIL_CLOSE
    SIZE
    EXTENSION
    SIZE_LF
    DATA
    DATA_CR
    DATA_LF
    TRAILER
    TRAILER_LINE
    TRAILER_LF
    LAST_LF
    DONE
    BROKEN

cdef class Reply:
    cdef State state
    cdef bint bodiless          # the request was a HEAD
    cdef readonly int status
    cdef readonly bint keep     # the peer allows another request on this connection
    cdef readonly bint until_close
    cdef readonly bint surplus  # bytes came after the end
    cdef bytes head             # the accepted head, without its last two line ends
    cdef bytearray partial      # a head that has not come whole yet
    cdef Py_ssize_t searched
    cdef int interim
    cdef unsigned long long left
    cdef int digits
    cdef int spare              # bytes of extension or trailers seen
    cdef list parts
    cdef readonly Py_ssize_t unread
    cdef readonly str kind
    cdef str words
    cdef bint timed_out

    cpdef int feed(self, bytes data) except -1
    cpdef int eof(self) except -1
    cpdef bytes take(self)
    cpdef bytes header(self, bytes name)
    cdef int append(self, bytes data, Py_ssize_t at, Py_ssize_t end) except -1
    cdef int fail(self, str kind, str words, bint timed_out=*) except -1
    cdef bytes gather(self, bytes data)
    cdef int unfinished(self, const char *start, Py_ssize_t at, Py_ssize_t size) except -1
    cdef Py_ssize_t heads(self, bytes data) except -1
    cdef int read_head(self, const char *line, const char *end) except -1
    cdef const char *line_end(self, const char *line, const char *end) except? NULL
    cdef int chunks(self, bytes data, Py_ssize_t at) except -1
