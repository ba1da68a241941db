"""A book of a few lines beside a worker's holder: it lends what is left, takes the larger of two totals, and nothing else."""

from dataclasses import dataclass, field

from fastroute.ledger.protocol import LeaseAnswer, LeaseReport, Refreshed

LEASE_MS = 5000


@dataclass
class Lent:
    granted: int = 0
    released: int = 0
    spent: int = 0


@dataclass
class SmallBook:
    """Windows with limits, and what each holder has of them."""

    limits: dict[int, int]
    near: int = 0  # below so much left it is exact
    over: set[int] = field(default_factory=set)
    lent: dict[tuple[str, int], Lent] = field(default_factory=dict)
    seqs: dict[str, int] = field(default_factory=dict)

    def left(self, number):
        out = sum(lent.granted - lent.released for (_, window), lent in self.lent.items() if window == number)
        return self.limits[number] - out

    def hear(self, who, report):
        seq, leases = report
        fresh = seq > self.seqs.get(who, 0)
        self.seqs[who] = max(seq, self.seqs.get(who, 0))
        return Refreshed(seq, seq, tuple(self.answer(who, said, fresh) for said in leases))

    def answer(self, who, said, fresh):
        assert isinstance(said, LeaseReport)
        lent = self.lent.setdefault((who, said.window), Lent())
        assert said.granted_seen <= lent.granted, "it knows of more than it was lent"
        assert said.released + said.spent + said.held <= said.granted_seen, "it gives back what it used"
        lent.released = max(lent.released, said.released)
        lent.spent = max(lent.spent, said.spent)
        closed = said.window in self.over
        left, short = self.left(said.window), None
        if said.want and fresh and not closed:
            if said.urgent:
                given = said.want if said.want <= left else 0
            else:
                given = 0 if left < self.near else min(said.want, left // 2)
            lent.granted += given
            if given < said.want:
                short = left - given
        return LeaseAnswer(said.window, lent.granted, self.left(said.window) < self.near, closed, short)


def exchange(holder, book, now_ms=0, *, due=False, who="worker"):
    """One report and its answer, if there is something to say; the tickets that were decided."""
    report = holder.report(now_ms, due=due)
    return [] if report is None else holder.answer(book.hear(who, report), now_ms)


def funded(holder, book, path, microdollars, tokens=0, now_ms=0, who="worker"):
    """What a request gets that waits as long as it must."""
    hold = holder.reserve(path, microdollars, tokens, now_ms)
    if hold is not None:
        return hold
    ticket = holder.ask(path, microdollars, tokens, now_ms)
    for _ in range(6):
        if ticket.hold is not None or ticket.short is not None:
            break
        exchange(holder, book, now_ms, who=who)
    return ticket.hold or ticket.short
