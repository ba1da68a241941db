"""The processes of one host: a bookkeeper and workers that serve, restarted when they die, drained when told to stop.

The supervisor holds no request and imports no server. The bookkeeper is there before the first worker and after the
last. A worker is a process of ours with an embedded Granian in it, so
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
from functools import partial
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import FrameType

from msgspec.structs import replace

from fastroute.config import Config
from fastroute.config.model import KILL_AFTER_DRAIN_S
from fastroute.errors import FastrouteError
from fastroute.ledger.door import answers

log = logging.getLogger("fastroute.supervisor")

BACKOFF_MS = (100, 200, 500, 1000, 2000, 5000)
# A worker that lived so long was well; its next death starts the backoff anew.
SETTLED_S = 10.0
# What the bookkeeper may take for its last pass; killed, it makes that pass at its next start.
CLOSE_BOOKS_S = 10.0
# Between two looks whether the books are open, while nothing else can be done.
_LOOK_S = 0.01

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
_STOPS = (signal.SIGTERM, signal.SIGINT)


class PortTaken(FastrouteError):
    """Somebody else listens where this gateway should."""


class _Slot:
    """One process's place: what runs there, and how often it has died of late."""

    __slots__ = ("deaths", "job", "name", "process", "restart_at", "started_at")

    def __init__(self, name: str, job: Callable[[Config], None]) -> None:
        self.name = name
        self.job = job
        self.process: BaseProcess | None = None
        self.started_at = 0.0
        self.restart_at = 0.0
        self.deaths = 0


class Supervisor:
    """Runs `workers` copies of `work(config, number)`, and `keep(config)` beside them, until a signal says stop."""

    def __init__(
        self,
        config: Config,
        workers: int,
        work: Callable[[Config, int], None],
        keep: Callable[[Config], None] | None = None,
        reload: Callable[[Config], Config] | None = None,
    ) -> None:
        self._config = config
        self._reload = reload
        self._hangups = 0
        self._books = None if keep is None else _Slot("bookkeeper", keep)
        self._workers = [_Slot(f"worker-{number}", partial(_numbered, work, number)) for number in range(workers)]
        self._open = keep is None  # whether the books have ever been
        self._refusal = 0  # the exit code of a bookkeeper that would not open them
        self._signals = 0
        # Workers inherit what is imported here; macOS does not survive a fork of a threaded parent.
        self._process: type[BaseProcess] = (
            multiprocessing.get_context("fork").Process
            if sys.platform == "linux"
            else multiprocessing.get_context("spawn").Process
        )

    def run(self) -> int:
        """Serve until told to stop; the exit code is 0 when every worker drained in time.

        Books that cannot be opened at the start end it with the code of the bookkeeper, who has said why.
        """
        server = self._config.server
        self._config = replace(self._config, server=replace(server, port=claim_port(server.host, server.port)))
        raise_file_limit()
        keep_secrets_in()
        server = self._config.server
        log.info("listening on http://%s:%d with %d workers", server.host, server.port, len(self._workers))
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGHUP, self._on_hangup)  # a closed terminal is no reason to cut anybody off
        # A signal must interrupt the wait below instead of being noticed at its end.
        wake_r, wake_w = os.pipe()
        os.set_blocking(wake_w, False)
        signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
        try:
            while not self._signals and not self._refusal:
                self._start_due()
                watched = [slot.process.sentinel for slot in self._slots() if slot.process is not None]
                if wake_r in wait([*watched, wake_r], self._patience()):
                    os.read(wake_r, 64)
                self._bury()
                if self._hangups:
                    self._take_in()
                if not self._open and not self._refusal:
                    self._open = answers(self._config.state_dir)
            left = self._drain(wake_r)
            return self._refusal or left
        finally:
            signal.set_wakeup_fd(-1)
            os.close(wake_r)
            os.close(wake_w)

    def _slots(self) -> list[_Slot]:
        """The places that are to be filled: until the books are open, theirs alone."""
        books = [] if self._books is None else [self._books]
        return books + self._workers if self._open else books

    def _start_due(self) -> None:
        now = time.monotonic()
        for slot in self._slots():
            if slot.process is None and now >= slot.restart_at:
                slot.process = self._process(
                    target=_child, args=(slot.job, self._config, os.getpid(), slot.name), name=slot.name
                )
                # A child inherits our handlers: what it is told before it has its own would be lost on it.
                signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
                try:
                    slot.process.start()
                finally:
                    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
                slot.started_at = now
                log.info("%s runs as process %d", _words(slot.name), slot.process.pid)

    def _patience(self) -> float | None:
        due = [slot.restart_at for slot in self._slots() if slot.process is None]
        soonest = max(min(due) - time.monotonic(), 0.0) if due else None
        if self._open:
            return soonest
        return _LOOK_S if soonest is None else min(soonest, _LOOK_S)

    def _bury(self) -> None:
        now = time.monotonic()
        for slot in self._slots():
            process = slot.process
            if process is None or process.is_alive():
                continue
            process.join()
            if not self._open and process.exitcode is not None and process.exitcode > 0:
                self._refusal = process.exitcode
                slot.process = None
                continue
            slot.deaths = 0 if now - slot.started_at > SETTLED_S else slot.deaths
            pause_ms = BACKOFF_MS[min(slot.deaths, len(BACKOFF_MS) - 1)]
            slot.deaths += 1
            slot.restart_at = now + pause_ms / 1000
            log.error("%s ended with %s; another starts in %d ms", _words(slot.name), _how(process), pause_ms)
            slot.process = None

    def _drain(self, wake_r: int) -> int:
        """Ask every worker to finish, wait as long as was configured, then insist; a second signal insists at once.

        The books are closed when the last worker has ended, and need no more than a moment.
        """
        alive = [slot.process for slot in self._workers if slot.process is not None]
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
        books = None if self._books is None else self._books.process
        if books is not None:
            books.terminate()
            books.join(CLOSE_BOOKS_S)
            if books.is_alive():
                log.warning("the bookkeeper did not finish and is ended; it will at its next start")
                books.kill()
                books.join()
        # One that was still on its way to the books ends by the signal itself, with nothing left undone.
        closed = books is None or books.exitcode in (0, -signal.SIGTERM)
        return 0 if closed and not alive else 1

    def _on_hangup(self, number: int, frame: FrameType | None) -> None:
        self._hangups += 1

    def _take_in(self) -> None:
        """Read the configuration again, for workers that start from now on, and tell those that run to do so too."""
        self._hangups = 0
        if self._reload is None:
            return
        try:
            self._config = self._reload(self._config)
        except FastrouteError as error:
            log.error("the configuration cannot be served; the one before stays: %s", error)
            return
        for slot in self._workers:
            if slot.process is not None and slot.process.pid is not None and slot.process.is_alive():
                os.kill(slot.process.pid, signal.SIGHUP)

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


def keep_secrets_in() -> None:
    """Leave no image of this process where somebody finds keys in it: no core file, no other process looking in."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def be_called(name: str) -> None:
    """What `ps` and `top` show this process as, where the kernel takes a name."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def _child(job: Callable[[Config], None], config: Config, parent: int, name: str) -> None:
    die_with(parent)
    keep_secrets_in()
    be_called(name)
    # Ctrl-C reaches the whole group; the supervisor alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
    job(config)


def _numbered(work: Callable[[Config, int], None], number: int, config: Config) -> None:
    work(config, number)


def _words(name: str) -> str:
    return name.replace("-", " ")


def _how(process: BaseProcess) -> str:
    code = process.exitcode
    return signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
