"""The compiled face of the teller's hot half."""

from fastroute.ledger._accounts cimport TillCore

cdef class Digester:
    cdef object inner, outer

    cpdef bytes digest(self, bytes token)

cdef class TellerCore(TillCore):
    cdef public Digester _digester
    cdef public object _generation, _cache
    cdef public dict _unknown
    cdef public long long _seen

    cpdef object known(self, bytes token)
