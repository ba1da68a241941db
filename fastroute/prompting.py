"""One prompt from a terminal, asked under a policy for a user: the gateway's own life of a request, without a server.

The books, the receipts and the limits are those of the state directory, shared with a server that may run on it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any, Final

import msgspec
import orjson
from msgspec import Struct
from msgspec.structs import replace

from fastroute import _scan
from fastroute.aside import Asides
from fastroute.assembly import Upstreams, agents_of, beats_path, directory_for, fleet_of, with_demo
from fastroute.beats import Beats
from fastroute.call import Call, CallerGone, Failed
from fastroute.clock import SystemClock
from fastroute.config import Config
from fastroute.domain import Entry
from fastroute.errand import ASIDE, entry_of, nobodys
from fastroute.errors import FastrouteError
from fastroute.gateway import SURFACES, Gateway
from fastroute.ledger.accounts import Account
from fastroute.ledger.teller import Teller
from fastroute.limits import Exceeded, Limiter
from fastroute.metrics import Metrics
from fastroute.policies import Policies, Policy
from fastroute.receipts.seal import receipt_id
from fastroute.ruling import latency_window
from fastroute.shadowing import Comparison
from fastroute.upstreams.faults import UpstreamFault
from fastroute.upstreams.inprocess import EVENT_STREAM, Script, ScriptedExchange
from fastroute.upstreams.pool import Deadlines, Pool
from fastroute.upstreams.upstream import Upstream
from fastroute.visiting import PLACE, Started, interrupts, visit

# What a run of the command knows of latencies is what the last receipts tell.
_RECEIPTS_READ: Final = 200
_RECENT: Final = timedelta(minutes=10)
_CHAOS: Final = "CHAOS_PRIMARY_STALL"

Write = Callable[[str], object]


class Prompt(Struct, frozen=True):
    """What is asked: a text, under a policy, for somebody. `model` pins one of the policy's; `stream` None is its own."""

    policy: str
    user: str
    text: str
    model: str | None = None
    stream: bool | None = None
    shadow: str | None = None  # a model that is asked the same afterwards, whatever the policy says


class Told(Struct, frozen=True):
    """What came of it, in the words of receipts. `attempts` are (entry, outcome, status, ms)."""

    id: str
    policy: str
    user: str
    route_primary: str | None
    route_final: str | None
    fallback_count: int
    reasons: tuple[str, ...]
    latency_ms: int
    first_chunk_ms: int | None
    cost_picodollars: int | None
    usage: dict[str, int]
    status: int
    text: str
    attempts: tuple[tuple[str, str, int | None, int], ...]
    shadow: Comparison | None = None


class Refused(FastrouteError):
    """Nothing was asked of anybody, or nobody answered; `told` is there once anything was tried.

    `kind` is quota, policy, config or upstream.
    """

    def __init__(self, kind: str, message: str, code: str | None, told: Told | None = None) -> None:
        self.kind = kind
        self.message = message
        self.code = code
        self.told = told
        super().__init__(message)


class Interrupted(FastrouteError):
    """The user left; what ran is settled."""

    def __init__(self, told: Told) -> None:
        self.told = told
        super().__init__("interrupted")


async def ask(
    config: Config,
    prompt: Prompt,
    policies: Policies,
    write: Write,
    started: Started | None = None,
    ended: Callable[[Told], object] = lambda told: None,
) -> Told:
    """Ask, and `write` the answer's text as it comes. `Refused`, `Interrupted`, `UnknownPolicy`, and the books' faults.

    `started` is the bookkeeper that was started for this, if one was. `ended` is told what came of it before a shadow, if
    there is one, is waited for.
    """
    clock = SystemClock()
    policy = policies.find(prompt.policy)
    config = with_demo(config)
    directory = directory_for(config, policies)
    pool = Pool()
    upstreams = Upstreams(config, pool, agents_of(directory))
    upstream_of: Callable[[Entry], Upstream] = upstreams.of
    if os.environ.get(_CHAOS) == "1":
        upstream_of = _stalling(upstream_of, policy.routing.primary[0])
    gateway = Gateway(config, directory, upstream_of, Metrics.in_memory(), None, clock)
    gateway.fleet = fleet_of(config, directory, upstreams, Beats.open(beats_path(config)))
    async with visit(config, clock, started) as teller:
        gateway.aside = asides = Asides(teller, config.state_dir, gateway.metrics)
        try:
            told = await _asked(gateway, teller, prompt, policy, write)
            ended(told)
            return await _with_shadow(told, asides)
        finally:
            await asides.close()
            await pool.aclose()


