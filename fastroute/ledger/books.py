"""The books in SQLite: a set of changed rows becomes durable in one transaction, and questions are answered in SQL.

Only rows are known here; what they mean is the book's. `library` says what may be asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import msgspec

from fastroute.errors import StoreCorrupt, StoreDamaged
from fastroute.ledger import leaves
from fastroute.ledger.library import SWEEP_ROWS, Counts, Snapshot, first_day
from fastroute.ledger.sqlite import Store, Transaction
from fastroute.ledger.store import (
    AccountRow,
    BudgetRow,
    Changes,
    EntryRow,
    HolderRow,
    LeaseRow,
    OpenRow,
    ReceiptRow,
    RecordRow,
    State,
    UsageDelta,
    WindowRow,
)

_json = msgspec.json.Encoder()
_names = msgspec.json.Decoder(tuple[str, ...])
_document = msgspec.json.Decoder(dict[str, Any])


def _upsert(table: str, keys: str, rest: str, *, add: bool = False) -> str:
    """INSERT of all columns that, where the row is there, sets the rest of them (or adds to them)."""
    columns = [name.strip() for name in f"{keys}, {rest}".split(",")]
    sets = [
        f"{name} = {name} + excluded.{name}" if add else f"{name} = excluded.{name}"
        for name in columns[keys.count(",") + 1 :]
    ]
    # Names of tables and columns are constants of this file.
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))}) "  # noqa: S608
        f"ON CONFLICT ({keys}) DO UPDATE SET {', '.join(sets)}"
    )


_ACCOUNT = (
    "public_id, kind, name, digest, hint, state, created_ms, parent, expires_ms, models, rpm, tpm, concurrency, "
    "metadata, replaced, replaced_until_ms, prefer"
)
_BUDGET = "account, unit, amount, window, zone"
_WINDOW = "budget, name, ends_ms, closed"
_LEASE = "granted, released, spent, done"
_HOLDER = "kind, account, boot_id, segment, offset, seq, live"
_RECORD = "account, at_ms, body, expires_ms"
_USAGE = "requests, attempts, input_tokens, output_tokens, microdollars"

_PUT_ACCOUNT = _upsert("accounts", "id", _ACCOUNT)
_PUT_BUDGET = _upsert("budgets", "id", _BUDGET)
_PUT_WINDOW = _upsert("windows", "id", _WINDOW)
_PUT_LEASE = _upsert("leases", "window, holder", _LEASE)
_PUT_HOLDER = _upsert("holders", "id", _HOLDER)
_PUT_OPEN = _upsert("open_requests", "holder, request", "body")
_PUT_RECORD = _upsert("records", "kind, id", _RECORD)
_PUT_NOTE = _upsert("notes", "name", "value")
_ADD_USAGE = _upsert("usage", "account, day, model", _USAGE, add=True)

_SELECT_ACCOUNT = f"SELECT id, {_ACCOUNT} FROM accounts"  # noqa: S608  constants, here and below
_SELECT_BUDGET = f"SELECT id, {_BUDGET} FROM budgets"  # noqa: S608
_SELECT_WINDOW = f"SELECT id, {_WINDOW} FROM windows"  # noqa: S608
_SELECT_LEASE = f"SELECT window, holder, {_LEASE} FROM leases"  # noqa: S608
_SELECT_HOLDER = f"SELECT id, {_HOLDER} FROM holders"  # noqa: S608
_SELECT_OPEN = "SELECT holder, request, body FROM open_requests"
_SELECT_RECORD = f"SELECT kind, id, {_RECORD} FROM records"  # noqa: S608
_SELECT_USAGE = f"SELECT account, day, model, {_USAGE} FROM usage"  # noqa: S608
# Windows long left whose leases are done play no part any more: there is one for each day of each key.
_CURRENT = (
    " WHERE id IN (SELECT max(id) FROM windows GROUP BY budget) OR id IN (SELECT window FROM leases WHERE NOT done)"
)


class Books:
    """The books inside one `Store`: a `BookStore` and a `Library`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def keep(self) -> None:
        self._store.keep()

    def load(self) -> State:
        with self._store.read() as tx:
            try:
                last_receipt = leaves.last_receipt(tx)
            except StoreDamaged as error:  # the next one would follow it
                raise StoreCorrupt(str(error)) from error
            [[last_holder]] = tx.rows("SELECT coalesce(max(id), 0) FROM holders")
            return State(
                accounts=[_account(row) for row in tx.rows(f"{_SELECT_ACCOUNT} ORDER BY id")],
                budgets=[BudgetRow(*row) for row in tx.rows(f"{_SELECT_BUDGET} ORDER BY id")],
                windows=[WindowRow(*row) for row in tx.rows(f"{_SELECT_WINDOW}{_CURRENT} ORDER BY id")],
                leases=[_lease(row) for row in tx.rows(f"{_SELECT_LEASE} WHERE NOT done ORDER BY window, holder")],
                holders=[_holder(row) for row in tx.rows(f"{_SELECT_HOLDER} WHERE live ORDER BY id")],
                open=[OpenRow(*row) for row in tx.rows(f"{_SELECT_OPEN} ORDER BY holder, request")],
                notes=dict(tx.rows("SELECT name, value FROM notes ORDER BY name")),
                last_holder=last_holder,
                last_receipt=last_receipt,
            )

    def commit(self, changes: Changes) -> None:
        """Make all of it durable in one transaction; with nothing changed, none is made."""
        if changes == Changes():
            return
        with self._store.write() as tx:
            _put(tx, changes)

    # Questions

    def receipt(self, id: str) -> ReceiptRow | None:  # noqa: A002  the word of the rows
        with self._store.read() as tx:
            return leaves.receipt(tx, id)

    def receipts(self, *, account: int | None = None, limit: int = 100, before: int | None = None) -> list[ReceiptRow]:
        with self._store.read() as tx:
            return leaves.newest(tx, account, limit, before)

    def chain(self, seq: int = 1, limit: int = 1000) -> list[ReceiptRow]:
        with self._store.read() as tx:
            return list(islice(leaves.chain(tx, seq), limit))

    def usage(self, account: int | None, *, days: int, now_ms: int) -> list[UsageDelta]:
        where, values = _where(("account = ?", account), ("day >= ?", first_day(days, now_ms)))
        with self._store.read() as tx:
            return [
                UsageDelta(*row) for row in tx.rows(f"{_SELECT_USAGE} {where} ORDER BY account, day, model", *values)
            ]

    def entries(self, request: str) -> list[EntryRow]:
        with self._store.read() as tx:
            return leaves.entries(tx, request)

    def windows(self, numbers: Sequence[int]) -> list[WindowRow]:
        with self._store.read() as tx:
            found = [tx.row(f"{_SELECT_WINDOW} WHERE id = ?", number) for number in numbers]
        return [WindowRow(*row) for row in found if row is not None]

    def anybody_has_a_key(self) -> bool:
        """Whether an account was ever given a token to call with."""
        with self._store.read() as tx:
            return bool(tx.rows("SELECT 1 FROM accounts WHERE kind IN ('key', 'agent') LIMIT 1"))

    def record(self, kind: str, id: str) -> RecordRow | None:  # noqa: A002  the word of the rows
        with self._store.read() as tx:
            row = tx.row(f"{_SELECT_RECORD} WHERE kind = ? AND id = ?", kind, id)
        return None if row is None else RecordRow(*row)

    def records(
        self, kind: str, *, account: int | None = None, limit: int = 100, before_ms: int | None = None
    ) -> list[RecordRow]:
        where, values = _where(("kind = ?", kind), ("account = ?", account), ("at_ms < ?", before_ms))
        with self._store.read() as tx:
            rows = tx.rows(f"{_SELECT_RECORD} {where} ORDER BY at_ms DESC, id DESC LIMIT ?", *values, limit)
        return [RecordRow(*row) for row in rows]

    def record_names(self, kind: str, *, after: str = "", limit: int = 100) -> list[tuple[str, int]]:
        names = "SELECT id, at_ms FROM records WHERE kind = ? AND id > ? ORDER BY id LIMIT ?"
        with self._store.read() as tx:
            return [(id, at_ms) for id, at_ms in tx.rows(names, kind, after, limit)]  # noqa: A001

    def sweep(self, now_ms: int) -> int:
        expired = "SELECT kind, id FROM records WHERE expires_ms <= ? LIMIT ?"
        with self._store.read() as tx:
            if not tx.rows(expired, now_ms, 1):
                return 0
        with self._store.write() as tx:
            return tx.run(f"DELETE FROM records WHERE (kind, id) IN ({expired})", now_ms, SWEEP_ROWS)  # noqa: S608

    def counts(self) -> Counts:
        tables = ("accounts", "holders", "open_requests")
        with self._store.read() as tx:
            accounts, holders, open_ = (tx.rows(f"SELECT count(*) FROM {table}")[0][0] for table in tables)  # noqa: S608
            entries, receipts = leaves.counts(tx)
            return Counts(accounts, holders, open_, entries, receipts)

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        with self._store.read() as tx:
            yield Snapshot(
                accounts=[_account(row) for row in tx.rows(f"{_SELECT_ACCOUNT} ORDER BY id")],
                budgets=[BudgetRow(*row) for row in tx.rows(f"{_SELECT_BUDGET} ORDER BY id")],
                windows=[WindowRow(*row) for row in tx.rows(f"{_SELECT_WINDOW} ORDER BY id")],
                leases=[_lease(row) for row in tx.rows(f"{_SELECT_LEASE} ORDER BY window, holder")],
                holders=[_holder(row) for row in tx.rows(f"{_SELECT_HOLDER} ORDER BY id")],
                open=[OpenRow(*row) for row in tx.rows(f"{_SELECT_OPEN} ORDER BY holder, request")],
                usage=[UsageDelta(*row) for row in tx.rows(f"{_SELECT_USAGE} ORDER BY account, day, model")],
                entries=leaves.all_entries(tx),
                receipts=leaves.chain(tx, 1),
            )


