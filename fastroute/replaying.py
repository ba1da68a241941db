"""Replay: requests whose content was kept, run again on other models, and what that says about their policy.

Like `prompting` it needs no server: the books, budgets and limits are those of the state directory. Every run is an errand
with its own reservation and receipt, and none begins before the most that all of them can cost is known and allowed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import msgspec
import orjson
from msgspec import Struct

from fastroute.assembly import Upstreams, agents_of, beats_path, directory_for, fleet_of, with_demo
from fastroute.beats import Beats
from fastroute.call import Failed
from fastroute.capture import CaptureError, Content, Vault, decode
from fastroute.clock import SystemClock
from fastroute.config import Config
from fastroute.domain import Entry
from fastroute.errand import ASIDE, Errand, Errands, Ran, entry_of, nobodys
from fastroute.errors import CatalogError, FastrouteError
from fastroute.gateway import SURFACES, Gateway
from fastroute.hearing import Heard, prompt_text
from fastroute.judging import Judge, structure
from fastroute.ledger.accounts import Account
from fastroute.ledger.teller import Teller
from fastroute.limits import Exceeded, Limiter
from fastroute.metrics import Metrics
from fastroute.money import usd_from_microdollars
from fastroute.policies import STRUCTURE, Policy, load_policies
from fastroute.ruling import Rules
from fastroute.settle import bound
from fastroute.standalone import stands_alone
from fastroute.upstreams.pool import Pool
from fastroute.visiting import PLACE, interrupts, visit
from fastroute.weighing import Line, Measured, Pair, patched, weigh

_PAGE: Final = 200
_READ_MAX: Final = 10_000  # receipts looked through
_RUN_S: Final = 120.0
# Who runs what nobody in particular asked for: an account without limits, unless somebody gave it some.
NOBODY_IN_PARTICULAR: Final = "replay"

Told = Callable[[str], object]
Progress = Callable[[int, int, str], object]


class Wanted(Struct, frozen=True):
    """What is to be run again; `judge` None judges nothing, and "" is the policy's own judge or else the form alone."""

    policy: str
    last: int
    alternatives: tuple[str, ...]
    judge: str | None = None
    user: str | None = None
    max_cost_microdollars: int | None = None


class Skipped(Struct, frozen=True):
    receipt: str
    why: str


class Report(Struct, frozen=True):
    """What came of it; `stopped` is why it ended early, and then `exhausted` whether for want of a quota."""

    policy: str
    replayed: int
    skipped: tuple[Skipped, ...]
    at_most_microdollars: int | None
    judge: str | None
    recorded: Line
    alternatives: tuple[Line, ...]
    patch: Policy
    promoted: str | None = None  # an alternative so clearly better that it comes first
    stopped: str | None = None
    exhausted: bool = False
    unjudged: dict[str, int] = {}  # why answers have no score, and how many


class ReplayRefused(FastrouteError):
    """Nothing was run; `nothing_kept` tells that there was nothing to run."""

    def __init__(self, message: str, *, nothing_kept: bool = False, skipped: tuple[Skipped, ...] = ()) -> None:
        self.nothing_kept = nothing_kept
        self.skipped = skipped
        super().__init__(message)


class _Case(Struct, frozen=True):
    """One request to run again: its receipt, what was kept of it, and how it went."""

    paper: dict[str, Any]
    content: Content

    @property
    def body(self) -> bytes:
        return self.content.prompt.encode()

    @property
    def heard(self) -> Heard | None:
        kept = self.content
        return None if kept.answer is None else Heard(kept.answer, kept.finish, kept.calls)


async def replay(config: Config, wanted: Wanted, say: Told, progress: Progress) -> Report:
    """Run them; `say` is told the most it can cost before anything begins. `ReplayRefused`, and the faults of the books."""
    clock = SystemClock()
    policy = load_policies(config.policies_dir).find(wanted.policy)
    config = with_demo(config)
    pool = Pool()
    directory = directory_for(config)
    upstreams = Upstreams(config, pool, agents_of(directory))
    gateway = Gateway(config, directory, upstreams.of, Metrics.in_memory(), None, clock)
    gateway.fleet = fleet_of(config, directory, upstreams, Beats.open(beats_path(config)))
    rules = gateway.directory.resolve(policy.name).rules
    if rules is None:
        raise CatalogError(f"policy {policy.name!r} is hidden by a model or an alias of that name")
    entries = {name: entry_of(gateway, name) for name in wanted.alternatives}
    errands = Errands(gateway)
    judge = wanted.judge if wanted.judge != "" else policy.judge or STRUCTURE
    asked = None if judge in (None, STRUCTURE) else Judge(errands, entry_of(gateway, judge or ""))
    async with visit(config, clock) as teller:
        try:
            cases, skipped = await _cases(teller, config, policy, wanted.last)
            if not cases:
                message = (
                    f"no receipt of policy {policy.name!r} has content that can be run again; it is kept from the first "
                    "request on that is asked with `capture: {prompts: true}` in the policy"
                )
                raise ReplayRefused(message, nothing_kept=True, skipped=skipped)
            account = await _account(teller, wanted.user, policy)
            most = _most(gateway, rules, account, cases, entries, asked)
            _announce(wanted, cases, most, judge, say)
            runner = _Runner(gateway, errands, rules, account, judge, asked, progress)
            with interrupts(runner.leave):
                found = await runner.all(cases, entries)
        finally:
            await pool.aclose()
    recorded, lines = weigh(
        [runner.recorded[case.paper["id"]] for case in cases if case.paper["id"] in runner.recorded], found
    )
    patch = patched(policy, recorded, lines)
    return Report(
        policy.name,
        len(runner.recorded),
        skipped,
        most,
        judge,
        recorded,
        tuple(lines),
        patch,
        patch.routing.primary[0] if patch.routing.primary != policy.routing.primary else None,
        runner.stopped,
        runner.exhausted,
        runner.unjudged,
    )


