"""Migrations: from nothing, from an older router's database, and a second time."""

import re
import sqlite3
from pathlib import Path

import pytest

from fastroute.domain import MODEL_KINDS
from fastroute.errors import StoreError
from fastroute.ledger import migrations
from fastroute.ledger.migrations import Migration, Statements
from fastroute.ledger.registry import MODEL_TYPES, ModelRow, Registry
from fastroute.ledger.sqlite import Store


def schema(path: Path) -> list[tuple[str, ...]]:
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY name").fetchall()
    connection.close()
    return rows


def test_they_run_from_version_0_and_a_second_time_do_nothing(database: Path) -> None:
    with Store.open(database) as store:
        assert store.applied == tuple(str(migration) for migration in migrations.MIGRATIONS)
        with store.read() as tx:
            assert tx.row("PRAGMA user_version") == (migrations.LATEST,)
    first = schema(database), database.read_bytes()
    with Store.open(database) as store:
        assert store.applied == ()
    assert (schema(database), database.read_bytes()) == first


def test_an_empty_file_is_a_database_at_version_0(database: Path) -> None:
    """What a crash between making the file and filling it leaves."""
    database.parent.mkdir()
    database.touch()
    with Store.open(database) as store:
        assert len(store.applied) == migrations.LATEST


def test_a_process_that_migrates_while_another_looks_is_not_mistaken_for_a_stranger(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read of the file on opening is read in one view."""
    database.parent.mkdir()
    connection = sqlite3.connect(database)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    pragma = Store._pragma

    def interrupted(store: Store, connection: sqlite3.Connection, name: str) -> object:
        found = pragma(store, connection, name)
        if name == "application_id":
            monkeypatch.undo()
            Store.open(database).close()
        return found

    monkeypatch.setattr(Store, "_pragma", interrupted)
    with Store.open(database) as store:
        assert store.applied == ()


def test_a_step_that_fails_leaves_the_version_before_all_of_them(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def good(tx: Statements) -> None:
        tx.run("CREATE TABLE later (a INTEGER) STRICT")

    def bad(tx: Statements) -> None:
        tx.run("DROP TABLE models")
        tx.run("INSERT INTO nowhere VALUES (1)")

    before = schema(filled)
    last = migrations.LATEST
    steps = (*migrations.MIGRATIONS, Migration(last + 1, "good", good), Migration(last + 2, "bad", bad))
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "MIGRATIONS", steps)
        patch.setattr(migrations, "LATEST", last + 2)
        with pytest.raises(StoreError, match="nowhere"):
            Store.open(filled)
        with pytest.raises(StoreError, match="earlier fastroute"):
            Store.open(filled, readonly=True)
    assert schema(filled) == before
    with Store.open(filled) as store:
        assert store.applied == ()
        assert len(Registry(store).list()) == 1500


def test_a_step_may_not_leave_a_row_that_refers_to_nothing(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    last = migrations.LATEST
    orphan = Migration(last + 1, "orphan", lambda tx: tx.run("UPDATE models SET agent = 'nobody'") and None)
    monkeypatch.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, orphan))
    monkeypatch.setattr(migrations, "LATEST", last + 1)
    with pytest.raises(StoreError, match="was not migrated: row 1 of models refers to nothing"):
        Store.open(filled)


def test_the_tables_and_the_code_name_the_same_types_and_kinds(store: Store) -> None:
    with store.read() as tx:
        row = tx.row("SELECT sql FROM sqlite_schema WHERE name = 'models'")
    assert row is not None
    lists = re.findall(r"IN \(([^)]*)\)", row[0])
    assert [tuple(re.findall(r"'([^']+)'", text)) for text in lists] == [MODEL_TYPES, MODEL_KINDS]


class TestAnOlderRoutersDatabase:
    """SQLITE_DB_PATH may still name the file of an inference router; its rows are taken over, all or nothing."""

    def older(self, path: Path, *models: tuple[str, str, str, str]) -> Path:
        path.parent.mkdir(exist_ok=True)
        connection = sqlite3.connect(path)
        connection.executescript("""
            CREATE TABLE models (id INTEGER NOT NULL, name VARCHAR NOT NULL, type VARCHAR NOT NULL,
                                 endpoint VARCHAR NOT NULL, kind VARCHAR, PRIMARY KEY (id));
            CREATE UNIQUE INDEX ix_models_name ON models (name);
            CREATE TABLE agents (id INTEGER NOT NULL, name VARCHAR NOT NULL UNIQUE, endpoint VARCHAR NOT NULL,
                                 models VARCHAR NOT NULL, last_heartbeat DATETIME, PRIMARY KEY (id));
            INSERT INTO agents VALUES (1, 'mac', 'http://mac:5000', 'a,b', '2025-06-01 10:00:00.250000');
        """)
        connection.executemany("INSERT INTO models (name, type, endpoint, kind) VALUES (?, ?, ?, ?)", models)
        connection.commit()
        connection.close()
        return path

    def test_its_rows_are_taken_over(self, database: Path) -> None:
        self.older(
            database, ("b", "local", "http://mac:5000", "weight"), ("a", "openai", "https://api.openai.com", "api")
        )
        with Store.open(database) as store:
            assert Registry(store).list() == (
                ModelRow("a", "openai", "https://api.openai.com"),
                ModelRow(
                    "b", "local", "http://mac:5000", "weight", agent="mac"
                ),  # its own; `a` is somebody else's by now
            )
            with store.read() as tx:
                heard_ms = 1_748_772_000_000  # 2025-06-01T10:00:00Z
                assert tx.rows("SELECT name, endpoint, owner, heard_ms FROM agents") == [
                    ("mac", "http://mac:5000", 0, heard_ms)
                ]
        assert not [name for _, name, _ in schema(database) if "before" in name or name.startswith("ix_")]

    def test_a_row_it_should_not_have_is_named_and_nothing_is_changed(self, database: Path) -> None:
        self.older(database, ("good", "local", "http://mac:5000", "weight"), ("odd", "alien", "http://x", "api"))
        before = schema(database)
        with pytest.raises(StoreError, match="model 'odd' of the older router cannot be taken over"):
            Store.open(database)
        assert schema(database) == before

    def test_a_write_that_a_crash_cut_off_is_rolled_back_first(self, database: Path, tmp_path: Path) -> None:
        """A hot rollback journal needs a connection that may write; the examining one steps aside."""
        older = self.older(tmp_path / "older" / "models.db", ("a", "local", "http://mac:5000", "weight"))
        connection = sqlite3.connect(older, isolation_level=None)
        connection.execute("PRAGMA cache_size = 2")  # so that pages and journal reach the disk before the commit
        connection.execute("BEGIN")
        rows = [(f"half-{n:0200}", "local", "http://x", "api") for n in range(500)]
        connection.executemany("INSERT INTO models (name, type, endpoint, kind) VALUES (?, ?, ?, ?)", rows)
        database.parent.mkdir()
        database.write_bytes(older.read_bytes())
        database.with_name("fastroute.db-journal").write_bytes(older.with_name("models.db-journal").read_bytes())
        connection.close()
        with Store.open(database) as store:
            assert [row.name for row in Registry(store).list()] == ["a"]
