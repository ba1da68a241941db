"""The compiled face of the teller's hot half."""

from libc.stdint cimport uint64_t

from fastroute.ledger._accounts cimport AccountCore, TillCore

cdef enum:
    FACES = 1024  # a power of two

cdef class Digester:
    cdef object inner, outer

    cpdef bytes digest(self, bytes token)

cdef class TellerCore(TillCore):
    cdef public Digester _digester
    cdef public object _cache
    cdef public dict _unknown
    cdef public uint64_t _seen
    cdef object generation
    cdef const uint64_t *word  # in it
    cdef uint64_t secret[2]
    cdef uint64_t marks[FACES][2]
    cdef list faces

    cpdef object known(self, bytes token)
    cdef object unknown(self, bytes name, long long now)
