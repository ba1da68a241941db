# cython: language_level=3
"""The table of one host's limits: what every limited identity used of late, in memory all workers share.

    header      4096 bytes, written by `file`; words: magic, slots, window in ms, workers seen, identities pushed out
    entries     a word for each slot: the key above two bits of the eviction's own
    last used   a word for each slot: the tick of the last call
    bodies      for each slot a ring of requests, a ring of tokens and a column of requests in progress for each worker

Nothing is locked, so a process that is killed or stopped anywhere holds up nobody. A request is added, then
everything is counted, then the addition is kept or undone: of all that stay, the last to be added has seen all the
others, so they cannot be more than the limit. Two that undo because of each other try again, so nobody is refused for
what nobody got. What a killed process added and did not use is lost to the identity until its window has passed.

A bucket is one word: whose it is (6 bits of the key's hash), its tick (24 bits; the place in the ring is the rest) and
its count. Buckets need no clearing: one of another identity, or older than the window, counts for nothing and is
overwritten. A window is 60 ticks, and the tick that began before it is counted in full.
"""

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdio cimport snprintf

include "_buckets.pxi"
include "_told.pxi"


cdef int64_t limit_of(value) except -2:
    if value is None:
        return -1
    cdef int64_t limit = value
    if not 0 <= limit <= LIMIT_LAST:
        raise ValueError(f"a limit is 0 to {LIMIT_LAST}, not {limit}")
    return limit


@cython.no_gc_clear  # a pass that was lost gives its permit back through the table
@cython.freelist(64)
cdef class Pass:
    """What one admitted request holds."""

    cdef Table table
    cdef Place places[DEPTH]
    cdef int count
    cdef readonly int64_t tokens
    cdef int64_t said[2][3]  # limit (-1 is none), remaining, reset in ms

    def __init__(self):
        raise TypeError("a pass is given by a table")

    def __dealloc__(self):
        self.give_back()

    cdef void give_back(self) noexcept:  # atomics in the table, which lives as long as its passes
        cdef int i
        for i in range(self.count):
            if self.places[i].entered:
                self.places[i].entered = False
                self.table.step_out(self.places[i].slot, mark_of(self.places[i].key))

    def leave(self):
        self.give_back()

    def correct(self, int64_t tokens):
        cdef int i
        cdef Place *place
        if not 0 <= tokens <= TOKENS_LAST:
            raise ValueError(f"tokens are 0 to {TOKENS_LAST}, not {tokens}")
        for i in range(self.count):
            place = &self.places[i]
            if place.metered and fr_get(self.table.entries + place.slot) >> 2 == place.key:
                change(
                    &self.table.bodies[place.slot].rings[TOKENS][place.tick % RING],
                    stamp(tag_of(place.key), place.tick),
                    tokens - self.tokens,
                )
        self.tokens = tokens

    @property
    def requests_left(self):
        return None if self.said[0][0] < 0 else (self.said[0][0], self.said[0][1], self.said[0][2])

    @property
    def tokens_left(self):
        return None if self.said[1][0] < 0 else (self.said[1][0], self.said[1][1], self.said[1][2])

    def headers(self):
        cdef list told = []
        if self.said[0][0] >= 0:
            tell(told, PLAIN, self.said[0], False)
            tell(told, OF_REQUESTS, self.said[0], True)
        if self.said[1][0] >= 0:
            if not told:
                tell(told, PLAIN, self.said[1], False)
            tell(told, OF_TOKENS, self.said[1], True)
        return told

    def __repr__(self):
        at_once = sum([1 for i in range(self.count) if self.places[i].entered])
        return f"Pass(tokens={self.tokens}, requests_left={self.requests_left}, tokens_left={self.tokens_left}, in={at_once})"


