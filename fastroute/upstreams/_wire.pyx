# cython: language_level=3, nonecheck=True
"""The upstream connection: a strict keep-alive HTTP/1.1 client as an asyncio protocol.

`Reply` parses (bytes in, facts out), `Turn` is one request on its way through queue and wire, `Connection` is the
protocol that serves one turn at a time, and `Exchange` is what the caller holds. The pool above decides which
connection serves which turn; `_wire.pyi` states the contracts.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, errno
from libc.math cimport INFINITY
from libc.stdio cimport snprintf
from libc.string cimport memcpy

from fastroute._now cimport task_of
from fastroute.upstreams._reply cimport DONE, HEAD, LENGTH, Reply

from asyncio import CancelledError
from ssl import SSLError

from fastroute.upstreams.faults import UpstreamFault

cdef extern from "Python.h":
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1

cdef extern from "<sys/socket.h>" nogil:
    int MSG_DONTWAIT, MSG_PEEK
    ssize_t recv(int fd, void *buffer, size_t size, int flags)

cdef enum:
    UNREAD_HIGH = 256 * 1024

cdef Py_ssize_t MOST = 64 * 1024 * 1024
READ_MAX = MOST

cdef str TOO_LARGE = "the body is larger than the reader allows"

# What the reader of a turn waits for.
cdef enum Want:
    ANSWER
    BYTES
    END

# Timers of uvloop are whole milliseconds and may fire up to half of one early.
cdef double TICK = 0.001


cdef double seconds(object milliseconds) except? -1:
    return INFINITY if milliseconds is None else <double>milliseconds / 1000.0


@cython.freelist(64)
cdef class Arrival:
    """What the reader of a turn awaits; a future to its task, except for when the task goes on.

    It goes on inside the arrival of the bytes: a future would have it wait for the loop's next round, and that round and
    its handle made 4 us of a request.
    """

    cdef object loop, callback, context
    cdef bint over, lost
    cdef public bint _asyncio_future_blocking

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        if not self.over:
            self._asyncio_future_blocking = True
            return self
        if self.lost:
            raise CancelledError
        raise StopIteration

    def get_loop(self):
        return self.loop

    def done(self):
        return self.over

    def cancelled(self):
        return self.lost

    def result(self):
        if self.lost:
            raise CancelledError
        if not self.over:
            raise RuntimeError("nothing has arrived")

    def exception(self):
        self.result()

    def add_done_callback(self, callback, *, context=None):
        if self.callback is not None:
            raise RuntimeError("an exchange has one reader at a time")
        self.callback = callback
        self.context = context
        if self.over:
            self.later()

    def remove_done_callback(self, callback):
        if self.callback is None or self.callback != callback:
            return 0
        self.callback = None
        return 1

    def cancel(self, msg=None):
        if self.over:
            return False
        self.over = self.lost = True
        self.later()
        return True

    cdef int later(self) except -1:
        callback = self.callback
        if callback is not None:
            self.callback = None
            self.loop.call_soon(callback, self, context=self.context)
        return 0

    cdef int finish(self, bint at_once) except -1:
        """Let the reader go on: at once where that is allowed, which it is not inside another task."""
        if self.over:
            return 0
        self.over = True
        if not at_once or self.callback is None or self.context is None or task_of(self.loop) is not None:
            return self.later()
        callback = self.callback
        self.callback = None
        PyContext_Enter(self.context)
        try:
            callback(self)
        finally:
            PyContext_Exit(self.context)
        return 0


cdef class Turn(Reply):
    """One request on its way: queued, then on a connection, then over.

    The pool and the wire hold turns, never exchanges.
    """

    cdef object loop
    cdef object lane
    cdef Arrival waiter
    cdef Want want
    cdef bytes prefix
    cdef bytes body
    cdef Connection connection
    cdef object deadlines
    cdef readonly double total_at
    cdef double started, sent_at, first_chunk_at, idle_s
    cdef double first_byte_at, last_byte_at
    cdef readonly bint sent
    cdef readonly bint reused
    cdef readonly bint retried
    cdef bint content
    cdef bint whole
    cdef Py_ssize_t limit

    def __init__(self, lane, loop, bytes prefix, bytes body, deadlines):
        self.parts = []
        self.bodiless = prefix.startswith(b"HEAD ")
        self.lane = lane
        self.loop = loop
        self.prefix = prefix
        self.body = body
        self.started = loop.time()
        self.deadlines = deadlines
        self.total_at = self.started + seconds(deadlines.total_ms)

    @property
    def waiting(self):
        """In the queue: on no connection and not over."""
        return self.connection is None and self.state < DONE

    def slot_by(self):
        """Until when this turn may wait for a slot."""
        wait_ms = self.deadlines.pool_ms
        return self.by(self.deadlines.connect_ms if wait_ms is None else wait_ms, self.retried)

    def connect_by(self):
        """Until when a connection may be opened for this turn, from now on."""
        return self.by(self.deadlines.connect_ms, self.retried or self.deadlines.pool_ms is not None)

    cdef double by(self, allowed_ms, bint anew) except? -1:
        cdef double start = self.loop.time() if anew else self.started
        return min(start + seconds(allowed_ms), self.total_at, self.first_chunk_at if self.retried else INFINITY)

    def refuse(self, str kind, str words, bint timed_out=False):
        """End a turn that is on no connection."""
        self.fail(kind, words, timed_out)
        self.wake()

    cdef int wake(self, bint at_once=False) except -1:
        cdef Arrival waiter = self.waiter
        if waiter is not None:
            self.waiter = None
            waiter.finish(at_once)
        return 0

    cdef Arrival arrival(self, Want want):
        if self.waiter is not None:
            raise RuntimeError("an exchange has one reader at a time")
        self.want = want
        self.waiter = Arrival.__new__(Arrival)
        self.waiter.loop = self.loop
        return self.waiter

    cdef int stop(self) except -1:
        if self.state >= DONE:
            return 0
        self.parts.clear()
        self.unread = 0
        if self.connection is not None:
            self.connection.fail("stopped", "told to stop")
        else:
            self.refuse("stopped", "told to stop")
            self.lane.left(self)
        return 0

    cdef object fault(self):
        return UpstreamFault(self.kind, self.words, sent=self.sent, timed_out=self.timed_out)

    cdef double write_at(self) except? -1:
        return self.sent_at + seconds(self.deadlines.write_ms)

    cdef double due(self) except? -1:
        """The next instant at which this turn must be looked at."""
        cdef double due = self.total_at
        if not self.content:
            due = min(due, self.first_chunk_at)
        elif not self.connection.paused:
            # A reader that holds the upstream back is no silence of the upstream's.
            due = min(due, max(self.last_byte_at, self.sent_at) + self.idle_s)
        if self.connection.stuck:
            due = min(due, self.write_at())
        return due

    cdef int expire(self, double now) except -1:
        """The deadline that has passed, by the name of its kind."""
        if self.total_at <= now:
            self.connection.fail("total", "the whole exchange took longer than its deadline", True)
        elif self.connection.stuck and self.write_at() <= now:
            self.connection.fail("write", "the request was not taken before its deadline", True)
        elif not self.content:
            self.connection.fail("first_chunk", "no content before the first-chunk deadline", True)
        else:
            self.connection.fail("idle", "nothing came for as long as the idle deadline", True)
        return 0


cdef class Connection:
    """One socket to an origin, serving one turn at a time; it belongs to its lane until it is closed."""

    cdef object loop
    cdef object lane
    cdef object transport
    cdef object timer
    cdef double timer_at
    cdef Turn turn
    cdef int fd
    cdef readonly int served
    cdef readonly double idle_since
    cdef readonly bint closed
    cdef readonly bint early    # bytes came before any request
    cdef bint paused            # we do not read
    cdef bint stuck             # the peer does not read

    def __init__(self, lane, loop):
        self.lane = lane
        self.loop = loop
        self.fd = -1

    def connection_made(self, transport):
        self.transport = transport
        self.fd = transport.get_extra_info("socket").fileno()

    def begin(self, Turn turn not None):
        """Send a turn's request; False when this connection turns out to be dead, and then nothing was sent."""
        cdef char peeked
        if self.closed:
            return False
        if self.transport.is_closing():
            self.close()
            return False
        if self.served:
            # What a kept connection says unasked would be read as the answer to this request.
            if recv(self.fd, &peeked, 1, MSG_PEEK | MSG_DONTWAIT) >= 0 or errno != EAGAIN:
                self.close()
                return False
            turn.reused = True
        self.served += 1
        self.turn = turn
        turn.connection = self
        turn.sent_at = self.loop.time()
        if not turn.sent:
            # A retry does not start the first-chunk deadline again.
            turn.first_chunk_at = turn.sent_at + seconds(turn.deadlines.first_chunk_ms)
            turn.sent = True
        self.transport.write(request_bytes(turn.prefix, turn.body))
        self.arm()
        return True

    def data_received(self, bytes data not None):
        cdef Turn turn = self.turn
        if turn is None:
            self.early = self.served == 0
            self.close()
            return
        turn.last_byte_at = self.loop.time()
        if turn.first_byte_at == 0:
            turn.first_byte_at = turn.last_byte_at
        turn.feed(data)
        if turn.state >= DONE:
            self.finish(turn)
        elif turn.whole:
            if turn.unread > turn.limit:
                self.fail("limit", TOO_LARGE)
            return
        elif turn.unread > UNREAD_HIGH and not self.paused:
            self.paused = True
            self.transport.pause_reading()
        if turn.state >= DONE or (turn.unread if turn.want == BYTES else turn.state > HEAD):
            turn.wake(True)  # nothing of this connection may be touched after it: its next turn may have begun

    def eof_received(self):
        self.ended(self.farewell())
        return False

    def connection_lost(self, exc):
        self.ended(False)
        self.lane.gone(self)
        self.transport = None

    def pause_writing(self):
        self.stuck = True
        if self.turn is not None:
            self.arm()

    def resume_writing(self):
        self.stuck = False

    cpdef int close(self) except -1:
        """Close the socket at once; the slot is free when this returns."""
        if self.turn is not None:
            return self.fail("stopped", "the connection was closed under it")
        if not self.closed:
            self.closed = True
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None
            self.transport.abort()
            self.lane.lost(self)
        return 0

    cdef bint farewell(self) except? False:
        """Whether the peer itself ended the connection: over TLS anyone on the way can send a FIN."""
        tls = self.transport.get_extra_info("ssl_object")
        if tls is None:
            return True
        try:
            return tls.read(1) == b""
        except SSLError:
            return False

    cdef int ended(self, bint cleanly) except -1:
        """The peer is gone, or will say no more."""
        cdef Turn turn = self.turn
        if self.closed:
            return 0
        if turn is None:
            return self.close()
        if turn.first_byte_at == 0 and turn.reused and not turn.retried:
            # A kept connection the peer had given up: no answer byte came, so one fresh try is owed.
            turn.retried = True
            self.turn = None
            turn.connection = None
            self.close()
            self.lane.again(turn)
            return 0
        if self.stuck:
            return self.fail("write", "the connection ended before the request was taken")
        if cleanly:
            turn.eof()
        else:
            turn.fail("cut", "the connection was lost before the answer ended")
        turn.keep = False
        self.finish(turn)
        turn.wake()
        return 0

    cdef int finish(self, Turn turn) except -1:
        """A turn's message is over, well or not: part with it, and keep the connection only if it is clean."""
        self.turn = None
        turn.connection = None
        turn.prefix = turn.body = None
        if turn.state == DONE and turn.keep and not turn.surplus and not self.stuck and not self.paused:
            self.idle_since = turn.last_byte_at
            self.lane.release(self)
        else:
            self.close()
        return 0

    cdef int fail(self, str kind, str words, bint timed_out=False) except -1:
        cdef Turn turn = self.turn
        turn.fail(kind, words, timed_out)
        self.finish(turn)
        turn.wake()
        return 0

    cdef int resume(self) except -1:
        if self.paused:
            self.paused = False
            self.turn.last_byte_at = self.loop.time()
            self.transport.resume_reading()
            self.arm()
        return 0

    cdef int arm(self) except -1:
        """See that the timer fires no later than the turn's next deadline.

        One timer serves every turn of a connection: deadlines that move out of its way are met when it fires, so an
        ordinary request sets and cancels none.
        """
        cdef double due = self.turn.due()
        if self.timer is not None:
            if self.timer_at <= due:
                return 0
            self.timer.cancel()
            self.timer = None
        if due != INFINITY:
            self.timer_at = due
            self.timer = self.loop.call_at(due, self.tick)
        return 0

    def tick(self):
        self.timer = None
        if self.turn is not None:
            now = self.loop.time() + TICK
            if self.turn.due() <= now:
                self.turn.expire(now)
            else:
                self.arm()


