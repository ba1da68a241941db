"""Mistakes that somebody could make in the ledger, each planted by replacing a piece of the shipped code.

A simulator that does not notice them would not notice ours either. Every one names the faults under which it shows.
"""

from msgspec.structs import replace

from fastroute.ledger import balances, journal, keeper, leases, pages, tally
from fastroute.ledger.accounts import Account, Till
from fastroute.ledger.records import Settle
from tests.simulation import machine


def presume_nothing_on_death(plant):
    """What a dead worker had sent is taken for free."""
    bury = tally.Tally.bury

    def buried(self, holder, now_ms, *, power_lost):
        life = self._holders.get(holder)
        for _, _, send in tuple(life.attempts.values()) if life is not None else ():
            free = (0,) * len(send.windows)
            spent = tuple(life.leases[window].spent if window in life.leases else 0 for window in send.windows)
            self._settle(life, Settle(send.attempt, "void", "gone", 0, free, spent, tally.NO_USAGE, 0, 0, 0), now_ms)
        bury(self, holder, now_ms, power_lost=power_lost)

    plant(tally.Tally, "bury", buried)


def journal_after_send(plant):
    """The record of an attempt is written when its bytes have left already."""
    account_send = Account.send

    def sent(self, reservation, request, entry, model, lane):
        till, held = self._till, []
        real, till.write = till.write, lambda kind, payload: not held.append((kind, payload))
        try:
            refused = account_send(self, reservation, request, entry, model, lane)
        finally:
            till.write = real
        till._loop.call_later(0.003, lambda: [real(*record) for record in held])
        return refused

    plant(Account, "send", sent)


def settle_journalled_late(plant):
    """What a settlement freed is lent again before the journal has the settlement."""
    write_late = Till.write_late

    def later(self, kind, payload):
        queue = self.__dict__.setdefault("behind", [])
        queue.append((kind, payload))
        if len(queue) == 1:

            def write():
                records, self.behind = self.behind, []
                for record in records:
                    write_late(self, *record)

            self._loop.call_later(0.4, write)

    plant(Till, "write_late", later)


def released_before_it_is_journalled(plant):
    """What a settlement freed is given back though the journal had no room to say so."""
    write_late = Till.write_late

    def written(self, kind, payload):
        write_late(self, kind, payload)
        self.holder.withheld = False

    plant(Till, "write_late", written)


def totals_told_to_anybody(plant):
    """While nothing can be written, a report is answered on whatever connection it came."""
    apologies = keeper.Keeper._apologies

    def told(self, letters, now):
        holders, self._holders = self._holders, {}
        try:
            for sender, question in letters:
                self._holders[sender] = getattr(question, "holder", 0)
            return apologies(self, letters, now)
        finally:
            self._holders = holders

    plant(keeper.Keeper, "_apologies", told)


def deltas_instead_of_totals(plant):
    """What a report says was released is added to what was released before."""

    def reported(self, lease, report):
        if report.released:
            lease.release(min(lease.released + report.released, lease.granted - lease.spent))
            self._changed_leases.add(lease)

    plant(tally.Tally, "_reported", reported)


def offset_outside_the_commit(plant):
    """How far a journal was applied is made durable in a step of its own, after what it said."""
    commit = machine.SimStore.commit

    def in_two_steps(self, changes):
        holders = changes.holders
        before = {
            number: replace(row, segment=self._holders[number].segment, offset=self._holders[number].offset)
            for number, row in holders.items()
            if number in self._holders
        }
        changes.holders = {**holders, **before}
        commit(self, changes)
        if before:
            commit(self, type(changes)(holders={number: holders[number] for number in before}))

    keep = keeper.Keeper._commit

    def committed(self, book, notes):
        store, self._store = self._store, _Through(self._store, in_two_steps)
        try:
            return keep(self, book, notes)
        finally:
            self._store = store

    plant(keeper.Keeper, "_commit", committed)


class _Through:
    """A store whose commits go another way."""

    def __init__(self, store, commit):
        self.load = store.load
        self.commit = lambda changes: commit(store, changes)


