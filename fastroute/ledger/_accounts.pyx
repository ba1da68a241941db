# cython: language_level=3, auto_pickle=False
"""The hot half of the worker's ledger: what every attempt does to its account, and how a record is written.

Nothing here awaits or enters the kernel. What is rare (waiting for rights, renewing, records that come late) is Python's,
in `accounts`; `_accounts.pyi` states the contracts.
"""

from fastroute.ledger import records
from fastroute.ledger.journal import JournalFull
from fastroute.ledger.leases import Hold

from fastroute._now cimport now_ms
from fastroute.ledger._journal cimport Appender
from fastroute.ledger._leases cimport HolderCore, Path
from fastroute.ledger._records cimport finish as finish_record, send as send_record, settle as settle_record

SYNC_MS = 50
LATE_MAX = 100_000  # records that wait for room in the journal

cdef int SEND = records.SEND, SETTLE = records.SETTLE, FINISH = records.FINISH
cdef double SYNC_S = SYNC_MS / 1000
cdef Py_ssize_t LATEST = LATE_MAX
cdef dict NO_DETAILS = {}


cdef class TillCore:
    def wall_ms(self):
        return self._wall_ms + now_ms(self.clock)

    cpdef bint write(self, int kind, bytes payload) except -1:
        if self._late or self._closed:
            return False
        journal = self.journal
        try:
            if isinstance(journal, Appender):
                (<Appender>journal).append(kind, payload)
            else:
                journal.append(kind, payload)
        except JournalFull:
            return False
        if not self._dirty:
            self._dirty = True
            self._loop.call_later(SYNC_S, self._sync)
        return True

    cpdef int write_late(self, int kind, bytes payload) except -1:
        if self.write(kind, payload) or self._closed:
            return 0
        if kind == FINISH and len(self._late) >= LATEST:
            self.unjournalled += 1
            return 0
        self._late.append((kind, payload))
        self.holder.withheld = True
        return 0


cdef class AccountCore:
    def reserve(self, microdollars, tokens):
        if microdollars is None and self.hard:
            return None
        cdef TillCore till = self._till
        cdef HolderCore holder = till.holder
        hold = holder.reserve(self.path, microdollars, tokens, now_ms(till.clock))
        if holder._hungry:
            till.kick()
        return hold

    def send(self, hold, str request not None, str entry not None, str model not None, str lane not None):
        cdef TillCore till = self._till
        assert type(hold) is Hold
        till.attempts += 1
        hold.attempt = till.attempts
        cdef Path path = hold.path
        windows = path.windows
        record = send_record(
            hold.attempt,
            request,
            self.id,
            windows,
            hold.amounts,
            entry,
            model,
            lane,
            till._wall_ms + now_ms(till.clock),
            hold.microdollars,
        )
        if till.write(SEND, record):
            hold.sent = True
            till.underway += 1
            return None
        return self.unwritten(windows)

    def settle(self, hold, settlement, str outcome not None, status, ms):
        cdef TillCore till = self._till
        assert type(hold) is Hold
        if not hold.open:
            return
        cdef HolderCore holder = till.holder
        if not hold.sent:
            holder.void(hold)
            return
        till.underway -= 1
        basis, usage, microdollars = settlement.basis, settlement.usage, settlement.microdollars
        counted = usage.input, usage.output, usage.cache_read, usage.cache_write, usage.reasoning
        if basis == "void":
            charged = holder.settle(hold, 0, 0, 0)
        else:
            tokens = counted[0] + counted[2] + counted[3] + counted[1] if basis == "exact" else None
            charged = holder.settle(hold, microdollars, tokens)
        assert charged is not None
        record = settle_record(
            hold.attempt,
            basis,
            outcome,
            status or 0,
            charged,
            holder.spent(hold.path, hold.slots) if charged else charged,
            counted,
            settlement.picodollars,
            microdollars,
            ms,
        )
        till.write_late(SETTLE, record)

    def finish(
        self,
        str request not None,
        str decision not None,
        str surface not None,
        str asked not None,
        str entry not None,
        str reason not None,
        int status,
        bint stream,
        long long latency_ms,
        first_chunk_ms,
        details=None,
    ):
        cdef TillCore till = self._till
        record = finish_record(
            request,
            self.id,
            decision,
            surface,
            asked,
            entry,
            reason,
            status,
            stream,
            till._wall_ms + now_ms(till.clock) - latency_ms,
            latency_ms,
            first_chunk_ms,
            NO_DETAILS if details is None else details,
        )
        till.write_late(FINISH, record)
