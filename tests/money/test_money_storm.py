"""Forty times kill -9 under load, and nothing of what the provider billed is lost, doubled or beyond a limit."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import uvloop

from tests.kits import is_gone

kit = sys.modules["money_kit"]

ROUNDS = 25 if kit.TORTURE else 1
KILLS = {"worker": 24, "bookkeeper": 9, "main": 7}
CALLERS = 20
# A worker that is killed every few seconds for a minute is not what the pauses between restarts are for.
CONSTANTS = {"fastroute.supervisor.BACKOFF_MS": [100]}
# So long after a kill the kernel may still hand a connection to the dead one.
GRACE_S = 0.25


@dataclass
class Kill:
    """One death; `back_at` is when the port, or the bookkeeper's, was answered again, `charged_at` when it was in the books."""

    whom: str
    at: float
    gone_at: float = 0.0  # when a worker was seen to be gone with its port, which takes a busy machine its time
    back_at: float = 0.0
    charged_at: float = 0.0


class Storm:
    """The callers, and who kills the processes they talk to."""

    def __init__(self, house: kit.House, keys: dict[str, str], seed: int) -> None:
        self.house = house
        self.keys = keys
        self.random = random.Random(seed)
        self.answers: list[kit.Answer] = []
        self.kills: list[Kill] = []
        self.over = asyncio.Event()
        self.watching: list[asyncio.Task[None]] = []
        self._numbers: Counter[str] = Counter()

    async def call(self) -> None:
        """Ask one thing after the other, some as streams, and leave some before they are answered."""
        caller = kit.Caller(self.house.port)
        rng = random.Random(self.random.random())
        names = list(self.keys)
        while not self.over.is_set():
            name = rng.choice(names)
            self._numbers[name] += 1
            cap = 40 + self._numbers[name]  # never the same twice for one key, so that it names the attempt
            how: dict[str, Any] = {"share": rng.randint(1, 1000), "delay_ms": rng.randint(0, 60)}
            if rng.random() < 0.45:
                how |= {"delay_ms": rng.choice((40, 150, 600)), "events": max(8, cap // 400)}
            if name == "free":
                how["share"] = 1000
            elif rng.random() < 0.15:
                how["leave_s"] = rng.uniform(0.001, 0.3)
            answer = await caller.ask(self.keys[name], name, cap, **how)
            self.answers.append(answer)
            if answer.error.startswith("ConnectionRefused"):
                await asyncio.sleep(0.05)
            await asyncio.sleep(rng.uniform(0.0, 0.06))
        caller.leave()

    async def rage(self, victims: list[str]) -> None:
        """Kill one after the other, most of them after those before have recovered and some at once."""
        for whom in victims:
            await asyncio.sleep(self.random.choice((0.02, 0.2, 0.5, 0.8)))
            if whom == "main":
                await self.kill_main()
            else:
                await self.kill_one(whom)

    async def kill_one(self, whom: str) -> None:
        await self.until(lambda: bool(self.house.pids(whom)))
        pid = self.random.choice(self.house.pids(whom))
        lives = self.house.lives(pid)
        kill = Kill(whom, time.monotonic())
        os.kill(pid, signal.SIGKILL)
        self.kills.append(kill)
        if whom == "bookkeeper":
            await self.until(lambda: self.house.has_another_bookkeeper(pid))
            kill.back_at = time.monotonic()
        else:
            self.watching.append(asyncio.create_task(self.see_back(kill, pid)))
            await self.until(lambda: self.house.dead_in_the_books(lives))
            kill.charged_at = time.monotonic()

    async def see_back(self, kill: Kill, *pids: int) -> None:
        """Note when as many workers listen again as should, once the dead have let go of the port."""
        await self.until(lambda: all(map(is_gone, pids)))
        kill.gone_at = time.monotonic()
        await self.until(lambda: kit.listeners(self.house.port) == self.house.workers, 0.02)
        kill.back_at = time.monotonic()

    async def kill_main(self) -> None:
        lives = [life for pid in self.house.pids("worker") for life in self.house.lives(pid)]
        kill = Kill("main", time.monotonic())
        self.kills.append(kill)
        await asyncio.to_thread(self.house.kill)
        back = asyncio.create_task(self.see_back(kill))
        await asyncio.to_thread(self.house.start, ready=False)
        await self.until(lambda: self.house.dead_in_the_books(lives))
        kill.charged_at = time.monotonic()
        await back

    async def until(self, true: Callable[[], bool], step_s: float = 0.003) -> None:
        await kit.until(true, 15, step_s)


async def rage_through(house_of: kit.Houses, seed: int) -> tuple[Storm, list[kit.Billed]]:
    async with kit.provider() as (port, book):
        house = await asyncio.to_thread(house_of(port, workers=2, constants=CONSTANTS).start)
        limits = {
            "rich": {"budget_microdollars": 10**9},
            "modest": {"budget_microdollars": 60_000},
            "poor": {"budget_microdollars": 4_000},
            "child": {"budget_microdollars": 10**8, "parent": "rich"},
            "daily": {"budget_microdollars": 10**9, "daily_tokens": 150_000},
            "free": {},
        }
        keys = {name: house.key(name, **each) for name, each in limits.items()}
        storm = Storm(house, keys, seed)
        callers = [asyncio.create_task(storm.call()) for _ in range(CALLERS)]
        await storm.rage(kit.shuffled(seed, **KILLS))
        await asyncio.sleep(0.5)
        await asyncio.gather(*storm.watching)
        storm.over.set()
        await asyncio.gather(*callers)
        assert kit.audit_of(house) == []
        assert await asyncio.to_thread(house.stop) == 0, house.said
    return storm, book


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_whoever_is_killed_the_books_tell_all_that_was_billed(
    house: kit.Houses, figure: Callable[[str], None], seed: int
):
    """P1, P2, P14 (K1): recorded >= billed for every attempt, each of them once, nobody beyond its limit."""
    storm, book = uvloop.run(rage_through(house, seed))
    told = kit.read_books(storm.house)
    kit.check_limits(told)
    assert told.under_way == 0
    presumed = check_attempts(told, book)
    check_receipts(told, storm)
    check_errors(storm)
    tell(storm, book, told, presumed, figure)


def check_attempts(told: kit.Told, book: list[kit.Billed]) -> int:
    """Every attempt that the provider saw is there once, at what it billed or more; how much is presumed beyond that."""
    names = {row.id: name for name, row in told.accounts.items()}
    found: dict[tuple[str, int], kit.EntryRow] = {}
    for entry in told.entries:
        assert entry.corrects is None
        name = names[entry.account]
        cap = told.money(entry, entry.reserved)
        if cap is None:  # nothing was reserved, and all of the cap is used: it is told by that
            cap = entry.usage[1] if entry.basis == "exact" else entry.microdollars
        assert cap is not None
        assert (name, cap) not in found, "an attempt is told twice"
        found[name, cap] = entry
    assert len({(one.label, one.cap) for one in book}) == len(book), "the gateway asked twice"
    beyond = 0
    for billed in book:
        entry = found.pop((billed.label, billed.cap), None)
        assert entry is not None, f"{billed} is not in the books"
        assert entry.microdollars is not None
        assert entry.microdollars >= billed.output, (billed, entry)
        assert all(charge >= billed.output for charge in entry.charged), (billed, entry)
        if entry.basis == "exact":
            assert entry.microdollars == billed.output, (billed, entry)
        beyond += entry.microdollars - billed.output
    # What was written down and then never sent is charged too, where its worker died in between: nobody can know.
    assert {entry.basis for entry in found.values()} <= {"presumed", "void"}, found
    return beyond


def check_receipts(told: kit.Told, storm: Storm) -> None:
    """One receipt for each request with an attempt, and every one that a caller was promised."""
    receipts = Counter(row.request for row in told.receipts)
    assert max(receipts.values()) == 1
    attempted = {entry.request for entry in told.entries}
    assert attempted <= receipts.keys()
    deaths = [kill.at for kill in storm.kills if kill.whom != "bookkeeper"]
    ids = {row.id for row in told.receipts}
    for answer in storm.answers:
        # What cost nothing is written down after it was said: a kill between the two takes it along.
        if answer.headers.get("x-router-receipt-id", next(iter(ids))) not in ids:
            assert answer.status != 200, answer
            assert any(answer.began <= at <= answer.ended + GRACE_S for at in deaths), answer


def check_errors(storm: Storm) -> None:
    """Nobody is failed but those whose request was under way when its process died, and nobody at all by the books."""

    def overlapping(answer: kit.Answer, *whom: str, after_s: float = 0.0) -> int:
        spans = [(kill.at, kill.back_at) for kill in storm.kills if kill.whom in whom]
        return sum(answer.began <= back + after_s and at <= answer.ended for at, back in spans)

    for answer in storm.answers:
        if answer.left or (answer.whole and answer.status in (200, 402, 429)):
            continue
        if answer.status == 503:
            assert answer.code in ("budget_unavailable", "books_unavailable"), answer
            assert answer.headers["retry-after"] == "1"
            assert overlapping(answer, "main", "bookkeeper", after_s=1.0), answer
        elif answer.error.startswith("ConnectionRefused"):
            # Nobody listens where both workers are being replaced at once.
            assert overlapping(answer, "main") or overlapping(answer, "worker") >= storm.house.workers, answer
        else:
            assert not answer.whole, answer
            deaths = [(kill.at, max(kill.at, kill.gone_at)) for kill in storm.kills if kill.whom == "worker"]
            dying = any(answer.began <= gone + GRACE_S and at <= answer.ended for at, gone in deaths)
            assert dying or overlapping(answer, "main"), answer  # whose workers die when it is wholly gone


def tell(storm: Storm, book: list[kit.Billed], told: kit.Told, presumed: int, figure: Callable[[str], None]) -> None:
    """The figures of one storm."""
    good = sorted((one.began, one.ended) for one in storm.answers if one.status == 200 and one.whole)

    def ms(values: list[float]) -> str:
        return f"{kit.percentile(values, 0.5) * 1000:.0f}/{kit.percentile(values, 0.99) * 1000:.0f}"

    served, charged = {}, {}
    for whom in KILLS:
        deaths = [kill for kill in storm.kills if kill.whom == whom]
        served[whom] = [
            min((end for began, end in good if began > kill.at), default=kill.at) - kill.at for kill in deaths
        ]
        charged[whom] = [kill.charged_at - kill.at for kill in deaths if kill.charged_at]
    back = [kill.back_at - kill.at for kill in storm.kills if kill.whom == "bookkeeper"]
    bases = Counter(entry.basis for entry in told.entries)
    failed = Counter(
        "away" if one.error.startswith("ConnectionRefused") else "cut"
        for one in storm.answers
        if not (one.whole or one.left)
    )
    figure(
        f"{len(storm.kills)} kills, {len(storm.answers)} requests, {len(book)} billed, {failed['cut']} cut off, "
        f"{failed['away']} found nobody (main away), {sum(one.status == 503 for one in storm.answers)} told 503\n"
        "  lost 0, overspent 0, doubled 0\n"
        f"  bases {dict(bases)}; charged beyond what was billed: {presumed} of {sum(one.output for one in book)}\n"
        f"  ms p50/p99 from the kill to the next good answer: worker {ms(served['worker'])}, bookkeeper "
        f"{ms(served['bookkeeper'])} (answers again itself: {ms(back)}), main {ms(served['main'])}\n"
        f"  to the dead one's charge: worker {ms(charged['worker'])}, main {ms(charged['main'])}"
    )