def answers_before_they_are_durable(plant):
    """A turn is answered, and committed with the next one."""
    keep = keeper.Keeper._commit

    def behind(self, book, notes):
        pending = self.__dict__.setdefault("pending", [])

        def commit(store, changes):
            pending.append(changes)
            if len(pending) > 1:
                store.commit(pending.pop(0))

        store, self._store = self._store, _Through(self._store, commit)
        try:
            return keep(self, book, notes)
        finally:
            self._store = store

    plant(keeper.Keeper, "_commit", behind)


def numbers_not_checked(plant):
    """The same message is lent upon as often as it comes."""
    refresh = tally.Tally.refresh

    def again(self, message, now_ms):
        life = self._holders.get(message.holder)
        if life is not None:
            life.seq = min(life.seq, message.seq - 1)
        return refresh(self, message, now_ms)

    plant(tally.Tally, "refresh", again)


def window_reopened(plant):
    """Where the clock goes back, so do the windows."""

    def window(self, budget, now_ms):
        name, ends_ms = pages.window_at(budget.row.window, budget.row.zone, now_ms)
        for one in budget.windows:
            if one.name == name:
                return one
        opened = self._add_window(pages.WindowRow(self._last_window + 1, budget.row.id, name, ends_ms))
        budget.windows.append(opened)
        self._changed_windows.add(opened)
        return opened

    plant(pages.Pages, "_window", window)


def breach_ignored(plant):
    """Nobody is charged more than was held for him."""
    settle = leases.Holder.settle

    def capped(self, hold, microdollars, tokens, requests=1):
        if microdollars is not None and hold.microdollars is not None:
            microdollars = min(microdollars, hold.microdollars)
        return settle(self, hold, microdollars, tokens, requests)

    plant(leases.Holder, "settle", capped)


def recall_counted_twice(plant):
    """What was released on a recall is told as released once more."""
    recall = leases.Holder.recall

    def twice(self, windows, now_ms):
        windows = tuple(windows)
        before = {window: self.balance(window)[1] for window in windows}
        seq, told = recall(self, windows, now_ms)
        return seq, tuple(replace(one, released=2 * one.released - before[one.window]) for one in told)

    plant(leases.Holder, "recall", twice)


def dead_by_a_timer(plant):
    """Who has not been heard of for two seconds is taken for dead, and what he held is lent to others."""
    bury_dead = keeper.Keeper._bury_dead

    def timed(self, book, now):
        heard = self.__dict__.setdefault("heard_ms", {})
        for holder in tuple(self._rows):
            if holder in self._senders:
                heard[holder] = now.mono_ms
            elif now.mono_ms - heard.setdefault(holder, now.mono_ms) > 500:
                self._read(book, holder, now, None)
                book.bury(holder, now.wall_ms, power_lost=False)
                del self._rows[holder]
                self._readers.pop(holder).close()
        bury_dead(self, book, now)

    plant(keeper.Keeper, "_bury_dead", timed)


def anybody_may_report(plant):
    """A report is answered on whatever connection it came."""

    def refreshed(self, book, sender, question, now):
        return book.refresh(question, now.wall_ms)

    plant(keeper.Keeper, "_refreshed", refreshed)


