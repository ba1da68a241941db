"""Many workers at one table: the limit is exact whoever asks where, and whoever dies in the middle of it."""

import json
import os
import random
import time

import pytest

from fastroute.limits import Limiter
from fastroute.limits.file import in_memory

TORTURE = bool(os.environ.get("FASTROUTE_TORTURE"))


def test_of_ten_processes_at_once_exactly_three_pass(crew):
    """P-A8: rpm 3, and they begin at the same instant."""
    ten = crew(10)
    for key in range(1, 41 if TORTURE else 11):
        # Some have read their clock just before a tick and some just after.
        told = ten.run(*([([(key, 3, None, None)], 0, 59_999 + worker % 2, 1)] for worker in range(10)))
        assert sum(passed for (passed,) in told) == 3


def test_a_limit_is_exact_under_contention_in_every_window(crew):
    """Each round is a tick or some later; four workers want more than there is, of requests and of tokens."""
    four = crew(4)
    log: list[tuple[int, int]] = []
    asking = [(7, 1000, None, None), (8, None, 9000, None)]
    now, random_ = 100_000, random.Random(11)
    for _ in range(100 if TORTURE else 15):
        now += random_.choice([1000, 7000, 20_000, 61_000])
        counted = sum(passed for at, passed in log if at // 1000 >= now // 1000 - 60)
        wanted = random_.choice([50, 600])
        told = four.run(*([(asking, 10, now, wanted)] for _ in range(4)))
        passed = sum(each for (each,) in told)
        assert passed == min(4 * wanted, 900 - counted)
        log.append((now, passed))


def test_a_newcomer_that_all_meet_at_once_has_one_limit(crew):
    """Each of hundreds of keys is new to all four; each has room for one."""
    four = crew(4)
    order = [([(key, 1, None, None)], 0, 1000, 1) for key in range(1, 401)]
    told = four.run(order, order, order, order)
    assert [sum(each) for each in zip(*told, strict=True)] == [1] * 400


def test_slots_change_hands_under_contention_and_nobody_gets_two_limits(crew):
    """Sixteen slots, ten new keys a round, each round long after the one before: all four want the same idle slots."""
    four = crew(4, slots=16)
    for round_ in range(1, 300 if TORTURE else 60):
        order = [([(round_ * 10 + n, 1, None, None)], 0, round_ * 200_000, 1) for n in range(10)]
        told = four.run(order, order, order, order)
        assert [sum(each) for each in zip(*told, strict=True)] == [1] * 10


CLOCKED = """
import json, sys, time
from pathlib import Path
from fastroute.limits import Limiter, Pass
path, worker, slots, window_s = sys.argv[1:]
limiter = Limiter.open(Path(path), int(worker), slots=int(slots), window_s=int(window_s))
print("ready", flush=True)
start, until = map(int, sys.stdin.readline().split())
told = []
while time.monotonic_ns() < start:
    pass
while (handed := time.monotonic_ns() // 1_000_000) < until:
    if isinstance(limiter.admit([(7, 500, None, None)], 0, handed), Pass):
        told.append((handed, time.monotonic_ns() // 1_000_000))
print(json.dumps(told), flush=True)
"""


def test_no_window_of_real_time_holds_more_than_the_limit(crew):
    """Three workers, the machine's clock, a window of a second; each admission happened between two readings."""
    three = crew(3, window_s=1, program=CLOCKED)
    now = time.monotonic_ns()
    seconds = 20 if TORTURE else 1.4
    for child in three.children:
        child.stdin.write(f"{now + 2_000_000} {now // 1_000_000 + int(seconds * 1000)}\n")
        child.stdin.flush()
    log = sorted(tuple(each) for child in three.children for each in json.loads(child.stdout.readline()))
    assert len(log) >= 500 * int(seconds)
    for i, (handed, _) in enumerate(log):
        assert sum(done < handed + 1000 for _, done in log[i : i + 1600]) <= 500


ENTERING = """
import sys
from pathlib import Path
from fastroute.limits import Limiter, Pass
path, worker, slots, window_s = sys.argv[1:]
limiter = Limiter.open(Path(path), int(worker), slots=int(slots), window_s=int(window_s))
print("ready", flush=True)
held = []
while True:
    for _ in range(5):
        held.append(limiter.admit([(7, None, None, 8), (8, None, 10**10, 8)], 100, 1000))
    while held:
        taken = held.pop()
        if isinstance(taken, Pass):
            taken.correct(0)
            taken.leave()
"""


def test_a_worker_killed_in_the_middle_leaks_no_permit(crew):
    """Wherever it died: once its place is cleared nothing of it is in progress, and others were never held up."""
    random_ = random.Random(5)
    for _ in range(20 if TORTURE else 3):
        running = crew(3, program=ENTERING)
        watching = Limiter.open(running.path, 63, slots=1024)
        for _ in range(2000):
            assert watching.table.in_use(7) <= 16, "what is being tried is counted until it is taken back"
        for child in running.children:
            time.sleep(random_.random() / 100)
            child.kill()
            child.wait(10)
        for worker in range(3):
            watching.clear_worker(worker)
        assert (watching.table.in_use(7), watching.table.in_use(8)) == (0, 0)
        taken = [watching.admit([(7, None, None, 8), (8, None, 10**10, 8)], 0, 1000) for _ in range(8)]
        assert watching.table.in_use(7) == 8
        for each in taken:
            each.leave()
        watching.close()
        running.kill()


def test_who_takes_a_dead_workers_place_over_clears_it(crew, tmp_path):
    one = crew(1)
    path = one.path
    watching = Limiter.open(path, 5, slots=1024)
    first = Limiter.open(path, 6, slots=1024)
    first.admit([(7, None, None, 2)], 0, 0)
    held = first.admit([(7, None, None, 2)], 0, 0)
    assert watching.table.in_use(7) == 1
    again = Limiter.open(path, 6, slots=1024)
    assert watching.table.in_use(7) == 0
    held.leave()
    for each in (watching, first, again):
        each.close()


def test_a_process_alone_needs_no_file():
    alone = Limiter(in_memory())
    alone.close()
    assert alone.admit([(1, 1, None, None)], 0, 0).requests_left[:2] == (1, 0)


@pytest.mark.parametrize("workers", [2])
def test_windows_outlive_the_processes_that_filled_them(crew, workers):
    first = crew(workers)
    assert sum(each for (each,) in first.run(*([([(7, 3, None, 3)], 0, 5000, 3)] for _ in range(workers)))) == 3
    first.kill()
    second = crew(workers)
    assert second.run(*([([(7, 3, None, None)], 0, 6000, 3)] for _ in range(workers))) == [[0]] * workers
