"""The desk of a simulated house, and the simplest of receipts: every operation is one whole step on the book."""

from fastroute.ledger.book import Refused
from fastroute.ledger.store import ReceiptRow


class Desk:
    """What the desk does in a world; `keeper.Desk`."""

    def __init__(self, world):
        self.world = world

    def take(self):
        return {}

    def tick(self, book, now_ms):
        book.expire(now_ms)

    def __call__(self, book, operation, arguments, now_ms, *, again=False):
        return getattr(self, operation)(book, now_ms, **arguments)

    def limit(self, book, now_ms, account, unit, amount, window, zone):
        book.set_budget(account, unit, amount, window, zone)

    def revoke(self, book, now_ms, account):
        book.change_account(account, state="revoked")

    def allocate(self, book, now_ms, parent, amount, name, kind, expires_ms):
        book.allocate(parent, amount, name, kind, name, now_ms=now_ms, expires_ms=expires_ms)

    def end(self, book, now_ms, account):
        book.end_allocation(account, "ended")

    def post(self, book, now_ms, account, microdollars):
        if book.standing(account, now_ms) != "live":
            raise Refused(409, "not_live", "gone", "")
        facts = book.facts(account, now_ms)
        fits = self.world.rng.random() < 0.8
        left = {one.window: one.remaining for row in book._accounts for one in book.balances(row, now_ms)}
        room = min((left[about.window] for about in facts.path), default=10**9)
        if room < max(microdollars, 20) and fits:
            raise Refused(402, "parent_exhausted", "no room", "")
        beyond = "beyond" if room < max(microdollars, 20) else ""
        book.post(account, "posted", microdollars, now_ms=now_ms, model=beyond, usage=(10, 10, 0, 0, 0))

    def correct(self, book, now_ms, holder, attempt, charged):
        world = self.world
        entry = world.oracle.entries[holder, attempt]
        if (holder, attempt) in world.corrected:
            return
        rows = tuple(world.store._windows[number] for number in entry.windows)
        book.correct(
            entry,
            charged=charged,
            basis="exact",
            usage=entry.usage,
            picodollars=None,
            microdollars=entry.microdollars,
            now_ms=now_ms,
            old_windows=rows,
        )


def seal(book, finished, last):
    first = 1 if last is None else last.seq + 1
    rows = []
    for seq, one in enumerate(finished, first):
        body = repr([send.attempt for send, _ in one.attempts]).encode()
        rows.append(
            ReceiptRow(seq, f"r{seq}", one.finish.request, one.finish.account, one.finish.started_ms, body, b"")
        )
    return rows
