# cython: language_level=3
"""The core of the relay: the attempt loop, an attempt from its reservation to its settlement, and a sound whole answer.

Compiled because every request runs through all of it: what a request usually does stays within this file, and every turn
for the worse is told by the methods of `relay._Attempt`, in Python. `_relay.pyi` states the contracts.
"""

from fastroute import settle
from fastroute._scan import ScanError, plain_answer
from fastroute.bodies import body_for
from fastroute.call import CallerGone, Failed, Poor
from fastroute.callers import ShapeError
from fastroute.domain import ENTRIES_MAX, Attempt, Reservation, Usage
from fastroute.outcomes import RETRY_START, content_max
from fastroute.paying import TELLING
from fastroute.plausibility import judged
from fastroute.upstreams.dialect import DialectError
from fastroute.upstreams.faults import UpstreamFault

from libc.stdint cimport int64_t

from fastroute._call cimport Call
from fastroute._domain cimport USAGE, input_total, of_usage
from fastroute._fields cimport at, must_be
from fastroute._framing cimport DONE
from fastroute._made cimport Made
from fastroute._now cimport moment, now_ms
from fastroute._scan cimport Scan, Words, plain_tokens
from fastroute._settle cimport bound, exact
from fastroute._sweep cimport Sweep
from fastroute.upstreams._pool cimport RemoteCore
from fastroute.upstreams._wire cimport Exchange

cdef extern from *:
    """
    /* An object of a kind, its __init__ not run: what that would be given is set field by field. */
    static PyObject *fr_new(PyObject *kind)
    {
        static PyObject *nothing = NULL;
        if (nothing == NULL && (nothing = PyTuple_New(0)) == NULL) return NULL;
        return ((PyTypeObject *)kind)->tp_new((PyTypeObject *)kind, nothing, NULL);
    }
    """
    object fr_new(object kind)

cdef object OUTPUT_UNKNOWN = settle.OUTPUT_UNKNOWN
cdef bytes JSON = b"application/json"
cdef object TOKENS_MAX = 1_000_000_000
# What may come before the first content: comments and promises, which are held back until there is an answer.
cdef Py_ssize_t HELD_MAX = 1 << 20
cdef Words telling = TELLING
cdef object BEGINS = RemoteCore.begin
# What a budget of retries holds while nothing was retried.
cdef double FULL = RETRY_START


cdef class Standing:
    """What every attempt on one entry would look up anew; the upstreams of a relay stay the same for its life."""


