"""A bookkeeper that is stopped or killed is missed by nobody whose key is in use, and costs nobody a microdollar."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial

import uvloop

kit = sys.modules["money_kit"]

KILLS = 50 if kit.TORTURE else 5
STOPPED_S = 10.0 if kit.TORTURE else 3.0
LIMIT = 10**8
CAP = 100


class Traffic:
    """Callers of several keys, each asking once in so many seconds, until told to end."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.answers: list[kit.Answer] = []
        self._over = asyncio.Event()
        self._callers: list[asyncio.Task[None]] = []

    def of(self, key: str, name: str, callers: int, pause_s: float, share: int) -> None:
        self._callers += [asyncio.create_task(self._call(key, name, pause_s, share)) for _ in range(callers)]

    async def end(self) -> None:
        self._over.set()
        await asyncio.gather(*self._callers)

    def statuses(self, name: str) -> Counter[int]:
        return Counter(answer.status for answer in self.answers if answer.label == name)

    async def _call(self, key: str, name: str, pause_s: float, share: int) -> None:
        caller = kit.Caller(self.port)
        while not self._over.is_set():
            self.answers.append(await caller.ask(key, name, CAP, share=share, delay_ms=5))
            await asyncio.sleep(pause_s)
        caller.leave()


def check_to_the_last(gateway: kit.House, book: list[kit.Billed]) -> None:
    """Where no worker died every attempt is known exactly."""
    told = kit.read_books(gateway)
    kit.check_limits(told)
    assert {entry.basis for entry in told.entries} == {"exact"}
    assert len(told.entries) == len(book)
    # One that was refused has a receipt too.
    receipts = Counter(row.request for row in told.receipts)
    assert {entry.request for entry in told.entries} <= receipts.keys()
    assert set(receipts.values()) == {1}
    names = {row.id: name for name, row in told.accounts.items()}
    charged: Counter[str] = Counter()
    for entry in told.entries:
        charged[names[entry.account]] += entry.microdollars or 0
    billed: Counter[str] = Counter()
    for one in book:
        billed[one.label] += one.output
    assert charged == billed


def test_a_killed_bookkeeper_is_missed_by_nobody(house: kit.Houses, figure: Callable[[str], None]):
    """P2, P14: back within a second; keys in use go on, with a budget or without, and nothing is lost or guessed."""
    back_s: list[float] = []

    async def run() -> None:
        async with kit.provider() as (port, book):
            constants = {"fastroute.supervisor.BACKOFF_MS": [100]}
            gateway = await asyncio.to_thread(house(port, constants=constants).start)
            keys = {"paying": gateway.key("paying", budget_microdollars=LIMIT), "free": gateway.key("free")}
            traffic = Traffic(gateway.port)
            traffic.of(keys["paying"], "paying", 4, 0.1, 1000)
            traffic.of(keys["free"], "free", 4, 0.05, 1000)
            await asyncio.sleep(1)
            for _ in range(KILLS):
                [pid] = gateway.pids("bookkeeper")
                at = time.monotonic()
                os.kill(pid, signal.SIGKILL)
                await kit.until(partial(gateway.has_another_bookkeeper, pid), 10)
                back_s.append(time.monotonic() - at)
                await asyncio.sleep(0.5)
            await traffic.end()
            assert set(traffic.statuses("free")) == {200}
            assert set(traffic.statuses("paying")) == {200}
            assert await asyncio.to_thread(gateway.stop) == 0, gateway.said
            check_to_the_last(gateway, book)

    uvloop.run(run())
    p50, p99 = kit.percentile(back_s, 0.5), kit.percentile(back_s, 0.99)
    figure(f"bookkeeper killed {KILLS} times: back after {p50 * 1000:.0f} ms p50, {p99 * 1000:.0f} p99; nobody refused")
    assert p50 < 1


def test_while_the_bookkeeper_stands_still_keys_in_use_go_on(house: kit.Houses, figure: Callable[[str], None]):
    """P5: those without a budget never notice, those with one spend what is lent; new ones read 503 within 1.5 s."""

    async def run() -> None:
        async with kit.provider() as (port, book):
            gateway = await asyncio.to_thread(house(port).start)
            names = ("steady", "busy", "known", "stranger")
            keys = {name: gateway.key(name, budget_microdollars=LIMIT) for name in names} | {
                "free": gateway.key("free")
            }
            known, stranger = kit.Caller(gateway.port), kit.Caller(gateway.port)
            # Asked for what costs more than its budget it is known from here on, and nothing was lent to it.
            assert (await known.ask(keys["known"], "known", LIMIT + 1)).status == 402
            traffic = Traffic(gateway.port)
            traffic.of(keys["free"], "free", 4, 0.05, 1000)
            traffic.of(keys["steady"], "steady", 4, 1.0, 50)
            traffic.of(keys["busy"], "busy", 4, 0.03, 1000)
            await asyncio.sleep(2.5)
            [pid] = gateway.pids("bookkeeper")
            stopped = time.monotonic()
            os.kill(pid, signal.SIGSTOP)
            try:
                refused = await asyncio.gather(
                    known.ask(keys["known"], "known", CAP), stranger.ask(keys["stranger"], "stranger", CAP)
                )
                for answer in refused:
                    assert answer.status == 503, answer
                    assert answer.code in ("budget_unavailable", "books_unavailable")
                    assert answer.headers["retry-after"] == "1"
                    assert answer.ended - answer.began < 1.5
                await asyncio.sleep(stopped + STOPPED_S - time.monotonic())
            finally:
                os.kill(pid, signal.SIGCONT)
            resumed = time.monotonic()
            for caller, name in ((known, "known"), (stranger, "stranger")):
                assert (await caller.ask(keys[name], name, CAP)).status == 200
                caller.leave()
            again_ms = (time.monotonic() - resumed) * 1000
            await asyncio.sleep(0.5)
            await traffic.end()
            assert set(traffic.statuses("free")) == {200}
            assert set(traffic.statuses("steady")) == {200}
            assert set(traffic.statuses("busy")) <= {200, 503}
            unserved = [answer for answer in traffic.answers if answer.status == 503]
            assert all(answer.code == "budget_unavailable" for answer in unserved)
            assert all(answer.headers["retry-after"] == "1" for answer in unserved)
            assert all(stopped < answer.ended and answer.began < resumed + 0.1 for answer in unserved)
            lasted = min((answer.began - stopped for answer in unserved), default=STOPPED_S)
            assert await asyncio.to_thread(gateway.stop) == 0, gateway.said
            check_to_the_last(gateway, book)
            figure(
                f"bookkeeper stopped for {STOPPED_S:.0f} s: a key at 130 requests/s lived {lasted:.1f} s on what it was "
                f"lent, one at 4/s through it all; new keys served {again_ms:.0f} ms after it went on; overspend 0"
            )

    uvloop.run(run())
