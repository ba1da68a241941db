# cython: language_level=3
"""A receipt's bytes, written piece by piece in their one order; `_paper.pyi` is its face.

The keys are known and their order with them, so nothing is collected, sorted or copied on the way: a third of the time
that an encoder takes over structs made for it. What is rare (a quote in a text, a number beyond 64 bits) is handed to
that encoder, so that both say the same of whatever they are given.
"""

from base64 import b32encode
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import blake2b, sha256

from msgspec import json

from fastroute.clock import iso
from fastroute.money import usd_from_picodollars
from fastroute.receipts.canonical import ReceiptError, canonical
from fastroute.receipts.told import DETAILS_MAX, FORMAT, GENESIS, NAME_MAX, AttemptLine, Charge, Particulars, Sealed
from fastroute.redaction import clip, scrub, scrub_text

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.long cimport PyLong_AsLongLongAndOverflow
from cpython.mem cimport PyMem_Free
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DecodeASCII
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcmp, memcpy, memmove, memset

from fastroute._domain cimport TARIFF, USAGE, of_tariff, of_usage
from fastroute._fields cimport at, must_be, offset_of

cdef object others = json.Encoder(order="sorted").encode

cdef int64_t PER_DOLLAR = 1_000_000_000_000
cdef const char *HEX = b"0123456789abcdef"
cdef enum:
    LINK = 32
    SIGNATURE = 79  # bytes of "signature":"<64 digits>",


cdef Py_ssize_t TOLD_ACCOUNT = offset_of(Particulars, "account")
cdef Py_ssize_t TOLD_ACCOUNT_NAME = offset_of(Particulars, "account_name")
cdef Py_ssize_t TOLD_ATTEMPTS = offset_of(Particulars, "attempts")
cdef Py_ssize_t TOLD_DECISION_ID = offset_of(Particulars, "decision_id")
cdef Py_ssize_t TOLD_DETAILS = offset_of(Particulars, "details")
cdef Py_ssize_t TOLD_FIRST_CHUNK_MS = offset_of(Particulars, "first_chunk_ms")
cdef Py_ssize_t TOLD_LATENCY_MS = offset_of(Particulars, "latency_ms")
cdef Py_ssize_t TOLD_MODEL = offset_of(Particulars, "model")
cdef Py_ssize_t TOLD_REASON = offset_of(Particulars, "reason")
cdef Py_ssize_t TOLD_REQUEST_ID = offset_of(Particulars, "request_id")
cdef Py_ssize_t TOLD_ROUTE_FINAL = offset_of(Particulars, "route_final")
cdef Py_ssize_t TOLD_STARTED_MS = offset_of(Particulars, "started_ms")
cdef Py_ssize_t TOLD_STATUS = offset_of(Particulars, "status")
cdef Py_ssize_t TOLD_STREAM = offset_of(Particulars, "stream")
cdef Py_ssize_t TOLD_SURFACE = offset_of(Particulars, "surface")
cdef Py_ssize_t LINE_ATTEMPT = offset_of(AttemptLine, "attempt")
cdef Py_ssize_t LINE_BASIS = offset_of(AttemptLine, "basis")
cdef Py_ssize_t LINE_CHARGES = offset_of(AttemptLine, "charges")
cdef Py_ssize_t LINE_ENTRY = offset_of(AttemptLine, "entry")
cdef Py_ssize_t LINE_LANE = offset_of(AttemptLine, "lane")
cdef Py_ssize_t LINE_MICRODOLLARS = offset_of(AttemptLine, "microdollars")
cdef Py_ssize_t LINE_MODEL = offset_of(AttemptLine, "model")
cdef Py_ssize_t LINE_MS = offset_of(AttemptLine, "ms")
cdef Py_ssize_t LINE_OUTCOME = offset_of(AttemptLine, "outcome")
cdef Py_ssize_t LINE_PICODOLLARS = offset_of(AttemptLine, "picodollars")
cdef Py_ssize_t LINE_PRICE = offset_of(AttemptLine, "price")
cdef Py_ssize_t LINE_RESERVED_MICRODOLLARS = offset_of(AttemptLine, "reserved_microdollars")
cdef Py_ssize_t LINE_STATUS = offset_of(AttemptLine, "status")
cdef Py_ssize_t LINE_USAGE = offset_of(AttemptLine, "usage")
cdef Py_ssize_t CHARGE_ACCOUNT = offset_of(Charge, "account")
cdef Py_ssize_t CHARGE_CHARGED = offset_of(Charge, "charged")
cdef Py_ssize_t CHARGE_RESERVED = offset_of(Charge, "reserved")
cdef Py_ssize_t CHARGE_UNIT = offset_of(Charge, "unit")
cdef Py_ssize_t CHARGE_WINDOW = offset_of(Charge, "window")
cdef object the_line = AttemptLine, the_charge = Charge, the_particulars = Particulars


