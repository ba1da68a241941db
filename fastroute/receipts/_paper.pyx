# cython: language_level=3
"""A receipt's bytes, written piece by piece in their one order; `_paper.pyi` is its face.

The keys are known and their order with them, so nothing is collected, sorted or copied on the way: a third of the time
that an encoder takes over structs made for it. What is rare (a quote in a text, a number beyond 64 bits) is handed to
that encoder, so that both say the same of whatever they are given.
"""

from base64 import b32encode
from hashlib import blake2b

from msgspec import json

from fastroute.money import usd_from_picodollars

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.long cimport PyLong_AsLongLongAndOverflow
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DecodeASCII
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcmp, memcpy, memmove, memset, strlen

cdef object others = json.Encoder(order="sorted").encode

# What stands for itself inside a JSON text: all but controls, the quote and the backslash.
cdef bint PLAIN[256]
for _code in range(256):
    PLAIN[_code] = _code >= 0x20 and _code not in b'"\\'

cdef int64_t PER_DOLLAR = 1_000_000_000_000
cdef const char *HEX = b"0123456789abcdef"
cdef enum:
    SIGNATURE = 79  # bytes of "signature":"<64 digits>",


cdef struct Sheet:
    char first[4096]  # nearly always enough, and free
    char *bytes
    Py_ssize_t size
    Py_ssize_t room


cdef inline char *more(Sheet *sheet, Py_ssize_t count) except NULL:
    """Where so many bytes may be written."""
    cdef Py_ssize_t wanted = sheet.size + count
    cdef void *grown
    if wanted > sheet.room:
        wanted *= 2
        grown = PyMem_Realloc(NULL if sheet.bytes == sheet.first else sheet.bytes, wanted)
        if grown == NULL:
            raise MemoryError
        if sheet.bytes == sheet.first:
            memcpy(grown, sheet.first, sheet.size)
        sheet.bytes = <char *>grown
        sheet.room = wanted
    return sheet.bytes + sheet.size


cdef inline int put(Sheet *sheet, const char *at, Py_ssize_t size) except -1:
    memcpy(more(sheet, size), at, size)
    sheet.size += size
    return 0


cdef inline int say(Sheet *sheet, const char *words) except -1:
    return put(sheet, words, strlen(words))


cdef int rare(Sheet *sheet, value) except -1:
    cdef bytes encoded = others(value)
    return put(sheet, PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded))


cdef int text(Sheet *sheet, value) except -1:
    cdef Py_ssize_t i, size
    cdef const unsigned char *at
    cdef char *to
    if type(value) is not str:
        return say(sheet, b"null") if value is None else rare(sheet, value)
    at = <const unsigned char *>PyUnicode_AsUTF8AndSize(value, &size)
    for i in range(size):
        if not PLAIN[at[i]]:
            return rare(sheet, value)
    to = more(sheet, size + 2)
    to[0] = c'"'
    memcpy(to + 1, at, size)
    to[size + 1] = c'"'
    sheet.size += size + 2
    return 0


cdef int digits(Sheet *sheet, uint64_t value, int least) except -1:
    """A number in at least so many digits."""
    cdef char turned[24]
    cdef int count = 24
    while value or least > 0:
        count -= 1
        least -= 1
        turned[count] = c"0" + <char>(value % 10)
        value //= 10
    return put(sheet, turned + count, 24 - count)


cdef int number(Sheet *sheet, value) except -1:
    cdef int64_t small
    cdef int beyond = 0
    if type(value) is not int:
        return say(sheet, b"null") if value is None else rare(sheet, value)
    small = PyLong_AsLongLongAndOverflow(value, &beyond)
    if beyond:
        return rare(sheet, value)
    if small < 0:
        say(sheet, b"-")
        return digits(sheet, -<uint64_t>small, 1)
    return digits(sheet, <uint64_t>small, 1)


cdef int truth(Sheet *sheet, value) except -1:
    if value is True:
        return say(sheet, b"true")
    return say(sheet, b"false") if value is False else rare(sheet, value)


