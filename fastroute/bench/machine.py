"""The machine under the figures: its head line, its cores, what processes take of it, what others took meanwhile."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from fastroute.bench import _load

_TICK: Final = os.sysconf("SC_CLK_TCK")
_PDEATHSIG: Final = 1


class Cores(msgspec.Struct, frozen=True):
    """Where what is measured runs, and where provider, load and harness do; the same core when there is one."""

    gateway: int
    rest: int

    @classmethod
    def here(cls) -> Cores:
        found = sorted(os.sched_getaffinity(0))
        return cls(found[0], found[-1])

    @property
    def shared(self) -> bool:
        return self.gateway == self.rest


def run_on(*cores: int) -> Callable[[], None]:
    """What a child does before it becomes its program: take its cores, and end when its parent does."""
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def settle() -> None:
        os.sched_setaffinity(0, set(cores))
        libc.prctl(_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return settle


def tree(pid: int) -> list[int]:
    """A process and every one below it that lives."""
    parents: dict[int, list[int]] = {}
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                text = (place / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents.setdefault(int(text.rpartition(")")[2].split()[1]), []).append(int(place.name))
    found = [pid]
    for each in found:
        found += parents.get(each, ())
    return found


def cpu_ns(pids: list[int]) -> int:
    """User and system time of processes, those that are gone left out."""
    return sum(_load.cpu_ns(pid) or 0 for pid in pids)


def pss_kib(pids: list[int]) -> dict[int, int]:
    """Memory of each process, its share of what it shares counted; of processes that live and may be looked at."""
    found = {}
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        told = re.search(r"^Pss: +(\d+) kB", text, re.MULTILINE)
        if told:
            found[pid] = int(told[1])
    return found


def busy_ns() -> int:
    """CPU time of the whole machine since it started, in nanoseconds: everything but idling, stolen time included."""
    fields = [int(each) for each in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields
    return (user + nice + system + irq + softirq + steal) * 1_000_000_000 // _TICK


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What stands at the head of every page."""

    cpu: str
    cores: int
    memory_gib: float
    system: str
    python: str
    load: tuple[float, float, float]

    @classmethod
    def here(cls, cores: int) -> Machine:
        """This machine, of which so many cores may be used."""
        model = re.search(r"^model name\s*: (.+)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        one, five, fifteen = os.getloadavg()
        return cls(
            cpu=model[1].strip() if model else platform.machine(),
            cores=cores,
            memory_gib=round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
            system=f"{platform.system()} {platform.release()}",
            python=platform.python_version(),
            load=(round(one, 2), round(five, 2), round(fifteen, 2)),
        )

    def __str__(self) -> str:
        load = ", ".join(f"{value:.1f}" for value in self.load)
        return f"{self.cpu}, {self.cores} cores, {self.memory_gib:.0f} GiB, {self.system}, Python {self.python}, load {load}"
