"""The book: who may spend how much, what is out with whom, and what was spent. Pure: no clock, no I/O, integers only.

`balances` holds what it is made of, `pages` the memory and the rows that changed, `tally` the workers' side; here is
the desk: accounts, their limits, allocations, reported spends and corrections.

What a caller should know besides the signatures:

- If what `take` returned cannot be committed, throw the book away and make one anew from the store. Receipts, records
  and notes are the caller's to add to those changes.
- A limit that is taken away is kept as a row of `UNLIMITED` and left out of paths and balances.
- Entries of the desk (posts, corrections) are numbered by the note "desk_entries" and stand under holder 0; what a
  power loss leaves is attempt 0 of its holder. An entry's amounts are what it adds: a correction carries differences,
  and a window's `closed` may be negative until the leases it corrects come home.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from fastroute.domain import MICRODOLLARS_MAX, TOKENS_MAX
from fastroute.errors import FastrouteError
from fastroute.ledger.balances import UNLIMITED, Account, BrokenBooks, Holder, Lease, OpenRequest, Recalls, Window
from fastroute.ledger.balances import Budget as _Budget
from fastroute.ledger.checks import faults
from fastroute.ledger.protocol import Facts, PathWindow
from fastroute.ledger.store import (
    AccountKind,
    AccountRow,
    AccountState,
    BudgetRow,
    EntryRow,
    HolderRow,
    Prefer,
    State,
    Unit,
    WindowKind,
    WindowRow,
)
from fastroute.ledger.tally import Tally
from fastroute.ledger.windows import known_zone

__all__ = ["Balance", "Book", "BrokenBooks", "Budget", "OpenRequest", "Recalls", "Refused"]

PATH_MAX: Final = 4  # windows that one request draws on; `_core.Leases` holds as many
DESK: Final = 0  # the holder under which the desk's own entries stand
_FIXED = {"id", "public_id", "kind", "created_ms", "parent"}
_CHANGEABLE = frozenset(AccountRow.__struct_fields__) - _FIXED
# What nobody is called: where an account and its parent allow different names, none may be asked for.
_NO_MODEL = ("",)


class Refused(FastrouteError):
    """What the desk cannot do: `status` and `code` for the wire, `field` names what was wrong. Nothing has changed."""

    def __init__(self, status: int, code: str, message: str, field: str = "") -> None:
        self.status = status
        self.code = code
        self.message = message
        self.field = field
        super().__init__(message)


class Scarce(FastrouteError):
    """What was asked for is out with workers, some of whom may not need it: `recalls` tells whom to ask."""

    def __init__(self, recalls: Recalls) -> None:
        self.recalls = recalls
        super().__init__("some of it is lent out")


class Budget(Struct, frozen=True):
    """A limit as it is asked for; 0 is closed."""

    unit: Unit
    amount: int
    window: WindowKind = "total"
    zone: str = "UTC"


class Balance(Struct, frozen=True):
    """One window at one instant: limit = used + held + remaining; below zero when a breach or a lowering made it so."""

    window: int
    account: int
    unit: Unit
    kind: WindowKind
    name: str
    limit: int
    used: int
    held: int  # lent and not spent
    leased: int  # of that, what is out with grants and panel leases
    remaining: int
    resets_ms: int | None
    zone: str


class Book(Tally):
    """All accounts of one house, in memory; every method is one whole step."""

    def __init__(self, state: State) -> None:
        super().__init__(state)
        self._expiries: list[tuple[int, int]] = []
        self._graces: list[tuple[int, int]] = []  # until when a replaced token opens
        for account in self._accounts.values():
            self._mind_expiry(account)

    def check(self) -> list[str]:
        """What does not add up, as sentences; empty when all is well."""
        return faults(self._accounts, self._budgets, self._windows, self._holders)

    # Accounts.

    def account(self, account_id: int) -> AccountRow | None:
        account = self._accounts.get(account_id)
        return account.row if account is not None else None

    def by_public(self, public_id: str) -> AccountRow | None:
        account = self._public.get(public_id)
        return account.row if account is not None else None

    def by_digest(self, digest: bytes, now_ms: int) -> AccountRow | None:
        """Whose token has this digest, in whatever state; a replaced one opens until its time is over."""
        account = self._digests.get(digest)
        if account is None or digest == account.row.digest:
            return account.row if account is not None else None
        until = account.row.replaced_until_ms
        return account.row if until is not None and now_ms < until else None

    def standing(self, account_id: int, now_ms: int) -> str:
        """live, revoked, ended, expired or unknown: nobody stands better than the accounts he hangs on."""
        account = self._accounts.get(account_id)
        return account.standing(now_ms) if account is not None else "unknown"

    def open_account(
        self,
        public_id: str,
        kind: AccountKind,
        name: str,
        *,
        created_ms: int,
        digest: bytes | None = None,
        hint: str = "",
        parent: int | None = None,
        expires_ms: int | None = None,
        models: tuple[str, ...] = (),
        rpm: int | None = None,
        tpm: int | None = None,
        concurrency: int | None = None,
        metadata: dict[str, Any] | None = None,
        prefer: Prefer | None = None,
        budgets: Sequence[Budget] = (),
    ) -> AccountRow:
        """A new account, in a state of live. Grants and leases are not opened but allocated."""
        if kind in ("grant", "lease"):
            raise Refused(400, "invalid", f"a {kind} is allocated out of a parent", "kind")
        row = AccountRow(
            self._last_account + 1,
            public_id,
            kind,
            name,
            digest,
            hint,
            "live",
            created_ms,
            parent,
            expires_ms,
            models,
            rpm,
            tpm,
            concurrency,
            metadata or {},
            prefer=prefer,
        )
        above = self._account(parent, "parent") if parent is not None else None
        self._unused(public_id, digest)
        for budget in budgets:
            _must_be_a_limit(budget)
        if len({(budget.unit, budget.window) for budget in budgets}) < len(budgets):
            raise Refused(400, "invalid", "an account has one limit of a unit over a kind of window", "budgets")
        if len(budgets) + (len(above.path()) if above is not None else 0) > PATH_MAX:
            raise _too_long()
        self._open(row, budgets)
        return row

    def change_account(self, account_id: int, **fields: Any) -> AccountRow:
        """Change what may change: the name, tokens, limits, expiry, metadata, and the state, which never comes back."""
        account = self._account(account_id)
        state = fields.pop("state", account.row.state)
        if wrong := fields.keys() - _CHANGEABLE:
            raise Refused(400, "invalid", f"{min(wrong)} of an account does not change", min(wrong))
        if account.row.state not in ("live", state):
            raise Refused(409, "not_live", f"{account.row.public_id} is {account.row.state} and stays so", "state")
        if fields.get("digest") not in (None, account.row.digest, account.row.replaced):
            self._unused(None, fields["digest"])
        for digest in (account.row.digest, account.row.replaced):
            if digest is not None:
                del self._digests[digest]
        account.row = msgspec.structs.replace(account.row, **fields)
        for digest in (account.row.digest, account.row.replaced):
            if digest is not None:
                self._digests[digest] = account
        self._changed_accounts.add(account)
        self._mind_expiry(account)
        if state != account.row.state:
            self._leave(account, state)
        return account.row

    def set_budget(
        self, account_id: int, unit: Unit, amount: int | None, window: WindowKind = "total", zone: str = "UTC"
    ) -> Recalls:
        """Set, raise, lower or (None) take away a limit; it holds for whatever is lent from now on.

        Tells whom to recall when more is out than the new limit has. Until they have released it, what is left is below
        zero by the difference.
        """
        account = self._account(account_id)
        wanted = Budget(unit, amount if amount is not None else 0, window, zone)
        _must_be_a_limit(wanted)
        if account.allocated and unit == "microdollar":
            raise Refused(409, "allocated", "the money of an allocation is what it was given", "unit")
        limit = UNLIMITED if amount is None else amount
        budget = next((one for one in account.budgets if (one.row.unit, one.row.window) == (unit, window)), None)
        before = budget.row.amount if budget is not None else UNLIMITED
        if before == UNLIMITED != limit and any(
            len(below.path()) >= PATH_MAX and not (unit == "microdollar" and _funded_below(below, account))
            for below in _subtree(account)
        ):
            raise _too_long()
        short = {one: one.short for one in budget.windows} if budget is not None else {}
        if budget is None:
            if amount is None:
                return {}
            row = BudgetRow(self._last_budget + 1, account_id, unit, limit, window, zone)
            self._add_budget(budget := _Budget(row, account))
        else:
            budget.row = msgspec.structs.replace(budget.row, amount=limit, zone=zone)
        self._changed_budgets.add(budget)
        for one, was in short.items():
            one.excused += max(0, one.short - was)
        return _recalls([one for one in budget.windows[-1:] if one.avail < 0])

    def _account(self, account_id: int, field: str = "id") -> Account:
        account = self._accounts.get(account_id)
        if account is None:
            raise Refused(404, "not_found", f"there is no account {account_id}", field)
        return account

    def _unused(self, public_id: str | None, digest: bytes | None) -> None:
        if public_id in self._public:
            raise Refused(409, "exists", f"there is an account {public_id!r} already", "id")
        if digest is not None and digest in self._digests:
            raise Refused(409, "exists", "an account has this token already", "digest")

    def _open(self, row: AccountRow, budgets: Sequence[Budget]) -> Account:
        account = self._add_account(row)
        self._changed_accounts.add(account)
        for budget in budgets:
            budget_row = BudgetRow(
                self._last_budget + 1, row.id, budget.unit, budget.amount, budget.window, budget.zone
            )
            self._add_budget(made := _Budget(budget_row, account))
            self._changed_budgets.add(made)
        self._mind_expiry(account)
        return account

    def _leave(self, account: Account, state: AccountState) -> None:
        account.row = msgspec.structs.replace(account.row, state=state)
        self._changed_accounts.add(account)
        for child in account.children:
            if child.allocated and child.row.state == "live":
                self._leave(child, state)
        if account.allocated:
            self._come_home(account)

    # What is told of accounts.

    def facts(self, account_id: int, now_ms: int) -> Facts:
        """What a worker needs to serve an account; windows of today are opened on the way."""
        account = self._account(account_id)
        chain = account.chain()
        expires_ms = account.expires_ms()
        path = []
        for budget in account.path():
            window = self._window(budget, now_ms)
            owner = budget.account.row
            ends_in_ms = max(0, window.ends_ms - now_ms) if window.ends_ms is not None else None
            path.append(
                PathWindow(
                    window.id,
                    budget.row.unit,
                    budget.row.amount,
                    window.name,
                    budget.row.zone,
                    ends_in_ms,
                    owner.public_id,
                    owner.kind,
                )
            )
        rows = [one.row for one in chain]
        return Facts(
            account_id,
            account.row.public_id,
            account.row.kind,
            account.row.name,
            tuple(path),
            max(0, expires_ms - now_ms) if expires_ms is not None else None,
            _models(rows),
            tuple((r.id, r.rpm, r.tpm, r.concurrency) for r in rows if (r.rpm, r.tpm, r.concurrency) != (None,) * 3),
            account.row.metadata,
            next((r.prefer for r in rows if r.prefer is not None), None),
        )

    def balances(self, account_id: int, now_ms: int) -> list[Balance]:
        """The account's own windows of today."""
        account = self._account(account_id)
        return [_balance(self._window(budget, now_ms)) for budget in account.budgets if budget.row.amount != UNLIMITED]

    def recall(self, account_id: int, now_ms: int) -> Recalls:
        """Whom to ask for what they do not use of the money that an allocation would be taken from."""
        return _recalls([self._window(budget, now_ms) for budget in self._purse(self._account(account_id))])

    def _purse(self, account: Account) -> list[_Budget]:
        return [budget for budget in account.path() if budget.row.unit == "microdollar"]

    # Allocations.

    def allocate(
        self,
        parent_id: int,
        amount: int,
        public_id: str,
        kind: AccountKind,
        name: str,
        *,
        now_ms: int,
        digest: bytes | None = None,
        hint: str = "",
        expires_ms: int | None = None,
        models: tuple[str, ...] = (),
        rpm: int | None = None,
        tpm: int | None = None,
        concurrency: int | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> AccountRow:
        """A grant or a panel's lease: `amount` microdollars leave every money window of the parent's path for it.

        402 `parent_exhausted` when one of them has less left. `recall` says who might give some back.
        """
        parent = self._account(parent_id, "parent")
        if kind not in ("grant", "lease"):
            raise Refused(400, "invalid", f"a {kind} is opened, not allocated", "kind")
        if (standing := parent.standing(now_ms)) != "live":
            raise Refused(403, "not_live", f"{parent.row.public_id} is {standing}", "parent")
        money = Budget("microdollar", amount)
        _must_be_a_limit(money)
        self._unused(public_id, digest)
        if 1 + sum(budget.row.unit != "microdollar" for budget in parent.path()) > PATH_MAX:
            raise _too_long()
        purse = [self._window(budget, now_ms) for budget in self._purse(parent)]
        least = min((window.avail for window in purse), default=amount)
        if least < amount:
            left = max(0, least)
            raise Refused(402, "parent_exhausted", f"{parent.row.public_id} has {left} microdollars left", "amount")
        row = AccountRow(
            self._last_account + 1,
            public_id,
            kind,
            name,
            digest,
            hint,
            "live",
            now_ms,
            parent_id,
            expires_ms,
            models,
            rpm,
            tpm,
            concurrency,
            metadata or {},
        )
        account = self._open(row, (money,))
        holder = self._new_holder(Holder(HolderRow(self._last_holder + 1, "allocation", account=row.id)))
        account.allocation = holder
        window = self._window(account.budgets[0], now_ms)
        window.up = tuple(Lease(above, holder, amount) for above in purse)
        self._changed_leases.update(window.up)
        return row

    def end_allocation(self, account_id: int, state: AccountState) -> None:
        """Admit nothing more on it and on what was allocated out of it; the rest returns when no lease on it is left."""
        account = self._account(account_id)
        if not account.allocated or state == "live":
            raise Refused(400, "invalid", f"{account.row.public_id} is no allocation that could be {state}", "state")
        if account.row.state == "live":
            self._leave(account, state)

    def expire(self, now_ms: int) -> list[int]:
        """End every allocation whose time is over (their ids), and the grace of tokens that were replaced."""
        while self._graces and self._graces[0][0] <= now_ms:
            until_ms, account_id = heapq.heappop(self._graces)
            row = self._accounts[account_id].row
            if row.replaced_until_ms == until_ms:
                self.change_account(account_id, replaced=None, replaced_until_ms=None)
        ended = []
        while self._expiries and self._expiries[0][0] <= now_ms:
            expires_ms, account_id = heapq.heappop(self._expiries)
            account = self._accounts[account_id]
            if account.row.state == "live" and account.row.expires_ms == expires_ms:
                self._leave(account, "ended")
                ended.append(account_id)
        return ended

    def _mind_expiry(self, account: Account) -> None:
        if account.row.replaced_until_ms is not None:
            heapq.heappush(self._graces, (account.row.replaced_until_ms, account.row.id))
        if account.allocated and account.row.state == "live" and account.row.expires_ms is not None:
            heapq.heappush(self._expiries, (account.row.expires_ms, account.row.id))

    # Entries of the desk.

    def post(
        self,
        account_id: int,
        request: str,
        microdollars: int,
        *,
        now_ms: int,
        model: str = "",
        lane: str = "",
        usage: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0),
    ) -> bool:
        """A spend somebody reports, charged in full on every window of the path; whether it fitted.

        One that does not fit is a breach. After the end of an allocation its parent pays. Whether a report was seen
        before is for the desk to know, by a record of its own.
        """
        account = self._account(account_id)
        if not 0 <= microdollars <= MICRODOLLARS_MAX or min(usage) < 0 or max(usage) > TOKENS_MAX:
            message = (
                f"what was spent is 0 to {MICRODOLLARS_MAX} microdollars and at most {TOKENS_MAX} tokens of a kind"
            )
            raise Refused(400, "invalid", message, "microdollars")
        tokens = usage[0] + usage[1] + usage[2] + usage[3]
        amounts = {"microdollar": microdollars, "token": tokens, "request": 1}
        windows = [self._window(budget, now_ms) for budget in account.path()]
        charged = tuple(amounts[window.budget.row.unit] for window in windows)
        fits = account.row.state == "live"
        for window, amount in zip(windows, charged, strict=True):
            breach = amount - min(amount, max(0, window.avail))
            fits = fits and not breach
            self._charge(window, amount, breach, now_ms)
        self.breaches += not fits
        self._entries.append(
            EntryRow(
                DESK,
                self._desk_entry(),
                request,
                account_id,
                tuple(window.id for window in windows),
                (0,) * len(windows),
                charged,
                "exact",
                "",
                model,
                lane,
                "ok",
                usage,
                microdollars * 1_000_000,
                microdollars,
                now_ms,
            )
        )
        counts = self._use(account_id, now_ms, model)
        for place, amount in enumerate((1, 1, tokens - usage[1], usage[1], microdollars)):
            counts[place] += amount
        return fits

    def correct(
        self,
        before: EntryRow,
        *,
        charged: tuple[int, ...],
        basis: str,
        usage: tuple[int, int, int, int, int],
        picodollars: int | None,
        microdollars: int | None,
        now_ms: int,
        old_windows: Sequence[WindowRow] = (),
    ) -> EntryRow:
        """A new entry that makes an attempt's charges what they should have been, carrying the differences.

        `before` is the attempt as the books have it, earlier corrections added up. `old_windows` are the rows of its
        windows, for those that are over and no longer kept here.
        """
        if len(charged) != len(before.charged) or min(charged, default=0) < 0:
            raise Refused(400, "invalid", "a correction names an amount of zero or more per window", "charged")
        for row in old_windows:
            if row.id in before.windows and row.id not in self._windows and row.budget in self._budgets:
                self._add_window(row)
        if missing := [window for window in before.windows if window not in self._windows]:
            raise Refused(409, "window_missing", f"the rows of the windows {missing} are needed", "old_windows")
        change = tuple(new - old for new, old in zip(charged, before.charged, strict=True))
        for window, difference in zip(before.windows, change, strict=True):
            self._charge(self._windows[window], difference, max(0, difference), now_ms)
        more = tuple(new - old for new, old in zip(usage, before.usage, strict=True))
        entry = msgspec.structs.replace(
            before,
            holder=DESK,
            attempt=self._desk_entry(),
            reserved=(0,) * len(change),
            charged=change,
            basis=basis,
            usage=more,
            picodollars=_difference(picodollars, before.picodollars),
            microdollars=_difference(microdollars, before.microdollars),
            at_ms=now_ms,
            corrects=before.corrects or (before.holder, before.attempt),
        )
        self._entries.append(entry)
        counts = self._use(before.account, before.at_ms, before.model)
        for place, amount in enumerate((0, 0, more[0] + more[2] + more[3], more[1], entry.microdollars or 0)):
            counts[place] += amount
        return entry


