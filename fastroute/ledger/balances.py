"""What the book holds in memory: accounts, budgets, windows, leases and holders, wired to one another.

Each is the mutable twin of a row of `store`: a row is made only when changes are handed over, because building one for
every record of a journal would cost more than all the arithmetic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from fastroute.domain import MICRODOLLARS_MAX
from fastroute.errors import FastrouteError
from fastroute.ledger.records import Finish, Send, Settle
from fastroute.ledger.store import AccountRow, BudgetRow, HolderKind, HolderRow, LeaseRow, WindowRow

if TYPE_CHECKING:
    from fastroute.ledger._tally import Underway

# A budget that was taken away: its row stays, because its windows have balances and its leases come home to it.
UNLIMITED: Final = MICRODOLLARS_MAX
# A window is near its limit when what is left is less than so many of the smallest wants of late.
EXACT_WANTS: Final = 8
# A want is "of late" for between one and two of these.
LATELY_MS: Final = 10_000
# Windows of a budget that are kept though nothing is leased on them: the newest and the one before.
WINDOWS_KEPT: Final = 2

Recalls = dict[int, tuple[int, ...]]  # holder -> windows


class BrokenBooks(FastrouteError):
    """A record or a message contradicts the books; nobody may go on with this book."""


class OpenRequest(Struct, frozen=True, array_like=True):
    """A request under way as it is kept: its attempts in order, each with how it was closed, if it was."""

    sends: tuple[Send, ...]
    settles: tuple[Settle | None, ...]
    finish: Finish | None = None


class FinishedRequest(Struct, frozen=True, gc=False):
    """A request that is over, with its attempts in order. An attempt that nobody closed is presumed, and says so."""

    holder: int
    finish: Finish
    attempts: tuple[tuple[Send, Settle], ...]


class Account:
    """An account with what it owns; `allocation` is the holder of its parent's money, while there is one."""

    __slots__ = ("allocation", "budgets", "children", "parent", "row")

    def __init__(self, row: AccountRow, parent: Account | None) -> None:
        self.row = row
        self.parent = parent
        self.budgets: list[Budget] = []
        self.children: list[Account] = []
        self.allocation: Holder | None = None

    @property
    def allocated(self) -> bool:
        """Whether its money was taken out of its parent's."""
        return self.row.kind in ("grant", "lease")

    def chain(self) -> list[Account]:
        """The account, its parent, and so on upwards."""
        found = [self]
        while (parent := found[-1].parent) is not None:
            found.append(parent)
        return found

    def path(self) -> list[Budget]:
        """The budgets its requests draw on, own first. An allocation brought its money: above it money is not asked."""
        found: list[Budget] = []
        funded = False
        for account in self.chain():
            found += [
                budget
                for budget in account.budgets
                if budget.row.amount != UNLIMITED and not (funded and budget.row.unit == "microdollar")
            ]
            funded = funded or account.allocated
        return found

    def expires_ms(self) -> int | None:
        """When it or one of those it hangs on expires."""
        return min((one.row.expires_ms for one in self.chain() if one.row.expires_ms is not None), default=None)

    def standing(self, now_ms: int) -> str:
        """live, revoked, ended or expired: nobody stands better than those he hangs on."""
        for account in self.chain():
            if account.row.state != "live":
                return account.row.state
            if account.row.expires_ms is not None and account.row.expires_ms <= now_ms:
                return "expired"
        return "live"


class Budget:
    """A limit and its windows, the newest last."""

    __slots__ = ("account", "row", "windows")

    def __init__(self, row: BudgetRow, account: Account) -> None:
        self.row = row
        self.account = account
        self.windows: list[Window] = []