cdef extern from *:
    """
    typedef struct {
        char first[4096];  /* nearly always enough, and free */
        char *bytes;
        Py_ssize_t size, room;
    } fastroute_sheet;

    static int fastroute_grow(fastroute_sheet *sheet, Py_ssize_t wanted)
    {
        void *grown = PyMem_Realloc(sheet->bytes == sheet->first ? NULL : sheet->bytes, 2 * wanted);
        if (grown == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        if (sheet->bytes == sheet->first) memcpy(grown, sheet->first, sheet->size);
        sheet->bytes = grown;
        sheet->room = 2 * wanted;
        return 0;
    }

    static inline char *fastroute_more(fastroute_sheet *sheet, Py_ssize_t count)
    {
        if (sheet->size + count > sheet->room && fastroute_grow(sheet, sheet->size + count)) return NULL;
        return sheet->bytes + sheet->size;
    }

    static inline __attribute__((always_inline)) int fastroute_put(fastroute_sheet *sheet, const char *at, Py_ssize_t size)
    {
        char *to = fastroute_more(sheet, size);
        if (to == NULL) return -1;
        memcpy(to, at, size);
        sheet->size += size;
        return 0;
    }

    /* Inline wherever it stands, so that the length of the words is known there. */
    static inline __attribute__((always_inline)) int fastroute_say(fastroute_sheet *sheet, const char *words)
    {
        return fastroute_put(sheet, words, strlen(words));
    }

    /* Whether it stands for itself inside a JSON text: it holds no control, no quote and no backslash. */
    static inline int fastroute_plain(const char *at, Py_ssize_t size)
    {
        const uint64_t ones = 0x0101010101010101u;
        uint64_t word, quote, slash;
        for (; size > 0; at += 8, size -= 8) {
            word = 0x2020202020202020u;
            if (size >= 8) memcpy(&word, at, 8);
            else memcpy(&word, at, size);
            quote = word ^ ones * '"';
            slash = word ^ ones * '\\\\';
            if (((word - ones * 0x20) & ~word | (quote - ones) & ~quote | (slash - ones) & ~slash) & ones * 0x80) return 0;
        }
        return 1;
    }

    /* A number in at least so many digits, two at a time. */
    static int fastroute_digits(fastroute_sheet *sheet, uint64_t value, int least)
    {
        char turned[24], *to = turned + 24;
        while (value >= 10 || least > 1) {
            unsigned pair = value % 100;
            value /= 100;
            least -= 2;
            *--to = '0' + pair % 10;
            *--to = '0' + pair / 10;
        }
        if (value || least > 0) *--to = '0' + (char)value;
        return fastroute_put(sheet, to, turned + 24 - to);
    }
    """
    ctypedef struct Sheet "fastroute_sheet":
        char first[4096]
        char *bytes
        Py_ssize_t size
        Py_ssize_t room

    char *more "fastroute_more" (Sheet *sheet, Py_ssize_t count) except NULL  # where so many bytes may be written
    int put "fastroute_put" (Sheet *sheet, const char *at, Py_ssize_t size) except -1
    int say "fastroute_say" (Sheet *sheet, const char *words) except -1
    bint plain "fastroute_plain" (const char *at, Py_ssize_t size) noexcept  # looks at bytes
    int digits "fastroute_digits" (Sheet *sheet, uint64_t value, int least) except -1


