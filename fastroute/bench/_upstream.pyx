# cython: language_level=3, autotestdict=False, auto_pickle=False
"""A provider that is never the bottleneck: one thread, one epoll, answers made before the first request.

`_upstream.pyi` states the contract. A body's length is all that is parsed; two marks in it say what is wanted: a stream,
and at what pace. Events of a paced stream carry the instant they were written, so that whoever reads them knows their
delay without a clock of its own to agree on.
"""

from libc.errno cimport errno
from libc.stdint cimport int64_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport atoi, calloc, free, malloc, realloc, strtoll, strtoul
from libc.string cimport memcpy, memmove, strncmp

from fastroute.bench._net cimport (
    net_accept, net_again, net_close, net_header, net_now, net_poller, net_recv, net_send, net_timer, net_timer_at,
    net_timer_heard, net_wait, net_watch,
)

import os

cdef extern from "string.h" nogil:
    void* memmem(const void* hay, size_t hay_length, const void* needle, size_t needle_length)

cdef size_t ROOM = 8192
cdef size_t LONGEST = 16 << 20
cdef unsigned int LISTENER = 0xFFFFFFFF, TIMER = 0xFFFFFFFE

cdef struct Caller:
    bint open
    bint writing       # whether the poller tells when it can be written to
    unsigned int life  # how often this descriptor was somebody's: a paced event finds its own caller or none
    char* have
    size_t filled
    size_t room
    const char* out
    size_t left
    size_t next        # piece of a burst, each written by itself
    int64_t every
    int events         # of a paced stream, still to come; -1 for none
    char piece[640]

cdef struct Due:
    int64_t at
    int fd
    unsigned int life

cdef struct Said:
    const char* data
    size_t length

cdef struct State:
    int poller
    int timer
    Caller* callers
    size_t most
    Due* heap
    size_t waiting
    size_t heap_room
    Said* burst
    size_t pieces
    Said json, models, stream_head, before, after, end


cdef void push(State* s, int64_t at, int fd, unsigned int life) noexcept nogil:  # C memory; the divisor is 2
    cdef size_t here, parent
    cdef Due swap
    if s.waiting == s.heap_room:
        s.heap_room = s.heap_room * 2
        s.heap = <Due*>realloc(s.heap, s.heap_room * sizeof(Due))
    here = s.waiting
    s.waiting += 1
    s.heap[here] = Due(at, fd, life)
    while here:
        parent = (here - 1) // 2
        if s.heap[parent].at <= s.heap[here].at:
            break
        swap = s.heap[parent]
        s.heap[parent] = s.heap[here]
        s.heap[here] = swap
        here = parent


cdef Due pop(State* s) noexcept nogil:  # C memory alone
    cdef Due first = s.heap[0], swap
    cdef size_t here = 0, child
    s.waiting -= 1
    s.heap[0] = s.heap[s.waiting]
    while True:
        child = 2 * here + 1
        if child >= s.waiting:
            return first
        if child + 1 < s.waiting and s.heap[child + 1].at < s.heap[child].at:
            child += 1
        if s.heap[here].at <= s.heap[child].at:
            return first
        swap = s.heap[child]
        s.heap[child] = s.heap[here]
        s.heap[here] = swap
        here = child


cdef void leave(State* s, int fd) noexcept nogil:  # C memory and a socket
    cdef Caller* c = &s.callers[fd]
    c.open = False
    c.life += 1
    c.events = -1
    c.left = 0
    c.next = s.pieces
    net_close(fd)


cdef bint flush(State* s, int fd) noexcept nogil:  # C memory and a socket, whose failure is False
    """Write what is left; whether the caller is still there."""
    cdef Caller* c = &s.callers[fd]
    cdef ssize_t sent
    while c.left or c.next < s.pieces:
        if not c.left:
            c.out = s.burst[c.next].data
            c.left = s.burst[c.next].length
            c.next += 1
        sent = net_send(fd, c.out, c.left)
        if sent < 0:
            if net_again():
                break
            leave(s, fd)
            return False
        c.out += sent
        c.left -= <size_t>sent
    if (c.left > 0) != c.writing:
        c.writing = c.left > 0
        net_watch(s.poller, fd, <unsigned int>fd, c.writing, 1)
    return True


cdef void say(Caller* c, const char* data, size_t length) noexcept nogil:  # two C values are kept
    c.out = data
    c.left = length


cdef size_t framed(State* s, char* piece, const char* data, size_t length) noexcept nogil:  # C memory alone
    cdef int head = snprintf(piece, 16, "%zx\r\n", length)
    memcpy(piece + head, data, length)
    memcpy(piece + head + length, "\r\n", 2)
    return head + length + 2


cdef void tick(State* s, int fd, unsigned int life, int64_t now) noexcept nogil:  # C memory, and what it calls
    """The next event of a paced stream; after the last one its end."""
    cdef Caller* c = &s.callers[fd]
    cdef char event[512]
    cdef size_t length
    if not c.open or c.life != life or c.events < 0:
        return
    if c.left:  # the caller has not taken the last one
        push(s, now + 1000000, fd, life)
        return
    if c.events == 0:
        c.events = -1
        say(c, s.end.data, s.end.length)
    else:
        memcpy(event, s.before.data, s.before.length)
        length = s.before.length
        length += <size_t>snprintf(event + length, 24, "%019lld", <long long>net_now())
        memcpy(event + length, s.after.data, s.after.length)
        length += s.after.length
        say(c, c.piece, framed(s, c.piece, event, length))
        c.events -= 1
        push(s, now + c.every if c.events else now, fd, life)
    flush(s, fd)


