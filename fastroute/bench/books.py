"""Books for the bench, kept in this process: many keys at once, and receipts by the hundred thousand.

They are the real thing, the bookkeeper's turns over a real journal and a real database; what is missing is only the
process around them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from fastroute.keeping import Seals
from fastroute.ledger import secrets, tokens
from fastroute.ledger.bookkeeper import FileJournals
from fastroute.ledger.books import Books
from fastroute.ledger.journal import SEGMENT_BYTES, Journal, boot_id
from fastroute.ledger.keeper import Keeper
from fastroute.ledger.parties import Letter, Now
from fastroute.ledger.protocol import Ask, Hello, LeaseReport, Refresh, Who
from fastroute.ledger.records import FINISH, SEND, SETTLE, Finish, Send, Settle, encode
from fastroute.ledger.sqlite import Store
from fastroute.panel.desk import Desk
from fastroute.receipts.keys import open_keys

_BUDGET: Final = 10**12
_TURN: Final = 2000  # keys that are made in one commit
_BATCH: Final = 1000  # requests that are journalled before the bookkeeper looks
_TARIFF: Final = (150_000, 600_000, 75_000, None, "genai-prices 0.0.66 2026-11-01")


class Grown(msgspec.Struct, frozen=True):
    """What so many receipts more took of the bookkeeper, and how large everything is by then."""

    receipts: int
    cpu_us: float
    database_bytes: int
    journalled_bytes: int
    journal_bytes: int


def _now() -> Now:
    return Now(time.time_ns() // 1_000_000, time.monotonic_ns() // 1_000_000)


@contextmanager
def _kept(state: Path) -> Iterator[Keeper]:
    (state / "journal").mkdir(parents=True, exist_ok=True)
    pepper = secrets.pepper(state)
    with Store.open(state / "fastroute.db") as store:
        books = Books(store)
        seals = Seals(open_keys(state / "secrets"))
        kept = Keeper(books, FileJournals(state / "journal"), lambda: Desk(books, pepper), seals, boot_id())
        kept.start(_now())
        yield kept


def _asked(kept: Keeper, *questions: Any) -> list[Any]:
    return [reply for _, reply in kept.turn([Letter(1, each) for each in questions], _now())]


def make_keys(state: Path, count: int) -> list[dict[str, Any]]:
    """So many keys, each under a budget, in the books of a state directory that nobody keeps."""
    made: list[dict[str, Any]] = []
    with _kept(state) as kept:
        while len(made) < count:
            names = range(len(made), min(len(made) + _TURN, count))
            fields = [{"name": f"bench-{number}", "budget_microdollars": _BUDGET} for number in names]
            questions = [Ask(place + 1, "keys.create", each) for place, each in enumerate(fields)]
            made += [reply.result for reply in _asked(kept, *questions)]
    return made


def grow(state: Path, steps: int, requests: int) -> Iterator[Grown]:
    """Requests of one key through journal and books, told after each of so many steps."""
    with _kept(state) as kept:
        [made] = _asked(kept, Ask(1, "keys.create", {"name": "bench", "budget_microdollars": _BUDGET * 1000}))
        [welcome] = _asked(kept, Hello(2, 0, boot_id()))
        [told] = _asked(kept, Who(3, digest=tokens.digest(secrets.pepper(state), made.result["key"].encode())))
        account, [path] = told.facts.account, told.facts.path
        _asked(kept, Refresh(4, welcome.holder, 1, (LeaseReport(path.window, 0, 0, 0, 0, _BUDGET * 100, True),)))
        with Journal.create(state / "journal", welcome.holder) as journal:
            done = 0
            for _ in range(steps):
                cpu = 0
                for _ in range(requests // _BATCH):
                    _write(journal, account, path.window, done, _BATCH)
                    done += _BATCH
                    began = time.process_time_ns()
                    kept.turn([], _now())
                    while kept.more:
                        kept.turn([], _now())
                    cpu += time.process_time_ns() - began
                segment, offset = journal.position
                yield Grown(
                    done,
                    cpu / 1000 / requests,
                    sum(each.stat().st_size for each in state.glob("fastroute.db*")),
                    segment * SEGMENT_BYTES + offset,
                    sum(each.stat().st_size for each in (state / "journal").glob("*.log")),
                )


def _write(journal: Journal, account: int, window: int, done: int, requests: int) -> None:
    at_ms = time.time_ns() // 1_000_000
    usage = (312, 120, 0, 0, 0)
    for n in range(done + 1, done + requests + 1):
        request = f"req_abcdefgh{n:x}"  # as a worker calls its n-th
        send = Send(n, request, account, (window,), (5200,), "gpt-4o-mini", "openai:gpt-4o-mini", "openai", at_ms, 5200)
        settle = Settle(n, "exact", "ok", 200, (165,), (165 * n,), usage, 164_400_000, 165, 812, _TARIFF)
        finish = Finish(
            request, account, f"rd_{n:026}", "chat", "auto", "gpt-4o-mini", "small", 200, True, at_ms, 815, 240
        )
        journal.append(SEND, encode(send))
        journal.append(SETTLE, encode(settle))
        journal.append(FINISH, encode(finish))
