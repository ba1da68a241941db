"""The store's door: what it makes, what it refuses, and that a transaction is all or nothing."""

import hashlib
import os
import random
import sqlite3
import threading
from pathlib import Path

import pytest

from fastroute.errors import StoreCorrupt, StoreError, StoreTooNew
from fastroute.ledger import migrations
from fastroute.ledger.registry import ModelRow, Registry
from fastroute.ledger.sqlite import Store


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class TestOpening:
    def test_a_missing_database_is_made_for_its_owner_only(self, database: Path) -> None:
        """Directory 0700, every file in it 0600, whatever the umask allows."""
        before = os.umask(0)
        try:
            with Store.open(database) as store, store.write() as tx:
                tx.run("UPDATE counters SET value = 7")
                files = {path.name: mode(path) for path in database.parent.iterdir()}
        finally:
            os.umask(before)
        assert mode(database.parent) == 0o700
        assert files == dict.fromkeys(
            ("fastroute.db", "fastroute.db-wal", "fastroute.db-shm", "fastroute.db.lock"), 0o600
        )

    def test_a_file_that_others_may_read_is_closed_to_them(self, filled: Path) -> None:
        filled.chmod(0o644)
        Store.open(filled).close()
        assert mode(filled) == 0o600

    def test_the_connection_is_durable_and_keeps_its_references(self, store: Store) -> None:
        """Write-ahead log, a sync for every commit, foreign keys checked."""
        with store.read() as tx:
            found = {name: tx.row(f"PRAGMA {name}") for name in ("journal_mode", "synchronous", "foreign_keys")}
            assert tx.row("PRAGMA busy_timeout") == (5000,)
        assert found == {"journal_mode": ("wal",), "synchronous": (2,), "foreign_keys": (1,)}

    def test_every_table_is_strict(self, store: Store) -> None:
        with store.read() as tx:
            tables = tx.rows(
                "SELECT name, strict FROM pragma_table_list WHERE schema = 'main' AND name NOT LIKE 'sqlite%'"
            )
        assert {strict for _, strict in tables} == {1}

    def test_a_path_may_hold_what_a_uri_may_not(self, tmp_path: Path) -> None:
        path = tmp_path / "a b?mode=memory#%41" / "fastroute.db"
        with Store.open(path) as store:
            Registry(store).add(ModelRow("m", "dummy", ""))
        assert path.is_file()

    def test_a_path_that_is_a_directory_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="is not a file") as caught:
            Store.open(tmp_path)
        assert str(tmp_path) in str(caught.value)

    def test_a_directory_that_cannot_be_made_is_refused(self, tmp_path: Path) -> None:
        """A file stands where the state directory should be; this also holds for root."""
        (tmp_path / "state").write_text("in the way")
        with pytest.raises(StoreError, match="cannot be opened") as caught:
            Store.open(tmp_path / "state" / "fastroute.db")
        assert str(tmp_path / "state") in str(caught.value)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_a_read_only_directory_is_refused(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o500)
        with pytest.raises(StoreError, match=r"fastroute\.db"):
            Store.open(tmp_path / "fastroute.db")
        tmp_path.chmod(0o700)

    def test_reading_only_makes_nothing_and_writes_nothing(self, filled: Path, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="there is no database at"):
            Store.open(tmp_path / "none" / "fastroute.db", readonly=True)
        assert not (tmp_path / "none").exists()
        with Store.open(filled, readonly=True) as store:
            assert len(Registry(store).list()) == 1500
            with pytest.raises(StoreError, match="reading only"), store.write():
                raise AssertionError("not reached")
            with pytest.raises(StoreError, match="readonly"), store.read() as tx:
                tx.run("DELETE FROM models")

    def test_a_glance_costs_the_same_however_large_the_database_is(self, database: Path) -> None:
        """Every worker takes one each second, to see whether the registry changed."""
        with Store.open(database) as store, store.write() as tx:
            tx.run("CREATE TABLE ballast (words TEXT) STRICT")
            tx.many("INSERT INTO ballast VALUES (?)", [("x" * 4096,) for _ in range(3000)])

        def read() -> int:
            return int(Path("/proc/self/io").read_text().split()[1])

        before = read()
        with Store.glance(database) as store:
            assert Registry(store).generation() == 0
            with pytest.raises(StoreError, match="reading only"), store.write():
                raise AssertionError("not reached")
        assert read() - before < 500_000

    def test_a_closed_store_says_so(self, database: Path) -> None:
        store = Store.open(database)
        store.close()
        store.close()
        assert repr(store) == f"<Store {database} closed>"
        with pytest.raises(StoreError, match="is closed"), store.read():
            raise AssertionError("not reached")
        with pytest.raises(StoreError, match="is closed"), store.write():
            raise AssertionError("not reached")


