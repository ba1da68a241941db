# cython: language_level=3, auto_pickle=False
"""The hot half of a holder: a reservation, and its settlement. `_leases.pyi` states the contracts, `leases` has the rest."""

cdef object HELD = -1  # what the core says when nothing refused


cdef class Path:
    def __init__(self, tuple windows not None, tuple leases not None, pick, long long until_ms):
        self.windows, self.leases, self.pick, self.until_ms = windows, leases, pick, until_ms
        self.slots = ()
        self.epoch = -1


cdef class HolderCore:
    cpdef object reserve(self, Path path, microdollars, tokens, long long now_ms):
        if path.epoch != self._epoch:
            self._bind(path)
        if now_ms >= path.until_ms or path.shut:
            return None
        slots = path.slots
        if not slots:
            return self.held(microdollars, path, slots, slots, tokens)
        amounts = path.pick((microdollars, tokens, 1))
        if now_ms >= self.deadline_ms or self._core.reserve(slots, amounts) != HELD:
            return None
        path.credit -= 1
        if path.credit < 0:
            self._look(path, amounts, now_ms)
        return self.held(microdollars, path, slots, amounts, tokens)

    cpdef tuple settle(self, hold, microdollars, tokens, requests=1):
        cdef Path path
        if not hold.open:
            return None
        hold.open = False
        slots = hold.slots
        if not slots:
            return slots
        path = hold.path
        charged = path.pick(
            (
                hold.microdollars if microdollars is None else microdollars,
                hold.tokens if tokens is None else tokens,
                requests,
            )
        )
        if self._core.settle(slots, hold.amounts, charged):
            self.breaches += 1
        if not path.active:
            self._activate(path)
        return charged

    cpdef object void(self, hold):
        self.settle(hold, 0, 0, 0)

    cpdef tuple spent(self, Path path, tuple slots):
        cdef tuple now = self._core.spent(slots)
        return tuple([now[place] + lease.past[2] for place, lease in enumerate(path.leases[:len(slots)])])

    @property
    def hungry(self):
        return bool(self._hungry)