cdef int rare(Sheet *sheet, value) except -1:
    cdef bytes encoded = others(value)
    return put(sheet, PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded))


cdef int text(Sheet *sheet, value) except -1:
    cdef Py_ssize_t size
    cdef const char *chars
    cdef char *to
    if type(value) is not str:
        return say(sheet, b"null") if value is None else rare(sheet, value)
    chars = PyUnicode_AsUTF8AndSize(value, &size)
    if not plain(chars, size):
        return rare(sheet, value)
    to = more(sheet, size + 2)
    to[0] = c'"'
    memcpy(to + 1, chars, size)
    to[size + 1] = c'"'
    sheet.size += size + 2
    return 0


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


cdef int usage(Sheet *sheet, input, output, cache_read, cache_write, reasoning) except -1:
    say(sheet, b'{"cache_read":')
    number(sheet, cache_read)
    say(sheet, b',"cache_write":')
    number(sheet, cache_write)
    say(sheet, b',"input":')
    number(sheet, input)
    say(sheet, b',"output":')
    number(sheet, output)
    say(sheet, b',"reasoning":')
    number(sheet, reasoning)
    return say(sheet, b"}")


cdef int used_by(Sheet *sheet, used) except -1:
    must_be(used, USAGE)
    return usage(sheet, at(used, of_usage.input), at(used, of_usage.output), at(used, of_usage.cache_read),
                 at(used, of_usage.cache_write), at(used, of_usage.reasoning))


cdef int price(Sheet *sheet, tariff) except -1:
    if tariff is None:
        return say(sheet, b"null")
    must_be(tariff, TARIFF)
    say(sheet, b'{"cache_read":')
    number(sheet, at(tariff, of_tariff.cache_read))
    say(sheet, b',"cache_write":')
    number(sheet, at(tariff, of_tariff.cache_write))
    say(sheet, b',"input":')
    number(sheet, at(tariff, of_tariff.input))
    say(sheet, b',"output":')
    number(sheet, at(tariff, of_tariff.output))
    say(sheet, b',"source":')
    text(sheet, at(tariff, of_tariff.source))
    return say(sheet, b"}")


cdef int charge(Sheet *sheet, one) except -1:
    must_be(one, the_charge)
    say(sheet, b'{"account":')
    text(sheet, at(one, CHARGE_ACCOUNT))
    say(sheet, b',"charged":')
    number(sheet, at(one, CHARGE_CHARGED))
    say(sheet, b',"reserved":')
    number(sheet, at(one, CHARGE_RESERVED))
    say(sheet, b',"unit":')
    text(sheet, at(one, CHARGE_UNIT))
    say(sheet, b',"window":')
    text(sheet, at(one, CHARGE_WINDOW))
    return say(sheet, b"}")


