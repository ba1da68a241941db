"""The attempt loop: one placement after another until an answer is committed to, then its bytes until they end.

Every attempt reserves before it sends and settles once, whatever became of it. Before the first content byte the next
placement may be tried; after it a broken stream is told as broken. Two providers never speak in one answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Protocol, TypeVar

import msgspec
import orjson
from msgspec.structs import replace

from fastroute import _scan, outcomes, settle
from fastroute._sweep import Sweep
from fastroute.bodies import body_for, is_native
from fastroute.call import Call
from fastroute.callers import Encoder, Reply, ShapeError
from fastroute.clock import Clock
from fastroute.config import Relay as RelaySettings
from fastroute.domain import Attempt, Entry, Outcome, Reservation, Settlement, Usage
from fastroute.errors import FastrouteError
from fastroute.lanes import Health, Latency
from fastroute.mending import MendingPipe, trips
from fastroute.metrics import Metrics
from fastroute.opaque import OpaquePipe
from fastroute.outcomes import RetryBudget
from fastroute.pipes import ChatPipe, NativePipe, Pipe, TranslatedPipe
from fastroute.upstreams.dialect import BrokenAnswer, DialectError, ProviderError, error_from, parse
from fastroute.upstreams.faults import UpstreamFault
from fastroute.upstreams.pool import Deadlines
from fastroute.upstreams.responses import ResponsesStream
from fastroute.upstreams.upstream import Exchange, Upstream, refused_with

T = TypeVar("T")

WATCH_AFTER_S: Final = 0.05
# After its last word a provider has this long to end the message too, so that the connection can be kept.
LINGER_S: Final = 0.25
# What may come before the first content: comments and promises, which are held back until there is an answer.
HELD_MAX: Final = 1 << 20


class Failed(FastrouteError):
    """No attempt gave an answer; the edge words it in the caller's own envelope."""

    def __init__(
        self,
        status: int,
        kind: str,
        code: str | None,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: int | None = None,
        closes: bool = False,
    ) -> None:
        self.closes = closes  # what follows on this connection cannot be trusted
        self.status = status
        self.kind = kind
        self.code = code
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        super().__init__(message)


class CallerGone(FastrouteError):
    """Nobody is listening any more; everything that ran is settled."""


class _Poor(Exception):  # a word between two methods of this file
    """An attempt ended without an answer; `failed` is what the caller reads if it was the last.

    `spare` gives what little there was: an empty answer is still better than none.
    """

    def __init__(self, failed: Failed, *, again: bool, spare: Callable[[], Awaitable[Any]] | None = None) -> None:
        self.failed = failed
        self.again = again
        self.spare = spare


class Writer(Protocol):
    """Where a stream goes; the edge knows how to say it."""

    async def begin(self, call: Call, entry: Entry) -> None:
        """The head, once."""

    async def send(self, data: bytes) -> None: ...

    async def end(self, data: bytes) -> None:
        """The last bytes; nothing follows."""

    def comment(self, call: Call) -> bytes:
        """What is told about the whole request just before its end."""


class Answer(msgspec.Struct):
    """A whole answer, ready for its caller."""

    body: bytes
    content_type: bytes = b"application/json"