cdef class Table:
    """The table as one worker sees it."""

    cdef Py_buffer buffer
    cdef uint64_t *words
    cdef uint64_t *entries
    cdef uint64_t *last
    cdef Body *bodies
    cdef uint64_t window
    cdef uint64_t chance
    cdef readonly Py_ssize_t slots
    cdef readonly Py_ssize_t worker

    def __cinit__(self, memory, Py_ssize_t worker=0):
        PyObject_GetBuffer(memory, &self.buffer, PyBUF_WRITABLE)
        if self.buffer.len < HEAD or <size_t>self.buffer.buf % 8:
            raise ValueError("the memory begins with a header, on a word")
        if not 0 <= worker < COLUMNS:
            raise ValueError(f"worker {worker} is none of {COLUMNS}")
        self.words = <uint64_t *>self.buffer.buf
        self.slots = <Py_ssize_t>self.words[1]
        self.window = self.words[2]
        self.worker = worker
        self.chance = <uint64_t>worker << 48 ^ <uint64_t><size_t>self.words
        if self.slots < SET or self.slots & (self.slots - 1) or self.buffer.len != HEAD + self.slots * (16 + <Py_ssize_t>sizeof(Body)):
            raise ValueError(f"{self.buffer.len} bytes do not hold {self.slots} slots")
        if not 1000 <= self.window <= 86_400_000:
            raise ValueError(f"a window is a second to a day, not {self.window} ms")
        self.entries = self.words + HEAD // 8
        self.last = self.entries + self.slots
        self.bodies = <Body *>(self.last + self.slots)
        cdef uint64_t seen = fr_get(self.words + 3)
        while seen <= <uint64_t>worker and not fr_swap(self.words + 3, seen, <uint64_t>worker + 1):
            seen = fr_get(self.words + 3)

    def __dealloc__(self):
        PyBuffer_Release(&self.buffer)

    @property
    def window_ms(self):
        return self.window

    @property
    def identities(self):
        cdef Py_ssize_t i, found = 0
        for i in range(self.slots):
            found += fr_get(self.entries + i) != 0
        return found

    @property
    def pushed_out(self):
        return fr_get(self.words + 4)

    def clear_worker(self, Py_ssize_t worker):
        cdef Py_ssize_t i
        if not 0 <= worker < COLUMNS:
            raise ValueError(f"worker {worker} is none of {COLUMNS}")
        for i in range(self.slots):
            # A body nobody used is a page nobody has asked the kernel for.
            if fr_get(self.entries + i) and fr_get32(&self.bodies[i].columns[worker]):
                fr_set32(&self.bodies[i].columns[worker], 0)

    def clear_workers(self):
        cdef Py_ssize_t i
        cdef int worker
        for i in range(self.slots):
            if fr_get(self.entries + i):
                for worker in range(COLUMNS):
                    if fr_get32(&self.bodies[i].columns[worker]):
                        fr_set32(&self.bodies[i].columns[worker], 0)

    def in_use(self, uint64_t key):
        cdef Account account
        self.begin(&account, key, 0, 0)
        account.limits[AT_ONCE] = 0
        self.find(&account)
        self.count(&account)
        return account.used[AT_ONCE]

    def take(self, accounts, int64_t tokens, uint64_t now_ms):
        cdef Account asked[DEPTH]
        cdef int i, tries, level = 0, count = 0, which = 0, kind = 0
        cdef bint good
        if not 0 <= tokens <= TOKENS_LAST:
            raise ValueError(f"tokens are 0 to {TOKENS_LAST}, not {tokens}")
        if now_ms > <uint64_t>1 << 56:
            raise ValueError(f"{now_ms} is no time in monotonic milliseconds")
        for key, rpm, tpm, concurrency in accounts:
            if rpm is not None or tpm is not None or concurrency is not None:
                if count == DEPTH:
                    raise ValueError(f"a request has at most {DEPTH} limited accounts")
                self.begin(&asked[count], key, now_ms, level)
                asked[count].limits[REQUESTS] = limit_of(rpm)
                asked[count].limits[TOKENS] = limit_of(tpm)
                asked[count].limits[AT_ONCE] = limit_of(concurrency)
                count += 1
            level += 1
        for tries in range(TRIES):
            good = True
            for i in range(count):
                if not self.seat(&asked[i], asked, count):
                    good = False
                    continue
                self.count(&asked[i])
                if asked[i].newest > asked[i].tick:
                    asked[i].tick = asked[i].newest
                    self.count(&asked[i])
                kind = unfit(&asked[i], tokens, 1)
                if kind >= 0:
                    return self.refusal(&asked[i], kind, tokens, now_ms)
            if not good:
                continue
            for i in range(count):
                good = good and self.put(&asked[i], tokens)
            fr_fence()
            for i in range(count):
                if good and not self.stands(&asked[i], tokens):
                    good = False
                    which = i
            if good:
                return self.admitted(asked, count, tokens, now_ms)
            for i in range(count):
                self.take_back(&asked[i], tokens)
            self.pause(tries)
        # Others came in between every time; nobody has seen it, and a refusal is the safe answer.
        for kind in range(3):
            if asked[which].limits[kind] >= 0:
                break
        return asked[which].level, KINDS[kind], asked[which].limits[kind], 0, <int64_t>(self.window // TICKS)

    cdef void begin(self, Account *account, uint64_t key, uint64_t now_ms, int level) except *:
        cdef int kind
        if not 1 <= key <= KEY_LAST:
            raise ValueError(f"a key is 1 to {KEY_LAST}, not {key}")
        account.key = key
        account.level = level
        account.tick = now_ms * TICKS // self.window
        account.tag = tag_of(key)
        account.mark = mark_of(key)
        account.base = <Py_ssize_t>(mix(key) & (<uint64_t>self.slots // SET - 1)) * SET
        account.held = 0
        for kind in range(3):
            account.limits[kind] = -1
            account.put[kind] = False

    cdef void find(self, Account *account) noexcept:  # atomics within SET entries
        """Where the identity is; two workers that met it at the same moment may have given it two entries, and both count."""
        cdef Py_ssize_t at
        cdef uint64_t word
        account.held = 0
        for at in range(account.base, account.base + SET):
            word = fr_get(self.entries + at)
            while word >> 2 == account.key:
                if not word & LEAVING or fr_swap(self.entries + at, word, (word ^ STAYED) & ~LEAVING):
                    account.holders[account.held] = at
                    account.held += 1
                    break
                word = fr_get(self.entries + at)

    cdef bint seat(self, Account *account, Account *asked, int count) noexcept:  # what it calls; atomics
        """Find the identity, or give it an entry."""
        self.find(account)
        if not account.held:
            self.claim(account, asked, count)
            self.find(account)
            if not account.held:
                return False
        # Before anything is added: who wants the entry reads this after it has marked it, and we look for its mark at the end.
        if fr_get(self.last + account.holders[0]) < account.tick:
            fr_set(self.last + account.holders[0], account.tick)
        return True

    cdef void claim(self, Account *account, Account *asked, int count) noexcept:  # atomics within SET entries
        """Take an empty entry, or one unused for two windows, or else the one unused for longest."""
        cdef Py_ssize_t at, victim = -1
        cdef uint64_t word, used, least = 0
        cdef int i
        for at in range(account.base, account.base + SET):
            if not fr_get(self.entries + at):
                fr_set(self.last + at, account.tick)
                if fr_swap(self.entries + at, 0, account.key << 2) or fr_get(self.entries + at) >> 2 == account.key:
                    return
        for at in range(account.base, account.base + SET):
            word = fr_get(self.entries + at)
            if not self.is_idle(at, word, account.tick):
                continue
            if not word & LEAVING:
                if not fr_swap(self.entries + at, word, word | LEAVING):
                    continue
                word |= LEAVING
            fr_fence()
            if not self.is_idle(at, word, account.tick):
                fr_swap(self.entries + at, word, (word ^ STAYED) & ~LEAVING)
                continue
            fr_set(self.last + at, account.tick)
            if fr_swap(self.entries + at, word, account.key << 2):
                return
        for at in range(account.base, account.base + SET):
            word = fr_get(self.entries + at)
            used = fr_get(self.last + at)
            if self.is_entered(at, word):
                used |= <uint64_t>1 << 63  # after all that have nothing in progress
            for i in range(count):
                if asked[i].key == word >> 2:
                    break
            else:
                if victim < 0 or used < least:
                    victim, least = at, used
        word = fr_get(self.entries + victim)
        fr_set(self.last + victim, account.tick)
        if fr_swap(self.entries + victim, word, account.key << 2):
            fr_add(self.words + 4, 1)

    cdef bint is_idle(self, Py_ssize_t slot, uint64_t word, uint64_t tick) noexcept:  # an atomic read
        cdef uint64_t used = fr_get(self.last + slot)
        return used + 2 * TICKS <= tick and not self.is_entered(slot, word)

    cdef bint is_entered(self, Py_ssize_t slot, uint64_t word) noexcept:  # atomic reads
        cdef Py_ssize_t column
        cdef uint32_t mark = mark_of(word >> 2)
        for column in range(COLUMNS):
            if in_column(&self.bodies[slot], mark, column):
                return True
        return False

    cdef void count(self, Account *account) noexcept:  # atomic reads and C numbers
        """What the identity used, at its tick, by all of its limits."""
        cdef int kind
        cdef Py_ssize_t i, column
        cdef Py_ssize_t workers = <Py_ssize_t>fr_get(self.words + 3)
        account.newest = account.tick
        for kind in range(3):
            account.used[kind] = 0
        for i in range(account.held):
            for kind in range(AT_ONCE):
                if account.limits[kind] >= 0:
                    look_through(self.bodies[account.holders[i]].rings[kind], account, kind)
            if account.limits[AT_ONCE] >= 0:
                for column in range(workers):
                    account.used[AT_ONCE] += in_column(&self.bodies[account.holders[i]], account.mark, column)

    cdef bint put(self, Account *account, int64_t tokens) noexcept:  # C numbers, and what it calls
        account.slot = account.holders[0]
        if account.limits[AT_ONCE] >= 0:
            account.put[AT_ONCE] = self.step_in(account.slot, account.mark)
            if not account.put[AT_ONCE]:
                return False
        if account.limits[REQUESTS] >= 0:
            account.put[REQUESTS] = self.add(account, REQUESTS, 1)
            if not account.put[REQUESTS]:
                return False
        if account.limits[TOKENS] >= 0:
            account.put[TOKENS] = self.add(account, TOKENS, <uint64_t>tokens)
            return account.put[TOKENS]
        return True

    cdef bint add(self, Account *account, int kind, uint64_t by) noexcept:  # atomics and C numbers, divided by RING
        cdef uint64_t *word = &self.bodies[account.slot].rings[kind][account.tick % RING]
        cdef uint64_t old, count, now = stamp(account.tag, account.tick)
        while True:
            old = fr_get(word)
            # After the bucket was read: whoever takes this entry later and adds to the bucket makes our swap fail.
            fr_fence()
            if fr_get(self.entries + account.slot) >> 2 != account.key:
                return False
            count = by
            if old >> 34 == now:
                count += old & COUNT
            elif old >> 58 == account.tag and (old >> 34) - now & EPOCH and ((old >> 34) - now & EPOCH) <= FUTURE // RING:
                return False  # the ring has come round since it was looked through
            if count > COUNT:
                return False
            if fr_swap(word, old, now << 34 | count):
                return True

    cdef bint stands(self, Account *account, int64_t tokens) noexcept:  # C numbers, and what it calls
        """Whether what was added may stay, now that everybody who comes later sees it."""
        cdef Py_ssize_t i
        self.find(account)
        for i in range(account.held):
            if account.holders[i] == account.slot:
                break
        else:
            return False
        self.count(account)
        # Time that moved on may have written over buckets of this window; then it is counted anew from there.
        return account.newest == account.tick and unfit(account, tokens, 0) < 0

    cdef void take_back(self, Account *account, int64_t tokens) noexcept:  # C numbers, divided by RING
        cdef Body *body = &self.bodies[account.slot]
        cdef uint64_t stamped = stamp(account.tag, account.tick)
        if account.put[AT_ONCE]:
            self.step_out(account.slot, account.mark)
        if account.put[REQUESTS]:
            change(&body.rings[REQUESTS][account.tick % RING], stamped, -1)
        if account.put[TOKENS]:
            change(&body.rings[TOKENS][account.tick % RING], stamped, -tokens)
        account.put = [False, False, False]

    cdef void pause(self, int tries) noexcept:  # C numbers; the divisor is 16 or more
        """Some moments of its own: two who met once in the same instant would otherwise meet there forever, in step."""
        cdef uint64_t moments
        self.chance = mix(self.chance + 1)
        moments = self.chance % (<uint64_t>16 << (tries if tries < 8 else 8))
        while moments:
            fr_fence()
            moments -= 1

    cdef bint step_in(self, Py_ssize_t slot, uint32_t mark) noexcept:  # atomics of 32 bits
        cdef uint32_t old, count
        cdef uint32_t *word = &self.bodies[slot].columns[self.worker]
        while True:
            old = fr_get32(word)
            count = old & 0xFFFF if old >> 16 == mark else 0
            if count == 0xFFFF:
                return False
            if fr_swap32(word, old, mark << 16 | (count + 1)):
                return True

    cdef void step_out(self, Py_ssize_t slot, uint32_t mark) noexcept:  # as above
        cdef uint32_t old
        cdef uint32_t *word = &self.bodies[slot].columns[self.worker]
        while True:
            old = fr_get32(word)
            if old >> 16 != mark or not old & 0xFFFF or fr_swap32(word, old, old - 1):
                return

    cdef Pass admitted(self, Account *asked, int count, int64_t tokens, uint64_t now_ms):
        cdef Pass given = Pass.__new__(Pass)
        cdef int i, kind
        cdef int64_t left
        given.table = self
        given.tokens = tokens
        given.said[0][0] = given.said[1][0] = -1
        for i in range(count):
            given.places[i].key = asked[i].key
            given.places[i].tick = asked[i].tick
            given.places[i].slot = asked[i].slot
            given.places[i].entered = asked[i].put[AT_ONCE]
            given.places[i].metered = asked[i].put[TOKENS]
            for kind in range(AT_ONCE):
                if asked[i].limits[kind] >= 0:
                    left = asked[i].limits[kind] - <int64_t>asked[i].used[kind]
                    if given.said[kind][0] < 0 or left < given.said[kind][1]:
                        given.said[kind][0] = asked[i].limits[kind]
                        given.said[kind][1] = left
                        given.said[kind][2] = self.until(self.enough(&asked[i], kind, 1), now_ms)
        given.count = count  # last: a pass without places gives nothing back
        return given

    cdef tuple refusal(self, Account *account, int kind, int64_t tokens, uint64_t now_ms):
        cdef int64_t limit = account.limits[kind], left = limit - <int64_t>account.used[kind]
        cdef int64_t by = 1 if kind == REQUESTS else tokens
        reset_ms = None
        if kind != AT_ONCE and 0 < limit and by <= limit:
            reset_ms = self.until(self.enough(account, kind, by - left), now_ms)
        return account.level, KINDS[kind], limit, left if left > 0 else 0, reset_ms

    cdef uint64_t enough(self, Account *account, int kind, int64_t wanted) noexcept:  # atomic reads; RING divides
        """The tick with which so much has left the window, one tick after the other."""
        cdef uint64_t word, tick
        cdef Py_ssize_t i
        for tick in range(account.tick + FUTURE - TICKS, account.tick + FUTURE):
            for i in range(account.held):
                word = fr_get(&self.bodies[account.holders[i]].rings[kind][(tick - FUTURE) % RING])
                if word >> 34 == stamp(account.tag, tick - FUTURE):
                    wanted -= <int64_t>(word & COUNT)
            if wanted <= 0:
                return tick - FUTURE
        return account.tick

    cdef int64_t until(self, uint64_t tick, uint64_t now_ms) noexcept:  # C numbers, divided by TICKS
        """Milliseconds until this tick has left the window."""
        cdef uint64_t at = ((tick + TICKS + 1) * self.window + TICKS - 1) // TICKS
        return <int64_t>(at - now_ms) if at > now_ms else 0
