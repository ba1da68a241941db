"""What the books cost a request: `pytest bench/test_ledger.py --benchmark-enable`; a round is 2,000 requests, divide by them.

`python -m bench.bookkeeper` has the parts, `fastroute bench scale` how it goes with what is in the books already.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastroute.bench.books import grow, make_keys

REQUESTS = 2000


def test_requests_through_journal_and_books(benchmark: Any, tmp_path: Path) -> None:
    """Read, applied, sealed and committed with a full sync; the disk's part is in the time and not in `cpu_us`."""
    turns = grow(tmp_path, 31, REQUESTS)
    last = benchmark.pedantic(turns.__next__, rounds=30, warmup_rounds=1)
    benchmark.extra_info["cpu_us"] = last.cpu_us
    assert last.receipts == 31 * REQUESTS
    turns.close()


def test_a_key_is_made(benchmark: Any, tmp_path: Path) -> None:
    """A hundred in one commit; divide by them."""
    states = iter(range(100))
    benchmark.pedantic(lambda: make_keys(tmp_path / str(next(states)), 100), rounds=5)
