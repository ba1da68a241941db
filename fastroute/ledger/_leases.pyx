# cython: language_level=3, auto_pickle=False
"""The hot half of a holder: a reservation, and its settlement. `_leases.pyi` states the contracts, `leases` has the rest.

What a path counts in, its slots and what was spent before are numbers in its own memory from the moment it is bound: a
slot that is given up moves the epoch, and none is given up while anything is held on it.
"""

cimport cython

from fastroute._core cimport amount_of


cdef class Path:
    def __init__(self, tuple windows not None, tuple leases not None, tuple kinds not None, long long until_ms):
        cdef Py_ssize_t place
        if not len(windows) == len(leases) == len(kinds) <= PATH_MAX:
            raise ValueError(f"a path has at most {PATH_MAX} windows, each with a lease and a kind, not {len(windows)}")
        self.windows, self.leases, self.until_ms = windows, leases, until_ms
        self.epoch = -1
        for place in range(len(kinds)):
            self.kinds[place] = kinds[place]

    def bind(self, tuple slots not None):
        cdef Py_ssize_t place
        if len(slots) > len(self.leases):
            raise ValueError(f"{len(slots)} slots are given to a path of {len(self.leases)} windows")
        for place in range(len(slots)):
            self.places[place] = slots[place]
            self.past[place] = self.leases[place].past[2]
        self.count = <int>len(slots)

    cdef int amounts(self, int count, microdollars, tokens, int64_t requests, int64_t *amounts) except -1:
        cdef int place
        for place in range(count):
            if self.kinds[place] == 0:
                amounts[place] = amount_of(microdollars, "amounts")
            elif self.kinds[place] == 1:
                amounts[place] = amount_of(tokens, "amounts")
            else:
                amounts[place] = requests
        return 0


@cython.final
@cython.no_gc  # a path leads back to it only while a ticket that has it waits, and that is never
@cython.freelist(64)
cdef class Hold:
    @property
    def amounts(self):
        return told(self.count, self.held)

    def __init__(self):
        raise TypeError("a reservation is made by a holder")

    def __repr__(self):
        return f"Hold({self.amounts} on {self.path.windows}, open={self.open}, sent={self.sent}, attempt={self.attempt})"


cdef class HolderCore:
    cpdef Hold reserve(self, Path path, microdollars, tokens, long long now_ms):
        cdef Hold hold
        if path.epoch != self._epoch:
            self._bind(path)
        if now_ms >= path.until_ms or path.shut:
            return None
        hold = Hold.__new__(Hold)
        if path.count:
            if now_ms >= self.deadline_ms:
                return None
            path.amounts(path.count, microdollars, tokens, 1, hold.held)
            if self._core.hold(path.count, path.places, hold.held) >= 0:
                return None
            path.credit -= 1
        hold.count = path.count
        hold.places = path.places
        hold.microdollars, hold.tokens, hold.path = microdollars, tokens, path
        hold.open = True
        if path.count and path.credit < 0:
            self._look(path, hold.amounts, now_ms)
        return hold

    cpdef tuple settle(self, Hold hold, microdollars, tokens, requests=1):
        cdef int64_t charged[PATH_MAX]
        cdef Path path = hold.path
        if not hold.open:
            return None
        hold.open = False
        if not hold.count:
            return ()
        path.amounts(
            hold.count,
            hold.microdollars if microdollars is None else microdollars,
            hold.tokens if tokens is None else tokens,
            requests,
            charged,
        )
        if self._core.close_hold(hold.count, hold.places, hold.held, charged):
            self.breaches += 1
        if not path.active:
            self._activate(path)
        return told(hold.count, charged)

    cpdef object void(self, Hold hold):
        self.settle(hold, 0, 0, 0)

    @cython.overflowcheck(True)
    cdef int totals(self, Path path, int count, const int64_t *places, int64_t *spent) except -1:
        cdef int place
        for place in range(count):
            spent[place] = self._core.numbered(places[place]).spent + path.past[place]
        return 0

    @property
    def hungry(self):
        return bool(self._hungry)


cdef tuple told(int count, const int64_t *numbers):
    cdef int place
    if count == 1:
        return (numbers[0],)
    if count == 2:
        return numbers[0], numbers[1]
    return tuple([numbers[place] for place in range(count)])
