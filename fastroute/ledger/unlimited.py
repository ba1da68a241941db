"""The account that never refuses: what a request draws on while no budget stands on its path.

It has the whole face of an account, so that a relay reserves and settles on every attempt whoever pays.
"""

from __future__ import annotations

from fastroute.domain import Reservation, Settlement


class Unlimited:
    """Every reservation is granted; settlements leave no balance behind."""

    hard = False

    def reserve(self, microdollars: int | None) -> Reservation | None:
        return Reservation(microdollars)

    def settle(self, reservation: Reservation, settlement: Settlement) -> None:
        """Nothing was held, so nothing is given back."""
