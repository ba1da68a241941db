# cython: language_level=3, nonecheck=True
"""What requests and answers of HTTP/1.1 have in common on the wire: lines, chunks, and a body in parts.

It knows no clock, no socket and no future, so every rule can be tested byte by byte.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memchr, memcpy

cdef extern from "<string.h>" nogil:
    void *memmem(const void *haystack, size_t size, const void *needle, size_t length)

cdef extern from "<strings.h>" nogil:
    int strncasecmp(const char *left, const char *right, size_t size)

cdef enum:
    EXTENSION_MAX = 256
    TRAILER_MAX = 8 * 1024


cdef class Framed:
    """One message, parsed as it arrives."""

    cpdef bytes take(self):
        """Everything that has arrived and was not read yet, as one bytes object."""
        cdef bytes data
        if len(self.parts) == 1:
            data = self.parts.pop()
        else:
            data = b"".join(self.parts)
            self.parts.clear()
        self.unread = 0
        return data

    cdef int append(self, bytes data, Py_ssize_t at, Py_ssize_t end) except -1:
        if at == 0 and end == PyBytes_GET_SIZE(data):
            self.parts.append(data)
        else:
            self.parts.append(PyBytes_FromStringAndSize(PyBytes_AS_STRING(data) + at, end - at))
        self.unread += end - at
        return 0

    cdef int fail(self, str kind, str words, bint timed_out=False) except -1:
        if self.state < DONE:
            self.state = BROKEN
            self.kind = kind
            self.words = words
            self.timed_out = timed_out
            self.partial = None
        return 0

    cdef bytes gather(self, bytes data):
        """Add to a partial head; all of it once its end is in it, else None."""
        self.partial += data
        cdef const char *start = self.partial
        cdef Py_ssize_t size = len(self.partial)
        # Four bytes may be split three to one, and nothing is searched twice however small the segments are.
        cdef Py_ssize_t at = max(self.searched - 3, 0)
        if memmem(start + at, size - at, b"\r\n\r\n", 4) == NULL:
            self.unfinished(start, at, size)
            self.searched = size
            return None
        data = bytes(self.partial)
        self.partial = None
        return data

    cdef int unfinished(self, const char *start, Py_ssize_t at, Py_ssize_t size) except -1:
        """A head whose end has not come: refuse at once what can never become one."""
        raise NotImplementedError  # what can become a head is the affair of each kind of message

    cdef int bare(self, const char *start, Py_ssize_t at, Py_ssize_t size) except -1:
        """Refuse lines from `at` on that end in a line feed alone."""
        cdef const char *feed
        while True:
            feed = <const char *>memchr(start + at, b"\n", size - at)
            if feed == NULL:
                return 0
            if feed == start or feed[-1] != b"\r":
                return self.fail("protocol", "a line of the head ends without a carriage return")
            at = feed - start + 1

    cdef const char *line_end(self, const char *line, const char *end) except? NULL:
        """The carriage return that ends a line, or NULL when the line has another, or a line feed of its own."""
        cdef const char *feed = <const char *>memchr(line, b"\n", end - line)
        cdef const char *stop = end if feed == NULL else feed - 1
        if stop < line or stop[0] != b"\r" or memchr(line, b"\r", stop - line) != NULL:
            self.fail("protocol", "a line of the head has a bare carriage return or line feed")
            return NULL
        return stop

    cdef const char *colon(self, const char *line, const char *end) except? NULL:
        """The colon after the name of a header line, or NULL when its name is no token."""
        cdef const char *at = line
        while at < end and fr_token(<unsigned char>at[0]):
            at += 1
        if at == line or at == end or at[0] != b":":
            self.fail("protocol", "a header's name is not a token")
            return NULL
        return at

    cdef int told(self, const char *name, Py_ssize_t width, const char *value, const char *end) except -1:
        """Go by a header if it says where the body or the connection ends; `left` is the length then."""
        cdef unsigned long long length = 0
        if width == 10 and strncasecmp(name, b"connection", 10) == 0:
            self.closes = self.closes or names(value, end, b"close", 5)
        elif width == 14 and strncasecmp(name, b"content-length", 14) == 0:
            if self.counted or not 1 <= end - value <= 18:
                return self.fail("protocol", "content-length is given twice, or is not a length")
            self.counted = True
            while value < end:
                if not b"0" <= value[0] <= b"9":
                    return self.fail("protocol", "content-length is given twice, or is not a length")
                length = length * 10 + <unsigned char>value[0] - 48
                value += 1
            self.left = length
        elif width == 17 and strncasecmp(name, b"transfer-encoding", 17) == 0:
            if self.in_chunks or self.old or end - value != 7 or strncasecmp(value, b"chunked", 7) != 0:
                return self.fail("protocol", "transfer-encoding is not exactly one `chunked`")
            self.in_chunks = True
        if self.in_chunks and self.counted:
            return self.fail("protocol", "the body's length is told in two ways")
        return 0

    cdef Py_ssize_t chunks(self, bytes data, Py_ssize_t at) except -1:
        """Decode chunked framing from `at` on, and say where that ended; all content of one segment becomes one part."""
        cdef const unsigned char *start = <const unsigned char *>PyBytes_AS_STRING(data)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data), run, room = 0, filled = 0
        cdef bytes out = None
        cdef char *into = NULL
        cdef unsigned char c
        cdef int digit
        while at < size and self.state < DONE:
            if self.state == DATA:
                run = size - at
                if self.left < <unsigned long long>run:
                    run = <Py_ssize_t>self.left
                if into == NULL:
                    room = size - at
                    out = PyBytes_FromStringAndSize(NULL, room)
                    into = PyBytes_AS_STRING(out)
                memcpy(into + filled, start + at, run)
                filled += run
                at += run
                self.left -= run
                if self.left == 0:
                    self.state = DATA_CR
                continue
            c = start[at]
            at += 1
            if self.state == SIZE:
                digit = hex_digit(c)
                if digit >= 0:
                    self.digits += 1
                    if self.digits > 16 or self.left >> 58:
                        self.fail("protocol", "a chunk size is too long")
                    self.left = self.left * 16 + digit
                elif self.digits and c == b"\r":
                    self.state = SIZE_LF
                elif self.digits and c == b";":
                    self.spare = 1
                    self.state = EXTENSION
                else:
                    self.fail("protocol", "a chunk size is not hexadecimal")
            elif self.state == EXTENSION:
                self.spare += 1
                if c == b"\r":
                    self.state = SIZE_LF
                elif control(c) or self.spare > EXTENSION_MAX:
                    self.fail("protocol", "a chunk extension is malformed or longer than 256 bytes")
            elif self.state == TRAILER and c == b"\r":
                self.state = LAST_LF
            elif self.state == TRAILER or self.state == TRAILER_LINE:
                self.spare += 1
                if self.state == TRAILER:
                    self.digits = 0  # how long its name is; below 0 once that is over
                    self.state = TRAILER_LINE
                if self.digits >= 0:
                    self.digits = -1 if c == b":" and self.digits else self.digits + 1
                    if self.digits > 0 and not fr_token(c):
                        self.fail("protocol", "a trailer has no name that is a token")
                elif c == b"\r":
                    self.state = TRAILER_LF
                if (control(c) and c != b"\r") or self.spare > TRAILER_MAX:
                    self.fail("protocol", "the trailers are malformed or longer than 8 KiB")
            elif self.state == DATA_CR:
                self.state = DATA_LF
                if c != b"\r":
                    self.fail("protocol", "a chunk does not end where its size says")
            elif c != b"\n":
                self.fail("protocol", "a line of chunk framing ends without a line feed")
            elif self.state == SIZE_LF:
                self.digits = self.spare = 0
                self.state = DATA if self.left else TRAILER
            elif self.state == DATA_LF:
                self.state = SIZE
            elif self.state == TRAILER_LF:
                self.state = TRAILER
            else:
                self.state = DONE
        if filled:
            self.append(out, 0, filled)
        return at


cdef inline int hex_digit(unsigned char c) noexcept nogil:  # a C number, compared
    if b"0" <= c <= b"9":
        return c - 48
    c |= 32
    return c - 87 if b"a" <= c <= b"f" else -1


cdef bint names(const char *at, const char *end, const char *word, Py_ssize_t width) noexcept nogil:  # looks at bytes
    """Whether a comma-separated list names a word, in any case of letters."""
    cdef const char *comma
    cdef const char *stop
    while at < end:
        comma = <const char *>memchr(at, b",", end - at)
        stop = comma if comma != NULL else end
        while at < stop and (at[0] == b" " or at[0] == b"\t"):
            at += 1
        if stop - at >= width and strncasecmp(at, word, width) == 0:
            at += width
            while at < stop and (at[0] == b" " or at[0] == b"\t"):
                at += 1
            if at == stop:
                return True
        at = stop + 1
    return False
