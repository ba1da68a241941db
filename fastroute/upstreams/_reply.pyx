# cython: language_level=3, nonecheck=True
"""The parser of the wire: one HTTP/1.1 answer, strictly, as its bytes arrive.

It knows no clock, no socket and no future, so every rule can be tested byte by byte; `_wire` feeds it.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memchr, memcmp

from fastroute._framing cimport BROKEN, DONE, HEAD, LENGTH, SIZE, UNTIL_CLOSE, Framed, trim

cdef extern from "<string.h>" nogil:
    void *memmem(const void *haystack, size_t size, const void *needle, size_t length)

cdef extern from "<strings.h>" nogil:
    int strncasecmp(const char *left, const char *right, size_t size)

cdef enum:
    HEAD_MAX = 64 * 1024
    LINES_MAX = 200
    INTERIM_MAX = 8


cdef class Reply(Framed):
    """One answer, parsed as it arrives. It knows no clock, no socket and no future."""

    def __init__(self, bint bodiless=False):
        self.bodiless = bodiless
        self.parts = []

    @property
    def complete(self):
        return self.state == DONE

    cpdef int feed(self, bytes data) except -1:
        """Take what has arrived; a fault shows in `kind`, and what was decoded before it stays readable."""
        cdef Py_ssize_t at = 0
        cdef Py_ssize_t size
        if self.state == HEAD:
            if self.partial is not None:
                data = self.gather(data)
                if data is None:
                    return 0
            at = self.heads(data)
        size = PyBytes_GET_SIZE(data)
        if at >= size or self.state == HEAD or self.state == BROKEN:
            return 0
        if self.state == LENGTH:
            if self.left < <unsigned long long>(size - at):
                self.surplus = True
                size = at + <Py_ssize_t>self.left
            self.left -= size - at
            self.append(data, at, size)
            if self.left == 0:
                self.state = DONE
        elif self.state == UNTIL_CLOSE:
            self.append(data, at, size)
        elif self.state == DONE:
            self.surplus = True
        else:
            at = self.chunks(data, at)
            self.surplus = self.state == DONE and at < size
        return 0

    cpdef int eof(self) except -1:
        """The peer will say no more: an end only where the message has no other end."""
        if self.state == UNTIL_CLOSE:
            self.state = DONE
        elif self.state < DONE:
            self.fail("cut", "the connection ended before the answer did")
        return 0

    cpdef bytes header(self, bytes name):
        """The first value of a header, or None."""
        if self.head is None:
            return None
        if name is None:
            raise TypeError("a header has a name")
        cdef const char *wanted = PyBytes_AS_STRING(name)
        cdef const char *line = PyBytes_AS_STRING(self.head)
        cdef const char *end = line + PyBytes_GET_SIZE(self.head)
        cdef const char *feed = <const char *>memchr(line, b"\n", end - line)
        cdef const char *stop
        cdef Py_ssize_t width = PyBytes_GET_SIZE(name)
        while feed != NULL:
            line = feed + 1
            feed = <const char *>memchr(line, b"\n", end - line)
            if end - line > width and line[width] == b":" and strncasecmp(line, wanted, width) == 0:
                line += width + 1
                stop = feed - 1 if feed != NULL else end
                while line < stop and (line[0] == b" " or line[0] == b"\t"):
                    line += 1
                while line < stop and (stop[-1] == b" " or stop[-1] == b"\t"):
                    stop -= 1
                return PyBytes_FromStringAndSize(line, stop - line)
        return None

    def headers(self):
        """Every header in order, names in lower case, values without surrounding blanks."""
        if self.head is None:
            return []
        pairs = []
        for line in self.head.split(b"\r\n")[1:]:
            key, _, value = line.partition(b":")
            pairs.append((key.lower(), value.strip(b" \t")))
        return pairs

    cdef int unfinished(self, const char *start, Py_ssize_t at, Py_ssize_t size) except -1:
        """A head whose end has not come: refuse at once what can never become one."""
        if size >= HEAD_MAX:
            return self.fail("protocol", "the head is longer than 64 KiB")
        if memcmp(start, b"HTTP/1.", min(size, 7)) != 0:
            return self.fail("protocol", "the first line is not an HTTP/1.1 status line")
        return self.bare(start, at, size)

    cdef Py_ssize_t heads(self, bytes data) except -1:
        """Read interim heads and the final one; where the body starts in `data`."""
        cdef const char *start = PyBytes_AS_STRING(data)
        cdef const char *found
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data), at = 0, end
        while True:
            found = <const char *>memmem(start + at, size - at, b"\r\n\r\n", 4)
            if found == NULL:
                self.unfinished(start + at, 0, size - at)
                if self.state == HEAD:
                    self.partial = bytearray(data[at:])
                    self.searched = size - at
                return size
            end = found - start
            if end - at > HEAD_MAX - 4:
                self.fail("protocol", "the head is longer than 64 KiB")
            else:
                self.read_head(start + at, start + end)
            if self.state == BROKEN:
                return size
            if self.state != HEAD:
                self.head = data[at:end]
                return end + 4
            at = end + 4

    cdef int read_head(self, const char *line, const char *end) except -1:
        """One head from its status line to `end`; the state moves on unless it was an interim one."""
        cdef const char *value
        cdef const char *stop
        cdef const char *colon
        cdef Py_ssize_t width
        cdef int status, lines = 0
        cdef bint coded = False
        self.closes = self.counted = self.in_chunks = False
        self.left = 0
        if memchr(line, 0, end - line) != NULL:
            return self.fail("protocol", "a NUL byte in the head")

        stop = self.line_end(line, end)
        if stop == NULL:
            return 0
        width = stop - line
        if (
            width < 12
            or memcmp(line, b"HTTP/1.", 7) != 0
            or (line[7] != b"1" and line[7] != b"0")
            or line[8] != b" "
            or not (b"0" <= line[9] <= b"9" and b"0" <= line[10] <= b"9" and b"0" <= line[11] <= b"9")
            or (width > 12 and line[12] != b" ")
        ):
            return self.fail("protocol", "the first line is not an HTTP/1.1 status line")
        self.old = line[7] == b"0"
        status = (line[9] - 48) * 100 + (line[10] - 48) * 10 + line[11] - 48
        if not 100 <= status <= 599 or status == 101:
            return self.fail("protocol", "a status outside 100 to 599, or 101")

        while stop < end:
            line = stop + 2
            stop = self.line_end(line, end)
            if stop == NULL:
                return 0
            lines += 1
            if lines > LINES_MAX:
                return self.fail("protocol", "more than 200 header lines")
            colon = self.colon(line, stop)
            if colon == NULL:
                return 0
            width = colon - line
            # The only lengths of names that decide anything.
            if width != 10 and width != 14 and width != 16 and width != 17:
                continue
            value, colon = colon + 1, stop
            trim(&value, &colon)
            if width == 16 and strncasecmp(line, b"content-encoding", 16) == 0:
                coded = coded or (colon > value and (colon - value != 8 or strncasecmp(value, b"identity", 8) != 0))
            self.told(line, width, value, colon)
            if self.state == BROKEN:
                return 0

        if status < 200:
            self.interim += 1
            if self.interim > INTERIM_MAX:
                return self.fail("protocol", "more than 8 interim answers")
            return 0
        self.keep = not (self.old or self.closes)
        if self.bodiless or status == 204 or status == 304:
            self.state = DONE
        elif coded:
            return self.fail("encoding", "the answer has a content-encoding, and none was asked for")
        elif self.in_chunks:
            self.state = SIZE
        elif self.counted:
            self.state = LENGTH if self.left else DONE
        elif self.keep:
            return self.fail("protocol", "no length, and the connection is to stay open")
        else:
            self.until_close = True
            self.state = UNTIL_CLOSE
        self.status = status
        return 0
