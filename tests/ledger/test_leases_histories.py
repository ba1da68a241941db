"""Random histories of workers that share a book: whatever becomes of the messages, totals are kept and limits used up."""

import os
import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastroute.ledger.leases import Holder, Ticket
from tests.ledger.lease_kit import LEASE_MS, Lent, SmallBook, exchange, funded
from tests.ledger.path_kit import facts, window

EXAMPLES = 1000 if os.environ.get("FASTROUTE_TORTURE") else 60


class World:
    """Two workers, one book, and a post that loses, doubles and delays whatever it is given."""

    def __init__(self, seed, limit):
        self.random = random.Random(seed)
        self.limits = {1: limit, 2: 3 * limit}
        self.book = SmallBook(self.limits, near=limit // 8)
        self.holders = {name: Holder(LEASE_MS, 0) for name in ("a", "b")}
        self.paths = {}
        for name, holder in self.holders.items():
            self.paths[name] = [
                holder.path(facts(window(1, limit), window(2, 3 * limit)), 0),
                holder.path(facts(window(2, 3 * limit)), 0),
            ]
        self.post = []
        self.holds = []
        self.tickets = []
        self.now_ms = 0
        self.billed = {1: 0, 2: 0}

    def step(self):
        name = self.random.choice("ab")
        holder = self.holders[name]
        act = self.random.randrange(8)
        self.now_ms += self.random.randrange(40)
        if act <= 2:
            path, amount = self.random.choice(self.paths[name]), self.random.randrange(40)
            hold = holder.reserve(path, amount, 0, self.now_ms)
            if hold is not None:
                self.holds.append((holder, hold))
            else:
                self.tickets.append((holder, holder.ask(path, amount, 0, self.now_ms)))
        elif act == 3 and self.holds:
            holder, hold = self.holds.pop(self.random.randrange(len(self.holds)))
            charged = holder.settle(hold, self.random.randrange(hold.microdollars + 1), 0)
            for number, amount in zip(hold.path.windows, charged, strict=True):
                self.billed[number] += amount
        elif act == 4:
            report = holder.report(self.now_ms, due=self.random.random() < 0.5)
            self.send("book", name, report)
        elif act == 5:
            self.send("book", name, holder.recall((1, 2), self.now_ms))
        elif act == 6 and self.tickets:
            holder, ticket = self.tickets.pop(self.random.randrange(len(self.tickets)))
            if ticket.hold is not None and self.random.random() < 0.8:
                self.holds.append((holder, ticket.hold))
            else:
                holder.drop(ticket)
        self.deliver()
        self.check()

    def send(self, to, name, message):
        if message is not None:
            self.post += [(to, name, message)] * self.random.choice((0, 1, 1, 1, 2))

    def deliver(self):
        for _ in range(self.random.randrange(3)):
            if not self.post:
                return
            to, name, message = self.post.pop(self.random.randrange(len(self.post)))
            if to == "book":
                self.send("worker", name, self.book.hear(name, message))
            else:
                assert all(isinstance(ticket, Ticket) for ticket in self.holders[name].answer(message, self.now_ms))

    def check(self):
        for number, limit in self.limits.items():
            held = 0
            for name, holder in self.holders.items():
                granted, released, spent, open, free = holder.balance(number)
                assert granted == released + spent + open + free
                assert free >= 0
                lent = self.book.lent.get((name, number), Lent())
                assert granted <= lent.granted, "I2: nobody has more than it was lent"
                assert lent.released <= released, "I2: nothing is taken for released before it was"
                held += spent + open
            assert self.book.left(number) >= 0, "I1"
            assert held <= limit, "I5: what is spent and held is within the limit"
            assert self.billed[number] <= limit

    def settle_all(self):
        """The post is well again, and everybody comes to rest."""
        self.post.clear()
        for holder, ticket in self.tickets:
            holder.drop(ticket)
        for _, hold in self.holds:
            for number, amount in zip(hold.path.windows, hold.amounts, strict=True):
                self.billed[number] += amount
        for holder, hold in self.holds:
            holder.settle(hold, None, None)
        for name, holder in self.holders.items():
            holder.disconnected()
            exchange(holder, self.book, self.now_ms, due=True, who=name)
            self.book.hear(name, holder.rest(self.now_ms))


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32), limit=st.integers(1, 3000))
def test_totals_are_never_lost_whatever_becomes_of_the_messages(seed, limit):
    """I1 to I5 after each step of a random history; at rest everything that was not spent is back."""
    world = World(seed, limit)
    for _ in range(300):
        world.step()
    world.settle_all()
    for number, limit in world.limits.items():
        assert world.book.left(number) == limit - world.billed[number]


@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data(), workers=st.integers(1, 4))
def test_a_limit_is_used_to_its_end_however_many_workers_share_it(data, workers):
    """2.8: while one request of the smallest size still fits, some worker can have it, and none beyond."""
    size = data.draw(st.integers(1, 50))
    limit = data.draw(st.integers(0, 2000))
    book = SmallBook({1: limit}, near=8 * size)
    holders = {str(n): Holder(LEASE_MS, 0) for n in range(workers)}
    spent = 0
    refused: set[str] = set()
    while len(refused) < workers:
        name = data.draw(st.sampled_from(sorted(set(holders) - refused)))
        holder = holders[name]
        path = holder.path(facts(window(1, limit)), 0)
        for other, one in holders.items():
            book.hear(other, one.recall((1,), 0))
        got = funded(holder, book, path, size, who=name)
        if hasattr(got, "reason"):
            refused.add(name)
        else:
            spent += sum(holder.settle(got, size, 0))
    assert spent == limit // size * size
