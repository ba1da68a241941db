"""One simulated worker: the shipped till, accounts and holder, driven step by step where `teller` has an event loop.

A coroutine here awaits `Later`s alone, and whoever sets one takes the next step: there is no loop and no clock but the
world's.
"""

from contextlib import suppress
from datetime import UTC, datetime

from fastroute.domain import Settlement, Usage
from fastroute.ledger import protocol, records
from fastroute.ledger.accounts import Account, Shortage, Till
from fastroute.ledger.journal import JournalError, JournalFull, JournalTaken
from fastroute.ledger.leases import Holder
from fastroute.ledger.protocol import Hello, Over, Recall, Refresh, Refreshed, Who
from fastroute.ledger.records import FINISH, SEND, SETTLE, STOP, Stop
from tests.simulation.machine import Died, SimJournal

PATIENCE_MS = 5000
FUND_MS = 1000
VOID = Settlement("void", 0, 0, Usage())


class Later:
    """A value that is not there yet, for one who waits."""

    __slots__ = ("done", "resume", "value")

    def __init__(self):
        self.done = False
        self.resume = None
        self.value = None

    def __await__(self):
        if not self.done:
            yield self
        return self.value

    def set(self, value=None):
        if not self.done:
            self.done, self.value = True, value
            if self.resume is not None:
                self.resume()


