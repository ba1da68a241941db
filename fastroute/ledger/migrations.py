"""What the tables are: numbered steps from an empty database to today's, each never edited once released.

`sqlite` runs those that are missing, all inside one immediate transaction; `PRAGMA user_version` counts them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from msgspec import DecodeError, json

from fastroute.errors import StoreError
from fastroute.ledger import leaves
from fastroute.ledger.store import EntryRow, ReceiptRow

_MOVED = 4096  # rows that are in memory at a time


class Statements(leaves.Statements, Protocol):
    """What a migration may do: statements inside the transaction it was handed."""

    def run(self, sql: str, *values: Any) -> int: ...


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


def _books(tx: Statements) -> None:
    """The books: who spends, what may be spent, who holds rights to it, and what was spent.

    Balances are checked by the book and by the audit, not here: a breach may take them where no CHECK would let them.
    Lists are JSON, so that whoever looks with SQL alone can read them. What an entry tells stands in the order of the
    fields of `EntryRow`: twenty columns cost whoever keeps the books two microseconds more for each attempt.
    """
    tx.run("""
        CREATE TABLE accounts (
            id INTEGER PRIMARY KEY,
            public_id TEXT NOT NULL UNIQUE,
            kind TEXT NOT NULL CHECK (kind IN ('key', 'grant', 'agent', 'lease', 'user')),
            name TEXT NOT NULL,
            digest BLOB UNIQUE,
            hint TEXT NOT NULL,
            state TEXT NOT NULL CHECK (state IN ('live', 'revoked', 'ended')),
            created_ms INTEGER NOT NULL,
            parent INTEGER REFERENCES accounts (id),
            expires_ms INTEGER,
            models TEXT NOT NULL,
            rpm INTEGER,
            tpm INTEGER,
            concurrency INTEGER,
            metadata TEXT NOT NULL,
            replaced BLOB,
            replaced_until_ms INTEGER
        ) STRICT
    """)
    tx.run("CREATE INDEX accounts_by_parent ON accounts (parent) WHERE parent IS NOT NULL")
    tx.run("CREATE INDEX accounts_by_name ON accounts (kind, name)")
    tx.run("""
        CREATE TABLE budgets (
            id INTEGER PRIMARY KEY,
            account INTEGER NOT NULL REFERENCES accounts (id),
            unit TEXT NOT NULL CHECK (unit IN ('microdollar', 'token', 'request')),
            amount INTEGER NOT NULL CHECK (amount >= 0),
            window TEXT NOT NULL CHECK (window IN ('total', 'daily', 'monthly')),
            zone TEXT NOT NULL
        ) STRICT
    """)
    tx.run("CREATE INDEX budgets_by_account ON budgets (account)")
    # Not a reference to the budget: a limit may be lifted, and what was spent under it stays told.
    tx.run("""
        CREATE TABLE windows (
            id INTEGER PRIMARY KEY,
            budget INTEGER NOT NULL,
            name TEXT NOT NULL,
            ends_ms INTEGER,
            closed INTEGER NOT NULL,
            UNIQUE (budget, name)
        ) STRICT
    """)
    tx.run("""
        CREATE TABLE holders (
            id INTEGER PRIMARY KEY,
            kind TEXT NOT NULL CHECK (kind IN ('worker', 'allocation')),
            account INTEGER REFERENCES accounts (id),
            boot_id TEXT NOT NULL,
            segment INTEGER NOT NULL,
            offset INTEGER NOT NULL,
            seq INTEGER NOT NULL,
            live INTEGER NOT NULL CHECK (live IN (0, 1))
        ) STRICT
    """)
    tx.run("CREATE INDEX holders_live ON holders (id) WHERE live")
    tx.run("""
        CREATE TABLE leases (
            window INTEGER NOT NULL REFERENCES windows (id),
            holder INTEGER NOT NULL REFERENCES holders (id),
            granted INTEGER NOT NULL CHECK (granted >= 0),
            released INTEGER NOT NULL CHECK (released >= 0),
            spent INTEGER NOT NULL,
            done INTEGER NOT NULL CHECK (done IN (0, 1)),
            PRIMARY KEY (window, holder)
        ) STRICT, WITHOUT ROWID
    """)
    tx.run("CREATE INDEX leases_open ON leases (window) WHERE NOT done")
    tx.run("""
        CREATE TABLE open_requests (
            holder INTEGER NOT NULL,
            request TEXT NOT NULL,
            body BLOB NOT NULL,
            PRIMARY KEY (holder, request)
        ) STRICT, WITHOUT ROWID
    """)
    tx.run("""
        CREATE TABLE entries (
            holder INTEGER NOT NULL,
            attempt INTEGER NOT NULL,
            request TEXT NOT NULL,
            told TEXT NOT NULL,
            corrects_holder INTEGER,
            corrects_attempt INTEGER,
            PRIMARY KEY (holder, attempt)
        ) STRICT, WITHOUT ROWID
    """)
    tx.run("CREATE INDEX entries_by_request ON entries (request)")
    tx.run("""
        CREATE INDEX entries_correcting ON entries (corrects_holder, corrects_attempt)
        WHERE corrects_holder IS NOT NULL
    """)
    tx.run("""
        CREATE TABLE receipts (
            seq INTEGER PRIMARY KEY,
            id TEXT NOT NULL,
            request TEXT NOT NULL,
            account INTEGER NOT NULL,
            at_ms INTEGER NOT NULL,
            body BLOB NOT NULL,
            link BLOB NOT NULL
        ) STRICT
    """)
    # Not unique: no paper is worth that the money stops. The audit tells of doubles.
    tx.run("CREATE INDEX receipts_by_id ON receipts (id)")
    tx.run("CREATE INDEX receipts_by_request ON receipts (request)")
    tx.run("CREATE INDEX receipts_by_account ON receipts (account)")  # and by seq, which is the row's number
    tx.run("""
        CREATE TABLE usage (
            account INTEGER NOT NULL,
            day TEXT NOT NULL,
            model TEXT NOT NULL,
            requests INTEGER NOT NULL,
            attempts INTEGER NOT NULL,
            input_tokens INTEGER NOT NULL,
            output_tokens INTEGER NOT NULL,
            microdollars INTEGER NOT NULL,
            PRIMARY KEY (account, day, model)
        ) STRICT, WITHOUT ROWID
    """)
    tx.run("""
        CREATE TABLE records (
            kind TEXT NOT NULL,
            id TEXT NOT NULL,
            account INTEGER NOT NULL,
            at_ms INTEGER NOT NULL,
            body BLOB NOT NULL,
            expires_ms INTEGER,
            PRIMARY KEY (kind, id)
        ) STRICT, WITHOUT ROWID
    """)
    tx.run("CREATE INDEX records_by_account ON records (kind, account, at_ms)")
    tx.run("CREATE INDEX records_by_expiry ON records (expires_ms) WHERE expires_ms IS NOT NULL")
    tx.run("CREATE TABLE notes (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID")


def _agents(tx: Statements) -> None:
    """What agents announce: several may offer one model, so their models are rows of their own.

    Models that an older router's agents had announced become their offers, where nobody has changed the row since.
    """
    for column in (
        "owner INTEGER NOT NULL DEFAULT 0",
        "peer TEXT NOT NULL DEFAULT ''",
        "keyed INTEGER NOT NULL DEFAULT 0",
        "since_ms INTEGER NOT NULL DEFAULT 0",
        "heard_ms INTEGER NOT NULL DEFAULT 0",
    ):
        tx.run(f"ALTER TABLE agents ADD COLUMN {column}")
    tx.run("UPDATE agents SET heard_ms = coalesce(CAST(strftime('%s', last_heartbeat) AS INTEGER) * 1000, 0)")
    tx.run("""
        CREATE TABLE offers (
            agent TEXT NOT NULL REFERENCES agents (name) ON UPDATE CASCADE ON DELETE CASCADE,
            model TEXT NOT NULL CHECK (model <> ''),
            PRIMARY KEY (agent, model)
        ) STRICT, WITHOUT ROWID
    """)
    # Names that agents offered once: an alias that has one of them leads to nobody for now, and is no mistake.
    tx.run("CREATE TABLE offered (model TEXT PRIMARY KEY) STRICT, WITHOUT ROWID")
    for agent, endpoint, models in tx.rows("SELECT name, endpoint, models FROM agents ORDER BY name"):
        for model in dict.fromkeys(filter(None, (name.strip() for name in models.split(",")))):
            own = "name = ? AND type = 'local' AND endpoint = ?"
            if tx.run(f"DELETE FROM models WHERE {own}", model, endpoint):  # noqa: S608  a constant
                tx.run("INSERT INTO offers (agent, model) VALUES (?, ?)", agent, model)
    tx.run("INSERT INTO offered (model) SELECT DISTINCT model FROM offers")
    tx.run("ALTER TABLE agents DROP COLUMN models")
    tx.run("ALTER TABLE agents DROP COLUMN last_heartbeat")
    moved = "BEGIN UPDATE counters SET value = value + 1 WHERE name = 'registry_generation'; END"
    for name, what in (
        ("offers_inserted", "INSERT ON offers"),
        ("offers_deleted", "DELETE ON offers"),
        ("agents_deleted", "DELETE ON agents"),
        # Not `heard_ms`: an agent that is well changes nothing for those who serve.
        ("agents_updated", "UPDATE OF name, endpoint, owner, peer, keyed ON agents"),
    ):
        tx.run(f"CREATE TRIGGER {name} AFTER {what} {moved}")


def _gguf(tx: Statements) -> None:
    """Models may be of the type gguf. A table's rules cannot be altered, so it is made anew by its own words."""
    made = "SELECT sql FROM sqlite_schema WHERE tbl_name = 'models' AND type = ? AND sql IS NOT NULL ORDER BY name"
    [[table]] = tx.rows(made, "table")
    rest = [sql for kind in ("index", "trigger") for (sql,) in tx.rows(made, kind)]
    columns = ", ".join(name for _, name, *_ in tx.rows("PRAGMA table_info(models)"))
    body = table.partition("(")[2]
    assert body.count("'dummy'\n") == 1, "the list of types ends so since migration 1"
    tx.run("CREATE TABLE models_with_gguf (" + body.replace("'dummy'\n", "'dummy', 'gguf'\n"))
    tx.run(f"INSERT INTO models_with_gguf ({columns}) SELECT {columns} FROM models")  # noqa: S608  the table's own names
    tx.run("DROP TABLE models")
    tx.run("ALTER TABLE models_with_gguf RENAME TO models")
    for sql in rest:
        tx.run(sql)


