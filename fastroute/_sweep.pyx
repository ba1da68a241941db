# cython: language_level=3
"""One timer for everything that waits equally long: the first bytes of bodies, the watch over callers.

It runs only while something waits, and looks at what waits longest; nobody sets or cancels a timer of its own. Compiled
because it is met twice on every request: 0.1 us to add and to drop, 0.4 as Python, and 1.1 for a timer of one's own.
"""

from fastroute._now cimport moment

# uvloop's timers are whole milliseconds and may fire up to half of one early.
cdef double TICK_S = 0.001


cdef class Sweep:
    def __init__(self, double seconds, act):
        self.seconds = seconds
        self.act = act
        self.since = {}

    def __len__(self):
        return len(self.since)

    def add(self, waiting, loop):
        self.add_at(waiting, loop, moment(loop))

    cdef int add_at(self, waiting, loop, double now) except -1:
        self.since[waiting] = now
        if self.timer is None or self.loop is not loop:
            self.loop = loop
            self.timer = loop.call_at(now + self.seconds, self.look, loop)
        return 0

    cpdef bint drop(self, waiting) except? False:
        return self.since.pop(waiting, None) is not None

    def look(self, loop):
        cdef double due = moment(loop) + TICK_S - self.seconds
        self.timer = None
        for waiting, since in list(self.since.items()):
            if since > due:
                self.timer = loop.call_at(since + self.seconds, self.look, loop)
                return
            del self.since[waiting]
            self.act(waiting)
