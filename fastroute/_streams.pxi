"""The stream readers of `_scan`: server-sent events as they arrive, in pieces of any size.

A block is what stands up to and with one blank line: an event, or nothing. A comment that opens a block is a block of
its own, so that a ping is neither held back nor piled up. Blocks leave in the call that completes them.
What is wrong is a note, as in `_json.pxi`.
"""

cdef inline bptr line_end(bptr p, bptr end, bptr* feed) noexcept nogil:  # C memory, searched
    """The first CR or LF, else `end`. `feed` keeps the next LF between calls, lest each bare CR cost a whole pass."""
    cdef bptr found
    if feed[0] < p:
        found = <bptr> memchr(p, 10, end - p)
        feed[0] = end if found == NULL else found
    found = <bptr> memchr(p, 13, feed[0] - p)
    return feed[0] if found == NULL else found


cdef class _Blocks:
    """Cuts bytes into blocks; holds the incomplete tail, up to a limit, in a buffer that grows by doubling."""

    cdef uchar* tail
    cdef size_t held, room, limit
    cdef size_t line       # where the last line of the tail starts
    cdef size_t lead       # 3 when the tail starts with a byte order mark
    cdef uint64_t passed   # bytes of the stream before the tail
    cdef bint begun, after_cr, overflowed
    # The fields of the block at hand.
    cdef bptr data
    cdef size_t data_size
    cdef bptr name
    cdef size_t name_size
    cdef bytes joined

    cdef int bound(self, Py_ssize_t max_event_bytes) except -1:
        if max_event_bytes < 1:
            raise ValueError("max_event_bytes must be positive")
        self.limit = max_event_bytes
        return 0

    def __dealloc__(self):
        free(self.tail)

    cdef int block(self, bptr start, bptr fields, bptr end, bptr next) except -1:
        """One block is complete: its lines are [fields, end), its bytes [start, next)."""
        return 0

    cdef int straggler(self, bptr at) except -1:
        """The LF of a CRLF whose CR, in an earlier piece, ended a block."""
        return 0

    cdef int finish(self) except -1:
        """All blocks of this piece were given; pointers into it die."""
        return 0

    cdef int keep(self, bptr p, size_t size) except -1:
        cdef size_t room
        cdef uchar* tail
        if self.held + size > self.room:
            room = max(4096, self.room * 2, self.held + size)
            tail = <uchar*> realloc(self.tail, room)
            if tail == NULL:
                raise MemoryError
            self.tail = tail
            self.room = room
        memcpy(self.tail + self.held, p, size)
        self.held += size
        return 0

    cdef int forget(self) except -1:
        free(self.tail)
        self.tail = NULL
        self.held = self.room = 0
        return 0

    cdef refuse(self):
        at = self.passed
        return ScanError("event_too_large", at, f"an event is larger than {self.limit} bytes (byte {at})")

    cdef int push(self, bytes piece) except -1:
        cdef bptr base, p, end, start, line, head, stop, feed = NULL
        cdef size_t before = self.held
        if self.overflowed:
            raise self.refuse()
        if before:
            self.keep(<bptr> PyBytes_AS_STRING(piece), PyBytes_GET_SIZE(piece))
            base = self.tail
            end = base + self.held
        else:
            base = <bptr> PyBytes_AS_STRING(piece)
            end = base + PyBytes_GET_SIZE(piece)
        start = base
        line = base + self.line
        p = base + before
        if self.after_cr and p < end:
            self.after_cr = False
            if p[0] == 10:
                p += 1
                line = p
                if not before:
                    start = p
                    self.straggler(base)
        while p < end:
            stop = line_end(p, end, &feed)
            if stop == end:
                break
            p = stop + 1
            if stop[0] == 13:
                if p == end:
                    self.after_cr = True
                elif p[0] == 10:
                    p += 1
            if not self.begun:
                self.begun = True
                if stop - line >= 3 and memcmp(line, b"\xef\xbb\xbf", 3) == 0:
                    self.lead = 3
            head = line + self.lead if line == start else line
            if head == stop:
                if line - start > <Py_ssize_t> self.limit:
                    self.overflowed = True
                    break
                self.block(start, start + self.lead, head if line == start else line, p)
            elif line == start and head[0] == 58:
                if stop - start > <Py_ssize_t> self.limit:
                    self.overflowed = True
                    break
                self.block(start, head, head, p)
            else:
                line = p
                continue
            line = start = p
            self.lead = 0
        self.overflowed = self.overflowed or end - start > <Py_ssize_t> self.limit
        self.finish()
        self.passed += start - base
        if self.overflowed:
            return self.forget()
        self.line = line - start
        if not before:
            return self.keep(start, end - start) if start < end else 0
        if start > base:
            self.held = end - start
            memmove(self.tail, start, self.held)
            if not self.held and self.room > 65536:
                return self.forget()
        return 0

    cdef int parse(self, bptr p, bptr end) except -1:
        """Find the fields of one block; `data` stays NULL when it has none, and then there is no event."""
        cdef bptr stop, colon, at, feed = NULL
        cdef size_t size
        cdef list parts = None
        self.data = self.name = NULL
        self.name_size = 0
        while p < end:
            stop = line_end(p, end, &feed)
            colon = <bptr> memchr(p, 58, stop - p)
            if colon == NULL:
                colon = at = stop
            else:
                at = colon + 2 if colon + 1 < stop and colon[1] == 32 else colon + 1
            size = colon - p
            if size == 4 and memcmp(p, b"data", 4) == 0:
                if self.data == NULL:
                    self.data = at
                    self.data_size = stop - at
                else:
                    if parts is None:
                        parts = [self.data[:self.data_size]]
                    parts.append(at[:stop - at])
            elif size == 5 and memcmp(p, b"event", 5) == 0:
                self.name = at
                self.name_size = stop - at
            p = stop + 2 if stop + 1 < end and stop[0] == 13 and stop[1] == 10 else stop + 1
        if parts is not None:
            self.joined = b"\n".join(parts)
            self.data = <bptr> PyBytes_AS_STRING(self.joined)
            self.data_size = PyBytes_GET_SIZE(self.joined)
        return 0

    cdef bint inside(self):
        """Whether the tail is the beginning of an event, rather than nothing or of a comment."""
        cdef bptr head = self.tail
        cdef size_t size = self.held
        if size >= 3 and not self.begun and memcmp(head, b"\xef\xbb\xbf", 3) == 0 or self.lead and size:
            head += 3
            size -= 3
        return size > 0 and head[0] != 58


