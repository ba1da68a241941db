"""What the bookkeeper costs a request: `python -m bench.bookkeeper [requests]`.

A worker's journal is written first, three records for each request (SEND, SETTLE, FINISH) on a key with two budgets of
money, in all and by day. Then the bookkeeper's turns are run over it as they come at 5,000 requests a second, 500 in
each: read, apply, seal a receipt, commit to SQLite with a full sync. Told is the CPU time of this process; with SPLIT=1
in the environment also its parts. Waiting for the disk is not CPU and stands beside it.
"""

from __future__ import annotations

import gc
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fastroute.keeping import YOUNG_MAX, Seals
from fastroute.ledger import following, records
from fastroute.ledger.book import Book, Budget
from fastroute.ledger.bookkeeper import TURN_S, FileJournals
from fastroute.ledger.books import Books
from fastroute.ledger.journal import Journal, boot_id
from fastroute.ledger.keeper import Keeper, Letter, Now
from fastroute.ledger.protocol import Ask, Hello, LeaseReport, Refresh, Who
from fastroute.ledger.records import FINISH, SEND, SETTLE, Finish, Send, Settle
from fastroute.ledger.sqlite import Store
from fastroute.receipts.keys import open_keys

REQUESTS = 100_000
TARIFF = (150_000, 600_000, 75_000, None, "genai-prices 0.0.66 2026-11-01")
TURN = round(5000 * TURN_S)  # requests in a turn at 5,000 a second


class Clerk:
    """A desk that opens one key."""

    def __call__(
        self, book: Book, operation: str, arguments: dict[str, Any], now_ms: int, *, again: bool = False
    ) -> Any:
        budgets = [Budget("microdollar", 10**12), Budget("microdollar", 10**12, "daily")]
        return book.open_account("k_bench", "key", "bench", created_ms=now_ms, budgets=budgets).id

    def take(self) -> dict[tuple[str, str], Any]:
        return {}

    def tick(self, book: Book, now_ms: int) -> None:
        book.expire(now_ms)


class Meter:
    """CPU time spent inside a function, with what it calls."""

    def __init__(self, owner: Any, name: str) -> None:
        self.seconds = 0.0
        method = getattr(owner, name)

        def metered(*args: Any, **kwargs: Any) -> Any:
            began = time.process_time()
            try:
                return method(*args, **kwargs)
            finally:
                self.seconds += time.process_time() - began

        setattr(owner, name, metered)


def now() -> Now:
    return Now(time.time_ns() // 1_000_000, time.monotonic_ns() // 1_000_000)


def write(journal: Journal, account: int, windows: tuple[int, ...], requests: int) -> None:
    at_ms, spent = now().wall_ms, 0
    for n in range(1, requests + 1):
        spent += 165
        request = f"req_abcdefgh{n:x}"
        held = (5200,) * len(windows)
        send = Send(n, request, account, windows, held, "gpt-4o-mini", "openai:gpt-4o-mini", "openai", at_ms, 5200)
        usage = (312, 120, 0, 0, 0)
        charged, totals = (165,) * len(windows), (spent,) * len(windows)
        settle = Settle(n, "exact", "ok", 200, charged, totals, usage, 164_400_000, 165, 812, TARIFF)
        finish = Finish(
            request, account, f"rd_{n:026}", "chat", "auto", "gpt-4o-mini", "small", 200, True, at_ms, 815, 240
        )
        journal.append(SEND, records.encode(send))
        journal.append(SETTLE, records.encode(settle))
        journal.append(FINISH, records.encode(finish))


def run(state: Path, requests: int) -> None:
    with Store.open(state / "fastroute.db") as store:
        seals = Seals(open_keys(state / "secrets"))
        kept = Keeper(Books(store), FileJournals(state / "journal"), Clerk, seals, boot_id())
        kept.start(now())

        def ask(question: Any) -> Any:
            [(_, reply)] = kept.turn([Letter(1, question)], now())
            return reply

        account = ask(Ask(1, "open")).result
        windows = tuple(each.window for each in ask(Who(2, account=account)).facts.path)
        holder = ask(Hello(3, 0, boot_id())).holder
        ask(Refresh(4, holder, 1, tuple(LeaseReport(window, 0, 0, 0, 0, 10**11, True) for window in windows)))
        with Journal.create(state / "journal", holder) as journal:
            began = time.perf_counter()
            write(journal, account, windows, requests)
            print(f"journal written: {1e6 * (time.perf_counter() - began) / requests:.2f} us a request")
            following.TURN_RECORDS = 3 * TURN
            parts: dict[str, Meter] = {}
            if os.environ.get("SPLIT"):
                parts["read the journal"] = Meter(type(kept._readers[holder]), "read")
                parts["seal receipts"] = Meter(Seals, "__call__")
                parts["hand over rows"] = Meter(Book, "take")
                parts["commit"] = Meter(Books, "commit")
            measured(kept, requests, parts)
        print(f"counts: {Books(store).counts()}")
        size = sum(path.stat().st_size for path in state.glob("fastroute.db*"))
        print(f"database: {size / requests:.0f} bytes a request")


def measured(kept: Keeper, requests: int, parts: dict[str, Meter]) -> None:
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_MAX, 10, 10)  # as the bookkeeper does
    turns = []
    wall = time.perf_counter()
    while True:
        began = time.process_time()
        kept.turn([], now())
        turns.append((time.process_time() - began) / TURN)
        if not kept.more:
            break
    wall = time.perf_counter() - wall
    cpu = statistics.fmean(turns)
    best, median = statistics.quantiles(turns, n=20)[0], statistics.median(turns)
    print(f"{requests} requests in {len(turns)} turns, {1000 * wall / len(turns):.1f} ms each with the disk's part")
    print(
        f"CPU a request: {1e6 * cpu:.1f} us, checkpoints included; median turn {1e6 * median:.1f}, best {1e6 * best:.1f}"
    )
    rest = cpu
    for name, meter in parts.items():
        print(f"  {name:20} {1e6 * meter.seconds / requests:5.1f} us")
        rest -= meter.seconds / requests
    if parts:
        print(f"  {'decode, apply, rest':20} {1e6 * rest:5.1f} us (and what metering costs)")


def main() -> None:
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else REQUESTS
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as directory:
        run(Path(directory), requests)


if __name__ == "__main__":
    main()
