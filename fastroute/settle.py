"""What an attempt may cost before it is sent, and what it did cost afterwards, with what that figure rests on.

Pure: a price, what was asked and what was seen go in; a reservation's bound or a settlement comes out.
"""

from __future__ import annotations

from fastroute._settle import OUTPUT_UNKNOWN, bound, exact, priced
from fastroute.domain import TOKENS_MAX, Basis, Price, Reservation, Settlement, Usage

__all__ = ["NOTHING", "OUTPUT_UNKNOWN", "UNSEEN", "bound", "bounded", "exact", "presumed", "void"]

# Output tokens a provider may have made and billed that never arrived: two seconds of the fastest models of today.
UNSEEN = 1000

NOTHING = Usage()


def void(price: Price | None) -> Settlement:
    """Nothing was sent, or nothing that is billed."""
    return Settlement("void", 0, 0, NOTHING)


def bounded(price: Price | None, input_bound: int, content_bytes: int, reservation: Reservation) -> Settlement:
    """The provider answered and did not tell: the most that was seen can have cost, never above the reservation."""
    settlement = priced("bounded", price, Usage(min(input_bound, TOKENS_MAX), min(content_bytes, TOKENS_MAX)))
    held = reservation.microdollars
    if held is None or settlement.microdollars is None or settlement.microdollars <= held:
        return settlement
    return _held("bounded", reservation, settlement.usage)


def presumed(reservation: Reservation) -> Settlement:
    """Nobody knows what the provider did: all that was held."""
    return _held("presumed", reservation, NOTHING)


def _held(basis: Basis, reservation: Reservation, usage: Usage) -> Settlement:
    held = reservation.microdollars
    return Settlement(basis, None if held is None else held * 1_000_000, held, usage)