cdef class EventSplitter(_Blocks):
    cdef list events

    def __init__(self, Py_ssize_t max_event_bytes=MAX_EVENT_BYTES):
        self.bound(max_event_bytes)

    cdef int block(self, bptr start, bptr fields, bptr end, bptr next) except -1:
        self.parse(fields, end)
        if self.data != NULL:
            name = PyUnicode_DecodeUTF8(<const char*> self.name, self.name_size, b"replace") if self.name_size else ""
            self.events.append((name, self.data[:self.data_size]))
        return 0

    def feed(self, bytes data not None):
        self.events = events = []
        self.push(data)
        if self.overflowed and not events:
            raise self.refuse()
        return events

    def end(self):
        if self.overflowed:
            raise self.refuse()
        return self.inside()


# ---- Chat streams --------------------------------------------------------------------------------------------------

cdef enum:
    HAS_ID = 1, HAS_OBJECT = 2, HAS_CREATED = 4, HAS_MODEL = 8, HAS_CHOICES = 16, HAS_USAGE = 32
    NEEDED = 31   # of every event
    HAS_ALL = 63  # of a whole answer

cdef struct Part:
    bptr start  # NULL: not there
    bptr end

cdef struct Chunk:
    Part usage, model, finish
    int has                # HAS_... of the fields it has, whatever is in them
    bint error, filled     # filled: `choices` has an element
    bint listed            # `choices` is a list
    bint odd               # a finish reason that clients do not know
    bint calls             # a delta of tool calls
    size_t content


cdef inline bint usual_finish(bptr p, size_t size) noexcept nogil:  # C memory, compared
    return (
        (size == 4 and memcmp(p, b"stop", 4) == 0)
        or (size == 6 and memcmp(p, b"length", 6) == 0)
        or (size == 10 and memcmp(p, b"tool_calls", 10) == 0)
        or (size == 14 and memcmp(p, b"content_filter", 14) == 0)
        or (size == 13 and memcmp(p, b"function_call", 13) == 0)
    )


