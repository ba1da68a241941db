"""The world of one seed: a host with workers and a bookkeeper, a network between them, upstreams, a desk, and what goes wrong.

One thread, one heap of events, one source of chance. A seed switches some of the faults on; for a while they strike,
then nothing does any more, and what must come to rest has ten seconds to do so.
"""

import heapq
import random
from collections import Counter

from fastroute.domain import Settlement, Usage
from fastroute.errors import StoreError
from fastroute.ledger import protocol
from fastroute.ledger.book import Book, Budget
from fastroute.ledger.keeper import Keeper, Letter, Now
from fastroute.ledger.protocol import Ask, Refresh
from fastroute.ledger.store import Changes, State
from tests.simulation.desk import Desk, seal
from tests.simulation.machine import Died, Disk, SimJournals, SimStore
from tests.simulation.oracle import Oracle, Violation
from tests.simulation.storm import FAULTS, Storm
from tests.simulation.worker import Worker

STORM_MS = 14_000
DRAIN_MS = 5_000
REST_MS = 10_000
MIDNIGHT = 1_795_215_600_000  # of 2026-11-21 in Berlin
LIMITS = (150, 2_000, 6_000, 15_000, 15_000, 40_000, 10**9)


NOTHING = Changes()


class SmallPieces(Keeper):
    """The shipped keeper, which has few records a turn here, in pieces that are a turn's parts nevertheless."""

    PIECE = 3


class Line:
    """One connection."""

    __slots__ = ("number", "open", "over", "worker")

    def __init__(self, number, worker):
        self.number = number
        self.worker = worker
        self.open = True
        self.over = None


class Bill:
    """What one attempt truly costs, and what its worker will see of that."""

    __slots__ = ("amounts", "billed", "excess", "outcome", "reply_ms", "reserved", "settlement", "windows")


