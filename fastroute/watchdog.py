"""A thread that sees to it that a worker's event loop turns: what stops it is told, and a loop that stays is ended.

The loop beats four times a second, which is all it costs. A whole second without a beat is logged with the stack of the
loop's thread, and the worker counts as degraded; after ten the process kills itself, so that the supervisor starts
another. A process that was stopped as a whole (a signal, a debugger, a suspended host) is not blamed for it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Final

BEAT_S: Final = 0.25
STUCK_S: Final = 1.0
FATAL_S: Final = 10.0
# So long after a stall the worker is still called degraded: whoever asks must have a chance to hear of it.
DEGRADED_S: Final = 30.0

log = logging.getLogger("fastroute.watchdog")


class Vigil:
    """What is known of one loop, judged without a clock, a thread or a loop of its own."""

    def __init__(self) -> None:
        self.beats = 0  # written by the loop's thread alone
        self.still_s = 0.0
        self.since_stall_s = DEGRADED_S
        self._seen = 0

    @property
    def degraded(self) -> bool:
        return self.since_stall_s < DEGRADED_S

    def look(self, elapsed_s: float) -> str | None:
        """What follows from one look: `stuck` once for each stall, `fatal`, or nothing.

        An elapsed time that is longer than two beats is of a process that did not run, and counts as two.
        """
        counted = min(elapsed_s, 2 * BEAT_S)
        before = self.still_s
        if self.beats != self._seen:
            self._seen, self.still_s = self.beats, 0.0
            self.since_stall_s = min(self.since_stall_s + counted, DEGRADED_S)
            return None
        self.still_s += counted
        if self.still_s >= STUCK_S:
            self.since_stall_s = 0.0
        if self.still_s >= FATAL_S:
            return "fatal"
        return "stuck" if before < STUCK_S <= self.still_s else None


class Watchdog:
    """Watches the loop it is started in; `lag` is told of every beat how many microseconds late it came."""

    def __init__(self, lag: Callable[[int], None], kill: Callable[[], None] | None = None) -> None:
        self.vigil = Vigil()
        self._lag = lag
        self._kill = kill or _kill
        self._loop = asyncio.get_running_loop()
        self._loops_thread = threading.get_ident()
        self._ended = threading.Event()
        self._due = self._loop.time() + BEAT_S
        self._handle = self._loop.call_at(self._due, self._beat)
        self._thread = threading.Thread(target=self._watch, name="fastroute-watchdog", daemon=True)
        self._thread.start()

    @property
    def degraded(self) -> bool:
        """Whether the loop stands, or stood a short while ago."""
        return self.vigil.degraded

    def close(self) -> None:
        """Watch no longer."""
        self._ended.set()
        self._handle.cancel()
        self._thread.join()

    def _beat(self) -> None:
        now = self._loop.time()
        self.vigil.beats += 1
        self._lag(max(int((now - self._due) * 1_000_000), 0))
        self._due = now + BEAT_S
        self._handle = self._loop.call_at(self._due, self._beat)

    def _watch(self) -> None:
        last = time.monotonic()
        while not self._ended.wait(BEAT_S):
            now = time.monotonic()
            found, last = self.vigil.look(now - last), now
            if found is None:
                continue
            log.error(
                "the event loop has not turned for %.1f s%s; it stands here:\n%s",
                self.vigil.still_s,
                ", and this worker ends itself" if found == "fatal" else "",
                self._stack(),
            )
            if found == "fatal":
                # A moment in which the log's own thread writes that down.
                self._ended.wait(BEAT_S)
                self._kill()

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._loops_thread)
        return "no thread" if frame is None else "".join(traceback.format_stack(frame)).rstrip()


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