class Window:
    """What has a balance. `out` is what is out with leases: of each its rights, or what it spent if that is more.

    `excused` adds up how far what is left may stand below zero: by breaches, lowered limits, late charges.
    """

    __slots__ = (
        "_bucket",
        "_least",
        "_least_before",
        "budget",
        "closed",
        "ends_ms",
        "escrow",
        "excused",
        "id",
        "leases",
        "name",
        "out",
        "up",
    )

    def __init__(self, row: WindowRow, budget: Budget) -> None:
        self.id = row.id
        self.budget = budget
        self.name = row.name
        self.ends_ms = row.ends_ms
        self.escrow = budget.account.allocated and budget is budget.account.budgets[0]  # an allocation's money
        self.closed = row.closed
        self.out = 0
        self.excused = 0
        self.leases: dict[int, Lease] = {}  # by holder
        self.up: tuple[Lease, ...] = ()  # of an allocation's money: the leases it was taken out with
        self._bucket = 0
        self._least: int | None = None
        self._least_before: int | None = None

    @property
    def avail(self) -> int:
        return self.budget.row.amount - self.closed - self.out

    @property
    def spent(self) -> int:
        return self.closed + sum(lease.spent for lease in self.leases.values())

    def row(self) -> WindowRow:
        return WindowRow(self.id, self.budget.row.id, self.name, self.ends_ms, self.closed)

    @property
    def short(self) -> int:
        """How far below zero it is."""
        return max(0, -self.avail)

    def over(self, now_ms: int) -> bool:
        """Whether nothing more is admitted on it."""
        if self.budget.windows[-1] is not self or (self.ends_ms is not None and self.ends_ms <= now_ms):
            return True
        return self.budget.account.standing(now_ms) != "live"

    def wanted(self, want: int, now_ms: int) -> None:
        """Remember a want, for `near`."""
        bucket = now_ms // LATELY_MS
        if bucket > self._bucket:
            self._least_before = self._least if bucket == self._bucket + 1 else None
            self._least = None
            self._bucket = bucket
        self._least = want if self._least is None else min(self._least, want)

    def near(self, left: int) -> bool:
        """Whether so little left is near the limit, going by the smallest want of late."""
        least = min((want for want in (self._least, self._least_before) if want is not None), default=1)
        return left < EXACT_WANTS * least

    def others(self, holder: int) -> list[int]:
        """The workers but one who have rights they have not spent."""
        return [
            lease.holder.id
            for lease in self.leases.values()
            if lease.holder.id != holder and lease.holder.kind == "worker" and lease.rights > lease.spent
        ]


class Lease:
    """The rights of one holder on one window. `rights` is granted less released; `breached` what they may be passed by.

    A lease that was `found` in the store may have been breached by more than its row shows.
    """

    __slots__ = ("breached", "done", "found", "granted", "holder", "released", "rights", "spent", "window")

    def __init__(self, window: Window, holder: Holder, granted: int = 0, released: int = 0, spent: int = 0) -> None:
        self.window = window
        self.holder = holder
        self.granted = granted
        self.released = released
        self.spent = spent
        self.done = False
        self.rights = granted - released
        self.breached = 0
        self.found = False
        window.leases[holder.id] = self
        window.out += max(self.rights, spent)
        holder.leases[window.id] = self

    def grant(self, amount: int) -> None:
        self._set(self.granted + amount, self.released, self.spent)

    def release(self, total: int) -> None:
        self._set(self.granted, max(self.released, total), self.spent)

    def spend(self, amount: int) -> None:
        self._set(self.granted, self.released, self.spent + amount)

    def end(self) -> None:
        """What was spent is closed with the window, the rest is the window's again."""
        self.release(self.granted - self.spent)
        self.window.out -= max(self.rights, self.spent)
        self.window.closed += self.spent
        self.done = True
        self.holder.ended[self.window.id] = (self.granted, self.released, self.spent)
        del self.window.leases[self.holder.id]
        del self.holder.leases[self.window.id]

    def _set(self, granted: int, released: int, spent: int) -> None:
        rights = granted - released
        self.window.out += max(rights, spent) - max(self.rights, self.spent)
        self.granted = granted
        self.released = released
        self.spent = spent
        self.rights = rights

    def row(self) -> LeaseRow:
        return LeaseRow(self.window.id, self.holder.id, self.granted, self.released, self.spent, self.done)


class Holder:
    """One life of a worker with its requests under way, or an allocation."""

    __slots__ = (
        "account",
        "attempts",
        "boot_id",
        "ended",
        "id",
        "kind",
        "leases",
        "live",
        "offset",
        "requests",
        "segment",
        "sent",
        "seq",
        "unmet",
    )

    def __init__(self, row: HolderRow) -> None:
        self.id = row.id
        self.kind: HolderKind = row.kind
        self.account = row.account
        self.boot_id = row.boot_id
        self.segment = row.segment
        self.offset = row.offset
        self.seq = row.seq
        self.live = row.live
        self.sent = 0  # the newest attempt that its journal told of, since the book was loaded
        self.leases: dict[int, Lease] = {}  # by window
        self.ended: dict[int, tuple[int, int, int]] = {}  # of leases that came to rest, by window: their totals
        self.requests: dict[str, Underway] = {}
        self.attempts: dict[int, tuple[Underway, int, Send]] = {}  # those not closed: (request, place in it, send)
        self.unmet: set[int] = set()  # windows that had nothing for the message of number `seq`

    def row(self) -> HolderRow:
        return HolderRow(self.id, self.kind, self.account, self.boot_id, self.segment, self.offset, self.seq, self.live)
