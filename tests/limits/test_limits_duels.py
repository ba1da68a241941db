"""Two workers that meet in the same instant, thousands of times: nothing of one slips by the other."""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastroute.limits import Limiter

SECONDS = 10 if os.environ.get("FASTROUTE_TORTURE") else 0.4

# Both wait for each other before every round, so that what they do in it falls into the same microsecond.
DUEL = """
import json, mmap, os, sys, time
from pathlib import Path
from fastroute.limits import Limiter, Pass

path, worker, slots, window_s = sys.argv[1:]
me = int(worker)
cpus = sorted(os.sched_getaffinity(0))
os.sched_setaffinity(0, {cpus[me % len(cpus)]})  # side by side, or on one of them they would only take turns
limiter = Limiter.open(Path(path), me, slots=int(slots), window_s=int(window_s))
turns = memoryview(mmap.mmap(os.open(path + ".turns", os.O_RDWR), 16)).cast("Q")
LAST = 1 << 40

def meet(turn):
    turns[me] = turn
    spins = 0
    while turns[1 - me] < turn:
        spins += 1
        if spins > 200:
            # Whoever only yields is soon put behind its neighbours on a busy machine, and rounds take a slice each.
            os.sched_yield() if spins < 400 else time.sleep(0.00005)
            if time.monotonic() > end + 5:
                raise SystemExit("the other one does not come")

def take(now, *accounts):
    return limiter.table.take(accounts, 10, now)

def passes(now, *accounts):
    return isinstance(take(now, *accounts), Pass)

print("ready", flush=True)
for line in sys.stdin:
    rule, seconds, first = json.loads(line)
    room = {}
    exec("def duel(n):\\n" + rule, globals(), room)
    end = time.monotonic() + seconds
    told = []
    for n in range(first, first + 10_000):
        if me == 0 and time.monotonic() > end:
            turns[me] = LAST
            break
        meet(2 * n)
        if turns[1 - me] == LAST:
            break
        told.append(room["duel"](n))
    turns[me] = LAST
    print(json.dumps(told), flush=True)
"""


class Pair:
    """Two workers at one table; every round of a rule is told as what became of both."""

    def __init__(self, path: Path, slots: int) -> None:
        self.path = path
        self._turns = path.with_name(path.name + ".turns")
        self._turns.write_bytes(bytes(16))
        self._first = 1  # time goes on from rule to rule
        self.children = [
            subprocess.Popen(
                [sys.executable, "-c", DUEL, str(path), str(worker), str(slots), "60"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for worker in range(2)
        ]
        assert [child.stdout.readline() for child in self.children] == ["ready\n"] * 2

    def __call__(self, rule: str) -> list[tuple[int, int]]:
        """A rule is the body of a function of the round's number."""
        with self._turns.open("r+b") as turns:
            turns.write(bytes(16))
        for child in self.children:
            child.stdin.write(json.dumps([textwrap.indent(rule.strip(), "    "), SECONDS, self._first]) + "\n")
            child.stdin.flush()
        self._first += 10_000
        told = [json.loads(child.stdout.readline()) for child in self.children]
        rounds = list(zip(*told, strict=False))  # one of them may have begun a last round
        assert len(rounds) > 20
        return rounds

    def close(self) -> None:
        for child in self.children:
            child.kill()
            child.communicate(timeout=10)


@pytest.fixture(scope="module", params=[16_384])
def duel(request, tmp_path_factory) -> Iterator[Pair]:
    pair = Pair(tmp_path_factory.mktemp("duel") / "limits", request.param)
    yield pair
    pair.close()


def test_of_two_with_one_new_name_one_passes(duel):
    """Both give the name a slot, both add, and one of them takes back what it added."""
    rounds = duel("return passes(n * 200_000, (100_000 + n, 1, None, None))")
    assert [(n, both) for n, both in enumerate(rounds, 1) if sum(both) != 1] == []


@pytest.mark.parametrize("limits", ["1, None, None", "None, 10, None", "None, None, 1", "1, 10, 1"])
def test_of_two_where_there_is_room_for_one_one_passes(duel, limits):
    """In the same tick and on both sides of a tick's edge, in buckets that were used before."""
    rounds = duel(f"""
taken = take(n * 200_000 + 999 + n % 2 * me, (7, {limits}))
meet(2 * n + 1)
return isinstance(taken, Pass)
""")
    assert [(n, both) for n, both in enumerate(rounds, 1) if sum(both) != 1] == []


def test_who_is_refused_by_the_parent_has_its_own_limits_back(duel):
    rounds = duel("""
now = n * 200_000
own = (100 + me, 1, 10, 1)
first = take(now, own, (7, 1, None, None)) if n % 2 else take(now, (7, 1, None, None), own)
meet(2 * n + 1)
if isinstance(first, Pass):
    first.leave()
return isinstance(first, Pass) + 2 * passes(now, own)
""")
    assert {tuple(sorted(both)) for both in rounds} == {(1, 2)}


@pytest.mark.parametrize("duel", [16], indirect=True)
def test_who_comes_back_as_its_slot_is_taken_is_counted_wherever_it_is_then(duel):
    """Sixteen slots, all but one unused for long; twelve newcomers want them, the name that comes back wants its own."""
    rounds = duel("""
now = n * 200_000
if me:
    for other in range(12):
        passes(now, (1000 + 12 * n + other, 1, None, None))
    meet(2 * n + 1)
    return 0
first = passes(now, (7, 1, None, None))
meet(2 * n + 1)
return first + 2 * passes(now, (7, 1, None, None))
""")
    assert {own for own, _ in rounds} == {1}
    watching = Limiter.open(duel.path, 9, slots=16)
    assert watching.table.pushed_out == 0
    watching.close()