cdef bptr choice(Doc* d, bptr p, Chunk* out, bint delta) noexcept nogil:  # a fault is NULL and a note
    """Past one element of `choices`, or with `delta` past the object in it that carries what the model says."""
    cdef Text key
    cdef bint first = True
    cdef bptr start
    cdef size_t before
    p += 1
    while True:
        p = member(d, p, first, NULL, &key)
        if p == NULL or key.raw == NULL:
            return p
        first = False
        start = p
        before = d.text
        if delta and p[0] == 91 and equals(&key, "tool_calls", 10):
            out.calls = True
        if not delta and p[0] == 123 and (equals(&key, "delta", 5) or equals(&key, "message", 7)):
            p = choice(d, p, out, True)
            if p == NULL:
                return NULL
            continue
        p = value(d, p, 4, 0)
        if p == NULL:
            return NULL
        # Whatever a delta says but its role is content: reasoning, refusals, tool calls and fields yet to be invented.
        if not equals(&key, "role", 4) if delta else equals(&key, "text", 4):
            out.content += d.text - before
        elif not delta and start[0] == 0x22 and equals(&key, "finish_reason", 13):
            out.finish.start = start
            out.finish.end = p
            if not usual_finish(start + 1, p - start - 2):
                out.odd = True


cdef bptr choices(Doc* d, bptr p, Chunk* out) noexcept nogil:  # a fault is NULL and a note
    p = space(d, p + 1)
    if p[0] == 93:
        return p + 1
    out.filled = True
    while True:
        p = choice(d, p, out, False) if p[0] == 123 else value(d, p, 3, 0)
        if p == NULL:
            return NULL
        p = space(d, p)
        if p[0] == 93:
            return p + 1
        if p[0] != 44:
            return fail(d, p, SYNTAX)
        p = space(d, p + 1)


cdef int field(Text* key) noexcept nogil:  # C memory, compared
    """Which of the fields that every event needs it names, as a bit."""
    if equals(key, "choices", 7):
        return HAS_CHOICES
    if equals(key, "model", 5):
        return HAS_MODEL
    if equals(key, "id", 2):
        return HAS_ID
    if equals(key, "object", 6):
        return HAS_OBJECT
    return HAS_CREATED if equals(key, "created", 7) else 0


cdef bptr chunk(Doc* d, Chunk* out) noexcept nogil:  # a fault is NULL and a note
    """One event's data, which must be an object."""
    cdef Text key
    cdef bint first = True
    cdef bptr p = space(d, d.base), start
    if p[0] != 123:
        return fail(d, p, NOT_OBJECT)
    p += 1
    while True:
        p = member(d, p, first, NULL, &key)
        if p == NULL:
            return NULL
        if key.raw == NULL:
            break
        first = False
        start = p
        # An error object counts from its first brace: one cut short by its sender is no less an error.
        if p[0] == 123 and equals(&key, "error", 5):
            out.error = True
        if p[0] == 91 and equals(&key, "choices", 7):
            out.listed = True
            p = choices(d, p, out)
        else:
            p = value(d, p, 2, 0)
        if p == NULL:
            return NULL
        out.has |= field(&key)
        if start[0] == 123 and equals(&key, "usage", 5):
            out.usage.start = start
            out.usage.end = p
        elif start[0] == 0x22 and p - start > 2 and equals(&key, "model", 5):
            out.model.start = start
            out.model.end = p
        elif equals(&key, "error", 5):
            # null, false and "" are how some say that nothing is wrong.
            if start[0] != 110 and start[0] != 102 and not (start[0] == 0x22 and p - start == 2):
                out.error = True
        elif p - start == 7 and equals(&key, "object", 6) and memcmp(start, b'"error"', 7) == 0:
            out.error = True
    p = space(d, p)
    return p if p >= d.end else fail(d, p, SYNTAX)


cdef str text_of(Part part):
    raw = part.start[:part.end - part.start]
    if b"\\" not in raw:
        return raw[1:-1].decode("utf-8", "replace")
    try:
        return msgspec.json.decode(raw.decode("utf-8", "replace"))
    except msgspec.DecodeError:  # half a surrogate pair, a raw tab: shown as it came
        return raw[1:-1].decode("utf-8", "replace")