cdef bytes request_bytes(bytes prefix, bytes body):
    """Prefix, content-length and body as one object, for one write."""
    cdef char line[48]
    cdef Py_ssize_t size = PyBytes_GET_SIZE(prefix), length = PyBytes_GET_SIZE(body), width
    if length == 0 and (prefix.startswith(b"GET ") or prefix.startswith(b"HEAD ")):
        return prefix + b"\r\n"
    width = snprintf(line, sizeof(line), b"content-length: %zd\r\n\r\n", length)
    cdef bytes whole = PyBytes_FromStringAndSize(NULL, size + width + length)
    cdef char *into = PyBytes_AS_STRING(whole)
    memcpy(into, PyBytes_AS_STRING(prefix), size)
    memcpy(into + size, line, width)
    memcpy(into + size + width, PyBytes_AS_STRING(body), length)
    return whole


cdef class Exchange:
    """A caller's hold on one request and its answer."""

    cdef readonly Turn turn

    def __init__(self, lane, loop, bytes prefix not None, bytes body not None, deadlines):
        self.turn = Turn(lane, loop, prefix, body, deadlines)

    def __del__(self):
        # Nobody can read it any more; the wire holds the turn only, so a forgotten exchange costs no slot.
        if self.turn is not None:
            self.turn.stop()

    def __repr__(self):
        turn = self.turn
        state = "complete" if turn.complete else turn.kind or ("queued" if turn.waiting else "open")
        return f"<Exchange {state} status={turn.status} sent={turn.sent} unread={turn.unread}>"

    @property
    def status(self):
        return self.turn.status

    @property
    def sent(self):
        return self.turn.sent

    @property
    def reused(self):
        return self.turn.reused

    @property
    def retried(self):
        return self.turn.retried

    @property
    def until_close(self):
        return self.turn.until_close

    @property
    def complete(self):
        return self.turn.state == DONE

    @property
    def first_byte_at(self):
        return self.turn.first_byte_at or None

    @property
    def age(self):
        return self.turn.loop.time() - self.turn.started

    def header(self, bytes name not None):
        return self.turn.header(name)

    def headers(self):
        return self.turn.headers()

    def committed(self):
        cdef Turn turn = self.turn
        if not turn.content:
            turn.content = True
            turn.idle_s = seconds(turn.deadlines.idle_ms)
            if turn.connection is not None:
                turn.connection.arm()

    def stop(self):
        self.turn.stop()

    def answer(self):
        cdef Turn turn = self.turn
        if turn.head is not None:
            return True
        if turn.kind is not None:
            raise turn.fault()
        return False

    def coming(self):
        return self.turn.arrival(ANSWER)

    def taken(self):
        if self.turn.state != DONE:
            raise RuntimeError("the answer is not complete")
        if self.turn.unread > MOST:
            raise UpstreamFault("limit", TOO_LARGE, sent=True)
        return self.turn.take()

    async def read(self, Py_ssize_t limit=MOST):
        cdef Turn turn = self.turn
        turn.whole = True
        turn.limit = limit
        if turn.connection is not None:
            if turn.unread > limit or (turn.state == LENGTH and turn.unread + turn.left > <unsigned long long>limit):
                turn.connection.fail("limit", TOO_LARGE)
        if turn.state < DONE:
            if turn.connection is not None:
                turn.connection.resume()
            try:
                await turn.arrival(END)
            except BaseException:
                turn.stop()
                raise
        if turn.kind is not None:
            raise turn.fault()
        if turn.unread > limit:
            raise UpstreamFault("limit", TOO_LARGE, sent=True)
        return turn.take()

    async def chunk(self):
        cdef Turn turn = self.turn
        while turn.unread == 0:
            if turn.kind is not None:
                raise turn.fault()
            if turn.state == DONE:
                return b""
            try:
                await turn.arrival(BYTES)
            except BaseException:
                turn.stop()
                raise
        data = turn.take()
        if turn.connection is not None:
            turn.connection.resume()
        return data
