"""What the tables are: numbered steps from an empty database to today's, each never edited once released.

`sqlite` runs those that are missing, all inside one immediate transaction; `PRAGMA user_version` counts them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from fastroute.errors import StoreError


class Statements(Protocol):
    """What a migration may do: statements inside the transaction it was handed."""

    def run(self, sql: str, *values: Any) -> int: ...

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]: ...


class Migration(NamedTuple):
    """One step, from schema `number` - 1 to `number`."""

    number: int
    name: str
    step: Callable[[Statements], None]

    def __str__(self) -> str:
        return f"{self.number} {self.name}"


def _registry(tx: Statements) -> None:
    """Models and agents. The tables of an older inference router, if they are there, are taken over row by row."""
    taken_over = [name for (name,) in tx.rows("SELECT name FROM sqlite_schema WHERE name IN ('models', 'agents')")]
    for name in taken_over:
        tx.run(f"ALTER TABLE {name} RENAME TO {name}_before")
    tx.run("""
        CREATE TABLE agents (
            id INTEGER PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            endpoint TEXT NOT NULL,
            models TEXT NOT NULL DEFAULT '',
            last_heartbeat TEXT
        ) STRICT
    """)
    tx.run("""
        CREATE TABLE models (
            id INTEGER PRIMARY KEY,
            name TEXT NOT NULL UNIQUE CHECK (name <> ''),
            type TEXT NOT NULL CHECK (type IN (
                'local', 'openai', 'llm-d', 'anthropic', 'google', 'openrouter', 'grok', 'venice', 'huggingface',
                'mistral', 'dummy'
            )),
            endpoint TEXT NOT NULL CHECK (endpoint <> '' OR type = 'dummy'),
            kind TEXT NOT NULL DEFAULT 'api' CHECK (kind IN ('api', 'weight')),
            agent TEXT REFERENCES agents (name) ON UPDATE CASCADE ON DELETE CASCADE
        ) STRICT
    """)
    tx.run("CREATE INDEX models_by_agent ON models (agent) WHERE agent IS NOT NULL")
    tx.run("CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID")
    tx.run("INSERT INTO counters (name, value) VALUES ('registry_generation', 0)")
    # Triggers, so that no writer can forget: a running server looks at this one number to see that it is out of date.
    tx.run("""
        CREATE TRIGGER models_inserted AFTER INSERT ON models
        BEGIN UPDATE counters SET value = value + 1 WHERE name = 'registry_generation'; END
    """)
    tx.run("""
        CREATE TRIGGER models_deleted AFTER DELETE ON models
        BEGIN UPDATE counters SET value = value + 1 WHERE name = 'registry_generation'; END
    """)
    tx.run("""
        CREATE TRIGGER models_updated AFTER UPDATE ON models
        WHEN (OLD.name, OLD.type, OLD.endpoint, OLD.kind, OLD.agent)
            IS NOT (NEW.name, NEW.type, NEW.endpoint, NEW.kind, NEW.agent)
        BEGIN UPDATE counters SET value = value + 1 WHERE name = 'registry_generation'; END
    """)
    if "agents" in taken_over:
        tx.run("""
            INSERT INTO agents (name, endpoint, models, last_heartbeat)
            SELECT name, endpoint, coalesce(models, ''), strftime('%Y-%m-%dT%H:%M:%fZ', last_heartbeat)
            FROM agents_before
        """)
        tx.run("DROP TABLE agents_before")
    if "models" in taken_over:
        for row in tx.rows("SELECT name, type, endpoint, coalesce(kind, 'api') FROM models_before ORDER BY id"):
            try:
                tx.run("INSERT INTO models (name, type, endpoint, kind) VALUES (?, ?, ?, ?)", *row)
            except StoreError as error:
                raise StoreError(f"model {row[0]!r} of the older router cannot be taken over: {error}") from error
        tx.run("DROP TABLE models_before")


MIGRATIONS: tuple[Migration, ...] = (Migration(1, "registry", _registry),)
LATEST = len(MIGRATIONS)
assert [migration.number for migration in MIGRATIONS] == list(range(1, LATEST + 1)), "numbered 1, 2, 3 ..."


def apply(tx: Statements) -> tuple[str, ...]:
    """Run every step the database has not seen, in order; their names."""
    [[version]] = tx.rows("PRAGMA user_version")
    missing = MIGRATIONS[version:]
    for migration in missing:
        migration.step(tx)
        tx.run(f"PRAGMA user_version = {migration.number}")
    return tuple(str(migration) for migration in missing)
