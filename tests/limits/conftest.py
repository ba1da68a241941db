"""Tables in memory and tables on the disk with processes at them."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fastroute.limits import Limiter
from fastroute.limits.file import in_memory

# Starts at the instant it is told, does all takes of its list, and says how many passed of each.
WORKER = """
import json, sys, time
from pathlib import Path
from fastroute.limits import Limiter, Pass
path, worker, slots, window_s = sys.argv[1:]
limiter = Limiter.open(Path(path), int(worker), slots=int(slots), window_s=int(window_s))
print("ready", flush=True)
for line in sys.stdin:
    start, orders = json.loads(line)
    while time.monotonic_ns() < start:
        pass
    told = []
    for limits, tokens, now_ms, times in orders:
        limits = [tuple(each) for each in limits]
        told.append(sum(isinstance(limiter.admit(limits, tokens, now_ms), Pass) for _ in range(times)))
    print(json.dumps(told), flush=True)
"""

Child = subprocess.Popen[str]


class Crew:
    """Workers of one host, as processes."""

    def __init__(self, path: Path, slots: int, window_s: int) -> None:
        self.path = path
        self._shape = (str(slots), str(window_s))
        self.children: list[Child] = []

    def start(self, workers: range, program: str = WORKER) -> None:
        started = [
            subprocess.Popen(
                [sys.executable, "-c", program, str(self.path), str(worker), *self._shape],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for worker in workers
        ]
        self.children += started
        for child in started:
            assert child.stdout.readline() == "ready\n"

    def run(self, *orders: list) -> list[list[int]]:
        """All at once, each its own orders: (limits, tokens, now_ms, times)."""
        start = time.monotonic_ns() + 3_000_000
        for child, order in zip(self.children, orders, strict=True):
            child.stdin.write(json.dumps([start, order]) + "\n")
            child.stdin.flush()
        return [json.loads(child.stdout.readline()) for child in self.children]

    def kill(self) -> None:
        for child in self.children:
            child.kill()
        for child in self.children:
            child.communicate(timeout=10)
        self.children.clear()


@pytest.fixture
def crew(tmp_path: Path) -> Iterator[Callable[..., Crew]]:
    crews: list[Crew] = []

    def make(workers: int, slots: int = 1024, window_s: int = 60, program: str = WORKER) -> Crew:
        crews.append(Crew(tmp_path / "limits", slots, window_s))
        crews[-1].start(range(workers), program)
        return crews[-1]

    yield make
    for each in crews:
        each.kill()


@pytest.fixture
def limiter() -> Limiter:
    """Whole seconds are ticks; a refused caller is told the earliest time."""
    return Limiter(in_memory(), jitter=lambda: 0.0)
