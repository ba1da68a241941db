"""The compiled face of framing, for the parsers of answers and of requests."""

cdef extern from *:
    """
    /* Which of the first 128 characters a header's name may be of: two words of bits. */
    static inline int fr_token(unsigned char c)
    {
        return c < 128 && ((c < 64 ? 0x03ff6cfa00000000ULL : 0x57ffffffc7fffffeULL) >> (c & 63) & 1);
    }
    """
    bint fr_token(unsigned char c) nogil

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

cdef class Framed:
    cdef State state
    cdef bytearray partial      # a head that has not come whole yet
    cdef Py_ssize_t searched
    cdef unsigned long long left
    cdef int digits
    cdef int spare              # bytes of extension or trailers seen
    cdef list parts
    cdef readonly Py_ssize_t unread
    cdef readonly bint keep     # the peer allows another message on this connection
    cdef readonly bint old      # HTTP/1.0
    cdef bint closes, counted, in_chunks    # what the header lines said, of connection, length and encoding
    cdef readonly str kind
    cdef readonly str words
    cdef bint timed_out

    cpdef bytes take(self)
    cdef int append(self, bytes data, Py_ssize_t at, Py_ssize_t end) except -1
    cdef int fail(self, str kind, str words, bint timed_out=*) except -1
    cdef bytes gather(self, bytes data)
    cdef int unfinished(self, const char *start, Py_ssize_t at, Py_ssize_t size) except -1
    cdef int bare(self, const char *start, Py_ssize_t at, Py_ssize_t size) except -1
    cdef const char *line_end(self, const char *line, const char *end) except? NULL
    cdef const char *colon(self, const char *line, const char *end) except? NULL
    cdef int told(self, const char *name, Py_ssize_t width, const char *value, const char *end) except -1
    cdef Py_ssize_t chunks(self, bytes data, Py_ssize_t at) except -1

cdef inline bint control(unsigned char c) noexcept nogil:  # a C number, compared
    return (c < 32 and c != b"\t") or c == 127

cdef inline void trim(const char **at, const char **end) noexcept nogil:  # looks at bytes
    """Move both ends of a value inwards over its blanks."""
    while at[0] < end[0] and (at[0][0] == b" " or at[0][0] == b"\t"):
        at[0] += 1
    while at[0] < end[0] and (end[0][-1] == b" " or end[0][-1] == b"\t"):
        end[0] -= 1

cdef bint names(const char *at, const char *end, const char *word, Py_ssize_t width) noexcept nogil  # looks at bytes
