"""The judge: what upstreams truly billed, beside what the books and the workers believe; simple, and looked at all the time.

It reads rows as they were committed, the balances that workers hold, and its own list of bills. It uses none of the
book's arithmetic.
"""

from collections import Counter, defaultdict

from fastroute.ledger.records import SEND, SETTLE, Send


class Violation(AssertionError):
    """A promise that did not hold."""


class Oracle:
    def __init__(self, world):
        self.world = world
        self.billed = Counter()  # window -> truth
        self.eps = Counter()  # window -> what bills passed their reserves by, and what the desk charged beyond limits
        self.cap = {}  # window -> the most that its limit explains
        self.closed = {}
        self.budget_of = {}  # window -> budget id
        self.limits = {}  # budget -> BudgetRow
        self.newest = {}  # budget -> window row
        self.leases = defaultdict(dict)  # window -> {holder: LeaseRow}, those not done
        self.done = {}  # (window, holder) -> its last row
        self.allocation = {}  # holder -> account
        self.purse = {}  # allocation's account -> its money window
        self.up = {}  # money window of an allocation -> windows it was taken from
        self.taken = defaultdict(dict)  # window -> {life: spent and held there, or what is out after a power loss}
        self.lives = {}  # life -> Worker
        self.buried = set()
        self.seqs = set()  # (life, seq) that reached the bookkeeper
        self.may = Counter()  # (window, life) -> the sum of what was wanted in messages that arrived
        self.offsets = {}
        self.entries = {}
        self.sends = {}  # (life, attempt) -> Send, in the journal
        self.owed = Counter()  # (window, life) -> what its journal says was spent or is held for what is open
        self.settles = {}  # (life, attempt) -> what was billed, where usage was seen
        self.finishes = {}  # request -> life
        self.requests = defaultdict(list)
        self.receipts = {}
        self.accounts = {}
        self.bills = {}

    def must(self, holds, *what):
        if not holds:
            raise Violation(" ".join(map(str, what)))

    # What is true.

    def windows_of(self, path):
        """A path's windows with those that its allocations were taken from, as (index in the path, window)."""
        found = list(enumerate(path))
        for index, window in found:
            found += [(index, above) for above in self.up.get(window, ())]
        return found

    def bill(self, bill):
        bill.billed = True
        touched = []
        for index, window in self.windows_of(bill.windows):
            self.billed[window] += bill.amounts[index]
            self.eps[window] += max(0, bill.amounts[index] - bill.reserved[index])
            touched.append(window)
        self.check(touched)

    # What workers believe.

    def born(self, worker):
        self.must(worker.life not in self.lives, "a number of a life is given twice:", worker.life)
        self.lives[worker.life] = worker

    def look(self, worker):
        """I2, I3 and I5 of everything a worker holds."""
        life = worker.life
        if not life or worker.dead:
            return
        holder, before = worker.holder, worker.seen_balances
        touched = None
        for window in holder._leases:
            granted, released, spent, held, free = holder.balance(window)
            taken = spent + held
            if before.get(window) == (granted, released, taken) and free >= 0:
                continue
            before[window] = granted, released, taken
            if free < 0:
                self.must(free >= -worker.excess.get(window, 0), "I3: life", life, "has", free, "free on", window)
            row = self.leases[window].get(life)
            if row is None:
                self.must(
                    not granted or (window, life) in self.done, "G: life", life, "has what nobody granted on", window
                )
            else:
                self.must(granted <= row.granted, "G: life", life, "has", granted, "of", row.granted, "on", window)
                self.must(
                    row.released <= released, "R: life", life, "released", released, "not", row.released, "on", window
                )
            if (window, life) not in self.done:
                self.taken[window][life] = taken
            touched = touched or []
            touched.append(window)
        if touched:
            for window in tuple(touched):
                touched += self.up.get(window, ())
            self.check(touched)

    def died(self, worker):
        """What it held at that instant stays as it was, until it is buried."""

    def lost_power(self):
        """What a life held is nowhere written any more: all that was out with it counts."""
        for life, worker in self.lives.items():
            if life in self.buried:
                continue
            worker.power_lost = True
            for window, rows in self.leases.items():
                row = rows.get(life)
                if row is not None:
                    taken = self.taken[window].get(life, 0)
                    self.taken[window][life] = max(taken, row.granted - row.released, row.spent)

    def wrote(self, worker, kind, record):
        if kind == SEND:
            assert isinstance(record, Send)
            key = worker.life, record.attempt
            self.must(key not in self.sends, "attempt", key, "is sent twice")
            self.sends[key] = record
            self.requests[record.request].append(key)
            for window, reserved in zip(record.windows, record.reserved, strict=True):
                self.owed[window, worker.life] += reserved
        elif kind == SETTLE:
            send = self.sends[worker.life, record.attempt]
            for window, reserved, charged in zip(send.windows, send.reserved, record.charged, strict=True):
                self.owed[window, worker.life] += charged - reserved
        else:
            self.must(record.request not in self.finishes, record.request, "is finished twice")
            self.finishes[record.request] = worker.life

    def settled(self, worker, hold, bill):
        if bill.settlement.basis == "exact":
            self.settles[worker.life, hold.attempt] = bill.amounts

    def arrived(self, question):
        """A report reached the bookkeeper; upon each number once something may be granted."""
        key = question.holder, question.seq
        if key not in self.seqs:
            self.seqs.add(key)
            for report in question.leases:
                self.may[report.window, question.holder] += max(0, report.want)

    # What is committed.

    def committed(self, changes):
        touched = set(changes.windows)
        lowered = []
        self.accounts.update(changes.accounts)
        for row in changes.budgets.values():
            before = self.limits.get(row.id)
            self.limits[row.id] = row
            if before is not None and before.amount != row.amount:
                lowered += [window for window, budget in self.budget_of.items() if budget == row.id]
        for row in sorted(changes.windows.values(), key=lambda row: row.id):
            if row.id not in self.cap:
                self.cap[row.id] = self.limits[row.budget].amount
                self.budget_of[row.id] = row.budget
                before = self.newest.get(row.budget)
                self.must(before is None or before.name < row.name, "window", row.name, "opened after", before)
                self.newest[row.budget] = row
                account = self.accounts[self.limits[row.budget].account]
                if account.kind in ("grant", "lease"):
                    self.purse[account.id] = row.id
            self.closed[row.id] = row.closed
        for row in changes.holders.values():
            if row.kind == "allocation":
                self.allocation[row.id] = row.account
            else:
                place = row.segment, row.offset, row.seq
                before = self.offsets.get(row.id, (0, 0, 0))
                self.must(place[:2] >= before[:2] and row.seq >= before[2], "I8: holder", row.id, "goes back to", place)
                self.offsets[row.id] = place
                if not row.live:
                    self.buried.add(row.id)
        for (window, holder), row in changes.leases.items():
            touched.add(window)
            self.lease(window, holder, row)
        for window in lowered:
            self.cap[window] = max(self.limits[self.budget_of[window]].amount, self.closed[window] + self.out(window))
            touched.add(window)
        for row in changes.entries:
            self.entry(row)
        for row in changes.receipts:
            self.must(row.request not in self.receipts, "a second receipt of", row.request)
            self.receipts[row.request] = row
        for window in tuple(touched):
            touched.update(self.up.get(window, ()))
        self.check(sorted(touched))

    def lease(self, window, holder, row):
        before = self.leases[window].get(holder)
        if before is not None:
            grew = row.granted >= before.granted and row.released >= before.released and row.spent >= before.spent
            # A refund of what an allocation spent is the one thing that makes a total smaller.
            self.must(grew or holder in self.allocation, "I2: totals go back:", before, row)
        if (window, holder) in self.done and not row.done:
            # It came to rest while nothing was admitted on its window, and goes on from the totals it had.
            ended = self.done.pop((window, holder))
            grew = row.granted >= ended.granted and row.released >= ended.released and row.spent >= ended.spent
            self.must(grew and holder not in self.allocation, "a lease is begun again from less:", ended, row)
            self.taken[window][holder] = ended.spent
        if holder in self.allocation:
            if before is None and not row.done:
                money = self.purse[self.allocation[holder]]
                self.up[money] = (*self.up.get(money, ()), window)
        else:
            self.must(0 <= row.released <= row.granted, "I2: more is released than was granted:", row)
            worker = self.lives.get(holder)
            if worker is not None and not row.done:
                told = worker.holder.balance(window)[1]
                self.must(row.released <= told, "R: life", holder, "released", told, "and the books have", row)
                owed = self.owed[window, holder] - worker.excess.get(window, 0)
                covered = worker.power_lost or row.granted - row.released >= owed
                self.must(covered, "R3: more is released than the journal says: it may yet tell of", owed, row)
            self.must(row.granted <= self.may[window, holder], "I8: more is granted than was asked for:", row)
        if row.done:
            self.leases[window].pop(holder, None)
            self.taken[window].pop(holder, None)
            self.done[window, holder] = row
        else:
            self.leases[window][holder] = row

    def entry(self, row):
        key = row.holder, row.attempt
        self.must(key not in self.entries, "I4: a second entry of", key)
        self.entries[key] = row
        life = self.lives.get(row.holder)
        if row.holder == 0:
            if row.corrects is None:
                for index, window in self.windows_of(row.windows):
                    self.billed[window] += row.charged[index]
                    if row.model == "beyond":
                        self.eps[window] += row.charged[index]
            return
        self.must(life is not None, "an entry of nobody's:", row)
        if row.attempt == 0:
            self.must(life.power_lost, "I9: life", row.holder, "is charged for a loss of power that there was not")
            return
        self.must(key in self.sends, "I4: an entry of what was never sent:", row)
        for reserved, charged in zip(row.reserved, row.charged, strict=True):
            self.must(charged >= 0 and (charged <= reserved or key in self.settles), "I4: charged beyond:", row)

    # The bounds.

    def out(self, window):
        return sum(max(row.granted - row.released, row.spent) for row in self.leases[window].values())

    def recorded(self, window):
        """What is charged, or held for what is under way, wherever it is written."""
        found = self.closed.get(window, 0)
        rows = self.leases[window]
        for life, taken in self.taken[window].items():
            row = rows.get(life)
            if row is not None and row.spent > taken:
                taken = row.spent
            found += taken
        for holder in rows:
            if holder in self.allocation:
                found += self.recorded(self.purse[self.allocation[holder]])
        return found

    def check(self, windows):
        for window in windows:
            cap = self.cap.get(window)
            if cap is None:
                continue
            billed, eps = self.billed[window], self.eps[window]
            if billed > cap + eps:
                raise Violation(f"I5: window {window} is overspent: {billed} of {cap} and {eps}")
            held = self.closed.get(window, 0) + self.out(window)
            if held > cap + eps:
                raise Violation(f"I1: window {window} lent and closed {held} of {cap} and {eps}")
            if held < billed - eps:
                raise Violation(f"I6: window {window} knows of {held}, and {billed} was billed, {eps} beyond reserves")
            recorded = self.recorded(window)
            if recorded < billed - eps:
                raise Violation(
                    f"I5: window {window} records {recorded}, and {billed} was billed, {eps} beyond reserves"
                )
            if recorded > cap + eps:
                raise Violation(f"I5: window {window} charges {recorded} of {cap} and {eps}")

    # At rest.

    def at_rest(self, book):
        self.must(book is not None, "the books are not open at rest")
        self.must(book.check() == [], "the book says of itself:", book.check())
        for window, rows in self.leases.items():
            self.must(not rows, "liveness: rights on window", window, "never came home:", rows)
        unburied = set(self.lives) - self.buried
        self.must(not unburied, "liveness: lives were never closed:", unburied)
        charged = Counter()
        for row in self.entries.values():
            for index, window in self.windows_of(row.windows):
                charged[window] += row.charged[index]
        for window, closed in self.closed.items():
            self.must(
                charged[window] == closed, "window", window, "closed", closed, "and its entries say", charged[window]
            )
        for key, send in self.sends.items():
            entry = self.entries.get(key)
            lost = self.lives[key[0]].power_lost
            self.must(entry is not None or lost, "I4: attempt", key, "was sent and is nowhere closed:", send)
            if entry is not None and entry.basis == "exact":
                self.must(entry.charged == self.settles[key], "attempt", key, "was billed", self.settles[key], entry)
        for request, life in self.finishes.items():
            there = request in self.receipts
            self.must(there or self.lives[life].power_lost, request, "was finished and has no receipt")
        for request, keys in self.requests.items():
            if self.lives[keys[0][0]].power_lost:
                continue
            self.must(request in self.receipts, request, "was sent and has no receipt")
            told = self.receipts[request].body.decode()
            self.must(told == repr([key[1] for key in keys]), "receipt of", request, "tells of", told, "not", keys)
        seqs = sorted(row.seq for row in self.receipts.values())
        self.must(seqs == list(range(1, len(seqs) + 1)), "the chain has gaps")
