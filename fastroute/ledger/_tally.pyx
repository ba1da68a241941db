# cython: language_level=3
"""Records of a journal put upon the book, thousands at a time; `_tally.pyi` is its face, `tally` decides all else.

What the book collects is looked up once for a batch, and fields are read where they lie: a record costs a microsecond.
"""

from fastroute.ledger.balances import BrokenBooks, FinishedRequest, Lease, Window
from fastroute.ledger.records import DECODERS, Finish, Send, Settle
from fastroute.ledger.store import EntryRow

from libc.stdint cimport int64_t

from fastroute._fields cimport at, lay, must_be, offset_of

cdef int64_t DAY_MS = 86_400_000
cdef int64_t END_MS = 253_402_300_800_000  # of the year 9999: a date beyond has no name

cdef enum:
    S_ATTEMPT, S_REQUEST, S_ACCOUNT, S_WINDOWS, S_RESERVED, S_ENTRY, S_MODEL, S_LANE, S_AT_MS, S_MONEY, S_FIELDS
cdef enum:
    C_ATTEMPT, C_BASIS, C_OUTCOME, C_STATUS, C_CHARGED, C_SPENT, C_USAGE, C_PICODOLLARS, C_MICRODOLLARS, C_FIELDS

cdef Py_ssize_t SEND[S_FIELDS]
cdef Py_ssize_t SETTLE[C_FIELDS]
lay(
    SEND,
    Send,
    ("attempt", "request", "account", "windows", "reserved", "entry", "model", "lane", "at_ms", "microdollars"),
)
lay(
    SETTLE,
    Settle,
    ("attempt", "basis", "outcome", "status", "charged", "spent", "usage", "picodollars", "microdollars"),
)
cdef Py_ssize_t FINISH_REQUEST = offset_of(Finish, "request")
cdef Py_ssize_t FINISH_ACCOUNT = offset_of(Finish, "account")
cdef Py_ssize_t FINISH_ENTRY = offset_of(Finish, "entry")
cdef Py_ssize_t FINISH_STARTED = offset_of(Finish, "started_ms")
cdef Py_ssize_t LEASE_GRANTED = offset_of(Lease, "granted")
cdef Py_ssize_t LEASE_RIGHTS = offset_of(Lease, "rights")
cdef Py_ssize_t LEASE_SPENT = offset_of(Lease, "spent")
cdef Py_ssize_t LEASE_WINDOW = offset_of(Lease, "window")
cdef Py_ssize_t WINDOW_ESCROW = offset_of(Window, "escrow")
cdef object the_send = Send, the_settle = Settle, the_finish = Finish, the_lease = Lease, the_window = Window


cdef class Underway:
    cdef public object holder, request, finish
    cdef public list sends, settles
    cdef public Py_ssize_t open
    cdef public bint kept

    def __init__(self, holder, str request not None):
        self.holder = holder
        self.request = request
        self.sends = []
        self.settles = []


