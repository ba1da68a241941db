# cython: language_level=3, nonecheck=True
"""The upstream connection: a strict keep-alive HTTP/1.1 client as an asyncio protocol.

`Reply` parses (bytes in, facts out), `Turn` is one request on its way through queue and wire, `Connection` is the
protocol that serves one turn at a time, and `Exchange` is what the caller holds. The pool above decides which
connection serves which turn; `_wire.pyi` states the contracts.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, errno
from libc.math cimport INFINITY
from libc.string cimport memcmp, memcpy

from fastroute._framing cimport DONE, HEAD, LENGTH
from fastroute._heads cimport digits
from fastroute._made cimport Made
from fastroute._now cimport moment
from fastroute._pieces cimport fr_piece, fr_send
from fastroute.upstreams._arrival cimport Arrival
from fastroute.upstreams._reply cimport Reply

from ssl import SSLError

from fastroute.upstreams.faults import UpstreamFault

cdef extern from "<sys/socket.h>" nogil:
    int MSG_DONTWAIT, MSG_PEEK
    ssize_t recv(int fd, void *buffer, size_t size, int flags)

cdef enum:
    UNREAD_HIGH = 64 * 1024
    HEAD_ROOM = 2048     # for a request's head on the stack; one of our own is a few hundred bytes
    LENGTH_ROOM = 48
    AT_ONCE = 64 * 1024

cdef Py_ssize_t MOST = 64 * 1024 * 1024
READ_MAX = MOST

cdef str TOO_LARGE = "the body is larger than the reader allows"

# Timers of uvloop are whole milliseconds and may fire up to half of one early.
cdef double TICK = 0.001


cdef double seconds(object milliseconds) except? -1:
    return INFINITY if milliseconds is None else <double>milliseconds / 1000.0


cdef Made made = Made(64)


cdef class Terms:
    """Deadlines in seconds: their settings are few and stay the same, and every turn has some."""

    @staticmethod
    cdef Terms of(deadlines):
        found = made.of(deadlines)
        if found is not None:
            return <Terms>found
        cdef Terms terms = Terms.__new__(Terms)
        terms.pooled = deadlines.pool_ms is not None
        terms.connect_s = seconds(deadlines.connect_ms)
        terms.pool_s = seconds(deadlines.pool_ms)
        terms.write_s = seconds(deadlines.write_ms)
        terms.first_chunk_s = seconds(deadlines.first_chunk_ms)
        terms.idle_s = seconds(deadlines.idle_ms)
        terms.total_s = seconds(deadlines.total_ms)
        return <Terms>made.keep(deadlines, terms)


cdef class Owner:
    """A lane as its connections and turns know it; the rest of what they tell it has names that are looked up."""

    cdef int freed(self, Connection connection) except -1:
        raise NotImplementedError


cdef class Turn(Reply):
    """One request on its way: queued, then on a connection, then over.

    The pool and the wire hold turns, never exchanges.
    """

    def __init__(self, Owner lane, loop, bytes prefix not None, bytes body not None, deadlines):
        self.meant(lane, loop, prefix, body, deadlines, moment(loop))

    cdef int meant(self, Owner lane, loop, bytes prefix, bytes body, deadlines, double now) except -1:
        self.parts = []
        self.bodiless = PyBytes_GET_SIZE(prefix) > 5 and memcmp(PyBytes_AS_STRING(prefix), b"HEAD ", 5) == 0
        self.lane = lane
        self.loop = loop
        self.prefix = prefix
        self.body = body
        self.started = now
        self.terms = Terms.of(deadlines)
        self.total_at = self.started + self.terms.total_s
        return 0

    @property
    def waiting(self):
        """In the queue: on no connection and not over."""
        return self.connection is None and self.state < DONE

    def slot_by(self):
        """Until when this turn may wait for a slot."""
        return self.by(self.terms.pool_s if self.terms.pooled else self.terms.connect_s, self.retried)

    def connect_by(self):
        """Until when a connection may be opened for this turn, from now on."""
        return self.by(self.terms.connect_s, self.retried or self.terms.pooled)

    cdef double by(self, double allowed_s, bint anew) except? -1:
        cdef double start = moment(self.loop) if anew else self.started
        return min(start + allowed_s, self.total_at, self.first_chunk_at if self.retried else INFINITY)

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
        return self.sent_at + self.terms.write_s

    cdef double due(self) except? -1:
        """The next instant at which this turn must be looked at."""
        cdef double due = self.total_at
        if not self.content:
            due = min(due, self.first_chunk_at)
        elif not self.connection.paused:
            # A reader that holds the upstream back is no silence of the upstream's.
            due = min(due, max(self.last_byte_at, self.sent_at) + self.terms.idle_s)
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

    def __init__(self, Owner lane, loop):
        self.lane = lane
        self.loop = loop
        self.fd = -1

    def connection_made(self, transport):
        self.transport = transport
        self.fd = transport.get_extra_info("socket").fileno()
        self.plain = transport.get_extra_info("ssl_object") is None

    def begin(self, Turn turn not None):
        return self.start(turn, moment(self.loop))

    cdef bint start(self, Turn turn, double now) except? False:
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
        turn.sent_at = now
        if not turn.sent:
            # A retry does not start the first-chunk deadline again.
            turn.first_chunk_at = turn.sent_at + turn.terms.first_chunk_s
            turn.sent = True
        self.write(turn.prefix, turn.body)
        self.arm()
        return True

    cdef int write(self, bytes prefix, bytes body) except -1:
        """Prefix, content-length and body, at once where the socket takes them, else by the transport.

        A transport that has ever held something back is asked for everything: what it holds goes first. So is it for
        what is large, since it alone says when the peer does not read.
        """
        cdef char head[HEAD_ROOM]
        cdef fr_piece pieces[2]
        cdef Py_ssize_t size, length = PyBytes_GET_SIZE(body), taken = -1
        size = head_of(head, prefix, length)
        if size < 0 or length > AT_ONCE:
            self.transport.write(request_bytes(prefix, body))
            return 0
        if self.plain and not self.held:
            pieces[0].iov_base, pieces[0].iov_len = head, size
            pieces[1].iov_base, pieces[1].iov_len = PyBytes_AS_STRING(body), length
            taken = fr_send(self.fd, pieces, 2 if length else 1)
            if taken == size + length:
                return 0
        # Whatever is wrong with the socket is the transport's to find out.
        self.held = True
        whole = request_bytes(prefix, body)
        self.transport.write(whole if taken <= 0 else whole[taken:])
        return 0

    def data_received(self, bytes data not None):
        cdef Turn turn = self.turn
        if turn is None:
            self.early = self.served == 0
            self.close()
            return
        turn.last_byte_at = moment(self.loop)
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
            self.lane.freed(self)
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
            self.turn.last_byte_at = moment(self.loop)
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
            now = moment(self.loop) + TICK
            if self.turn.due() <= now:
                self.turn.expire(now)
            else:
                self.arm()


cdef Py_ssize_t head_of(char *head, bytes prefix, Py_ssize_t length) noexcept:  # copies bytes alone
    """Prefix and content-length where `head` has room for them, else -1, as for a GET or HEAD, which have no length."""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(prefix)
    cdef const char *text = PyBytes_AS_STRING(prefix)
    cdef char number[24]
    cdef char *at = digits(number + sizeof(number), length)
    if size > HEAD_ROOM - LENGTH_ROOM or text[0] == b"G" or text[0] == b"H":
        return -1
    memcpy(head, text, size)
    memcpy(head + size, b"content-length: ", 16)
    size += 16
    memcpy(head + size, at, number + sizeof(number) - at)
    size += number + sizeof(number) - at
    memcpy(head + size, b"\r\n\r\n", 4)
    return size + 4


cdef bytes request_bytes(bytes prefix, bytes body):
    """Prefix, content-length and body as one object, for one write."""
    if not body and (prefix.startswith(b"GET ") or prefix.startswith(b"HEAD ")):
        return prefix + b"\r\n"
    return b"%bcontent-length: %d\r\n\r\n%b" % (prefix, len(body), body)


cdef class Exchange:
    """A caller's hold on one request and its answer."""

    def __init__(self, Owner lane, loop, bytes prefix not None, bytes body not None, deadlines):
        self.turn = Turn(lane, loop, prefix, body, deadlines)

    @staticmethod
    cdef Exchange begun(Owner lane, loop, bytes prefix, bytes body, deadlines, double now):
        cdef Exchange exchange = Exchange.__new__(Exchange)
        exchange.turn = Turn.__new__(Turn)
        exchange.turn.meant(lane, loop, prefix, body, deadlines, now)
        return exchange

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
        return moment(self.turn.loop) - self.turn.started

    cpdef bytes header(self, bytes name):
        return self.turn.header(name)

    def headers(self):
        return self.turn.headers()

    def committed(self):
        cdef Turn turn = self.turn
        if not turn.content:
            turn.content = True
            if turn.connection is not None:
                turn.connection.arm()

    def stop(self):
        self.turn.stop()

    cpdef bint answer(self) except? False:
        cdef Turn turn = self.turn
        if turn.head is not None:
            return True
        if turn.kind is not None:
            raise turn.fault()
        return False

    cpdef coming(self):
        return self.turn.arrival(ANSWER)

    cpdef bytes taken(self):
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

    cdef bytes here(self):
        """What has arrived; empty at the clean end, None while there is nothing."""
        cdef Turn turn = self.turn
        if turn.unread == 0:
            if turn.kind is not None:
                raise turn.fault()
            return b"" if turn.state == DONE else None
        data = turn.take()
        if turn.connection is not None:
            turn.connection.resume()
        return data

    cdef Arrival more(self):
        return self.turn.arrival(BYTES)

    async def chunk(self):
        data = self.here()
        while data is None:
            try:
                await self.more()
            except BaseException:
                self.turn.stop()
                raise
            data = self.here()
        return data
