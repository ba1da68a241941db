"""What one worker may spend, by itself and without asking: the worker's half of the lease protocol, and pure.

A `Holder` keeps this life's rights on every window it was told of, holds and settles against them, and decides what to
report, what to ask for and what to give back. It reads no clock and does no I/O: whoever drives it (`teller`, or a
simulator together with `book.Book`) hands in monotonic milliseconds and carries the messages, in whatever order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

from msgspec import Struct

from fastroute._core import Leases
from fastroute.ledger._leases import Hold as Hold
from fastroute.ledger._leases import HolderCore, Path
from fastroute.ledger.protocol import Facts, LeaseAnswer, LeaseReport, PathWindow, Refreshed

WINDOWS_MAX: Final = 1 << 16  # that one worker holds rights on at once; 56 bytes each

# A lease is refilled to what is spent in this time, at least so many of the last reserves, once a quarter is left.
AHEAD_MS: Final = 2000
RESERVES_AHEAD: Final = 8
LOW_WATER: Final = 4
# More than this many times the mark is given back: what a burst of long answers returned is not needed for the next.
HIGH_WATER: Final = 4
assert HIGH_WATER > 1  # else what is asked for would be given back at once, for ever

IDLE_MS: Final = 10_000  # without a reserve: what is free goes back
RETIRE_MS: Final = 60_000  # without one: the slot goes to others, and a window that is over is forgotten
ROUND: Final = 64  # leases looked at for that with each report
ASK_AGAIN_MS: Final = 1000  # an answer that has not come by then is lost
MISSES: Final = 8  # of those who wait for what is given back: all of them are not tried each time
PAUSE_MS: Final = 100  # before anything is asked for in advance where others need it more
TRIES: Final = 4  # of a request whose window is said to have enough and did not give it
LOOK_AFTER: Final = 64  # reserves between two looks at the low-water mark, at most
NEVER: Final = 1 << 62

_KINDS = {"microdollar": 0, "token": 1, "request": 2}
_GONE_MAX: Final = 1 << 16

Amounts = tuple[int, ...]
Report = tuple[int, tuple[LeaseReport, ...]]  # its seq, and what it says


class Lease(Struct, eq=False):
    """This life's rights on one window."""

    about: PathWindow
    ends_ms: int
    used_ms: int
    newer: tuple[int, int]  # when, and what had been taken by then
    older: tuple[int, int]
    slot: int | None = None
    past: tuple[int, int, int] = (0, 0, 0)  # granted, released and spent in slots that were given up since
    exact: bool = False
    closed: bool = False
    dirty: bool = False  # something is to be told
    told_seq: int = 0  # of the last report that named it
    said_seq: int = 0  # of the answer that `exact` and `closed` are from
    asked_seq: int = 0  # of a want that nobody answered yet
    asked_ms: int = 0
    asked_upto: int = 0  # the last ticket that a want has counted
    hoped: int = 0  # granted in all, if the last want is met
    pause_ms: int = 0  # until then nothing is asked for in advance
    room: int | None = None  # what the window still had, when a want was refused for lack of it
    waiting: dict[int, Ticket] = {}
    needed: int = 0  # by those who wait
    recent: int = 0  # about what one reserve takes
    low: int = 0


class Short(Struct, frozen=True):
    """Why a request did not get what it needs: `over` and `closed` may be cured by asking for the account's facts again."""

    reason: Literal["short", "closed", "over", "full"]
    window: PathWindow | None = None
    ends_ms: int = NEVER
    remaining: int = 0
    needed: int = 0


class Ticket(Struct, eq=False):
    """One request that waits for rights; in the end it has a `hold` or is `short`. `waiter` is its driver's own."""

    number: int
    path: Path
    microdollars: int | None
    tokens: int
    amounts: Amounts
    tries: int = 0
    hold: Hold | None = None
    short: Short | None = None
    waiter: Any = None


