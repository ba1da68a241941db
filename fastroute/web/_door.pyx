# cython: language_level=3
"""The door as nearly every request finds it: a key of ours, known to this worker. `doorman` has the rest, in Python."""

from fastroute.ledger.tokens import PREFIXES

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memcmp

from fastroute._call cimport Call
from fastroute._heads cimport credential
from fastroute.ledger._accounts cimport AccountCore
from fastroute.ledger._teller cimport TellerCore

cdef tuple OURS = tuple([prefix.encode() for prefix in PREFIXES.values()])


cdef class DoorCore:
    cpdef object meet(self, dict found, bytes query):
        cdef bytes token
        if not self._plain:
            return self.meet_otherwise(found, query)
        token = credential(found, query)
        if token is None or not is_ours(token):
            return self.meet_otherwise(found, query)
        account = (<TellerCore?>self._teller).known(token)
        if isinstance(account, AccountCore) and (<AccountCore>account).state == "live":
            return account
        return None

    cpdef object admit(self, Call call, scope):
        account = call.account
        if self._limiter is None or self._teller is None:
            return None
        if isinstance(account, AccountCore) and (<AccountCore>account).id:
            if not (<AccountCore>account).metered:
                return None
        elif self._anonymous is None:
            return None
        return self.ration(call, scope)


cdef bint is_ours(bytes token) except -1:
    cdef bytes prefix
    for prefix in OURS:
        if (
            PyBytes_GET_SIZE(token) >= PyBytes_GET_SIZE(prefix)
            and memcmp(PyBytes_AS_STRING(token), PyBytes_AS_STRING(prefix), PyBytes_GET_SIZE(prefix)) == 0
        ):
            return True
    return False