def torn_record_accepted(plant):
    """The word that makes a record is stored first, and nobody compares checksums."""
    shipped = journal._journal

    def tear(self, kind, payload):
        segment, at = self.where()
        file = self.disk.files[self.holder][segment.number]
        if at + 32 + len(payload) < segment.size:
            head = (kind << 24 | len(payload)).to_bytes(4, "little") + (self.sequence + 1).to_bytes(8, "little")
            machine.os.pwrite(file.fd, b"torn" + head + payload[: len(payload) // 2], at)

    class Careless:
        def __getattr__(self, name):
            return getattr(shipped, name)

        def decode(self, chunk, room, seed, sequence, limit):
            found, at, sequence, why = shipped.decode(chunk, room, seed, sequence, limit)
            if why == shipped.BROKEN and chunk[at : at + 4] == b"torn":
                word = int.from_bytes(chunk[at + 4 : at + 8], "little")
                length = word & 0xFFFFFF
                found.append((word >> 24, chunk[at + 16 : at + 16 + length]))
                at, sequence, why = at + (16 + length + 7 & ~7), sequence + 1, shipped.EMPTY
            return found, at, sequence, why

    plant(machine.SimJournal, "tear", tear)
    plant(journal, "_journal", Careless())


def power_loss_taken_for_death(plant):
    """After a loss of power the journal is believed to be whole."""
    bury = tally.Tally.bury

    def buried(self, holder, now_ms, *, power_lost):
        bury(self, holder, now_ms, power_lost=False)

    plant(tally.Tally, "bury", buried)


def remainder_returned_too_early(plant):
    """An allocation goes home while somebody still holds some of it."""

    def home(self, account):
        if account.allocation is None or account.row.state == "live":
            return
        holder, account.allocation = account.allocation, None
        self._money(account).up = ()
        self._end_holder(holder)

    plant(pages.Pages, "_come_home", home)


def granted_by_differences(plant):
    """An answer's total is taken for what is granted on top."""
    hear = leases.Holder._hear

    def heard(self, lease, answer, seq, now_ms):
        had = self._balance(lease)[0]
        if 0 < answer.granted == had and lease.said_seq < seq:
            answer = replace(answer, granted=had + answer.granted)
        hear(self, lease, answer, seq, now_ms)

    plant(leases.Holder, "_hear", heard)


def lent_beyond_the_limit(plant):
    """A want is met in part though not enough is left."""

    def share(window, lease, report):
        return report.want if window.avail > 0 else 0

    plant(tally, "_share", share)


def free_before_the_journal_says_so(plant):
    """A lease comes home when its holder says that nothing is spent, whatever its journal says."""

    def at_rest(lease, report):
        return report.held == 0

    plant(tally, "_at_rest", at_rest)


def limit_lowered_by_forgetting(plant):
    """A lease that ends gives back what it spent as well."""

    def end(self):
        self.release(self.granted - self.spent)
        self.window.out -= max(self.rights, self.spent)
        self.done = True
        del self.window.leases[self.holder.id]
        del self.holder.leases[self.window.id]

    plant(balances.Lease, "end", end)


def place_forgotten_at_a_bad_block(plant):
    """What was taken in before a journal could not be read is kept, and how far that was is not."""
    take = keeper.Keeper._read

    def read(self, book, holder, now, most):
        life = book._holders[holder]
        before = life.segment, life.offset
        done = take(self, book, holder, now, most)
        if holder in self._unread:
            life.segment, life.offset = before
        return done

    plant(keeper.Keeper, "_read", read)


BUGS = {
    presume_nothing_on_death: ["kill", "kill after send", "kill before settle"],
    journal_after_send: ["kill"],
    settle_journalled_late: ["kill", "kill before settle"],
    released_before_it_is_journalled: ["disk full", "limits"],
    totals_told_to_anybody: ["crossed", "store down"],
    deltas_instead_of_totals: ["network", "limits"],
    offset_outside_the_commit: ["books die", "kill"],
    answers_before_they_are_durable: ["books die"],
    place_forgotten_at_a_bad_block: ["bad block", "books die"],
    numbers_not_checked: ["network"],
    window_reopened: ["clock", "midnight"],
    breach_ignored: ["breach"],
    recall_counted_twice: ["limits"],
    dead_by_a_timer: ["stop", "books die", "disconnect"],
    anybody_may_report: ["crossed", "network"],
    torn_record_accepted: ["kill", "kill before settle"],
    power_loss_taken_for_death: ["power"],
    remainder_returned_too_early: ["grants", "kill", "late"],
    granted_by_differences: ["network"],
    lent_beyond_the_limit: [],
    free_before_the_journal_says_so: ["midnight", "network"],
    limit_lowered_by_forgetting: ["kill"],
}