# C memory, searched.
cdef void answer(State* s, int fd, const char* head, size_t head_length, const char* body, size_t length) noexcept nogil:
    cdef Caller* c = &s.callers[fd]
    cdef const char* mark
    cdef char* at
    cdef int64_t wait
    if strncmp(head, "POST", 4) != 0:
        say(c, s.models.data, s.models.length)
    elif not memmem(body, length, "\"stream\":true", 13) and not memmem(body, length, "\"stream\": true", 14):
        say(c, s.json.data, s.json.length)
    else:
        mark = <const char*>memmem(body, length, "pace=", 5)
        if not mark:
            c.next = 0
        else:
            wait = strtoll(mark + 5, &at, 10) * 1000
            c.every = strtoll(at + 1, &at, 10) * 1000
            c.events = atoi(at + 1)
            say(c, s.stream_head.data, s.stream_head.length)
            push(s, net_now() + wait, fd, c.life)


cdef void serve_caller(State* s, int fd) noexcept nogil:  # C memory, searched
    """Answer what is whole, one after the other."""
    cdef Caller* c = &s.callers[fd]
    cdef const char* end
    cdef const char* value
    cdef size_t head, body
    while c.filled and not c.left and c.events < 0:
        end = <const char*>memmem(c.have, c.filled, "\r\n\r\n", 4)
        if not end:
            return
        head = <size_t>(end - c.have) + 4
        body = 0
        value = net_header(c.have, head, "content-length")
        if value:
            body = strtoul(value, NULL, 10)
        elif net_header(c.have, head, "transfer-encoding"):
            end = <const char*>memmem(c.have + head, c.filled - head, "\r\n0\r\n\r\n", 7)
            if not end:
                return
            body = <size_t>(end - c.have) - head + 7
        if c.filled - head < body:
            return
        answer(s, fd, c.have, head, c.have + head, body)
        c.filled -= head + body
        if c.filled:
            memmove(c.have, c.have + head + body, c.filled)
        if not flush(s, fd):
            return


cdef void hear(State* s, int fd) noexcept nogil:  # C memory and a socket, whose failure ends the caller
    cdef Caller* c = &s.callers[fd]
    cdef ssize_t got
    cdef size_t asked
    while True:
        if c.filled == c.room:
            if c.room >= LONGEST:
                leave(s, fd)
                return
            c.room = c.room * 4
            c.have = <char*>realloc(c.have, c.room)
        asked = c.room - c.filled
        got = net_recv(fd, c.have + c.filled, asked)
        if got == 0 or (got < 0 and not net_again()):
            leave(s, fd)
            return
        if got < 0:
            break
        c.filled += <size_t>got
        if <size_t>got < asked:
            break
    serve_caller(s, fd)


cdef void welcome(State* s, int listener) noexcept nogil:  # C memory and sockets
    cdef int fd
    cdef Caller* c
    while True:
        fd = net_accept(listener)
        if fd < 0:
            return
        if <size_t>fd >= s.most:
            net_close(fd)
            continue
        c = &s.callers[fd]
        if c.have == NULL:
            c.have = <char*>malloc(ROOM)
            c.room = ROOM
        c.open = True
        c.writing = False
        c.filled = 0
        c.left = 0
        c.next = s.pieces
        c.events = -1
        net_watch(s.poller, fd, <unsigned int>fd, 0, 0)


cdef void turn(State* s, int listener) noexcept nogil:  # C memory and the poller
    cdef unsigned int tags[256]
    cdef unsigned char how[256]
    cdef int found, i, fd
    cdef int64_t now
    cdef Due due
    found = net_wait(s.poller, tags, how, 256, 1000)
    for i in range(found):
        if tags[i] == LISTENER:
            welcome(s, listener)
        elif tags[i] == TIMER:
            net_timer_heard(s.timer)
        else:
            fd = <int>tags[i]
            if how[i] & 2 and s.callers[fd].open and not flush(s, fd):
                continue
            if how[i] & 1 and s.callers[fd].open:
                hear(s, fd)
            elif s.callers[fd].open:
                serve_caller(s, fd)
    now = net_now()
    while s.waiting and s.heap[0].at <= now:
        due = pop(s)
        tick(s, due.fd, due.life, now)
    net_timer_at(s.timer, s.heap[0].at if s.waiting else 0)


cdef Said said(bytes text):
    cdef Said found
    found.data = text
    found.length = <size_t>len(text)
    return found


def serve(
    int listener, *, bytes json, tuple burst, bytes models, bytes stream_head, bytes before, bytes after, bytes end
):
    cdef State s
    cdef size_t i
    if len(before) + len(after) > 480:
        raise ValueError(f"a paced event of {len(before) + len(after)} bytes is too long: 480 at most")
    s.poller, s.timer = net_poller(), net_timer()
    if s.poller < 0 or s.timer < 0:
        raise OSError(errno, os.strerror(errno))
    s.most = <size_t>min(max(os.sysconf("SC_OPEN_MAX"), 1024), 1 << 20)
    s.callers = <Caller*>calloc(s.most, sizeof(Caller))
    s.heap_room = 1024
    s.waiting = 0
    s.heap = <Due*>malloc(s.heap_room * sizeof(Due))
    s.json, s.models = said(json), said(models)
    s.pieces = <size_t>len(burst)
    s.burst = <Said*>malloc((s.pieces + 1) * sizeof(Said))
    for i in range(s.pieces):
        s.burst[i] = said(burst[i])
    s.stream_head, s.before, s.after, s.end = said(stream_head), said(before), said(after), said(end)
    net_watch(s.poller, listener, LISTENER, 0, 0)
    net_watch(s.poller, s.timer, TIMER, 0, 0)
    with nogil:
        while True:
            turn(&s, listener)
