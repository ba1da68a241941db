# cython: language_level=3
"""The core of the gateway: what every request asks of it, from the body that is read to the line that is logged.

Compiled because no request goes without; a name that must be looked up, a refusal and a fallback are `gateway.Gateway`'s,
in Python. `_gateway.pyi` states the contracts.
"""

from fastroute import _core
from fastroute._scan import ScanError
from fastroute.asked import SURFACES as OTHERS, asked
from fastroute.routing.prices import misses_cache_rate

from fastroute._call cimport Call
from fastroute._ids cimport Counted

cdef object UNKNOWN = _core.UNKNOWN
cdef object TOKENS_MAX = 1_000_000_000
cdef object CONTEXT_UNKNOWN = 1_000_000
cdef enum:
    NAME_MAX = 256
    PINNED_MAX = 4096


cdef class Core:
    def __init__(self, scanner, dict caps not None, tuple any_cap not None, Counted ids not None, metrics, log):
        self.scanner = scanner
        self.caps = caps
        self.any_cap = any_cap
        self.ids = ids
        self.metrics = metrics
        self.chosen = metrics.verdict.of("chosen")
        self.log = log
        self.pinned = {}
        self.learned = set()

    cpdef int read(self, Call call, bytes body) except -1:
        call.body = body
        surface = call.surface
        try:
            scan = self.scanner.scan(body)
            # The largest of those that count here: which of them a provider obeys is its own affair.
            cap = scan.most(self.caps.get(surface.name, self.any_cap))
            choices = scan.integer(b"n")
            more = scan.integer(b"n_cmpl")
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
        if len(call.model) > NAME_MAX or not call.model.isprintable():
            raise self.bad_name()
        media = scan.media
        window = CONTEXT_UNKNOWN if media else UNKNOWN
        call.input_bound = _core.token_bound(scan.text_bytes, messages, scan.tools, media, window)
        return 0

    cpdef int plan(self, Call call) except -1:
        # A name that means one entry means it for as long as the directory stands.
        entry = self.pinned.get(call.model)
        if entry is None:
            entry = self.place(call)
            if entry is None:
                return 0
            if len(self.pinned) >= PINNED_MAX:
                self.pinned.clear()
            self.pinned[call.model] = entry
        elif call.account.models is not None:
            self.check_allowed(call, entry)
        call.decision_id = self.ids.decision()
        call.entries = [entry]
        call.reason = "manual_override"
        self.chosen.inc()
        return 0

    cpdef int attempted(self, Call call, attempt) except -1:
        at = call.first_chunk_at
        first_chunk_ms = None if at is None else (<double>at - call.started) * 1000
        settlement = attempt.settlement
        self.metrics.attempt(attempt.lane, attempt.outcome, settlement.basis, first_chunk_ms)
        price = None if call.entry is None else call.entry.price
        usage = settlement.usage
        if price is None or (usage.cache_read and misses_cache_rate(usage, price.at(usage.input_total))):
            self.metrics.pricing_miss.inc()
        if len(call.attempts) > 1:
            self.fell_back(call, attempt)
        return 0

    cpdef int finished(self, Call call) except -1:
        cdef long long latency_ms = <long long>((<double>call.loop.time() - call.started) * 1000)
        final = call.final_attempt()
        # What the cache answers has an entry and no attempt.
        cdef bint hit = final is None and call.entry is not None and call.reason == "cache_hit"
        if final is None:
            lane = None
            model = call.entry.ref.model if hit else None
            cost = 0 if hit else None
            self.metrics.finished(model if hit else "other", call.status, latency_ms, cost)
        else:
            model = final.model
            lane = final.lane
            usage = final.settlement.usage
            cost = call.cost()
            if call.status == 200 and model not in self.learned:
                self.learn(call, model, self.learned)
            tokens_in = usage.input + usage.cache_read + usage.cache_write
            self.metrics.finished(model, call.status, latency_ms, cost, tokens_in, usage.output, lane)
            if len(call.attempts) > 1:
                self.discarded(call, final)
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
        if call.permit is not None:
            self.left(call)
        if call.rules is not None:
            self.ruled(call)
        if self.log is not None:
            # surface, status, model, backend, reason, attempts, stream: the same for thousands of requests.
            kind = (call.surface.name, call.status, model, lane, call.reason, len(call.attempts), bool(call.stream))
            self.log.answered(call.id, kind, latency_ms, cost)
        return 0
