"""A disk that is full, read-only or has eaten the books: who has a budget is told so, nobody is served on credit."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvloop

kit = sys.modules["money_kit"]

# The table of limits takes 82 MiB of it.
DISK_MIB = 112
# A segment that a test can fill; the shipped ones have 64 MiB.
JOURNAL_BYTES = 1 << 16
IO = 74


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own; skips who may not mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "none", str(place)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("mounting needs root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path) -> Path:
    """Take all room there is, to the last byte."""
    ballast = place / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                pass
    return ballast


def by_ballast(gateway: kit.House) -> Callable[[], None]:
    ballast = fill(gateway.state_dir.parent)
    return ballast.unlink


def by_limits(gateway: kit.House) -> Callable[[], None]:
    """No file of its processes may grow any more."""
    processes = [*gateway.pids("worker"), *gateway.pids("bookkeeper")]
    before = [resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in processes]
    for pid, (_, hard) in zip(processes, before, strict=True):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))

    def lift() -> None:
        for pid, limits in zip(processes, before, strict=True):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)

    return lift


@pytest.mark.parametrize("shorten", [by_ballast, by_limits])
def test_a_full_disk_stops_budgets_and_nobody_else(
    house: kit.Houses,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    figure: Callable[[str], None],
    shorten: Callable[[kit.House], Callable[[], None]],
):
    """Budgets read a typed 503 once nothing can be lent or written down; when there is room they are served again."""

    place = request.getfixturevalue("disk") if shorten is by_ballast else tmp_path

    async def run() -> None:
        async with kit.provider() as (port, book):
            constants = {"journal_bytes": JOURNAL_BYTES}
            gateway = house(port, state_dir=place / "state", beside=tmp_path, workers=1, constants=constants)
            await asyncio.to_thread(gateway.start)
            keys = {"paying": gateway.key("paying", budget_microdollars=10**9), "free": gateway.key("free")}
            caller = kit.Caller(gateway.port)

            async def ask(name: str) -> kit.Answer:
                return await caller.ask(keys[name], name, 100)

            async def ask_until(name: str, status: int, within_s: float) -> tuple[kit.Answer, float]:
                began = time.monotonic()
                while (answer := await ask(name)).status != status:
                    assert answer.status in (200, 503), answer
                    assert time.monotonic() - began < within_s, answer
                return answer, time.monotonic() - began

            for _ in range(20):
                assert (await ask("paying")).status == (await ask("free")).status == 200
            processes = gateway.pids("worker"), gateway.pids("bookkeeper")
            lengthen = await asyncio.to_thread(shorten, gateway)
            refused, _ = await ask_until("paying", 503, 15)
            assert refused.code in ("budget_unavailable", "journal_full")
            assert refused.headers["retry-after"] == "1"
            # More than the journal has room for.
            assert {(await ask("free")).status for _ in range(JOURNAL_BYTES // 100)} == {200}
            refused, _ = await ask_until("paying", 503, 1.5)
            assert refused.ended - refused.began < 1.5
            lengthen()
            _, again_s = await ask_until("paying", 200, 10)
            for _ in range(20):
                assert (await ask("paying")).status == (await ask("free")).status == 200
            assert (gateway.pids("worker"), gateway.pids("bookkeeper")) == processes
            assert await asyncio.to_thread(gateway.stop) == 0, gateway.said
            told = kit.read_books(gateway)
            kit.check_limits(told)
            names = {row.id: name for name, row in told.accounts.items()}
            entered = Counter(names[entry.account] for entry in told.entries)
            billed = Counter(one.label for one in book)
            assert entered["paying"] == billed["paying"]
            assert sum(told.spent.values()) == 100 * billed["paying"]
            # Those without a budget are served unwritten where there is no room; no budget is wrong for it.
            assert entered["free"] <= billed["free"]
            figure(
                f"no room left ({shorten.__name__}): budgets told 503 in {refused.ended - refused.began:.2f} s, served again "
                f"{again_s:.1f} s after there was room; {billed['free'] - entered['free']} of {billed['free']} requests "
                f"without a budget went unwritten, of those with one 0 of {billed['paying']}"
            )

    uvloop.run(run())


def begun(house: kit.Houses, **how: object) -> kit.House:
    """A house that has served, and been closed."""

    async def run() -> kit.House:
        async with kit.provider() as (port, _):
            gateway = await asyncio.to_thread(house(port, workers=1, **how).start)
            key = gateway.key("early", budget_microdollars=10**6)
            answers = [await kit.Caller(gateway.port).ask(key, "early", 100) for _ in range(30)]
            assert {answer.status for answer in answers} == {200}
            assert await asyncio.to_thread(gateway.stop) == 0
            return gateway

    return uvloop.run(run())


def refusal(gateway: kit.House) -> str:
    """What a start says that ends with the code for a sick disk."""
    gateway.start(ready=False)
    assert gateway.process is not None
    assert gateway.process.wait(10) == IO, gateway.said
    assert "Traceback" not in gateway.said
    return gateway.said


def contents(place: Path) -> dict[str, bytes]:
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


@pytest.mark.parametrize("offset", [0, 4096 * 3, -20_000])
def test_books_that_are_damaged_are_not_served_and_not_touched(house: kit.Houses, offset: int):
    """It ends with 74 and names the file; what is in it stays for whoever can mend it."""
    gateway = begun(house)
    data = bytearray(gateway.config_db.read_bytes())
    size = 20_000  # more than a page
    data[offset : offset + size or None] = os.urandom(size)
    gateway.config_db.write_bytes(data)
    assert str(gateway.config_db) in refusal(gateway)
    assert gateway.config_db.read_bytes() == data


def test_books_that_cannot_be_written_are_not_served(house: kit.Houses, disk: Path):
    """A read-only file system is told at the start, by its name."""
    gateway = begun(house, state_dir=disk / "state", beside=disk.parent, constants={"journal_bytes": JOURNAL_BYTES})
    before = contents(gateway.state_dir)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    try:
        said = refusal(gateway)
        assert str(disk) in said
        assert "Read-only" in said
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    assert contents(gateway.state_dir) == before
    gateway.start()
    assert gateway.desk("keys.show", id="early")["budgets"][0]["used"] == 3000


def test_a_disk_without_room_for_a_worker_is_said_in_one_line(disk: Path, tmp_path: Path) -> None:
    """And tried again, since an operator may make room."""
    (disk / "ballast").write_bytes(bytes((DISK_MIB - 24) << 20))
    command = [
        sys.executable,
        "-m",
        "fastroute",
        "serve",
        "--port",
        "0",
        "--workers",
        "1",
        "--state-dir",
        str(disk / "state"),
    ]
    said = tmp_path / "said"
    with said.open("wb") as out:
        gateway = subprocess.Popen(command, cwd=tmp_path, stderr=out)
    try:
        patience = time.monotonic() + 10
        while said.read_text().count("ended with exit code 74") < 2 and time.monotonic() < patience:
            time.sleep(0.02)
    finally:
        gateway.terminate()
        gateway.wait(10)
    assert said.read_text().count("worker 0 ended with exit code 74; another starts") >= 2
    assert "worker 0 cannot serve: no journal of" in said.read_text()
    assert "Traceback" not in said.read_text()
