"""What an embedded router may spend: a cap of the program's own, money leased from a panel, or the less of both.

A purse is an account as the relay knows it. One loop spends from it; any thread may look or set the cap.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from decimal import Decimal

from msgspec import Struct

from fastroute.domain import Reservation, Settlement, Usage
from fastroute.errors import MoneyError
from fastroute.ledger.accounts import Shortage
from fastroute.ledger.unlimited import Unlimited
from fastroute.money import microdollars_from_usd


class Hold(Reservation, frozen=True):
    """One reservation of a purse."""

    number: int


class Spent(Struct, frozen=True):
    """One call that cost something, or might have."""

    request: str
    model: str
    lane: str
    microdollars: int
    usage: Usage


class _Underway(Struct):
    request: str = ""
    model: str = ""
    lane: str = ""


class Purse(Unlimited):
    """Limit, spent and held, in microdollars: spent + held never passes the limit by a reservation's doing."""

    def __init__(self, cap: int | None = None, leased: int | None = None) -> None:
        self.spent = 0
        self.held = 0
        self.on_spent: Callable[[Spent], None] | None = None
        self.more: Callable[[int], Awaitable[None]] | None = None  # asked when a call needs more than is left
        self._cap = cap
        self._leased = leased
        self._lock = threading.Lock()
        self._count = 0
        self._underway: dict[int, _Underway] = {}
        self._limit()

    def __repr__(self) -> str:
        return f"<Purse limit={self.limit} spent={self.spent} held={self.held}>"

    def status(self) -> tuple[int, int | None]:
        """(spent, limit) of one instant."""
        with self._lock:
            return self.spent, self.limit

    @property
    def leases(self) -> bool:
        """Whether its money comes from a panel."""
        return self._leased is not None

    def set_cap(self, microdollars: int | None) -> None:
        """Another limit of the program's own; what is spent stays spent."""
        with self._lock:
            self._cap = microdollars
            self._limit()

    def capped(self, microdollars: int) -> bool:
        """Whether the program's own cap already refuses so much: no lease would help."""
        with self._lock:
            return self._cap is not None and microdollars > self._cap - self.spent - self.held

    def lease(self, microdollars: int) -> None:
        """Money from a panel reaches to this total of all that was ever spent here."""
        with self._lock:
            self._leased = microdollars
            self._limit()

    # --- as the relay knows an account ------------------------------------------------------------------------------

    def reserve(self, microdollars: int | None, tokens: int = 0) -> Hold | None:
        with self._lock:
            left = self._left()
            if left is not None and (microdollars is None or left <= 0 or microdollars > left):
                return None
            self.held += microdollars or 0
            self._count += 1
            self._underway[self._count] = _Underway()
            return Hold(microdollars, self._count)

    async def fund(self, microdollars: int | None, tokens: int = 0) -> Hold | Shortage:  # type: ignore[override]  # an account's own may be refused
        if microdollars is None and self.limited:
            return Shortage(402, "unpriced", "microdollar")
        if self.more is not None:
            await self.more(microdollars or 0)
        hold = self.reserve(microdollars, tokens)
        if hold is not None:
            return hold
        with self._lock:
            left = self._left()
        # Kind `agent`: who reads the refusal is a program that knows the budget protocol's words.
        return Shortage(
            402, "budget_exhausted", "microdollar", self.limit, left, microdollars, "total", owner_kind="agent"
        )

    def send(self, reservation: Reservation, request: str, entry: str, model: str, lane: str) -> None:
        assert isinstance(reservation, Hold)
        self._underway[reservation.number] = _Underway(request, model, lane)

    def settle(
        self,
        reservation: Reservation,
        settlement: Settlement,
        outcome: str = "",
        status: int | None = None,
        ms: int = 0,
    ) -> None:
        assert isinstance(reservation, Hold)
        with self._lock:
            about = self._underway.pop(reservation.number, None)
            if about is None:
                return
            cost = (settlement.microdollars or 0) if about.request else 0  # what was never sent costs nothing
            self.spent += cost
            self.held -= reservation.microdollars or 0
        if self.on_spent is not None and about.request and settlement.basis != "void":
            self.on_spent(Spent(about.request, about.model, about.lane, cost, settlement.usage))

    def _left(self) -> int | None:
        return None if self.limit is None else self.limit - self.spent - self.held

    def _limit(self) -> None:
        limits = [limit for limit in (self._cap, self._leased) if limit is not None]
        self.limit = min(limits, default=None)
        self.limited = self.hard = self.limit is not None


def microdollars_of(usd: float | int | str | Decimal) -> int:
    """Dollars as a program says them: a float counts as the digits it prints, so 2.01 is 2 010 000."""
    if isinstance(usd, bool):
        raise MoneyError(f"a budget is an amount in dollars, not {usd!r}")
    return microdollars_from_usd(repr(usd) if isinstance(usd, float) else usd)


def dollars(microdollars: int) -> float:
    """For showing only: the nearest float."""
    return microdollars / 1_000_000