cdef int attempt(Sheet *sheet, line) except -1:
    cdef bint first = True
    say(sheet, b'{"attempt":')
    number(sheet, at(line, LINE_ATTEMPT))
    say(sheet, b',"basis":')
    text(sheet, at(line, LINE_BASIS))
    say(sheet, b',"charges":[')
    for one in <tuple?>at(line, LINE_CHARGES):
        if not first:
            say(sheet, b",")
        first = False
        charge(sheet, one)
    say(sheet, b'],"entry":')
    text(sheet, at(line, LINE_ENTRY))
    say(sheet, b',"lane":')
    text(sheet, at(line, LINE_LANE))
    say(sheet, b',"microdollars":')
    number(sheet, at(line, LINE_MICRODOLLARS))
    say(sheet, b',"model":')
    text(sheet, at(line, LINE_MODEL))
    say(sheet, b',"ms":')
    number(sheet, at(line, LINE_MS))
    say(sheet, b',"outcome":')
    text(sheet, at(line, LINE_OUTCOME))
    say(sheet, b',"picodollars":')
    number(sheet, at(line, LINE_PICODOLLARS))
    say(sheet, b',"price":')
    price(sheet, at(line, LINE_PRICE))
    say(sheet, b',"reserved_microdollars":')
    number(sheet, at(line, LINE_RESERVED_MICRODOLLARS))
    say(sheet, b',"status":')
    number(sheet, at(line, LINE_STATUS))
    say(sheet, b',"usage":')
    used_by(sheet, at(line, LINE_USAGE))
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
            must_be(line, the_line)
            used = at(line, LINE_USAGE)
            must_be(used, USAGE)
            if first:
                first = False
                self.primary = entry = at(line, LINE_ENTRY)
                self.input, self.output, self.reasoning = at(used, of_usage.input), at(used, of_usage.output), at(used, of_usage.reasoning)
                self.cache_read, self.cache_write = at(used, of_usage.cache_read), at(used, of_usage.cache_write)
                self.picodollars, self.microdollars = at(line, LINE_PICODOLLARS), at(line, LINE_MICRODOLLARS)
            else:
                self.fallbacks += at(line, LINE_ENTRY) != entry
                entry = at(line, LINE_ENTRY)
                self.input += at(used, of_usage.input)
                self.output += at(used, of_usage.output)
                self.cache_read += at(used, of_usage.cache_read)
                self.cache_write += at(used, of_usage.cache_write)
                self.reasoning += at(used, of_usage.reasoning)
                self.picodollars = added(self.picodollars, at(line, LINE_PICODOLLARS))
                self.microdollars = added(self.microdollars, at(line, LINE_MICRODOLLARS))
            self.last = at(line, LINE_OUTCOME)
        if first:
            self.input = self.output = self.cache_read = self.cache_write = self.reasoning = 0
            self.picodollars = self.microdollars = 0


cdef object added(one, other):
    return None if one is None or other is None else one + other


cdef int head(Sheet *sheet, told, Sum total, str name, str kid, str model, details, bytes previous, seq) except -1:
    """All before `signature`."""
    cdef bint first = True
    say(sheet, b'{"account":')
    text(sheet, at(told, TOLD_ACCOUNT))
    say(sheet, b',"account_name":')
    text(sheet, at(told, TOLD_ACCOUNT_NAME))
    say(sheet, b',"attempts":[')
    for line in <tuple?>at(told, TOLD_ATTEMPTS):
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
    text(sheet, at(told, TOLD_DECISION_ID))
    say(sheet, b',"details":')
    if details:
        rare(sheet, details)
    else:
        say(sheet, b"{}")
    say(sheet, b',"fallback_count":')
    number(sheet, total.fallbacks)
    say(sheet, b',"first_chunk_ms":')
    number(sheet, at(told, TOLD_FIRST_CHUNK_MS))
    say(sheet, b',"id":')
    text(sheet, name)
    say(sheet, b',"kid":')
    text(sheet, kid)
    say(sheet, b',"latency_ms":')
    number(sheet, at(told, TOLD_LATENCY_MS))
    say(sheet, b',"model":')
    text(sheet, model)
    say(sheet, b',"outcome":')
    if at(told, TOLD_STATUS) >= 400:
        say(sheet, b'"failed"')
    elif total.last is not None and total.last not in ("ok", "low_quality"):
        say(sheet, b'"partial"')
    else:
        say(sheet, b'"ok"')
    say(sheet, b',"previous":"')
    hexadecimal(sheet, previous)
    say(sheet, b'","reason":')
    text(sheet, at(told, TOLD_REASON))
    say(sheet, b',"request_id":')
    text(sheet, at(told, TOLD_REQUEST_ID))
    final = at(told, TOLD_ROUTE_FINAL) or None
    say(sheet, b',"route_final":')
    text(sheet, final)
    say(sheet, b',"route_primary":')
    text(sheet, final if total.last is None else total.primary or None)
    say(sheet, b',"seq":')
    return number(sheet, seq)


