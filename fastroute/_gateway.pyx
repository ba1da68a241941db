# cython: language_level=3
"""The core of the gateway: what every request asks of it, from the body that is read to the line that is logged.

Compiled because no request goes without; a name that must be looked up, a refusal and a fallback are `gateway.Gateway`'s,
in Python. `_gateway.pyi` states the contracts.
"""

from fastroute import domain
from fastroute._scan import ScanError
from fastroute.asked import SURFACES as OTHERS, asked
from fastroute.routing.prices import misses_cache_rate

from libc.stdint cimport int64_t

from fastroute._call cimport Call, Surface
from fastroute._core cimport bound_of
from fastroute._domain cimport ENTRY, input_total, of_attempt, of_entry, of_settlement, of_usage, settlement_of, usage_of
from fastroute._fields cimport at, must_be
from fastroute._ids cimport Counted
from fastroute._lines cimport Lines
from fastroute._now cimport moment
from fastroute._scan cimport RequestScanner, Scan, Sought
from fastroute.metrics._slots cimport Groups

cdef extern from "Python.h":
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    void *PyUnicode_1BYTE_DATA(object text)

cdef object TOKENS_MAX = domain.TOKENS_MAX
cdef Py_ssize_t most_entries = domain.ENTRIES_MAX
cdef enum:
    UNKNOWN = -1
    CONTEXT_UNKNOWN = 1_000_000
    NAME_MAX = 256


cdef bint plain(str text):
    """Letters, digits and signs of ASCII alone, as in nearly every name."""
    cdef Py_ssize_t place
    cdef const unsigned char *letters
    if not PyUnicode_IS_COMPACT_ASCII(text):
        return False
    letters = <const unsigned char *>PyUnicode_1BYTE_DATA(text)
    for place in range(len(text)):
        if not 32 <= letters[place] < 127:
            return False
    return True


cdef class Kin:
    """What requests have in common that were answered alike: the series they are counted in, and their line's form."""


