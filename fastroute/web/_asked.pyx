# cython: language_level=3, nonecheck=True
"""The parser of requests: one HTTP/1.1 request, strictly, as its bytes arrive.

It knows no clock, no socket and no future, so every rule can be tested byte by byte; `_inbound` feeds it. What two
parsers could read in two ways is refused and never mended: a proxy in front may have read it the other way.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memchr, memcmp

from fastroute._framing cimport BROKEN, DONE, HEAD, LENGTH, SIZE, Framed, control, fr_token, trim

from urllib.parse import unquote_to_bytes

cdef extern from "<string.h>" nogil:
    void *memmem(const void *haystack, size_t size, const void *needle, size_t length)

cdef extern from "<strings.h>" nogil:
    int strncasecmp(const char *left, const char *right, size_t size)

cdef enum:
    HEAD_MAX = 64 * 1024
    LINES_MAX = 100
    METHOD_MAX = 24
    TARGETS_MAX = 512
    TARGET_KEPT = 256

cdef bytes AUTHORITY = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:[]"

# What the targets of most requests were read to: the same few, again and again.
cdef dict targets = {}


cdef class Asked(Framed):
    """One request; `kind` says what was wrong with it once something was, and `words` in what way."""

    def __init__(self):
        self.parts = []

    @property
    def complete(self):
        return self.state == DONE

    cpdef int feed(self, bytes data) except -1:
        """Take what has arrived; what comes after the end is in `rest`."""
        cdef Py_ssize_t at = 0, size
        if self.state == HEAD:
            if self.partial is not None:
                if len(self.partial) == 1 and self.partial[0] == b"\r":
                    # Half of an empty line before the request, which is no part of its head.
                    self.partial = None
                    data = b"\r" + data
            if self.partial is not None:
                data = self.gather(data)
                if data is None:
                    return 0
            at = self.read(data)
        size = PyBytes_GET_SIZE(data)
        if self.state == LENGTH and at < size:
            if self.left < <unsigned long long>(size - at):
                size = at + <Py_ssize_t>self.left
            self.left -= size - at
            self.append(data, at, size)
            if self.left == 0:
                self.state = DONE
            at = size
        elif LENGTH < self.state < DONE:
            at = self.chunks(data, at)
        if self.state == DONE and at < PyBytes_GET_SIZE(data):
            self.rest = data[at:]
        return 0

    cdef int unfinished(self, const char *start, Py_ssize_t at, Py_ssize_t size) except -1:
        if size >= HEAD_MAX:
            return self.fail("head", "the head is longer than 64 KiB")
        if size and not (fr_token(<unsigned char>start[0]) or start[0] == b"\r"):
            return self.fail("protocol", "the first line is not that of an HTTP/1.1 request")
        return self.bare(start, at, size)

    cdef Py_ssize_t read(self, bytes data) except -1:
        """Read the head, if all of it is here; where the body starts in `data`."""
        cdef const char *start = PyBytes_AS_STRING(data)
        cdef const char *found
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data), at = 0
        while size - at > 1 and start[at] == b"\r" and start[at + 1] == b"\n":
            at += 2  # empty lines before a request: some senders end a body with one too many
        found = <const char *>memmem(start + at, size - at, b"\r\n\r\n", 4)
        if found == NULL:
            self.unfinished(start + at, 0, size - at)
            if self.state == HEAD and at < size:
                self.partial = bytearray(data[at:])
                self.searched = size - at
            return size
        if found - (start + at) > HEAD_MAX - 4:
            self.fail("head", "the head is longer than 64 KiB")
        else:
            self.read_head(start + at, found)
        return found - start + 4

    cdef int read_head(self, const char *line, const char *end) except -1:
        """One head from its first line to `end`; the state moves on to that of its body."""
        cdef const char *stop
        if memchr(line, 0, end - line) != NULL:
            return self.fail("protocol", "a NUL byte in the head")
        stop = self.read_first(line, end)
        if stop != NULL:
            self.read_lines(stop, end)
        return 0

    cdef const char *read_first(self, const char *line, const char *end) except? NULL:
        """Method, target and version; where their line ends, NULL where they are refused."""
        cdef const char *stop = self.line_end(line, end)
        cdef const char *at = line
        if stop == NULL:
            return NULL
        while at < stop and at - line < METHOD_MAX and fr_token(<unsigned char>at[0]):
            at += 1
        if at == line or at == stop or at[0] != b" " or stop - at < 11 or memcmp(stop - 9, b" HTTP/", 6) != 0:
            self.fail("protocol", "the first line is not that of an HTTP/1.1 request")
            return NULL
        if memcmp(stop - 3, b"1.", 2) != 0 or (stop[-1] != b"1" and stop[-1] != b"0"):
            self.fail("version", "only HTTP/1.1 and HTTP/1.0 are spoken here")
            return NULL
        self.old = stop[-1] == b"0"
        if at - line == 4 and memcmp(line, b"POST", 4) == 0:
            self.method = "POST"
        elif at - line == 3 and memcmp(line, b"GET", 3) == 0:
            self.method = "GET"
        else:
            self.method = PyBytes_FromStringAndSize(line, at - line).decode("ascii")
        self.read_target(at + 1, stop - 9)
        if self.state == BROKEN:
            return NULL
        return stop

    cdef int read_target(self, const char *at, const char *end) except -1:
        cdef const char *look = at
        cdef bytes target
        cdef tuple read
        while look < end and b"!" <= look[0] <= b"~" and look[0] != b"#":
            look += 1
        if look != end:
            return self.fail("protocol", "the target of the request holds a blank, a # or what is no ASCII")
        target = PyBytes_FromStringAndSize(at, end - at)
        found = targets.get(target)
        if found is None:
            found = read_target(self.method, target)
            if found is None:
                return self.fail("protocol", "the target of the request is no path")
            if at[0] == b"/" and PyBytes_GET_SIZE(target) <= TARGET_KEPT:
                if len(targets) >= TARGETS_MAX:
                    targets.clear()
                targets[target] = found
        read = found
        self.path, self.raw_path, self.query = read
        return 0

    cdef int read_lines(self, const char *line, const char *end) except -1:
        """The header lines; `line` is the end of the line before them."""
        cdef const char *stop = line
        cdef const char *at
        cdef const char *value
        cdef char *into
        cdef bytes name
        cdef Py_ssize_t width, i
        cdef int lines = 0
        cdef list headers = []
        while stop < end:
            line = stop + 2
            stop = self.line_end(line, end)
            if stop == NULL:
                return 0
            lines += 1
            if lines > LINES_MAX:
                return self.fail("head", "more than 100 header lines")
            at = self.colon(line, stop)
            if at == NULL:
                return 0
            width = at - line
            name = PyBytes_FromStringAndSize(NULL, width)
            into = PyBytes_AS_STRING(name)
            for i in range(width):
                into[i] = line[i] | 32 if b"A" <= line[i] <= b"Z" else line[i]
            value, at = at + 1, stop
            trim(&value, &at)
            for i in range(at - value):
                if control(<unsigned char>value[i]):
                    return self.fail("protocol", "a control character in a header's value")
            headers.append((name, PyBytes_FromStringAndSize(value, at - value)))
            if width == 6 and memcmp(into, b"expect", 6) == 0:
                self.expects = at - value == 12 and strncasecmp(value, b"100-continue", 12) == 0
            self.told(into, width, value, at)
            if self.state == BROKEN:
                return 0
        self.headers = headers
        self.keep = not (self.old or self.closes)
        self.state = SIZE if self.in_chunks else LENGTH if self.left else DONE
        if self.state == DONE or self.old:
            self.expects = False
        return 0


cdef tuple read_target(str method, bytes target):
    """Path, raw path and query, of a target in the form of a path or of a whole address; None for what is neither."""
    cdef bytes whole, query, raw
    if target == b"*" and method == "OPTIONS":
        return "*", target, b""
    whole = target
    if not target.startswith(b"/"):
        scheme, mark, rest = target.partition(b"://")
        if not mark or scheme.lower() not in (b"http", b"https"):
            return None
        authority, slash, rest = rest.partition(b"/")
        if not authority or authority.translate(None, AUTHORITY):
            return None
        whole = b"/" + rest
    raw, _, query = whole.partition(b"?")
    try:
        path = (unquote_to_bytes(raw) if b"%" in raw else raw).decode()
    except UnicodeDecodeError:
        path = raw.decode()  # as it is spelled, which is the name of nothing here
    return path, raw, query