def _must_be_a_limit(budget: Budget) -> None:
    if not 0 <= budget.amount < MICRODOLLARS_MAX:
        raise Refused(400, "invalid", f"a limit is between 0 and {MICRODOLLARS_MAX - 1}, not {budget.amount}", "amount")
    if not known_zone(budget.zone):
        raise Refused(400, "invalid", f"there is no zone {budget.zone!r}; one is 'Europe/Berlin'", "zone")


def _too_long() -> Refused:
    return Refused(400, "path_too_long", f"a request may draw on {PATH_MAX} limits, its parents' included", "budgets")


def _subtree(account: Account) -> list[Account]:
    found = [account]
    for one in found:
        found += one.children
    return found


def _funded_below(account: Account, above: Account) -> bool:
    """Whether money is taken out for somebody between the two, so that a limit above is not on the path below."""
    while account is not above:
        if account.allocated:
            return True
        assert account.parent is not None, "it was found below"
        account = account.parent
    return False


def _recalls(windows: Sequence[Window]) -> Recalls:
    found: dict[int, list[int]] = {}
    for window in windows:
        for holder in window.others(DESK):
            found.setdefault(holder, []).append(window.id)
    return {holder: tuple(numbers) for holder, numbers in found.items()}


def _balance(window: Window) -> Balance:
    budget = window.budget.row
    open_ = [(lease.holder.kind, max(0, lease.rights - lease.spent)) for lease in window.leases.values()]
    return Balance(
        window.id,
        budget.account,
        budget.unit,
        budget.window,
        window.name,
        budget.amount,
        window.spent,
        sum(free for _, free in open_),
        sum(free for kind, free in open_ if kind == "allocation"),
        window.avail,
        window.ends_ms,
        budget.zone,
    )


def _models(rows: Sequence[AccountRow]) -> tuple[str, ...]:
    allowed: tuple[str, ...] = ()
    for row in rows:
        if row.models:
            allowed = tuple(name for name in allowed if name in row.models) or _NO_MODEL if allowed else row.models
    return allowed


def _difference(new: int | None, old: int | None) -> int | None:
    return None if new is None else new - (old or 0)
