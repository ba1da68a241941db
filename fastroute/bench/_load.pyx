# cython: language_level=3, autotestdict=False, auto_pickle=False
"""A load generator: one thread, one epoll, closed loop or fixed rate, JSON and event streams.

`_load.pyi` states the contract. At a fixed rate request n is due at the start plus n / rate, whatever became of those
before it, and its latency counts from there: a server that stalls is charged for everybody it kept waiting.
"""

from libc.errno cimport errno
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport atoi, calloc, free, malloc, realloc, strtoll, strtoul
from libc.string cimport memchr, memcmp, memcpy, memmove, strncmp

from fastroute.bench._net cimport (
    net_again, net_close, net_connect, net_cpu, net_header, net_now, net_poller, net_recv, net_send, net_timer,
    net_timer_at, net_timer_heard, net_wait, net_watch,
)

import os

cdef extern from "string.h" nogil:
    void* memmem(const void* hay, size_t hay_length, const void* needle, size_t needle_length)
cdef extern from "strings.h" nogil:
    int strncasecmp(const char* one, const char* other, size_t length)
cdef extern from *:
    """
    #define top_bit(v) (63 - __builtin_clzll(v))
    """
    int top_bit(uint64_t value) nogil

cdef unsigned int TIMER = 0xFFFFFFFE
cdef enum:
    BUCKETS = 8192      # up to 2 ** 63 ns
    PIECE = 262144
    HEAD_MAX = 65536
    EVENT_MAX = 1048576
    STAMP_MAX = 19

cdef enum Phase:
    CONNECTING, IDLE, HEAD, LENGTH, SIZE, DATA, GAP, TRAILER, CLOSING

cdef struct Histogram:
    int64_t counts[BUCKETS]
    int64_t most

cdef struct Line:
    int fd
    Phase phase
    bint busy
    bint writing
    bint closing        # the server ends the connection with this answer
    bint stream
    bint whole          # the stream said [DONE]
    bint changed
    bint measured
    bint failed
    int64_t due
    int64_t first
    size_t sent
    size_t number       # of the request
    size_t left         # of the body, or of the chunk
    size_t at           # bytes of the body, or events, so far
    size_t filled
    size_t room
    char* have          # a head, a chunk's line, or an event that is not whole yet

cdef struct Said:
    const char* data
    size_t length

cdef struct State:
    int poller, timer
    const char* host
    int port
    Line* lines
    int connections
    int* free_lines
    int free_count
    Said request, slots
    size_t slot_at, slot_size, slot_count
    Said expected           # of a JSON answer; of no length when nothing is compared
    const char** events     # of a burst
    size_t* event_sizes
    size_t event_count
    char* piece
    char* scratch
    double gap              # ns between requests at a fixed rate; 0 for a closed loop
    int64_t began, from_, until, limit
    size_t issued           # at a fixed rate: requests begun
    int pending
    int64_t answers, done, events_seen, comments, changed, bytes_
    int64_t wrong_status, lost, refused, cut, unanswered
    int last_status
    bint started, ended, wants_stream
    int64_t from_real, until_real
    Histogram latency, first, late


cdef int bucket(uint64_t value) noexcept nogil:  # a C number, shifted
    cdef int shift
    if value < 256:
        return <int>value
    shift = top_bit(value) - 7
    return (shift << 7) + <int>(value >> shift)


cdef void record(Histogram* h, int64_t value) noexcept nogil:  # C numbers alone
    if value < 0:
        value = 0
    h.counts[bucket(<uint64_t>value)] += 1
    if value > h.most:
        h.most = value


cdef void dial(State* s, int index) noexcept nogil:  # C memory and a socket, whose failure is counted
    cdef Line* c = &s.lines[index]
    c.phase = CONNECTING
    c.filled = 0
    c.closing = False
    c.fd = net_connect(s.host, s.port)
    if c.fd < 0:
        s.refused += 1
        c.fd = -1
        return
    c.writing = True
    net_watch(s.poller, c.fd, <unsigned int>index, 1, 0)


