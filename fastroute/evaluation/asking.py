"""A gateway in this process that prompts are put to: the same decisions, attempts and books as behind a server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import orjson
from msgspec import Struct

from fastroute import settle
from fastroute.assembly import Upstreams, agents_of, beats_path, fleet_of
from fastroute.beats import Beats
from fastroute.call import Call, CallerGone, Failed
from fastroute.clock import Clock, SystemClock
from fastroute.errand import nobodys
from fastroute.errors import FastrouteError
from fastroute.evaluation.answers import Answer
from fastroute.evaluation.prompts import Prompt
from fastroute.evaluation.targets import Trial
from fastroute.gateway import SURFACES, Gateway
from fastroute.ledger.teller import Teller
from fastroute.metrics import Metrics
from fastroute.ruling import latency_window
from fastroute.upstreams.pool import Pool
from fastroute.visiting import interrupts, visit

# The longest answer that is asked for, so that what a run can cost is known before it begins.
OUTPUT_CAP: Final = 1024


class Stopped(FastrouteError):
    """The user left; what ran is settled and recorded."""


class Bound(Struct, frozen=True):
    """The most a run can cost, over every attempt that may be made; and the names of models nobody knows a price of."""

    microdollars: int
    unpriced: tuple[str, ...] = ()


def body_of(name: str, prompt: Prompt) -> dict[str, Any]:
    """What is asked, by whatever way."""
    return {"model": name, "messages": prompt.messages, "max_tokens": OUTPUT_CAP}


@asynccontextmanager
async def asking(trial: Trial, clock: Clock | None = None) -> AsyncIterator[InProcess]:
    """A gateway over the trial's directory, whose requests are in the books of the state directory, under no account."""
    clock = clock or SystemClock()
    pool = Pool()
    upstreams = Upstreams(trial.config, pool, agents_of(trial.directory))
    gateway = Gateway(trial.config, trial.directory, upstreams.of, Metrics.in_memory(), None, clock)
    gateway.fleet = fleet_of(trial.config, trial.directory, upstreams, Beats.open(beats_path(trial.config)))
    gateway.latency.keep(latency_window(trial.directory))
    async with visit(trial.config, clock) as teller:
        asker = InProcess(gateway, teller)
        try:
            with interrupts(asker.leave):
                yield asker
        finally:
            await pool.aclose()


class InProcess:
    """An `Asker`."""

    def __init__(self, gateway: Gateway, teller: Teller) -> None:
        self._gateway = gateway
        self._teller = teller
        self._open: set[Call] = set()
        self._left = False

    def bound(self, names: Sequence[str], prompts: Sequence[Prompt]) -> Bound:
        """The most it can cost to ask all of these; what would be refused costs nothing."""
        total = 0
        unpriced: dict[str, None] = {}
        for prompt in prompts:
            for name in names:
                call = self._call()
                try:
                    self._gateway.read(call, orjson.dumps(body_of(name, prompt)))
                    self._gateway.plan(call)
                except Failed:
                    continue
                attempts = self._gateway.relay.max_attempts if call.rules is None else call.rules.max_attempts
                for entry in call.entries[:attempts]:
                    most = settle.bound(entry.price, call.input_bound, call.output_cap, entry.max_output, call.choices)
                    if most is None:
                        unpriced[entry.id] = None
                    else:
                        total += most
        return Bound(total, () if self._gateway.config.pricing.allow_unpriced else tuple(unpriced))

    async def ask(self, name: str, prompt: Prompt) -> Answer:
        """Whatever came of it; `Stopped` once the user has left."""
        if self._left:
            raise Stopped("interrupted")
        gateway, call = self._gateway, self._call()
        self._open.add(call)
        text = error = None
        try:
            gateway.read(call, orjson.dumps(body_of(name, prompt)))
            gateway.plan(call)
            text = said_in(orjson.loads(await gateway.relay.answer(call)))
            call.status = 200
        except Failed as failed:
            call.status = failed.status
            error = failed.message
        except CallerGone:
            call.status = 499
            raise Stopped("interrupted") from None
        finally:
            self._open.discard(call)
            gateway.finished(call)
        usages = [attempt.settlement.usage for attempt in call.attempts]
        first = call.entries[0] if call.entries else None
        fell = call.entry is not None and call.entry is not first
        return Answer(
            asked=name,
            digest=prompt.digest,
            status=call.status,
            model=None if call.entry is None else call.entry.id,
            reason="fallback" if fell else call.reason or None,
            fallback=fell,
            tokens_in=sum(usage.input_total for usage in usages),
            tokens_out=sum(usage.output for usage in usages),
            latency_ms=int((call.loop.time() - call.started) * 1000),
            picodollars=call.cost_picodollars if call.attempts else 0,
            text=text,
            error=error,
        )

    def leave(self) -> None:
        """Ask nothing more, and end what is under way."""
        self._left = True
        for call in self._open:
            call.leave()

    def _call(self) -> Call:
        call = nobodys(SURFACES["chat"], self._gateway.ids.request())
        call.account = self._teller.anonymous
        return call


def said_in(body: Any) -> str:
    """The text of a chat's answer; empty when it says nothing, or only calls a tool."""
    choices = body.get("choices") if isinstance(body, dict) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    content = message.get("content") if isinstance(message, dict) else None
    return content if isinstance(content, str) else ""
