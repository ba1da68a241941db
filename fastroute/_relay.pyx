# cython: language_level=3
"""The core of the relay: the attempt loop, an attempt from its reservation to its settlement, and a sound whole answer.

Compiled because every request runs through all of it: what a request usually does stays within this file, and every turn
for the worse is told by the methods of `relay._Attempt`, in Python. `_relay.pyi` states the contracts.
"""

from fastroute import settle
from fastroute._scan import plain_answer
from fastroute.bodies import body_for
from fastroute.call import CallerGone, Failed, Poor
from fastroute.callers import ShapeError
from fastroute.domain import Attempt, Usage
from fastroute.plausibility import judged
from fastroute.upstreams._wire import Exchange
from fastroute.upstreams.dialect import DialectError
from fastroute.upstreams.faults import UpstreamFault

from fastroute._call cimport Call
from fastroute._sweep cimport Sweep


cdef object OUTPUT_UNKNOWN = settle.OUTPUT_UNKNOWN


cdef class Core:
    async def loop(self, kind, Call call not None, writer):
        """Try one entry after another until one answers; every way out of an attempt leaves it settled."""
        cdef Try attempt
        cdef int made = 0
        cdef bint is_last
        self.retries.first()
        failed = spare = None
        last = call.entries[-1]
        self.unwatched.add(call, call.loop)
        try:
            for entry in call.entries:
                if made == self.max_attempts:
                    break
                if made:
                    self.retries.recover(call.loop.time())
                    if self.retries.spent:
                        self.metrics.retry_budget_exhausted.inc()
                        break
                is_last = entry is last
                upstream = self.upstream_of(entry)
                # The last candidate is asked whatever its health: somebody has to be.
                if not self.health.admit(entry.lane) and not is_last:
                    continue
                account = call.account
                money = settle.bound(entry.price, call.input_bound, call.output_cap, entry.max_output, call.choices)
                tokens = 0
                if account.limited:
                    output = call.output_cap
                    if output is None:
                        # What is promised to the budget is what the provider is told.
                        call.set_cap = entry.max_output
                        output = entry.max_output or OUTPUT_UNKNOWN
                    tokens = call.input_bound + output * call.choices
                reservation = account.reserve(money, tokens)
                if reservation is None:
                    reservation = await self.fund(call, entry, money, tokens)
                    if reservation is None:
                        self.health.forgo(entry.lane)
                        if made:
                            call.reason = "fallback_unfunded"
                        break
                if made:
                    self.retries.take()
                made += 1
                call.entry = entry
                attempt = kind(self, call, entry, upstream, reservation, call.quality and not is_last)
                try:
                    if writer is None:
                        return await attempt.whole()
                    return await attempt.streamed(writer)
                except Poor as poor:
                    failed = poor.failed
                    if poor.spare is not None and spare is None:
                        spare = entry, poor.spare
                    if call.gone:
                        raise CallerGone("the caller left") from None
                    if not poor.again:
                        break
                finally:
                    # A way out that nobody foresaw (a cancellation, a fault of ours) still closes the reservation.
                    if not attempt.settled:
                        attempt.close("gone", None, settle.presumed(reservation))
                        attempt.stop()
            if spare is not None:
                call.entry, give = spare
                return await give()
            if failed is None:
                failed = call.short
            assert failed is not None
            raise failed
        finally:
            self.unwatched.drop(call)
            call.unwatch()


