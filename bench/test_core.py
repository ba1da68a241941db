"""What the compiled core costs a request: one decision, one reservation settled, one price.

Run with `pytest bench/test_core.py --benchmark-enable`. Goals on one core: a decision over 50 candidates under 2 us and
over 1,000 under 20 us, reserve and settle together under 1 us, each with its Python call.
"""

import random

import pytest

from fastroute import _core

RANKERS = {"cheapest": _core.RANK_CHEAPEST, "weighted": _core.RANK_WEIGHTED, "ordered": _core.RANK_ORDERED}
SIZES = [10, 50, 100, 1000, 10_000]


def catalog(size: int) -> _core.Table:
    """Half of it has both capabilities that are asked for; nothing else excludes much."""
    rng = random.Random(7)
    return _core.Table(
        [
            (
                rng.choice((0b11111, 0b00101)),
                rng.randrange(2),
                rng.randrange(8),
                rng.randrange(100, 3000),
                100,
                128_000,
                True,
                rng.randrange(3_000_000),
                rng.randrange(15_000_000),
                (),
            )
            for _ in range(size)
        ]
    )


@pytest.mark.parametrize("ranker", RANKERS)
@pytest.mark.parametrize("size", SIZES)
def test_a_decision(benchmark, size, ranker):
    table = catalog(size)
    allowed, health = b"\x01" * size, bytes(8)

    def decide() -> tuple[tuple[int, ...], bytes]:
        return table.decide(
            RANKERS[ranker],
            capabilities=0b11,
            ceiling=50_000,
            input_tokens=2000,
            output_tokens=500,
            tolerance_ms=30_000,
            allowed=allowed,
            health=health,
        )

    best, codes = benchmark(decide)
    assert len(best) == 4
    assert len(codes) == size


def test_reserve_and_settle_on_two_accounts(benchmark):
    leases = _core.Leases(8)
    path = leases.open(9 * 10**15), leases.open(9 * 10**15)

    def attempt() -> bool:
        leases.reserve(path, (480, 480))
        return leases.settle(path, (480, 480), (53, 53))

    assert benchmark(attempt) is False


def test_the_cost_of_an_attempt(benchmark):
    def charge() -> int:
        return _core.ceil_microdollars(_core.cost_picodollars(150, 50, 0, 0, 150_000, 600_000, 150_000, 150_000))

    assert benchmark(charge) == 53


def test_the_bound_of_a_request(benchmark):
    assert benchmark(_core.token_bound, 4000, 3, 2, 0, 128_000) == 5328
