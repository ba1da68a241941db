# cython: language_level=3, auto_pickle=False
"""The hot half of the pool: a request takes the connection used last, and a clean one goes back to where it was.

Whatever waits, opens or ends is `pool`'s, in Python; `_pool.pyi` states the contracts.
"""

from fastroute.upstreams._wire import Exchange

cdef enum:
    HEADS_MAX = 256


cdef class LaneCore:
    def release(self, connection):
        if self.queue:
            turn = next(iter(self.queue))
            if connection.begin(turn):
                self.pool.reused += <int>turn.reused
                self.forget(turn)
            return
        self.idle.append(connection)
        if self.pool.reaper is None:
            self.pool.watch_idle()


cdef class PoolCore:
    def begin(self, origin, bytes head not None, bytes body not None, deadlines):
        cdef LaneCore lane
        cdef list idle
        found = self._lanes.get(origin)
        lane = self._lane(origin) if found is None else found
        exchange = Exchange(lane, lane.loop, head, body, deadlines)
        turn = exchange.turn
        idle = lane.idle
        while idle:
            if idle.pop().begin(turn):
                self.reused += 1
                return exchange
        lane.submit(turn)
        return exchange


cdef class RemoteCore:
    def begin(self, str operation not None, str model not None, bint stream, passed, bytes body not None, deadlines):
        cdef PoolCore pool = self._pool
        if passed:
            head = self._head(operation, model, stream, passed)
        else:
            made = operation, model, stream
            head = self._heads.get(made)
            if head is None:
                if len(self._heads) >= HEADS_MAX:
                    self._heads.clear()
                head = self._heads[made] = self._head(operation, model, stream, passed)
        return pool.begin(self.origin, head, body, deadlines)