cdef class Core:
    def __init__(
        self, RequestScanner scanner not None, dict caps not None, tuple any_cap not None, Counted ids not None,
        Groups metrics not None, Lines log,
    ):
        self.scanner = scanner
        self.caps = {surface: scanner.sought(names) for surface, names in caps.items()}
        self.any_cap = scanner.sought(any_cap)
        self.choices_at, self.more_choices_at = scanner.places[b"n"], scanner.places[b"n_cmpl"]
        self.ids = ids
        self.metrics = metrics
        self.chosen = (<object>metrics).verdict.of("chosen")
        self.log = log
        self.pinned = {}
        self.kins = {}
        self.learned = set()

    cpdef int read(self, Call call, bytes body) except -1:
        cdef Surface surface = call.surface
        cdef Scan scan
        cdef Py_ssize_t messages
        call.body = body
        try:
            scan = self.scanner.scan(body)
            # The largest of those that count here: which of them a provider obeys is its own affair.
            cap = scan.largest(self.caps.get(surface.name, self.any_cap))
            choices = scan.number(b"n", &scan.spans[self.choices_at])
            more = scan.number(b"n_cmpl", &scan.spans[self.more_choices_at])
            if more is not None and (choices is None or more > choices):
                choices = more
            wanted = asked(surface.name, scan, choices or 1) if surface.name in OTHERS else None
            if scan.stream and surface.operation != "embeddings":
                call.stream = True
            if call.stream and (surface.operation == "chat" or surface.operation == "completions"):
                call.usage_options = scan.usage_options()
                call.hide_usage = call.usage_options is not None
        except ScanError as error:
            raise self.unreadable(error) from None
        call.scan = scan
        if cap is not None and cap <= 0:
            raise self.negative_cap()
        call.output_cap = cap if cap is None or cap <= TOKENS_MAX else TOKENS_MAX
        call.choices = 1 if choices is None or choices <= 1 else choices if choices <= TOKENS_MAX else TOKENS_MAX
        messages = scan.messages
        if wanted is not None:
            call.choices = wanted.answers
            messages = messages or wanted.prompts
            if wanted.cap is not None:
                call.output_cap = wanted.cap
        if not call.model:  # a model in the path is the one that was asked for
            call.model = scan.model or ""
        if len(call.model) > NAME_MAX or not (plain(call.model) or call.model.isprintable()):
            raise self.bad_name()
        window = CONTEXT_UNKNOWN if scan.media else UNKNOWN
        call.input_bound = bound_of(scan.text_bytes, messages, scan.tools, scan.media, window)
        return 0

    cpdef int plan(self, Call call) except -1:
        # A name that means one entry means it for as long as the directory stands.
        entry = self.pinned.get(call.model)
        if entry is None:
            entry = self.place(call)
            if entry is None:
                return 0
            if len(self.pinned) >= most_entries:
                self.pinned.clear()
            self.pinned[call.model] = entry
        elif not call.free() and call.account.models is not None:
            self.check_allowed(call, entry)
        call.decision_id = self.ids.decision()
        call.entries = [entry]
        call.reason = "manual_override"
        self.chosen.inc()
        return 0

    cpdef int attempted(self, Call call, attempt) except -1:
        first = call.first_chunk_at
        first_chunk_ms = None if first is None else (<double>first - call.started) * 1000
        settlement = settlement_of(attempt)
        basis = at(settlement, of_settlement.basis)
        self.metrics.attempt(at(attempt, of_attempt.lane), at(attempt, of_attempt.outcome), basis, first_chunk_ms)
        price = None
        if call.entry is not None:
            must_be(call.entry, ENTRY)
            price = at(call.entry, of_entry.price)
        usage = usage_of(settlement)
        if price is None or (at(usage, of_usage.cache_read) and misses_cache_rate(usage, price.at(input_total(usage)))):
            self.metrics.pricing_miss.inc()
        if len(call.attempts) > 1:
            self.fell_back(call, attempt)
        return 0

    cdef Kin kin(self, Call call, model, lane):
        cdef Kin kin = self.last
        cdef str surface = call.surface.name
        cdef Py_ssize_t attempts = len(call.attempts)
        if (
            kin is not None
            and kin.model is model
            and kin.lane is lane
            and kin.status == call.status
            and kin.surface is surface
            and kin.reason is call.reason
            and kin.attempts == attempts
            and kin.stream == call.stream
        ):
            return kin
        # surface, status, model, backend, reason, attempts, stream: the same for thousands of requests.
        kind = (surface, call.status, model, lane, call.reason, attempts, call.stream)
        found = self.kins.get(kind)
        if found is not None:
            self.last = <Kin>found
            return self.last
        kin = Kin.__new__(Kin)
        kin.surface, kin.status, kin.model, kin.lane, kin.reason, kin.attempts, kin.stream = kind
        label = "other" if model is None else model
        kin.group = self.metrics.group(label, call.status, lane)
        kin.form = None if self.log is None else self.log.form(kind)
        if self.metrics.kept(kin.group, label, call.status, lane):  # else its names may yet become labels
            if len(self.kins) >= most_entries:
                self.kins.clear()
            self.kins[kind] = self.last = kin
        return kin

    cpdef int finished(self, Call call) except -1:
        cdef double latency_s = moment(call.loop) - call.started
        cdef long long latency_ms = <long long>(latency_s * 1000)
        cdef int64_t tokens_in = 0, tokens_out = 0
        cdef Kin kin
        model = lane = cost = None
        final = call.final_attempt()
        # What the cache answers has an entry and no attempt.
        cdef bint hit = final is None and call.entry is not None and call.reason == "cache_hit"
        if hit:
            model = call.entry.ref.model
            cost = 0
        elif final is not None:
            usage = usage_of(settlement_of(final))
            model, lane = at(final, of_attempt.model), at(final, of_attempt.lane)
            cost = call.cost()
            if call.status == 200 and model not in self.learned:
                self.learn(call, model, self.learned)
            tokens_in, tokens_out = input_total(usage), at(usage, of_usage.output)
        kin = self.kin(call, model, lane)
        kin.group.record(latency_ms, cost, tokens_in, tokens_out)
        if len(call.attempts) > 1:
            self.discarded(call, final)
        if not call.free():
            self.booked(call, final, latency_ms, hit)
        if call.permit is not None:
            self.left(call)
        if call.rules is not None:
            self.ruled(call)
        if kin.form is not None and self.log is not None:
            self.log.answered(call.id, kin.form, latency_ms, cost)
        return 0

    cdef int booked(self, Call call, final, long long latency_ms, bint hit) except -1:
        account = call.account
        if account.booked and call.decision_id:
            first = call.first_chunk_at
            account.finish(
                call.id,
                call.decision_id,
                call.surface.name,
                call.model,
                "" if call.entry is None or (final is None and not hit) else call.entry.id,
                call.reason if call.entry is None or call.entry is call.entries[0] else "fallback",
                call.status,
                bool(call.stream),
                latency_ms,
                None if first is None else <long long>((<double>first - call.started) * 1000),
                call.details,
            )
        return 0
