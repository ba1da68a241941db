"""The bookkeeper as a process of this house: its store, its desk, its receipts and its log, wired together.

`ledger.bookkeeper` knows none of them; what is decided here is only who is handed to whom.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from fastroute import logs
from fastroute._keeping import Told
from fastroute.config import Config
from fastroute.config.model import KILL_AFTER_DRAIN_S
from fastroute.errors import ConfigError, FastrouteError, StoreError
from fastroute.ledger import secrets
from fastroute.ledger.agents import Agents
from fastroute.ledger.balances import FinishedRequest
from fastroute.ledger.book import Book
from fastroute.ledger.bookkeeper import Bookkeeper
from fastroute.ledger.books import Books
from fastroute.ledger.sqlite import Store
from fastroute.ledger.store import ReceiptRow
from fastroute.panel.desk import Desk
from fastroute.receipts.keys import Keyring, load_keys, open_keys
from fastroute.receipts.mirror import Mirror
from fastroute.receipts.seal import GENESIS, Sealer

# What a process that will not keep these books ends with, those of sysexits.h; anything else is a crash.
IO: Final = 74
CONFIG: Final = 78
# Workers that are told to stop together with us get so much longer than their drain.
_PATIENCE_S: Final = KILL_AFTER_DRAIN_S + 1.0
_RENEW_S: Final = 1.0
# Objects made and not yet gone before the collector looks for cycles. A turn makes as many as it has records, nearly all
# of them alive until it commits: at Python's own 700 the collector looks at them again and again, 2 us a request.
YOUNG_MAX: Final = 50_000

log = logging.getLogger("fastroute.bookkeeper")


def keep(config: Config) -> None:
    """Keep the books until SIGTERM. Why they cannot be opened is said on stderr, with an exit code."""
    import uvloop  # which those who only visit the books need not wait for

    logging.getLogger().handlers.clear()  # the supervisor's, inherited
    try:
        logs.setup(config.log.level, config.log.path, secrets=config.secrets())
        try:
            uvloop.run(_serve(config))
        finally:
            logs.shutdown()
    except FastrouteError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(CONFIG if isinstance(error, ConfigError) else IO)


async def _serve(config: Config) -> None:
    with opened(config) as bookkeeper:
        gc.collect()
        gc.freeze()  # what is there now stays, and need not be looked at again
        gc.set_threshold(YOUNG_MAX, 10, 10)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, bookkeeper.stop)
        clean = await bookkeeper.serve(
            lambda: log.info("the books are open"), patience_s=config.server.drain_ms / 1000 + _PATIENCE_S
        )
        if not clean:
            log.warning("the books were not closed cleanly; what is missing is made up for at the next start")


@contextmanager
def opened(config: Config) -> Iterator[Bookkeeper]:
    """The books of a state directory, with their desk and their receipts; `BooksTaken` when somebody keeps them."""
    make_private(config)
    pepper = secrets.pepper(config.state_dir)
    mirror = Mirror(config.state_dir / "receipts") if config.receipts.mirror else None
    seals = Seals(open_keys(config.state_dir / "secrets", config.receipts.secret), mirror)
    with Store.open(config.database_path) as store:
        books, agents = Books(store), Agents(store)
        with Bookkeeper(config.state_dir, books, lambda: Desk(books, pepper, agents), seals) as bookkeeper:
            yield bookkeeper


def receipt_keys(config: Config) -> Mapping[str, bytes]:
    """What the receipts of a state directory were signed with."""
    return load_keys(config.state_dir / "secrets", config.receipts.secret)


def make_private(config: Config) -> None:
    """Make the state directory for its owner alone; one that is there already stays as somebody wanted it."""
    for directory in (config.state_dir, config.state_dir / "run"):
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"the state directory {directory} cannot be made: {error.strerror}") from error


def has_keys(config: Config) -> bool:
    """Whether the books know anybody who may call."""
    if not config.database_path.exists():
        return False
    with Store.glance(config.database_path) as store:
        return Books(store).anybody_has_a_key()


class Seals:
    """Makes the receipt of each finished request, and begins to sign with a new key within a second of its arrival."""

    def __init__(self, keyring: Keyring, mirror: Mirror | None = None) -> None:
        self._keyring = keyring
        self._mirror = mirror
        self._sealer = Sealer(keyring.key, keyring.kid)
        self._look_at = time.monotonic() + _RENEW_S

    def __call__(self, book: Book, finished: Sequence[FinishedRequest], last: ReceiptRow | None) -> list[ReceiptRow]:
        self._renew()
        sealer = self._sealer
        if sealer.seq != (0 if last is None else last.seq):  # the last batch was not stored, or it is the first of all
            sealer.seq, sealer.link = (0, GENESIS) if last is None else (last.seq, last.link)
        rows = Told(book.account, book.window).receipts(finished, sealer.seal)
        if self._mirror is not None:
            _copy(rows, self._mirror)
        return rows

    def _renew(self) -> None:
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + _RENEW_S
        try:
            keyring = self._keyring.renewed()
        except ConfigError as error:
            log.error("a new key for receipts cannot be used, the old one signs on: %s", error)
            return
        if keyring is not None:
            self._keyring = keyring
            self._sealer.use(keyring.key, keyring.kid)


def _copy(rows: Sequence[ReceiptRow], mirror: Mirror) -> None:
    """A file of each, for people: one of a batch that is not stored after all is written once more, and the same."""
    for row in rows:
        try:
            mirror.put(row.id, row.body)
        except OSError as error:
            log.error("receipt %s is in the books and not in its file: %s", row.id, error)
