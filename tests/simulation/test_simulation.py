"""The ledger under everything that can go wrong at once, thousands of times over, and each time the same way again.

A world runs the shipped bookkeeper, book, till, holder, records and journal in one thread, from a seed; an oracle that
knows only what upstreams billed looks on after every event. `FASTROUTE_SEED=1234` runs that one seed and prints what
happened in it, with `FASTROUTE_TORTURE=1` there are many more.
"""

import logging
import os
import time
from collections import Counter
from contextlib import nullcontext

import pytest

from tests.simulation.storm import FAULTS
from tests.simulation.world import World

TORTURE = os.environ.get("FASTROUTE_TORTURE") == "1"
SEEDS = 20_000 if TORTURE else 300
CHUNK = 1000 if TORTURE else 100


@pytest.fixture(autouse=True)
def _quiet():
    """What the bookkeeper logs of so many faults is left out."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def run(seed, faults=None):
    world = World(seed, faults)
    try:
        return world.run()
    except Exception as fault:
        fault.add_note(
            f"seed {seed} at {world.now} ms with {', '.join(sorted(world.faults))}; to see it happen: "
            f"FASTROUTE_SEED={seed} pytest -s -k replayed tests/simulation"
        )
        raise


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_no_money_is_lost_and_none_spent_twice_whatever_fails(first, capsys):
    """I1 to I10 hold after every event, and once nothing fails any more everything comes to rest within ten seconds."""
    began, events, faults = time.perf_counter(), 0, Counter()
    for seed in range(first, first + CHUNK):
        world = run(seed)
        events += world.events
        faults += world.counts
    seconds = time.perf_counter() - began
    struck = ", ".join(f"{name} {count}" for name, count in faults.most_common())
    with capsys.disabled() if TORTURE else nullcontext():
        print(f"seeds {first} to {seed}: {events} events in {seconds:.0f} s; {struck}")  # noqa: T201  progress
    assert faults.keys() == FAULTS.keys() - {"midnight", "late"}, "every fault that is counted has struck"


@pytest.mark.parametrize("seed", range(3))
def test_a_seed_runs_the_same_way_each_time(seed):
    """Nothing but the seed decides what happens, or a failure could not be looked at again."""
    assert run(seed).trace == run(seed).trace


def test_all_faults_at_once():
    """Nothing is switched off: the most that a seed can draw."""
    for seed in range(10):
        run(seed, FAULTS)


def test_without_faults_nothing_is_presumed():
    """I9: only a death, or an upstream that does not tell, makes a charge a guess; and no life is charged for power."""
    world = run(1, [])
    assert not world.counts
    assert {row.outcome for row in world.oracle.entries.values()} <= {"ok", "5xx", "cut"}
    assert all(attempt for _, attempt in world.oracle.entries)


if "FASTROUTE_SEED" in os.environ:

    def test_a_seed_replayed():
        """What happened in one seed, line by line."""
        world = World(int(os.environ["FASTROUTE_SEED"]))
        world.log = []
        try:
            world.run()
        finally:
            print(f"faults: {', '.join(sorted(world.faults))}", *world.log, sep="\n")  # noqa: T201  what was asked for
