"""Several processes, one file: every line whole and there once, one rename at midnight; a fork takes no lines with it."""

import os
import subprocess
import sys
from collections import Counter

import orjson
import pytest

from fastroute import logs
from fastroute.clock import ManualClock

# Logs a block of lines for every line it is told, after moving its clock by so many ms.
WRITER = """
import logging, sys
from pathlib import Path
from fastroute import logs
from fastroute.clock import ManualClock
clock = ManualClock()
book = logs.setup("INFO", Path(sys.argv[1]), int(sys.argv[2]), clock=clock)
log = logging.getLogger("fastroute.test")
print("ready", flush=True)
n = 0
for line in sys.stdin:
    clock.advance(int(line))
    for _ in range(500):
        log.info("x" * (n % 700), extra={"n": n})
        n += 1
        if n % 50 == 0:
            book.flush()
    print("logged", flush=True)
logs.shutdown()
"""


@pytest.fixture
def writers(path):
    children = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(n)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for n in range(3)
    ]
    for child in children:
        assert child.stdout.readline() == "ready\n"
    yield children
    for child in children:
        child.kill()
        child.wait(timeout=10)
        child.stdin.close()
        child.stdout.close()


def tell(children, ms):
    for child in children:
        child.stdin.write(f"{ms}\n")
        child.stdin.flush()
    for child in children:
        assert child.stdout.readline() == "logged\n"


def test_no_line_is_torn_lost_or_written_twice_and_midnight_comes_once(path, writers):
    tell(writers, 1000)
    tell(writers, 86_400_000)
    for child in writers:
        child.stdin.close()
        assert child.wait(timeout=10) == 0
    assert sorted(p.name for p in path.parent.iterdir()) == ["router.log", "router.log.2026-01-01", "router.log.lock"]
    seen: Counter[tuple[int, int]] = Counter()
    for file, numbers in (("router.log.2026-01-01", range(500)), ("router.log", range(500, 1000))):
        for line in path.with_name(file).read_bytes().splitlines():
            document = orjson.loads(line)
            assert document["message"] == "x" * (document["n"] % 700)
            assert document["n"] in numbers
            seen[document["worker"], document["n"]] += 1
    assert seen == Counter({(worker, n): 1 for worker in range(3) for n in range(1000)})


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # 3.12 and later mind forks of threaded processes
def test_a_forked_child_keeps_its_own_lines_and_not_its_parents(path, lines):
    """The supervisor logs, forks, and the worker logs before and after it has set up its own."""
    book = logs.setup("INFO", path, clock=ManualClock())
    for n in range(100):
        book.request("parent", n=n)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            book.request("child", n=0)
            mine = logs.setup("INFO", path, 1, clock=ManualClock())
            mine.request("child", n=1)
            logs.shutdown()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    logs.shutdown()
    found = [(line["request_id"], line["n"]) for line in lines()]
    assert sorted(found) == [("child", 0), ("child", 1), *(("parent", n) for n in range(100))]