async def _asked(gateway: Gateway, teller: Teller, prompt: Prompt, policy: Policy, write: Write) -> Told:
    config = gateway.config
    if prompt.shadow is not None:
        entry_of(gateway, prompt.shadow)  # said before anything is asked, if nobody has that name
    account = await _account(teller, prompt.user, policy)
    await _remember(gateway, teller)
    limiter = Limiter.visit(config.state_dir / "run" / "limits", PLACE, window_s=config.limits.window_s)
    stream = policy.strategy.stream if prompt.stream is None else prompt.stream
    name = policy.name if prompt.model is None else f"{policy.name}:{prompt.model}"
    body = {"model": name, "messages": [{"role": "user", "content": prompt.text}], "stream": stream}
    call = nobodys(SURFACES["chat"], gateway.ids.request())
    call.account = account
    writer = _Writer(call, write)
    try:
        gateway.read(call, orjson.dumps(body))
        _admit(call, account, limiter, prompt.user)
        with interrupts(call.leave):
            gateway.plan(call)
            if prompt.shadow is not None:
                assert call.rules is not None
                call.rules.shadow, call.rules.listens = prompt.shadow, True
            if stream:
                await gateway.relay.stream(call, writer)
            else:
                writer.whole(await gateway.relay.answer(call))
        call.status = 200
    except Failed as failed:
        call.status = failed.status
        told = _told(call, writer, prompt)
        raise _refused(call, account, failed, told) from None
    except CallerGone:
        call.status = 200 if writer.text else 499
        raise Interrupted(_told(call, writer, prompt)) from None
    finally:
        gateway.finished(call)
        limiter.close()
    told = _told(call, writer, prompt)
    if writer.broken is not None:
        raise Refused("upstream", f"the answer broke off: {writer.broken}", None, told)
    return told


async def _with_shadow(told: Told, asides: Asides) -> Told:
    """Wait for the shadow, which has its own end in time; Ctrl-C ends it at once, and costs the answer nothing."""
    shadow = asides.shadows.last
    if shadow is None:
        return told
    with interrupts(asides.leave):
        return replace(told, shadow=await shadow)


# --- who asks -------------------------------------------------------------------------------------------------------


async def _account(teller: Teller, name: str, policy: Policy) -> Account:
    budgets = policy.budgets
    found = await teller.ask(
        "users.open", name=name, daily_tokens=budgets.daily_tokens, rpm=budgets.rpm, zone=budgets.zone
    )
    account = await teller.account(found["account"])
    if account is None:
        raise Refused("quota", f"the account of {name} is over", "revoked")
    return account


def _admit(call: Call, account: Account, limiter: Limiter, user: str) -> None:
    if not account.facts.limits:
        return
    tokens = call.input_bound // 4 + (call.output_cap or 0)
    passed = limiter.admit(account.facts.limits, tokens, SystemClock().monotonic_ms())
    if isinstance(passed, Exceeded):
        what = f"{passed.limit} {passed.unit} a minute" if passed.window_s == 60 else passed.message
        again = "" if passed.retry_after_s is None else f"; try again in {passed.retry_after_s} s"
        message = f"429: rate cap reached: {user} may make {what}{again}"
        raise Refused("quota", message, f"{passed.kind}_limit_exceeded")
    call.permit = passed


async def _remember(gateway: Gateway, teller: Teller) -> None:
    """Latencies as the last receipts tell them, failed attempts included: each run is a new process."""
    since = gateway.relay.clock.now() - _RECENT
    rows = await teller.ask("receipts.list", limit=_RECEIPTS_READ)
    bodies = [msgspec.json.decode(row["body"]) for row in rows]
    gateway.latency.keep(latency_window(gateway.directory))
    for body in reversed(bodies):
        # What ran aside is no measure of what users wait for.
        if datetime.fromisoformat(body["ts"]) >= since and body["reason"] not in ASIDE:
            for line in body["attempts"]:
                if line["outcome"] != "gone" and (line["status"] is not None or line["outcome"] != "http_4xx"):
                    gateway.latency.note(line["entry"], line["ms"])


# --- the call's other end -------------------------------------------------------------------------------------------


class _Writer:
    """A stream's text on its way to the terminal."""

    def __init__(self, call: Call, write: Write) -> None:
        self._call = call
        self._write = write
        self._events = _scan.EventSplitter()
        self._parts: list[str] = []
        self.broken: str | None = None

    @property
    def text(self) -> str:
        return "".join(self._parts)

    async def begin(self, call: Call, entry: Entry) -> None:
        call.status = 200

    async def send(self, data: bytes) -> None:
        for _, said in self._events.feed(data):
            if said != b"[DONE]":
                self._take(orjson.loads(said))

    async def end(self, data: bytes) -> None:
        await self.send(data)

    def comment(self, call: Call) -> bytes:
        return b""

    def whole(self, body: bytes) -> None:
        for choice in orjson.loads(body).get("choices") or ():
            self._say((choice.get("message") or {}).get("content"))

    def _take(self, said: Any) -> None:
        if not isinstance(said, dict):
            return
        error = said.get("error")
        if error is not None:
            self.broken = str(error.get("message", "an error") if isinstance(error, dict) else error)
        for choice in said.get("choices") or ():
            self._say((choice.get("delta") or {}).get("content"))

    def _say(self, text: Any) -> None:
        if isinstance(text, str) and text:
            self._parts.append(text)
            self._write(text)


