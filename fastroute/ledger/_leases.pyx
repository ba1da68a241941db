# cython: language_level=3, auto_pickle=False
"""The hot half of a holder: a reservation, and its settlement. `_leases.pyi` states the contracts, `leases` has the rest."""

cdef object HELD = -1  # what the core says when nothing refused


cdef class HolderCore:
    def reserve(self, path, microdollars, tokens, long long now_ms):
        if path.epoch != self._epoch:
            self._bind(path)
        if now_ms >= <long long>path.until_ms or path.shut:
            return None
        slots = path.slots
        if not slots:
            return self.held(microdollars, path, slots, slots, tokens)
        amounts = path.pick((microdollars, tokens, 1))
        if now_ms >= self.deadline_ms or self._core.reserve(slots, amounts) != HELD:
            return None
        cdef long long credit = <long long>path.credit - 1
        path.credit = credit
        if credit < 0:
            self._look(path, amounts, now_ms)
        return self.held(microdollars, path, slots, amounts, tokens)

    def settle(self, hold, microdollars, tokens, requests=1):
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

    def void(self, hold):
        self.settle(hold, 0, 0, 0)

    def spent(self, path, tuple slots not None):
        cdef Py_ssize_t place, depth = len(slots)
        cdef list found = [None] * depth
        balance = self._core.balance
        leases = path.leases
        for place in range(depth):
            found[place] = balance(slots[place])[2] + leases[place].past[2]
        return tuple(found)

    @property
    def hungry(self):
        return bool(self._hungry)
