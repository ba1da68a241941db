"""The face of a holder's hot half: what every attempt asks of it."""

from collections.abc import Callable
from typing import Any

from fastroute._core import Leases
from fastroute.domain import Reservation
from fastroute.ledger.leases import Amounts, Lease

class Path:
    """Where one account's requests draw on: its windows, each bound to a slot until the holder's epoch moves."""

    windows: tuple[int, ...]
    leases: tuple[Lease, ...]
    pick: Callable[[tuple[Any, ...]], Amounts]
    until_ms: int
    """From then on the facts must be asked for again."""
    slots: tuple[int, ...]
    """At most four, which is a `ValueError` when it is set."""
    epoch: int
    shut: bool
    """One of its windows admits nothing."""
    active: bool
    """It reserved or settled since the last report."""
    credit: int
    """Reserves until the next look at the low-water marks."""

    def __init__(
        self,
        windows: tuple[int, ...],
        leases: tuple[Lease, ...],
        pick: Callable[[tuple[Any, ...]], Amounts],
        until_ms: int,
    ) -> None: ...

# A type checker takes structs for dataclasses, of which none may thaw what another froze.
class Hold(Reservation):  # type: ignore[misc]
    """A reservation as its holder knows it, made by `reserve`. `attempt` and `sent` belong to whoever journals it."""

    path: Path
    slots: tuple[int, ...]
    amounts: Amounts
    tokens: int
    open: bool
    sent: bool
    attempt: int

class HolderCore:
    """Reserves and settles; who asks and is told is `leases.Holder`'s affair."""

    deadline_ms: int
    breaches: int
    withheld: bool
    """While the journal lacks a settlement nothing is released: what it freed would still be charged after a death."""
    _core: Leases
    _epoch: int
    _active: list[Path]
    _hungry: dict[int, Lease]

    def reserve(self, path: Path, microdollars: int | None, tokens: int, now_ms: int) -> Hold | None:
        """Hold what an attempt may cost on every window of the path, or nothing on any of them.

        `microdollars` may be None where no window counts money. A path without windows never refuses before its end.
        """

    def settle(self, hold: Hold, microdollars: int | None, tokens: int | None, requests: int = 1) -> Amounts | None:
        """Close a reservation with what it came to, where None is all that was held; what each window is charged.

        None when it was closed before. More than was held is charged in full, as a breach.
        """

    def void(self, hold: Hold) -> None:
        """Close a reservation of which nothing was used; once closed it stays as it is."""

    def spent(self, path: Path, slots: tuple[int, ...]) -> Amounts:
        """What this life has spent on each window of a hold; ask in the same step in which it was settled."""

    @property
    def hungry(self) -> bool:
        """A report should leave now: somebody waits, or soon would."""
