"""What the data plane holds of the ledger: one `Account` for each caller, and the `Till` that all of them draw on.

Neither waits nor enters the kernel between a reservation and the end of its `send`; only `fund` asks somebody.
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final, Protocol

from msgspec import Struct

from fastroute.clock import Clock
from fastroute.domain import Reservation, Settlement
from fastroute.ledger import records
from fastroute.ledger.journal import JournalError, JournalFull
from fastroute.ledger.leases import NEVER, Hold, Holder, Short, Ticket
from fastroute.ledger.protocol import Facts
from fastroute.ledger.records import FINISH, SEND, SETTLE, Finish, Send, Settle
from fastroute.ledger.store import Unit

SYNC_MS: Final = 50
LATE_MAX: Final = 100_000  # records that wait for room in the journal


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


class Till:
    """A worker's leases and its journal, in one event loop; a `teller.Teller` is one that can ask for more."""

    holder: Holder
    journal: Ledger

    def __init__(self, clock: Clock, loop: asyncio.AbstractEventLoop) -> None:
        self.clock = clock
        self.attempts = 0  # ever sent, and the number of the last
        self.underway = 0  # sent and not settled
        self.unjournalled = 0  # attempts, and ends of requests, for which the journal had no room
        self._loop = loop
        self._wall_ms = 0  # what the wall clock is ahead of the other
        self._late: deque[tuple[int, bytes]] = deque()
        self._dirty = False
        self._closed = False
        self._flusher = ThreadPoolExecutor(1, "fastroute-journal-sync")

    def kick(self) -> None:
        """The holder is hungry."""

    async def wait(self, account: Account, microdollars: int | None, tokens: int) -> Ticket:
        """Wait for rights; the ticket is undecided when nobody answered in time."""
        raise NotImplementedError

    async def renew(self, account: Account) -> bool | None:
        """Bring an account up to date; whether it still lives, None when nobody can tell."""
        raise NotImplementedError

    def wall_ms(self) -> int:
        """The time of day to write down, without asking the system for it twice."""
        return self._wall_ms + self.clock.monotonic_ms()

    def set_wall(self) -> None:
        """Look at the wall clock again: it may have been put right."""
        self._wall_ms = int(self.clock.now().timestamp() * 1000) - self.clock.monotonic_ms()

    def write(self, kind: int, payload: bytes) -> bool:
        """Append a record now; False when there is no room."""
        if self._late or self._closed:
            return False
        try:
            self.journal.append(kind, payload)
        except JournalFull:
            return False
        if not self._dirty:
            self._dirty = True
            self._loop.call_later(SYNC_MS / 1000, self._sync)
        return True

    def write_late(self, kind: int, payload: bytes) -> None:
        """Append a record, or keep it until there is room: what was sent must be told to its end, in order."""
        if self.write(kind, payload) or self._closed:
            return
        if kind == FINISH and len(self._late) >= LATE_MAX:
            self.unjournalled += 1
            return
        self._late.append((kind, payload))
        self.holder.withheld = True

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


class Account:
    """One account in one worker: what its calls, all of them, reserve from and settle to.

    `reserve`, `send`, `settle` and `finish` neither await nor enter the kernel. Reservations are settled once; more is
    nothing. One that was never sent costs nothing, whatever its settlement says.
    """

    booked = True

    __slots__ = (
        "__weakref__",
        "_till",
        "expires_ms",
        "facts",
        "hard",
        "id",
        "limited",
        "path",
        "state",
    )

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
        self.expires_ms = NEVER if facts.expires_in_ms is None else asked_ms + facts.expires_in_ms
        self.state = "live"

    def end(self, state: str) -> None:
        """Admit nothing more."""
        self.state = state
        self.path.until_ms = 0

    @property
    def until_ms(self) -> int:
        return self.path.until_ms

    def reserve(self, microdollars: int | None, tokens: int) -> Hold | None:
        """Hold what an attempt may cost, from what is here; None when that does not do, and `fund` should be awaited."""
        if microdollars is None and self.hard:
            return None
        till = self._till
        holder = till.holder
        hold = holder.reserve(self.path, microdollars, tokens, till.clock.monotonic_ms())
        if holder.hungry:
            till.kick()
        return hold

    async def fund(self, microdollars: int | None, tokens: int) -> Hold | Shortage:
        """Hold what an attempt may cost, asking the bookkeeper for what is not here; or why it cannot be."""
        if microdollars is None and self.hard:
            return Shortage(402, "unpriced", "microdollar")
        till = self._till
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

    def send(self, reservation: Reservation, request: str, entry: str, model: str, lane: str) -> Shortage | None:
        """Write down that an attempt's bytes are about to leave; with a `Shortage` they must not.

        Who has no budget is served although the journal has no room; such attempts are counted (`Till.unjournalled`).
        """
        assert isinstance(reservation, Hold)
        hold, till = reservation, self._till
        hold.attempt = till.attempts = till.attempts + 1
        path = hold.path
        record = Send(
            hold.attempt,
            request,
            self.id,
            path.windows,
            hold.amounts,
            entry,
            model,
            lane,
            till.wall_ms(),
            hold.microdollars,
        )
        if till.write(SEND, records.encode(record)):
            hold.sent = True
            till.underway += 1
            return None
        if path.windows:
            return Shortage(503, "journal_full")
        till.unjournalled += 1
        return None

    def settle(
        self, reservation: Reservation, settlement: Settlement, outcome: str, status: int | None, ms: int
    ) -> None:
        """Close an attempt with what it came to, write that down, and free the rest."""
        assert isinstance(reservation, Hold)
        hold, till = reservation, self._till
        if not hold.open:
            return
        if not hold.sent:
            till.holder.void(hold)
            return
        till.underway -= 1
        basis, usage = settlement.basis, settlement.usage
        if basis == "void":
            charged = till.holder.settle(hold, 0, 0, 0)
        else:
            tokens = usage.input_total + usage.output if basis == "exact" else None
            charged = till.holder.settle(hold, settlement.microdollars, tokens)
        assert charged is not None
        record = Settle(
            hold.attempt,
            basis,
            outcome,
            status or 0,
            charged,
            till.holder.spent(hold.path, hold.slots) if charged else charged,
            (usage.input, usage.output, usage.cache_read, usage.cache_write, usage.reasoning),
            settlement.picodollars,
            settlement.microdollars,
            ms,
        )
        till.write_late(SETTLE, records.encode(record))

    def finish(
        self,
        request: str,
        decision: str,
        surface: str,
        asked: str,
        entry: str,
        reason: str,
        status: int,
        stream: bool,
        latency_ms: int,
        first_chunk_ms: int | None,
        details: dict[str, Any] | None = None,
    ) -> None:
        """Write down that a request is over."""
        record = Finish(
            request,
            self.id,
            decision,
            surface,
            asked,
            entry,
            reason,
            status,
            stream,
            self._till.wall_ms() - latency_ms,
            latency_ms,
            first_chunk_ms,
            details or {},
        )
        self._till.write_late(FINISH, records.encode(record))

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
