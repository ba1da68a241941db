# cython: language_level=3, auto_pickle=False
"""What every request under a key asks of the worker's teller: whose token it is, as far as that is remembered.

What is not remembered is asked for by `teller`, in Python; `_teller.pyi` states the contracts.
"""

import hashlib
import os

from cpython.buffer cimport Py_buffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memcpy

from fastroute._now cimport now_ms

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    #define FR_TURN(x, by) (((x) << (by)) | ((x) >> (64 - (by))))
    #define FR_ROUND(v) do { \\
        v[0] += v[1]; v[1] = FR_TURN(v[1], 13) ^ v[0]; v[0] = FR_TURN(v[0], 32); \\
        v[2] += v[3]; v[3] = FR_TURN(v[3], 16) ^ v[2]; \\
        v[0] += v[3]; v[3] = FR_TURN(v[3], 21) ^ v[0]; \\
        v[2] += v[1]; v[1] = FR_TURN(v[1], 17) ^ v[2]; v[2] = FR_TURN(v[2], 32); \\
    } while (0)

    /* SipHash-2-4 of 128 bits, as its authors have it. */
    static void fr_siphash(const uint64_t *secret, const char *at, size_t size, uint64_t *out)
    {
        uint64_t v[4] = {0x736f6d6570736575ULL ^ secret[0], 0x646f72616e646f6dULL ^ secret[1] ^ 0xee,
                         0x6c7967656e657261ULL ^ secret[0], 0x7465646279746573ULL ^ secret[1]};
        uint64_t word, last = (uint64_t)size << 56;
        size_t left;
        int i;
        for (left = size; left >= 8; left -= 8, at += 8) {
            memcpy(&word, at, 8);
            v[3] ^= word;
            FR_ROUND(v); FR_ROUND(v);
            v[0] ^= word;
        }
        for (i = 0; i < (int)left; i++) last |= (uint64_t)(unsigned char)at[i] << (8 * i);
        v[3] ^= last;
        FR_ROUND(v); FR_ROUND(v);
        v[0] ^= last;
        v[2] ^= 0xee;
        for (i = 0; i < 4; i++) FR_ROUND(v);
        out[0] = v[0] ^ v[1] ^ v[2] ^ v[3];
        v[1] ^= 0xdd;
        for (i = 0; i < 4; i++) FR_ROUND(v);
        out[1] = v[0] ^ v[1] ^ v[2] ^ v[3];
    }
    """
    void fr_siphash(const uint64_t *secret, const char *at, size_t size, uint64_t *out) nogil

cdef extern from "Python.h":
    Py_buffer *PyMemoryView_GET_BUFFER(object view)


def siphash(bytes secret not None, bytes data not None):
    cdef uint64_t key[2]
    cdef uint64_t mark[2]
    if len(secret) != 16:
        raise ValueError(f"a secret has 16 bytes, not {len(secret)}")
    memcpy(key, PyBytes_AS_STRING(secret), 16)
    fr_siphash(key, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), mark)
    return (<char *>mark)[:16]


cdef class Digester:
    def __init__(self, bytes pepper not None):
        key = (pepper if len(pepper) <= 64 else hashlib.sha256(pepper).digest()).ljust(64, b"\0")
        self.inner = hashlib.sha256(bytes([byte ^ 0x36 for byte in key]))
        self.outer = hashlib.sha256(bytes([byte ^ 0x5C for byte in key]))

    cpdef bytes digest(self, bytes token):
        within, around = self.inner.copy(), self.outer.copy()
        within.update(token)
        around.update(within.digest())
        return around.digest()


cdef class TellerCore(TillCore):
    def __cinit__(self, *_, **__):
        cdef bytes secret = os.urandom(16)
        memcpy(self.secret, PyBytes_AS_STRING(secret), 16)
        self.faces = [None] * FACES
        self._generation = memoryview(bytes(8)).cast("Q")

    @property
    def _generation(self):
        return self.generation

    @_generation.setter
    def _generation(self, view not None):
        if type(view) is not memoryview or view.format != "Q" or len(view) != 1 or not view.c_contiguous:
            raise TypeError("a generation is a memoryview of one number of 64 bits")
        self.generation = view
        self.word = <const uint64_t *>PyMemoryView_GET_BUFFER(view).buf

    def forget(self):
        self._cache.clear()
        self._unknown.clear()
        self.faces = [None] * FACES

    cpdef object known(self, bytes token):
        cdef uint64_t mark[2]
        cdef Py_ssize_t place
        cdef long long now
        cdef AccountCore account
        if token is None:
            raise TypeError("a caller is known by a token, not by None")
        if self.word[0] != self._seen:
            self._moved()
        # Nobody finds a second token with the same mark who does not know the secret, which no other process does.
        fr_siphash(self.secret, PyBytes_AS_STRING(token), PyBytes_GET_SIZE(token), mark)
        place = mark[0] & (FACES - 1)
        account = self.faces[place]
        now = now_ms(self.clock)
        if (
            account is not None
            and self.marks[place][0] == mark[0]
            and self.marks[place][1] == mark[1]
            and now < account.path.until_ms
        ):
            return account
        name = self._digester.digest(token)
        account = self._cache.get(name)
        if account is None or now >= account.path.until_ms:
            # Of whoever is over it may be known already that nobody lives by that token.
            return self.unknown(name, now)
        self._cache.move_to_end(name)
        self.faces[place] = account
        self.marks[place] = mark
        return account

    cdef object unknown(self, bytes name, long long now):
        found = self._unknown.get(name)
        return found if found is not None and now < found.until_ms else None
