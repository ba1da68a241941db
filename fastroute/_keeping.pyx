# cython: language_level=3
"""What the books know of a request that is over, in the words of its receipt; `_keeping.pyi` is its face."""

from fastroute.domain import Tariff, Usage
from fastroute.ledger.balances import FinishedRequest
from fastroute.ledger.records import Finish, Send, Settle
from fastroute.ledger.store import ReceiptRow
from fastroute.receipts.told import AttemptLine, Charge, Particulars, Sealed

from fastroute._fields cimport at, lay, must_be, offset_of

cdef enum:
    F_REQUEST, F_DECISION, F_SURFACE, F_ASKED, F_ENTRY, F_REASON, F_STATUS, F_STREAM, F_STARTED, F_LATENCY, F_FIRST
    F_DETAILS, F_ACCOUNT, F_FIELDS
cdef enum:
    S_ATTEMPT, S_WINDOWS, S_RESERVED, S_ENTRY, S_MODEL, S_LANE, S_MONEY, S_FIELDS
cdef enum:
    C_BASIS, C_OUTCOME, C_STATUS, C_CHARGED, C_USAGE, C_PICODOLLARS, C_MICRODOLLARS, C_MS, C_TARIFF, C_FIELDS

cdef Py_ssize_t FINISH[F_FIELDS]
cdef Py_ssize_t SEND[S_FIELDS]
cdef Py_ssize_t SETTLE[C_FIELDS]
lay(
    FINISH,
    Finish,
    (
        "request",
        "decision",
        "surface",
        "asked",
        "entry",
        "reason",
        "status",
        "stream",
        "started_ms",
        "latency_ms",
        "first_chunk_ms",
        "details",
        "account",
    ),
)
lay(SEND, Send, ("attempt", "windows", "reserved", "entry", "model", "lane", "microdollars"))
lay(SETTLE, Settle, ("basis", "outcome", "status", "charged", "usage", "picodollars", "microdollars", "ms", "tariff"))
cdef Py_ssize_t FINISHED_FINISH = offset_of(FinishedRequest, "finish")
cdef Py_ssize_t FINISHED_ATTEMPTS = offset_of(FinishedRequest, "attempts")
cdef Py_ssize_t SEALED_SEQ = offset_of(Sealed, "seq")
cdef Py_ssize_t SEALED_ID = offset_of(Sealed, "id")
cdef Py_ssize_t SEALED_BODY = offset_of(Sealed, "body")
cdef Py_ssize_t SEALED_LINK = offset_of(Sealed, "link")
cdef object the_finish = Finish, the_send = Send, the_settle = Settle, the_finished = FinishedRequest, the_sealed = Sealed


cdef class Told:
    cdef object account, window
    cdef dict accounts, windows

    def __init__(self, account, window):
        self.account, self.window = account, window
        self.accounts, self.windows = {}, {}

    def receipts(self, finished, seal):
        cdef list rows = []
        for one in finished:
            must_be(one, the_finished)
            finish = at(one, FINISHED_FINISH)
            sealed = seal(self.particulars(finish, at(one, FINISHED_ATTEMPTS)))
            must_be(sealed, the_sealed)
            rows.append(
                ReceiptRow(
                    at(sealed, SEALED_SEQ),
                    at(sealed, SEALED_ID),
                    at(finish, FINISH[F_REQUEST]),
                    at(finish, FINISH[F_ACCOUNT]),
                    at(finish, FINISH[F_STARTED]),
                    at(sealed, SEALED_BODY),
                    at(sealed, SEALED_LINK),
                )
            )
        return rows

    cpdef particulars(self, finish, tuple attempts):
        cdef list lines = []
        cdef tuple one, who
        must_be(finish, the_finish)
        for one in attempts:
            lines.append(self.line(one[0], one[1]))
        who = self.who(at(finish, FINISH[F_ACCOUNT]))
        return Particulars(
            at(finish, FINISH[F_REQUEST]),
            at(finish, FINISH[F_DECISION]),
            at(finish, FINISH[F_STARTED]),
            who[0],
            who[1],
            at(finish, FINISH[F_SURFACE]),
            at(finish, FINISH[F_ASKED]),
            at(finish, FINISH[F_ENTRY]) or None,
            at(finish, FINISH[F_REASON]),
            at(finish, FINISH[F_STATUS]),
            at(finish, FINISH[F_STREAM]),
            at(finish, FINISH[F_LATENCY]),
            at(finish, FINISH[F_FIRST]),
            tuple(lines),
            at(finish, FINISH[F_DETAILS]),
        )

    cdef object line(self, send, settle):
        cdef tuple windows, reserved, charged, used, place
        cdef list charges = []
        cdef Py_ssize_t i
        must_be(send, the_send)
        must_be(settle, the_settle)
        windows, reserved = at(send, SEND[S_WINDOWS]), at(send, SEND[S_RESERVED])
        tariff = at(settle, SETTLE[C_TARIFF])
        charged, used = at(settle, SETTLE[C_CHARGED]), at(settle, SETTLE[C_USAGE])
        for i in range(len(windows)):
            place = self.place(windows[i])
            charges.append(Charge(place[0], place[1], place[2], reserved[i], charged[i]))
        return AttemptLine(
            at(send, SEND[S_ATTEMPT]),
            at(send, SEND[S_ENTRY]),
            at(send, SEND[S_LANE]),
            at(send, SEND[S_MODEL]),
            at(settle, SETTLE[C_OUTCOME]),
            at(settle, SETTLE[C_STATUS]) or None,
            at(settle, SETTLE[C_BASIS]),
            at(send, SEND[S_MONEY]),
            tuple(charges),
            at(settle, SETTLE[C_PICODOLLARS]),
            at(settle, SETTLE[C_MICRODOLLARS]),
            Usage(used[0], used[1], used[2], used[3], used[4]),
            at(settle, SETTLE[C_MS]),
            None if tariff is None else Tariff(*tariff),
        )

    cdef tuple who(self, number):
        found = self.accounts.get(number)
        if found is None:
            row = self.account(number)
            found = self.accounts[number] = (None, None) if row is None else (row.public_id, row.name)
        return found

    cdef tuple place(self, number):
        found = self.windows.get(number)
        if found is None:
            # One that its account has left behind meanwhile is told by its number.
            found = self.windows[number] = self.window(number) or ("", "", f"window {number}")
        return found