cdef void write_on(State* s, int index) noexcept nogil:  # C memory and a socket; the divisor was seen not to be 0
    """What is left of the request, with its own value in the slot."""
    cdef Line* c = &s.lines[index]
    cdef ssize_t sent
    cdef const char* data = s.request.data
    if s.slot_count:
        memcpy(s.scratch, data, s.request.length)
        memcpy(s.scratch + s.slot_at, s.slots.data + (c.number % s.slot_count) * s.slot_size, s.slot_size)
        data = s.scratch
    while c.sent < s.request.length:
        sent = net_send(c.fd, data + c.sent, s.request.length - c.sent)
        if sent < 0:
            break  # full, or lost, which reading tells
        c.sent += <size_t>sent
    if (c.sent < s.request.length) != c.writing:
        c.writing = c.sent < s.request.length
        net_watch(s.poller, c.fd, <unsigned int>index, c.writing, 1)


cdef void ask(State* s, int index, int64_t due) noexcept nogil:  # C memory alone
    cdef Line* c = &s.lines[index]
    c.due = due
    c.busy = True
    c.measured = s.from_ <= due < s.until
    c.number = s.issued
    s.issued += 1
    s.pending += 1
    c.sent = 0
    c.first = 0
    c.at = 0
    c.stream = c.whole = c.changed = c.failed = False
    c.filled = 0
    if c.phase == IDLE:
        c.phase = HEAD
        write_on(s, index)


cdef int64_t due_of(State* s) noexcept nogil:  # C numbers, multiplied
    return s.began + <int64_t>(s.gap * <double>s.issued)


cdef void offer(State* s, int64_t now) noexcept nogil:  # C numbers, and what it calls
    """Begin what is due (or, in a closed loop, whatever can be) on lines that are free."""
    cdef int64_t due
    while s.free_count:
        due = due_of(s) if s.gap > 0 else now
        if due > now or due >= s.until:
            return
        s.free_count -= 1
        ask(s, s.free_lines[s.free_count], due)


cdef void over(State* s, int index, int64_t now, bint lost) noexcept nogil:  # C memory and a socket
    """The answer is whole, or will never be."""
    cdef Line* c = &s.lines[index]
    cdef bint counted, busy = c.busy
    if busy:
        # A closed loop counts what was answered within the window, a fixed rate what was due in it.
        counted = c.measured if s.gap > 0 else s.from_ <= now < s.until
        if lost:
            c.failed = True
            s.lost += 1
        elif s.wants_stream and not c.failed and not c.whole:
            c.failed = True
            s.cut += 1
        s.done += not c.failed and s.from_ <= now < s.until
        if counted and not c.failed:
            s.answers += 1
            record(&s.latency, now - c.due)
            if c.first:
                record(&s.first, c.first - c.due)
            s.changed += c.changed
        c.busy = False
        s.pending -= 1
    if lost or c.closing:
        net_close(c.fd)
        c.fd = -1
        if now < s.limit:
            dial(s, index)
    else:
        c.phase = IDLE
    if busy:
        s.free_lines[s.free_count] = index
        s.free_count += 1


cdef bint keep(Line* c, const char* data, size_t length, size_t most) noexcept nogil:  # C memory alone
    if c.filled + length > most:
        return False
    while c.filled + length > c.room:
        c.room = c.room * 2
        c.have = <char*>realloc(c.have, c.room)
    memcpy(c.have + c.filled, data, length)
    c.filled += length
    return True


cdef void event(State* s, Line* c, const char* data, size_t length, int64_t now) noexcept nogil:  # C memory alone
    """One event of a stream, with its empty line."""
    cdef const char* stamp
    cdef bint counted = s.from_ <= now < s.until
    if data[0] == c":":
        s.comments += 1
        return
    if not c.first:
        c.first = now
    s.events_seen += counted
    if s.event_count:
        if c.at >= s.event_count or s.event_sizes[c.at] != length or memcmp(s.events[c.at], data, length):
            c.changed = True
    else:
        stamp = <const char*>memmem(data, length, " t=", 3)
        if stamp and counted:
            record(&s.late, now - strtoll(stamp + 3, NULL, 10))
    c.at += 1
    if length >= 12 and not c.whole:
        c.whole = memmem(data, length, "data: [DONE]", 12) != NULL