class Worker(Till):
    def __init__(self, world, place):
        super().__init__(self, self)
        self.world = world
        self.place = place
        self.life = 0
        self.dead = self.stopped = self.lost = self.closing = False
        self.power_lost = False
        self.backlog = []
        self.line = self.dialing = None
        self.away_ms = 0
        self.asked = self.heard = 0
        self.answers = {}
        self.clients = {}  # id -> Account
        self.seen = -1
        self.kicked = False
        self.busy = 0
        self.journal = None
        self.seen_balances = {}  # window -> (granted, released, spent and held) when it was last looked at
        self.excess = {}  # window -> what settlements passed their reserves by

    # A clock and a loop, as `Till` knows them.

    def monotonic_ms(self):
        return self.world.now

    def now(self):
        return datetime.fromtimestamp(self.world.wall_ms() / 1000, UTC)

    def call_later(self, seconds, work):
        self.world.at(int(seconds * 1000), self.wake, work)

    def _sync(self):
        if not self._closed:
            self._dirty = False
            self.world.at(self.world.rng.randrange(1, 8), self.wake, self._flush)

    # A process.

    def at(self, delay_ms, work, *arguments):
        self.world.at(delay_ms, self.do, work, *arguments)

    def do(self, work, *arguments):
        if self.dead:
            return
        if self.stopped:
            self.backlog.append((work, arguments))
            return
        try:
            work(*arguments)
        except Died:
            self.die()
        self.world.oracle.look(self)

    def wake(self, work, *arguments):
        """`do` for what moves no money by itself, and need not be looked at."""
        if self.stopped:
            self.backlog.append((work, arguments))
        elif not self.dead:
            try:
                work(*arguments)
            except Died:
                self.die()

    def begin(self, task):
        """Run a coroutine up to where it waits."""

        def step():
            try:
                later = task.send(None)
            except StopIteration:
                return
            later.resume = resume

        def resume():
            self.at(0, step)

        step()

    def die(self):
        if self.dead:
            return
        self.dead = True
        self.world.oracle.died(self)
        if self.journal is not None:
            self.journal.release()
        self.world.worker_gone(self)

    def resume(self):
        self.stopped = False
        backlog, self.backlog = self.backlog, []
        for work, arguments in backlog:
            self.do(work, *arguments)

    def sleep(self, ms):
        later = Later()
        self.world.at(ms, self.wake, later.set)
        return later

    # A connection, after `Teller`.

    async def live(self):
        pause_ms = 10
        while not self.lost:
            if await self.connect():
                pause_ms = 10
                over = self.line.over = Later()
                if not self.line.open:
                    over.set()
                await over
                self.disconnected()
            elif not self.lost:
                await self.sleep(pause_ms)
                pause_ms = min(2 * pause_ms, 1000)
        self.die()

    async def connect(self):
        asked_ms = self.world.now
        line = self.world.join(self)
        if line is None:
            return False
        self.dialing = line
        welcome = await self.question(Hello(self.number(), self.place, self.world.boot_id, self.life), line)
        self.dialing = None
        if welcome is None or not line.open:
            self.world.leave(line)
            return False
        if self.life == 0:
            try:
                self.journal = SimJournal.begin(self.world.disk, welcome.holder, self.instant)
            except (JournalTaken, JournalFull):
                self.die()
                return False
            self.life = welcome.holder
            self.journal.wrote = self.wrote
            self.holder = Holder(welcome.lease_ms, asked_ms, windows_max=64)
            self.world.oracle.born(self)
            self.line = line
            self.tick()
            self.world.arrivals(self)
        elif welcome.holder != self.life:
            self.lost = True
            self.holder.deadline_ms = 0
            self.world.leave(line)
            return False
        self.holder.lease_ms = welcome.lease_ms
        self.line, self.away_ms, self.heard = line, None, 0
        self.moved()
        self.report(True)
        return True

    def disconnected(self):
        self.line, self.away_ms = None, self.world.now
        if self.life:
            self.holder.disconnected()
        answers, self.answers = self.answers, {}
        for later in answers.values():
            later.set(None)

    def line_lost(self, line):
        line.open = False
        if line.over is not None:
            line.over.set()
        elif line is self.dialing:
            answers, self.answers = self.answers, {}
            for later in answers.values():
                later.set(None)

    def number(self):
        self.asked += 1
        return self.asked

    def question(self, question, line=None):
        later = Later()
        line = line or self.line
        if line is None:
            later.set(None)
            return later
        self.answers[question.number] = later
        self.world.to_keeper(line, question)
        self.world.at(PATIENCE_MS, self.wake, self.give_up, question.number)
        return later

    def give_up(self, number):
        later = self.answers.pop(number, None)
        if later is not None:
            later.set(None)

    def received(self, line, reply):
        if line is not self.line and line is not self.dialing:
            return
        if isinstance(reply, Over):
            self.lost = True
            self.holder.deadline_ms = 0
            self.world.leave(line)
            self.line_lost(line)
            return
        if isinstance(reply, Recall):
            if self.life:
                self.heard = reply.number
                self.tell(self.holder.recall(reply.windows, self.world.now))
            return
        if isinstance(reply, Refreshed):
            if not self.life:
                return
            for ticket in self.holder.answer(reply, self.world.now):
                ticket.waiter.set()
            if self.holder.hungry:
                self.kick()
        later = self.answers.pop(reply.number, None)
        if later is not None:
            later.set(reply)

    def kick(self):
        if not self.kicked and self.line is not None:
            self.kicked = True
            self.at(0, self.report, False)

    def report(self, due):
        self.kicked = False
        if self.line is None or self.closing:
            return
        for ticket in self.holder.served(self.world.now):
            ticket.waiter.set()
        report = self.holder.report(self.world.now, due=due)
        if report is not None:
            self.tell(report)

    def tell(self, report):
        seq, leases = report
        if self.line is not None:
            self.world.to_keeper(self.line, Refresh(self.number(), self.life, seq, leases, heard=self.heard))

    def tick(self):
        if self._closed:
            return
        self.at(1000, self.tick)
        self.set_wall()
        if self.seen != self.world.generation:
            self.moved()
        if self._late:
            self.catch_up()
        self.report(True)

    # Who calls.

    def moved(self):
        self.seen = self.world.generation
        for client in self.clients.values():
            if client.state == "live":
                self.begin(self.renew(client))

    async def find(self, account_id):
        client = self.clients.get(account_id)
        if client is not None and client.state == "live" and self.world.now < client.until_ms:
            return client
        asked_ms = self.world.now
        known = await self.question(Who(self.number(), account=account_id))
        if known is None or not isinstance(known, protocol.Known) or known.facts is None:
            return None
        client = self.clients.get(account_id)
        if client is None:
            client = self.clients[account_id] = Account(self, known.facts, asked_ms)
        else:
            client.adopt(known.facts, asked_ms)
        return client

    async def renew(self, account):
        asked_ms = self.world.now
        known = await self.question(Who(self.number(), account=account.id))
        if known is None or known.state == "unavailable":
            return None
        if known.facts is None:
            account.end(known.state)
            return False
        account.adopt(known.facts, asked_ms)
        return True

    async def wait(self, account, microdollars, tokens):
        ticket = self.holder.ask(account.path, microdollars, tokens, self.world.now)
        if ticket.hold is not None or ticket.short is not None:
            return ticket
        if self.line is None and self.world.now - self.away_ms >= FUND_MS:
            self.holder.drop(ticket)
            return ticket
        ticket.waiter = Later()
        self.kick()
        patience_ms = FUND_MS
        if self.world.chance("leave", 0.1):
            patience_ms = self.world.rng.randrange(1, 100)
        self.world.at(patience_ms, self.wake, ticket.waiter.set)
        await ticket.waiter
        if ticket.hold is None and ticket.short is None:
            self.holder.drop(ticket)
        return ticket

    # One caller's request.

    async def serve(self, number, account_id):
        rng = self.world.rng
        account = await self.find(account_id)
        if account is None or self.closing:
            return
        self.busy += 1
        request, answered = f"q{number}", ""
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            reserve, tokens = self.world.bound(), rng.randrange(1, 300)
            hold = account.reserve(reserve, tokens)
            if hold is None:
                hold = await account.fund(reserve, tokens)
                if isinstance(hold, Shortage):
                    self.world.refused[hold.code] += 1
                    break
            if rng.random() < 0.1:
                await self.sleep(rng.randrange(200))
                if rng.random() < 0.3:  # no connection: nothing was sent
                    account.settle(hold, VOID, "connect", None, 1)
                    continue
            if account.send(hold, request, "entry", "model", "lane") is not None:
                self.world.refused["journal_full"] += 1
                account.settle(hold, VOID, "connect", None, 1)
                break
            bill = self.world.upstream(self, hold)
            await self.sleep(bill.reply_ms)
            self.world.oracle.settled(self, hold, bill)
            before = self.holder.breaches
            account.settle(hold, bill.settlement, bill.outcome, 200, bill.reply_ms)
            if self.holder.breaches != before:
                for window, excess in bill.excess.items():
                    self.excess[window] = self.excess.get(window, 0) + excess
            if bill.outcome == "ok":
                answered = "entry"
                break
        if rng.random() < 0.2:
            await self.sleep(rng.randrange(100))
        account.finish(request, "", "chat", "m", answered, "", 200, False, 1, None)
        self.busy -= 1

    def wrote(self, kind, payload):
        if kind in (SEND, SETTLE, FINISH):
            self.world.oracle.wrote(self, kind, records.decode(kind, payload))

    def instant(self, kind, when):
        """Whether to die at this step of an append: before it is whole (0), or right after (1)."""
        if kind == SEND and when:
            return self.world.chance("kill after send", 0.02)
        if kind == SETTLE and not when:
            return self.world.chance("kill before settle", 0.02)
        return self.world.chance("kill", 0.002)

    # The end.

    def close(self):
        """`Teller.close`: in good order when nothing is held any more, else the journal tells what was under way."""
        if self.life and not self._closed:
            self.closing = True
            self.catch_up()
            if not (self.underway or self._late or self.lost):
                try:
                    seq, leases = self.holder.rest(self.world.now)
                except ValueError:  # somebody reserved and is still on the way to its `send`
                    self.leave()
                    return
                if self.line is not None and self.world.rng.random() < 0.3:
                    final = Refresh(self.number(), self.life, seq, leases, heard=self.heard)
                    self.world.to_keeper(self.line, final)
                    self.at(200, self.leave)
                    return
                self.write(STOP, records.encode(Stop(self.wall_ms())))
        self.leave()

    def leave(self):
        self._closed = True
        if self.journal is not None:
            with suppress(JournalError):
                self.journal.sync()
        self.die()