class TestDamage:
    """A damaged file is told as such, with its path and what to do, and is left byte for byte as it was found."""

    def refused(self, path: Path) -> str:
        before = digest(path)
        with pytest.raises(StoreCorrupt) as caught:
            Store.open(path)
        with pytest.raises(StoreCorrupt):
            Store.open(path, readonly=True)
        assert digest(path) == before
        assert str(path) in str(caught.value)
        assert "Nothing was changed or deleted; move it aside" in str(caught.value)
        return str(caught.value)

    @pytest.mark.parametrize("size", [2, 100, 4096, 40_000])
    def test_random_bytes(self, database: Path, size: int) -> None:
        database.parent.mkdir()
        database.write_bytes(random.Random(size).randbytes(size))
        assert "not a database" in self.refused(database)

    @pytest.mark.parametrize("cut", [1, 100, 4096, 12 * 4096, 100_000])
    def test_a_truncated_file(self, filled: Path, cut: int) -> None:
        os.truncate(filled, filled.stat().st_size - cut)
        self.refused(filled)

    def test_any_page_overwritten(self, filled: Path) -> None:
        whole = filled.read_bytes()
        size = int.from_bytes(whole[16:18], "big")  # of a page, as the file's head tells it
        noise = random.Random(4).randbytes(size)
        pages = len(whole) // size
        assert pages > 30
        step = 1 if os.environ.get("FASTROUTE_TORTURE") else 3
        for page in range(0, pages, step):
            filled.write_bytes(whole[: page * size] + noise + whole[(page + 1) * size :])
            self.refused(filled)

    def test_a_log_left_by_a_crash_is_not_moved_into_a_damaged_file(self, filled: Path, tmp_path: Path) -> None:
        """Closing the last writing connection would checkpoint; the examining one cannot."""
        with Store.open(filled) as store:
            Registry(store).add(ModelRow("late", "local", "http://127.0.0.1:5000"))
            kept = {path.name: path.read_bytes() for path in filled.parent.iterdir() if path.suffix != ".lock"}
        crashed = tmp_path / "crashed"
        crashed.mkdir()
        for name, data in kept.items():
            (crashed / name).write_bytes(data)
        spoiled = bytearray(kept["fastroute.db"])
        spoiled[8 * 4096 : 20 * 4096] = random.Random(5).randbytes(12 * 4096)  # more than the log holds
        (crashed / "fastroute.db").write_bytes(spoiled)
        self.refused(crashed / "fastroute.db")
        assert (crashed / "fastroute.db-wal").read_bytes() == kept["fastroute.db-wal"]

    def test_damage_met_while_running_is_told_the_same_way(self, filled: Path) -> None:
        with Store.open(filled) as store:
            data = bytearray(filled.read_bytes())
            for page in range(2, len(data) // 4096):
                data[page * 4096 : page * 4096 + 64] = b"\xff" * 64
            # Overwritten in place, as a failing disk would; SQLite holds no page of it in memory yet.
            with os.fdopen(os.open(filled, os.O_WRONLY), "wb") as file:
                file.write(data)
            with pytest.raises(StoreCorrupt, match="is damaged"):
                Registry(store).list()


class TestOthersDatabases:
    def test_a_newer_schema_is_refused_and_left_alone(self, filled: Path) -> None:
        connection = sqlite3.connect(filled)
        connection.execute(f"PRAGMA user_version = {migrations.LATEST + 1}")
        connection.close()
        before = digest(filled)
        with pytest.raises(StoreTooNew, match=f"has schema {migrations.LATEST + 1}") as caught:
            Store.open(filled)
        assert str(filled) in str(caught.value)
        assert digest(filled) == before

    @pytest.mark.parametrize(
        "statement", ["PRAGMA application_id = 7", "PRAGMA user_version = 3", "CREATE TABLE t (a)"]
    )
    def test_the_database_of_another_program_is_refused_and_left_alone(self, tmp_path: Path, statement: str) -> None:
        path = tmp_path / "theirs.db"
        connection = sqlite3.connect(path)
        connection.execute(statement)
        connection.close()
        before = digest(path)
        with pytest.raises(StoreError, match="another program"):
            Store.open(path)
        assert digest(path) == before


class TestTransactions:
    def test_a_block_that_raises_keeps_nothing(self, store: Store) -> None:
        def interrupted() -> None:
            with store.write() as tx:
                tx.run("INSERT INTO models (name, type, endpoint) VALUES ('m', 'dummy', '')")
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert Registry(store).list() == ()
        with store.write() as tx:
            assert tx.row("SELECT count(*) FROM models") == (0,)

    def test_a_reader_sees_one_state_while_another_writes(self, store: Store, database: Path) -> None:
        with Store.open(database) as other, other.read() as view:
            assert view.row("SELECT count(*) FROM models") == (0,)
            Registry(store).add(ModelRow("m", "dummy", ""))
            assert view.row("SELECT count(*) FROM models") == (0,)
        assert len(Registry(store).list()) == 1

    def test_a_transaction_inside_another_is_our_mistake(self, store: Store) -> None:
        with store.write(), pytest.raises(AssertionError, match="inside"), store.write():
            raise AssertionError("not reached")
        with store.read(), pytest.raises(AssertionError, match="inside"), store.write():
            raise AssertionError("not reached")

    def test_a_transaction_is_of_no_use_after_its_block(self, store: Store) -> None:
        with store.write() as tx:
            pass
        with pytest.raises(AssertionError, match="has ended"):
            tx.run("DELETE FROM models")

    def test_rows_that_are_read_one_by_one_hold_nothing_open(self, filled: Path) -> None:
        """Whoever stops half way does not keep the log of all later writers from being moved into the file."""
        with Store.open(filled) as store:
            with store.read() as tx:
                rows = tx.each("SELECT name FROM models")
                assert next(rows)
            with pytest.raises(AssertionError, match="ended"):
                next(rows)
            with store.write() as tx:
                tx.run("DELETE FROM models")
            with store.read() as tx:
                assert tx.row("PRAGMA wal_checkpoint(TRUNCATE)") == (0, 0, 0)

    def test_threads_share_a_store(self, store: Store) -> None:
        def add(prefix: str) -> None:
            for n in range(10):
                Registry(store).add(ModelRow(f"{prefix}-{n}", "dummy", ""))

        threads = [threading.Thread(target=add, args=(prefix,)) for prefix in "abc"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert len(Registry(store).list()) == Registry(store).generation() == 30


class TestFaults:
    """No fault leaves as sqlite3's own, and each names the file."""

    @pytest.mark.parametrize(
        ("sql", "values"),
        [
            ("SELEC 1", ()),
            ("SELECT 1; SELECT 2", ()),
            ("SELECT ?", ()),
            ("SELECT * FROM nowhere", ()),
            ("SELECT CAST(x'ff' AS TEXT)", ()),
            ("INSERT INTO models (name, type, endpoint) VALUES ('m', 'alien', 'x')", ()),
            ("INSERT INTO models (name, type, endpoint, agent) VALUES ('m', 'dummy', 'x', 'nobody')", ()),
            ("INSERT INTO counters (name, value) VALUES ('x', 'text')", ()),
        ],
    )
    def test_a_statement_that_fails(self, store: Store, sql: str, values: tuple[()]) -> None:
        with pytest.raises(StoreError, match=r"fastroute\.db"), store.write() as tx:
            tx.rows(sql, *values)
        with pytest.raises(StoreError, match=r"fastroute\.db"), store.write() as tx:
            tx.many(sql, [values, values])

    def test_a_full_disk_keeps_what_was_there(self, store: Store) -> None:
        Registry(store).add(ModelRow("before", "dummy", ""))
        with store.read() as tx:
            tx.run("PRAGMA max_page_count = 1")
        with pytest.raises(StoreError, match=r"no room to write .*fastroute\.db"), store.write() as tx:
            tx.many("INSERT INTO agents (name, endpoint) VALUES (?, 'x')", [(f"{n:0100}",) for n in range(1000)])
        with store.read() as tx:
            assert tx.row("SELECT count(*) FROM agents") == (0,)
        assert [row.name for row in Registry(store).list()] == ["before"]

    def test_a_stranger_who_holds_the_database_is_waited_for_and_then_told(self, filled: Path) -> None:
        stranger = sqlite3.connect(filled, isolation_level=None)
        stranger.execute("BEGIN IMMEDIATE")
        with Store.open(filled, busy_ms=30) as store:
            with pytest.raises(StoreError, match=r"fastroute\.db is locked"), store.write():
                raise AssertionError("not reached")
            stranger.execute("ROLLBACK")
            stranger.close()
            Registry(store).add(ModelRow("m", "dummy", ""))