cdef bint body(State* s, Line* c, const char* data, size_t length, int64_t now) noexcept nogil:  # C memory alone
    """Bytes of the body, its framing removed."""
    cdef const char* end
    cdef const char* at = data
    cdef const char* stop = data + length
    cdef size_t back
    s.bytes_ += <int64_t>length
    if not c.stream:
        if s.expected.length and not c.changed:
            c.changed = c.at + length > s.expected.length or memcmp(s.expected.data + c.at, data, length) != 0
        c.at += length
        return True
    while c.filled and at < stop:  # an event begun in an earlier piece
        end = <const char*>memchr(at, c"\n", <size_t>(stop - at))
        end = end + 1 if end else stop
        if not keep(c, at, <size_t>(end - at), EVENT_MAX):
            return False
        at = end
        if c.filled >= 2 and c.have[c.filled - 1] == c"\n" and c.have[c.filled - 2] == c"\n":
            event(s, c, c.have, c.filled, now)
            c.filled = 0
    while at < stop:
        end = <const char*>memmem(at, <size_t>(stop - at), "\n\n", 2)
        if not end:
            return keep(c, at, <size_t>(stop - at), EVENT_MAX)
        event(s, c, at, <size_t>(end - at) + 2, now)
        at = end + 2
    return True


cdef int head(State* s, Line* c) noexcept nogil:  # C memory, searched
    """Read the head that is in `have`; how its body ends, or -1 when it is none."""
    cdef const char* value
    cdef int status
    if c.filled < 13 or strncmp(c.have, "HTTP/1.", 7) != 0:
        return -1
    status = atoi(c.have + 9)
    if status == 100:
        return HEAD
    if status != 200:
        s.wrong_status += 1
        s.last_status = status
        c.failed = True
    value = net_header(c.have, c.filled, "connection")
    c.closing = value != NULL and strncasecmp(value, "close", 5) == 0
    value = net_header(c.have, c.filled, "content-type")
    c.stream = value != NULL and strncasecmp(value, "text/event-stream", 17) == 0
    value = net_header(c.have, c.filled, "content-length")
    if value:
        c.left = strtoul(value, NULL, 10)
        return LENGTH
    value = net_header(c.have, c.filled, "transfer-encoding")
    if value and strncasecmp(value, "chunked", 7) == 0:
        c.left = 0
        return SIZE
    c.closing = True
    return CLOSING


cdef int take(State* s, int index, const char* data, size_t length, int64_t now) noexcept nogil:  # nonsense is -1
    """Bytes of an answer; 1 when it is whole, 0 when more must come, -1 when it is nonsense."""
    cdef Line* c = &s.lines[index]
    cdef const char* stop = data + length
    cdef const char* end
    cdef size_t here, before
    cdef int kind
    cdef char line[32]
    while data < stop or (c.phase == LENGTH and c.left == 0):
        if c.phase == HEAD:
            before = c.filled
            if not keep(c, data, <size_t>(stop - data), HEAD_MAX + PIECE):
                return -1
            here = before - 3 if before > 3 else 0
            end = <const char*>memmem(c.have + here, c.filled - here, "\r\n\r\n", 4)
            if not end:
                return 0 if c.filled < HEAD_MAX else -1
            here = <size_t>(end - c.have) + 4
            data += here - before
            c.filled = here
            kind = head(s, c)
            c.filled = 0
            if kind < 0:
                return -1
            c.phase = <Phase>kind
        elif c.phase == LENGTH or c.phase == DATA:
            here = <size_t>(stop - data)
            if here > c.left:
                here = c.left
            if here and not body(s, c, data, here, now):
                return -1
            data += here
            c.left -= here
            if not c.left:
                if c.phase == LENGTH:
                    if s.expected.length and not c.stream and c.at != s.expected.length:
                        c.changed = True
                    return 1
                c.phase = GAP
                c.left = 2
        elif c.phase == GAP:
            c.left -= 1
            data += 1
            if not c.left:
                c.phase = SIZE
        elif c.phase == SIZE:
            # `left` gathers the size: a chunk's line may come in pieces, and `have` may hold half an event
            if data[0] == c"\n":
                here = c.left
                c.phase = DATA if here else TRAILER
                if not here:
                    c.left = 0
            elif c"0" <= data[0] <= c"9":
                c.left = c.left * 16 + <size_t>(data[0] - c"0")
            elif c"a" <= data[0] <= c"f":
                c.left = c.left * 16 + <size_t>(data[0] - c"a" + 10)
            elif c"A" <= data[0] <= c"F":
                c.left = c.left * 16 + <size_t>(data[0] - c"A" + 10)
            elif data[0] != c"\r":
                return -1
            data += 1
        elif c.phase == TRAILER:
            # `left` counts the bytes of the trailer's line; an empty one is the end
            if data[0] == c"\n":
                if not c.left:
                    if s.expected.length and not c.stream and c.at != s.expected.length:
                        c.changed = True
                    return 1
                c.left = 0
            elif data[0] != c"\r":
                c.left += 1
            data += 1
        elif c.phase == CLOSING:
            if not body(s, c, data, <size_t>(stop - data), now):
                return -1
            return 0
        else:
            return -1  # an answer that nobody asked for
    return 0


