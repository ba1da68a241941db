"""The account that never refuses and leaves no trace: what a request draws on where nobody keeps books.

It has the whole face of an `accounts.Account`, so that a relay reserves, sends and settles whoever pays.
"""

from __future__ import annotations

from typing import Any

from fastroute.domain import Reservation, Settlement
from fastroute.ledger.store import Prefer


class Unlimited:
    """Every reservation is granted; settlements leave no balance behind."""

    id = 0
    hard = False
    limited = False
    models: frozenset[str] | None = None
    prefer: Prefer | None = None
    booked = False  # whether what it does is written down, and gets a receipt

    def reserve(self, microdollars: int | None, tokens: int = 0) -> Reservation | None:
        return Reservation(microdollars)

    async def fund(self, microdollars: int | None, tokens: int = 0) -> Reservation:
        """Never needed, since `reserve` always does."""
        return Reservation(microdollars)

    def send(self, reservation: Reservation, request: str, entry: str, model: str, lane: str) -> None:
        """Nobody has to know."""

    def settle(
        self,
        reservation: Reservation,
        settlement: Settlement,
        outcome: str = "",
        status: int | None = None,
        ms: int = 0,
    ) -> None:
        """Nothing was held, so nothing is given back."""

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
        """Nobody asks for a receipt."""
