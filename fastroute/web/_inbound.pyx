# cython: language_level=3, nonecheck=True
"""The callers' connections: an HTTP/1.1 server as an asyncio protocol, and the ASGI channel of each request on it.

`Asked` parses, `Visit` is one request with its `receive` and `send`, `Inbound` is the protocol that serves one visit at a
time, and `House` is what all connections of a server share. A connection and its requests stay on one thread: handing
each of them over between threads, as the other server must, takes more than all that is done for it here.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memchr, memcmp, memcpy
from libc.time cimport time as wall_s

from fastroute._framing cimport BROKEN, DONE, HEAD
from fastroute._heads cimport digits
from fastroute._now cimport moment
from fastroute._pieces cimport fr_piece, fr_send, hexadecimal, joined
from fastroute._sweep cimport Sweep
from fastroute.upstreams._arrival cimport Arrival
from fastroute.web._asked cimport Asked

import logging
from email.utils import formatdate
from http import HTTPStatus

from socket import SO_LINGER, SOL_SOCKET
from struct import pack

import orjson

from fastroute.callers.shape import openai_error

cdef enum:
    UNREAD_HIGH = 64 * 1024
    AT_ONCE = 256 * 1024   # beyond it the transport is asked: it alone says when the caller does not read
    LINGER_MAX = 1 << 20   # what is passed over of a body that nobody reads
    TAIL = 7               # of a chunk that is the last

log = logging.getLogger("fastroute.web")

cdef str START = "http.response.start", BODY = "http.response.body"
cdef dict TEMPLATE = {
    "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "scheme": "http",
    "root_path": "", "extensions": {},
}
cdef bytes NO_LINGER = pack("ii", 1, 0)
cdef bytes GO_ON = b"HTTP/1.1 100 Continue\r\n\r\n"
cdef dict REFUSED = {"protocol": 400, "head": 431, "version": 505, "slow": 408}
cdef dict CODES = {"protocol": "malformed_request", "head": "head_too_large", "version": "malformed_request", "slow": "slow_head"}

cdef dict first_lines = {}
for _status in HTTPStatus:
    first_lines[int(_status)] = b"HTTP/1.1 %d %b\r\n" % (_status, _status.phrase.encode())

cdef long long dated_s = 0
cdef bytes dated = b""


cdef bytes date():
    """The header that says when, made once a second."""
    global dated_s, dated
    cdef long long now = wall_s(NULL)
    if now != dated_s:
        dated = b"date: %b\r\n" % formatdate(now, usegmt=True).encode()
        dated_s = now
    return dated


cdef class Nothing:
    """What an awaitable is whose work is done already."""

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        raise StopIteration


cdef Nothing NOTHING = Nothing()


cdef class Visit(Asked):
    """One request, and the channel over which the application reads and answers it."""

    async def receive(self):
        """The next piece of the body; after it, the caller's leaving."""
        cdef bint more
        while True:
            if self.unread:
                body = self.take()
                self.line.resume()
                more = self.state != DONE
                self.finished = not more
                return {"type": "http.request", "body": body, "more_body": more}
            if self.state == DONE and not self.finished:
                self.finished = True
                return {"type": "http.request", "body": b"", "more_body": False}
            if self.line.gone or self.state == BROKEN or self.over:
                return {"type": "http.disconnect"}
            if self.expects and self.state < DONE:
                self.expects = False
                if not self.begun:
                    self.line.write(GO_ON, b"", 0, False, False)
            if self.waiter is not None and not self.waiter.over:
                raise RuntimeError("a request has one reader at a time")
            self.waiter = Arrival.__new__(Arrival)
            self.waiter.loop = self.line.loop
            await self.waiter

    def send(self, message):
        """Begin the answer, or go on with it; waits while the caller takes nothing."""
        kind = message["type"]
        if kind == BODY:
            if not self.begun or self.over:
                raise RuntimeError("a body comes after the answer's start, and before its end")
            body = message.get("body", b"")
            self.put(body if type(body) is bytes else bytes(body), message.get("more_body", False))
        elif kind == START:
            if self.begun:
                raise RuntimeError("an answer begins once")
            self.open(message["status"], message.get("headers", ()))
        else:
            raise RuntimeError(f"{kind!r} is no message of an answer")
        line = self.line
        if line.stuck and not self.over and not line.lost:
            if line.room is None or line.room.over:
                line.room = Arrival.__new__(Arrival)
                line.room.loop = line.loop
            return line.room
        return NOTHING

    async def run(self):
        """The application's work on this request; what it leaves undone is not left open."""
        cdef Inbound line = self.line
        try:
            await line.house.app(self.scope(), self.receive, self.send)
        except Exception as fault:
            if not self.over:  # else it was said already, by whoever answered
                log.error("%s %s met a fault of this gateway", self.method, self.path, exc_info=fault)
        finally:
            line.house.visits.discard(self)
            if not self.over and not line.lost:
                if self.sent or line.gone:
                    line.cut(self)
                elif self.state == BROKEN:
                    line.refuse(self)
                else:
                    self.begun = self.sent = True
                    line.say(self, 500, "internal_error", "this gateway met a fault of its own; its log tells more")
            if line.house.ending:
                line.house.left()

    cdef dict scope(self):
        cdef dict scope = TEMPLATE.copy()
        if self.old:
            scope["http_version"] = "1.0"
        scope["method"] = self.method
        scope["path"] = self.path
        scope["raw_path"] = self.raw_path
        scope["query_string"] = self.query
        scope["headers"] = self.headers
        scope["client"] = self.line.client
        scope["server"] = self.line.server
        return scope

    cdef int wake(self) except -1:
        cdef Arrival waiter = self.waiter
        if waiter is not None:
            self.waiter = None
            waiter.finish(True)
        return 0

    cdef int open(self, int status, headers) except -1:
        cdef bint streams = False
        self.begun = True
        self.status = status
        self.told = headers if type(headers) is list or type(headers) is tuple else list(headers)
        self.left_to_send = -1
        self.bodiless = self.bodiless or status == 204 or status == 304
        for name, value in self.told:
            width = PyBytes_GET_SIZE(<bytes?>name)
            if width == 14 and name == b"content-length":
                self.left_to_send = int(value)
            elif width == 12 and name == b"content-type":
                streams = (<bytes?>value).startswith(b"text/event-stream")
            elif width == 10 and name == b"connection":
                self.closing = self.closing or value == b"close"
        if streams and not self.bodiless:
            # Its first event may take long, and whoever waits for it wants to know that it comes.
            self.chunked = not self.old and self.left_to_send < 0
            head = self.head(-1)
            self.sent = True
            self.line.write(head, b"", 0, False, False)
        return 0

    cdef int put(self, bytes body, bint more) except -1:
        """The next piece of the body, and before it the head where that was not sent."""
        cdef bytes head = None
        cdef Py_ssize_t size = PyBytes_GET_SIZE(body)
        cdef long long left = self.left_to_send
        if left >= 0 and not self.bodiless:
            left -= size
            if left < 0 or (left and not more):
                raise RuntimeError("the body is not as long as its content-length says")
        if not self.sent:
            if self.bodiless or self.left_to_send >= 0:
                head = self.head(-1)
            elif more:
                self.chunked = not self.old
                head = self.head(-1)
            else:
                head = self.head(size)
            self.sent = True
        self.left_to_send = left
        if self.bodiless:
            size = 0
        self.over = not more
        if head is not None or size or (self.chunked and not more):
            self.line.write(head, body, size, self.chunked, not more)
        if not more:
            self.line.done(self)
        return 0

    cdef bytes head(self, long long length):
        """The answer's head; `length` is what it does not say of the body's itself, -1 where it need not."""
        cdef bytes first = first_lines.get(self.status), when = date(), head
        cdef Py_ssize_t size
        cdef char number[24]
        cdef char *count = NULL
        cdef char *into
        cdef Py_ssize_t width
        if first is None:
            first = b"HTTP/1.1 %d \r\n" % self.status
        # No connection outlives the server's end, a body that nobody reads, or an answer whose end only its closing tells.
        if self.old or not self.keep or self.line.house.ending or self.state != DONE:
            self.closing = True
        size = PyBytes_GET_SIZE(first) + PyBytes_GET_SIZE(when) + 2
        for name, value in self.told:
            if not ours(<bytes?>name):
                size += PyBytes_GET_SIZE(name) + PyBytes_GET_SIZE(<bytes?>value) + 4
        if length >= 0:
            count = digits(number + sizeof(number), length)
            size += 16 + (number + sizeof(number) - count) + 2
        if self.chunked:
            size += 28
        if self.closing:
            size += 19
        head = PyBytes_FromStringAndSize(NULL, size)
        into = PyBytes_AS_STRING(head)
        into = copied(into, first)
        for name, value in self.told:
            if ours(name):
                continue
            if dangerous(name) or dangerous(value):
                raise ValueError(f"the header {name!r} of an answer holds a line end")
            into = copied(into, name)
            into[0] = b":"
            into[1] = b" "
            into = copied(into + 2, value)
            into[0] = b"\r"
            into[1] = b"\n"
            into += 2
        if length >= 0:
            memcpy(into, b"content-length: ", 16)
            width = number + sizeof(number) - count
            memcpy(into + 16, count, width)
            memcpy(into + 16 + width, b"\r\n", 2)
            into += 18 + width
        if self.chunked:
            memcpy(into, b"transfer-encoding: chunked\r\n", 28)
            into += 28
        if self.closing:
            memcpy(into, b"connection: close\r\n", 19)
            into += 19
        into = copied(into, when)
        memcpy(into, b"\r\n", 2)
        assert into + 2 == PyBytes_AS_STRING(head) + size
        self.told = None
        return head