cdef void read_on(State* s, int index) noexcept nogil:  # C memory and a socket, whose failure is counted
    cdef Line* c = &s.lines[index]
    cdef ssize_t got
    cdef int64_t now
    cdef int told
    got = net_recv(c.fd, s.piece, PIECE)
    if got < 0 and net_again():
        return
    now = net_now()
    if got <= 0:
        over(s, index, now, c.phase != CLOSING)
        return
    told = take(s, index, s.piece, <size_t>got, now)
    if told:
        over(s, index, now, told < 0)


cdef void connected(State* s, int index) noexcept nogil:  # C memory, and what it calls
    cdef Line* c = &s.lines[index]
    if c.busy:
        c.phase = HEAD
        write_on(s, index)
    else:
        c.phase = IDLE
        c.writing = False
        net_watch(s.poller, c.fd, <unsigned int>index, 0, 1)


cdef void turn(State* s, int64_t wake) noexcept nogil:  # C memory and the poller
    cdef unsigned int tags[256]
    cdef unsigned char how[256]
    cdef int found, i, index
    net_timer_at(s.timer, wake)
    found = net_wait(s.poller, tags, how, 256, 1000)
    for i in range(found):
        if tags[i] == TIMER:
            net_timer_heard(s.timer)
            continue
        index = <int>tags[i]
        if s.lines[index].fd < 0:
            continue
        if s.lines[index].phase == CONNECTING:
            if how[i] & 1:
                s.refused += 1
                net_close(s.lines[index].fd)
                s.lines[index].fd = -1
                if s.lines[index].busy:
                    s.lines[index].busy = False
                    s.pending -= 1
                    s.lost += 1
                continue
            connected(s, index)
        elif how[i] & 2:
            write_on(s, index)
        if how[i] & 1:
            read_on(s, index)


cdef void connect_all(State* s) noexcept nogil:  # C numbers, divided by 128
    """Every line is open before the clock starts."""
    cdef int i, waiting = 1
    cdef int64_t limit = net_now() + <int64_t>5 * 1000000000
    for i in range(s.connections):
        dial(s, i)
        if i % 128 == 127:
            turn(s, net_now() + 200000)
    while waiting and not s.refused and net_now() < limit:
        waiting = 0
        for i in range(s.connections):
            waiting += s.lines[i].phase == CONNECTING
        if waiting:
            turn(s, net_now() + 50000000)
    if waiting:
        s.refused += waiting


cdef void drive(State* s, int* pids, int count, int64_t* before, int64_t* after) noexcept nogil:  # C numbers alone
    cdef int64_t now, wake, due
    cdef int i
    while True:
        now = net_now()
        if not s.started and now >= s.from_:
            s.started = True
            s.from_real = now
            for i in range(count):
                before[i] = net_cpu(pids[i])
        if not s.ended and now >= s.until:
            s.ended = True
            s.until_real = now
            for i in range(count):
                after[i] = net_cpu(pids[i])
        offer(s, now)
        if now >= s.until and not s.pending and (s.gap <= 0 or due_of(s) >= s.until):
            return
        if now >= s.limit or s.refused:
            break
        wake = s.from_ if now < s.from_ else s.until if now < s.until else s.limit
        if s.gap > 0 and s.free_count:
            due = due_of(s)
            if due < s.until and due < wake:
                wake = due
        turn(s, wake)
    # Nobody waits any longer; what was due and is not there counts with what it took until now.
    now = net_now()
    for i in range(s.connections):
        if s.lines[i].busy and (s.lines[i].measured or s.gap <= 0):
            s.unanswered += 1
            record(&s.latency, now - s.lines[i].due)
    while s.gap > 0 and due_of(s) < s.until:
        if due_of(s) >= s.from_:
            s.unanswered += 1
            record(&s.latency, now - due_of(s))
        s.issued += 1


