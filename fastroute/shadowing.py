"""Shadows: a sampled request is asked again of another model once its own answer is over, and the two are compared.

Its user never waits for one and never hears of one. A shadow has its own reservation on the same account, its own receipt
that names the request it is of, an end in time, and no say in what is known of lanes.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import msgspec
import orjson
from msgspec import Struct

from fastroute.call import Call, Failed
from fastroute.errand import Errand, Errands, Ran, entry_of
from fastroute.errors import CatalogError, UnknownModel
from fastroute.gateway import Gateway, admits
from fastroute.hearing import Heard, prompt_text
from fastroute.judging import Judge, decimals, structure
from fastroute.ledger.teller import BooksUnreachable, Declined, Teller
from fastroute.policies import STRUCTURE
from fastroute.receipts.seal import receipt_id
from fastroute.ruling import Ruling
from fastroute.standalone import stands_alone

# At once in one worker; a request beyond them has no shadow.
UNDERWAY_MAX: Final = 8
SHADOW_S: Final = 60.0
# Outcomes of which we tell, and no provider did.
_OWN_WORDS: Final = frozenset({"gone", "stall", "connect", "cut", "protocol"})

log = logging.getLogger("fastroute.shadow")


class Side(Struct, frozen=True):
    """One of two answers to the same request; `score` has three decimals, and is there where a judge is."""

    receipt: str
    entry: str
    outcome: str
    latency_ms: int
    first_chunk_ms: int | None
    cost_picodollars: int | None
    tokens_in: int
    tokens_out: int
    length: int | None  # characters of text
    finish: str | None
    score: str | None = None


class Comparison(Struct, frozen=True):
    """What a user's request got, and what its shadow did; `why` is why there is less to compare than there might be."""

    request: str
    policy: str
    user: Side
    shadow: Side
    judge: str | None = None
    why: str = ""


