# cython: language_level=3
"""The heads of requests and of answers: what a caller's headers say, and the headers that tell of a request.

Bytes go in, bytes come out; nothing here knows a call or a server. `_heads.pyi` is its face.
"""

from fastroute.errors import FastrouteError
from fastroute.money import usd_from_picodollars

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.long cimport PyLong_AsLongLongAndOverflow
from cpython.unicode cimport PyUnicode_AsUTF8String
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcmp

from fastroute._domain cimport USAGE, input_total, of_usage
from fastroute._fields cimport at, must_be

# Read once, so twice is a contradiction: parsers disagree on which of the two counts.
SINGLE = frozenset({
    b"host", b"authorization", b"x-api-key", b"x-goog-api-key", b"content-length", b"content-type",
    b"transfer-encoding", b"content-encoding",
})
# What dialects may hand on; each picks its own from these.
PASSED = frozenset(
    {b"openai-organization", b"openai-project", b"openai-beta", b"anthropic-version", b"anthropic-beta"}
)
cdef frozenset ONCE = SINGLE
cdef frozenset WANTED = SINGLE | PASSED | {
    b"user-agent", b"idempotency-key", b"expect", b"cache-control", b"x-cache", b"origin",
}

cdef tuple KEYED = (b"x-api-key", b"x-goog-api-key")

cdef bint HOST[256]
for _code in range(256):
    HOST[_code] = _code in b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:[]_"


class HeadError(FastrouteError):
    """Headers were refused; `encoded` when it is only for a content-encoding."""

    def __init__(self, message, encoded=False):
        self.message = message
        self.encoded = encoded
        super().__init__(message)


cdef bint is_host(bytes host):
    cdef const unsigned char *at = <const unsigned char *>PyBytes_AS_STRING(host)
    cdef Py_ssize_t i, size = PyBytes_GET_SIZE(host)
    for i in range(size):
        if not HOST[at[i]]:
            return False
    return size > 0


cdef enum:
    NAMES_MAX = 32

# By length, then by letters: a search by hash would hash every name of every caller.
cdef tuple NAMES = tuple(sorted(WANTED, key=len))
assert len(NAMES) <= NAMES_MAX and len(NAMES[-1]) < 64
cdef int ends[64]  # where those of a length end in NAMES; they begin where those before end
cdef const char *texts[NAMES_MAX]  # of NAMES, which are never let go
cdef bint passed_on[NAMES_MAX]
for _code in range(64):
    ends[_code] = len([name for name in NAMES if len(name) <= _code])
for _code, _name in enumerate(NAMES):
    texts[_code] = PyBytes_AS_STRING(_name)
    passed_on[_code] = _name in PASSED
cdef int host_at = NAMES.index(b"host")
cdef int transfer_at = NAMES.index(b"transfer-encoding"), content_at = NAMES.index(b"content-encoding")


cdef int wanted(const char *name, Py_ssize_t size) noexcept nogil:  # C memory, compared
    """Its place in NAMES, or -1."""
    cdef int place
    if 0 < size < 64:
        for place in range(ends[size - 1], ends[size]):
            if memcmp(name, texts[place], size) == 0:
                return place
    return -1


def look(headers):
    cdef bint passing
    return looked(headers, &passing)


cdef dict looked(headers, bint *passing):
    """`passing` says whether any of them may be handed on."""
    cdef dict found = {}
    cdef int place
    cdef bytes host = None
    cdef bint coded = False
    passing[0] = False
    for name, value in headers:
        place = wanted(PyBytes_AS_STRING(<bytes?>name), PyBytes_GET_SIZE(name))
        if place >= 0:
            name = NAMES[place]
            if name in found:
                if name in ONCE:
                    raise HeadError(f"the header {name.decode()} is given twice")
                if name == b"cache-control":  # a list, of which no line may be lost
                    value = found[name] + b", " + value
            if passed_on[place]:
                passing[0] = True
                if not value.isascii() or not value.decode().isprintable():
                    raise HeadError(f"the header {name.decode()} holds characters that may not be passed on")
                if name in found:
                    # Betas are a list, and a list may come in several lines.
                    if not name.endswith(b"-beta"):
                        raise HeadError(f"the header {name.decode()} is given twice")
                    value = found[name] + b", " + value
            found[name] = value
            if place == host_at:
                host = <bytes?>value
            elif place == transfer_at or place == content_at:
                coded = True
    # The server puts an empty one where none was sent.
    if host is None or not is_host(host):
        raise HeadError("the header host is missing or is not a host")
    if not coded:
        return found
    coding = found.get(b"transfer-encoding")
    if coding is not None and (b"content-length" in found or coding.strip().lower() != b"chunked"):
        raise HeadError("the body's length is told in two ways")
    coding = found.get(b"content-encoding")
    if coding is not None and coding.strip().lower() != b"identity":
        raise HeadError("send the body without a content-encoding", True)
    return found