def _put(tx: Transaction, changes: Changes) -> None:
    if changes.accounts:
        # Parents first: they are the older ones.
        tx.many(_PUT_ACCOUNT, [_of_account(row) for _, row in sorted(changes.accounts.items())])
    if changes.budgets:
        tx.many(
            _PUT_BUDGET,
            [(row.id, row.account, row.unit, row.amount, row.window, row.zone) for row in changes.budgets.values()],
        )
    if changes.windows:
        tx.many(
            _PUT_WINDOW, [(row.id, row.budget, row.name, row.ends_ms, row.closed) for row in changes.windows.values()]
        )
    if changes.holders:
        tx.many(
            _PUT_HOLDER,
            [
                (row.id, row.kind, row.account, row.boot_id, row.segment, row.offset, row.seq, row.live)
                for row in changes.holders.values()
            ],
        )
    if changes.leases:
        tx.many(
            _PUT_LEASE,
            [
                (row.window, row.holder, row.granted, row.released, row.spent, row.done)
                for row in changes.leases.values()
            ],
        )
    if changes.open:
        gone = [key for key, row in changes.open.items() if row is None]
        if gone:
            tx.many("DELETE FROM open_requests WHERE holder = ? AND request = ?", gone)
        tx.many(_PUT_OPEN, [(row.holder, row.request, row.body) for row in changes.open.values() if row is not None])
    if changes.entries:
        leaves.add_entries(tx, changes.entries)
    if changes.receipts:
        leaves.add_receipts(tx, changes.receipts)
    if changes.usage:
        tx.many(_ADD_USAGE, _summed(changes.usage))
    if changes.records:
        forgotten = [key for key, row in changes.records.items() if row is None]
        tx.many("DELETE FROM records WHERE kind = ? AND id = ?", forgotten)
        kept = [row for row in changes.records.values() if row is not None]
        tx.many(_PUT_RECORD, [(row.kind, row.id, row.account, row.at_ms, row.body, row.expires_ms) for row in kept])
    for name, value in changes.notes.items():
        if value is None:
            tx.run("DELETE FROM notes WHERE name = ?", name)
        else:
            tx.run(_PUT_NOTE, name, value)