def _preferences(tx: Statements) -> None:
    """Whether an account would rather have it cheap or quick."""
    tx.run("ALTER TABLE accounts ADD COLUMN prefer TEXT CHECK (prefer IN ('cost', 'latency'))")


def _lighter_receipts(tx: Statements) -> None:
    """A receipt is found by its id alone, which follows from its request's: an index less for each request."""
    tx.run("DROP INDEX receipts_by_request")


def _leaves(tx: Statements) -> None:
    """Entries and receipts by the leaf, which `leaves` reads and writes; those that are there move.

    Whoever changes what a leaf is writes down here what it was, for those who come from before.
    """
    # `told` has a bit for each attempt whose entry is there.
    for table, columns in (
        ("entry_leaves", "number INTEGER PRIMARY KEY, count INTEGER NOT NULL, entries TEXT NOT NULL"),
        (
            "receipt_leaves",
            "first INTEGER PRIMARY KEY, last INTEGER NOT NULL, count INTEGER NOT NULL, receipts BLOB NOT NULL",
        ),
    ):
        tx.run(f"CREATE TABLE {table} ({columns}) STRICT")
    for table, columns in (
        ("entry_names", "name TEXT NOT NULL, leaf INTEGER NOT NULL, PRIMARY KEY (name, leaf)"),
        ("receipt_names", "name TEXT NOT NULL, leaf INTEGER NOT NULL, PRIMARY KEY (name, leaf)"),
        ("receipt_accounts", "account INTEGER NOT NULL, leaf INTEGER NOT NULL, PRIMARY KEY (account, leaf)"),
        ("told", "holder INTEGER NOT NULL, block INTEGER NOT NULL, bits BLOB NOT NULL, PRIMARY KEY (holder, block)"),
    ):
        tx.run(f"CREATE TABLE {table} ({columns}) STRICT, WITHOUT ROWID")
    # What has moved is deleted at once: its pages are used again, and the file does not double.
    for index in ("entries_by_request", "entries_correcting", "receipts_by_id", "receipts_by_account"):
        tx.run(f"DROP INDEX {index}")
    while rows := tx.rows("SELECT holder, attempt, told FROM entries ORDER BY holder, attempt LIMIT ?", _MOVED):
        leaves.add_entries(tx, [_entry(*row) for row in rows])
        tx.run("DELETE FROM entries WHERE (holder, attempt) <= (?, ?)", *rows[-1][:2])
    columns = "seq, id, request, account, at_ms, body, link"
    while rows := tx.rows(f"SELECT {columns} FROM receipts ORDER BY seq LIMIT ?", _MOVED):  # noqa: S608  a constant
        leaves.add_receipts(tx, [ReceiptRow(*row) for row in rows])
        tx.run("DELETE FROM receipts WHERE seq <= ?", rows[-1][0])
    tx.run("DROP TABLE entries")
    tx.run("DROP TABLE receipts")


def _entry(holder: int, attempt: int, told: str) -> EntryRow:
    try:
        return json.decode(told, type=EntryRow)
    except DecodeError as error:
        raise StoreError(f"the entry of attempt {attempt} of holder {holder} cannot be taken over: {error}") from error


MIGRATIONS: tuple[Migration, ...] = (
    Migration(1, "registry", _registry),
    Migration(2, "books", _books),
    Migration(3, "agents", _agents),
    Migration(4, "gguf", _gguf),
    Migration(5, "preferences", _preferences),
    Migration(6, "lighter receipts", _lighter_receipts),
    Migration(7, "leaves", _leaves),
)
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
