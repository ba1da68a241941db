"""The store between processes: writers take turns, a killed one leaves whole transactions and no lock."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fastroute.errors import StoreError
from fastroute.ledger import migrations
from fastroute.ledger.registry import ModelRow, Registry
from fastroute.ledger.sqlite import Store

Child = Callable[..., subprocess.Popen[str]]

OPEN = """
import sys
from fastroute.ledger.sqlite import Store
print("ready", flush=True)
sys.stdin.readline()
with Store.open(sys.argv[1]) as store:
    print(len(store.applied), flush=True)
"""

ADD = """
import sys
from fastroute.ledger.registry import ModelRow, Registry
from fastroute.ledger.sqlite import Store
with Store.open(sys.argv[1]) as store:
    print("ready", flush=True)
    sys.stdin.readline()
    for n in range(int(sys.argv[3])):
        Registry(store).add(ModelRow(f"{sys.argv[2]}-{n}", "dummy", ""))
"""

HOLD = """
import sys
from fastroute.ledger.sqlite import Store
with Store.open(sys.argv[1]) as store, store.write() as tx:
    tx.run("INSERT INTO models (name, type, endpoint) VALUES ('half', 'dummy', '')")
    print("held", flush=True)
    sys.stdin.readline()
"""

# Stops before its n-th statement inside the refresh, where the parent kills it.
REFRESH = """
import sys
from fastroute.ledger import sqlite
from fastroute.ledger.registry import Registry
left = int(sys.argv[2])
run = sqlite.Transaction.run
def counted(self, sql, *values):
    global left
    if left == 0:
        print("midway", flush=True)
        sys.stdin.readline()
    left -= 1
    return run(self, sql, *values)
with sqlite.Store.open(sys.argv[1]) as store:
    sqlite.Transaction.run = counted
    Registry(store).replace_provider("openai", [f"new-{n}" for n in range(5)], "https://api.openai.com")
    print("done", flush=True)
    sys.stdin.readline()
"""


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_processes_that_migrate_at_once_all_succeed(database: Path, child: Child) -> None:
    """One of them does it, once; the others find it done."""
    processes = [child(OPEN, database) for _ in range(4)]
    assert [line(process) for process in processes] == ["ready"] * 4
    for process in processes:
        go(process)
    applied = [line(process) for process in processes]
    assert [process.wait(10) for process in processes] == [0] * 4
    assert sorted(applied) == ["0", "0", "0", str(migrations.LATEST)]


def test_two_writers_at_once_lose_nothing(database: Path, child: Child) -> None:
    count = 2000 if os.environ.get("FASTROUTE_TORTURE") else 40
    with Store.open(database) as store:
        processes = [child(ADD, database, name, count) for name in "ab"]
        assert [line(process) for process in processes] == ["ready"] * 2
        for process in processes:
            go(process)
        assert [process.wait(60) for process in processes] == [0, 0]
        assert len(Registry(store).list()) == Registry(store).generation() == 2 * count


def test_a_writer_waits_for_its_turn_and_readers_do_not(database: Path, child: Child) -> None:
    with Store.open(database, busy_ms=30) as store:
        holder = child(HOLD, database)
        assert line(holder) == "held"
        assert Registry(store).list() == ()
        with pytest.raises(StoreError, match=r"fastroute\.db is locked"):
            Registry(store).add(ModelRow("m", "dummy", ""))
        with pytest.raises(StoreError, match=r"fastroute\.db is locked"):
            Store.open(database, busy_ms=30)
        go(holder)
        assert holder.wait(10) == 0
        Registry(store).add(ModelRow("m", "dummy", ""))
        assert [row.name for row in Registry(store).list()] == ["half", "m"]


def test_a_killed_writer_leaves_neither_its_lock_nor_half_its_work(database: Path, child: Child) -> None:
    holder = child(HOLD, database)
    assert line(holder) == "held"
    holder.kill()
    holder.wait(10)
    with Store.open(database, busy_ms=30) as store:
        assert Registry(store).list() == ()
        Registry(store).add(ModelRow("m", "dummy", ""))


@pytest.mark.parametrize("statements", [0, 1, 3, 5, 7])
def test_a_refresh_killed_midway_leaves_the_old_rows(database: Path, child: Child, statements: int) -> None:
    """I-B11: never an empty registry, nor a part of each list."""
    old = [ModelRow(f"gpt-{n}", "openai", "https://api.openai.com") for n in range(3)]
    old.append(ModelRow("local_m", "local", "http://127.0.0.1:5000", "weight"))
    with Store.open(database) as store:
        Registry(store).seed(old)
    process = child(REFRESH, database, statements)
    assert line(process) == "midway"
    process.kill()
    process.wait(10)
    with Store.open(database) as store:
        assert list(Registry(store).list()) == old


def test_a_refresh_killed_after_its_commit_has_happened(database: Path, child: Child) -> None:
    with Store.open(database) as store:
        Registry(store).add(ModelRow("gpt-old", "openai", "https://api.openai.com"))
    process = child(REFRESH, database, 99)
    assert line(process) == "done"
    process.kill()
    process.wait(10)
    with Store.open(database) as store:
        assert [row.name for row in Registry(store).list()] == [f"new-{n}" for n in range(5)]


def test_a_running_reader_notices_what_another_process_wrote(database: Path, child: Child) -> None:
    """I-B13: the generation is one cheap number that moves with every change, whoever made it."""
    with Store.open(database) as store:
        seen = Registry(store).generation()
        process = child(ADD, database, "m", 1)
        assert line(process) == "ready"
        assert Registry(store).generation() == seen
        go(process)
        assert process.wait(10) == 0
        assert Registry(store).generation() > seen