def _summed(deltas: list[UsageDelta]) -> list[tuple[int | str, ...]]:
    """One row for each account, day and model: a busy key has hundreds of requests in one turn."""
    sums: dict[tuple[int, str, str], list[int]] = {}
    for one in deltas:
        key = (one.account, one.day, one.model)
        had = sums.get(key)
        if had is None:
            sums[key] = [one.requests, one.attempts, one.input_tokens, one.output_tokens, one.microdollars]
        else:
            had[0] += one.requests
            had[1] += one.attempts
            had[2] += one.input_tokens
            had[3] += one.output_tokens
            had[4] += one.microdollars
    return [(*key, *sum_) for key, sum_ in sums.items()]


def _where(*conditions: tuple[str, int | str | None]) -> tuple[str, list[int | str]]:
    given = [(text, value) for text, value in conditions if value is not None]
    return "WHERE " + " AND ".join([text for text, _ in given] or ["1"]), [value for _, value in given]


def _of_account(row: AccountRow) -> tuple[Any, ...]:
    return (
        row.id,
        row.public_id,
        row.kind,
        row.name,
        row.digest,
        row.hint,
        row.state,
        row.created_ms,
        row.parent,
        row.expires_ms,
        _json.encode(row.models).decode(),
        row.rpm,
        row.tpm,
        row.concurrency,
        _json.encode(row.metadata).decode(),
        row.replaced,
        row.replaced_until_ms,
        row.prefer,
    )


def _account(row: tuple[Any, ...]) -> AccountRow:
    values = (*row[:10], _names.decode(row[10]), *row[11:14], _document.decode(row[14]), *row[15:])
    return AccountRow(*values)


def _lease(row: tuple[Any, ...]) -> LeaseRow:
    values = (*row[:5], bool(row[5]))
    return LeaseRow(*values)


def _holder(row: tuple[Any, ...]) -> HolderRow:
    values = (*row[:7], bool(row[7]))
    return HolderRow(*values)
