"""The load as a process: `python -m fastroute.bench.load` reads orders from stdin, a line each, and prints what came.

A process of its own, so that it can be pinned, and so that nothing of the harness stands in its way.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from fastroute.bench import _load
from fastroute.bench.histogram import Histogram
from fastroute.bench.machine import run_on
from fastroute.bench.processes import NotStarted

DRAIN_S: Final = 5.0
_PATIENCE_S: Final = 30.0
_LOOK_S: Final = 0.2


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to ask, of whom, and how; `_load.run` says what each field does."""

    port: int
    request: bytes
    connections: int
    seconds: float
    host: str = "127.0.0.1"
    warm_s: float = 0.2
    rate: float = 0
    stream: bool = False
    expected: bytes = b""
    events: tuple[bytes, ...] = ()
    slots: bytes = b""
    slot_at: int = 0
    slot_size: int = 0
    pids: tuple[int, ...] = ()


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What one run of the load saw; durations from the instant a request was due."""

    answers: int
    done: int
    """Answers that ended in the window, whenever they were due: what its CPU was spent on."""
    events: int
    comments: int
    changed: int
    bytes: int
    wrong_status: int
    last_status: int
    lost: int
    refused: int
    cut: int
    unanswered: int
    window_ns: int
    cpu_ns: dict[int, int]
    own_ns: int
    latency: Histogram
    first: Histogram
    late: Histogram

    @property
    def failures(self) -> dict[str, int]:
        """What went wrong, by its name; empty when nothing did."""
        found = {
            f"status {self.last_status}": self.wrong_status,
            "connection lost": self.lost,
            "connection refused": self.refused,
            "stream cut": self.cut,
            "unanswered": self.unanswered,
        }
        return {name: count for name, count in found.items() if count}


class Load:
    """The process; one order at a time."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    def run(self, order: Order, watch: Callable[[], None] | None = None) -> Told:
        """What came of an order; `watch` is called a few times a second meanwhile."""
        pipe, out = self._process.stdin, self._process.stdout
        assert pipe is not None
        assert out is not None
        pipe.write(msgspec.json.encode(order) + b"\n")
        pipe.flush()
        took = order.warm_s + order.seconds + DRAIN_S + _PATIENCE_S
        limit = time.monotonic() + took
        while not select.select([out], [], [], _LOOK_S)[0]:
            if time.monotonic() > limit:
                raise NotStarted(f"the load did not come back within {took:.0f} s")
            if watch:
                watch()
        line = out.readline()
        if not line:
            raise NotStarted(f"the load ended with {self._process.wait()}")
        return msgspec.json.decode(line, type=Told)


@contextmanager
def loading(core: int) -> Iterator[Load]:
    """A load on its core, ended on the way out."""
    command = [sys.executable, "-m", "fastroute.bench.load"]
    pipe = subprocess.PIPE
    with subprocess.Popen(  # noqa: S603  our own module, nothing of a caller's
        command, stdin=pipe, stdout=pipe, preexec_fn=run_on(core), start_new_session=True
    ) as process:
        try:
            yield Load(process)
        finally:
            process.kill()


def run(order: Order) -> dict[str, Any]:
    told = _load.run(
        order.host.encode(),
        order.port,
        order.request,
        connections=order.connections,
        warm_ns=round(order.warm_s * 1e9),
        window_ns=round(order.seconds * 1e9),
        drain_ns=round(DRAIN_S * 1e9),
        rate=order.rate,
        stream=order.stream,
        expected=order.expected,
        events=order.events,
        slots=order.slots,
        slot_at=order.slot_at,
        slot_size=order.slot_size,
        pids=(*order.pids, os.getpid()),
    )
    return {**told, "own_ns": told["cpu_ns"].pop(os.getpid())}


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for line in sys.stdin.buffer:
        sys.stdout.buffer.write(msgspec.json.encode(run(msgspec.json.decode(line, type=Order))) + b"\n")
        sys.stdout.buffer.flush()