class World(Storm):
    def __init__(self, seed, faults=None, storm_ms=STORM_MS):
        self.seed = seed
        self.rng = rng = random.Random(seed)
        self.now = 0
        self.wall = MIDNIGHT + rng.randrange(8, 20) * 3_600_000
        self.faults = set(faults) if faults is not None else {name for name in FAULTS if rng.random() < 0.4}
        if "midnight" in self.faults:
            self.wall = MIDNIGHT + 86_400_000 - rng.randrange(storm_ms)
        self.storm_ms = storm_ms
        self.quiet = False
        self.counts = Counter()
        self.refused = Counter()
        self.events = 0
        self.trace = seed
        self.log = None  # a list, for a replay
        self.heap = []
        self.order = 0
        self.boots = 0
        self.boot_id = "boot-0"
        self.generation = 0
        self.oracle = Oracle(self)
        self.disk = Disk(rng)
        self.store = SimStore(self.step, self.committed)
        self.journals = SimJournals(self.disk, self.step)
        self.fuse = 0  # steps until the bookkeeper dies; 0 is not lit
        self.keeper = None
        self.lines = {}
        self.joined = 0
        self.letters = []
        self.wake_ms = None
        self.moved = False  # something was committed in this turn
        self.asked = 0
        self.served = 0
        self.corrected = set()
        self.workers = [None] * rng.randrange(2, 5)
        self.pace_ms = rng.choice((100, 250, 300, 600))
        self.bills = {}
        self.most = rng.choice((30, 120, 400))

    # Time.

    def at(self, delay_ms, work, *arguments):
        self.order += 1
        heapq.heappush(self.heap, (self.now + delay_ms, self.order, work, arguments))

    def until(self, end_ms):
        heap = self.heap
        while heap and heap[0][0] <= end_ms:
            self.now, order, work, arguments = heapq.heappop(heap)
            self.events += 1
            self.trace = hash((self.trace, self.now, order))
            work(*arguments)
        self.now = end_ms

    def wall_ms(self):
        return self.wall + self.now

    def accounts(self):
        return [self.store._accounts[number] for number in sorted(self.store._accounts)]

    def mark(self, what, *numbers):
        self.trace = hash((self.trace, self.now, *numbers))
        if self.log is not None:
            self.log.append(f"{self.now:6} {what} {' '.join(map(str, numbers))}")

    def chance(self, fault, probability):
        if self.quiet or fault not in self.faults or self.rng.random() >= probability:
            return False
        self.counts[fault] += 1
        self.note(fault)
        return True

    def note(self, what):
        if self.log is not None:
            self.log.append(f"{self.now:6} ! {what}")

    # The whole of it.

    def run(self):
        self.furnish()
        self.open_books()
        for place in range(len(self.workers)):
            self.hire(place)
        for fault, every_ms in FAULTS.items():
            if fault in self.faults and every_ms:
                self.at(self.rng.randrange(2 * every_ms), self.strike, fault, every_ms)
        self.until(self.storm_ms)
        self.calm()
        self.until(self.storm_ms + DRAIN_MS)
        self.finish()
        self.until(self.storm_ms + REST_MS)
        self.oracle.at_rest(self.keeper and self.keeper.book)
        self.oracle.must(not self.keeper.lives, "liveness: lives are left:", self.keeper._rows)
        self.oracle.must(self.keeper.stop(Now(self.wall_ms(), self.now)), "the last pass was not clean")
        self.mark("rest", *sorted(self.oracle.closed.values()), len(self.oracle.entries))
        return self

    def furnish(self):
        """Accounts with budgets of their own and of their parents', in all units and windows."""
        rng, book = self.rng, Book(State())
        zone = "Europe/Berlin"

        def money(window="total"):
            return Budget("microdollar", rng.choice(LIMITS), window, zone)

        team = book.open_account("team", "key", "team", created_ms=0, budgets=[money(rng.choice(("total", "daily")))])
        other = book.open_account("other", "key", "other", created_ms=0, budgets=[money("daily")])
        book.open_account(
            "alone", "key", "alone", created_ms=0, budgets=[Budget("microdollar", rng.choice(LIMITS[:3]))]
        )
        book.open_account(
            "child",
            "key",
            "child",
            created_ms=0,
            parent=team.id,
            budgets=[money("daily"), Budget("token", rng.choice((3_000, 50_000, 10**8)), "daily", zone)],
        )
        book.open_account(
            "agent",
            "agent",
            "agent",
            created_ms=0,
            parent=team.id,
            budgets=[Budget("request", rng.choice((5, 40, 10**6)), "total")],
        )
        book.open_account("plain", "key", "plain", created_ms=0, parent=other.id)
        self.store.commit(book.take())

    def calm(self):
        """Nothing goes wrong from here on, and nobody asks for anything new."""
        self.quiet = True
        self.fuse = 0
        self.store.down = False
        self.store.fail = ""
        self.disk.full = self.disk.brim = self.disk.sick = False
        for worker in self.workers:
            if worker is not None and worker.stopped:
                worker.resume()

    def finish(self):
        for row in self.accounts():
            if row.kind in ("grant", "lease") and row.state == "live":
                self.ask("end", account=row.id)
        for worker in self.workers:
            if worker is not None and not worker.dead:
                worker.do(worker.close)

    # Processes.

    def hire(self, place):
        if self.now > self.storm_ms:
            return
        worker = self.workers[place] = Worker(self, place)
        worker.do(worker.begin, worker.live())

    def worker_gone(self, worker):
        self.note(f"worker {worker.place}, life {worker.life}, is gone")
        for line in tuple(self.lines.values()):
            if line.worker is worker:
                self.at(self.rng.randrange(5), self.cut, line)
        if self.workers[worker.place] is worker:
            self.workers[worker.place] = None
            self.at(self.rng.randrange(50, 600), self.hire, worker.place)

    def open_books(self):
        if self.keeper is not None:
            return
        keeper = SmallPieces(self.store, self.journals, lambda: Desk(self), seal, self.boot_id)
        if not self.quiet and "books die" in self.faults and self.rng.random() < 0.2:
            self.fuse = self.rng.randrange(1, 8)
        try:
            keeper.start(Now(self.wall_ms(), self.now))
        except Died:
            self.books_gone()
        except StoreError:
            self.books_gone()
        else:
            self.fuse = 0
            self.keeper = keeper
            self.generation += 1
            self.wake(0)

    def books_gone(self):
        self.note("the books are gone")
        self.fuse = 0
        self.keeper = None
        self.letters.clear()
        self.journals.release()
        for line in tuple(self.lines.values()):
            self.drop(line)
        self.at(self.rng.randrange(10, 800), self.open_books)

    def step(self, what):
        """One step of the bookkeeper; at some of them it dies."""
        if self.fuse:
            self.fuse -= 1
            if not self.fuse:
                self.counts["books die"] += 1
                self.note(f"the books die: {what}")
                raise Died

    def wake(self, delay_ms):
        at_ms = self.now + delay_ms
        if self.wake_ms is None or at_ms < self.wake_ms:
            self.wake_ms = at_ms
            self.at(delay_ms, self.turn, at_ms)

    def turn(self, at_ms):
        if self.wake_ms != at_ms:
            return
        self.wake_ms = None
        self.moved = False
        keeper = self.keeper
        if keeper is None:
            return
        letters, self.letters = self.letters, []
        try:
            posts = keeper.turn(letters, Now(self.wall_ms(), self.now))
            if keeper.changed:
                self.generation += 1
            for sender, reply in posts:
                line = self.lines.get(sender)
                if line is not None:
                    if self.fuse:
                        self.step("answer")
                    if reply is None:
                        self.cut(line)
                    else:
                        self.to_worker(line, protocol.reply(protocol.frame(reply)[4:]))
        except Died:
            self.books_gone()
            return
        if self.moved:
            self.check_book(keeper.book)
        due_ms = keeper.due_ms()
        pause_ms = self.rng.randrange(40, 160)
        if due_ms is not None:
            pause_ms = min(pause_ms, max(1, due_ms - self.now))
        self.wake(pause_ms)

    def check_book(self, book):
        if book is not None and (faults := book.check()):
            raise Violation("; ".join(faults))

    def committed(self, changes):
        if changes == NOTHING:
            return
        self.moved = True
        self.mark("commit", len(changes.entries), len(changes.leases), len(changes.windows), len(changes.receipts))
        self.oracle.committed(changes)
        for entry in changes.entries:
            if entry.corrects is not None:
                self.corrected.add(entry.corrects)

    # The network.

    def join(self, worker):
        if self.keeper is None or (self.quiet is False and self.chance("disconnect", 0.05)):
            return None
        self.joined += 1
        line = self.lines[self.joined] = Line(self.joined, worker)
        return line

    def drop(self, line):
        """Its worker learns that a connection is over."""
        if self.lines.pop(line.number, None) is not None:
            line.worker.at(self.rng.randrange(5), line.worker.line_lost, line)

    def cut(self, line):
        """Both ends learn that a connection is over."""
        if line.number in self.lines:
            self.drop(line)
            self.letters = [letter for letter in self.letters if letter.sender != line.number]
            if self.keeper is not None:
                self.keeper.gone(line.number)
                self.wake(self.rng.randrange(5))

    def leave(self, line):
        line.open = False
        self.at(self.rng.randrange(5), self.cut, line)

    def delays(self):
        """When the copies of a message arrive: mostly one, soon."""
        if self.quiet or "network" not in self.faults:
            return (self.rng.randrange(3),)
        luck = self.rng.random()
        if luck < 0.9:
            return (self.rng.randrange(3),)
        self.counts["network"] += 1
        if luck < 0.93:
            return ()
        if luck < 0.97:
            return self.rng.randrange(3), self.rng.randrange(3000)
        return (self.rng.randrange(3000),)

    def to_keeper(self, line, question):
        question = protocol.question(protocol.frame(question)[4:])
        for delay_ms in self.delays():
            self.at(delay_ms, self.arrive, line, question)

    def arrive(self, line, question):
        if line.number not in self.lines:
            return
        if isinstance(question, Refresh):
            self.oracle.arrived(question)
        self.letters.append(Letter(line.number, question))
        self.wake(self.rng.randrange(4))

    def to_worker(self, line, reply):
        for delay_ms in self.delays():
            line.worker.at(delay_ms, line.worker.received, line, reply)

    # Callers, upstreams, the desk.

    def bound(self):
        return self.rng.randrange(0, self.most)

    def arrivals(self, worker):
        if self.quiet or worker.dead:
            return
        worker.at(self.rng.randrange(2 * self.pace_ms), self.arrivals, worker)
        self.call(worker, self.rng.randrange(1, len(self.store._accounts) + 1))

    def call(self, worker, account):
        if not self.quiet:
            self.served += 1
            worker.do(worker.begin, worker.serve(self.served, account))

    def upstream(self, worker, hold):
        rng = self.rng
        bill = Bill()
        bill.windows, bill.reserved = hold.path.windows, hold.amounts
        bill.excess, bill.billed = {}, False
        bill.reply_ms = rng.choice((5, 50, 50, 300, 1000))
        bill_ms = rng.randrange(bill.reply_ms)
        money, tokens = hold.microdollars, hold.tokens
        luck = rng.random()
        if luck < 0.75:  # an answer with its usage
            bill.outcome = "ok"
            tokens = rng.randrange(1, tokens + 1)
            money = rng.choice((0, money, rng.randrange(money + 1)))
            if self.chance("breach", 0.03):
                money += rng.randrange(1, 100)
            bill.settlement = Settlement("exact", money * 1_000_000, money, Usage(tokens - 1, 1))
            amounts = {"microdollar": money, "token": tokens, "request": 1}
        elif luck < 0.85:  # refused, and free
            bill.outcome = "5xx"
            bill.settlement = Settlement("void", 0, 0, Usage())
            amounts = {"microdollar": 0, "token": 0, "request": 0}
        else:  # cut, or no answer in time: nobody tells what it costs, and it may cost that much later
            bill.outcome = "cut"
            spent = rng.choice((0, money, rng.randrange(money + 1)))
            settled = money if luck < 0.93 else rng.randrange(spent, money + 1)
            basis = "presumed" if luck < 0.93 else "bounded"
            bill.settlement = Settlement(basis, None, settled, Usage())
            amounts = {"microdollar": spent, "token": rng.randrange(tokens + 1), "request": 1}
            if "late" in self.faults:
                bill_ms += rng.randrange(4000)
        bill.amounts = tuple(amounts[lease.about.unit] for lease in hold.path.leases)
        if bill.outcome == "ok":
            for window, amount, reserved in zip(bill.windows, bill.amounts, bill.reserved, strict=True):
                if amount > reserved:
                    bill.excess[window] = amount - reserved
        self.bills[worker.life, hold.attempt] = bill
        self.at(bill_ms, self.charge, bill)
        return bill

    def charge(self, bill):
        self.mark("bill", *bill.amounts)
        self.oracle.bill(bill)

    def ask(self, operation, **arguments):
        """The desk is asked over a connection of its own, and nobody waits for the answer."""
        self.asked += 1
        if self.keeper is not None:
            self.letters.append(Letter(0, Ask(self.asked, operation, arguments)))
            self.wake(self.rng.randrange(4))
