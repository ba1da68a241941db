"""The book's memory as a whole: made from rows, rolled from window to window, and handed back as the rows that changed.

`tally` puts upon it what workers do, `book` what the desk does.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

from fastroute.ledger._piles import Entries
from fastroute.ledger._tally import Underway
from fastroute.ledger.balances import (
    UNLIMITED,
    WINDOWS_KEPT,
    Account,
    BrokenBooks,
    Budget,
    Holder,
    Lease,
    OpenRequest,
    Window,
)
from fastroute.ledger.store import AccountRow, BudgetRow, Changes, EntryRow, OpenRow, State, UsageDelta, WindowRow
from fastroute.ledger.windows import window_at

DAY_MS = 86_400_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(OpenRequest).decode
_DESK_ENTRIES = "desk_entries"  # a note: how many entries the desk has made


class Pages:
    """Accounts, budgets, windows, leases and holders, with what changed since the last `take`."""

    def __init__(self, state: State) -> None:
        self._accounts: dict[int, Account] = {}
        self._public: dict[str, Account] = {}
        self._digests: dict[bytes, Account] = {}
        self._budgets: dict[int, Budget] = {}
        self._windows: dict[int, Window] = {}
        self._holders: dict[int, Holder] = {}
        self._last_holder = state.last_holder
        self._last_window = 0
        self._last_account = 0
        self._last_budget = 0
        self._desk_entries = int(state.notes.get(_DESK_ENTRIES, b"0"))
        self._load(state)
        self._forget()

    def _forget(self) -> None:
        self._changed_accounts: set[Account] = set()
        self._changed_budgets: set[Budget] = set()
        self._changed_windows: set[Window] = set()
        self._changed_leases: set[Lease] = set()
        self._changed_holders: set[Holder] = set()
        self._changed_requests: set[Underway] = set()
        self._entries: list[EntryRow] = []
        self._piled = Entries()
        # (account, day, model) -> requests, attempts, input tokens, output tokens, microdollars
        self._usage: dict[tuple[int, int, str], list[int]] = {}
        self._desk_entries_before = self._desk_entries

    def _load(self, state: State) -> None:
        rows = {row.id: row for row in state.accounts}
        for row in state.accounts:
            above: list[AccountRow] = []
            one: AccountRow | None = row
            while one is not None and one.id not in self._accounts:
                above.append(one)
                one = rows[one.parent] if one.parent is not None else None
            for row_above in reversed(above):
                self._add_account(row_above)
        for budget_row in sorted(state.budgets, key=lambda row: row.id):
            self._add_budget(Budget(budget_row, self._accounts[budget_row.account]))
        for window_row in state.windows:
            window = self._add_window(window_row)
            window.budget.windows.append(window)
        for budget in self._budgets.values():
            budget.windows.sort(key=lambda window: window.name)
        for holder_row in state.holders:
            holder = self._holders[holder_row.id] = Holder(holder_row)
            self._last_holder = max(self._last_holder, holder.id)
        for lease_row in state.leases:
            lease = Lease(
                self._windows[lease_row.window],
                self._holders[lease_row.holder],
                lease_row.granted,
                lease_row.released,
                lease_row.spent,
            )
            lease.found = True
        for holder in self._holders.values():
            if holder.account is not None:
                account = self._accounts[holder.account]
                account.allocation = holder
                money = self._money(account)
                money.up = tuple(holder.leases.values())
        for open_row in state.open:
            holder = self._holders[open_row.holder]
            underway = holder.requests[open_row.request] = _underway(open_row)
            for place, (send, settle) in enumerate(zip(underway.sends, underway.settles, strict=True)):
                if settle is None:
                    holder.attempts[send.attempt] = (underway, place, send)
                holder.sent = max(holder.sent, send.attempt)
        self._excuse_what_was_found()
        for window in tuple(self._windows.values()):
            self._drop_if_old(window)

    def _excuse_what_was_found(self) -> None:
        """A lease that was breached before may yet pass its rights: by what its open attempts hold beyond them."""
        for window in self._windows.values():
            window.excused = window.short
        for holder in self._holders.values():
            for lease in holder.leases.values():
                held = sum(
                    reserved
                    for _, _, send in holder.attempts.values()
                    for number, reserved in zip(send.windows, send.reserved, strict=True)
                    if number == lease.window.id
                )
                lease.breached = max(0, lease.spent + held - lease.rights)
                lease.window.excused += lease.breached
        for window in self._windows.values():
            for lease in window.up:
                lease.breached = max(lease.breached, window.excused)
                lease.window.excused += lease.breached

    def take(self) -> Changes:
        """The rows that changed since this was last asked; from here on they count as handed over."""
        holders = {holder.id: holder.row() for holder in self._changed_holders}
        requests: dict[tuple[int, str], OpenRow | None] = {}
        for underway in self._changed_requests:
            key = (underway.holder, underway.request)
            open_ = self._holders[underway.holder].requests.get(underway.request) is underway
            if open_:
                requests[key] = _open_row(underway)
            elif underway.kept and key not in requests:
                requests[key] = None
            underway.kept = open_
        self.pile_up()
        changes = Changes(
            accounts={account.row.id: account.row for account in self._changed_accounts},
            budgets={budget.row.id: budget.row for budget in self._changed_budgets},
            windows={window.id: window.row() for window in self._changed_windows},
            leases={(lease.window.id, lease.holder.id): lease.row() for lease in self._changed_leases},
            holders=holders,
            open=requests,
            entries=self._piled,
            usage=[
                UsageDelta(account, _day(day), model, *counts) for (account, day, model), counts in self._usage.items()
            ],
        )
        if self._desk_entries != self._desk_entries_before:
            changes.notes[_DESK_ENTRIES] = b"%d" % self._desk_entries
        for window in self._changed_windows:
            self._drop_if_old(window)
        for holder in self._changed_holders:
            if not holder.live:
                del self._holders[holder.id]
        self._forget()
        return changes

    # What may be looked at.

    def accounts(self, kind: str) -> list[AccountRow]:
        """Every account of a kind, whatever its state, in the order they were opened."""
        return [account.row for account in self._accounts.values() if account.row.kind == kind]

    def money(self, now_ms: int) -> dict[str, tuple[int, int, int, int]]:
        """What the living have by kind: free, held, leased and spent of that limit of each which leaves it the least.

        Nothing is opened or kept for it. Free is below zero where more was spent than allowed; the four add up to limits.
        """
        sums: dict[str, list[int]] = {}
        for account in self._accounts.values():
            if account.row.state != "live":
                continue
            least: tuple[int, int, int, int] | None = None
            for budget in account.budgets:
                if budget.row.unit == "microdollar" and budget.row.amount != UNLIMITED:
                    parts = _parts(budget, now_ms)
                    least = parts if least is None or parts[0] < least[0] else least
            if least is not None:
                into = sums.setdefault(account.row.kind, [0, 0, 0, 0])
                for place, amount in enumerate(least):
                    into[place] += amount
        return {kind: (free, held, leased, spent) for kind, (free, held, leased, spent) in sums.items()}

    @property
    def nobody_has_a_key(self) -> bool:
        """Whether no account was ever given a token to call with: who revokes the last one does not open the house."""
        return not any(account.row.kind in ("key", "agent") for account in self._accounts.values())

    def children(self, account_id: int) -> list[AccountRow]:
        """The accounts that hang on one."""
        return [child.row for child in self._accounts[account_id].children]

    def budgets(self, account_id: int) -> list[BudgetRow]:
        """The limits of its own that an account has."""
        return [budget.row for budget in self._accounts[account_id].budgets if budget.row.amount != UNLIMITED]

    def window(self, number: int) -> tuple[str, str, str] | None:
        """Whose window a number means (a public id), its unit and its name; None of one that is long over."""
        window = self._windows.get(number)
        if window is None:
            return None
        budget = window.budget
        return budget.account.row.public_id, budget.row.unit, window.name

    def lives(self, holder: int) -> bool:
        """Whether that life of a worker is not over."""
        return holder in self._holders and self._holders[holder].live

    def boot(self, holder: int) -> str:
        """The boot of the machine in which that life began; empty of one that nobody lives."""
        life = self._holders.get(holder)
        return "" if life is None else life.boot_id

    def unit(self, window: WindowRow) -> str:
        """What a window counts in, which may be long over."""
        return self._budgets[window.budget].row.unit

    def entered(self, request: str) -> list[EntryRow]:
        """The entries of that request which are not handed over yet."""
        self.pile_up()
        return self._piled.of(request)

    def pile_up(self) -> None:
        """Keep the bytes of what was entered, and let go of the rows."""
        self._piled.add(self._entries)
        self._entries.clear()

    # Rows join and leave.

    def _add_account(self, row: AccountRow) -> Account:
        account = Account(row, self._accounts[row.parent] if row.parent is not None else None)
        if account.parent is not None:
            account.parent.children.append(account)
        self._accounts[row.id] = self._public[row.public_id] = account
        self._last_account = max(self._last_account, row.id)
        for digest in (row.digest, row.replaced):
            if digest is not None:
                self._digests[digest] = account
        return account

    def _add_budget(self, budget: Budget) -> None:
        self._budgets[budget.row.id] = budget
        self._last_budget = max(self._last_budget, budget.row.id)
        budget.account.budgets.append(budget)

    def _add_window(self, row: WindowRow) -> Window:
        window = self._windows[row.id] = Window(row, self._budgets[row.budget])
        self._last_window = max(self._last_window, row.id)
        return window

    def _new_holder(self, holder: Holder) -> Holder:
        self._last_holder = holder.id
        self._holders[holder.id] = holder
        self._changed_holders.add(holder)
        return holder

    def _drop_if_old(self, window: Window) -> None:
        if not window.leases and window not in (windows := window.budget.windows)[-WINDOWS_KEPT:]:
            del self._windows[window.id]
            if window in windows:
                windows.remove(window)
            for holder in self._holders.values():
                holder.ended.pop(window.id, None)

    def _window(self, budget: Budget, now_ms: int) -> Window:
        """The budget's window of this instant, opened if need be; where the clock went back, still the newest."""
        newest = budget.windows[-1] if budget.windows else None
        if newest is not None and (newest.ends_ms is None or now_ms < newest.ends_ms):
            return newest
        name, ends_ms = window_at(budget.row.window, budget.row.zone, now_ms)
        if newest is not None and name <= newest.name:
            return newest
        window = self._add_window(WindowRow(self._last_window + 1, budget.row.id, name, ends_ms))
        budget.windows.append(window)
        self._changed_windows.add(window)
        for old in budget.windows[:-WINDOWS_KEPT]:
            if old not in self._changed_windows:
                self._drop_if_old(old)
        return window

    def _money(self, account: Account) -> Window:
        """The window that holds an allocation's money."""
        return account.budgets[0].windows[-1]

    def _holder(self, number: int) -> Holder:
        holder = self._holders.get(number)
        if holder is None or not holder.live:
            raise BrokenBooks(f"holder {number} is not alive")
        return holder

    # Money moves.

    def _spend(self, lease: Lease, amount: int, breach: int, now_ms: int) -> None:
        """Spend rights of a lease, and with them of those that they were taken from."""
        lease.spend(amount)
        lease.breached += breach
        self._changed_leases.add(lease)
        lease.window.excused += breach
        self._pass_up(lease.window, amount, breach, now_ms)

    def _charge(self, window: Window, amount: int, breach: int, now_ms: int) -> None:
        """Charge a window with what nobody held a lease for; a negative amount gives back."""
        window.closed += amount
        window.excused += breach
        self._changed_windows.add(window)
        self._pass_up(window, amount, breach, now_ms)

    def _pass_up(self, window: Window, amount: int, breach: int, now_ms: int) -> None:
        account = window.budget.account
        if window.up:
            for lease in window.up:
                self._spend(lease, amount, breach, now_ms)
        elif window.escrow and account.parent is not None:
            # Its escrow has come home, or there was no limit to take it from: what is still spent is its parent's.
            for budget in account.parent.path():
                if budget.row.unit == "microdollar":
                    self._charge(self._window(budget, now_ms), amount, max(0, amount), now_ms)

    def _end_lease(self, lease: Lease) -> None:
        lease.end()
        self._changed_leases.add(lease)
        self._changed_windows.add(lease.window)
        self._come_home(lease.window.budget.account)

    def _end_holder(self, holder: Holder) -> None:
        holder.live = False
        self._changed_holders.add(holder)
        for lease in tuple(holder.leases.values()):
            self._end_lease(lease)

    def _come_home(self, account: Account) -> None:
        """Give an allocation that is over back to its parent, once nobody holds any of it."""
        if account.allocation is None or account.row.state == "live" or self._money(account).leases:
            return
        holder, account.allocation = account.allocation, None
        self._money(account).up = ()
        self._end_holder(holder)

    def _use(self, account: int, at_ms: int, model: str) -> list[int]:
        """The counts that a request of an account goes to: what an allocation uses is its owner's use."""
        user = self._accounts.get(account)
        while user is not None and user.allocated and user.parent is not None:
            user = user.parent
            account = user.row.id
        key = (account, at_ms // DAY_MS, model)
        counts = self._usage.get(key)
        if counts is None:
            counts = self._usage[key] = [0, 0, 0, 0, 0]
        return counts

    def _desk_entry(self) -> int:
        self._desk_entries += 1
        return self._desk_entries


def _parts(budget: Budget, now_ms: int) -> tuple[int, int, int, int]:
    """What is free of it at this instant, held by workers, leased to allocations, and spent."""
    window = budget.windows[-1] if budget.windows else None
    if window is None or (window.ends_ms is not None and window.ends_ms <= now_ms):
        return budget.row.amount, 0, 0, 0  # nobody has asked since the last one was over
    held = leased = 0
    for lease in window.leases.values():
        rest = max(0, lease.rights - lease.spent)
        if lease.holder.kind == "allocation":
            leased += rest
        else:
            held += rest
    return window.avail, held, leased, window.spent


def _day(number: int) -> str:
    return (_EPOCH + timedelta(days=number)).date().isoformat()


def _open_row(underway: Underway) -> OpenRow:
    body = OpenRequest(tuple(underway.sends), tuple(underway.settles), underway.finish)
    return OpenRow(underway.holder, underway.request, _encode(body))


def _underway(row: OpenRow) -> Underway:
    underway, body = Underway(row.holder, row.request), _decode(row.body)
    underway.sends, underway.settles, underway.finish = list(body.sends), list(body.settles), body.finish
    underway.open = underway.settles.count(None)
    underway.kept = True
    return underway
