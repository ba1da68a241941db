# cython: language_level=3, auto_pickle=False
"""The hot half of the pool: a request takes the connection used last, and a clean one goes back to where it was.

Whatever waits, opens or ends is `pool`'s, in Python; `_pool.pyi` states the contracts.
"""

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
            if connection.begin(turn):
                self.pool.reused += turn.reused
                self.forget(turn)
            return 0
        self.idle.append(connection)
        if self.pool.reaper is None:
            self.pool.watch_idle()
        return 0


cdef class PoolCore:
    def begin(self, origin, bytes head not None, bytes body not None, deadlines):
        return self.asked(origin, head, body, deadlines)

    cdef Exchange asked(self, origin, bytes head, bytes body, deadlines):
        cdef LaneCore lane
        cdef Exchange exchange
        cdef list idle
        found = self._lanes.get(origin)
        lane = self._lane(origin) if found is None else found
        exchange = Exchange.begun(lane, lane.loop, head, body, deadlines)
        idle = lane.idle
        while idle:
            if (<Connection>idle.pop()).begin(exchange.turn):
                self.reused += 1
                return exchange
        lane.submit(exchange.turn)
        return exchange


cdef class RemoteCore:
    cpdef object begin(self, str operation, str model, bint stream, passed, bytes body, deadlines):
        if passed:
            head = self._head(operation, model, stream, passed)
        elif self.last_model is model and self.last_operation is operation and self.last_stream == stream:
            head = self.last_head  # mostly: an entry's model and an operation are the same objects each time
        else:
            made = operation, model, stream
            head = self._heads.get(made)
            if head is None:
                if len(self._heads) >= HEADS_MAX:
                    self._heads.clear()
                head = self._heads[made] = self._head(operation, model, stream, passed)
            self.last_operation, self.last_model, self.last_stream, self.last_head = operation, model, stream, head
        return self._pool.asked(self.origin, head, body, deadlines)
