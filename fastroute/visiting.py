"""The books of a state directory for one visit of a worker: the bookkeeper that runs there, or one that is started for it.

The one that is started is a process of its own, so that whoever comes meanwhile may use it too; it ends when nobody is
left, and no visitor waits for another. It may be started `ahead`, while the visitor still loads what it will need.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fastroute.clock import Clock
from fastroute.config import Config
from fastroute.errors import FastrouteError
from fastroute.ledger import secrets
from fastroute.ledger.door import BooksTaken, answers
from fastroute.ledger.teller import BooksUnreachable, Teller

if TYPE_CHECKING:
    from fastroute.ledger.bookkeeper import Bookkeeper

# Its place among workers: the last there can be, which no server gives to one of its own.
PLACE: Final = 63
PATIENCE_S: Final = 10.0
# A visitor writes a few records, and what reads them reads the rest of the segment too; another one follows if they are many.
_SEGMENT_BYTES: Final = 1 << 20
# How long the started one waits for a first visitor while whoever started it lives, and for another after the last.
_FIRST_S: Final = 5.0
_LINGER_S: Final = 0.05
_LOOK_S: Final = 0.005
# A visitor that ends waits so long for its bookkeeper to close the books: what follows finds them closed or open.
_FAREWELL_S: Final = 0.5
# Descriptors that a visitor may have had open.
_FILES_MAX: Final = 1 << 16


class Started:
    """A bookkeeper that was started for a visit; `line` is a pipe whose end tells it that nobody comes any more."""

    def __init__(self, pid: int, line: int) -> None:
        self._pid = pid
        self._line = line
        self._over = False

    def ended(self) -> bool:
        """Whether it has; one that could not open the books is told by its exit code."""
        if self._over:
            return True
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        if pid == 0:
            return False
        self._over = True
        if os.waitstatus_to_exitcode(status) > 0:
            raise BooksUnreachable(
                "the books cannot be opened; `fastroute doctor` and `fastroute ledger verify` say why"
            )
        return True

    def see_off(self) -> None:
        """Wait a moment for it to end: nothing else is left to do in this process."""
        os.close(self._line)
        until = time.monotonic() + _FAREWELL_S
        while not self.ended() and time.monotonic() < until:
            time.sleep(_LOOK_S)


@contextmanager
def ahead(config: Config) -> Iterator[Started | None]:
    """Have the books opened for a visit that comes next, unless somebody has them open; what it yields goes to `visit`."""
    started = None if answers(config.state_dir) else _start(config)
    try:
        yield started
    except BaseException:
        if started is not None:
            with suppress(BooksUnreachable):  # what went wrong here is told, and comes first
                started.see_off()
        raise
    if started is not None:
        started.see_off()


@asynccontextmanager
async def visit(config: Config, clock: Clock, started: Started | None = None) -> AsyncIterator[Teller]:
    """A teller at the books, for as long as it takes. `BooksUnreachable` when nobody opens them in time."""
    until = time.monotonic() + PATIENCE_S
    ours: Started | None = None
    teller: Teller | None = None
    try:
        while teller is None:
            if started is not None and started.ended():
                started = None
            if ours is not None and ours.ended():
                ours.see_off()
                ours = None
            if started is None and ours is None and not answers(config.state_dir):
                ours = _start(config)
            try:
                teller = await Teller.open(
                    config.state_dir,
                    PLACE,
                    pepper=secrets.pepper(config.state_dir),
                    clock=clock,
                    patience_ms=500,
                    segment_bytes=_SEGMENT_BYTES,
                )
            except BooksUnreachable:
                if time.monotonic() > until:
                    raise
        yield teller
    finally:
        if teller is not None:
            await teller.close()
        if ours is not None:
            ours.see_off()


@contextmanager
def interrupts(leave: Callable[[], object]) -> Iterator[None]:
    """Ctrl-C is the visitor's leaving: what was begun is settled before the command ends."""
    loop = asyncio.get_running_loop()
    stops = (signal.SIGINT, signal.SIGTERM)
    try:
        for number in stops:
            loop.add_signal_handler(number, leave)
    except (ValueError, RuntimeError):  # not in the main thread, where signals do not arrive
        yield
        return
    try:
        yield
    finally:
        for number in stops:
            loop.remove_signal_handler(number)


def _start(config: Config) -> Started:
    """A bookkeeper in a process of its own; a fork knows the configuration, secrets and all, without writing it down."""
    heard, line = os.pipe()
    child = os.fork()
    if child:
        os.close(heard)
        return Started(child, line)
    code = 1
    try:
        os.setsid()  # Ctrl-C is meant for the visitor
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is over when nobody is left
        signal.set_wakeup_fd(-1)
        _let_go(heard)
        with suppress(OSError):  # what `ps` shows, where the kernel takes a name
            Path("/proc/self/comm").write_text("bookkeeper")
        code = _keep(config)
    finally:
        os._exit(code)


_HEARD: Final = 3


def _let_go(heard: int) -> None:
    """Hold nothing of the visitor's, whose reader would wait for us; its errors are ours until the books are open."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):
        os.dup2(nothing, standard)
    os.dup2(heard, _HEARD)
    os.closerange(_HEARD + 1, min(os.sysconf("SC_OPEN_MAX"), _FILES_MAX))


def _keep(config: Config) -> int:
    from fastroute.keeping import opened  # here and not above: the visitor, which loads as much of its own, runs on

    logging.getLogger().handlers.clear()
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        with opened(config) as bookkeeper:
            asyncio.run(_serve(bookkeeper))
    except BooksTaken:
        return 0  # somebody else was faster, and can be asked
    except FastrouteError as error:
        sys.stderr.write(f"{error}\n")
        sys.stderr.flush()
        return 1
    return 0


async def _serve(bookkeeper: Bookkeeper) -> None:
    waiting = asyncio.create_task(_until_alone(bookkeeper))
    await bookkeeper.serve(_quiet, patience_s=_FIRST_S)
    waiting.cancel()


def _quiet() -> None:
    """The books are open: from here on nothing of the visitor's is held."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    os.close(nothing)


async def _until_alone(bookkeeper: Bookkeeper) -> None:
    loop = asyncio.get_running_loop()
    alone_since = time.monotonic() + _FIRST_S

    def left() -> None:
        """Whoever started us closed its end, or died: its visit is over, or there will be none."""
        nonlocal alone_since
        loop.remove_reader(_HEARD)
        alone_since = min(alone_since, time.monotonic())

    loop.add_reader(_HEARD, left)
    while True:
        await asyncio.sleep(_LOOK_S)
        now = time.monotonic()
        if bookkeeper.has_company:
            alone_since = now
            bookkeeper.doubt()
        elif now - alone_since > _LINGER_S:
            bookkeeper.stop()
            return
