"""An errand: a request of this house's own, run beside those of callers on their account, with a receipt of its own.

Shadows, judges and replays are errands. They have a relay of their own, so that nothing they meet is learned of the lanes
that callers are sent to, and are counted as none of theirs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from fastroute.call import Call, CallerGone, Failed, Surface
from fastroute.domain import Attempt, Entry
from fastroute.errors import CatalogError
from fastroute.gateway import Gateway
from fastroute.hearing import Heard
from fastroute.lanes import Health, Latency
from fastroute.ledger.accounts import Account
from fastroute.ledger.unlimited import Unlimited
from fastroute.metrics import Metrics
from fastroute.receipts.seal import receipt_id
from fastroute.relay import Relay
from fastroute.routing.rankers import Ordered, Pinned
from fastroute.ruling import Rules

# The reasons of errands, as their receipts tell them.
ASIDE: Final = frozenset({"shadow", "judge", "replay"})


class Errand(Struct, frozen=True):
    """What is asked of whom: a body in a surface's dialect, of one entry, under a policy's rules where there are some."""

    surface: Surface
    body: bytes
    entry: Entry
    account: Account | Unlimited
    reason: str
    asked: str  # the name that its receipt shows as asked for
    limit_s: float
    stream: bool = False
    wants_json: bool = False
    rules: Rules | None = None
    details: dict[str, Any] = {}
    passed: Mapping[str, str] = {}  # headers that a dialect may pass to its provider


class Ran(Struct, frozen=True):
    """What came of it; `failed` is why nothing did, and then there may be an attempt all the same."""

    receipt: str
    entry: str
    status: int
    latency_ms: int
    first_chunk_ms: int | None
    picodollars: int | None
    tokens_in: int
    tokens_out: int
    outcome: str
    heard: Heard | None
    body: bytes | None
    failed: Failed | None

    @property
    def answered(self) -> bool:
        return self.failed is None and self.outcome == "ok"


class Errands:
    """Runs them for one gateway; `running` are those under way."""

    def __init__(self, gateway: Gateway) -> None:
        clock = gateway.relay.clock
        health, latency = (
            Health(clock, gateway.config.health.threshold, gateway.config.health.probe_after_ms),
            Latency(clock),
        )
        self._gateway = gateway
        self._over = False
        self.running: set[Call] = set()
        self._relay = Relay(
            gateway.config.relay, gateway.relay.upstream_of, health, latency, _unnoted, Metrics.in_memory(), clock
        )

    def leave(self) -> None:
        """End all that run: what they began is settled, nobody waits for them, and no other begins."""
        self._over = True
        for call in tuple(self.running):
            call.leave()

    async def run(self, errand: Errand) -> Ran:
        """Run one to its end, which comes after `limit_s` at the latest. It never raises but when it is cancelled."""
        gateway = self._gateway
        call = nobodys(errand.surface, gateway.ids.request())
        call.account, call.model, call.stream = errand.account, errand.asked, errand.stream
        call.passed = errand.passed
        self.running.add(call)
        timer = call.loop.call_later(errand.limit_s, call.leave)
        body: bytes | None = None
        failed: Failed | None = None
        try:
            if self._over:
                raise CallerGone("nothing begins any more")
            gateway.read(call, errand.body)
            call.decision_id, call.reason = gateway.ids.decision(), errand.reason
            call.entries, call.wants_json = [errand.entry], errand.wants_json
            if errand.rules is not None:
                errand.rules.rule(call)
                if call.rules is not None:
                    call.rules.shadow, call.rules.listens = None, True
            call.details = {**(call.details or {}), **errand.details}
            if call.stream:
                await self._relay.stream(call, _Unread())
            else:
                body = await self._relay.answer(call)
                call.status = 200
        except Failed as refusal:
            failed, call.status = refusal, refusal.status
        except CallerGone:
            failed = Failed(504, "server_error", "left", "it did not end in time")
            call.status = 499
        finally:
            timer.cancel()
            self.running.discard(call)
            self._finish(call)
        heard = None
        if call.rules is not None and failed is None:
            # Not here: what a megabyte of events said takes long enough to be felt by everybody's streams.
            heard = await asyncio.to_thread(call.rules.heard)
        return _ran(call, body, failed, heard)

    def _finish(self, call: Call) -> None:
        """Its receipt, and its tokens among those that were billed; what was never tried leaves no trace."""
        for attempt in call.attempts:
            usage = attempt.settlement.usage
            self._gateway.metrics.billed(attempt.model, usage.input_total, usage.output)
        if not call.account.booked or not call.attempts:
            return
        assert call.entry is not None
        call.account.finish(
            call.id,
            call.decision_id,
            call.surface.name,
            call.model,
            call.entry.id,
            call.reason,
            call.status,
            bool(call.stream),
            _since_ms(call, call.loop.time()),
            None if call.first_chunk_at is None else _since_ms(call, call.first_chunk_at),
            call.details,
        )


def nobodys(surface: Surface, request: str) -> Call:
    """A call that came over no connection: nobody is there who could leave, and nobody is told but by who made it."""
    loop = asyncio.get_running_loop()
    call = Call(surface, _silence, _nowhere, request, loop.time(), loop)
    call.created = int(time.time())
    return call


def entry_of(gateway: Gateway, name: str) -> Entry:
    """The entry that a name stands for, of several the first that can be asked; `UnknownModel` and `CatalogError`."""
    target = gateway.directory.resolve(name)
    ranker = target.route.ranker
    if not isinstance(ranker, Pinned | Ordered) or target.rules is not None:
        raise CatalogError(f"{name!r} chooses for itself; name a model or an alias")
    ids = (ranker.entry_id,) if isinstance(ranker, Pinned) else ranker.order
    entries = [target.catalog[each] for each in ids]
    if gateway.fleet is not None and gateway.fleet.offers:
        # What stands in the catalog for agents has no address; they have, and are asked by their queues.
        entries = gateway.fleet.spread(entries)
        if not entries:
            raise CatalogError(f"{name!r} cannot be asked: no agent that offers it was heard of lately")
    found = next((entry for entry in entries if gateway.configured(entry)), None)
    if found is None:
        raise CatalogError(f"{name!r} cannot be asked: provider {entries[0].ref.provider!r} is not configured")
    return found


def _ran(call: Call, body: bytes | None, failed: Failed | None, heard: Heard | None) -> Ran:
    final = call.final
    first = call.first_chunk_at
    return Ran(
        receipt=receipt_id(call.id),
        entry=call.entries[0].id if call.entries else "",
        status=call.status,
        latency_ms=_since_ms(call, call.loop.time()),
        first_chunk_ms=None if first is None else _since_ms(call, first),
        picodollars=call.cost_picodollars if call.attempts else 0,
        tokens_in=sum(each.settlement.usage.input_total for each in call.attempts),
        tokens_out=sum(each.settlement.usage.output for each in call.attempts),
        outcome="unsent" if final is None else final.outcome,
        heard=heard,
        body=body,
        failed=failed,
    )


def _since_ms(call: Call, instant: float) -> int:
    return int((instant - call.started) * 1000)


class _Unread:
    """A stream that nobody reads."""

    async def begin(self, call: Call, entry: Entry) -> None:
        call.status = 200

    async def send(self, data: bytes) -> None:
        """The tap has heard it."""

    async def end(self, data: bytes) -> None:
        """Nothing is left to say."""

    def comment(self, call: Call) -> bytes:
        return b""


def _unnoted(call: Call, attempt: Attempt) -> None:
    """Attempts of errands are none of the callers'."""


async def _silence() -> Any:
    """Nobody is there who could leave."""
    await asyncio.get_running_loop().create_future()


async def _nowhere(message: Any) -> None:
    """Nobody is told."""
