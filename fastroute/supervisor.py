"""The processes of one host: workers that serve, restarted when they die and drained when we are told to stop.

The supervisor holds no request and imports no server. A worker is a process of ours with an embedded Granian in it, so
that a crash is never more than one worker's, and a second crash is only a longer pause. Workers share the port by
SO_REUSEPORT and die with their supervisor, however it dies.
"""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import FrameType

from msgspec.structs import replace

from fastroute.config import Config
from fastroute.errors import FastrouteError

log = logging.getLogger("fastroute.supervisor")

BACKOFF_MS = (100, 200, 500, 1000, 2000, 5000)
# A worker that lived so long was well; its next death starts the backoff anew.
SETTLED_S = 10.0
KILL_AFTER_DRAIN_S = 5.0

_PR_SET_PDEATHSIG = 1
_STOPS = (signal.SIGTERM, signal.SIGINT)


class PortTaken(FastrouteError):
    """Somebody else listens where this gateway should."""


class _Slot:
    """One worker's place: its process, and how often it has died of late."""

    __slots__ = ("deaths", "process", "restart_at", "started_at")

    def __init__(self) -> None:
        self.process: BaseProcess | None = None
        self.started_at = 0.0
        self.restart_at = 0.0
        self.deaths = 0


class Supervisor:
    """Runs `workers` copies of `work(config, number)` until a signal says stop."""

    def __init__(self, config: Config, workers: int, work: Callable[[Config, int], None]) -> None:
        self._config = config
        self._work = work
        self._slots = [_Slot() for _ in range(workers)]
        self._signals = 0
        # Workers inherit what is imported here; macOS does not survive a fork of a threaded parent.
        self._process: type[BaseProcess] = (
            multiprocessing.get_context("fork").Process
            if sys.platform == "linux"
            else multiprocessing.get_context("spawn").Process
        )

    def run(self) -> int:
        """Serve until told to stop; the exit code is 0 when every worker drained in time."""
        server = self._config.server
        self._config = replace(self._config, server=replace(server, port=claim_port(server.host, server.port)))
        raise_file_limit()
        server = self._config.server
        log.info("listening on http://%s:%d with %d workers", server.host, server.port, len(self._slots))
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGHUP, self._on_signal)  # a closed terminal is no reason to cut anybody off
        # A signal must interrupt the wait below instead of being noticed at its end.
        wake_r, wake_w = os.pipe()
        os.set_blocking(wake_w, False)
        signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
        try:
            while not self._signals:
                self._start_due()
                timeout = self._next_start()
                watched = [slot.process.sentinel for slot in self._slots if slot.process is not None]
                if wake_r in wait([*watched, wake_r], timeout):
                    os.read(wake_r, 64)
                self._bury()
            return self._drain(wake_r)
        finally:
            signal.set_wakeup_fd(-1)
            os.close(wake_r)
            os.close(wake_w)

    def _start_due(self) -> None:
        now = time.monotonic()
        for number, slot in enumerate(self._slots):
            if slot.process is None and now >= slot.restart_at:
                slot.process = self._process(
                    target=_worker, args=(self._work, self._config, number, os.getpid()), name=f"worker-{number}"
                )
                # A child inherits our handlers: what it is told before it has its own would be lost on it.
                signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
                try:
                    slot.process.start()
                finally:
                    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
                slot.started_at = now
                log.info("worker %d runs as process %d", number, slot.process.pid)

    def _next_start(self) -> float | None:
        due = [slot.restart_at for slot in self._slots if slot.process is None]
        return max(min(due) - time.monotonic(), 0.0) if due else None

    def _bury(self) -> None:
        now = time.monotonic()
        for number, slot in enumerate(self._slots):
            process = slot.process
            if process is None or process.is_alive():
                continue
            process.join()
            slot.deaths = 0 if now - slot.started_at > SETTLED_S else slot.deaths
            pause_ms = BACKOFF_MS[min(slot.deaths, len(BACKOFF_MS) - 1)]
            slot.deaths += 1
            slot.restart_at = now + pause_ms / 1000
            log.error("worker %d ended with %s; another starts in %d ms", number, _how(process), pause_ms)
            slot.process = None

    def _drain(self, wake_r: int) -> int:
        """Ask every worker to finish, wait as long as was configured, then insist; a second signal insists at once."""
        alive = [slot.process for slot in self._slots if slot.process is not None]
        for process in alive:
            process.terminate()
        deadline = time.monotonic() + self._config.server.drain_ms / 1000 + KILL_AFTER_DRAIN_S
        while alive and self._signals < 2 and (left := deadline - time.monotonic()) > 0:
            if wake_r in wait([*(process.sentinel for process in alive), wake_r], left):
                os.read(wake_r, 64)
            alive = [process for process in alive if process.is_alive()]
        for process in alive:
            log.warning("%s did not finish and is ended", process.name)
            process.kill()
            process.join()
        return 1 if alive else 0

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1


def claim_port(host: str, port: int) -> int:
    """The port, or a free one for 0; one that somebody listens on is refused: SO_REUSEPORT would share it in silence."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortTaken(f"cannot listen on {host}:{port}: {error.strerror}; choose another with --port") from None
        claimed: int = probe.getsockname()[1]
        return claimed


def raise_file_limit() -> None:
    """A connection is a file descriptor, and the soft limit is seldom meant."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def die_with(parent: int) -> None:
    """End this process when its parent ends, even by SIGKILL: an orphan would go on serving with old keys."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:  # it died before we could ask
        os._exit(1)


def _worker(work: Callable[[Config, int], None], config: Config, number: int, parent: int) -> None:
    die_with(parent)
    # Ctrl-C reaches the whole group; the supervisor alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
    work(config, number)


def _how(process: BaseProcess) -> str:
    code = process.exitcode
    return signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