# --- what there is --------------------------------------------------------------------------------------------------


async def _cases(teller: Teller, config: Config, policy: Policy, last: int) -> tuple[list[_Case], tuple[Skipped, ...]]:
    """The last so many answered requests of a policy whose content is kept, newest first, and those without on the way."""
    cases: list[_Case] = []
    skipped: list[Skipped] = []
    vault: Vault | None = None
    before: int | None = None
    read = 0
    while len(cases) < last and read < _READ_MAX:
        rows = await teller.ask("receipts.list", limit=_PAGE, before=before)
        papers = [msgspec.json.decode(row["body"]) for row in rows]
        papers = [paper for paper in papers if _is_of(paper, policy.name)]
        kept = set(await teller.ask("contents.kept", receipts=[paper["id"] for paper in papers]))
        for paper in papers:
            if len(cases) == last:
                break
            if paper["reason"] == "cache_hit":
                skipped.append(Skipped(paper["id"], "the cache answered it: no model took any time over it"))
                continue
            if paper["id"] not in kept:
                skipped.append(Skipped(paper["id"], "no content of it is kept"))
                continue
            closed = (await teller.ask("contents.show", receipt=paper["id"]))["content"]
            if closed is None:
                skipped.append(Skipped(paper["id"], "no content of it is kept any more"))
                continue
            try:
                vault = vault or Vault.open(config.state_dir / "secrets")
                content = decode(vault.unclose(paper["id"], closed))
            except CaptureError as error:
                skipped.append(Skipped(paper["id"], str(error)))
                continue
            why = _not_again(content)
            if why is None:
                cases.append(_Case(paper, content))
            else:
                skipped.append(Skipped(paper["id"], why))
        if len(rows) < _PAGE:
            break
        before, read = rows[-1]["seq"], read + len(rows)
    return cases, tuple(skipped)


def _not_again(content: Content) -> str | None:
    """Why a kept request cannot be run again; None for one that can be."""
    if "prompt" in content.cut:
        return "its prompt was too long to be kept in full"
    if not stands_alone(content.surface, orjson.loads(content.prompt)):
        return "it leans on more than itself: a stored conversation, or tools that its provider runs"
    return None


def _is_of(paper: dict[str, Any], policy: str) -> bool:
    """Whether it is an answered request of users under this policy."""
    details = paper.get("details") or {}
    return details.get("policy") == policy and paper["outcome"] == "ok" and paper["reason"] not in ASIDE


async def _account(teller: Teller, user: str | None, policy: Policy) -> Account:
    """Whose budgets it draws on: a user's, made as `infer` would make it, or those of nobody in particular."""
    budgets: dict[str, Any] = {}
    if user is not None:
        told = policy.budgets
        budgets = {"daily_tokens": told.daily_tokens, "rpm": told.rpm, "zone": told.zone}
    found = await teller.ask("users.open", name=user or NOBODY_IN_PARTICULAR, **budgets)
    account = await teller.account(found["account"])
    if account is None:
        raise ReplayRefused(f"the account of {user or NOBODY_IN_PARTICULAR} is over")
    return account


# --- what it may cost -----------------------------------------------------------------------------------------------


def _most(
    gateway: Gateway, rules: Rules, account: Account, cases: list[_Case], entries: dict[str, Entry], judge: Judge | None
) -> int | None:
    """The most all of it can cost, in microdollars; None when somebody's price is not known."""
    total = 0
    for case in cases:
        for entry in entries.values():
            cost = _bound(gateway, rules, account, case, entry)
            if cost is None:
                return None
            total += cost
        if judge is not None:
            verdict = judge.most(prompt_text(case.body))
            if verdict is None:
                return None
            total += verdict * (len(entries) + (case.heard is not None))
    return total


def _bound(gateway: Gateway, rules: Rules, account: Account, case: _Case, entry: Entry) -> int | None:
    """What the run will reserve; nothing for one that the policy's ceiling refuses, or that cannot be read any more."""
    call = nobodys(SURFACES[case.content.surface], "req_bound")
    call.account, call.model, call.entries = account, entry.id, [entry]
    try:
        gateway.read(call, case.body)
        rules.rule(call)
    except Failed:
        return 0
    return bound(entry.price, call.input_bound, call.output_cap, entry.max_output, call.choices)