cdef inline bint ours(bytes name) noexcept:  # looks at bytes
    """Whether a header is the connection's to say, not the application's."""
    cdef Py_ssize_t width = PyBytes_GET_SIZE(name)
    if width == 10:
        return memcmp(PyBytes_AS_STRING(name), b"connection", 10) == 0
    return width == 17 and memcmp(PyBytes_AS_STRING(name), b"transfer-encoding", 17) == 0


cdef inline char *copied(char *into, bytes text) noexcept:  # copies bytes into room that was counted
    memcpy(into, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
    return into + PyBytes_GET_SIZE(text)


cdef inline bint dangerous(bytes text) noexcept:  # looks at bytes
    """Whether it would end its line."""
    cdef const char *at = PyBytes_AS_STRING(text)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(text)
    return memchr(at, b"\n", size) != NULL or memchr(at, b"\r", size) != NULL or memchr(at, 0, size) != NULL


cdef bytes refusal(int status, str code, str words):
    """A whole answer that says what was wrong with what is no request."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    body = orjson.dumps(openai_error(status, kind, code, words, "", None))
    return b"%bcontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n%b\r\n%b" % (
        first_lines[status], len(body), date(), body,
    )


cdef class Inbound:
    """One caller's connection, serving one request at a time."""

    def __init__(self, House house not None):
        self.house = house
        self.loop = house.loop
        self.fd = -1

    def connection_made(self, transport):
        self.transport = transport
        self.fd = transport.get_extra_info("socket").fileno()
        client, server = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        self.client = tuple(client[:2]) if client else None
        self.server = tuple(server[:2]) if server else None
        self.house.lines.add(self)
        self.house.idle.add_at(self, self.loop, moment(self.loop))

    def data_received(self, bytes data not None):
        if self.lingering:
            self.passed_over += PyBytes_GET_SIZE(data)
            if self.passed_over > LINGER_MAX and not self.paused:
                self.paused = True
                self.transport.pause_reading()
            return
        if self.waiting is not None or (self.visit is not None and self.visit.state >= DONE):
            # The next request, of a caller that does not wait for answers.
            self.waiting = data if self.waiting is None else self.waiting + data
            if len(self.waiting) > UNREAD_HIGH and not self.paused:
                self.paused = True
                self.transport.pause_reading()
            return
        self.feed(data)

    cdef int feed(self, bytes data) except -1:
        cdef Visit visit = self.visit
        cdef bint headless
        if visit is None:
            visit = self.visit = Visit.__new__(Visit)
            visit.parts = []
            visit.line = self
        headless = visit.state == HEAD
        visit.feed(data)
        if visit.rest is not None:
            self.waiting = visit.rest
            visit.rest = None
        if headless:
            if visit.state == HEAD:
                if not self.begun and visit.partial is not None:
                    self.begun = True
                    self.house.idle.drop(self)
                    self.house.slow.add_at(self, self.loop, moment(self.loop))
                return 0
            if visit.headers is None:
                return self.refuse(visit)
            return self.start(visit)
        if visit.unread > UNREAD_HIGH and not self.paused and visit.state < DONE:
            self.paused = True
            self.transport.pause_reading()
        return visit.wake()

    cdef int start(self, Visit visit) except -1:
        """Hand a request to the application; its head is here."""
        if self.begun:
            self.begun = False
            self.house.slow.drop(self)
        else:
            self.house.idle.drop(self)
        visit.bodiless = visit.method == "HEAD"
        self.house.visits.add(visit)
        self.loop.create_task(visit.run())
        return 0

    cdef int refuse(self, Visit visit) except -1:
        """Answer what is no request, and be done with its connection."""
        self.house.idle.drop(self)
        self.house.slow.drop(self)
        if self.house.refused is not None:
            self.house.refused(CODES[visit.kind])
        return self.say(visit, REFUSED[visit.kind], CODES[visit.kind], visit.words)

    cdef int say(self, Visit visit, int status, str code, str words) except -1:
        """An answer of the server's own, which is the last on its connection."""
        cdef bytes whole = refusal(status, code, words)
        if visit.bodiless:
            whole = whole[:whole.index(b"\r\n\r\n") + 4]
        visit.over = visit.closing = True
        self.write(whole, b"", 0, False, True)
        return self.done(visit)

    cdef int cut(self, Visit visit) except -1:
        """End a connection so that nobody takes its answer for whole."""
        if not visit.chunked and visit.left_to_send < 0:
            # Where its end is that of the connection, only a reset is none.
            self.transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, NO_LINGER)
        self.transport.abort()
        return 0

    def idled(self):
        """Nothing was asked for long."""
        if self.transport.get_write_buffer_size():  # the last answer is still being read
            self.house.idle.add_at(self, self.loop, moment(self.loop))
        else:
            self.transport.close()

    def slowed(self):
        """A head has begun to arrive, and does not end."""
        cdef Visit visit = self.visit
        visit.fail("slow", "the head of the request took too long to arrive")
        self.refuse(visit)

    def lingered(self):
        if self.transport.get_write_buffer_size():
            self.house.leaving.add_at(self, self.loop, moment(self.loop))
        else:
            self.transport.abort()

    cdef int write(self, bytes head, bytes body, Py_ssize_t size, bint chunked, bint last) except -1:
        """Head and body, at once where the socket takes them, else by the transport.

        A transport that holds something back is asked for everything, since what it holds goes first.
        """
        cdef fr_piece pieces[4]
        cdef char mark[24]
        cdef char *at
        cdef int count = 0
        cdef Py_ssize_t total = 0, taken = -1
        if self.lost:
            return 0
        if head is not None:
            pieces[0].iov_base = PyBytes_AS_STRING(head)
            pieces[0].iov_len = PyBytes_GET_SIZE(head)
            total = PyBytes_GET_SIZE(head)
            count = 1
        if chunked and size:
            at = hexadecimal(mark + sizeof(mark), size)
            pieces[count].iov_base = at
            pieces[count].iov_len = mark + sizeof(mark) - at
            total += pieces[count].iov_len
            count += 1
        if size:
            pieces[count].iov_base = PyBytes_AS_STRING(body)
            pieces[count].iov_len = size
            total += size
            count += 1
        if chunked and (size or last):
            at = <char *>b"\r\n0\r\n\r\n"
            pieces[count].iov_base = at if size else at + 2
            pieces[count].iov_len = (TAIL if size else TAIL - 2) if last else 2
            total += pieces[count].iov_len
            count += 1
        if self.held and not self.transport.get_write_buffer_size():
            self.held = False
        if not self.held and total <= AT_ONCE:
            taken = fr_send(self.fd, pieces, count)
            if taken == total:
                return 0
        # Whatever is wrong with the socket is the transport's to find out.
        self.held = True
        self.transport.write(joined(pieces, count, total, taken if taken > 0 else 0))
        return 0

    cdef int done(self, Visit visit) except -1:
        """An answer is over: the next request's turn, or the connection's end."""
        if self.visit is not visit:
            return 0
        visit.wake()
        if self.lost:
            self.visit = None
            return 0
        if visit.closing or self.gone or visit.state != DONE or self.house.ending:
            return self.end()
        self.visit = None
        self.house.idle.add_at(self, self.loop, moment(self.loop))
        if self.waiting is not None:
            self.loop.call_soon(self.next)
        else:
            self.resume()
        return 0

    def next(self):
        """Read on with what came after the last request."""
        cdef bytes data = self.waiting
        self.waiting = None
        if self.gone or self.lingering or self.house.ending:
            return  # it is being closed
        self.resume()
        self.feed(data)

    cdef int resume(self) except -1:
        if self.paused and not self.lost:
            self.paused = False
            self.transport.resume_reading()
        return 0

    cdef int end(self) except -1:
        """Close, once everything is sent; what the caller still says is passed over, or it would never read the answer."""
        cdef Visit visit = self.visit
        if self.waiting is not None and not self.waiting.strip(b"\r\n"):
            self.waiting = None
        if self.gone or (visit is not None and visit.state == DONE and self.waiting is None):
            self.transport.close()
            return 0
        self.lingering = True
        self.waiting = None
        self.house.leaving.add_at(self, self.loop, moment(self.loop))
        self.resume()
        try:
            self.transport.write_eof()
        except OSError:
            self.transport.abort()  # it was reset under us
        return 0

    def eof_received(self):
        cdef Visit visit = self.visit
        self.gone = True
        if visit is None or visit.over or visit.state == HEAD:
            return False
        visit.wake()
        return True  # it may still be told of what was wrong

    def connection_lost(self, fault):
        cdef Visit visit = self.visit
        cdef Arrival room = self.room
        self.gone = self.lost = True
        self.house.lines.discard(self)
        self.house.idle.drop(self)
        self.house.slow.drop(self)
        self.house.leaving.drop(self)
        self.visit = None
        self.waiting = None
        if visit is not None:
            visit.wake()
        if room is not None:
            self.room = None
            room.finish(False)
        self.transport = None
        self.house.left()

    def pause_writing(self):
        self.stuck = True

    def resume_writing(self):
        cdef Arrival room = self.room
        self.stuck = False
        if room is not None:
            self.room = None
            room.finish(False)

    def close(self):
        """The server ends: at once where nothing is asked, else with the answer."""
        if self.visit is None or (self.visit.state == HEAD and not self.lingering):
            self.transport.close()


cdef class House:
    """What the connections of one server share."""

    def __init__(self, app, loop, left, refused, double idle_s, double head_s, double linger_s):
        self.app = app
        self.loop = loop
        self.left = left
        self.refused = refused
        self.lines = set()
        self.visits = set()
        self.idle = Sweep(idle_s, Inbound.idled)
        self.slow = Sweep(head_s, Inbound.slowed)
        self.leaving = Sweep(linger_s, Inbound.lingered)

    def end(self):
        """Connections that wait for a request are closed, all others with the answer that is under way."""
        self.ending = True
        for line in tuple(self.lines):
            line.close()

    def cut(self):
        """End every connection as it is."""
        cdef Inbound line
        for line in tuple(self.lines):
            line.transport.abort()
