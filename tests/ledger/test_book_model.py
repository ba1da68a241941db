"""Random histories of workers, crashes, lost power, late messages and a busy desk, told to the book and to its auditor.

Both must agree after every step, and no money may be spent that nobody had.
"""

import os

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fastroute.ledger.book import Book, Budget, Refused
from fastroute.ledger.protocol import LeaseReport, Refresh
from fastroute.ledger.records import Finish, Send, Settle
from tests.ledger.auditor_kit import DAY, Auditor, Worker

TORTURE = os.environ.get("FASTROUTE_TORTURE") == "1"
ANY = st.integers(0, 10**6)
AMOUNT = st.integers(0, 60)
USAGE = (3, 2, 0, 0, 0)


class Books(Auditor, RuleBasedStateMachine):
    # --- the desk

    @initialize(top=st.integers(100, 3000), own=st.integers(50, 900), tokens=st.integers(100, 2000))
    def open_the_house(self, top, own, tokens):
        team = self.book.open_account("team", "key", "t", created_ms=0, budgets=[Budget("microdollar", top)])
        limits = [Budget("microdollar", own, "daily"), Budget("token", tokens, "total")]
        key = self.book.open_account("key", "key", "k", created_ms=0, parent=team.id, budgets=limits)
        lone = self.book.open_account("lone", "user", "l", created_ms=0, budgets=[Budget("request", 30, "daily")])
        self.accounts = [team.id, key.id, lone.id]
        self.look()
        self.commit()
        self.a_worker_starts()
        self.a_worker_starts()

    @rule(which=ANY, limit=st.integers(0, 3000))
    def a_limit_is_raised_or_lowered(self, which, limit):
        account, unit, window = [
            (self.accounts[0], "microdollar", "total"),
            (self.accounts[1], "microdollar", "daily"),
            (self.accounts[1], "token", "total"),
            (self.accounts[2], "request", "daily"),
        ][which % 4]
        recalled = self.book.set_budget(account, unit, limit, window)
        self.look()
        lives = {worker.number for worker in self.live()}
        assert set(recalled) <= lives
        self.commit()

    @rule(parent=ANY, amount=st.integers(1, 400), lasts=st.integers(1, 3), busy=st.integers(0, 2))
    def money_is_allocated(self, parent, amount, lasts, busy):
        parent = self.accounts[parent % len(self.accounts)]
        self.numbers += 1
        before = {w: self.left(w) for w in self.own_windows(parent) if self.windows[w][1] == "microdollar"}
        try:
            row = self.book.allocate(
                parent,
                amount,
                f"g{self.numbers}",
                "grant",
                "g",
                now_ms=self.now,
                expires_ms=self.now + lasts * DAY,
            )
        except Refused as refused:
            code = refused.code
        else:
            code = None
        if code is not None:
            standing = self.book.standing(parent, self.now)
            assert code == ("not_live" if standing != "live" else "parent_exhausted")
            assert standing != "live" or any(left < amount for left in before.values())
            return
        assert all(left >= amount for left in before.values()), "money was allocated that is not there"
        self.accounts.append(row.id)
        self.look()
        self.allocations[row.id] = [amount, self.own_windows(row.id)[0], tuple(before), False, []]
        self.commit()
        for worker in range(busy):
            self.an_attempt_is_sent(worker, len(self.accounts) - 1, min(amount, 60) // 2, 1)

    @precondition(lambda self: self.allocations)
    @rule(which=ANY)
    def an_allocation_ends(self, which):
        account = [*self.allocations][which % len(self.allocations)]
        self.book.end_allocation(account, "revoked")
        self.commit()
        self.book.end_allocation(account, "ended")
        assert self.book.account(account).state != "live"
        self.homecomings()

    @precondition(lambda self: self.allocations)
    @rule(which=ANY, amount=st.integers(1, 80))
    def a_spend_is_reported(self, which, amount):
        account = [*self.allocations][which % len(self.allocations)]
        _, window, _, over, late = self.allocations[account]
        path = self.own_windows(account)
        fits = self.book.account(account).state == "live"
        for number in path:
            charge = {"microdollar": amount, "token": 5, "request": 1}[self.windows[number][1]]
            fits = fits and self.left(number) >= charge
            self.posted[number].append(charge)
            self.excess[number] += charge
        above = self.allocations[account][2]
        for number in self.ancestors(above):
            self.excess[number] += amount
        if over:
            self.late_charge(account, amount, late)
        assert self.book.post(account, "reported", amount, now_ms=self.now, model="m", usage=USAGE) == fits
        assert window in path
        self.commit()
        self.look()

    @rule(which=ANY, charge=AMOUNT)
    def an_attempt_is_corrected(self, which, charge):
        entries = [
            entry
            for entry in self.store.entries
            if entry.holder and entry.attempt and entry.windows and (entry.holder, entry.attempt) not in self.corrected
        ]
        if not entries:
            return
        entry = entries[which % len(entries)]
        if any(self.allocations[owner][3] for owner in map(self.owner, entry.windows) if owner in self.allocations):
            return
        charged = tuple(charge if number else min(charge, 60) for number in entry.windows)
        old = [row for row in self.store.rows["windows"].values() if row.id in entry.windows]
        row = self.book.correct(
            entry,
            charged=charged,
            basis="exact",
            usage=USAGE,
            picodollars=None,
            microdollars=charge,
            now_ms=self.now,
            old_windows=old,
        )
        assert row.corrects == (entry.holder, entry.attempt)
        self.corrected.add(row.corrects)
        for number, was in zip(entry.windows, entry.charged, strict=True):
            self.posted[number].append(charge - was)
            for above in self.ancestors([number]):
                self.excess[above] += max(0, charge - was)
        self.commit()

    @rule(hours=st.integers(-5, 30))
    def time_goes_on(self, hours):
        self.now += hours * DAY // 24
        self.book.expire(self.now)
        self.commit()
        self.homecomings()
        self.look()
        self.commit()

    # --- workers

    @precondition(lambda self: len(self.live()) < 4)
    @rule()
    def a_worker_starts(self):
        boot = f"boot {self.boot}"
        number = self.book.hello(boot, self.now)
        assert number not in {row.id for row in self.store.rows["holders"].values()}, "numbers are never used again"
        self.workers.append(Worker(number, boot))
        self.commit()
        assert self.book.hello(boot, self.now, previous=number) == number

    @rule(which=ANY, account=ANY, money=AMOUNT, ask=st.integers(0, 4))
    def an_attempt_is_sent(self, which, account, money, ask):
        """Out of what its worker has, after asking for what it lacks or a few times that."""
        worker, account = self.pick(which), self.accounts[account % len(self.accounts)]
        if worker is None or self.book.standing(account, self.now) != "live":
            return
        path = self.book.facts(account, self.now).path
        self.look()
        self.commit()
        windows = tuple(place.window for place in path)
        reserved = tuple({"microdollar": money, "token": 2 * money, "request": 1}[place.unit] for place in path)
        short = {w: a - worker.free(w) for w, a in zip(windows, reserved, strict=True) if worker.free(w) < a}
        if short and ask:
            self.deliver(worker, self.message(worker, {w: lack * ask for w, lack in short.items()}, True))
            self.hear(*self.answers.pop())
        if any(worker.free(window) < amount for window, amount in zip(windows, reserved, strict=True)):
            return
        for window, amount in zip(windows, reserved, strict=True):
            worker.lease(window)[3] += amount
        worker.attempts += 1
        # Requests of two attempts each, unless the first was all of it.
        request = f"{worker.number}-{worker.attempts // 2}-{account}"
        if request in worker.finished():
            request += "-another"
        send = Send(worker.attempts, request, account, windows, reserved, "e", "m", "l", self.now, money)
        worker.open[send.attempt] = send
        worker.journal.append(send)

    @rule(which=ANY, attempt=ANY, tenths=st.integers(0, 12))
    def an_attempt_is_settled(self, which, attempt, tenths):
        """Void, within its reserve, or beyond it."""
        worker = self.pick(which)
        if worker is None or not worker.open:
            return
        send = worker.open.pop([*worker.open][attempt % len(worker.open)])
        charged = tuple(amount * tenths // 10 for amount in send.reserved)
        for window, amount, charge in zip(send.windows, send.reserved, charged, strict=True):
            worker.lease(window)[3] -= amount
            worker.lease(window)[2] += charge
            for above in self.ancestors([window]):
                self.excess[above] += max(0, charge - amount)
        spent = tuple(worker.lease(window)[2] for window in send.windows)
        basis = "exact" if tenths else "void"
        worker.journal.append(Settle(send.attempt, basis, "ok", 200, charged, spent, USAGE, None, sum(charged[:1]), 5))

    @rule(which=ANY)
    def a_request_is_finished(self, which):
        worker = self.pick(which)
        if worker is None or not worker.journal:
            return
        finished = worker.finished()
        sends = [r for r in worker.journal if isinstance(r, Send) and r.request not in finished]
        if sends:
            send = sends[0]
            worker.journal.append(
                Finish(send.request, send.account, "d", "chat", "m", "e", "ok", 200, False, send.at_ms, 5, None)
            )

    @rule(which=ANY, records=st.integers(1, 9))
    def a_journal_is_tallied(self, which, records):
        worker = self.pick(which)
        if worker is not None:
            self.tally(worker, records)

    def tally(self, worker, records=10**9):
        for record in worker.journal[worker.applied : worker.applied + records]:
            self.book.apply(worker.number, record, self.now)
            worker.applied += 1
        self.book.applied(worker.number, 0, worker.applied)

    @rule()
    def what_changed_is_committed(self):
        self.commit()

    @rule(which=ANY, window=ANY, want=st.integers(0, 200), urgent=st.booleans())
    def a_worker_asks(self, which, window, want, urgent):
        worker = self.pick(which)
        if worker is None:
            return
        window = [*self.windows][-1 - window % min(6, len(self.windows))]
        self.net.append((worker, self.message(worker, {window: want}, urgent, every=want % 2)))

    def message(self, worker, wants, urgent, every=False):
        worker.seq += 1
        reports = []
        for number in sorted({*worker.leases, *wants} if every else wants):
            granted, released, spent, held = worker.lease(number)
            reports.append(LeaseReport(number, granted, released, spent, held, wants.get(number, 0), urgent))
        return Refresh(worker.seq, worker.number, worker.seq, tuple(reports))

    @precondition(lambda self: self.net)
    @rule(which=ANY, again=st.booleans())
    def a_message_arrives(self, which, again):
        """In any order, and perhaps not for the last time."""
        worker, message = self.net[which % len(self.net)]
        if not again:
            self.net.remove((worker, message))
        for _ in range(1 + again):
            self.deliver(worker, message)

    def deliver(self, worker, message):
        fresh = message.seq > self.seen.get(worker.number, 0)
        again = message.seq == self.seen.get(worker.number, 0)
        self.seen[worker.number] = max(message.seq, self.seen.get(worker.number, 0))
        before = {report.window: self.left(report.window) for report in message.leases}
        for report in message.leases:
            key = (worker.number, report.window)
            if worker.outcome is None:
                self.released[key] = max(self.released.get(key, 0), report.released)
                before[report.window] = self.left(report.window)
        reply, recalls = self.book.refresh(message, self.now)
        assert worker.number not in recalls
        assert set(recalls) <= {other.number for other in self.live()}
        for report, answer in zip(message.leases, reply.leases, strict=True):
            key = (worker.number, report.window)
            more = answer.granted - self.granted.get(key, 0)
            if worker.outcome is not None:
                assert answer.closed
                continue
            if answer.closed:
                assert more <= 0 or key not in self.granted, "nothing is lent on what is over"
                continue
            assert 0 <= more <= report.want, "more was lent than was asked for, or a grant was taken back"
            if more:
                once = (worker.number, message.seq, report.window)
                assert fresh or again, "a message was lent upon too late"
                assert once not in self.met, "one message was lent upon twice"
                self.met.add(once)
                deficit = max(0, worker.spent(report.window) - self.granted.get(key, 0) + self.released.get(key, 0))
                assert before[report.window] >= max(0, more - deficit), "I1: rights were lent that were not there"
                assert not report.urgent or more == report.want, "half of what a request needs helps nobody"
            assert (answer.short is not None) == (more < report.want)
            self.granted[key] = answer.granted
        self.commit()  # R1
        self.homecomings()
        self.answers.append((worker, reply))

    @precondition(lambda self: self.answers)
    @rule(which=ANY, lost=st.booleans())
    def an_answer_arrives(self, which, lost):
        worker, reply = self.answers.pop(which % len(self.answers))
        if not lost:
            self.hear(worker, reply)

    def hear(self, worker, reply):
        if worker.outcome is not None:
            return
        for answer in reply.leases:
            lease = worker.lease(answer.window)
            lease[0] = max(lease[0], answer.granted)

    @rule(tallied=st.booleans())
    def everybody_reports(self, tallied):
        for worker in self.live():
            if tallied:
                self.tally(worker)
            for window, lease in worker.leases.items():
                lease[1] += max(0, worker.free(window))
            self.deliver(worker, self.message(worker, {}, False, every=True))
            self.hear(*self.answers.pop())

    @rule(which=ANY, part=st.integers(1, 4))
    def a_worker_gives_back(self, which, part):
        worker = self.pick(which)
        if worker is not None:
            for window, lease in worker.leases.items():
                lease[1] += max(0, worker.free(window)) // part

    # --- disasters

    @rule(which=ANY)
    def a_worker_dies(self, which):
        worker = self.pick(which)
        if worker is None:
            return
        self.tally(worker)
        outcome = {window: worker.spent(window) for window in self.windows}
        for send in worker.open_in_the_journal():
            for window, reserved in zip(send.windows, send.reserved, strict=True):
                outcome[window] += reserved
        self.bury(worker, outcome, power_lost=False)

    @rule(lost=st.integers(0, 5))
    def power_is_lost(self, lost):
        """The ends of all journals are gone, and with them what was told of them only by messages."""
        self.boot += 1
        for worker in self.live():
            worker.journal = worker.journal[: max(worker.applied, len(worker.journal) - lost)]
            self.tally(worker)
            outcome = {}
            for window in self.windows:
                key = (worker.number, window)
                rights = self.granted.get(key, 0) - self.released.get(key, 0)
                outcome[window] = max(rights, worker.spent(window))
            really = {window: lease[2] for window, lease in worker.leases.items()}
            self.bury(worker, outcome, power_lost=True)
            for window, spent in really.items():
                if not self.excess[window]:
                    assert outcome[window] >= spent, "I6: the books know less than was spent"

    def bury(self, worker, outcome, *, power_lost):
        unfinished = {send.request for send in worker.journal if isinstance(send, Send)}
        unfinished -= worker.finished()
        self.book.finished.clear()
        self.book.bury(worker.number, self.now, power_lost=power_lost)
        self.book.bury(worker.number, self.now, power_lost=power_lost)
        told = [done.finish.request for done in self.book.finished if done.finish.reason == "interrupted"]
        assert sorted(told) == sorted(unfinished), "every request under way is told of once"
        worker.outcome = outcome
        self.commit()
        self.homecomings()

    @rule()
    def the_bookkeeper_dies(self):
        """What was not committed is forgotten; the journals are read again from where the store knows them."""
        self.book = Book(self.store.load())
        for worker in self.live():
            worker.applied = self.store.rows["holders"][worker.number].offset
            assert worker.applied == worker.committed, "R6: effects and offset are one"
            # A message that asks for nothing is not kept; one sent before it may be lent upon by who did not hear it.
            self.seen[worker.number] = self.store.rows["holders"][worker.number].seq

    # --- what must always hold

    @invariant()
    def the_book_finds_no_fault_with_itself(self):
        faults = self.book.check()
        assert not faults, faults

    @invariant()
    def the_book_and_the_auditor_agree(self):
        for account in self.accounts:
            for balance in self.book.balances(account, self.now):
                window = balance.window
                assert balance.used == self.used(window), f"used on window {window}"
                assert balance.remaining == self.left(window), f"left on window {window}"
                assert balance.limit == balance.used + balance.held + balance.remaining
                assert balance.held >= balance.leased >= 0

    @invariant()
    def nothing_is_spent_that_was_not_there(self):
        """I1 and I5: what was really spent stays below the highest limit there was, but for breaches."""
        for window in self.windows:
            assert self.used(window) <= self.highest[window] + self.excess[window]

    def teardown(self):
        if self.accounts:
            self.the_rows_say_the_same()

    @rule()
    def the_rows_say_the_same(self):
        """After a commit the store alone must give the same book; entries add up to the balances (I9, I10)."""
        self.commit()
        again = Book(self.store.load())
        faults = again.check()
        assert not faults, faults
        for account in self.accounts:
            assert again.account(account) == self.book.account(account)
            assert again.balances(account, self.now) == self.book.balances(account, self.now)
            assert msgspec.structs.replace(again.facts(account, self.now)) == self.book.facts(account, self.now)
        rows = self.store.rows
        for window in self.windows:
            leases = [row for row in rows["leases"].values() if row.window == window and not row.done]
            assert rows["windows"][window].closed + sum(row.spent for row in leases) == self.used(window)
            direct = sum(
                charge
                for entry in self.store.entries
                for number, charge in zip(entry.windows, entry.charged, strict=True)
                if number == window
            )
            below = sum(self.used(a[1]) for a in self.allocations.values() if window in a[2])
            late = sum(amount for a in self.allocations.values() for at, amount in a[4] if at == window)
            assert direct + below + late == self.used(window)
        for row in rows["leases"].values():
            assert 0 <= row.released <= row.granted, "I2"
        assert sum(one.attempts for one in self.store.usage) == sum(
            1 for entry in self.store.entries if entry.attempt and entry.corrects is None
        )


Books.TestCase.settings = settings(
    max_examples=5000 if TORTURE else 100,
    stateful_step_count=100 if TORTURE else 50,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
TestTheBookAgreesWithItsAuditor = Books.TestCase
