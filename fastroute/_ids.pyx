# cython: language_level=3, auto_pickle=False
"""The counting of names: `ids` draws what is random in them, and says what they look like."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memcpy

cdef extern from "Python.h":
    object PyUnicode_New(Py_ssize_t size, Py_UCS4 largest)
    void *PyUnicode_1BYTE_DATA(object text)

cdef enum:
    ROOM = 16

cdef const char *HEX = b"0123456789abcdef"
cdef str ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
cdef tuple PAIRS = tuple([first + second for first in ALPHABET for second in ALPHABET])


cdef class Counted:
    def __init__(self, str prefix not None, str request_prefix not None):
        self.prefix = prefix
        self.request_prefix = request_prefix.encode("ascii")
        self.carry(0)

    cpdef str decision(self):
        self.count += 1
        if self.count >> 10 != self.thousands:
            self.carry(self.count >> 10)
        return self.high + <str>PAIRS[self.count & 1023]

    cpdef str request(self):
        self.count += 1
        cdef char text[ROOM]
        cdef char *at = text + ROOM
        cdef unsigned long long left = self.count
        cdef Py_ssize_t size
        cdef char *into
        while True:
            at -= 1
            at[0] = HEX[left & 15]
            left >>= 4
            if left == 0:
                break
        size = PyBytes_GET_SIZE(self.request_prefix)
        name = PyUnicode_New(size + (text + ROOM - at), 127)
        into = <char *>PyUnicode_1BYTE_DATA(name)
        memcpy(into, PyBytes_AS_STRING(self.request_prefix), size)
        memcpy(into + size, at, text + ROOM - at)
        return name

    cdef int carry(self, long long thousands) except -1:
        """All characters but the last two stand for 1024 names, of which two go to each request."""
        self.thousands = thousands
        self.high = "".join([self.prefix, *[PAIRS[thousands >> shift & 1023] for shift in (30, 20, 10, 0)]])
        return 0
