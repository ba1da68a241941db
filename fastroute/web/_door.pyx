# cython: language_level=3
"""The door as nearly every request finds it: a key of ours, known to this worker. `doorman` has the rest, in Python."""

from fastroute.ledger.tokens import PREFIXES

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
        if token is None or not token.startswith(OURS):
            return self.meet_otherwise(found, query)
        account = (<TellerCore?>self._teller).known(token)
        if isinstance(account, AccountCore) and (<AccountCore>account).state == "live":
            return account
        return None