cdef Said said(bytes text):
    cdef Said found
    found.data = text
    found.length = <size_t>len(text)
    return found


cdef dict histogram(Histogram* h):
    return {"counts": {i: h.counts[i] for i in range(BUCKETS) if h.counts[i]}, "most": h.most}


def bucket_of(uint64_t nanoseconds):
    return bucket(nanoseconds)


def cpu_ns(int pid):
    cdef int64_t found = net_cpu(pid)
    return None if found < 0 else found


def run(
    bytes host, int port, bytes request, *, int connections, int64_t warm_ns, int64_t window_ns, int64_t drain_ns,
    double rate=0, bint stream=False, bytes expected=b"", tuple events=(), bytes slots=b"", size_t slot_at=0, size_t slot_size=0,
    tuple pids=(),
):
    cdef State* s = <State*>calloc(1, sizeof(State))
    cdef int i, count = len(pids)
    cdef int* watched = <int*>calloc(count + 1, sizeof(int))
    cdef int64_t* before = <int64_t*>calloc(count + 1, sizeof(int64_t))
    cdef int64_t* after = <int64_t*>calloc(count + 1, sizeof(int64_t))
    if not (0 < connections <= 100_000):
        raise ValueError(f"{connections} connections: 1 to 100000")
    if slots and (slot_size == 0 or len(slots) % slot_size or slot_at + slot_size > len(request)):
        raise ValueError(f"slots of {slot_size} bytes at {slot_at} do not fit a request of {len(request)}")
    s.poller, s.timer = net_poller(), net_timer()
    if s.poller < 0 or s.timer < 0:
        raise OSError(errno, os.strerror(errno))
    net_watch(s.poller, s.timer, TIMER, 0, 0)
    for i in range(count):
        watched[i] = pids[i]
    s.host, s.port = host, port
    s.wants_stream = stream
    s.request, s.expected, s.slots = said(request), said(expected), said(slots)
    s.slot_at, s.slot_size = slot_at, slot_size
    s.slot_count = len(slots) // slot_size if slot_size else 0
    s.event_count = <size_t>len(events)
    s.events = <const char**>calloc(s.event_count + 1, sizeof(char*))
    s.event_sizes = <size_t*>calloc(s.event_count + 1, sizeof(size_t))
    for i in range(len(events)):
        s.events[i] = events[i]
        s.event_sizes[i] = <size_t>len(events[i])
    s.connections = connections
    s.lines = <Line*>calloc(<size_t>connections, sizeof(Line))
    s.free_lines = <int*>calloc(<size_t>connections + 1, sizeof(int))
    s.piece = <char*>malloc(PIECE)
    s.scratch = <char*>malloc(s.request.length + 1)
    for i in range(connections):
        s.lines[i].room = 1024
        s.lines[i].have = <char*>malloc(1024)
        s.free_lines[i] = connections - 1 - i
    with nogil:
        connect_all(s)
        s.free_count = connections
        s.gap = 1e9 / rate if rate > 0 else 0
        s.began = net_now() + 1000000
        s.from_ = s.began + warm_ns
        s.until = s.from_ + window_ns
        s.limit = s.until + drain_ns
        drive(s, watched, count, before, after)
        for i in range(connections):
            if s.lines[i].fd >= 0:
                net_close(s.lines[i].fd)
    told = {
        "answers": s.answers, "done": s.done, "events": s.events_seen, "comments": s.comments, "changed": s.changed, "bytes": s.bytes_,
        "wrong_status": s.wrong_status, "last_status": s.last_status, "lost": s.lost, "refused": s.refused,
        "cut": s.cut, "unanswered": s.unanswered, "window_ns": s.until_real - s.from_real,
        "cpu_ns": {pids[i]: after[i] - before[i] for i in range(count) if before[i] >= 0 and after[i] >= 0},
        "latency": histogram(&s.latency), "first": histogram(&s.first), "late": histogram(&s.late),
    }
    for i in range(connections):
        free(s.lines[i].have)
    net_close(s.poller)
    net_close(s.timer)
    free(s.lines)
    free(s.free_lines)
    free(s.piece)
    free(s.scratch)
    free(s.events)
    free(s.event_sizes)
    free(watched)
    free(before)
    free(after)
    free(s)
    return told