cpdef long long length(dict found) except? -9:
    """-1 where the body comes in chunks, 0 where there is none, -2 for what is no length."""
    cdef const unsigned char *at
    cdef Py_ssize_t i, size
    cdef int64_t total = 0
    cdef bytes announced = found.get(b"content-length")
    if announced is None:
        return -1 if b"transfer-encoding" in found else 0
    at = <const unsigned char *>PyBytes_AS_STRING(announced)
    size = PyBytes_GET_SIZE(announced)
    for i in range(size):
        if i == 15 or not 48 <= at[i] <= 57:
            return -2
        total = total * 10 + at[i] - 48
    return total if size else -2


cpdef bytes credential(dict found, bytes query):
    cdef bytes token
    cdef const char *at
    cdef Py_ssize_t size
    bearer = found.get(b"authorization")
    if bearer is not None:
        at, size = PyBytes_AS_STRING(<bytes?>bearer), PyBytes_GET_SIZE(bearer)
        # As every client writes it: nothing at either end that is to be stripped.
        if size > 7 and memcmp(at, b"Bearer ", 7) == 0 and at[7] > 32 and at[size - 1] > 32:
            return PyBytes_FromStringAndSize(at + 7, size - 7)
        scheme, _, token = (<bytes?>bearer).partition(b" ")
        if scheme == b"Bearer" or scheme.lower() == b"bearer":
            token = token.strip()
            if token:
                return token
    for name in KEYED:
        if name in found:
            return found[name].strip()
    if b"key=" in query:
        for pair in query.split(b"&"):
            if pair.startswith(b"key=") and len(pair) > 4:
                return pair[4:]
    return None


cpdef whole(message, Py_ssize_t length):
    cdef dict told
    if type(message) is not dict:  # the server's are; others may be any mapping
        message = dict(message)
    told = message
    body = told.get("body")
    if type(body) is bytes and len(<bytes>body) == length and told["type"] == "http.request":
        return body
    return None


cdef bytes number(int64_t value):
    cdef char text[24]
    cdef char *end = text + sizeof(text)
    cdef char *start = digits(end, <uint64_t>value if value > 0 else 0)
    return PyBytes_FromStringAndSize(start, end - start)


cdef uint64_t DOLLAR = 10 ** 12


cdef bytes dollars(picodollars):
    """As `money.usd_from_picodollars`, which is asked for what 64 bits do not hold: 0.1 us where it takes 1.0."""
    cdef char text[40]
    cdef char *end = text + sizeof(text)
    cdef char *start
    cdef char *point
    cdef char *least
    cdef int overflow = 0
    cdef long long amount = PyLong_AsLongLongAndOverflow(picodollars, &overflow)
    if overflow or amount < 0:
        return usd_from_picodollars(picodollars).encode()
    start = digits(end, <uint64_t>amount % DOLLAR)
    point = end - 13
    while start > point + 1:
        start -= 1
        start[0] = b"0"
    point[0] = b"."
    start = digits(point, <uint64_t>amount // DOLLAR)
    least = point + 8
    while end > least and end[-1] == b"0":
        end -= 1
    return PyBytes_FromStringAndSize(start, end - start)


cpdef list names(str request, str decision, list upstream_ids):
    name = PyUnicode_AsUTF8String(request)
    cdef list headers = [(b"x-request-id", name), (b"request-id", name), (b"x-router-request-id", name)]
    if decision:
        headers.append((b"x-router-decision-id", PyUnicode_AsUTF8String(decision)))
    if upstream_ids:
        headers.append((b"x-router-upstream-request-id", b", ".join(upstream_ids)))
    return headers


cpdef list accounts(double elapsed_s, cost_picodollars, usage):
    cdef list headers = [(b"x-router-latency-ms", number(<int64_t>(elapsed_s * 1000)))]
    if cost_picodollars is not None:
        headers.append((b"x-router-cost-usd", dollars(cost_picodollars)))
    if usage is not None:
        must_be(usage, USAGE)
        headers.append((b"x-router-tokens-input", number(input_total(usage))))
        headers.append((b"x-router-tokens-output", number(at(usage, of_usage.output))))
    return headers


cpdef tuple content(bytes kind, bytes body):
    return (b"content-type", kind), (b"content-length", number(PyBytes_GET_SIZE(body)))


def comment(list headers not None):
    cdef list parts = []
    for name, value in headers:
        parts.append(b": ")
        parts.append(name)
        parts.append(b": ")
        parts.append(value)
        parts.append(b"\n")
    parts.append(b"\n")
    return b"".join(parts)
