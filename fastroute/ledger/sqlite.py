"""The only file that knows sqlite3: opening, checking and locking the database, and transactions on it.

Rooms say what they want in SQL through a `Transaction`; every fault of the database comes back as one of our
`StoreError`s, naming the file. What the tables are is decided in `migrations`.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

from fastroute.errors import StoreCorrupt, StoreError, StoreTooNew
from fastroute.ledger import migrations

Value = None | int | float | str | bytes | bytearray

BUSY_MS = 5_000
_SQLITE_LEAST = (3, 37)  # STRICT tables
_APPLICATION_ID = 0x66724C31  # "frL1" in the file's header: this database is ours
_PAGE_BYTES = 16 * 1024
_LOG_BYTES = 8 * 1024 * 1024  # of the write-ahead log, before it is moved into the file: fewer pages are moved twice
_SEED_TABLES = {"models", "agents"}  # what an inference router's database holds; migration 1 takes it over


class Transaction:
    """Statements inside one transaction; it is of no use once its `with` block has ended."""

    __slots__ = ("_connection", "_cursors", "_live", "_store")

    def __init__(self, store: Store, connection: sqlite3.Connection) -> None:
        self._store = store
        self._connection = connection
        self._cursors: list[sqlite3.Cursor] = []  # that somebody may still be reading
        self._live = True

    def run(self, sql: str, *values: Value) -> int:
        """Run one statement; how many rows it changed."""
        return self._execute(sql, values).rowcount

    def many(self, sql: str, rows: Iterable[tuple[Value, ...]]) -> int:
        """Run one statement for each of the rows; how many rows were changed in all."""
        assert self._live, "the transaction has ended"
        try:
            return self._connection.executemany(sql, rows).rowcount
        except sqlite3.Error as error:
            raise self._store._fault(error) from error

    def rows(self, sql: str, *values: Value) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        cursor = self._execute(sql, values)
        try:
            return cursor.fetchall()
        except sqlite3.Error as error:
            raise self._store._fault(error) from error

    def each(self, sql: str, *values: Value) -> Iterator[tuple[Any, ...]]:
        """The rows of a query, read as they are asked for."""
        cursor = self._execute(sql, values)
        self._cursors.append(cursor)
        return self._fetched(cursor)

    def _fetched(self, cursor: sqlite3.Cursor) -> Iterator[tuple[Any, ...]]:
        while True:
            assert self._live, "the transaction has ended"
            try:
                row = cursor.fetchone()
            except sqlite3.Error as error:
                raise self._store._fault(error) from error
            if row is None:
                return
            yield row

    def row(self, sql: str, *values: Value) -> tuple[Any, ...] | None:
        """The first row of a query, if there is one."""
        rows = self.rows(sql, *values)
        return rows[0] if rows else None

    def _execute(self, sql: str, values: tuple[Value, ...]) -> sqlite3.Cursor:
        assert self._live, "the transaction has ended"
        try:
            return self._connection.execute(sql, values)
        except sqlite3.Error as error:
            raise self._store._fault(error) from error

    def _end(self) -> None:
        self._live = False
        for cursor in self._cursors:  # a row that was not fetched would hold the view of the database open
            cursor.close()


class Store:
    """One connection to the database, safe to share between threads, one transaction at a time.

    Writers of all processes take turns on a lock beside the database, from before BEGIN until after the checkpoint that
    COMMIT may run: SQLite before 3.51.3 can corrupt a database when one connection checkpoints while another commits.
    """

    def __init__(self, path: Path, *, readonly: bool, busy_ms: int) -> None:
        self.path = path
        self.readonly = readonly
        self.applied: tuple[str, ...] = ()
        self._busy_ms = busy_ms
        self._mutex = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._writers: _WriterLock | None = None
        self._keeping: int | None = None

    @classmethod
    def open(cls, path: Path | str, *, readonly: bool = False, busy_ms: int = BUSY_MS) -> Store:
        """Open, check and migrate the database; `applied` then names the migrations that were run.

        A missing database is made, readable by its owner only, in a directory made likewise. With `readonly` nothing
        is made, migrated or tightened. Raises `StoreCorrupt`, `StoreTooNew` or `StoreError`; what is in a file that is
        refused has not been changed. `busy_ms` is how long this and every later transaction waits for others.
        """
        if sqlite3.sqlite_version_info < _SQLITE_LEAST:
            raise StoreError(f"SQLite {sqlite3.sqlite_version} is too old; fastroute needs 3.37 or later")
        store = cls(Path(path).resolve(), readonly=readonly, busy_ms=busy_ms)
        try:
            store._open()
        except BaseException:
            store.close()
            raise
        return store

    @classmethod
    def glance(cls, path: Path) -> Store:
        """Open to read what its bookkeeper has examined: however large it is, only owner and schema are looked at.

        One that was left by a crash or written by an earlier fastroute is opened, examined and migrated by `open`.
        """
        store = cls(path.resolve(), readonly=True, busy_ms=BUSY_MS)
        try:
            connection = store._connection = store._connect("ro")
            if store._is_usable(connection) and store._version(connection) == migrations.LATEST:
                return store
        except BaseException:
            store.close()
            raise
        store.close()
        return cls.open(path)

    def close(self) -> None:
        """Close the connection; closing twice is harmless."""
        with self._mutex:
            connection, self._connection = self._connection, None
            writers, self._writers = self._writers, None
            keeping, self._keeping = self._keeping, None
            # The last connection of all checkpoints as it closes; SQLite makes sure that it is alone.
            if connection is not None:
                connection.close()
            if writers is not None:
                writers.close()
            if keeping is not None:
                os.close(keeping)

    def keep(self) -> None:
        """Be the only one who keeps books in this file until it is closed, from whatever directory others would.

        The kernel frees it when its holder dies.
        """
        path = self._beside(".keeper")
        try:
            self._keeping = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            fcntl.flock(self._keeping, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(
                f"another fastroute keeps its books in {self.path}, from another state directory; use that directory "
                "(--state-dir), or another database"
            ) from None
        except OSError as error:
            raise StoreError(f"{path} cannot be locked: {error.strerror}") from error

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._connection is None else "readonly" if self.readonly else "open"
        return f"<Store {self.path} {state}>"

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """One consistent view of the database, however long others write meanwhile."""
        with self._mutex, self._transaction("BEGIN") as transaction:
            yield transaction

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """An immediate transaction: all of it is kept when the block ends, or none of it when the block raises."""
        with self._mutex:
            if self._writers is None:
                raise StoreError(f"{self.path} is {'open for reading only' if self.readonly else 'closed'}")
            self._not_nested()
            with self._writers.held(self._busy_ms), self._transaction("BEGIN IMMEDIATE") as transaction:
                yield transaction

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[Transaction]:
        connection = self._not_nested()
        self._run(connection, begin)
        transaction = Transaction(self, connection)
        try:
            yield transaction
            transaction._end()
            self._run(connection, "COMMIT")
        finally:
            transaction._end()
            if connection.in_transaction:
                self._run(connection, "ROLLBACK")

    def _not_nested(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreError(f"{self.path} is closed")
        assert not self._connection.in_transaction, "a transaction inside a transaction"
        return self._connection

    def _run(self, connection: sqlite3.Connection, sql: str) -> list[tuple[Any, ...]]:
        try:
            return connection.execute(sql).fetchall()
        except sqlite3.Error as error:
            raise self._fault(error) from error

    def _pragma(self, connection: sqlite3.Connection, name: str) -> Any:
        return self._run(connection, f"PRAGMA {name}")[0][0]

    # Opening

    def _open(self) -> None:
        if self.readonly:
            if not self.path.is_file():
                raise StoreError(f"there is no database at {self.path}")
            self._connection = self._connect("ro")
            if self._examine(self._connection) < migrations.LATEST:
                raise StoreError(f"{self.path} was last written by an earlier fastroute; run `fastroute migrate` first")
            return
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._writers = _WriterLock(self.path)
        except OSError as error:
            raise StoreError(f"{self.path} cannot be opened: {error.strerror}: {error.filename}") from error
        with self._writers.held(self._busy_ms):
            created = self._created()
        # Others may write while we look; a large file takes a while.
        examined = created or self._examined_untouched()
        with self._writers.held(self._busy_ms):
            self._connection = connection = self._connect("rw")
            if not examined:
                self._examine(connection)
            self._settle_in(connection)

    def _created(self) -> bool:
        """Make the file if it is missing, else see that only its owner may read it."""
        try:
            # Never opened by hand again: closing any descriptor of a database drops the locks SQLite holds on it.
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
            return True
        except FileExistsError:
            pass
        except OSError as error:
            raise StoreError(f"{self.path} cannot be made: {error.strerror}") from error
        try:
            if not stat.S_ISREG(self.path.stat().st_mode):
                raise StoreError(f"{self.path} is not a file, so it cannot be the database")
            # Tightened rather than refused: volume mounts widen modes on every start of a container.
            for path in (self.path, self._beside("-wal"), self._beside("-shm")):
                with suppress(FileNotFoundError):
                    if path.stat().st_mode & 0o077:
                        path.chmod(0o600)
        except OSError as error:
            raise StoreError(f"{self.path} cannot be kept private (mode 0600): {error.strerror}") from error
        return False

    def _examined_untouched(self) -> bool:
        """Examine through a connection that cannot write; False when SQLite must first repair after a crash.

        A writing connection would move the write-ahead log into the file as it closes, even into a damaged one.
        """
        with closing(self._connect("ro")) as connection:
            if not self._is_usable(connection):
                return False
            self._examine(connection)
        return True

    def _is_usable(self, connection: sqlite3.Connection) -> bool:
        """Whether it can be read as it is; False when SQLite must first repair it after a crash."""
        try:
            connection.execute("PRAGMA schema_version").fetchone()
        except sqlite3.Error as error:
            if _primary(error) in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
                return False
            raise self._fault(error) from error
        return True

    def _examine(self, connection: sqlite3.Connection) -> int:
        """The schema's version, once the file is known to be ours, not too new, and whole."""
        # In one view: between two statements another process may migrate.
        self._run(connection, "BEGIN")
        version = self._version(connection)
        found = self._pragma(connection, "quick_check(1)")
        if found != "ok":
            raise self._corrupt(found)
        self._full_length(connection)
        if version == 0:
            tables = {name for (name,) in self._run(connection, "SELECT name FROM sqlite_schema WHERE type = 'table'")}
            strange = sorted(name for name in tables - _SEED_TABLES if not name.startswith("sqlite_"))
            if strange:
                raise StoreError(f"{self.path} is the database of another program: it holds {', '.join(strange)}")
        self._run(connection, "COMMIT")
        return version

    def _full_length(self, connection: sqlite3.Connection) -> None:
        """A page cut short at the very end can still look whole; only its length tells."""
        expected = self._pragma(connection, "page_count") * self._pragma(connection, "page_size")
        # What is still in the log need not be in the file yet. Looked at in this order, others may write meanwhile.
        logged = 0
        with suppress(FileNotFoundError):
            logged = self._beside("-wal").stat().st_size
        if not logged and self.path.stat().st_size < expected:
            raise self._corrupt(f"it should be {expected} bytes long and is shorter")

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)

    def _version(self, connection: sqlite3.Connection) -> int:
        owner = self._pragma(connection, "application_id")
        version: int = self._pragma(connection, "user_version")
        if owner != _APPLICATION_ID and (owner, version) != (0, 0):
            raise StoreError(f"{self.path} is the database of another program (application id {owner:#x})")
        if version > migrations.LATEST:
            raise StoreTooNew(
                f"{self.path} has schema {version} and this fastroute knows none above {migrations.LATEST}; "
                "run the fastroute that wrote it, or a later one"
            )
        return version

    def _settle_in(self, connection: sqlite3.Connection) -> None:
        """Set the connection up and bring the schema to the latest version; the writers' lock is held."""
        mode = self._pragma(connection, "journal_mode")
        if mode != "wal":
            # Heard only where no page is written yet. Rows that are appended cost a sixth less in pages of this size.
            self._run(connection, f"PRAGMA page_size = {_PAGE_BYTES}")
            mode = self._pragma(connection, "journal_mode = WAL")
        if mode != "wal":
            raise StoreError(
                f"{self.path} lies on a filesystem without write-ahead logging (mode {mode}); use a local disk"
            )
        self._run(connection, "PRAGMA synchronous = FULL")
        pages = _LOG_BYTES // self._pragma(connection, "page_size")
        self._run(connection, f"PRAGMA wal_autocheckpoint = {pages}")
        self._run(connection, "PRAGMA trusted_schema = OFF")
        version = self._version(connection)
        if version < migrations.LATEST:
            if version:
                self._nobody_keeps(version)
            # Foreign keys are off meanwhile, since a migration may build a table anew; they are checked before the end.
            self._run(connection, "PRAGMA foreign_keys = OFF")
            with self._transaction("BEGIN IMMEDIATE") as transaction:
                self.applied = migrations.apply(transaction)
                transaction.run(f"PRAGMA application_id = {_APPLICATION_ID}")
                broken = transaction.row("PRAGMA foreign_key_check")
                if broken is not None:
                    raise StoreError(f"{self.path} was not migrated: row {broken[1]} of {broken[0]} refers to nothing")
        self._run(connection, "PRAGMA foreign_keys = ON")

    def _nobody_keeps(self, version: int) -> None:
        """Refuse to migrate books that a running fastroute keeps: it would find its tables gone."""
        # Before schema 7 only the state directory was locked, which the database is in unless somebody put it elsewhere.
        for path in (self._beside(".keeper"), self.path.with_name("run") / "bookkeeper.lock"):
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                continue  # nobody has kept any there
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StoreError(
                    f"{self.path} has schema {version} and is in use by a running fastroute; stop that one, and this one "
                    f"will bring it to schema {migrations.LATEST}"
                ) from None
            finally:
                os.close(descriptor)

    def _connect(self, mode: str) -> sqlite3.Connection:
        try:
            return sqlite3.connect(
                f"file:{quote(str(self.path))}?mode={mode}",
                uri=True,
                timeout=self._busy_ms / 1000,
                isolation_level=None,
                check_same_thread=False,
            )
        except sqlite3.Error as error:
            raise self._fault(error) from error

    # Faults

    def _fault(self, error: sqlite3.Error) -> StoreError:
        match _primary(error):
            case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
                return self._corrupt(str(error))
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                return _locked(self.path, self._busy_ms)
            case sqlite3.SQLITE_FULL:
                return StoreError(f"there is no room to write {self.path}; nothing of this change was kept")
            case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_AUTH:
                return StoreError(f"{self.path} cannot be used: {error}; check who owns it and its directory")
            case _:
                return StoreError(f"{self.path}: {error}")

    def _corrupt(self, found: str) -> StoreCorrupt:
        return StoreCorrupt(
            f"{self.path} is damaged: {found}. Nothing was changed or deleted; "
            "move it aside with its -wal and -shm files, then put a good copy in its place or start anew"
        )


class _WriterLock:
    """A file beside the database that one writer holds at a time; the kernel frees it when its holder dies."""

    def __init__(self, database: Path) -> None:
        self._database = database
        path = database.with_name(f"{database.name}.lock")
        self._descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    @contextmanager
    def held(self, busy_ms: int) -> Iterator[None]:
        until = time.monotonic() + busy_ms / 1000
        pause = 0.001
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise _locked(self._database, busy_ms) from None
                time.sleep(pause)
                pause = min(2 * pause, 0.02)
            except OSError as error:
                raise StoreError(f"the lock beside {self._database} cannot be taken: {error.strerror}") from error
        try:
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._descriptor)


def _locked(path: Path, busy_ms: int) -> StoreError:
    return StoreError(f"{path} is locked: another process has been writing to it for {busy_ms} ms; try again")


def _primary(error: sqlite3.Error) -> int:
    # A misuse that Python itself notices carries no code.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
