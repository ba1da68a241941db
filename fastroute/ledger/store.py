"""What the books consist of, as rows, and what whoever keeps them must be able to do.

The book thinks in these rows; a store makes a set of changed rows durable as one step, or not at all. SQLite is one
such store, memory is another, and all of them pass the same tests.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal, Protocol

from msgspec import Struct

from fastroute.errors import StoreError

Unit = Literal["microdollar", "token", "request"]
WindowKind = Literal["total", "daily", "monthly"]
AccountKind = Literal["key", "grant", "agent", "lease", "user"]
Prefer = Literal["cost", "latency"]
AccountState = Literal["live", "revoked", "ended"]
HolderKind = Literal["worker", "allocation"]


class AccountRow(Struct, frozen=True):
    """Whoever spends: a key, a grant or lease taken out of one, an agent of the panel, a named user."""

    id: int
    public_id: str  # what people and wires call it; unique
    kind: AccountKind
    name: str
    digest: bytes | None  # of its token under the pepper; None when it has none (users)
    hint: str  # what may be shown of its token
    state: AccountState
    created_ms: int
    parent: int | None = None  # whose budgets it draws on as well; of a grant, whose money it holds
    expires_ms: int | None = None  # wall clock; after it nothing is admitted
    models: tuple[str, ...] = ()  # names that may be asked for; empty is all
    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None
    metadata: dict[str, Any] = {}
    replaced: bytes | None = None  # the digest before the last rotation, good until `replaced_until_ms`
    replaced_until_ms: int | None = None
    prefer: Prefer | None = None  # how the models of a name that leads to several rank for it


class BudgetRow(Struct, frozen=True):
    """A limit of one account in one unit, over one kind of window. No row is no limit; 0 is closed."""

    id: int
    account: int
    unit: Unit
    amount: int
    window: WindowKind = "total"
    zone: str = "UTC"


class WindowRow(Struct, frozen=True):
    """One budget in one window: what has a balance. `closed` is what leases that have ended spent on it."""

    id: int
    budget: int
    name: str  # "total", "2026-11-21" or "2026-11": the civil date in the budget's zone
    ends_ms: int | None  # wall clock of the root; None never ends
    closed: int = 0


class LeaseRow(Struct, frozen=True):
    """The rights of one holder on one window, as three totals that only grow."""

    window: int
    holder: int
    granted: int = 0
    released: int = 0
    spent: int = 0
    done: bool = False


class HolderRow(Struct, frozen=True):
    """Who holds leases: one life of one worker, or an allocation (a grant, a panel's lease). Numbers are never reused."""

    id: int
    kind: HolderKind
    account: int | None = None  # of an allocation
    boot_id: str = ""
    segment: int = 0  # how far its journal has been applied
    offset: int = 0
    seq: int = 0  # of the last message that was granted upon
    live: bool = True


class EntryRow(Struct, frozen=True, array_like=True, gc=False):
    """One closed attempt, or a correction of one; written once, never edited."""

    holder: int
    attempt: int  # with the holder, its number
    request: str
    account: int
    windows: tuple[int, ...]
    reserved: tuple[int, ...]  # by window
    charged: tuple[int, ...]  # by window
    basis: str
    entry: str
    model: str
    lane: str
    outcome: str
    usage: tuple[int, int, int, int, int]  # input, output, cache read, cache write, reasoning
    picodollars: int | None
    microdollars: int | None
    at_ms: int
    corrects: tuple[int, int] | None = None  # (holder, attempt) of what this row corrects


class OpenRow(Struct, frozen=True):
    """A request under way as the journals tell it, kept so that a restart can close it: an encoded `book.OpenRequest`."""

    holder: int
    request: str
    body: bytes


class ReceiptRow(Struct, frozen=True, array_like=True, gc=False):
    """One sealed receipt; `seq` is its place in the chain, from 1 without a gap."""

    seq: int
    id: str
    request: str
    account: int
    at_ms: int
    body: bytes  # canonical JSON, signed
    link: bytes  # of the chain: the hash that the next one carries


class UsageDelta(Struct, frozen=True):
    """What is added to one account's day and model; days are UTC."""

    account: int
    day: str
    model: str
    requests: int = 0
    attempts: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    microdollars: int = 0


class RecordRow(Struct, frozen=True):
    """A document the desk keeps by kind and id: a decision, the answer to an idempotency key, a reported spend."""

    kind: str
    id: str
    account: int
    at_ms: int
    body: bytes
    expires_ms: int | None = None  # after it the row may be swept away


class Changes(Struct):
    """Rows that changed since the last commit: upserts by their ids, `gone` requests to forget, and what is appended."""

    accounts: dict[int, AccountRow] = {}
    budgets: dict[int, BudgetRow] = {}
    windows: dict[int, WindowRow] = {}
    leases: dict[tuple[int, int], LeaseRow] = {}  # (window, holder)
    holders: dict[int, HolderRow] = {}
    open: dict[tuple[int, str], OpenRow | None] = {}  # (holder, request); None is gone
    entries: Collection[EntryRow] = []
    receipts: Collection[ReceiptRow] = []
    usage: list[UsageDelta] = []
    records: dict[tuple[str, str], RecordRow | None] = {}  # (kind, id); not part of State: read when asked for
    notes: dict[str, bytes | None] = {}  # small facts of the house by name: a boot id, a clean stop; None is gone


class State(Struct):
    """Everything a book needs to go on: all rows but those that are only ever appended."""

    accounts: list[AccountRow] = []
    budgets: list[BudgetRow] = []
    windows: list[WindowRow] = []
    leases: list[LeaseRow] = []  # those not done
    holders: list[HolderRow] = []  # those live
    open: list[OpenRow] = []
    notes: dict[str, bytes] = {}
    last_holder: int = 0  # numbers are never reused, so the largest ever given is kept
    last_receipt: ReceiptRow | None = None


class ToldTwice(StoreError):
    """An attempt was told a second time: whoever's journal says so is not followed any further."""

    def __init__(self, holder: int, attempt: int) -> None:
        self.holder = holder
        super().__init__(f"attempt {attempt} of holder {holder} is told a second time; nothing of this change was kept")


class BookStore(Protocol):
    """Where the books are kept. Faults are `StoreError`; after one nothing of that commit is kept."""

    def load(self) -> State: ...

    def commit(self, changes: Changes) -> None:
        """Make all of it durable, in one step, before returning."""
