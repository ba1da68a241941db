"""What the data plane holds of the ledger: one `Account` for each caller, and the `Till` that all of them draw on.

Neither waits nor enters the kernel between a reservation and the end of its `send`; only `fund` asks somebody.
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Protocol

from msgspec import Struct

from fastroute.clock import Clock
from fastroute.ledger._accounts import LATE_MAX, SYNC_MS, AccountCore, TillCore
from fastroute.ledger.journal import JournalError
from fastroute.ledger.leases import NEVER, Hold, Short, Ticket
from fastroute.ledger.protocol import Facts
from fastroute.ledger.store import Prefer, Unit

__all__ = ["LATE_MAX", "SYNC_MS", "Account", "Ledger", "Shortage", "Till"]


class Shortage(Struct, frozen=True):
    """Why an attempt is not made.

    `budget_exhausted` (402) and `quota_exhausted` (429) name the window that is short; `unpriced` (402) is a price that
    nobody knows under a budget in money; 401 has the account's state for its code; `budget_unavailable` and
    `journal_full` (503) are no fault of the caller's.
    """

    status: int
    code: str
    unit: Unit | None = None
    limit: int | None = None
    remaining: int | None = None  # what could still be had, less than the attempt needs
    needed: int | None = None
    window: str = ""  # its name: "total", a day, a month
    zone: str = ""
    owner: str = ""  # public id of the account whose limit it is
    owner_kind: str = ""
    resets_in_ms: int | None = None


class Ledger(Protocol):
    """What a till writes to; `journal.Journal` is one."""

    def append(self, kind: int, payload: bytes) -> int: ...

    def sync(self) -> None: ...

    def close(self) -> None: ...


class Till(TillCore):
    """A worker's leases and its journal, in one event loop; a `teller.Teller` is one that can ask for more."""

    def __init__(self, clock: Clock, loop: asyncio.AbstractEventLoop) -> None:
        self.clock = clock
        self._loop = loop
        self._late = deque()
        self._flusher = ThreadPoolExecutor(1, "fastroute-journal-sync")

    def kick(self) -> None:
        """The holder is hungry."""

    async def wait(self, account: Account, microdollars: int | None, tokens: int) -> Ticket:
        """Wait for rights; the ticket is undecided when nobody answered in time."""
        raise NotImplementedError

    async def renew(self, account: Account) -> bool | None:
        """Bring an account up to date; whether it still lives, None when nobody can tell."""
        raise NotImplementedError

    def set_wall(self) -> None:
        """Look at the wall clock again: it may have been put right."""
        self._wall_ms = int(self.clock.now().timestamp() * 1000) - self.clock.monotonic_ms()

    def catch_up(self) -> None:
        """Write what waited for room, as far as there is some."""
        late, self._late = self._late, deque()
        while late and self.write(*late[0]):
            late.popleft()
        self._late = late
        self.holder.withheld = bool(late)

    def _sync(self) -> None:
        if self._closed:
            return
        self._dirty = False
        self._flusher.submit(self._flush)

    def _flush(self) -> None:
        with suppress(JournalError):  # the power may take what a sick disk would not: nothing here can help
            self.journal.sync()


class Account(AccountCore):
    """One account in one worker: what its calls, all of them, reserve from and settle to.

    `reserve`, `send`, `settle` and `finish` neither await nor enter the kernel. Reservations are settled once; more is
    nothing. One that was never sent costs nothing, whatever its settlement says.
    """

    booked = True

    __slots__ = ("__weakref__",)

    def __init__(self, till: Till, facts: Facts, asked_ms: int) -> None:
        self._till = till
        self.id = facts.account
        self.adopt(facts, asked_ms)

    def __repr__(self) -> str:
        return f"<Account {self.id} {self.facts.public_id} {self.state}>"

    def adopt(self, facts: Facts, asked_ms: int) -> None:
        """Go by these facts from now on; what is held stays where it is held."""
        self.facts = facts
        self.path = self._till.holder.path(facts, asked_ms)
        self.hard = any(window.unit == "microdollar" for window in facts.path)
        self.limited = bool(facts.path)
        self.metered = bool(facts.limits)
        self.models = frozenset(facts.models) or None
        self.expires_ms = NEVER if facts.expires_in_ms is None else asked_ms + facts.expires_in_ms
        self.state = "live"

    def end(self, state: str) -> None:
        """Admit nothing more."""
        self.state = state
        self.path.until_ms = 0

    @property
    def prefer(self) -> Prefer | None:
        """How the models of a name that leads to several rank for it; None is as the name says."""
        return self.facts.prefer

    @property
    def until_ms(self) -> int:
        return self.path.until_ms

    async def fund(self, microdollars: int | None, tokens: int) -> Hold | Shortage:
        """Hold what an attempt may cost, asking the bookkeeper for what is not here; or why it cannot be."""
        if microdollars is None and self.hard:
            return Shortage(402, "unpriced", "microdollar")
        till: Till = self._till
        for again in (True, False):
            hold = self.reserve(microdollars, tokens)
            if hold is not None:
                return hold
            if self.state == "live" and till.clock.monotonic_ms() < self.until_ms:
                ticket = await till.wait(self, microdollars, tokens)
                if ticket.hold is not None:
                    return ticket.hold
                if ticket.short is None or ticket.short.reason == "full":
                    break
                if ticket.short.reason == "short" or not again:
                    return self._shortage(ticket.short)
            # Its window is over, or so is the account: whoever keeps the books knows what holds now.
            if self.state == "live" and await till.renew(self) is None:
                break
            if self.state != "live":
                return Shortage(401, self.state)
        return Shortage(503, "budget_unavailable")

    def unwritten(self, windows: tuple[int, ...]) -> Shortage | None:
        """The journal had no room for an attempt: one that a budget pays for is not made."""
        if windows:
            return Shortage(503, "journal_full")
        self._till.unjournalled += 1
        return None

    def _shortage(self, short: Short) -> Shortage:
        about = short.window
        if about is None or short.reason != "short":
            return Shortage(503, "budget_unavailable")
        money = about.unit == "microdollar"
        return Shortage(
            402 if money else 429,
            "budget_exhausted" if money else "quota_exhausted",
            about.unit,
            about.limit,
            short.remaining,
            short.needed,
            about.name,
            about.zone,
            about.owner,
            about.owner_kind,
            None if short.ends_ms == NEVER else max(short.ends_ms - self._till.clock.monotonic_ms(), 0),
        )
