# cython: language_level=3, auto_pickle=False
"""The hot half of the pool: a request takes the connection used last, and a clean one goes back to where it was.

Whatever waits, opens or ends is `pool`'s, in Python; `_pool.pyi` states the contracts.
"""

from fastroute._now cimport moment
from fastroute.upstreams._wire cimport Connection, Exchange, Turn

cdef enum:
    HEADS_MAX = 256


cdef class LaneCore(Owner):
    def release(self, Connection connection not None):
        self.freed(connection)

    cdef int freed(self, Connection connection) except -1:
        cdef Turn turn
        if self.queue:
            turn = next(iter(self.queue))
            if connection.start(turn, moment(self.loop)):
                self.pool.reused += turn.reused
                self.forget(turn)
            return 0
        self.idle.append(connection)
        if self.pool.reaper is None:
            self.pool.watch_idle()
        return 0


cdef class PoolCore:
    def begin(self, origin, bytes head not None, bytes body not None, deadlines):
        return self.asked(origin, head, body, deadlines, -1)

    cdef Exchange asked(self, origin, bytes head, bytes body, deadlines, double now):
        cdef LaneCore lane
        cdef Exchange exchange
        cdef list idle
        found = self._lanes.get(origin)
        lane = self._lane(origin) if found is None else found
        if now < 0:
            now = moment(lane.loop)
        exchange = Exchange.begun(lane, lane.loop, head, body, deadlines, now)
        idle = lane.idle
        while idle:
            if (<Connection>idle.pop()).start(exchange.turn, now):
                self.reused += 1
                return exchange
        lane.submit(exchange.turn)
        return exchange


cdef class RemoteCore:
    def begin(self, str operation not None, str model not None, bint stream, passed, bytes body not None, deadlines):
        return self.asked(operation, model, stream, passed, body, deadlines, -1)

    cdef Exchange asked(self, str operation, str model, bint stream, passed, bytes body, deadlines, double now):
        return self._pool.asked(self.origin, self.head(operation, model, stream, passed), body, deadlines, now)

    cdef bytes head(self, str operation, str model, bint stream, passed):
        if passed:
            return self._head(operation, model, stream, passed)
        # Mostly that of the request before: an entry's model and an operation are the same objects each time.
        if self.last_model is not model or self.last_operation is not operation or self.last_stream != stream:
            made = operation, model, stream
            head = self._heads.get(made)
            if head is None:
                if len(self._heads) >= HEADS_MAX:
                    self._heads.clear()
                head = self._heads[made] = self._head(operation, model, stream, passed)
            self.last_operation, self.last_model, self.last_stream, self.last_head = operation, model, stream, head
        return self.last_head