cdef class Batch:
    cdef object tally, life, holder, now_ms
    cdef dict leases, requests, attempts
    cdef dict used  # (account, day, model) as a record tells them -> the book's counts
    cdef set changed_requests, changed_leases
    cdef list entries, finished

    def __init__(self, tally, life, now_ms):
        self.tally = tally
        self.life = life
        self.holder = life.id
        self.now_ms = now_ms
        self.leases, self.requests, self.attempts = life.leases, life.requests, life.attempts
        self.changed_requests, self.changed_leases = tally._changed_requests, tally._changed_leases
        self.entries, self.finished = tally._entries, tally.finished
        self.used = {}

    def read(self, list found not None):
        """Decode and apply; `progress` of the book tells how many were, when one of them is refused."""
        cdef Py_ssize_t done = 0
        cdef tuple one
        cdef dict decoders = DECODERS
        try:
            for one in found:
                self.apply(decoders[one[0]](one[1]))
                done += 1
        finally:
            self.tally.progress = done

    cpdef apply(self, record):
        kind = type(record)
        if not self.life.live:
            raise BrokenBooks(f"holder {self.holder} is not alive")
        if kind is the_send:
            self.send(record)
        elif kind is the_settle:
            self.settle(record)
        elif kind is the_finish:
            self.finish(record)
        else:
            self.tally._stop(self.life)

    cdef int send(self, record) except -1:
        cdef tuple windows = at(record, SEND[S_WINDOWS]), reserved = at(record, SEND[S_RESERVED])
        cdef Underway underway
        cdef Py_ssize_t place
        attempt = at(record, SEND[S_ATTEMPT])
        request = at(record, SEND[S_REQUEST])
        if attempt <= self.life.sent:
            raise BrokenBooks(f"attempt {attempt} of holder {self.holder} is sent after attempt {self.life.sent}")
        if len(windows) != len(reserved):
            raise BrokenBooks(f"attempt {attempt} of holder {self.holder} does not say what it holds of each window")
        for place in range(len(windows)):
            lease = self.lease(windows[place])
            # Without a lease it is one that has ended: a report told of it before the journal did. It can charge nothing.
            if lease is not None and reserved[place] > at(lease, LEASE_GRANTED):
                raise BrokenBooks(
                    f"attempt {attempt} of holder {self.holder} holds what it was never granted on {windows[place]}"
                )
        underway = self.requests.get(request)
        if underway is None:
            underway = self.requests[request] = Underway(self.holder, request)
        self.life.sent = attempt
        self.attempts[attempt] = (underway, len(underway.sends), record)
        underway.sends.append(record)
        underway.settles.append(None)
        underway.open += 1
        self.changed_requests.add(underway)
        return 0

    cpdef settle(self, record):
        cdef tuple found, windows, reserved, charged, spent, usage
        cdef Underway underway
        cdef Py_ssize_t place, i
        cdef bint breached = False
        cdef list counts
        must_be(record, the_settle)
        attempt = at(record, SETTLE[C_ATTEMPT])
        found = self.attempts.pop(attempt, None)
        if found is None:
            raise BrokenBooks(f"attempt {attempt} of holder {self.holder} is closed but not open")
        underway, place, sent = found
        must_be(sent, the_send)
        windows, reserved = at(sent, SEND[S_WINDOWS]), at(sent, SEND[S_RESERVED])
        charged, spent = at(record, SETTLE[C_CHARGED]), at(record, SETTLE[C_SPENT])
        if not len(windows) == len(charged) == len(spent):
            raise BrokenBooks(f"attempt {attempt} of holder {self.holder} does not say what each window is charged")
        for i in range(len(windows)):
            charge, total = charged[i], spent[i]
            lease = self.lease(windows[i])
            if charge < 0 or (lease is not None and at(lease, LEASE_SPENT) + charge != total):
                raise BrokenBooks(
                    f"attempt {attempt} of holder {self.holder} charges {charge} on window {windows[i]} "
                    f"and makes that {total}"
                )
            if charge > reserved[i]:
                breached = True
                self.tally._breach(self.life, windows[i], lease, charge, reserved[i], total, self.now_ms)
            elif charge:
                if lease is None:
                    raise BrokenBooks(
                        f"attempt {attempt} of holder {self.holder} charges {charge} on window {windows[i]}, not lent"
                    )
                window = at(lease, LEASE_WINDOW)
                must_be(window, the_window)
                if total <= at(lease, LEASE_RIGHTS) and not at(window, WINDOW_ESCROW):
                    lease.spent = total
                    self.changed_leases.add(lease)
                else:
                    self.tally._spend(lease, charge, 0, self.now_ms)
        if breached:
            self.tally.breaches += 1
        usage = at(record, SETTLE[C_USAGE])
        microdollars = at(record, SETTLE[C_MICRODOLLARS])
        account, at_ms, model = at(sent, SEND[S_ACCOUNT]), at(sent, SEND[S_AT_MS]), at(sent, SEND[S_MODEL])
        self.entries.append(
            EntryRow(
                self.holder,
                attempt,
                at(sent, SEND[S_REQUEST]),
                account,
                windows,
                reserved,
                charged,
                at(record, SETTLE[C_BASIS]),
                at(sent, SEND[S_ENTRY]),
                model,
                at(sent, SEND[S_LANE]),
                at(record, SETTLE[C_OUTCOME]),
                usage,
                at(record, SETTLE[C_PICODOLLARS]),
                microdollars,
                at_ms,
            )
        )
        counts = self.use(account, at_ms, model)
        counts[1] += 1
        counts[2] += usage[0] + usage[2] + usage[3]
        counts[3] += usage[1]
        if microdollars is not None:
            counts[4] += microdollars
        underway.settles[place] = record
        underway.open -= 1
        if underway.kept:
            self.changed_requests.add(underway)
        if underway.finish is not None and not underway.open:
            self.over(underway, underway.finish)

    cdef int finish(self, record) except -1:
        cdef Underway underway = self.requests.get(at(record, FINISH_REQUEST))
        cdef list counts
        self.day(at(record, FINISH_STARTED))
        if underway is None:
            self.finished.append(FinishedRequest(self.holder, record, ()))
            counts = self.use(at(record, FINISH_ACCOUNT), at(record, FINISH_STARTED), "")
            counts[0] += 1
        elif underway.open:
            # The caller has gone while an attempt is still drained: it is over when that is closed.
            underway.finish = record
            self.changed_requests.add(underway)
        else:
            self.over(underway, record)
        return 0

    cpdef over(self, Underway underway, finish):
        cdef list sends = underway.sends, counts
        cdef tuple attempts
        answered = sends[-1]
        if len(sends) == 1:  # nearly always
            attempts = ((answered, underway.settles[0]),)
        else:
            attempts = tuple(zip(sends, underway.settles, strict=True))
            for sent in sends:
                must_be(sent, the_send)
                if at(sent, SEND[S_ENTRY]) == finish.entry:
                    answered = sent
        must_be(answered, the_send)
        counts = self.use(finish.account, at(answered, SEND[S_AT_MS]), at(answered, SEND[S_MODEL]))
        counts[0] += 1
        self.finished.append(FinishedRequest(self.holder, finish, attempts))
        del self.requests[underway.request]
        if not underway.kept:
            self.changed_requests.discard(underway)
        else:
            self.changed_requests.add(underway)

    cdef object lease(self, window):
        lease = self.leases.get(window)
        if lease is not None:
            must_be(lease, the_lease)
        return lease

    cdef int64_t day(self, at_ms) except -1:
        cdef int64_t instant
        try:
            instant = at_ms
        except OverflowError:
            instant = END_MS
        if not 0 <= instant < END_MS:
            raise BrokenBooks(f"holder {self.holder} tells of a request at {at_ms} ms, which is no date")
        return instant // DAY_MS

    cdef list use(self, account, at_ms, model):
        key = (account, self.day(at_ms), model)
        counts = self.used.get(key)
        if counts is None:
            counts = self.used[key] = self.tally._use(account, at_ms, model)
        return <list?>counts
