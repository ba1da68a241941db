"""The attempt loop: one placement after another until an answer is committed to, then its bytes until they end.

Every attempt reserves before it sends and settles once, whatever became of it. Before the first content byte the next
placement may be tried; after it a broken stream is told as broken. Two providers never speak in one answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import msgspec
import orjson
from msgspec.structs import replace

from fastroute import outcomes, paying, settle
from fastroute._relay import Core, Try
from fastroute._sweep import Sweep
from fastroute.bodies import answer_of, is_native
from fastroute.call import Call, CallerGone, Failed, Poor
from fastroute.callers import Encoder, Reply
from fastroute.clock import Clock
from fastroute.config import Relay as RelaySettings
from fastroute.domain import Attempt, Entry, Reservation, Settlement, Usage
from fastroute.lanes import Health, Latency
from fastroute.ledger.accounts import Shortage
from fastroute.mending import MendingPipe, trips
from fastroute.metrics import Metrics
from fastroute.opaque import OpaquePipe
from fastroute.outcomes import RetryBudget
from fastroute.pipes import ChatPipe, NativePipe, Pipe, TranslatedPipe
from fastroute.upstreams.dialect import BrokenAnswer, ChatStream, ProviderError, error_from
from fastroute.upstreams.faults import UpstreamFault
from fastroute.upstreams.pool import Deadlines
from fastroute.upstreams.responses import ResponsesStream
from fastroute.upstreams.upstream import Exchange, Upstream, refused_with

__all__ = ["CallerGone", "Failed", "Relay", "Writer"]

WATCH_AFTER_S: Final = 0.05
# After its last word a provider has this long to end the message too, so that the connection can be kept.
LINGER_S: Final = 0.25


class Writer(Protocol):
    """Where a stream goes; the edge knows how to say it."""

    async def begin(self, call: Call, entry: Entry) -> None:
        """The head, once."""

    async def send(self, data: bytes) -> None: ...

    async def end(self, data: bytes) -> None:
        """The last bytes; nothing follows."""

    def comment(self, call: Call) -> bytes:
        """What is told about the whole request just before its end."""


class Relay(Core):
    """One worker's relay; `note` is told of every attempt once it is settled."""

    def __init__(
        self,
        settings: RelaySettings,
        upstream_of: Callable[[Entry], Upstream],
        health: Health,
        latency: Latency,
        note: Callable[[Call, Attempt], object],
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
        self.kind = _Attempt
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
        self.leaving: Sweep[Exchange] = Sweep(LINGER_S, _leave)

    def cover(self, call: Call) -> None:
        """What a budget has to know of a request before anything of it is reserved; `Failed` for what it cannot pay."""
        paying.cover(call)

    async def fund(self, call: Call, entry: Entry, microdollars: int | None, tokens: int) -> Reservation | None:
        """What the account's leases could not give; None when nobody can, and the call says why."""
        got = await paying.fund(call, entry, microdollars, tokens)
        if not isinstance(got, Shortage):
            return got
        self.metrics.refusal(paying.counted(got, call.account))
        call.short = paying.refused(call.account, got)
        return None


class _Attempt(Try):
    """One attempt where it is not the usual one: streams, answers that want a closer look, and every failure."""

    __slots__ = ()

    async def looked_into(self, body: bytes) -> bytes:
        """A whole answer that may not pass as it is, or not without more being known of it."""
        call, dialect = self.call, self.upstream.dialect
        seen = outcomes.looked_into(body)
        if seen is None:
            raise self.nonsense("answered with broken JSON")
        if seen.error is not None and seen.usage is None:
            raise self._refused_inside(error_from(200, {"error": seen.error}))
        usage = dialect.usage({"usage": seen.usage, "usageMetadata": seen.usageMetadata})
        native = is_native(call, self.upstream) and not trips(call, body)
        if native and (not self.poor_matters or call.surface.operation == "responses"):
            self.succeed(usage, len(body))
            return body
        try:
            chat = answer_of(call, dialect, body, usage)
        except BrokenAnswer as error:
            raise self.nonsense(error.message) from None

        async def give() -> bytes:
            if native:
                return body
            caller = call.surface.caller
            if caller is None or not call.surface.talks:
                return orjson.dumps(chat)
            return orjson.dumps(caller.from_answer(chat, reply_for(call)))

        if self.poor_matters and outcomes.is_poor(chat, call.wants_json):
            raise self._low_quality(usage, len(body), give)
        self.succeed(usage, len(body))
        return await give()

    async def ended(self, writer: Writer, pipe: Pipe, fault: UpstreamFault | None, held: bytes, *, begun: bool) -> None:
        """How a stream ends that does not end well: poorly before anything was told, or as a break that is told as one."""
        call, said = self.call, pipe.error
        if said is None and fault is None and pipe.complete:

            async def give() -> None:
                await writer.begin(call, self.entry)
                await writer.end(held + pipe.finish(writer.comment(call)))

            raise self._low_quality(pipe.usage, 0, give)
        self.stop()
        seen = self._seen_so_far(pipe) if pipe.content_seen else None
        if said is not None:
            poor = self._refused_inside(said, seen)
        else:
            poor = self.faulted(
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

    async def answered_no(self, exchange: Exchange) -> Poor:
        self.named(exchange)
        exchange.committed()
        said = self.upstream.dialect.error(exchange.status, await refused_with(exchange))
        return self._refused(exchange.status, said, exchange)

    def pipe(self, content_type: bytes) -> Pipe:
        call, dialect = self.call, self.upstream.dialect
        if call.surface.opaque:
            return OpaquePipe(content_type)
        native = is_native(call, self.upstream)
        if native and dialect.name == "openai" and call.surface.operation == "completions":
            return ChatPipe(hide_usage=call.hide_usage, several=call.choices > 1)
        encoder = encoder_for(call)
        if native and call.surface.operation == "responses":
            assert encoder is not None
            return NativePipe(ResponsesStream(), encoder)
        if native and encoder is None:
            return MendingPipe(self._translator, hide_usage=call.hide_usage, several=call.choices > 1)
        if native:
            assert encoder is not None
            return NativePipe(self._translator(), encoder)
        return TranslatedPipe(self._translator(), encoder)

    def _translator(self) -> ChatStream:
        call = self.call
        return self.upstream.dialect.stream(
            model=call.model,
            created=call.created,
            id=f"chatcmpl-{call.id}",
            # Our encoders tell usage at the end whatever the caller asked; only chat lets a caller do without.
            include_usage=call.surface.caller is not None or not call.hide_usage,
        )

    # --- endings: each settles, each says what the caller would read ------------------------------------------------

    def unwritten(self, shortage: Shortage) -> Poor:
        """Its journal has no room for an attempt that a budget pays for, so nothing is sent."""
        self.close("http_4xx", None, settle.void(self.entry.price))
        self.relay.metrics.refusal(paying.counted(shortage, self.call.account))
        return Poor(paying.refused(self.call.account, shortage), again=False)

    def _low_quality(self, usage: Usage | None, content_bytes: int, spare: Callable[[], Awaitable[Any]]) -> Poor:
        self.succeed(usage, content_bytes, "low_quality")
        message = f"{self.upstream.display} answered with nothing"
        return Poor(Failed(502, "server_error", "empty_answer", message), again=True, spare=spare)

    def nonsense(self, what: str) -> Poor:
        self.close("protocol", 200, settle.presumed(self.reservation))
        return Poor(Failed(502, "server_error", "bad_upstream_answer", f"{self.upstream.display} {what}"), again=True)

    def faulted(self, fault: UpstreamFault, seen: Settlement | None = None) -> Poor:
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
            if self.call.ended is not None:
                return Poor(Failed(401, "authentication_error", "invalid_api_key", self.call.ended), again=False)
            message = "this gateway is shutting down and could not wait for the end of the answer"
            return Poor(Failed(503, "server_error", "shutting_down", message), again=False)
        if fault.kind in ("loading", "unloadable"):
            code = "model_loading" if fault.kind == "loading" else "model_unavailable"
            failed = Failed(503, "server_error", code, fault.message, retry_after_s=outcomes.LOADING_S)
        elif outcome == "stall":
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
        return Poor(failed, again=True, fault=fault.kind)

    def _refused_inside(self, said: ProviderError, seen: Settlement | None = None) -> Poor:
        """An error in a 200: judged by what it says it is."""
        self.relay.metrics.upstream_error_in_200.inc()
        return self._refused(200, said, None, seen)

    def _refused(
        self, status: int, said: ProviderError, exchange: Exchange | None, seen: Settlement | None = None
    ) -> Poor:
        """The upstream said no: to the request, which its caller should read, or for reasons of its own."""
        name = self.upstream.display
        settlement = seen or settle.void(self.entry.price)
        unable = said.code == "unsupported"
        status = 400 if unable and status in (500, 501) else outcomes.true_status(status, said.type)
        if status in outcomes.CALLERS_FAULT:
            self.close("http_4xx", status, settlement)
            # Another provider may know the model that this one does not, and do what this one cannot.
            message = self.upstream.without_key(said.message)
            return Poor(Failed(status, said.type, said.code, message), again=unable or status == 404)
        # What follows is between the provider and us: its own words may name our account, so they go no further.
        if status == 429:
            self.close("rate_limit", status, settlement)
            rest_s = None
            if exchange is not None:
                told, date = exchange.header(b"retry-after"), exchange.header(b"date")
                rest_s = outcomes.retry_after(told, date, self.relay.clock.now())
            if rest_s is None:
                rest_s = said.retry_after_s
            self.relay.health.rest(self.entry.lane, (outcomes.REST_S if rest_s is None else rest_s) * 1000)
            message = f"{name} takes no more requests from this gateway for now"
            failed = Failed(429, "rate_limit_error", said.code, message, retry_after_s=rest_s)
            return Poor(failed, again=True)
        if status in (401, 402, 403, 407):
            self.close("auth", status, settlement)
            if status != 403:  # which may be about one model only
                self.relay.health.rest(self.entry.lane, outcomes.EJECT_S * 1000)
            message = f"{name} error: it refused this gateway's own key ({status})"
            return Poor(Failed(502, "server_error", "upstream_key_rejected", message), again=True)
        if status >= 500:
            self.close("5xx", status, settlement)
            message = f"{name} error: it answered {status}"
            return Poor(Failed(502, "server_error", "upstream_error", message), again=True)
        self.close("protocol", status, settlement)
        message = f"{name} error: it answered with the status {status}"
        return Poor(Failed(502, "server_error", "bad_upstream_answer", message), again=True)

    async def not_a_stream(self, exchange: Exchange, content_type: bytes) -> Poor:
        """A 200 that is no stream: an error object, or something that is not ours to relay."""
        if content_type.startswith(b"application/json"):
            try:
                body = await exchange.read(262_144)
                error = outcomes.SEEN.decode(body).error
            except UpstreamFault as fault:
                return self.faulted(fault)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                error = None
            if error is not None:
                return self._refused_inside(error_from(200, {"error": error}))
        self.stop()
        return self.nonsense("answered a stream with something else")

    def _seen_so_far(self, pipe: Pipe) -> Settlement:
        """A stream that broke after its first content: what it said it used, else the most it can have been.

        A count told before the end is of what had been said by then, and the provider may have said more since.
        """
        settlement = self.told(pipe.usage) if pipe.complete and pipe.usage is not None else None
        if settlement is not None:
            return settlement
        if self.call.account.limited:
            # What was thought before it, or is billed to the end although nobody listens, is not seen: all that was held.
            return settle.presumed(self.reservation)
        said = pipe.content_bytes + settle.UNSEEN
        return settle.bounded(self.entry.price, self.call.input_bound, said, self.reservation)


def encoder_for(call: Call) -> Encoder | None:
    """What words a stream for this caller; None is chat itself."""
    caller = call.surface.caller
    return None if caller is None else caller.stream(reply_for(call))


def reply_for(call: Call) -> Reply:
    """What a caller's dialect makes its answer with."""
    return Reply(call.id.removeprefix("req_"), call.created, call.model, orjson.loads(call.body), call.input_bound // 4)


def _leave(exchange: Exchange) -> None:
    exchange.stop()
