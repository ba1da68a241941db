"""The face of a holder's hot half: what every attempt asks of it."""

from fastroute._core import Leases
from fastroute.domain import Reservation
from fastroute.ledger.leases import Amounts, Lease

class Path:
    """Where one account's requests draw on: its windows, each bound to a slot until the holder's epoch moves."""

    windows: tuple[int, ...]
    leases: tuple[Lease, ...]
    until_ms: int
    """From then on the facts must be asked for again."""
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
        kinds: tuple[int, ...],
        until_ms: int,
    ) -> None:
        """At most four windows, each counting in money (0), tokens (1) or requests (2)."""

    def bind(self, slots: tuple[int, ...]) -> None:
        """The slots of its windows, first to last; fewer where one of them got none, and the path is shut."""

# A subclass for type checkers alone: it is a class of its own that has what a reservation has, and is not frozen.
class Hold(Reservation):  # type: ignore[misc]  # they take structs for dataclasses, of which none may thaw another
    """A reservation as its holder knows it, made by `reserve`. `attempt` and `sent` belong to whoever journals it."""

    path: Path
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

    @property
    def hungry(self) -> bool:
        """A report should leave now: somebody waits, or soon would."""