cdef class ChatStreamScanner(_Blocks):
    cdef readonly bint content_seen, done
    cdef readonly str finish_reason, model
    cdef readonly bytes usage, error
    cdef readonly Py_ssize_t events, content_bytes, malformed
    cdef readonly bint doubtful  # of what the last piece completed
    cdef bint hide_usage
    cdef bint opened       # an event that is no error was read
    cdef bint kept         # whether the last block was relayed
    cdef bptr run, run_end  # blocks side by side leave as one
    cdef list runs
    cdef bytes piece
    cdef Doc doc

    def __init__(self, bint hide_usage, Py_ssize_t max_event_bytes=MAX_EVENT_BYTES):
        self.bound(max_event_bytes)
        self.hide_usage = hide_usage
        memset(&self.doc, 0, sizeof(Doc))
        self.doc.max_depth = C_DEPTH

    def __dealloc__(self):
        free(self.doc.scratch[0])

    cdef int relay(self, bptr start, bptr end) except -1:
        if self.run != NULL and self.run_end == start:
            self.run_end = end
            return 0
        self.cut()
        self.run = start
        self.run_end = end
        return 0

    cdef int cut(self) except -1:
        cdef bptr whole = <bptr> PyBytes_AS_STRING(self.piece)
        if self.run == NULL:
            return 0
        if self.run == whole and self.run_end == whole + PyBytes_GET_SIZE(self.piece):
            self.runs.append(self.piece)
        else:
            self.runs.append(self.run[:self.run_end - self.run])
        self.run = NULL
        return 0

    cdef int finish(self) except -1:
        return self.cut()

    cdef int straggler(self, bptr at) except -1:
        return self.relay(at, at + 1) if self.kept else 0

    cdef int block(self, bptr start, bptr fields, bptr end, bptr next) except -1:
        self.kept = self.error is None and not self.done
        if self.kept and fields < end:
            self.parse(fields, end)
            if self.data != NULL:
                self.kept = self.judge()
        return self.relay(start, next) if self.kept else 0

    cdef bint finished(self) noexcept nogil:  # reads two C fields, which raise nothing
        return self.data_size == 6 and memcmp(self.data, b"[DONE]", 6) == 0

    cdef int judge(self) except -1:
        """Read one event; whether it is to be relayed."""
        cdef Doc* d = &self.doc
        cdef Chunk found
        cdef bptr after
        cdef bint lacks
        self.events += 1
        if self.finished():
            self.done = True
            return False
        if self.name_size == 5 and memcmp(self.name, b"error", 5) == 0:
            self.error = self.data[:self.data_size]
            return False
        memset(&found, 0, sizeof(Chunk))
        d.base = self.data
        d.end = self.data + self.data_size
        d.text = 0
        after = chunk(d, &found)
        if d.starved:
            raise MemoryError
        if found.error:
            self.error = self.data[:self.data_size]
            return False
        lacks = found.has & NEEDED != NEEDED
        if not self.opened:  # a server that fills its first event fills them all
            self.opened = True
            self.doubtful = self.doubtful or lacks
        if found.odd or found.calls and self.reopens():
            self.doubtful = True
        if after == NULL:
            # Not ours to mend, and perhaps billed: it is relayed, and counts whole.
            self.malformed += 1
            self.content_bytes += self.data_size
            return True
        if found.model.start != NULL and self.model is None:
            self.model = text_of(found.model)
        if found.finish.start != NULL:
            self.finish_reason = text_of(found.finish)
        if found.content:
            self.content_seen = True
            self.content_bytes += found.content
        if found.usage.start == NULL:
            return True
        self.usage = found.usage.start[:found.usage.end - found.usage.start]
        if not found.filled and self.hide_usage:
            return False
        self.doubtful = self.doubtful or lacks or not found.listed
        return True

    cdef bint reopens(self) except -1:
        """Whether a delta of tool calls may open a call again, or go on with one without its index beside its choice's."""
        event = self.data[:self.data_size]
        return b'"name"' in event or event.count(b'"index"') < 2 * event.count(b'"tool_calls"')

    def feed(self, bytes data not None):
        cdef list runs = []
        self.runs = runs
        self.doubtful = False
        self.piece = data
        self.run = NULL
        self.push(data)
        if len(runs) == 1:
            return runs[0]
        if self.overflowed and not runs:
            raise self.refuse()
        return b"".join(runs)

    def end(self):
        if self.overflowed:
            raise self.refuse()
        if self.done or self.error is not None or not self.inside():
            return False
        self.parse(self.tail + self.lead, self.tail + self.held)
        # Some close right after the mark, without its blank line; the mark itself is whole.
        self.done = self.data != NULL and self.finished()
        return not self.done