cdef int tail(Sheet *sheet, told, Sum total, str ts, version) except -1:
    """All after it."""
    say(sheet, b'"status":')
    number(sheet, at(told, TOLD_STATUS))
    say(sheet, b',"stream":')
    truth(sheet, at(told, TOLD_STREAM))
    say(sheet, b',"surface":')
    text(sheet, at(told, TOLD_SURFACE))
    say(sheet, b',"ts":')
    text(sheet, ts)
    say(sheet, b',"usage":')
    usage(sheet, total.input, total.output, total.cache_read, total.cache_write, total.reasoning)
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


class Signer:
    def __init__(self, bytes key not None):
        if len(key) > 64:
            key = sha256(key).digest()
        key = key.ljust(64, b"\0")
        self._inner = sha256(bytes([byte ^ 0x36 for byte in key]))
        self._outer = sha256(bytes([byte ^ 0x5C for byte in key]))

    def sign(self, message):
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(message)
        outer.update(inner.digest())
        return outer.digest()


cdef class Sealer:
    cdef readonly object kid
    cdef public object seq, _sign
    cdef public bytes link
    cdef int64_t second
    cdef str date

    def __init__(self, key, kid, seq=0, bytes link not None=GENESIS):
        if seq < 0 or len(link) != LINK or (seq == 0) != (link == GENESIS):
            raise ReceiptError(f"a chain goes on from a number and the 32 bytes of its link, not from {seq}")
        self.seq = seq
        self.link = link
        self.second = -1
        self.date = ""
        self.use(key, kid)

    def use(self, key, kid):
        self._sign = Signer(key).sign
        self.kid = kid

    def seal(self, told):
        must_be(told, the_particulars)
        if self.link is None or PyBytes_GET_SIZE(self.link) != LINK:
            raise ReceiptError("a chain goes on from the 32 bytes of a link")
        seq = self.seq + 1
        name = receipt_id(at(told, TOLD_REQUEST_ID))
        model = at(told, TOLD_MODEL)
        model = shown(model if len(model) <= NAME_MAX else clip(model, NAME_MAX))
        details = at(told, TOLD_DETAILS)
        if details:
            details = fit(details)
        body, link = written(told, name, self.kid, model, details, self.link, seq, self.ts(at(told, TOLD_STARTED_MS)), self._sign)
        self.seq = seq
        self.link = link
        return Sealed(name, seq, body, link)

    cdef str ts(self, int64_t at_ms):
        cdef int64_t second = at_ms // 1000
        if second != self.second:
            self.date = iso(datetime.fromtimestamp(second, UTC))[:-4]
            self.second = second
        return f"{self.date}{at_ms % 1000:03d}Z"


@lru_cache(maxsize=1024)
def shown(name):
    """The name a caller sent, who may have pasted a key there."""
    return scrub_text(name)


def fit(details):
    try:
        length = len(canonical(details))
        if length > DETAILS_MAX:
            raise ReceiptError(f"details are at most {DETAILS_MAX} bytes, not {length}")
    except ReceiptError as error:
        return {"refused": str(error)}
    return scrub(details)


cdef tuple written(told, str name, str kid, str model, details, bytes previous, seq, str ts, sign):
    """The receipt's bytes and its signature, which `sign` makes of those without it.

    `model` and `details` are told instead of the particulars' own: nothing in them looks like a key.
    """
    cdef Sheet sheet
    cdef Py_ssize_t cut, size
    cdef bytes link
    cdef Sum total
    sheet.size = 0
    sheet.room = sizeof(sheet.first)
    sheet.bytes = sheet.first
    try:
        total = Sum(at(told, TOLD_ATTEMPTS))
        head(&sheet, told, total, name, kid, model, details, previous, seq)
        say(&sheet, b",")
        cut = sheet.size
        tail(&sheet, told, total, ts, FORMAT)
        link = <bytes?>sign(PyBytes_FromStringAndSize(sheet.bytes, sheet.size))
        if PyBytes_GET_SIZE(link) != LINK:
            raise ValueError(f"a signature has {LINK} bytes, not {PyBytes_GET_SIZE(link)}")
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


cdef bint is_ours(const char *at, Py_ssize_t size) noexcept:  # looks at bytes
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
