"""The face of the ledger's hot half: what an account and its till do for every attempt."""

import asyncio
from collections import deque
from typing import Any

from fastroute.clock import Clock
from fastroute.domain import Reservation, Settlement
from fastroute.ledger._leases import Path
from fastroute.ledger.accounts import Ledger, Shortage
from fastroute.ledger.leases import Hold, Holder
from fastroute.ledger.protocol import Facts

SYNC_MS: int
LATE_MAX: int

class TillCore:
    """A worker's leases and its journal."""

    holder: Holder
    journal: Ledger
    clock: Clock
    attempts: int
    """Ever sent, and the number of the last."""
    underway: int
    """Sent and not settled."""
    unjournalled: int
    """Attempts, and ends of requests, for which the journal had no room."""
    _loop: asyncio.AbstractEventLoop
    _wall_ms: int
    """What the wall clock is ahead of the other."""
    _late: deque[tuple[int, bytes]]
    _dirty: bool
    _closed: bool

    def wall_ms(self) -> int:
        """The time of day to write down, without asking the system for it twice."""

    def write(self, kind: int, payload: bytes) -> bool:
        """Append a record now; False when there is no room."""

    def write_late(self, kind: int, payload: bytes) -> None:
        """Append a record, or keep it until there is room: what was sent must be told to its end, in order."""

class AccountCore:
    """One account in one worker."""

    id: int
    facts: Facts
    path: Path
    expires_ms: int
    state: str
    hard: bool
    """Under a budget in money: what has no price is refused."""
    limited: bool
    """Under a budget of any kind."""
    metered: bool
    """Under a limit of its rate."""
    models: frozenset[str] | None
    """The names it may ask for; None is all."""
    _till: Any

    def reserve(self, microdollars: int | None, tokens: int) -> Hold | None:
        """Hold what an attempt may cost, from what is here; None when that does not do, and `fund` should be awaited."""

    def send(self, reservation: Reservation, request: str, entry: str, model: str, lane: str) -> Shortage | None:
        """Write down that an attempt's bytes are about to leave; with a `Shortage` they must not.

        Who has no budget is served although the journal has no room; such attempts are counted (`Till.unjournalled`).
        """

    def settle(
        self, reservation: Reservation, settlement: Settlement, outcome: str, status: int | None, ms: int
    ) -> None:
        """Close an attempt with what it came to, write that down, and free the rest."""

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
