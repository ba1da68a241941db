# cython: language_level=3
"""The compiled readers: one pass over a request's body, and over the streams that come back.

Nothing here awaits, logs or reads a clock; bytes go in, facts come out. `_scan.pyi` is its face.

Three parts, one module: `_json.pxi` reads JSON, this file reads requests with it, `_streams.pxi` reads streams with it.
"""

import os

import msgspec

from fastroute.errors import FastrouteError

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memchr, memcmp, memcpy, memmove, memset

cdef extern from *:
    """
    typedef unsigned __int128 fr_u128;
    #define FR_FIRST(w) (__builtin_ctzll(w) >> 3)
    #if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
    #error "the wide loads read the first byte as the lowest"
    #endif
    """
    ctypedef unsigned long long u128 "fr_u128"
    size_t FR_FIRST(uint64_t w) nogil

ctypedef unsigned char uchar
ctypedef const uchar* bptr

MAX_DEPTH = 64
MAX_MESSAGES = 4096
MAX_TOOLS = 256
MAX_NUMBER = 64
MAX_KEYS = 16384
MAX_EVENT_BYTES = 1 << 20

cdef enum:
    C_DEPTH = 64
    C_MESSAGES = 4096
    C_TOOLS = 256
    C_NUMBER = 64
    C_KEYS = 16384  # their table, at its largest, is 256 KiB: past the cache each key would cost thrice as much
    FEW = 8             # keys of an object that are compared one by one
    BODY_MAX = 1 << 30  # offsets are 32 bits wide

assert (MAX_DEPTH, MAX_MESSAGES, MAX_TOOLS, MAX_NUMBER, MAX_KEYS) == (C_DEPTH, C_MESSAGES, C_TOOLS, C_NUMBER, C_KEYS)

cdef enum Why:
    SYNTAX, NOT_OBJECT, DEPTH, DUPLICATE_KEY, UTF8, SURROGATE, NUMBER, KEYS, MESSAGES, TOOLS
    TYPE, TOO_LARGE, EVENT_TOO_LARGE

WHYS = (
    "syntax", "not_object", "depth", "duplicate_key", "utf8", "surrogate", "number", "too_many_keys",
    "too_many_messages", "too_many_tools", "type", "too_large", "event_too_large",
)

cdef tuple SENTENCES = (
    "this is not JSON",
    "the body must be one JSON object",
    f"arrays and objects are nested deeper than {MAX_DEPTH}",
    "a key is given twice",
    "a string is not UTF-8",
    "a string escapes half of a surrogate pair",
    f"a number is longer than {MAX_NUMBER} characters",
    f"an object has more than {MAX_KEYS} keys",
    f"messages holds more than {MAX_MESSAGES} elements",
    f"tools holds more than {MAX_TOOLS} elements",
    "a value has the wrong type",
    "the body is too large",
    "an event is too large",
)
assert len(WHYS) == len(SENTENCES) == EVENT_TOO_LARGE + 1


class ScanError(FastrouteError):
    """Bytes were refused; `why` is one of WHYS, `offset` where, and `message` never tells the content."""

    def __init__(self, why, offset, message=None):
        self.why = why
        self.offset = offset
        self.message = message or f"{SENTENCES[WHYS.index(why)]} (byte {offset})"
        super().__init__(self.message)


include "_json.pxi"

cdef enum:
    # The first names of every scanner, in this order.
    MODEL, STREAM, STREAM_OPTIONS, MESSAGES_AT, TOOLS_AT, INPUT, PROMPT, SYSTEM, CONTENTS

cdef tuple FIRST_NAMES = (
    b"model", b"stream", b"stream_options", b"messages", b"tools", b"input", b"prompt", b"system", b"contents",
)


cdef class Sought:
    """Some of a scanner's names, and where its scans have them."""


