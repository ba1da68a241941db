"""The books of a state directory for one visit of a worker: the bookkeeper that runs there, or one that is started for it.

The one that is started is a process of its own, so that whoever comes meanwhile may use it too; it ends when nobody is
left, and no visitor waits for another.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from fastroute.clock import Clock
from fastroute.config import Config
from fastroute.errors import FastrouteError
from fastroute.keeping import opened
from fastroute.ledger import secrets
from fastroute.ledger.bookkeeper import Bookkeeper, BooksTaken, answers
from fastroute.ledger.teller import BooksUnreachable, Teller
from fastroute.supervisor import be_called

# Its place among workers: the last there can be, which no server gives to one of its own.
PLACE: Final = 63
PATIENCE_S: Final = 10.0
# How long the started one waits for a first visitor, and for another after the last.
_FIRST_S: Final = 5.0
_LINGER_S: Final = 0.05
_LOOK_S: Final = 0.005
# A visitor that ends waits so long for its bookkeeper to close the books: what follows finds them closed or open.
_FAREWELL_S: Final = 0.5
# Descriptors that a visitor may have had open.
_FILES_MAX: Final = 1 << 16


@asynccontextmanager
async def visit(config: Config, clock: Clock) -> AsyncIterator[Teller]:
    """A teller at the books, for as long as it takes. `BooksUnreachable` when nobody opens them in time."""
    until = time.monotonic() + PATIENCE_S
    child: int | None = None
    teller: Teller | None = None
    while teller is None:
        if child is not None and _ended(child):
            child = None
        if child is None and not answers(config.state_dir):
            child = _start(config)
        try:
            teller = await Teller.open(
                config.state_dir, PLACE, pepper=secrets.pepper(config.state_dir), clock=clock, patience_ms=500
            )
        except BooksUnreachable:
            if time.monotonic() > until:
                raise
    try:
        yield teller
    finally:
        await teller.close()
        if child is not None:
            _see_off(child)


def _ended(child: int) -> bool:
    """Whether it has; one that could not open the books is told by its exit code."""
    pid, status = os.waitpid(child, os.WNOHANG)
    if pid == 0:
        return False
    if os.waitstatus_to_exitcode(status) > 0:
        raise BooksUnreachable("the books cannot be opened; `fastroute doctor` and `fastroute ledger verify` say why")
    return True


def _see_off(child: int) -> None:
    """Wait a moment for it to end: nothing else is left to do in this process."""
    until = time.monotonic() + _FAREWELL_S
    while not _ended(child) and time.monotonic() < until:
        time.sleep(_LOOK_S)


def _start(config: Config) -> int:
    """A bookkeeper in a process of its own; a fork knows the configuration, secrets and all, without writing it down."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setsid()  # Ctrl-C is meant for the visitor
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is over when nobody is left
        signal.set_wakeup_fd(-1)
        _let_go()
        be_called("bookkeeper")
        code = _keep(config)
    finally:
        os._exit(code)


def _let_go() -> None:
    """Hold nothing of the visitor's, whose reader would wait for us; its errors are ours until the books are open."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):
        os.dup2(nothing, standard)
    os.closerange(3, min(os.sysconf("SC_OPEN_MAX"), _FILES_MAX))


def _keep(config: Config) -> int:
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
    keeper = bookkeeper.keeper
    alone_since = time.monotonic() + _FIRST_S
    while True:
        await asyncio.sleep(_LOOK_S)
        now = time.monotonic()
        if keeper.lives:
            alone_since = now
            keeper.doubt()
        elif now - alone_since > _LINGER_S:
            bookkeeper.stop()
            return
