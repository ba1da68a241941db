"""A thousand requests at once on a budget worth a hundred: a hundred are served, whoever they reach."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable

import pytest
import uvloop

kit = sys.modules["money_kit"]

REPEATS = 20 if kit.TORTURE else 3
CALLERS = 1000
WORTH = 100
CAP = 50


async def race(house: kit.House, key: str, book: list[kit.Billed]) -> list[kit.Answer]:
    """Every caller is connected before the first of them asks."""
    callers = [kit.Caller(house.port) for _ in range(CALLERS)]
    for caller in callers:
        await caller.connect()
    answers = await asyncio.gather(*(caller.ask(key, "racer", CAP, delay_ms=50) for caller in callers))
    for caller in callers:
        caller.leave()
    return answers


@pytest.mark.parametrize("workers", [2, 4])
def test_a_thousand_race_for_a_budget_worth_a_hundred(house: kit.Houses, figure: Callable[[str], None], workers: int):
    """P1 (K2): overspend 0, false refusals 0, all of the limit used, where a request costs what it holds."""
    refused_ms: list[float] = []

    async def run() -> None:
        async with kit.provider() as (port, book):
            gateway = await asyncio.to_thread(house(port, workers=workers).start)
            for repeat in range(REPEATS):
                key = gateway.key(f"racer-{repeat}", budget_microdollars=WORTH * CAP)
                book.clear()
                answers = await race(gateway, key, book)
                assert Counter(answer.status for answer in answers) == {200: WORTH, 402: CALLERS - WORTH}
                assert {answer.code for answer in answers if answer.status == 402} == {"budget_exhausted"}
                assert sum(billed.output for billed in book) == WORTH * CAP
                refused_ms.extend((one.ended - one.began) * 1000 for one in answers if one.status == 402)
                await asyncio.to_thread(used, gateway, f"racer-{repeat}", WORTH * CAP, WORTH * CAP)
            assert await asyncio.to_thread(gateway.stop) == 0, gateway.said
            kit.check_limits(kit.read_books(gateway))

    uvloop.run(run())
    figure(
        f"{REPEATS} races of {CALLERS} on a budget worth {WORTH}, {workers} workers: {WORTH} served each time, overspend "
        f"0, false refusals 0, used 100%; refused after {kit.percentile(refused_ms, 0.5):.0f} ms (p50, of 1,000 at once)"
    )


def used(gateway: kit.House, name: str, least: int, limit: int) -> int:
    """What the books say was spent, once nothing is held for anybody; it is never above the limit."""

    def budget() -> dict[str, int]:
        [found] = gateway.desk("keys.show", id=name)["budgets"]
        assert found["used"] + found["held"] + found["remaining"] == found["limit"] == limit
        assert found["used"] <= limit
        return found

    kit.wait_until(lambda: budget()["used"] >= least, 5, 0.02)
    return budget()["used"]


@pytest.mark.parametrize("workers", [2, 4])
def test_what_is_held_too_much_comes_back_to_whoever_asks_again(
    house: kit.Houses, figure: Callable[[str], None], workers: int
):
    """P1 (K2): where a request costs a quarter of what it holds, a budget is used to 99.5% in the end, never beyond."""
    cap, share, limit = 1000, 250, 200_000

    async def run() -> tuple[int, int, int]:
        async with kit.provider() as (port, book):
            gateway = await asyncio.to_thread(house(port, workers=workers).start)
            key = gateway.key("again", budget_microdollars=limit)
            statuses: Counter[int] = Counter()
            until = time.monotonic() + 10

            async def call() -> None:
                caller, refusals = kit.Caller(gateway.port), 0
                while refusals < 20 and time.monotonic() < until:
                    answer = await caller.ask(key, "again", cap, share=share, delay_ms=20)
                    statuses[answer.status] += 1
                    refusals = 0 if answer.status == 200 else refusals + 1
                    if refusals:
                        await asyncio.sleep(0.03)
                caller.leave()

            await asyncio.gather(*(call() for _ in range(100)))
            assert set(statuses) == {200, 402}, statuses
            assert sum(billed.output for billed in book) <= limit
            spent = await asyncio.to_thread(used, gateway, "again", limit - cap + 1, limit)
            assert spent == sum(billed.output for billed in book)
            assert await asyncio.to_thread(gateway.stop) == 0, gateway.said
            kit.check_limits(kit.read_books(gateway))
            return spent, statuses[200], statuses[402]

    spent, served, refused = uvloop.run(run())
    figure(
        f"{workers} workers, cost a quarter of what is held: {spent / limit:.2%} used of {limit} by {served} answers, "
        f"{refused} refusals on the way, overspend 0"
    )
