"""The auditor: a second, slower book that keeps lists of what happened and adds them up anew each time.

It knows the book by its methods and rows alone. `test_book_model` has the histories that both go through.
"""

import datetime
from fractions import Fraction

from fastroute.ledger.book import Book
from fastroute.ledger.records import Finish, Send, Settle
from fastroute.ledger.store import State

DAY = 86_400_000


class Store:
    """Rows as they were committed."""

    def __init__(self):
        self.rows = {name: {} for name in ("accounts", "budgets", "windows", "leases", "holders", "open", "notes")}
        self.entries = []
        self.usage = []

    def commit(self, changes):
        for name, rows in self.rows.items():
            rows.update(getattr(changes, name))
        for name in ("open", "notes"):
            self.rows[name] = {key: row for key, row in self.rows[name].items() if row is not None}
        keys = {(entry.holder, entry.attempt) for entry in self.entries}
        for entry in changes.entries:
            assert (entry.holder, entry.attempt) not in keys, "I4: an attempt is closed twice"
            keys.add((entry.holder, entry.attempt))
        self.entries += changes.entries
        self.usage += changes.usage

    def load(self):
        rows = self.rows
        leases = [row for row in rows["leases"].values() if not row.done]
        newest = {}
        for row in rows["windows"].values():
            newest[row.budget] = max(row.id, newest.get(row.budget, 0))
        keep = set(newest.values()) | {row.window for row in leases}
        return State(
            accounts=list(rows["accounts"].values()),
            budgets=list(rows["budgets"].values()),
            windows=[row for row in rows["windows"].values() if row.id in keep],
            leases=leases,
            holders=[row for row in rows["holders"].values() if row.live],
            open=list(rows["open"].values()),
            notes=dict(rows["notes"]),
            last_holder=max(rows["holders"], default=0),
        )


class Worker:
    """One life as it really is: its rights, its journal, and what its attempts hold."""

    def __init__(self, number, boot):
        self.number, self.boot = number, boot
        self.leases = {}  # window -> [granted, released, spent, held]
        self.journal = []
        self.applied = self.committed = 0
        self.open = {}  # attempt -> Send
        self.attempts = self.seq = 0
        self.outcome = None  # of its end: window -> what it is charged
        self.recovering = False

    def lease(self, window):
        return self.leases.setdefault(window, [0, 0, 0, 0])

    def free(self, window):
        granted, released, spent, held = self.lease(window)
        return granted - released - spent - held

    def spent(self, window, upto=None):
        """What its journal, so far as it was applied, has charged on a window."""
        sends, total = {}, 0
        for record in self.journal[: self.applied if upto is None else upto]:
            if isinstance(record, Send):
                sends[record.attempt] = record
            elif isinstance(record, Settle) and window in (windows := sends[record.attempt].windows):
                total += record.charged[windows.index(window)]
        return total

    def finished(self):
        """The requests whose callers were answered; no further attempt belongs to them."""
        return {record.request for record in self.journal if isinstance(record, Finish)}

    def open_in_the_journal(self):
        closed = {record.attempt for record in self.journal if isinstance(record, Settle)}
        return [record for record in self.journal if isinstance(record, Send) and record.attempt not in closed]


class Auditor:
    """A book with its workers and its store, and all that ever happened to them."""

    def __init__(self):
        super().__init__()
        self.store, self.book, self.now, self.boot = Store(), Book(State()), 20_000 * DAY, 0
        self.workers, self.net, self.answers = [], [], []
        self.seen = {}  # holder -> number of its newest message that arrived
        self.met = set()  # (holder, message, window) that something was lent for
        self.granted, self.released = {}, {}  # (holder, window) -> total, as answers and delivered reports have it
        self.limit, self.highest, self.excess = {}, {}, {}  # by window
        self.posted = {}  # window -> [amount]
        self.windows = {}  # window -> (account, window kind, unit, name, day it was opened)
        self.allocations = {}  # account -> [amount, its window, parents' windows, over]
        self.corrected = set()
        self.accounts, self.numbers = [], 0

    def look(self):
        """Learn the windows of today as any worker would."""
        for account in self.accounts:
            for place in self.book.facts(account, self.now).path:
                owner = self.book.by_public(place.owner).id
                self.limit[place.window] = place.limit
                self.highest[place.window] = max(place.limit, self.highest.get(place.window, 0))
                if place.window not in self.windows:
                    self.windows[place.window] = (owner, place.unit, place.name)
                    self.posted[place.window] = []
                    self.excess[place.window] = 0
                expected = "total" if place.name == "total" else day(self.now)
                assert place.name >= expected, "a window of the past is offered"

    def live(self):
        return [worker for worker in self.workers if worker.outcome is None]

    def pick(self, which):
        return self.live()[which % len(self.live())] if self.live() else None

    def own_windows(self, account):
        return [place.window for place in self.book.facts(account, self.now).path]

    def owner(self, window):
        return self.windows[window][0]

    def ancestors(self, windows):
        found = list(windows)
        for number in found:
            owner = self.windows[number][0]
            if owner in self.allocations:
                found += self.allocations[owner][2]
        return found

    def used(self, window):
        """What was spent on a window, from everything that ever happened."""
        total = Fraction(sum(self.posted[window]))
        for worker in self.workers:
            total += worker.spent(window) if worker.outcome is None else worker.outcome.get(window, 0)
        for _, below, above, _, late in self.allocations.values():
            if window in above:
                total += self.used(below)
            total += sum(amount for at, amount in late if at == window)
        return total

    def left(self, window):
        total = Fraction(self.limit[window] - sum(self.posted[window]))
        for worker in self.workers:
            key = (worker.number, window)
            if worker.outcome is not None:
                total -= worker.outcome.get(window, 0)
            else:
                total -= max(self.granted.get(key, 0) - self.released.get(key, 0), worker.spent(window))
        for amount, below, above, over, late in self.allocations.values():
            if window in above:
                total -= self.used(below) if over else max(amount, self.used(below))
            total -= sum(amount for at, amount in late if at == window)
        return total

    def commit(self):
        self.store.commit(self.book.take())
        for worker in self.workers:
            worker.committed = worker.applied

    def homecomings(self):
        """What is at home according to the rows: its holder is gone. Whether it may be is for `used` and `left` to find."""
        for account, allocation in self.allocations.items():
            holder = [row for row in self.store.rows["holders"].values() if row.account == account]
            allocation[3] = not holder[0].live
            if allocation[3]:
                assert self.book.account(account).state != "live", "R4: money came home by itself"
                for worker in self.live():
                    key = (worker.number, allocation[1])
                    rights = self.granted.get(key, 0) - self.released.get(key, 0)
                    assert rights <= worker.spent(allocation[1]), "R4: money came home while somebody had rights to it"

    def late_charge(self, account, amount, late):
        """After the end the parent's windows of today pay; those the money came from have no part in it."""
        parent = self.book.account(account).parent
        today = [w for w in self.own_windows(parent) if self.windows[w][1] == "microdollar"]
        self.look()
        for above in self.allocations[account][2]:
            late.append((above, -amount))  # `used` counts what is spent below on those it came from
        for window in today:
            late.append((window, amount))
            self.excess[window] += amount
            owner = self.windows[window][0]
            if owner in self.allocations and self.allocations[owner][3]:
                self.late_charge(owner, amount, self.allocations[owner][4])
            for number in self.ancestors([window]):
                self.excess[number] += amount


def day(now_ms):
    return (datetime.date(1970, 1, 1) + datetime.timedelta(days=now_ms // DAY)).isoformat()
