"""Many workers, one scrape: totals are exact and never go backwards, however a worker ends."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fastroute.metrics import Metrics, MetricsError, prepare, scrape
from fastroute.metrics import exposition as scraping
from fastroute.metrics import shelf as shelving

# Counts as many as each line asks for, and says so after each.
WORKER = """
import sys
from pathlib import Path
from fastroute.metrics import Metrics
metrics = Metrics.open(Path(sys.argv[1]), int(sys.argv[2]))
metrics.know(models=["m"], lanes=["lane"], backends=["backend"])
metrics.active.inc()
print("ready", flush=True)
for line in sys.stdin:
    for _ in range(int(line)):
        metrics.finished("m", 200, 7.5, 3, 2, 1, "backend")
        metrics.attempt("lane", "ok", "exact", 5)
    print("counted", flush=True)
"""

# Counts without end; every scrape meets it in the middle of something.
RUNNER = """
import sys
from pathlib import Path
from fastroute.metrics import Metrics
metrics = Metrics.open(Path(sys.argv[1]), int(sys.argv[2]))
metrics.know(models=["m"], lanes=["lane"], backends=["backend"])
print("ready", flush=True)
while True:
    metrics.finished("m", 200, 7.5, 3, 2, 1, "backend")
"""

REQUESTS = ("router_requests_total", (("model", "m"), ("status_code", "200")))
COST = ("router_cost_usd_sum", (("model", "m"),))
COUNT = ("router_cost_usd_count", (("model", "m"),))
ACTIVE = ("router_active_requests", ())

Spawn = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def spawn(directory: Path) -> Iterator[Spawn]:
    children: list[subprocess.Popen[str]] = []

    def start(worker: int, program: str = WORKER) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-c", program, str(directory), str(worker)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        children.append(child)
        assert child.stdout.readline() == "ready\n"
        return child

    yield start
    for child in children:
        child.kill()
        child.communicate(timeout=10)


def count(child: subprocess.Popen[str], number: int) -> None:
    child.stdin.write(f"{number}\n")
    child.stdin.flush()
    assert child.stdout.readline() == "counted\n"


def kill(child: subprocess.Popen[str]) -> None:
    child.send_signal(signal.SIGKILL)
    assert child.wait(timeout=10) == -signal.SIGKILL


def test_the_totals_of_several_processes_are_exact(directory, spawn, samples):
    workers = [spawn(n) for n in range(3)]
    for n, worker in enumerate(workers):
        count(worker, 1000 + n)
    found = samples(scrape(directory))
    assert found[REQUESTS] == found[COUNT] == 3003
    assert found[COST] == pytest.approx(3003 * 3e-12)
    assert found[ACTIVE] == 3


def test_a_worker_killed_in_between_loses_nothing_and_counts_nothing_twice(directory, spawn, samples):
    """Its gauges go with it; its counts stay, through any number of scrapes and of deaths."""
    first, second = spawn(0), spawn(1)
    count(first, 500)
    count(second, 700)
    assert samples(scrape(directory))[REQUESTS] == 1200
    kill(first)
    for _ in range(3):
        found = samples(scrape(directory))
        assert found[REQUESTS] == found[COUNT] == 1200
        assert found[ACTIVE] == 1
    third = spawn(0)
    count(third, 11)
    kill(second)
    kill(third)
    found = samples(scrape(directory))
    assert found[REQUESTS] == 1211
    assert found[("fastroute_attempts_total", (("lane", "lane"), ("outcome", "ok")))] == 1211
    assert ACTIVE not in found
    assert not list(directory.glob("*.bin"))  # files of the dead do not pile up


def test_no_counter_goes_backwards_while_workers_count_and_die(directory, spawn, samples):
    runners = [spawn(n, RUNNER) for n in range(2)]
    before: dict[object, float] = {}
    for round_ in range(30):
        if round_ == 10:
            kill(runners[0])
        if round_ == 20:
            runners.append(spawn(0, RUNNER))
        found = samples(scrape(directory))
        for key, value in before.items():
            assert found[key] >= value, key
        before = {key: value for key, value in found.items() if key != ACTIVE}
    assert before[REQUESTS] > 0


def test_a_scrape_that_dies_after_folding_and_before_removing_counts_nothing_twice(directory, spawn, samples):
    worker = spawn(0)
    count(worker, 42)
    kill(worker)
    (path,) = directory.glob("*.bin")
    kept = path.read_bytes()
    assert samples(scrape(directory))[REQUESTS] == 42
    path.write_bytes(kept)  # as if it had not been removed
    assert samples(scrape(directory))[REQUESTS] == 42
    assert samples(scrape(directory))[REQUESTS] == 42
    assert not list(directory.glob("*.bin"))


def test_a_disk_too_full_to_fold_keeps_the_totals_right(directory, spawn, samples, monkeypatch):
    worker = spawn(0)
    count(worker, 42)
    kill(worker)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(scraping, "_fold", full)
        for _ in range(2):
            assert samples(scrape(directory))[REQUESTS] == 42
        assert len(list(directory.glob("*.bin"))) == 1
    assert samples(scrape(directory))[REQUESTS] == 42
    assert not list(directory.glob("*.bin"))


def test_totals_of_many_lives_may_be_wider_than_one_slot(directory, opened, samples):
    for _ in range(3):
        metrics = opened(0)
        metrics.cost_usd.of("m").observe(2**64 - 1)
        metrics.close()
    assert samples(scrape(directory))[COST] == pytest.approx(3 * (2**64 - 1) / 1e12)


def test_a_worker_that_closes_keeps_its_counts_in_the_totals(directory, opened, samples):
    metrics = opened(0)
    metrics.requests("m", 200)
    metrics.active.inc()
    assert samples(metrics.exposition())[REQUESTS] == 1
    metrics.close()
    metrics.close()
    metrics.requests("m", 200)  # a straggler writes into memory that is no longer anybody's
    found = samples(scrape(directory))
    assert found[REQUESTS] in (1, 2)
    assert ACTIVE not in found
    metrics.requests("m", 200)
    assert samples(scrape(directory))[REQUESTS] == found[REQUESTS]


def test_a_server_that_starts_counts_from_zero(directory, opened, samples):
    opened(0).requests("m", 200)
    prepare(directory)
    assert REQUESTS not in samples(scrape(directory))


def test_files_of_another_version_are_passed_over_and_removed(directory, opened, samples):
    (directory / "7.1.bin").write_bytes(bytes(shelving.SIZE))
    (directory / "8.1.bin").write_bytes(b"short")
    opened(0).requests("m", 200)
    assert samples(scrape(directory))[REQUESTS] == 1
    assert {path.name for path in directory.glob("*.bin")} == {f"0.{os.getpid()}.bin"}


def test_the_files_are_private_and_their_blocks_are_taken_at_the_start(directory, opened):
    opened(3)
    status = (directory / f"3.{os.getpid()}.bin").stat()
    assert status.st_mode & 0o777 == 0o600
    assert status.st_blocks * 512 >= shelving.SIZE
    assert directory.stat().st_mode & 0o777 == 0o700


def test_one_process_is_one_worker_once(opened):
    opened(0)
    opened(1)
    with pytest.raises(MetricsError, match="worker 0 of this process"):
        opened(0)


def test_a_full_disk_is_said_when_the_worker_starts_not_when_it_counts(directory, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(MetricsError, match=r"No space left on device.* 1 MiB") as caught:
        Metrics.open(directory, 0)
    assert str(directory) in str(caught.value)
    assert not [path for path in directory.iterdir() if path.suffix in (".bin", ".new")]


def test_a_directory_that_cannot_be_is_said_with_its_name(tmp_path):
    (tmp_path / "file").write_text("")
    for attempt in (lambda path: Metrics.open(path, 0), prepare, scrape):
        with pytest.raises(MetricsError, match="file/metrics"):
            attempt(tmp_path / "file" / "metrics")


def test_a_fold_that_cannot_be_read_is_said_with_its_name(directory):
    (directory / "retired.json").write_text('{"folded"')
    with pytest.raises(MetricsError, match=r"retired\.json"):
        scrape(directory)
    prepare(directory)
    scrape(directory)


def test_a_scrape_held_up_by_another_gives_up_in_time(directory, monkeypatch):
    monkeypatch.setattr(scraping, "WAIT_S", 0.0)
    with scraping._locked(directory), pytest.raises(MetricsError, match="another process"):
        scrape(directory)