cdef class Core:
    def __cinit__(self, *_, **__):
        self.standings = Made(ENTRIES_MAX)

    cdef Standing standing(self, entry):
        cdef Standing made
        found = self.standings.of(entry)
        if found is not None:
            return <Standing>found
        made = Standing()
        made.entry = entry
        made.upstream = self.upstream_of(entry)
        # One that does more than that when it begins is asked by that name.
        plain = isinstance(made.upstream, RemoteCore) and type(made.upstream).begin is BEGINS
        made.remote = made.upstream if plain else None
        made.price, made.max_output = entry.price, entry.max_output
        made.id, made.lane, made.model = entry.id, entry.lane, entry.ref.model
        made.sampled = self.latency.samples(entry.id).append
        made.chats = made.upstream.dialect.speaks_chat
        return <Standing>self.standings.keep(entry, made)

    cdef set well(self):
        if self.healthy is not self.health:
            self.healthy = self.health
            self.quiet = self.health.quiet
        return self.quiet

    def answer(self, Call call not None):
        return self.loop(call, None)

    def stream(self, Call call not None, writer not None):
        return self.loop(call, writer)

    async def loop(self, Call call not None, writer):
        """Try one entry after another until one answers; every way out of an attempt leaves it settled."""
        cdef Try attempt
        cdef Standing standing
        cdef Exchange wire
        cdef int made = 0
        cdef bint is_last, moved = False, limited = not call.free() and call.account.limited
        rules = call.rules
        cdef int most = self.max_attempts if rules is None else rules.max_attempts
        if <double>self.retries.tokens < FULL:
            self.retries.first()
        failed = spare = None
        if limited and telling.within(call.body):
            self.cover(call)
        last = call.entries[-1]
        cdef double now = moment(call.loop)
        self.unwatched.add_at(call, call.loop, now)
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
                if standing.lane not in self.well() and not self.health.admit(standing.lane) and not is_last:
                    continue
                money = bound(standing.price, call.input_bound, call.output_cap, standing.max_output, call.choices)
                tokens = 0
                if limited:
                    output = call.output_cap
                    if output is None:
                        # What is promised to the budget is what the provider is told.
                        call.set_cap = standing.max_output
                        output = standing.max_output or OUTPUT_UNKNOWN
                    tokens = min(call.input_bound + output * call.choices, TOKENS_MAX)
                reservation = Reservation(money) if call.free() else call.account.reserve(money, tokens)
                if reservation is None:
                    moved = True
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
                attempt = <Try?>fr_new(self.kind)
                if made > 1 or moved:
                    now = moment(call.loop)
                attempt.made(self, call, standing, reservation, call.quality and not is_last, now)
                try:
                    exchange = attempt.begin()
                    try:
                        if type(exchange) is Exchange:
                            wire = <Exchange>exchange
                            while not wire.answer():
                                await wire.coming()
                        else:
                            while not exchange.answer():
                                await exchange.coming()
                        body = None if writer is not None else attempt.sound(exchange)
                    except UpstreamFault as fault:
                        raise attempt.faulted(fault) from None
                    if writer is not None:
                        return await attempt.streamed(exchange, writer)
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
    cdef int made(
        self, Core relay, Call call, Standing standing, reservation, bint poor_matters, double now
    ) except -1:
        self.relay = relay
        self.call = call
        self.standing = standing
        self.entry = standing.entry
        self.upstream = standing.upstream
        self.reservation = reservation
        self.poor_matters = poor_matters
        self.started = now
        return 0

    cdef object sound(self, exchange):
        """A whole answer that is here, sound and told in full, as nearly every one is; None for whatever else is."""
        cdef Exchange wire
        cdef int64_t told[4]
        if type(exchange) is not Exchange:
            return None
        wire = <Exchange>exchange
        if wire.turn.status != 200 or wire.turn.state != DONE:
            return None
        if self.poor_matters or not self.standing.chats or not self.call.surface.chats:
            return None
        content_type = wire.turn.header(b"content-type")
        if content_type is None or not (<bytes>content_type).startswith(JSON):
            return None
        self.named(exchange)
        self.body = wire.taken()
        if not plain_tokens(self.body, told):
            return None
        self.succeed(Usage(told[0] - told[2], told[1], told[2], 0, told[3]), len(self.body))
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
        if not self.poor_matters and self.call.surface.chats and self.standing.chats:
            plain = plain_answer(body)
            if plain is not None:
                prompt, output, cached, reasoning = plain
                self.succeed(Usage(prompt - cached, output, cached, 0, reasoning), len(body))
                return body
        return await self.looked_into(body)

    async def streamed(self, exchange, writer):
        cdef Call call = self.call
        cdef Core relay = self.relay
        cdef Exchange wire = <Exchange>exchange if type(exchange) is Exchange else None
        cdef bytes held = b"", out
        cdef bint begun = False, whole
        fault = None
        try:
            if exchange.status != 200 and not (call.surface.opaque and 200 < exchange.status < 300):
                raise await self.answered_no(exchange)
        except UpstreamFault as broken:
            raise self.faulted(broken) from None
        self.named(exchange)
        call.content_type = exchange.header(b"content-type") or b""
        if call.surface.opaque:
            call.answered = exchange.status
        elif not call.content_type.startswith(b"text/event-stream"):
            raise await self.not_a_stream(exchange, call.content_type)
        pipe = self.pipe(call.content_type)
        most = content_max(call.output_cap, call.choices)
        said = None
        while said is None and not pipe.ended:
            try:
                if wire is None:
                    data = await exchange.chunk()
                else:
                    data = wire.here()
                    while data is None:
                        await wire.more()
                        data = wire.here()
                if not data:
                    break
                out = pipe.feed(data)
            except UpstreamFault as broken:
                fault = broken
                break
            except ScanError as error:
                fault = UpstreamFault("limit", error.message, sent=True)
                relay.metrics.limit("sse_line")
                break
            if most is not None and pipe.content_bytes > most:
                fault = UpstreamFault("limit", "the answer is longer than the cap it was asked for with", sent=True)
                relay.metrics.limit("stream")
                break
            # What is there in full leaves with its end: a send is a trip between threads, 12 us.
            said = pipe.error
            whole = said is None and exchange.complete and pipe.ended and pipe.complete
            if begun:
                if whole:
                    held = out
                elif out:
                    await writer.send(out)
                continue
            held = held + out if held else out
            if said is None and pipe.content_seen:
                begun = True
                exchange.committed()
                call.first_chunk_at = moment(call.loop)
                if not whole:
                    await writer.begin(call, self.entry)
                    await writer.send(held)
                    held = b""
            elif len(held) > HELD_MAX:
                fault = UpstreamFault("limit", "a megabyte came and no content in it", sent=True)
                relay.metrics.limit("stream")
                break
        if fault is not None or said is not None or not pipe.complete or (
            self.poor_matters and not pipe.content_seen
        ):
            await self.ended(writer, pipe, fault, held, begun=begun)
            return
        if not exchange.complete:
            relay.leaving.add_at(exchange, call.loop, moment(call.loop))
        self.succeed(pipe.usage, pipe.content_bytes)
        await writer.begin(call, self.entry)
        await writer.end(held + pipe.finish(writer.comment(call)))

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
                and call.surface.chats
                and call.set_cap is None
                and not (call.stream and call.hide_usage)
                and standing.model == (<Scan?>call.scan).model
            ):
                operation, body = "chat", call.body  # nothing in it is to be changed
            else:
                operation, body = body_for(call, entry, self.upstream)
        except (DialectError, ShapeError) as error:
            self.close("http_4xx", None, settle.void(entry.price))
            failed = Failed(400, "invalid_request_error", "unsupported", error.message, param=error.param or None)
            raise Poor(failed, again=False) from None
        if not call.free():
            shortage = call.account.send(self.reservation, call.id, standing.id, standing.model, standing.lane)
            if shortage is not None:
                raise self.unwritten(shortage)
        # What is not streamed sends nothing before it is made, and a picture or a voice takes its whole time for that.
        deadlines = relay.patient if call.surface.opaque else relay.deadlines if call.stream else relay.whole
        try:
            if rules is None and standing.remote is not None:
                exchange = standing.remote.asked(
                    operation, standing.model, call.stream, call.passed, body, deadlines, self.started
                )
            elif rules is None:
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
        cdef Exchange wire
        if type(exchange) is Exchange:
            wire = <Exchange>exchange
            return self.call.known_as(wire.turn.header(b"x-request-id") or wire.turn.header(b"request-id"))
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
        must_be(usage, USAGE)
        if at(usage, of_usage.output) > output or input_total(usage) > call.input_bound:
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
        ms = <long long>((moment(call.loop) - self.started) * 1000)
        if not call.free():
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
            if standing.lane not in relay.well():
                relay.health.success(standing.lane, self.started * 1000)
        elif outcome != "rate_limit":
            relay.health.failure(standing.lane)
        if learned:
            standing.sampled((now_ms(relay.clock), ms))
        relay.note(call, attempt)
        return 0

    cpdef int stop(self) except -1:
        if self.exchange is not None:
            self.exchange.stop()
        return 0
