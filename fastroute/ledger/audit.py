"""The audit: every balance recomputed from the entries, and every difference told in a sentence.

It knows rows only, none of the book's arithmetic, and reads one consistent snapshot while the house is open. The names
I1 to I10 are those of the invariants that the ledger promises.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Final

import msgspec

from fastroute.errors import StoreDamaged
from fastroute.ledger.balances import OpenRequest
from fastroute.ledger.library import Library, Snapshot
from fastroute.ledger.store import LeaseRow, ReceiptRow

SENTENCES_MAX: Final = 1000  # more than that nobody reads

_open: Final = msgspec.msgpack.Decoder(OpenRequest)

Key = tuple[int, int]  # window and holder


def audit(library: Library) -> list[str]:
    """What does not add up in the books; empty when they are right."""
    with library.snapshot() as rows:
        found = []
        try:
            for sentence in _Audit(rows).sentences():
                found.append(sentence)
                if len(found) == SENTENCES_MAX:
                    break
        except StoreDamaged as error:
            found.append(f"{error}; the audit ends there")
        return found


class _Audit:
    """One pass over the entries, and what is concluded from it."""

    def __init__(self, rows: Snapshot) -> None:
        self._rows = rows
        self._windows = {row.id: row for row in rows.windows}
        self._budgets = {row.id: row for row in rows.budgets}
        self._accounts = {row.id: row for row in rows.accounts}
        self._holders = {row.id: row for row in rows.holders}
        self._charged: Counter[Key] = Counter()  # by the entries
        self._unheld: Counter[Key] = Counter()  # of that, what nothing was reserved for
        self._breached: Counter[Key] = Counter()
        self._attempts: set[tuple[int, int]] = set()  # of holders that have requests under way
        self._used: dict[tuple[int, str], list[int]] = defaultdict(lambda: [0, 0, 0])
        self._leases: dict[int, list[LeaseRow]] = defaultdict(list)
        for lease in rows.leases:
            self._leases[lease.window].append(lease)

    def sentences(self) -> Iterator[str]:
        yield from self._entries()
        yield from self._lives()
        yield from self._rights()
        yield from self._balances()
        yield from self._usage()
        yield from _chain(self._rows.receipts)

    def _entries(self) -> Iterator[str]:
        under_way = {row.holder for row in self._rows.open}
        for row in self._rows.entries:
            name = f"attempt {row.attempt} of holder {row.holder}"
            if row.holder in under_way:
                self._attempts.add((row.holder, row.attempt))
            if not len(row.windows) == len(row.reserved) == len(row.charged):
                yield f"I7: {name} tells of {len(row.windows)} windows and {len(row.charged)} charges"
                continue
            money = set()
            for window, reserved, charged in zip(row.windows, row.reserved, row.charged, strict=True):
                key = window, row.holder
                self._charged[key] += charged
                if charged > reserved:
                    self._breached[key] += charged - reserved
                    if reserved == 0:
                        self._unheld[key] += charged
                if self._unit(window) == "microdollar":
                    money.add(charged)
                if charged < 0 and row.corrects is None:
                    yield f"I4: {name} is charged {charged} on window {window} and corrects nothing"
            if row.basis != "presumed" and row.microdollars is not None and money - {row.microdollars}:
                yield f"I7: {name} costs {row.microdollars} microdollars and is charged {sorted(money)}"
            used = self._used[self._user(row.account), row.model]
            used[0] += row.corrects is None
            used[1] += sum(row.usage[:4])
            used[2] += row.microdollars or 0

    def _user(self, number: int) -> int:
        """Whose use it is: what a grant or a lease uses is told of whom it was taken from."""
        row = self._accounts.get(number)
        while row is not None and row.kind in ("grant", "lease") and row.parent is not None:
            number = row.parent
            row = self._accounts.get(number)
        return number

    def _unit(self, window: int) -> str:
        row = self._windows.get(window)
        budget = None if row is None else self._budgets.get(row.budget)
        return "" if budget is None else budget.unit

    def _lives(self) -> Iterator[str]:
        """I4: an attempt under way is either open or told, and only the living have any."""
        for row in self._rows.open:
            holder = self._holders.get(row.holder)
            if holder is None or not holder.live:
                yield f"I9: request {row.request} is under way with holder {row.holder}, who is not alive"
            request = _open.decode(row.body)
            for send, settle in zip(request.sends, request.settles, strict=True):
                told = (row.holder, send.attempt) in self._attempts
                if told != (settle is not None):
                    yield f"I4: attempt {send.attempt} of holder {row.holder} is open and {'' if told else 'not '}told"

    def _rights(self) -> Iterator[str]:
        for lease in self._rows.leases:
            name = f"the lease of holder {lease.holder} on window {lease.window}"
            key = lease.window, lease.holder
            holder = self._holders.get(lease.holder)
            if lease.window not in self._windows or holder is None:
                yield f"I9: {name} is of a window or holder that is not there"
                continue
            if not 0 <= lease.released <= lease.granted:
                yield f"I2: {name} released {lease.released} of {lease.granted}"
            if not lease.done and not holder.live:
                yield f"I9: {name} is open, and its holder is not alive"
            if holder.kind == "allocation":
                continue
            if lease.spent > lease.granted - lease.released + self._breached[key]:
                yield f"I2: {name} spent {lease.spent} of {lease.granted - lease.released}"
            unexplained = self._charged[key] - lease.spent
            # What nothing was reserved for is charged to the window itself when the lease has ended.
            if not 0 <= unexplained <= self._unheld[key]:
                yield f"I5: {name} spent {lease.spent}, and its attempts were charged {self._charged[key]}"

    def _balances(self) -> Iterator[str]:
        """I5, I6, I10: what a window counts as spent is its own entries and what allocations took from it."""
        entered: Counter[int] = Counter()
        for (window, _), charged in self._charged.items():
            entered[window] += charged
        counted = {
            row.id: row.closed + sum(lease.spent for lease in self._leases[row.id] if not lease.done)
            for row in self._rows.windows
        }
        late = self._late(counted)
        for row in self._rows.windows:
            budget = self._budgets.get(row.budget)
            if budget is None:
                yield f"I9: window {row.id} is of a budget that is not there"
                continue
            allocated = sum(lease.spent for lease in self._leases[row.id] if self._allocates(lease))
            difference = counted[row.id] - entered[row.id] - allocated
            if difference and not min(0, late[budget.account]) <= difference <= max(0, late[budget.account]):
                account = self._accounts[budget.account].public_id
                yield (
                    f"I6: window {row.name} ({row.id}) of {account} counts {counted[row.id]} {budget.unit}s; its entries "
                    f"are {entered[row.id]} and allocations of it spent {allocated}"
                )
        for holder in self._rows.holders:
            if holder.kind == "allocation" and holder.live and holder.account is not None:
                spent = counted.get(self._purse(holder.account), 0)
                for lease in self._rows.leases:
                    if lease.holder == holder.id and lease.spent != spent:
                        account = self._accounts[holder.account].public_id
                        yield f"I10: {account} spent {spent}, and {lease.spent} of its parent's window {lease.window}"

    def _allocates(self, lease: LeaseRow) -> bool:
        holder = self._holders.get(lease.holder)
        return holder is not None and holder.kind == "allocation"

    def _purse(self, account: int) -> int:
        """The window that holds an allocation's money: the first one it was given."""
        budgets = [row.id for row in self._rows.budgets if row.account == account]
        return min((row.id for row in self._rows.windows if budgets and row.budget == budgets[0]), default=0)

    def _late(self, counted: dict[int, int]) -> Counter[int]:
        """By account above it, what allocations spent or were corrected by after their money had gone home."""
        late: Counter[int] = Counter()
        spent_by: dict[int, list[int]] = defaultdict(list)
        for lease in self._rows.leases:
            spent_by[lease.holder].append(lease.spent)
        for holder in self._rows.holders:
            if holder.kind != "allocation" or holder.account is None:
                continue
            took = spent_by[holder.id]
            more = counted.get(self._purse(holder.account), 0) - (took[0] if took else 0)
            above = self._accounts[holder.account].parent if holder.account in self._accounts else None
            while more and above is not None:
                late[above] += more
                above = self._accounts[above].parent
        return late

    def _usage(self) -> Iterator[str]:
        told: dict[tuple[int, str], list[int]] = defaultdict(lambda: [0, 0, 0])
        for row in self._rows.usage:
            sums = told[row.account, row.model]
            sums[0] += row.attempts
            sums[1] += row.input_tokens + row.output_tokens
            sums[2] += row.microdollars
        self._used.pop((0, ""), None)  # what a loss of power may have cost is nobody's use
        told.pop((0, ""), None)
        for key in sorted(told.keys() | self._used.keys()):
            if told[key] != self._used[key]:
                attempts, tokens, microdollars = self._used[key]
                yield (
                    f"usage of account {key[0]} and model {key[1]!r} is told as {told[key]}; its entries are "
                    f"{attempts} attempts, {tokens} tokens and {microdollars} microdollars"
                )


def _chain(receipts: Iterator[ReceiptRow]) -> Iterator[str]:
    """Whether receipts verify is for whoever has the keys; here only that none is missing."""
    after = 0
    for row in receipts:
        if row.seq != after + 1:
            yield f"receipts {after + 1} to {row.seq - 1} are missing"
        after = row.seq