def _announce(wanted: Wanted, cases: list[_Case], most: int | None, judge: str | None, say: Told) -> None:
    limit = wanted.max_cost_microdollars
    count = f"{len(cases)} request{'' if len(cases) == 1 else 's'}"
    what = f"{count} on {', '.join(wanted.alternatives)}"
    if judge is not None:
        what += f", judged by {'their form' if judge == STRUCTURE else judge}"
    cost = "nobody knows what it may cost" if most is None else f"at most ${usd_from_microdollars(most)}"
    if limit is not None and (most is None or most > limit):
        raise ReplayRefused(
            f"{what}: {cost}, and --max-cost-usd allows ${usd_from_microdollars(limit)}; replay fewer, or allow more"
        )
    say(f"replaying {what}: {cost}")


# --- running it -----------------------------------------------------------------------------------------------------


class _Runner:
    """Runs one request after another, each on every alternative, so that none is slowed by another."""

    def __init__(
        self,
        gateway: Gateway,
        errands: Errands,
        rules: Rules,
        account: Account,
        judge: str | None,
        asked: Judge | None,
        progress: Progress,
    ) -> None:
        self._gateway = gateway
        self._errands = errands
        self._rules = rules
        self._account = account
        self._judge = judge
        self._asked = asked
        self._progress = progress
        self.recorded: dict[str, Measured] = {}
        self.stopped: str | None = None
        self.exhausted = False
        self.unjudged: dict[str, int] = {}

    def leave(self) -> None:
        self.stopped = "interrupted"
        self._errands.leave()

    def _over(self) -> bool:
        return self.stopped is not None

    async def all(self, cases: list[_Case], entries: dict[str, Entry]) -> dict[str, list[Pair]]:
        found: dict[str, list[Pair]] = {name: [] for name in entries}
        done, total = 0, len(cases) * len(entries)
        config = self._gateway.config
        limiter = Limiter.visit(config.state_dir / "run" / "limits", PLACE, window_s=config.limits.window_s)
        try:
            for case in cases:
                quality = await self._quality(case, case.heard, None)
                paper = case.paper
                recorded = Measured(paper["latency_ms"], paper.get("cost_picodollars"), quality)
                for name, entry in entries.items():
                    self._progress(done, total, name)
                    await self._let_in(limiter)
                    ran = None if self._over() else await self._run(case, name, entry)
                    if ran is None or self._over():
                        return found
                    pair = Pair(recorded, _outcome(ran))
                    if ran.answered:
                        quality = await self._quality(case, ran.heard, case.heard)
                        pair = Pair(recorded, "ok", Measured(ran.latency_ms, ran.picodollars, quality))
                    self.recorded[paper["id"]] = recorded
                    found[name].append(pair)
                    done += 1
        finally:
            self._progress(total, total, "")
            limiter.close()
        return found

    async def _let_in(self, limiter: Limiter) -> None:
        """Wait until the account's limits let one more request through; it is let go of at once, for it runs alone."""
        while self._account.facts.limits and self.stopped is None:
            passed = limiter.admit(self._account.facts.limits, 0, self._gateway.relay.clock.monotonic_ms())
            if not isinstance(passed, Exceeded):
                passed.leave()
                return
            if passed.retry_after_s is None:  # a limit that nothing fits under: waiting does not help
                self.stopped, self.exhausted = passed.message, True
                return
            await asyncio.sleep(min(passed.retry_after_s, 1))

    async def _run(self, case: _Case, name: str, entry: Entry) -> Ran:
        kept = case.content
        ran = await self._errands.run(
            Errand(
                surface=SURFACES[kept.surface],
                body=case.body,
                entry=entry,
                account=self._account,
                reason="replay",
                asked=name,
                limit_s=_RUN_S,
                stream=kept.stream,
                wants_json=kept.wants_json,
                rules=self._rules,
                details={"replay_of": case.paper["id"]},
            )
        )
        if ran.failed is not None and ran.failed.code in ("quota_exhausted", "budget_exhausted"):
            self.stopped, self.exhausted = ran.failed.message, True
        return ran

    async def _quality(self, case: _Case, heard: Heard | None, reference: Heard | None) -> int | None:
        if self._judge is None or heard is None or self.stopped is not None:
            return None
        if self._asked is None:
            return structure(heard, wants_json=case.content.wants_json, reference=reference)
        of = {"judge_of": case.paper["id"]}
        verdict = await self._asked.score(self._account, prompt_text(case.body), heard, of)
        if verdict.thousandths is None:
            self.unjudged[verdict.why] = self.unjudged.get(verdict.why, 0) + 1
        return verdict.thousandths


def _outcome(ran: Ran) -> str:
    """Why a run gave no answer: the outcome of its attempt, or the refusal's code when it was never sent."""
    return ran.outcome if ran.outcome != "unsent" or ran.failed is None else ran.failed.code or "refused"
