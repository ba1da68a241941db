# cython: language_level=3
"""One caller's request on its way through the house: what was asked, what has happened so far, who still listens.

The door makes it, the gateway and the relay fill it, the web room tells of it. It belongs to one task and one event loop.
Compiled because every step of every request reads it; `_call.pyi` says what its fields mean.
"""

from asyncio import get_running_loop
from types import MappingProxyType

from fastroute.ledger.unlimited import Unlimited

from cpython.bytes cimport PyBytes_GET_SIZE

from fastroute._domain cimport of_settlement, settlement_of
from fastroute._fields cimport at

cdef object NOTHING = MappingProxyType({})
cdef object UNLIMITED = Unlimited()
cdef object FREE = Unlimited

cdef bytes ID_BYTES = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:/=+@-"
cdef enum:
    ID_MAX = 128


cdef class Surface:
    def __init__(self, str name not None, str operation not None, str native not None, caller):
        self.name = name
        self.operation = operation
        self.opaque = operation.startswith("/")
        self.talks = not self.opaque and operation != "embeddings"
        self.chats = name == "chat"
        self.native = native
        self.caller = caller


cdef class Call:
    def __init__(self, Surface surface not None, receive, send, str name not None, double started, loop=None):
        self.begin(surface, receive, send, name, started, get_running_loop() if loop is None else loop)

    @staticmethod
    cdef Call made(Surface surface, receive, send, str name, double started, loop):
        cdef Call call = Call.__new__(Call)
        call.begin(surface, receive, send, name, started, loop)
        return call

    cdef int begin(self, Surface surface, receive, send, str name, double started, loop) except -1:
        self.surface = surface
        self.receive = receive
        self.send = send
        self.id = name
        self.started = started
        self.loop = loop
        self.decision_id = self.model = self.reason = ""
        self.body = self.content_type = b""
        self.choices = 1
        self.answered = 200
        self.passed = NOTHING
        self.account = UNLIMITED
        self.entries = []
        self.attempts = []
        self.upstream_ids = []
        return 0

    cdef bint free(self) except -1:
        """Nobody's money is asked for it, and nothing of it is written down."""
        return type(self.account) is FREE

    cpdef object final_attempt(self):
        cdef list attempts = self.attempts
        if not attempts:
            return None
        last = attempts[-1]
        if len(attempts) > 1 and self.entry is not None and last.entry_id != self.entry.id:
            for attempt in attempts:
                if attempt.entry_id == self.entry.id:
                    return attempt
        return last

    @property
    def final(self):
        return self.final_attempt()

    cpdef object cost(self):
        cdef list attempts = self.attempts
        if len(attempts) == 1:
            return at(settlement_of(attempts[0]), of_settlement.picodollars)
        total = 0
        for attempt in attempts:
            cost = at(settlement_of(attempt), of_settlement.picodollars)
            if cost is None:
                return None
            total += cost
        return total

    @property
    def cost_picodollars(self):
        return self.cost()

    cpdef int known_as(self, name) except -1:
        if name is not None and 0 < PyBytes_GET_SIZE(name) <= ID_MAX and not (<bytes>name).translate(None, ID_BYTES):
            self.upstream_ids.append(name)
        return 0

    def leave(self):
        self.gone = True
        if self.exchange is not None:
            self.exchange.stop()

    def watch(self):
        self.watcher = self.loop.create_task(listen(self))

    cpdef int unwatch(self) except -1:
        if self.watcher is not None:
            self.watcher.cancel()
            self.watcher = None
        return 0


async def listen(Call call not None):
    """Wait for the caller's leaving; `send` never tells."""
    while True:
        message = await call.receive()
        if message["type"] == "http.disconnect":
            call.leave()
            return
