"""Thousands of deadlines, cancellations and stops at every instant leave the pool as it was.

`FASTROUTE_TORTURE=1` runs 100,000 of each.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
from pathlib import Path

import pytest

from fastroute.upstreams.faults import UpstreamFault
from fastroute.upstreams.pool import Deadlines, Origin, Pool, request_head

TORTURE = os.environ.get("FASTROUTE_TORTURE") == "1"
ABORTS = 100_000 if TORTURE else 2_000
ANSWER = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n"
END = b"3\r\ntwo\r\n0\r\n\r\n"


class Moody(asyncio.Protocol):
    """Answers at once, late, in two parts, never, or hangs up, as the request's body says."""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        loop = asyncio.get_running_loop()
        mood = data[-1:]
        if mood == b"a":
            self.transport.write(ANSWER + END)
        elif mood == b"l":
            loop.call_later(0.003, self.say, ANSWER + END)
        elif mood == b"p":
            self.transport.write(ANSWER)
            loop.call_later(0.003, self.say, END)
        elif mood == b"h":
            self.transport.write(ANSWER)
        elif mood == b"x":
            self.transport.abort()

    def say(self, data):
        if not self.transport.is_closing():
            self.transport.write(data)


def open_files():
    return len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0


@pytest.fixture
def churn(run, until):
    """Runs a case against a moody upstream in the same loop, with a small lane so that many wait."""

    def churn(attempt, *, connections_max, at_once=64, count=ABORTS):
        async def case():
            loop = asyncio.get_running_loop()
            server = await loop.create_server(Moody, "127.0.0.1", 0)
            origin = Origin("http", "127.0.0.1", server.sockets[0].getsockname()[1], connections_max=connections_max)
            head = request_head("POST", "/", origin.authority, [])
            pool = Pool()
            rng = random.Random(7)
            files = open_files()
            left = count

            async def worker():
                nonlocal left
                while left > 0:
                    left -= 1
                    await attempt(pool, origin, head, rng)

            await asyncio.gather(*(worker() for _ in range(at_once)))
            gc.collect()
            await until(lambda: not pool.opening)
            assert (pool.in_use, pool.waiting) == (0, 0), pool
            assert pool.idle <= connections_max
            within = Deadlines(connect_ms=2000, first_chunk_ms=2000, idle_ms=2000, total_ms=2000)
            answers = [pool.exchange(origin, head, b"a", within) for _ in range(3 * connections_max)]
            assert [await exchange.read() for exchange in await asyncio.gather(*answers)] == [b"onetwo"] * len(answers)
            await pool.aclose()
            server.close()
            await server.wait_closed()
            await until(lambda: open_files() <= files)

        run(case, within=600 if TORTURE else 20)

    return churn


async def consume(pool, origin, head, mood, deadlines):
    exchange = await pool.exchange(origin, head, mood, deadlines)
    while await exchange.chunk():
        exchange.committed()


LONG = Deadlines(connect_ms=10_000, first_chunk_ms=10_000, idle_ms=10_000, total_ms=10_000)


def test_deadlines_leak_no_slot(churn):
    kinds = set()

    async def attempt(pool, origin, head, rng):
        mood = rng.choice([b"a", b"l", b"p", b"n", b"h", b"x"])
        short = {name: rng.choice((1, 3, 200)) for name in ("first_chunk_ms", "idle_ms", "total_ms")}
        try:
            await consume(pool, origin, head, mood, Deadlines(connect_ms=rng.choice((1, 5, 1000)), **short))
        except UpstreamFault as fault:
            kinds.add(fault.kind)

    churn(attempt, connections_max=16)
    assert {"first_chunk", "idle", "total", "cut", "pool_timeout"} <= kinds


@pytest.mark.parametrize("connections_max", [10, 64])
def test_cancellations_leak_no_slot(churn, connections_max):
    """The rival's fault: 5 s of cancelled requests on ten connections and the pool was dead for good."""
    ends = {"done": 0, "cancelled": 0, "fault": 0}

    async def attempt(pool, origin, head, rng):
        if rng.random() < 0.05:
            await consume(pool, origin, head, rng.choice([b"a", b"l", b"p"]), LONG)
            ends["done"] += 1
            return
        task = asyncio.create_task(consume(pool, origin, head, rng.choice([b"a", b"l", b"p", b"n", b"h"]), LONG))
        for _ in range(rng.choice((0, 1, 2, 3, 5))):
            await asyncio.sleep(0)
        if rng.random() < 0.7:
            await asyncio.sleep(rng.random() * 0.006)
        task.cancel()
        try:
            await task
            ends["done"] += 1
        except asyncio.CancelledError:
            ends["cancelled"] += 1
        except UpstreamFault:
            ends["fault"] += 1

    churn(attempt, connections_max=connections_max)
    assert ends["cancelled"] > ABORTS // 10
    assert ends["done"]
    assert not ends["fault"]


def test_stops_and_forgotten_exchanges_leak_no_slot(churn):
    kinds = set()

    async def attempt(pool, origin, head, rng):
        try:
            exchange = await pool.exchange(origin, head, rng.choice([b"a", b"l", b"p", b"h", b"x"]), LONG)
            if rng.random() < 0.3:
                return
            asyncio.get_running_loop().call_later(rng.random() * 0.004, exchange.stop)
            while await exchange.chunk():
                pass
        except UpstreamFault as fault:
            kinds.add(fault.kind)

    churn(attempt, connections_max=16)
    assert kinds == {"stopped", "cut"}
