"""A worker that tells of rights the books never gave, as after a database was put back: it ends, another goes on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3

import money_kit as kit
import uvloop

LIMIT = 10_000_000


def test_a_worker_that_contradicts_the_books_makes_room_for_another(house: kit.Houses):
    """It says why it ends, once; what its journal tells counts, and the next life is served as ever."""

    async def run() -> None:
        async with kit.provider() as (port, _):
            constants = {"fastroute.supervisor.BACKOFF_MS": [1500]}  # time to take the grant out of the books
            gateway = await asyncio.to_thread(house(port, workers=1, constants=constants).start)
            key = gateway.key("paying", budget_microdollars=LIMIT)
            assert (await kit.Caller(gateway.port).ask(key, "paying", 1000)).status == 200
            [worker], [books] = gateway.pids("worker"), gateway.pids("bookkeeper")
            life = max(gateway.lives(worker))
            await kit.until(lambda: gateway.rows("SELECT holder FROM leases WHERE spent") == [(life,)], 5)
            os.kill(books, signal.SIGKILL)
            await kit.until(lambda: gateway.pids("bookkeeper") == [], 5)
            with contextlib.closing(sqlite3.connect(gateway.config_db)) as database, database:
                database.execute("UPDATE leases SET granted = released + spent WHERE holder = ?", (life,))
            await kit.until(lambda: gateway.pids("worker") not in ([], [worker]), 15)
            await kit.until(lambda: kit.listeners(gateway.port) == 1, 10)
            await kit.until(lambda: gateway.dead_in_the_books([life]), 5)
            assert (await kit.Caller(gateway.port).ask(key, "paying", 1000)).status == 200
            assert await asyncio.to_thread(gateway.stop) == 0, gateway.said
            said = "".join(path.read_text() for path in gateway.file.parent.glob("*.log"))
            assert said.count("is told to end") == 1, said
            assert said.count("contradicts the books: holder") >= 1
            assert said.count("this worker ends, and another begins") == 1
            told = kit.read_books(gateway)
            assert {entry.charged for entry in told.entries} == {(1000,)}
            assert len(told.entries) == 2

    uvloop.run(run())