class Shadows:
    """One worker's."""

    def __init__(self, teller: Teller) -> None:
        self._teller = teller
        self._underway: set[asyncio.Task[Comparison | None]] = set()
        self._errands: tuple[Gateway, Errands] | None = None
        self._before: list[Errands] = []  # of gateways that serve no more, with shadows under way
        self._told: set[str] = set()  # policies whose trouble was said
        self._closed = False
        self.last: asyncio.Task[Comparison | None] | None = None

    def take(self, gateway: Gateway, call: Call, ruling: Ruling) -> None:
        """Ask again what a call asked; nothing of it is waited for."""
        if self._closed or len(self._underway) >= UNDERWAY_MAX:
            gateway.metrics.shadows("skipped")
            return
        latency_ms = int((call.loop.time() - call.started) * 1000)
        task = self.last = call.loop.create_task(self._shadow(gateway, call, ruling, latency_ms))
        self._underway.add(task)
        task.add_done_callback(self._underway.discard)

    def leave(self) -> None:
        """End them: what they began is settled, and no other begins."""
        self._closed = True
        for errands in (*self._before, *(() if self._errands is None else self._errands[1:])):
            errands.leave()

    async def settle(self, patience_s: float) -> None:
        """Wait for those that end, no longer than that."""
        if self._underway:
            _, late = await asyncio.wait(tuple(self._underway), timeout=patience_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _errands_of(self, gateway: Gateway) -> Errands:
        if self._errands is None or self._errands[0] is not gateway:
            if self._errands is not None:
                self._before = [each for each in (*self._before, self._errands[1]) if each.running]
            self._errands = gateway, Errands(gateway)
        return self._errands[1]

    async def _shadow(self, gateway: Gateway, call: Call, ruling: Ruling, latency_ms: int) -> Comparison | None:
        assert ruling.shadow is not None
        allowed = call.account.models
        if not _repeatable(call, ruling):
            gateway.metrics.shadows("skipped")
            return None
        errands = self._errands_of(gateway)
        judge: Judge | None = None
        try:
            entry = entry_of(gateway, ruling.shadow)
            if ruling.policy.judge not in (None, STRUCTURE):
                judge = Judge(errands, entry_of(gateway, ruling.policy.judge))
        except (UnknownModel, CatalogError) as error:  # the policy was checked, but a registry may lose a model
            if ruling.policy.name not in self._told:
                self._told.add(ruling.policy.name)
                log.warning("policy %s has no shadow: %s", ruling.policy.name, error)
            gateway.metrics.shadows("skipped")
            return None
        if allowed is not None and call.model not in allowed and not admits(allowed, entry):
            gateway.metrics.shadows("skipped")
            return None
        ran = await errands.run(
            Errand(
                surface=call.surface,
                body=ruling.asked,
                entry=entry,
                account=call.account,
                reason="shadow",
                asked=ruling.shadow,
                limit_s=SHADOW_S,
                stream=bool(call.stream),
                wants_json=bool(call.wants_json),
                rules=ruling.rules,
                details={"shadow_of": call.id},
                passed=call.passed,
            )
        )
        gateway.metrics.shadows(_outcome(ran))
        told = await _compared(call, ruling, judge, ran, latency_ms)
        try:
            await self._teller.ask(
                "contents.compare",
                account=call.account.id,
                receipt=told.user.receipt,
                told=msgspec.to_builtins(told),
            )
        except (BooksUnreachable, Declined) as error:
            log.warning("the comparison of request %s with its shadow is not kept: %s", call.id, error)
        return told


def _repeatable(call: Call, ruling: Ruling) -> bool:
    """Whether a request may be asked twice: its user would find both in a conversation that the provider keeps."""
    try:
        body = orjson.loads(ruling.asked)
    except orjson.JSONDecodeError:  # a number or a letter that nothing holds: some provider took it, another may not
        return False
    return isinstance(body, dict) and stands_alone(call.surface.name, body)


async def _compared(call: Call, ruling: Ruling, judge: Judge | None, ran: Ran, latency_ms: int) -> Comparison:
    heard, asked = await asyncio.to_thread(ruling.heard), ruling.policy.judge
    mine: int | None = None
    other: int | None = None
    why = "" if ran.failed is None else _why(ran.outcome, ran.failed)
    if asked is not None and ran.answered and ran.heard is not None and heard is not None:
        if judge is None:
            wants_json = bool(call.wants_json)
            mine = structure(heard, wants_json=wants_json)
            other = structure(ran.heard, wants_json=wants_json, reference=heard)
        else:
            question, of = prompt_text(ruling.asked), {"judge_of": call.id}
            first = await judge.score(call.account, question, heard, of)
            second = await judge.score(call.account, question, ran.heard, of)
            mine, other, why = first.thousandths, second.thousandths, first.why or second.why
    return Comparison(
        call.id, ruling.policy.name, _users(call, heard, latency_ms, mine), _shadows(ran, other), asked, why
    )


def _why(outcome: str, failed: Failed) -> str:
    """Our own words, else a code: a comparison stands in the books in clear, and a provider may repeat what it was asked."""
    return failed.message if outcome in _OWN_WORDS else failed.code or failed.kind


def _outcome(ran: Ran) -> str:
    """The word of the metric: answered, failed, unfunded when its account would not pay, left when time was up."""
    if ran.answered:
        return "answered"
    if ran.outcome == "unsent":
        return "unfunded" if ran.status in (401, 402, 429, 503) else "failed"
    return "left" if ran.outcome == "gone" else "failed"


def _users(call: Call, heard: Heard | None, latency_ms: int, score: int | None) -> Side:
    final = call.final
    first = call.first_chunk_at
    usages = [attempt.settlement.usage for attempt in call.attempts]
    assert final is not None
    # The whole request, failed attempts included: that is what its user waited for and paid.
    return Side(
        receipt_id(call.id),
        final.entry_id,
        final.outcome,
        latency_ms,
        None if first is None else int((first - call.started) * 1000),
        call.cost_picodollars,
        sum(usage.input_total for usage in usages),
        sum(usage.output for usage in usages),
        None if heard is None else len(heard.text),
        None if heard is None else heard.finish,
        decimals(score),
    )


def _shadows(ran: Ran, score: int | None) -> Side:
    return Side(
        ran.receipt,
        ran.entry,
        ran.outcome,
        ran.latency_ms,
        ran.first_chunk_ms,
        ran.picodollars,
        ran.tokens_in,
        ran.tokens_out,
        None if ran.heard is None else len(ran.heard.text),
        None if ran.heard is None else ran.heard.finish,
        decimals(score),
    )