cdef int dollars(Sheet *sheet, picodollars) except -1:
    """Exact, with seven decimals and up to twelve where they are needed."""
    cdef int64_t amount
    cdef int beyond = 0
    cdef Py_ssize_t least
    if picodollars is None:
        return say(sheet, b"null")
    amount = PyLong_AsLongLongAndOverflow(picodollars, &beyond)
    if beyond or amount < 0:
        return text(sheet, usd_from_picodollars(picodollars))
    say(sheet, b'"')
    digits(sheet, amount // PER_DOLLAR, 1)
    say(sheet, b".")
    least = sheet.size + 7
    digits(sheet, amount % PER_DOLLAR, 12)
    while sheet.size > least and sheet.bytes[sheet.size - 1] == c"0":
        sheet.size -= 1
    return say(sheet, b'"')


cdef int usage(Sheet *sheet, used) except -1:
    say(sheet, b'{"cache_read":')
    number(sheet, used.cache_read)
    say(sheet, b',"cache_write":')
    number(sheet, used.cache_write)
    say(sheet, b',"input":')
    number(sheet, used.input)
    say(sheet, b',"output":')
    number(sheet, used.output)
    say(sheet, b',"reasoning":')
    number(sheet, used.reasoning)
    return say(sheet, b"}")


cdef int price(Sheet *sheet, rates) except -1:
    if rates is None:
        return say(sheet, b"null")
    say(sheet, b'{"cache_read":')
    number(sheet, rates.cache_read)
    say(sheet, b',"cache_write":')
    number(sheet, rates.cache_write)
    say(sheet, b',"input":')
    number(sheet, rates.input)
    say(sheet, b',"output":')
    number(sheet, rates.output)
    return say(sheet, b"}")


cdef int charge(Sheet *sheet, one) except -1:
    say(sheet, b'{"account":')
    text(sheet, one.account)
    say(sheet, b',"charged":')
    number(sheet, one.charged)
    say(sheet, b',"reserved":')
    number(sheet, one.reserved)
    say(sheet, b',"unit":')
    text(sheet, one.unit)
    say(sheet, b',"window":')
    text(sheet, one.window)
    return say(sheet, b"}")


cdef int attempt(Sheet *sheet, line) except -1:
    cdef bint first = True
    say(sheet, b'{"attempt":')
    number(sheet, line.attempt)
    say(sheet, b',"basis":')
    text(sheet, line.basis)
    say(sheet, b',"charges":[')
    for one in <tuple>line.charges:
        if not first:
            say(sheet, b",")
        first = False
        charge(sheet, one)
    say(sheet, b'],"entry":')
    text(sheet, line.entry)
    say(sheet, b',"lane":')
    text(sheet, line.lane)
    say(sheet, b',"microdollars":')
    number(sheet, line.microdollars)
    say(sheet, b',"model":')
    text(sheet, line.model)
    say(sheet, b',"ms":')
    number(sheet, line.ms)
    say(sheet, b',"outcome":')
    text(sheet, line.outcome)
    say(sheet, b',"picodollars":')
    number(sheet, line.picodollars)
    say(sheet, b',"price":')
    price(sheet, line.price)
    say(sheet, b',"reserved_microdollars":')
    number(sheet, line.reserved_microdollars)
    say(sheet, b',"status":')
    number(sheet, line.status)
    say(sheet, b',"usage":')
    usage(sheet, line.usage)
    return say(sheet, b"}")


cdef class Sum:
    """What a request's attempts come to; one of an unknown price leaves the cost unknown."""

    cdef readonly object input, output, cache_read, cache_write, reasoning
    cdef object picodollars, microdollars
    cdef object primary  # the entry that was tried first
    cdef object last  # how the last attempt went
    cdef int fallbacks

    def __cinit__(self, tuple attempts):
        cdef bint first = True
        entry = None
        self.last = None
        for line in attempts:
            used = line.usage
            if first:
                first = False
                self.primary = entry = line.entry
                self.input, self.output, self.reasoning = used.input, used.output, used.reasoning
                self.cache_read, self.cache_write = used.cache_read, used.cache_write
                self.picodollars, self.microdollars = line.picodollars, line.microdollars
            else:
                self.fallbacks += line.entry != entry
                entry = line.entry
                self.input += used.input
                self.output += used.output
                self.cache_read += used.cache_read
                self.cache_write += used.cache_write
                self.reasoning += used.reasoning
                self.picodollars = added(self.picodollars, line.picodollars)
                self.microdollars = added(self.microdollars, line.microdollars)
            self.last = line.outcome
        if first:
            self.input = self.output = self.cache_read = self.cache_write = self.reasoning = 0
            self.picodollars = self.microdollars = 0


cdef object added(one, other):
    return None if one is None or other is None else one + other


cdef int head(Sheet *sheet, told, Sum total, str name, str kid, str model, details, bytes previous, seq) except -1:
    """All before `signature`."""
    cdef bint first = True
    say(sheet, b'{"account":')
    text(sheet, told.account)
    say(sheet, b',"account_name":')
    text(sheet, told.account_name)
    say(sheet, b',"attempts":[')
    for line in <tuple>told.attempts:
        if not first:
            say(sheet, b",")
        first = False
        attempt(sheet, line)
    say(sheet, b'],"cost_microdollars":')
    number(sheet, total.microdollars)
    say(sheet, b',"cost_picodollars":')
    number(sheet, total.picodollars)
    say(sheet, b',"cost_usd":')
    dollars(sheet, total.picodollars)
    say(sheet, b',"decision_id":')
    text(sheet, told.decision_id)
    say(sheet, b',"details":')
    if details:
        rare(sheet, details)
    else:
        say(sheet, b"{}")
    say(sheet, b',"fallback_count":')
    number(sheet, total.fallbacks)
    say(sheet, b',"first_chunk_ms":')
    number(sheet, told.first_chunk_ms)
    say(sheet, b',"id":')
    text(sheet, name)
    say(sheet, b',"kid":')
    text(sheet, kid)
    say(sheet, b',"latency_ms":')
    number(sheet, told.latency_ms)
    say(sheet, b',"model":')
    text(sheet, model)
    say(sheet, b',"outcome":')
    if told.status >= 400:
        say(sheet, b'"failed"')
    elif total.last is not None and total.last not in ("ok", "low_quality"):
        say(sheet, b'"partial"')
    else:
        say(sheet, b'"ok"')
    say(sheet, b',"previous":"')
    hexadecimal(sheet, previous)
    say(sheet, b'","price_table":')
    text(sheet, told.price_table)
    say(sheet, b',"reason":')
    text(sheet, told.reason)
    say(sheet, b',"request_id":')
    text(sheet, told.request_id)
    final = told.route_final or None
    say(sheet, b',"route_final":')
    text(sheet, final)
    say(sheet, b',"route_primary":')
    text(sheet, final if total.last is None else total.primary or None)
    say(sheet, b',"seq":')
    return number(sheet, seq)


cdef int tail(Sheet *sheet, told, Sum total, str ts, version) except -1:
    """All after it."""
    say(sheet, b'"status":')
    number(sheet, told.status)
    say(sheet, b',"stream":')
    truth(sheet, told.stream)
    say(sheet, b',"surface":')
    text(sheet, told.surface)
    say(sheet, b',"ts":')
    text(sheet, ts)
    say(sheet, b',"usage":')
    usage(sheet, total)
    say(sheet, b',"v":')
    number(sheet, version)
    return say(sheet, b"}")


cdef int hexadecimal(Sheet *sheet, bytes value) except -1:
    cdef Py_ssize_t i, size = PyBytes_GET_SIZE(value)
    cdef const unsigned char *at = <const unsigned char *>PyBytes_AS_STRING(value)
    cdef char *to = more(sheet, 2 * size)
    for i in range(size):
        to[2 * i] = HEX[at[i] >> 4]
        to[2 * i + 1] = HEX[at[i] & 15]
    sheet.size += 2 * size
    return 0


def written(told, str name, str kid, str model, details, bytes previous, seq, str ts, version, sign):
    cdef Sheet sheet
    cdef Py_ssize_t cut, size
    cdef bytes link
    cdef Sum total
    sheet.size = 0
    sheet.room = sizeof(sheet.first)
    sheet.bytes = sheet.first
    try:
        total = Sum(told.attempts)
        head(&sheet, told, total, name, kid, model, details, previous, seq)
        say(&sheet, b",")
        cut = sheet.size
        tail(&sheet, told, total, ts, version)
        link = sign(PyBytes_FromStringAndSize(sheet.bytes, sheet.size))
        # What is signed is the receipt without its signature, which goes to where it is sorted.
        more(&sheet, SIGNATURE)
        memmove(sheet.bytes + cut + SIGNATURE, sheet.bytes + cut, sheet.size - cut)
        size = sheet.size + SIGNATURE
        sheet.size = cut
        say(&sheet, b'"signature":"')
        hexadecimal(&sheet, link)
        say(&sheet, b'",')
        return PyBytes_FromStringAndSize(sheet.bytes, size), link
    finally:
        if sheet.bytes != sheet.first:
            PyMem_Free(sheet.bytes)


def receipt_id(str request_id not None):
    cdef Py_ssize_t i, size = 0
    cdef char name[31]
    cdef char digit
    cdef const char *at
    if request_id.isascii():
        at = PyUnicode_AsUTF8AndSize(request_id, &size)
        if is_ours(at, size):
            memcpy(name, b"rcpt_", 5)
            memcpy(name + 5, at + 4, 8)
            memset(name + 13, c"w", 18)
            for i in range(12, size):
                digit = at[i]
                # Hexadecimal digits that base32 has no character for become letters that hexadecimal does not use.
                if digit < c"2":
                    digit += c"w" - c"0"
                elif digit == c"8" or digit == c"9":
                    digit += c"y" - c"8"
                name[31 - size + i] = digit
            return PyUnicode_DecodeASCII(name, 31, NULL)
    hashed = blake2b(request_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return "rcpt_" + b32encode(hashed).decode().rstrip("=").lower()


cdef bint is_ours(const char *at, Py_ssize_t size) noexcept:
    """Whether it is `req_`, eight characters of base32 and a count of up to 18 hexadecimal digits without a zero before."""
    cdef Py_ssize_t i
    if not 13 <= size <= 30 or memcmp(at, b"req_", 4) != 0 or at[12] == c"0":
        return False
    for i in range(4, 12):
        if not (c"a" <= at[i] <= c"z" or c"2" <= at[i] <= c"7"):
            return False
    for i in range(12, size):
        if not (c"a" <= at[i] <= c"f" or c"0" <= at[i] <= c"9"):
            return False
    return True