class Relay:
    """One worker's relay; `note` is told of every attempt once it is settled."""

    def __init__(
        self,
        settings: RelaySettings,
        upstream_of: Callable[[Entry], Upstream],
        health: Health,
        latency: Latency,
        note: Callable[[Call, Attempt], None],
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self.deadlines = Deadlines(
            connect_ms=settings.connect_ms,
            first_chunk_ms=settings.first_chunk_ms,
            idle_ms=settings.idle_ms,
            total_ms=settings.total_ms,
        )
        self.whole = replace(self.deadlines, first_chunk_ms=settings.whole_ms)
        self.patient = replace(self.deadlines, first_chunk_ms=settings.total_ms)
        self.max_attempts = settings.max_attempts
        self.upstream_of = upstream_of
        self.health = health
        self.latency = latency
        self.note = note
        self.metrics = metrics
        self.clock = clock
        self.retries = RetryBudget()
        # Most answers are over before anybody need look whether their callers left.
        self.unwatched: Sweep[Call] = Sweep(WATCH_AFTER_S, Call.watch)

    def answer(self, call: Call) -> Coroutine[Any, Any, Answer]:
        """A whole answer; `Failed` when no attempt gave one, `CallerGone` when nobody waits for it."""
        return self._loop(call, _Try.whole)

    def stream(self, call: Call, writer: Writer) -> Coroutine[Any, Any, None]:
        """A streamed answer, sent as it comes; `Failed` only while nothing of an answer has been sent."""
        return self._loop(call, lambda attempt: attempt.streamed(writer))

    def deadlines_of(self, call: Call) -> Deadlines:
        """What is not streamed sends nothing before it is made, and a picture or a voice takes its whole time for that."""
        if call.surface.opaque:
            return self.patient
        return self.deadlines if call.stream else self.whole

    def encoder(self, call: Call) -> Encoder | None:
        """What words a stream for this caller; None is chat itself."""
        caller = call.surface.caller
        return None if caller is None else caller.stream(reply_for(call))

    async def _loop(self, call: Call, act: Callable[[_Try], Awaitable[T]]) -> T:
        """Try one entry after another until one answers; every way out of an attempt leaves it settled."""
        self.retries.first()
        failed: Failed | None = None
        spare: tuple[Entry, Callable[[], Awaitable[T]]] | None = None
        made = 0
        last = call.entries[-1]
        self.unwatched.add(call, call.loop)
        try:
            for entry in call.entries:
                if made == self.max_attempts:
                    break
                if made and self.retries.spent:
                    self.metrics.retry_budget_exhausted.inc()
                    break
                upstream = self.upstream_of(entry)
                # The last candidate is asked whatever its health: somebody has to be.
                if not self.health.admit(entry.lane) and entry is not last:
                    continue
                reservation = call.account.reserve(
                    settle.bound(entry.price, call.input_bound, call.output_cap, entry.max_output, call.choices)
                )
                if reservation is None:
                    self.health.forgo(entry.lane)
                    if made:
                        call.reason = "fallback_unfunded"
                        break
                    message = "the budget does not cover this request"
                    raise Failed(402, "insufficient_quota", "budget_exhausted", message)
                if made:
                    self.retries.take()
                made += 1
                call.entry = entry
                attempt = _Try(self, call, entry, upstream, reservation, call.quality and entry is not last)
                try:
                    return await act(attempt)
                except _Poor as poor:
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
            assert failed is not None
            raise failed
        finally:
            self.unwatched.drop(call)
            call.unwatch()


class _Try:
    """One attempt: from its reservation to its settlement."""

    __slots__ = ("call", "entry", "exchange", "poor_matters", "relay", "reservation", "settled", "started", "upstream")

    def __init__(
        self, relay: Relay, call: Call, entry: Entry, upstream: Upstream, reservation: Reservation, poor_matters: bool
    ) -> None:
        self.relay = relay
        self.call = call
        self.entry = entry
        self.upstream = upstream
        self.reservation = reservation
        self.poor_matters = poor_matters
        self.started = call.loop.time()
        self.exchange: Exchange | None = None
        self.settled = False

    # --- the two kinds of answers -----------------------------------------------------------------------------------

    async def whole(self) -> Answer:
        call, dialect = self.call, self.upstream.dialect
        exchange = self._begin()
        try:
            while not exchange.answer():
                await exchange.coming()
            if exchange.status != 200:
                raise await self._answered_no(exchange)
            self._named(exchange)
            if not (exchange.header(b"content-type") or b"").startswith(b"application/json"):
                self.stop()
                raise self._nonsense("answered with something that is not JSON")
            body = b""
            if not exchange.complete:
                body = await exchange.chunk()
                exchange.committed()  # somebody is working on it; what follows may take its time
            rest = await exchange.read()
        except UpstreamFault as fault:
            raise self._faulted(fault) from None
        body = body + rest if body else rest
        if call.surface.name == "chat" and dialect.speaks_chat and not self.poor_matters:
            # Nearly every answer: sound, told in full, and relayed as it came.
            plain = _scan.plain_answer(body)
            if plain is not None:
                prompt, output, cached, reasoning = plain
                self._succeed(Usage(prompt - cached, output, cached, 0, reasoning), len(body))
                return Answer(body)
        seen = outcomes.looked_into(body)
        if seen is None:
            raise self._nonsense("answered with broken JSON")
        if seen.error is not None and seen.usage is None:
            raise self._refused_inside(error_from(200, {"error": seen.error}))
        usage = dialect.usage({"usage": seen.usage, "usageMetadata": seen.usageMetadata})
        native = is_native(call, self.upstream) and not trips(call, body)
        if native and (not self.poor_matters or call.surface.operation == "responses"):
            self._succeed(usage, len(body))
            return Answer(body)
        try:
            chat = dialect.answer(parse(body), model=call.model, created=call.created, id=f"chatcmpl-{call.id}")
        except BrokenAnswer as error:
            raise self._nonsense(error.message) from None

        async def give() -> Answer:
            if native:
                return Answer(body)
            caller = call.surface.caller
            return Answer(orjson.dumps(chat if caller is None else caller.from_answer(chat, reply_for(call))))

        if self.poor_matters and outcomes.is_poor(chat, call.wants_json):
            raise self._low_quality(usage, len(body), give)
        self._succeed(usage, len(body))
        return await give()

    async def streamed(self, writer: Writer) -> None:
        call = self.call
        exchange = self._begin()
        try:
            while not exchange.answer():
                await exchange.coming()
            if exchange.status != 200:
                raise await self._answered_no(exchange)
        except UpstreamFault as broken:
            raise self._faulted(broken) from None
        self._named(exchange)
        content_type = exchange.header(b"content-type") or b""
        call.content_type = content_type
        if not call.surface.opaque and not content_type.startswith(b"text/event-stream"):
            raise await self._not_a_stream(exchange, content_type)
        pipe = OpaquePipe(content_type) if call.surface.opaque else self._pipe()
        content_max = outcomes.content_max(call.output_cap, call.choices)
        held = tail = b""
        committed = False
        fault: UpstreamFault | None = None
        while pipe.error is None and not pipe.ended:
            try:
                data = await exchange.chunk()
                if not data:
                    break
                out = pipe.feed(data)
            except UpstreamFault as error:
                fault = error
                break
            except _scan.ScanError as error:
                fault = UpstreamFault("limit", error.message, sent=True)
                self.relay.metrics.limit("sse_line")
                break
            if content_max is not None and pipe.content_bytes > content_max:
                fault = UpstreamFault("limit", "the answer is longer than the cap it was asked for with", sent=True)
                self.relay.metrics.limit("stream")
                break
            # What is there in full leaves with its end: a send is a trip between threads, 12 us.
            last = exchange.complete and _over(pipe)
            if committed:
                if last:
                    tail = out
                elif out:
                    await writer.send(out)
                continue
            held += out
            if pipe.content_seen and pipe.error is None:
                committed = True
                exchange.committed()
                call.first_chunk_at = call.loop.time()
                if last:
                    tail = held
                else:
                    await writer.begin(call, self.entry)
                    await writer.send(held)
                held = b""
            elif len(held) > HELD_MAX:
                fault = UpstreamFault("limit", "a megabyte came and no content in it", sent=True)
                self.relay.metrics.limit("stream")
                break
        if pipe.ended and not exchange.complete:
            await _farewell(exchange)
        await self._end(writer, pipe, fault, tail if committed else held, begun=committed)

    async def _end(self, writer: Writer, pipe: Pipe, fault: UpstreamFault | None, held: bytes, *, begun: bool) -> None:
        """How a stream ends: cleanly, or poorly before anything was told, or as a break that is told as one."""
        call, said = self.call, pipe.error
        if said is None and fault is None and pipe.complete:

            async def give() -> None:
                await writer.begin(call, self.entry)
                await writer.end(held + pipe.finish(writer.comment(call)))

            if self.poor_matters and not pipe.content_seen:
                raise self._low_quality(pipe.usage, 0, give)
            self._succeed(pipe.usage, pipe.content_bytes)
            await give()
            return
        self.stop()
        seen = self._seen_so_far(pipe) if pipe.content_seen else None
        if said is not None:
            poor = self._refused_inside(said, seen)
        else:
            poor = self._faulted(
                fault or UpstreamFault("cut", "the stream ended without its last word", sent=True), seen
            )
        if not call.gone:
            self.relay.metrics.stream_abort("up", "mid" if begun else "first")
        if not begun:
            raise poor
        if call.gone:
            raise CallerGone("the caller left")
        failed = poor.failed
        await writer.end(pipe.fail(failed.kind, failed.code or "upstream_error", failed.message))

    # --- opening ----------------------------------------------------------------------------------------------------

    def _begin(self) -> Exchange:
        """Send the request; what cannot be sent settles the attempt and is `_Poor`."""
        call = self.call
        try:
            operation, body = body_for(call, self.entry, self.upstream)
        except (DialectError, ShapeError) as error:
            self.close("http_4xx", None, settle.void(self.entry.price))
            failed = Failed(400, "invalid_request_error", "unsupported", error.message, param=error.param or None)
            raise _Poor(failed, again=False) from None
        try:
            exchange = self.upstream.begin(
                operation, self.entry.ref.model, call.stream, call.passed, body, self.relay.deadlines_of(call)
            )
        except UpstreamFault as fault:
            raise self._faulted(fault) from None
        # Known before it answers: a caller who leaves while the provider thinks must reach it.
        self.exchange = call.exchange = exchange
        if call.gone:
            exchange.stop()
        return exchange

    def _named(self, exchange: Exchange) -> None:
        self.call.known_as(exchange.header(b"x-request-id") or exchange.header(b"request-id"))

    async def _answered_no(self, exchange: Exchange) -> _Poor:
        self._named(exchange)
        exchange.committed()
        said = self.upstream.dialect.error(exchange.status, await refused_with(exchange))
        return self._refused(exchange.status, said, exchange)

    def _pipe(self) -> Pipe:
        call, dialect = self.call, self.upstream.dialect
        native = is_native(call, self.upstream)
        if native and dialect.name == "openai" and call.surface.operation == "completions":
            return ChatPipe(hide_usage=call.hide_usage, several=call.choices > 1)
        encoder = self.relay.encoder(call)
        if native and call.surface.operation == "responses":
            assert encoder is not None
            return NativePipe(ResponsesStream(), encoder)
        # Our encoders tell usage at the end whatever the caller asked; only chat lets a caller do without.
        translator = dialect.stream(
            model=call.model,
            created=call.created,
            id=f"chatcmpl-{call.id}",
            include_usage=encoder is not None or not call.hide_usage,
        )
        if native and encoder is None:
            return MendingPipe(translator, hide_usage=call.hide_usage, several=call.choices > 1)
        if native:
            assert encoder is not None
            return NativePipe(translator, encoder)
        return TranslatedPipe(translator, encoder)

    # --- endings: each settles, each says what the caller would read ------------------------------------------------

    def close(self, outcome: Outcome, status: int | None, settlement: Settlement) -> None:
        assert not self.settled
        self.settled = True
        call, entry, relay = self.call, self.entry, self.relay
        call.exchange = None
        call.account.settle(self.reservation, settlement)
        ms = int((call.loop.time() - self.started) * 1000)
        attempt = Attempt(entry.id, entry.lane, entry.ref.model, outcome, status, self.reservation, settlement, ms)
        call.attempts.append(attempt)
        # Of a lane that was never asked, or whose caller left, nothing was learned.
        learned = outcome != "gone" and (status is not None or outcome != "http_4xx")
        if not learned:
            relay.health.forgo(entry.lane)
        elif outcome in ("ok", "low_quality", "http_4xx"):
            relay.health.success(entry.lane, self.started * 1000)
        elif outcome != "rate_limit":
            relay.health.failure(entry.lane)
        if learned:
            relay.latency.note(entry.id, ms)
        relay.note(call, attempt)

    def stop(self) -> None:
        if self.exchange is not None:
            self.exchange.stop()

    def _succeed(self, usage: Usage | None, content_bytes: int, outcome: Outcome = "ok") -> None:
        if usage is not None:
            settlement = settle.exact(self.entry.price, usage)
        else:
            settlement = settle.bounded(self.entry.price, self.call.input_bound, content_bytes, self.reservation)
        self.close(outcome, 200, settlement)

    def _low_quality(self, usage: Usage | None, content_bytes: int, spare: Callable[[], Awaitable[Any]]) -> _Poor:
        self._succeed(usage, content_bytes, "low_quality")
        message = f"{self.upstream.display} answered with nothing"
        return _Poor(Failed(502, "server_error", "empty_answer", message), again=True, spare=spare)

    def _nonsense(self, what: str) -> _Poor:
        self.close("protocol", 200, settle.presumed(self.reservation))
        return _Poor(Failed(502, "server_error", "bad_upstream_answer", f"{self.upstream.display} {what}"), again=True)

    def _faulted(self, fault: UpstreamFault, seen: Settlement | None = None) -> _Poor:
        """The exchange broke; `seen` settles what of the answer had already come."""
        outcome, basis = outcomes.FAULTS[fault.kind]
        if fault.kind == "first_chunk":
            self.relay.metrics.first_chunk_timeout.inc()
        elif fault.kind == "limit" and seen is None and not self.call.stream:
            self.relay.metrics.limit("answer")
        if self.call.gone:
            outcome = "gone"
        settlement = seen or (
            settle.void(self.entry.price) if basis == "void" or not fault.sent else settle.presumed(self.reservation)
        )
        self.close(outcome, None, settlement)
        name = self.upstream.display
        if fault.kind == "stopped" and not self.call.gone:
            message = "this gateway is shutting down and could not wait for the end of the answer"
            return _Poor(Failed(503, "server_error", "shutting_down", message), again=False)
        if outcome == "stall":
            failed = Failed(
                504, "server_error", "upstream_timeout", f"{name} was silent past its {fault.kind} deadline"
            )
        elif outcome == "connect":
            failed = Failed(
                502, "server_error", "upstream_unreachable", f"{name} error: it could not be reached ({fault.kind})"
            )
        else:
            failed = Failed(
                502, "server_error", "upstream_broken", f"{name} error: its answer broke off ({fault.kind})"
            )
        return _Poor(failed, again=True)

    def _refused_inside(self, said: ProviderError, seen: Settlement | None = None) -> _Poor:
        """An error in a 200: judged by what it says it is."""
        self.relay.metrics.upstream_error_in_200.inc()
        return self._refused(200, said, None, seen)

    def _refused(
        self, status: int, said: ProviderError, exchange: Exchange | None, seen: Settlement | None = None
    ) -> _Poor:
        """The upstream said no: to the request, which its caller should read, or for reasons of its own."""
        name = self.upstream.display
        settlement = seen or settle.void(self.entry.price)
        status = outcomes.true_status(status, said.type)
        if status in outcomes.CALLERS_FAULT:
            self.close("http_4xx", status, settlement)
            # Another provider may know the model that this one does not.
            message = self.upstream.without_key(said.message)
            return _Poor(Failed(status, said.type, said.code, message), again=status == 404)
        # What follows is between the provider and us: its own words may name our account, so they go no further.
        if status == 429:
            self.close("rate_limit", status, settlement)
            rest_s = None
            if exchange is not None:
                told, date = exchange.header(b"retry-after"), exchange.header(b"date")
                rest_s = outcomes.retry_after(told, date, self.relay.clock.now())
            self.relay.health.rest(self.entry.lane, (outcomes.REST_S if rest_s is None else rest_s) * 1000)
            message = f"{name} takes no more requests from this gateway for now"
            failed = Failed(429, "rate_limit_error", said.code, message, retry_after_s=rest_s)
            return _Poor(failed, again=True)
        if status in (401, 402, 403, 407):
            self.close("auth", status, settlement)
            if status != 403:  # which may be about one model only
                self.relay.health.rest(self.entry.lane, outcomes.EJECT_S * 1000)
            message = f"{name} error: it refused this gateway's own key ({status})"
            return _Poor(Failed(502, "server_error", "upstream_key_rejected", message), again=True)
        if status >= 500:
            self.close("5xx", status, settlement)
            message = f"{name} error: it answered {status}"
            return _Poor(Failed(502, "server_error", "upstream_error", message), again=True)
        self.close("protocol", status, settlement)
        message = f"{name} error: it answered with the status {status}"
        return _Poor(Failed(502, "server_error", "bad_upstream_answer", message), again=True)

    async def _not_a_stream(self, exchange: Exchange, content_type: bytes) -> _Poor:
        """A 200 that is no stream: an error object, or something that is not ours to relay."""
        if content_type.startswith(b"application/json"):
            try:
                body = await exchange.read(262_144)
                error = outcomes.SEEN.decode(body).error
            except UpstreamFault as fault:
                return self._faulted(fault)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                error = None
            if error is not None:
                return self._refused_inside(error_from(200, {"error": error}))
        self.stop()
        return self._nonsense("answered a stream with something else")

    def _seen_so_far(self, pipe: Pipe) -> Settlement:
        """A stream that broke after its first content: what it said it used, else the most it can have been.

        A count told before the end is of what had been said by then, and the provider may have said more since.
        """
        if pipe.complete and pipe.usage is not None:
            return settle.exact(self.entry.price, pipe.usage)
        said = pipe.content_bytes + settle.UNSEEN
        return settle.bounded(self.entry.price, self.call.input_bound, said, self.reservation)


def reply_for(call: Call) -> Reply:
    """What a caller's dialect makes its answer with."""
    return Reply(call.id.removeprefix("req_"), call.created, call.model, orjson.loads(call.body), call.input_bound // 4)


def _over(pipe: Pipe) -> bool:
    return pipe.ended and pipe.complete and pipe.error is None


async def _farewell(exchange: Exchange) -> None:
    """Wait a moment for the end of a message whose last word was said; whatever else comes is nobody's."""
    try:
        async with asyncio.timeout(LINGER_S):
            while await exchange.chunk():
                pass
    except (TimeoutError, UpstreamFault):
        exchange.stop()
