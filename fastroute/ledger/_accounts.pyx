# cython: language_level=3, auto_pickle=False
"""The hot half of the worker's ledger: what every attempt does to its account, and how a record is written.

Nothing here awaits or enters the kernel. What is rare (waiting for rights, renewing, records that come late) is Python's,
in `accounts`; `_accounts.pyi` states the contracts.
"""

from fastroute.ledger import records
from fastroute.ledger.journal import JournalFull

from libc.stdint cimport int64_t

from fastroute._core cimport PATH_MAX
from fastroute._domain cimport SETTLEMENT, TARIFF, of_settlement, of_usage, usage_of
from fastroute._fields cimport at, must_be
from fastroute._now cimport now_ms
from fastroute.ledger._journal cimport Appender
from fastroute.ledger._leases cimport Hold, HolderCore
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
        if self._closed or self._late:
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

    def send(self, Hold hold not None, str request not None, str entry not None, str model not None, str lane not None):
        cdef TillCore till = self._till
        cdef tuple windows = hold.path.windows
        cdef long long at_ms = till._wall_ms + now_ms(till.clock)
        till.attempts += 1
        hold.attempt = till.attempts
        record = send_record(
            hold.attempt,
            request,
            self.id,
            windows,
            hold.count,
            hold.held,
            entry,
            model,
            lane,
            at_ms,
            hold.microdollars,
        )
        if till.write(SEND, record):
            hold.sent = True
            till.underway += 1
            return None
        return self.unwritten(windows)

    def settle(self, Hold hold not None, settlement, str outcome not None, status, ms):
        cdef TillCore till = self._till
        cdef HolderCore holder = till.holder
        cdef int64_t charged[PATH_MAX]
        cdef int64_t spent[PATH_MAX]
        cdef int place
        cdef tuple paid
        cdef str basis
        if not hold.open:
            return
        if not hold.sent:
            holder.void(hold)
            return
        till.underway -= 1
        must_be(settlement, SETTLEMENT)
        basis = at(settlement, of_settlement.basis)
        microdollars = at(settlement, of_settlement.microdollars)
        picodollars = at(settlement, of_settlement.picodollars)
        usage = usage_of(settlement)
        tariff = at(settlement, of_settlement.tariff)
        if tariff is not None:
            must_be(tariff, TARIFF)  # before money moves: what has moved must be written down
        sent, answered = at(usage, of_usage.input), at(usage, of_usage.output)
        cached, kept = at(usage, of_usage.cache_read), at(usage, of_usage.cache_write)
        thought = at(usage, of_usage.reasoning)
        if basis == "void":
            paid = holder.settle(hold, 0, 0, 0)
        else:
            paid = holder.settle(hold, microdollars, sent + cached + kept + answered if basis == "exact" else None)
        for place in range(hold.count):
            charged[place] = paid[place]
        holder.totals(hold.path, hold.count, hold.places, spent)
        if status is None:
            status = 0
        record = settle_record(
            hold.attempt,
            basis,
            outcome,
            status,
            hold.count,
            charged,
            spent,
            sent,
            answered,
            cached,
            kept,
            thought,
            picodollars,
            microdollars,
            ms,
            tariff,
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
