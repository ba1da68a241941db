# cython: language_level=3, auto_pickle=False
"""What every request under a key asks of the worker's teller: whose token it is, as far as that is remembered.

What is not remembered is asked for by `teller`, in Python; `_teller.pyi` states the contracts.
"""

import hashlib

from fastroute._now cimport now_ms
from fastroute.ledger._accounts cimport AccountCore, TillCore


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
    cpdef object known(self, bytes token):
        cdef long long until_ms
        if <long long>self._generation[0] != self._seen:
            self._moved()
        name = self._digester.digest(token)
        found = self._cache.get(name)
        if found is not None:
            self._cache.move_to_end(name)
            until_ms = (<AccountCore?>found).path.until_ms
        else:
            found = self._unknown.get(name)
            if found is None:
                return None
            until_ms = found.until_ms
        return found if now_ms(self.clock) < until_ms else None
