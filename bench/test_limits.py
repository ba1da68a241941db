"""What a limit costs a request: one admission, one refusal, the headers, who an anonymous caller is.

`pytest bench/test_limits.py --benchmark-enable`; medians, one process, every bucket of the window in use.
"""

from pathlib import Path

import pytest

from fastroute.limits import Addresses, Limiter, Limits, Pass

PLENTY = 10**9


@pytest.fixture
def limiter(tmp_path: Path):
    limiter = Limiter.open(tmp_path / "limits", 0)
    # As many worker processes as a large machine has: each is a column to add up.
    others = [Limiter.open(tmp_path / "limits", worker) for worker in (1, 7)]
    yield limiter
    for each in (limiter, *others):
        each.close()


OWN = Limits(7, rpm=PLENTY)
FULL = Limits(8, rpm=PLENTY, tpm=PLENTY * 9, concurrency=60_000)
PARENT = Limits(9, rpm=PLENTY, tpm=PLENTY * 9)
CLOSED = Limits(10, rpm=30)
NOW = 600_000


@pytest.fixture
def busy(limiter: Limiter) -> Limiter:
    for tick in range(61):
        for limits in (OWN, FULL, PARENT, CLOSED):
            limiter.admit([limits], 1, NOW - 60_000 + tick * 1000)
    return limiter


def many(benchmark, call, *arguments) -> None:
    """The harness itself takes longer than one of these calls, so it times a thousand at once."""
    benchmark.pedantic(call, arguments, rounds=300, iterations=1000, warmup_rounds=5)


def test_requests_of_one_account(benchmark, busy):
    many(benchmark, busy.table.take, (OWN,), 100, NOW)


def test_every_limit_of_one_account_and_leaving(benchmark, busy):
    def run() -> None:
        busy.table.take((FULL,), 100, NOW).leave()

    many(benchmark, run)


def test_requests_and_tokens_of_two_accounts(benchmark, busy):
    many(benchmark, busy.table.take, (FULL._replace(concurrency=None), PARENT), 100, NOW)


def test_admitted_by_the_limiter(benchmark, busy):
    many(benchmark, busy.admit, (OWN,), 100, NOW)


def test_refused(benchmark, busy):
    assert not isinstance(busy.admit((CLOSED,), 100, NOW), Pass)
    many(benchmark, busy.admit, (CLOSED,), 100, NOW)


def test_corrected(benchmark, busy):
    held = busy.admit((PARENT,), 100, NOW)
    many(benchmark, held.correct, 90)


def test_headers_of_a_pass(benchmark, busy):
    many(benchmark, busy.admit((PARENT,), 100, NOW).headers)


def test_key_of_an_anonymous_caller(benchmark, limiter):
    addresses = Addresses(["10.0.0.0/8"], secret=limiter.secret)
    scope = {"client": ("10.1.1.1", 1), "headers": [(b"host", b"h"), (b"x-forwarded-for", b"198.51.100.1, 10.2.2.2")]}
    many(benchmark, addresses.key, scope)