# --- what is told ---------------------------------------------------------------------------------------------------


def _told(call: Call, writer: _Writer, prompt: Prompt) -> Told:
    loop_ms = int((call.loop.time() - call.started) * 1000)
    attempts = tuple((each.entry_id, each.outcome, each.status, each.ms) for each in call.attempts)
    usages = [each.settlement.usage for each in call.attempts]
    names = [each[0] for each in attempts]
    first = call.first_chunk_at
    return Told(
        id=receipt_id(call.id),
        policy=prompt.policy,
        user=prompt.user,
        route_primary=names[0] if names else None,
        route_final=call.entry.id if call.entry is not None and names else None,
        fallback_count=sum(one != other for one, other in pairwise(names)),
        reasons=tuple(each[1] for each in attempts[:-1]),
        latency_ms=loop_ms,
        first_chunk_ms=None if first is None else int((first - call.started) * 1000),
        cost_picodollars=call.cost_picodollars if attempts else 0,
        usage={
            "input": sum(usage.input_total for usage in usages),
            "output": sum(usage.output for usage in usages),
        },
        status=call.status,
        text=writer.text,
        attempts=attempts,
    )


_QUOTA: Final = ("budget_exhausted", "insufficient_budget", "budget_exceeded", "unpriced")
_POLICY: Final = ("cost_ceiling", "no_candidate", "model_not_found", "context_length_exceeded")


def _refused(call: Call, account: Account, failed: Failed, told: Told) -> Refused:
    if call.attempts:
        tried = ", ".join(f"{name}: {outcome} after {ms} ms" for name, outcome, _, ms in told.attempts)
        count = len(told.attempts)
        made = "the only attempt" if count == 1 else f"all {count} attempts"
        return Refused("upstream", f"{made} failed ({tried}): {failed.message}", failed.code, told)
    if failed.code == "quota_exhausted":
        return Refused("quota", f"429: daily token cap reached (resets at {_reset(account)})", failed.code, told)
    if failed.code in _QUOTA:
        return Refused("quota", f"{failed.status}: {failed.message}", failed.code, told)
    if failed.code in _POLICY:
        return Refused("policy", failed.message, failed.code, told)
    if failed.code == "provider_not_configured":
        return Refused("config", failed.message, failed.code, told)
    return Refused("upstream", failed.message, failed.code, told)


def _reset(account: Account) -> str:
    """When the day of the user's tokens ends, on the clock of its own zone: `00:00 IST`."""
    from zoneinfo import ZoneInfo  # which who has tokens left need not wait for

    for window in account.facts.path:
        if window.unit == "token" and window.ends_in_ms is not None:
            zone = ZoneInfo(window.zone)
            ends = datetime.combine(date.fromisoformat(window.name) + timedelta(days=1), datetime.min.time(), zone)
            ends = ends.astimezone(UTC).astimezone(zone)  # a midnight that a zone leaves out is the first instant after
            return f"{ends:%H:%M} {ends.tzname()}"
    return "00:00"


# --- a rehearsal ----------------------------------------------------------------------------------------------------


def _stalling(upstream_of: Callable[[Entry], Upstream], primary: str) -> Callable[[Entry], Upstream]:
    """Upstreams of which the policy's first never says anything, to see what happens then."""

    def of(entry: Entry) -> Upstream:
        upstream = upstream_of(entry)
        return _Silent(upstream) if entry.id == primary else upstream

    return of


class _Silent:
    """An upstream that is asked nothing and answers nothing."""

    def __init__(self, upstream: Upstream) -> None:
        self.name = upstream.name
        self.display = upstream.display
        self.dialect = upstream.dialect
        self.native_responses = upstream.native_responses
        self.without_key = upstream.without_key

    def begin(
        self, operation: str, model: str, stream: bool, passed: Any, body: bytes, deadlines: Deadlines
    ) -> ScriptedExchange:
        return _Unsent(Script(200, EVENT_STREAM, (), head_ms=86_400_000), deadlines, asyncio.get_running_loop())


class _Unsent(ScriptedExchange):
    """Its silence costs nothing: nobody was asked."""

    @property
    def sent(self) -> bool:
        return False

    def _fault(self) -> UpstreamFault:
        fault = super()._fault()
        return UpstreamFault(fault.kind, fault.message, sent=False, timed_out=fault.timed_out)
