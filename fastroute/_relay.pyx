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
from fastroute.outcomes import RETRY_START
from fastroute.paying import TELLING
from fastroute.plausibility import judged
from fastroute.upstreams._wire import Exchange
from fastroute.upstreams.dialect import DialectError
from fastroute.upstreams.faults import UpstreamFault

from fastroute._call cimport Call
from fastroute._now cimport now_ms
from fastroute._settle cimport bound, exact
from fastroute._sweep cimport Sweep


cdef object OUTPUT_UNKNOWN = settle.OUTPUT_UNKNOWN
cdef bytes JSON = b"application/json"
cdef enum:
    STANDINGS_MAX = 4096
cdef object TOKENS_MAX = 1_000_000_000
cdef object telling = TELLING.within
# What a budget of retries holds while nothing was retried.
cdef double FULL = RETRY_START


cdef class Standing:
    """What every attempt on one entry would look up anew; the upstreams of a relay stay the same for its life."""


cdef class Core:
    def __cinit__(self, *_, **__):
        self.standings = {}

    cdef Standing standing(self, entry):
        cdef Standing made
        key = <size_t><void *>entry  # an entry's own hash takes in all of its fields
        found = self.standings.get(key)
        if found is not None:
            return <Standing>found
        made = Standing()
        made.entry = entry
        made.upstream = self.upstream_of(entry)
        made.price, made.max_output = entry.price, entry.max_output
        made.id, made.lane, made.model = entry.id, entry.lane, entry.ref.model
        made.samples = self.latency.samples(entry.id)
        made.chats = made.upstream.dialect.speaks_chat
        if len(self.standings) >= STANDINGS_MAX:
            self.standings.clear()
        self.standings[key] = made
        return made

    def answer(self, Call call not None):
        return self.loop(call, None)

    def stream(self, Call call not None, writer not None):
        return self.loop(call, writer)

    async def loop(self, Call call not None, writer):
        """Try one entry after another until one answers; every way out of an attempt leaves it settled."""
        cdef Try attempt
        cdef Standing standing
        cdef int made = 0
        cdef bint is_last
        rules = call.rules
        cdef int most = self.max_attempts if rules is None else rules.max_attempts
        if <double>self.retries.tokens < FULL:
            self.retries.first()
        failed = spare = None
        if call.account.limited and telling(call.body):
            self.cover(call)
        last = call.entries[-1]
        self.unwatched.add(call, call.loop)
        try:
            for entry in call.entries:
                if made == most:
                    break
                if made:
                    self.retries.recover(call.loop.time())
                    if self.retries.spent:
                        self.metrics.retry_budget_exhausted.inc()
                        break
                    if rules is not None:
                        await rules.pause(made)
                        if call.gone:
                            raise CallerGone("the caller left")
                is_last = entry is last
                standing = self.standing(entry)
                # The last candidate is asked whatever its health: somebody has to be.
                if standing.lane not in self.health.quiet and not self.health.admit(standing.lane) and not is_last:
                    continue
                account = call.account
                money = bound(standing.price, call.input_bound, call.output_cap, standing.max_output, call.choices)
                tokens = 0
                if account.limited:
                    output = call.output_cap
                    if output is None:
                        # What is promised to the budget is what the provider is told.
                        call.set_cap = standing.max_output
                        output = standing.max_output or OUTPUT_UNKNOWN
                    tokens = min(call.input_bound + output * call.choices, TOKENS_MAX)
                reservation = account.reserve(money, tokens)
                if reservation is None:
                    reservation = await self.fund(call, entry, money, tokens)
                    if reservation is None:
                        self.health.forgo(standing.lane)
                        if made:
                            call.reason = "fallback_unfunded"
                        break
                if made:
                    self.retries.take()
                made += 1
                call.entry = entry
                attempt = self.kind(self, call, entry, standing.upstream, reservation, call.quality and not is_last)
                attempt.standing = standing
                try:
                    if writer is not None:
                        return await attempt.streamed(writer)
                    exchange = attempt.begin()
                    try:
                        while not exchange.answer():
                            await exchange.coming()
                        body = attempt.sound(exchange)
                    except UpstreamFault as fault:
                        raise attempt.faulted(fault) from None
                    return await attempt.heard(exchange) if body is None else body
                except Poor as poor:
                    failed = poor.failed
                    if poor.spare is not None and spare is None:
                        spare = entry, poor.spare
                    if call.gone:
                        raise CallerGone("the caller left") from None
                    if not poor.again or (rules is not None and not rules.falls_over(poor)):
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

    cdef object sound(self, exchange):
        """A whole answer that is here, sound and told in full, as nearly every one is; None for whatever else is."""
        cdef Call call = self.call
        if exchange.status != 200 or type(exchange) is not Exchange or not exchange.complete:
            return None
        if self.poor_matters or not self.standing.chats or call.surface.name != "chat":
            return None
        content_type = exchange.header(b"content-type")
        if content_type is None or not (<bytes>content_type).startswith(JSON):
            return None
        self.named(exchange)
        self.body = exchange.taken()
        plain = plain_answer(self.body)
        if plain is None:
            return None
        prompt, output, cached, reasoning = plain
        self.succeed(Usage(prompt - cached, output, cached, 0, reasoning), len(self.body))
        return self.body

    async def heard(self, exchange):
        """A whole answer's bytes, once its head is here; whatever it may be."""
        cdef bytes body = self.body
        if body is not None:
            return await self.looked_into(body)
        try:
            if exchange.status != 200:
                raise await self.answered_no(exchange)
            self.named(exchange)
            if not (exchange.header(b"content-type") or b"").startswith(JSON):
                self.stop()
                raise self.nonsense("answered with something that is not JSON")
            body = b""
            if not exchange.complete:
                body = await exchange.chunk()
                exchange.committed()  # somebody is working on it; what follows may take its time
            rest = await exchange.read()
            body = body + rest if body else rest
        except UpstreamFault as fault:
            raise self.faulted(fault) from None
        if not self.poor_matters and self.call.surface.name == "chat" and self.standing.chats:
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
        cdef Standing standing = self.standing
        entry = self.entry
        rules = call.rules
        try:
            if rules is not None:
                rules.dress(standing.entry)
                operation, body = body_for(call, entry, self.upstream)
            elif (
                standing.chats
                and call.surface.name == "chat"
                and call.set_cap is None
                and not (call.stream and call.hide_usage)
                and standing.model == call.scan.model
            ):
                operation, body = "chat", call.body  # nothing in it is to be changed
            else:
                operation, body = body_for(call, entry, self.upstream)
        except (DialectError, ShapeError) as error:
            self.close("http_4xx", None, settle.void(entry.price))
            failed = Failed(400, "invalid_request_error", "unsupported", error.message, param=error.param or None)
            raise Poor(failed, again=False) from None
        shortage = call.account.send(self.reservation, call.id, standing.id, standing.model, standing.lane)
        if shortage is not None:
            raise self.unwritten(shortage)
        # What is not streamed sends nothing before it is made, and a picture or a voice takes its whole time for that.
        deadlines = relay.patient if call.surface.opaque else relay.deadlines if call.stream else relay.whole
        try:
            if rules is None:
                exchange = self.upstream.begin(operation, standing.model, call.stream, call.passed, body, deadlines)
            else:
                exchange = rules.begin(self.upstream, operation, entry, body, deadlines)
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
        output = call.output_cap or self.standing.max_output or OUTPUT_UNKNOWN
        if usage.output > output or usage.input + usage.cache_read + usage.cache_write > call.input_bound:
            return judged(call, entry, self.reservation, usage, self.relay.metrics)
        return exact(self.standing.price, usage)

    cpdef int close(self, str outcome, status, settlement) except -1:
        cdef Call call = self.call
        cdef Core relay = self.relay
        cdef Standing standing = self.standing
        cdef bint learned
        assert not self.settled
        self.settled = True
        call.exchange = None
        ms = <long long>((<double>call.loop.time() - self.started) * 1000)
        call.account.settle(self.reservation, settlement, outcome, status, ms)
        attempt = Attempt(
            standing.id, standing.lane, standing.model, outcome, status, self.reservation, settlement, ms
        )
        call.attempts.append(attempt)
        # Of a lane that was never asked, or whose caller left, nothing was learned.
        learned = outcome != "gone" and (status is not None or outcome != "http_4xx")
        if not learned:
            relay.health.forgo(standing.lane)
        elif outcome == "ok" or outcome == "low_quality" or outcome == "http_4xx":
            if standing.lane not in relay.health.quiet:
                relay.health.success(standing.lane, self.started * 1000)
        elif outcome != "rate_limit":
            relay.health.failure(standing.lane)
        if learned:
            standing.samples.append((now_ms(relay.clock), ms))
        relay.note(call, attempt)
        return 0

    cpdef int stop(self) except -1:
        if self.exchange is not None:
            self.exchange.stop()
        return 0