cdef class Try:
    def __init__(self, Core relay not None, Call call not None, entry, upstream, reservation, bint poor_matters):
        self.relay = relay
        self.call = call
        self.entry = entry
        self.upstream = upstream
        self.reservation = reservation
        self.poor_matters = poor_matters
        self.started = call.loop.time()

    async def whole(self):
        """A whole answer's bytes. Nearly every one is sound, told in full, and relayed as it came."""
        cdef Call call = self.call
        cdef bytes body
        exchange = self.begin()
        try:
            while not exchange.answer():
                await exchange.coming()
            if exchange.status != 200:
                raise await self.answered_no(exchange)
            self.named(exchange)
            if not (exchange.header(b"content-type") or b"").startswith(b"application/json"):
                self.stop()
                raise self.nonsense("answered with something that is not JSON")
            if exchange.complete and type(exchange) is Exchange:
                body = exchange.taken()
            else:
                body = b""
                if not exchange.complete:
                    body = await exchange.chunk()
                    exchange.committed()  # somebody is working on it; what follows may take its time
                rest = await exchange.read()
                body = body + rest if body else rest
        except UpstreamFault as fault:
            raise self.faulted(fault) from None
        if not self.poor_matters and call.surface.name == "chat" and self.upstream.dialect.speaks_chat:
            plain = plain_answer(body)
            if plain is not None:
                prompt, output, cached, reasoning = plain
                self.succeed(Usage(prompt - cached, output, cached, 0, reasoning), len(body))
                return body
        return await self.looked_into(body)

    cpdef object begin(self):
        """Send the request; what cannot be sent settles the attempt and is `Poor`."""
        cdef Call call = self.call
        cdef Core relay = self.relay
        entry = self.entry
        try:
            operation, body = body_for(call, entry, self.upstream)
        except (DialectError, ShapeError) as error:
            self.close("http_4xx", None, settle.void(entry.price))
            failed = Failed(400, "invalid_request_error", "unsupported", error.message, param=error.param or None)
            raise Poor(failed, again=False) from None
        shortage = call.account.send(self.reservation, call.id, entry.id, entry.ref.model, entry.lane)
        if shortage is not None:
            raise self.unwritten(shortage)
        # What is not streamed sends nothing before it is made, and a picture or a voice takes its whole time for that.
        deadlines = relay.patient if call.surface.opaque else relay.deadlines if call.stream else relay.whole
        try:
            exchange = self.upstream.begin(operation, entry.ref.model, call.stream, call.passed, body, deadlines)
        except UpstreamFault as fault:
            raise self.faulted(fault) from None
        # Known before it answers: a caller who leaves while the provider thinks must reach it.
        self.exchange = call.exchange = exchange
        if call.gone:
            exchange.stop()
        return exchange

    cpdef int named(self, exchange) except -1:
        return self.call.known_as(exchange.header(b"x-request-id") or exchange.header(b"request-id"))

    cpdef int succeed(self, usage, Py_ssize_t content_bytes, str outcome="ok") except -1:
        settlement = None if usage is None else self.told(usage)
        if settlement is None:
            settlement = settle.bounded(self.entry.price, self.call.input_bound, content_bytes, self.reservation)
        return self.close(outcome, 200, settlement)

    cpdef object told(self, usage):
        cdef Call call = self.call
        entry = self.entry
        # Nearly always within what was reserved, and then it can cost no more than that either.
        output = call.output_cap or entry.max_output or OUTPUT_UNKNOWN
        if usage.output > output or usage.input + usage.cache_read + usage.cache_write > call.input_bound:
            return judged(call, entry, self.reservation, usage, self.relay.metrics)
        return settle.exact(entry.price, usage)

    cpdef int close(self, str outcome, status, settlement) except -1:
        cdef Call call = self.call
        cdef Core relay = self.relay
        cdef bint learned
        assert not self.settled
        self.settled = True
        entry = self.entry
        call.exchange = None
        ms = <long long>((<double>call.loop.time() - self.started) * 1000)
        call.account.settle(self.reservation, settlement, outcome, status, ms)
        attempt = Attempt(entry.id, entry.lane, entry.ref.model, outcome, status, self.reservation, settlement, ms)
        call.attempts.append(attempt)
        # Of a lane that was never asked, or whose caller left, nothing was learned.
        learned = outcome != "gone" and (status is not None or outcome != "http_4xx")
        if not learned:
            relay.health.forgo(entry.lane)
        elif outcome == "ok" or outcome == "low_quality" or outcome == "http_4xx":
            relay.health.success(entry.lane, self.started * 1000)
        elif outcome != "rate_limit":
            relay.health.failure(entry.lane)
        if learned:
            relay.latency.note(entry.id, ms)
        relay.note(call, attempt)
        return 0

    cpdef int stop(self) except -1:
        if self.exchange is not None:
            self.exchange.stop()
        return 0