cdef class Scan:
    """What one body says; made by a RequestScanner, holding on to the body."""

    cdef Span* place(self, name) except NULL:
        index = self.places.get(name)
        if index is None:
            raise ValueError(f"this scanner does not look for {name!r}")
        return &self.spans[<Py_ssize_t> index]

    def span(self, bytes name not None):
        cdef Span* at = self.place(name)
        return (at.start, at.end) if at.start else None

    def raw(self, bytes name not None):
        cdef Span* at = self.place(name)
        return self.body[at.start:at.end] if at.start else None

    def integer(self, bytes name not None):
        return self.number(name, self.place(name))

    cdef object number(self, bytes name, Span* at):
        cdef bytes raw
        if not at.start:
            return None
        raw = self.body[at.start:at.end]
        if raw == b"null":
            return None
        if not raw.removeprefix(b"-").isdigit():
            raise wrong_type(name, "an integer", at.start)
        return int(raw)

    def most(self, tuple names not None):
        cdef int place
        cdef Sought sought = Sought.__new__(Sought)
        sought.names = names
        sought.count = len(names)
        for place in range(sought.count):
            sought.places[place] = self.place(names[place]) - self.spans
        return self.largest(sought)

    cdef object largest(self, Sought sought):
        cdef int place
        found = None
        for place in range(sought.count):
            if self.spans[sought.places[place]].start:
                number = self.number(sought.names[place], &self.spans[sought.places[place]])
                if number is not None and number <= 0:
                    return number  # to some this is no end at all
                if number is not None and (found is None or number > found):
                    found = number
        return found

    def usage_options(self):
        raw = self.raw(b"stream_options")
        if raw is None or raw == b"null":
            return b'{"include_usage":true}'
        if raw[0] != 123:
            raise wrong_type(b"stream_options", "an object", self.place(b"stream_options").start)
        options = OPTIONS.scan(raw)
        if options.raw(b"include_usage") == b"true":
            return None
        return options.rewrite(((b"include_usage", b"true"),))

    def rewrite(self, changes):
        cdef Span* at
        cdef list edits = [], pieces = []
        cdef Py_ssize_t done = 0
        cdef bint bare = self.empty
        body = self.body
        added = []
        for name, replacement in changes:
            at = self.place(name)
            if at.start:
                edits.append((at.start, at.end, replacement))
            else:
                added.append(b'%b"%b":%b' % (b"" if bare else b",", name, replacement))
                bare = False
        edits.sort()
        for start, end, replacement in edits:
            pieces.append(body[done:start])
            pieces.append(replacement)
            done = end
        if added:
            pieces.append(body[done:self.close])
            pieces.extend(added)
            done = self.close
        pieces.append(body[done:])
        return b"".join(pieces)


cdef wrong_type(bytes name, str wanted, Py_ssize_t offset):
    return ScanError("type", offset, f"{name.decode()} must be {wanted} (byte {offset})")


cdef class RequestScanner:
    def __init__(self, names=(), int max_depth=MAX_DEPTH):
        self.names = tuple(dict.fromkeys((*FIRST_NAMES, *names)))
        self.count = len(self.names)
        self.lengths = 0
        if self.count > NAMES_MAX:
            raise ValueError(f"a scanner looks for {NAMES_MAX} names at most")
        if not 1 <= max_depth <= 512:
            raise ValueError("max_depth is 1 to 512")
        for index, name in enumerate(self.names):
            # Names are written back into bodies as they are.
            plain = isinstance(name, bytes) and name.isascii() and name.decode().isprintable()
            if not plain or not 0 < len(name) < 64 or b'"' in name or b"\\" in name:
                raise ValueError(f"{name!r} cannot be looked for")
            self.words[index] = PyBytes_AS_STRING(name)
            self.sizes[index] = len(name)
            self.lengths |= <uint64_t> 1 << self.sizes[index]
        self.places = {name: index for index, name in enumerate(self.names)}
        self.max_depth = max_depth

    cdef Sought sought(self, tuple names):
        cdef Sought sought = Sought.__new__(Sought)
        sought.names = names
        for name in names:
            sought.places[sought.count] = self.places[name]
            sought.count += 1
        return sought

    cpdef Scan scan(self, bytes body):
        cdef Scan scan = Scan.__new__(Scan)
        cdef Doc d
        cdef Keys keys
        cdef bptr p
        if body is None:
            raise TypeError("a body is bytes")
        memset(&d, 0, sizeof(Doc))
        d.base = <bptr> PyBytes_AS_STRING(body)
        d.end = d.base + PyBytes_GET_SIZE(body)
        d.strict = True
        d.max_depth = self.max_depth
        keys.count = 0
        keys.table = NULL
        scan.body = body
        scan.places = self.places
        memset(scan.spans, 0, sizeof(scan.spans))
        try:
            if d.end - d.base >= BODY_MAX:
                raise ScanError("too_large", BODY_MAX)
            p = top(self, &d, &keys, scan)
            if d.starved:
                raise MemoryError
            if p == NULL:
                raise refusal(&d)
        finally:
            free(keys.table)
            free(d.scratch[0])
            free(d.scratch[1])
        scan.text_bytes = d.text
        scan.media = d.media
        self.read_scalars(scan)
        return scan

    cdef int read_scalars(self, Scan scan) except -1:
        cdef Span* at = &scan.spans[MODEL]
        cdef bptr base = <bptr> PyBytes_AS_STRING(scan.body)
        if at.start and base[at.start] != 110:
            if base[at.start] != 0x22:
                raise wrong_type(b"model", "a string", at.start)
            if memchr(base + at.start, 0x5C, at.end - at.start) == NULL:
                scan.model = PyUnicode_DecodeUTF8(<const char*> base + at.start + 1, at.end - at.start - 2, NULL)
            else:
                scan.model = msgspec.json.decode(scan.body[at.start:at.end])
        at = &scan.spans[STREAM]
        if at.start:
            scan.stream = base[at.start] == 116
            if base[at.start] != 116 and base[at.start] != 102 and base[at.start] != 110:
                raise wrong_type(b"stream", "true or false", at.start)
        return 0


cdef int find(RequestScanner scanner, Text* key) noexcept nogil:  # reads C fields and bytes, no object
    cdef int i
    if key.size < 64 and scanner.lengths >> key.size & 1:
        for i in range(scanner.count):
            if equals(key, scanner.words[i], scanner.sizes[i]):
                return i
    return -1