class Holder(HolderCore):
    """The leases of one life of one worker, for one thread.

    For every window: granted = released + spent + held + free.
    """

    def __init__(self, lease_ms: int, now_ms: int, *, windows_max: int = WINDOWS_MAX) -> None:
        """`now_ms` is from before the bookkeeper was asked: a lease's time counts from there."""
        self.lease_ms = lease_ms
        self.deadline_ms = now_ms + lease_ms
        self._core = Leases(windows_max)
        self._leases: dict[int, Lease] = {}
        self._gone: dict[int, None] = {}  # windows that are over and forgotten; they are not begun again from nothing
        self._round: deque[Lease] = deque()
        self._active = []
        self._dirty: dict[int, Lease] = {}
        self._hungry = {}
        self._seq = 0
        self._sent: dict[int, int] = {}  # when the reports left that nobody answered yet
        self._tickets = 0
        self._resting = False

    # --- the way through it ---------------------------------------------------------------------------------------------

    def path(self, facts: Facts, now_ms: int) -> Path:
        """The way through an account's windows; `now_ms` is from before its facts were asked for."""
        until_ms = NEVER if facts.expires_in_ms is None else now_ms + facts.expires_in_ms
        leases = []
        for about in facts.path:
            ends_ms = NEVER if about.ends_in_ms is None else now_ms + about.ends_in_ms
            until_ms = min(until_ms, ends_ms)
            lease = self._leases.get(about.window)
            if lease is None:
                lease = Lease(about, ends_ms, now_ms, (now_ms, 0), (now_ms, 0))
                if about.window in self._gone:
                    until_ms = now_ms
                elif now_ms < ends_ms:
                    self._leases[about.window] = lease
                    self._round.append(lease)
            else:
                if (about.limit == 0) != (lease.about.limit == 0):
                    self._epoch += 1  # nothing has become something, or the other way
                lease.about, lease.ends_ms = about, ends_ms
                if lease.closed:
                    self._mark(lease)  # whoever lives again is told so: an expiry was put off, or a clock went back
            leases.append(lease)
        kinds = tuple([_KINDS[about.unit] for about in facts.path])
        return Path(tuple([about.window for about in facts.path]), tuple(leases), kinds, until_ms)

    # --- what is told and asked ---------------------------------------------------------------------------------------

    def report(self, now_ms: int, *, due: bool = True) -> Report | None:
        """What to tell now: with `due` all that changed since it was last heard, else only new wants (None without any)."""
        if due or now_ms >= self.deadline_ms:
            self._go_round(now_ms)
            for path in self._active:
                path.active, path.credit = False, 0
                for lease in path.leases:
                    lease.used_ms = now_ms
                    self._mark(lease)
            self._active.clear()
            told = [self._told(lease, now_ms) for lease in tuple(self._dirty.values())]
        else:
            told = [said for lease in tuple(self._hungry.values()) if (said := self._told(lease, now_ms)).want]
            if not told:
                self._hungry.clear()
                return None
        self._hungry.clear()
        return self._report(told, now_ms)

    def recall(self, windows: Iterable[int], now_ms: int) -> Report:
        """Somebody else needs it: release what is free on these windows, and the report that says so."""
        told = []
        for window in windows:
            lease = self._leases.get(window)
            if lease is not None:
                self._release(lease)
                lease.pause_ms = now_ms + PAUSE_MS
                told.append(self._plain(lease))
        return self._report(told, now_ms)

    def rest(self, now_ms: int) -> Report:
        """The last word of this life: everything free is released, nothing is admitted any more.

        `ValueError` while anything is held.
        """
        if held := [number for number in self._leases if self.balance(number)[3]]:
            raise ValueError(f"something is held on the windows {held}")
        told = []
        for lease in self._leases.values():
            if lease.slot is not None:
                self._retire(lease)
            told.append(self._plain(lease))
        self._resting = True
        self.deadline_ms = 0
        self._epoch += 1
        return self._report(told, now_ms)

    def answer(self, said: Refreshed, now_ms: int) -> list[Ticket]:
        """Take an answer in, however late or often it comes; the tickets that it decided."""
        left_ms = self._sent.pop(said.seq, None)
        if left_ms is not None and not self._resting:
            self.deadline_ms = max(self.deadline_ms, left_ms + self.lease_ms)
        heard = []
        for answer in said.leases:
            lease = self._leases.get(answer.window)
            if lease is not None:
                self._hear(lease, answer, said.seq, now_ms)
                heard.append(lease)
        return self._decide(heard, now_ms)

    def disconnected(self) -> None:
        """What was asked will not be answered; it may be asked anew. Everything is told once more."""
        self._sent.clear()
        for lease in self._leases.values():
            lease.asked_seq = 0
            self._mark(lease)

    # --- those who wait -----------------------------------------------------------------------------------------------

    def ask(self, path: Path, microdollars: int | None, tokens: int, now_ms: int) -> Ticket:
        """Wait for what `reserve` refused: counted in the next report, decided by an answer, or at once."""
        self._tickets += 1
        needs: tuple[Any, ...] = (microdollars, tokens, 1)
        amounts = tuple([needs[_KINDS[lease.about.unit]] for lease in path.leases])
        ticket = Ticket(self._tickets, path, microdollars, tokens, amounts)
        if not self._settled(ticket, (), now_ms):
            for lease, amount in zip(path.leases, ticket.amounts, strict=True):
                lease.used_ms = now_ms
                lease.waiting[ticket.number] = ticket
                lease.needed += amount
                self._mark(lease)
                self._hungry[lease.about.window] = lease
        return ticket

    def served(self, now_ms: int) -> list[Ticket]:
        """Serve those who wait on what was given back since `reserve` refused them; to be asked before each report.

        Nothing of it is left to be asked for, and so no answer would come to serve them.
        """
        decided = []
        for lease in tuple(self._hungry.values()):
            misses = 0
            for ticket in tuple(lease.waiting.values()):
                if self._free(lease) <= 0 or misses == MISSES:
                    break
                if self._settled(ticket, (), now_ms):
                    self._leave(ticket)
                    decided.append(ticket)
                else:
                    misses += 1
        return decided

    def drop(self, ticket: Ticket) -> None:
        """Nobody waits for it any more; what it may have got is given back."""
        self._leave(ticket)
        if ticket.hold is not None:
            self.void(ticket.hold)

    def balance(self, window: int) -> tuple[int, int, int, int, int]:
        """(granted, released, spent, held, free) of one window in this life; zeros for one never heard of."""
        lease = self._leases.get(window)
        return (0, 0, 0, 0, 0) if lease is None else self._balance(lease)

    # --- how it is done -----------------------------------------------------------------------------------------------

    def _bind(self, path: Path) -> None:
        path.epoch = self._epoch
        path.shut = self._resting and bool(path.leases)
        slots = []
        for lease in path.leases:
            if lease.closed or lease.about.limit == 0:
                path.shut = True
            if lease.slot is None:
                if self._leases.get(lease.about.window) is not lease:  # it is over
                    path.shut = True
                    break
                try:
                    lease.slot = self._core.open()
                except OverflowError:
                    path.shut = True
                    break
            slots.append(lease.slot)
        path.bind(tuple(slots))

    def _look(self, path: Path, amounts: Amounts, now_ms: int) -> None:
        """Whether a window of the path is near its low-water mark, and how many reserves like this one may pass unseen."""
        if not path.active:
            self._activate(path)
        credit = LOOK_AFTER
        for lease, amount in zip(path.leases, amounts, strict=True):
            lease.recent = max(amount, (3 * lease.recent + amount) // 4)
            if lease.exact:
                continue
            left = self._free(lease) - max(lease.low, 2 * amount)
            if left >= 0:
                # Others draw on the same windows, so only half the way is gone without a look.
                credit = min(credit, left // (2 * amount) if amount else LOOK_AFTER)
            elif lease.asked_seq == 0 and now_ms >= lease.pause_ms:
                self._hungry[lease.about.window] = lease
                credit = min(credit, RESERVES_AHEAD)
        path.credit = credit

    def _activate(self, path: Path) -> None:
        path.active = True
        self._active.append(path)

    def _mark(self, lease: Lease) -> None:
        if not lease.dirty:
            lease.dirty = True
            self._dirty[lease.about.window] = lease

    def _balance(self, lease: Lease) -> tuple[int, int, int, int, int]:
        granted, released, spent = lease.past
        if lease.slot is None:
            return granted, released, spent, 0, 0
        more, back, used, held, free = self._core.balance(lease.slot)
        return granted + more, released + back, spent + used, held, free

    def _free(self, lease: Lease) -> int:
        return 0 if lease.slot is None else self._core.balance(lease.slot)[4]

    def _release(self, lease: Lease, keep: int = 0) -> None:
        free = self._free(lease)
        if free > keep and lease.slot is not None and not self.withheld:
            self._core.release(lease.slot, free - keep)
            self._mark(lease)

    def _told(self, lease: Lease, now_ms: int) -> LeaseReport:
        """What to say of a lease: how much is wanted, after giving back what is not."""
        granted, released, spent, held, free = self._balance(lease)
        want, urgent, keep = 0, False, 0
        if not (lease.closed or now_ms >= lease.ends_ms or self._resting):
            idle = now_ms - lease.used_ms >= IDLE_MS
            ahead = 0 if lease.exact or idle else self._ahead(lease, spent + held, now_ms)
            lease.low = ahead // LOW_WATER
            spare = free - lease.needed
            keep = lease.needed + (ahead if spare > HIGH_WATER * ahead else spare)
            if lease.asked_seq == 0 or now_ms - lease.asked_ms >= ASK_AGAIN_MS:
                urgent = spare < 0
                if urgent:
                    want = self._fitting(lease, free) - free
                elif spare < lease.low and now_ms >= lease.pause_ms and granted - released < lease.about.limit:
                    want = ahead - spare
        self._release(lease, keep)
        if want > 0:
            lease.asked_seq, lease.asked_ms, lease.hoped = self._seq + 1, now_ms, granted + want
            if urgent:
                lease.asked_upto = self._tickets
        return self._plain(lease, want, urgent)

    def _plain(self, lease: Lease, want: int = 0, urgent: bool = False) -> LeaseReport:
        granted, released, spent, held, _ = self._balance(lease)
        return LeaseReport(lease.about.window, granted, released, spent, held, want, urgent)

    def _report(self, told: Sequence[LeaseReport], now_ms: int) -> Report:
        self._seq += 1
        for said in told:
            self._leases[said.window].told_seq = self._seq
        self._sent[self._seq] = now_ms
        if len(self._sent) > 256:  # nobody answers; the oldest will not be
            del self._sent[next(iter(self._sent))]
        return self._seq, tuple(told)

    def _ahead(self, lease: Lease, taken: int, now_ms: int) -> int:
        """What two seconds take at the rate of the last two, and at least some of the last reserves."""
        if now_ms - lease.newer[0] >= AHEAD_MS // 2:
            lease.older, lease.newer = lease.newer, (now_ms, taken)
        since_ms, before = lease.older
        rate = max(taken - before, 0) * AHEAD_MS // max(now_ms - since_ms, AHEAD_MS // 2)
        return max(rate, RESERVES_AHEAD * lease.recent)

    def _fitting(self, lease: Lease, free: int) -> int:
        """What those who wait need; where the window has not enough for all, what the first of them need."""
        if lease.room is None:
            return lease.needed
        room, total = free + lease.room, 0
        for ticket in lease.waiting.values():
            amount = ticket.amounts[ticket.path.leases.index(lease)]
            if total + amount <= room:
                total += amount
        lease.room = None
        return max(total, free)

    def _hear(self, lease: Lease, answer: LeaseAnswer, seq: int, now_ms: int) -> None:
        more = answer.granted - self._balance(lease)[0]
        if more > 0 and lease.slot is not None:
            self._core.grant(lease.slot, more)
        elif more > 0:  # too late: nobody has used it for so long that it has no place here
            lease.past = lease.past[0] + more, lease.past[1] + more, lease.past[2]
        if lease.told_seq <= seq and lease.dirty:
            lease.dirty = False
            del self._dirty[answer.window]
        if more > 0 and lease.slot is None:
            self._mark(lease)
        if seq >= lease.said_seq:  # an older answer knows less
            lease.said_seq = seq
            if answer.closed != lease.closed:
                lease.closed = answer.closed
                self._epoch += 1
            lease.exact = answer.exact
        if 0 < lease.asked_seq <= seq:
            lease.asked_seq = 0
            lease.room = answer.short
            if answer.granted < lease.hoped:
                lease.pause_ms = now_ms + PAUSE_MS
        if lease.closed:
            self._release(lease)
        elif lease.exact and self._free(lease) > 0:
            self._mark(lease)  # given back with the next report, unless somebody takes it first

    def _decide(self, heard: list[Lease], now_ms: int) -> list[Ticket]:
        """Serve those who wait on these windows, first come first served, and refuse whom nothing can serve."""
        candidates = {number: ticket for lease in heard for number, ticket in lease.waiting.items()}
        order = candidates if len(heard) == 1 else sorted(candidates)
        decided = []
        for number in order:
            ticket = candidates[number]
            if self._settled(ticket, heard, now_ms):
                self._leave(ticket)
                decided.append(ticket)
        for lease in heard:
            if lease.waiting and lease.asked_seq == 0:
                self._mark(lease)
                self._hungry[lease.about.window] = lease
            elif not lease.waiting:
                lease.room = None
        return decided

    def _settled(self, ticket: Ticket, heard: Sequence[Lease], now_ms: int) -> bool:
        """Whether a ticket got what it needs, or never will."""
        path = ticket.path
        ticket.hold = self.reserve(path, ticket.microdollars, ticket.tokens, now_ms)
        if ticket.hold is not None:
            return True
        if now_ms >= path.until_ms or path.shut:
            ticket.short = self._why(path, ticket.amounts, now_ms)
            return True
        for lease, amount in zip(path.leases, ticket.amounts, strict=True):
            free = max(self._free(lease), 0)
            if lease not in heard or lease.room is None or ticket.number > lease.asked_upto or amount <= free:
                continue
            ticket.tries += 1
            if amount > free + lease.room or ticket.tries >= TRIES:
                ticket.short = Short("short", lease.about, lease.ends_ms, free + max(lease.room, 0), amount)
                return True
        return False

    def _why(self, path: Path, amounts: Amounts, now_ms: int) -> Short:
        for lease, amount in zip(path.leases, amounts, strict=True):
            if now_ms >= lease.ends_ms or lease.about.window in self._gone:
                return Short("over", lease.about, lease.ends_ms, 0, amount)
            if lease.closed:
                return Short("closed", lease.about, lease.ends_ms, 0, amount)
            if lease.about.limit == 0:
                return Short("short", lease.about, lease.ends_ms, 0, amount)
        return Short("over" if now_ms >= path.until_ms else "full")

    def _leave(self, ticket: Ticket) -> None:
        for lease, amount in zip(ticket.path.leases, ticket.amounts, strict=True):
            if lease.waiting.pop(ticket.number, None) is not None:
                lease.needed -= amount

    def _go_round(self, now_ms: int) -> None:
        """Look at a few leases each time, so that what nobody uses goes back although nobody asks for it."""
        retired = False
        for _ in range(min(ROUND, len(self._round))):
            lease = self._round.popleft()
            idle_ms = now_ms - lease.used_ms
            over = now_ms >= lease.ends_ms
            if idle_ms >= IDLE_MS or over:
                self._release(lease, lease.needed)
            if idle_ms >= RETIRE_MS and not (lease.dirty or lease.waiting or self.withheld):
                if lease.slot is not None:
                    try:
                        self._retire(lease)
                        retired = True
                        if over:
                            self._mark(lease)  # told once more, now that nothing of it is left here
                    except ValueError:
                        pass  # a stream that long is still on its way
                if lease.slot is None and over and lease.closed and now_ms - lease.ends_ms >= RETIRE_MS:
                    self._forget(lease)
                    continue
            self._round.append(lease)
        if retired:
            self._epoch += 1

    def _retire(self, lease: Lease) -> None:
        """Give up the slot, keep the totals. Paths that knew it bind anew, once the epoch moves."""
        assert lease.slot is not None
        granted, _, _, _, _ = self._core.balance(lease.slot)
        released, spent = self._core.close(lease.slot)
        lease.past = lease.past[0] + granted, lease.past[1] + released, lease.past[2] + spent
        lease.slot = None

    def _forget(self, lease: Lease) -> None:
        del self._leases[lease.about.window]
        self._gone[lease.about.window] = None
        if len(self._gone) > _GONE_MAX:
            del self._gone[next(iter(self._gone))]
