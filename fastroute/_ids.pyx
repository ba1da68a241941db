# cython: language_level=3, auto_pickle=False
"""The counting of names: `ids` draws what is random in them, and says what they look like."""

from cpython.unicode cimport PyUnicode_Concat, PyUnicode_DecodeASCII

cdef enum:
    ROOM = 16

cdef const char *HEX = b"0123456789abcdef"
cdef str ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
cdef tuple PAIRS = tuple([first + second for first in ALPHABET for second in ALPHABET])


cdef class Counted:
    def __init__(self, str prefix not None, str request_prefix not None):
        self.prefix = prefix
        self.request_prefix = request_prefix
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
        while True:
            at -= 1
            at[0] = HEX[left & 15]
            left >>= 4
            if left == 0:
                break
        return PyUnicode_Concat(self.request_prefix, PyUnicode_DecodeASCII(at, text + ROOM - at, NULL))

    cdef int carry(self, long long thousands) except -1:
        """All characters but the last two stand for 1024 names, of which two go to each request."""
        self.thousands = thousands
        self.high = "".join([self.prefix, *[PAIRS[thousands >> shift & 1023] for shift in (30, 20, 10, 0)]])
        return 0