cdef bptr top(RequestScanner scanner, Doc* d, Keys* keys, Scan scan) noexcept nogil:  # a fault is NULL, no object is made
    cdef bptr p = space(d, d.base), start
    cdef Text key
    cdef size_t count
    cdef int index
    cdef bint first = True, other
    if p[0] != 123:
        other = p < d.end and p[0] in b'["-0123456789tfn'
        return fail(d, p, NOT_OBJECT if other else SYNTAX)
    p += 1
    while True:
        p = member(d, p, first, keys, &key)
        if p == NULL:
            return NULL
        if key.raw == NULL:
            break
        first = False
        start = p
        index = find(scanner, &key)
        if index == MESSAGES_AT and p[0] == 91:
            p = elements(d, p, 2, MESSAGE | MEDIA, C_MESSAGES, MESSAGES, &count)
            scan.messages = count
        elif index == TOOLS_AT and p[0] == 91:
            p = elements(d, p, 2, SHAPE, C_TOOLS, TOOLS, &count)
            scan.tools = count
        elif index == MESSAGES_AT or INPUT <= index <= CONTENTS:
            p = value(d, p, 2, SHAPE | MEDIA)
        else:
            p = value(d, p, 2, SHAPE)
        if p == NULL:
            return NULL
        if index >= 0:
            scan.spans[index].start = <uint32_t> (start - d.base)
            scan.spans[index].end = <uint32_t> (p - d.base)
    scan.empty = first
    scan.close = p - d.base - 1
    p = space(d, p)
    return p if p == d.end else fail(d, p, SYNTAX)


cdef refusal(Doc* d):
    cdef Text key
    offset = d.fault - d.base
    if d.why != DUPLICATE_KEY:
        return ScanError(WHYS[d.why], offset)
    string(d, d.fault, &key)
    name = key.raw[:key.length].decode()
    shown = name if len(name) <= 40 else name[:40] + "..."
    return ScanError("duplicate_key", offset, f"key {shown!r} is given twice (byte {offset})")


cdef RequestScanner OPTIONS = RequestScanner((b"include_usage",))
cdef RequestScanner PLAIN = RequestScanner()


def scan_request(bytes body not None, int max_depth=MAX_DEPTH):
    return PLAIN.scan(body) if max_depth == C_DEPTH else RequestScanner((), max_depth).scan(body)


def splice(bytes body not None, Py_ssize_t start, Py_ssize_t end, bytes replacement not None):
    cdef Py_ssize_t size = PyBytes_GET_SIZE(body), new = PyBytes_GET_SIZE(replacement)
    if not 0 <= start <= end <= size:
        raise ValueError("the span is not inside the body")
    out = PyBytes_FromStringAndSize(NULL, size - (end - start) + new)
    cdef char* at = PyBytes_AS_STRING(out)
    memcpy(at, PyBytes_AS_STRING(body), start)
    memcpy(at + start, PyBytes_AS_STRING(replacement), new)
    memcpy(at + start + new, PyBytes_AS_STRING(body) + end, size - end)
    return out


def json_string(str text not None):
    return msgspec.json.encode(text)


cdef class Words:
    def __init__(self, words):
        cdef Py_ssize_t i
        cdef int letter
        self.words = tuple(sorted(set(words)))
        if len(self.words) > NAMES_MAX or b"" in self.words:
            raise ValueError(f"at most {NAMES_MAX} words, none of them empty")
        for i, word in enumerate(self.words):
            self.texts[i] = PyBytes_AS_STRING(<bytes?>word)
            self.sizes[i] = PyBytes_GET_SIZE(word)
        i = 0
        for letter in range(257):
            while i < len(self.words) and <int><uchar>self.texts[i][0] < letter:
                i += 1
            self.first[letter] = <unsigned char>i

    cpdef bint within(self, bytes body) except? False:
        if body is None:
            raise TypeError("a body is bytes")
        cdef const char *at = PyBytes_AS_STRING(body)
        cdef const char *end = at + PyBytes_GET_SIZE(body)
        cdef Py_ssize_t i
        while True:
            at = <const char *>memchr(at, b'"', end - at)
            if at == NULL:
                return spelled(PyBytes_AS_STRING(body), end)
            at += 1
            if at == end:
                return spelled(PyBytes_AS_STRING(body), end)
            for i in range(self.first[<uchar>at[0]], self.first[<int><uchar>at[0] + 1]):
                if end - at > self.sizes[i] and at[self.sizes[i]] == b'"' and memcmp(at, self.texts[i], self.sizes[i]) == 0:
                    return True


cdef bint spelled(const char *at, const char *end) noexcept nogil:  # looks at bytes, which raise nothing
    """Whether a letter or an underscore stands there as an escape, as in `\\u0074ools`: no encoder writes that by itself."""
    while True:
        at = <const char *>memchr(at, b"\\", end - at)
        if at == NULL:
            return False
        if end - at > 4 and memcmp(at, b"\\u00", 4) == 0 and 0x34 <= <uchar>at[4] <= 0x37:
            return True
        at += 1


include "_streams.pxi"
include "_answers.pxi"
