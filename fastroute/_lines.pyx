# cython: language_level=3, auto_pickle=False
"""The lines of answered requests, written where they happen: a copy of five texts and four values between them.

As entries that the log's thread formats a line took four times as much, and the GIL from the requests. Nothing here knows
a file; `logs` takes the sheets. `_lines.pyi` states the contracts.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.long cimport PyLong_AsLongLongAndOverflow
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from fastroute._heads cimport digits

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL

cdef extern from *:
    """
    #include <time.h>
    static inline long long fr_wall_ms(void)
    {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
    }
    """
    long long fr_wall_ms() nogil

cdef enum:
    SHEET = 32768
    SECOND = 19    # 2026-01-01T00:00:00
    STAMP = 24     # and .000Z
    DIGITS = 20
    PIECES = 5


cdef class Sheet:
    """Whole lines in a row, until somebody takes them."""

    def __cinit__(self, Py_ssize_t room):
        self.text = <char *>malloc(room)
        if self.text == NULL:
            raise MemoryError
        self.room = room

    def __dealloc__(self):
        free(self.text)

    cdef int add(self, const char *text, Py_ssize_t size) except -1:
        memcpy(self.text + self.size, text, size)
        self.size += size
        return 0


cdef class Lines:
    cdef int look(self) except -1:
        """The moment it is, as text; a busy worker says several lines within a millisecond."""
        cdef long long now = fr_wall_ms()
        cdef int ms
        if now == self.instant:
            return 0
        if now // 1000 != self.second:
            text = self.second_of(now // 1000).encode()
            assert PyBytes_GET_SIZE(text) == SECOND
            memcpy(self.stamp, PyBytes_AS_STRING(text), SECOND)
            self.second = now // 1000
        ms = <int>(now % 1000)
        self.stamp[SECOND] = b"."
        self.stamp[SECOND + 1] = 48 + ms // 100
        self.stamp[SECOND + 2] = 48 + ms // 10 % 10
        self.stamp[SECOND + 3] = 48 + ms % 10
        self.stamp[SECOND + 4] = b"Z"
        self.instant = now
        return 0

    cpdef tuple form(self, tuple kind):
        if not self._requests:
            return None
        found = self._forms.get(kind)
        return self.form_of(kind) if found is None else found

    cpdef int answered(self, str request_id, tuple form, long long latency_ms, cost) except -1:
        cdef char number[DIGITS]
        cdef char dear[DIGITS]
        cdef const char *texts[PIECES + 4]
        cdef Py_ssize_t sizes[PIECES + 4]
        cdef Py_ssize_t whole = 0
        cdef int place, overflow = 0
        cdef long long small
        cdef bytes piece
        cdef Sheet sheet
        self.look()
        for place in range(PIECES):
            piece = <bytes?>form[place]
            texts[place * 2] = PyBytes_AS_STRING(piece)
            sizes[place * 2] = PyBytes_GET_SIZE(piece)
        texts[1] = self.stamp
        sizes[1] = STAMP
        texts[3] = PyUnicode_AsUTF8AndSize(request_id, &sizes[3])
        texts[5] = digits(number + DIGITS, latency_ms if latency_ms > 0 else 0)
        sizes[5] = number + DIGITS - texts[5]
        if cost is None:
            texts[7], sizes[7] = b"null", 4
        else:
            small = PyLong_AsLongLongAndOverflow(cost, &overflow)
            if overflow or small < 0:
                piece = str(cost).encode()
                texts[7], sizes[7] = PyBytes_AS_STRING(piece), PyBytes_GET_SIZE(piece)
            else:
                texts[7] = digits(dear + DIGITS, small)
                sizes[7] = dear + DIGITS - texts[7]
        for place in range(PIECES + 4):
            whole += sizes[place]
        if len(self._queue) + self.held >= self.most:
            self._drop(1)
            return 0
        sheet = self.sheet
        # In the order in which things were said: whatever else came after a sheet ends it.
        if (
            sheet is None
            or sheet.taken
            or sheet.room - sheet.size < whole
            or not self._queue
            or self._queue[-1] is not sheet
        ):
            sheet = self.sheet = Sheet(max(SHEET, whole))
            self._queue.append(sheet)
        for place in range(PIECES + 4):
            sheet.add(texts[place], sizes[place])
        sheet.lines += 1
        self.held += 1
        if not self.awake:
            self.wake()
        return 0

    def forget(self):
        self.sheet = None
        self.held = 0

    def adopt(self, Sheet sheet not None):
        self.held += sheet.lines

    def text_of(self, Sheet sheet not None):
        # One stretch under the GIL: nobody adds to a sheet that is taken, and nothing added is lost.
        sheet.taken = True
        self.held -= sheet.lines
        return PyBytes_FromStringAndSize(sheet.text, sheet.size)
