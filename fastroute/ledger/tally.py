"""The book's side of its workers: lives begin and end, journals are tallied, rights are lent.

What was spent moves by journals alone. A refresh brings what was released and what is wanted; the totals that it tells
as spent are compared with the journal's and never added, so that one told early, twice or late does no harm.
"""

from __future__ import annotations

from fastroute.ledger._tally import Batch
from fastroute.ledger.balances import BrokenBooks, FinishedRequest, Holder, Lease, Recalls, Window
from fastroute.ledger.pages import Pages
from fastroute.ledger.protocol import LeaseAnswer, LeaseReport, Refresh, Refreshed
from fastroute.ledger.records import Finish, Record, Settle
from fastroute.ledger.store import EntryRow, HolderRow, State

NO_USAGE = (0, 0, 0, 0, 0)
# The entry of what a host that lost power may have spent without a trace; attempts are numbered from 1.
LOST = 0


class Tally(Pages):
    """`finished` is drained by whoever makes receipts; `breaches` counts attempts that cost more than was held.

    Records of journals are put upon it by `_tally`.
    """

    def __init__(self, state: State) -> None:
        super().__init__(state)
        self.finished: list[FinishedRequest] = []
        self.breaches = 0
        self.progress = 0

    # Lives.

    def hello(self, boot_id: str, now_ms: int, previous: int = 0) -> int:
        """The number of a new life, or `previous` when that life may go on: it is alive and of the same boot."""
        before = self._holders.get(previous)
        if before is not None and before.live and before.kind == "worker" and before.boot_id == boot_id:
            return previous
        return self._new_holder(Holder(HolderRow(self._last_holder + 1, "worker", boot_id=boot_id))).id

    def applied(self, holder: int, segment: int, offset: int) -> None:
        """How far a journal has been applied; of a life that is over there is nothing to remember."""
        life = self._holders.get(holder)
        if life is None and holder <= self._last_holder:
            return
        if life is None or (segment, offset) < (life.segment, life.offset):
            raise BrokenBooks(f"holder {holder}: its journal cannot go back to segment {segment}, offset {offset}")
        life.segment = segment
        life.offset = offset
        self._changed_holders.add(life)

    def lent(self, holder: int) -> bool:
        """Whether a life has rights, or attempts under way."""
        life = self._holders.get(holder)
        return life is not None and bool(life.leases or life.attempts)

    def bury(self, holder: int, now_ms: int, *, power_lost: bool) -> None:
        """Close a life that is proven dead, its whole journal applied: its open attempts are presumed at their reserve.

        Where power was lost the journal's end may be too: everything it had rights for is presumed, and nothing beyond,
        for what it was lent is all that it can have spent. One that is over already stays as it is.
        """
        life = self._holders.get(holder)
        if (life is None and holder <= self._last_holder) or (life is not None and not life.live):
            return
        if life is None or life.kind != "worker":
            raise BrokenBooks(f"holder {holder} is no worker that could be buried")
        for _, _, send in tuple(life.attempts.values()):
            charged = tuple(
                self._presumed(life.leases.get(window), reserved, power_lost)
                for window, reserved in zip(send.windows, send.reserved, strict=True)
            )
            spent = tuple(
                charge + (lease.spent if (lease := life.leases.get(window)) is not None else 0)
                for window, charge in zip(send.windows, charged, strict=True)
            )
            money = send.microdollars
            if money is not None and charged != send.reserved:
                money = min(money, self._microdollars(send.windows, charged) or 0)
            presumed = Settle(send.attempt, "presumed", "gone", 0, charged, spent, NO_USAGE, None, money, 0)
            Batch(self, life, now_ms).settle(presumed)
        if power_lost:
            self._presume_the_rest(life, now_ms)
        self._interrupt(life)
        self._end_holder(life)

    def _presumed(self, lease: Lease | None, reserved: int, power_lost: bool) -> int:
        if lease is None:
            return 0  # it ended on the holder's word that nothing was held
        return min(reserved, max(0, lease.rights - lease.spent)) if power_lost else reserved

    def _presume_the_rest(self, life: Holder, now_ms: int) -> None:
        rests = {number: lease.rights - lease.spent for number, lease in life.leases.items()}
        rests = {number: rest for number, rest in rests.items() if rest > 0}
        if not rests:
            return
        for number, rest in rests.items():
            self._spend(life.leases[number], rest, 0, now_ms)
        windows, amounts = tuple(rests), tuple(rests.values())
        money = self._microdollars(windows, amounts)
        self._entries.append(
            EntryRow(
                life.id,
                LOST,
                "",
                0,
                windows,
                amounts,
                amounts,
                "presumed",
                "",
                "",
                "",
                "gone",
                NO_USAGE,
                None,
                money,
                now_ms,
            )
        )

    def _microdollars(self, windows: tuple[int, ...], amounts: tuple[int, ...]) -> int | None:
        """The money among amounts on a path, where every window that counts money counts the same."""
        known = ((self._windows.get(window), amount) for window, amount in zip(windows, amounts, strict=True))
        return max(
            (n for window, n in known if window is not None and window.budget.row.unit == "microdollar"), default=None
        )

    def _interrupt(self, life: Holder) -> None:
        closing = Batch(self, life, 0)
        for underway in tuple(life.requests.values()):
            first, last = underway.sends[0], underway.sends[-1]
            underway.finish = underway.finish or Finish(
                underway.request, last.account, "", "", "", "", "interrupted", 0, False, first.at_ms, 0, None
            )
            closing.over(underway, underway.finish)

    # Journals.

    def apply(self, holder: int, record: Record, now_ms: int) -> None:
        """Take in one record of a journal, in its order and once; `BrokenBooks` when it contradicts what came before."""
        self._batch(holder, now_ms).apply(record)

    def read(self, holder: int, found: list[tuple[int, bytes]], now_ms: int) -> None:
        """The same for many, as a journal holds them; when one is refused, `progress` tells how many were taken in.

        Bytes that are no record are a `msgspec.DecodeError` or a `KeyError`.
        """
        self._batch(holder, now_ms).read(found)

    def _batch(self, holder: int, now_ms: int) -> Batch:
        self.progress = 0
        life = self._holders.get(holder)
        if life is None or not life.live:
            raise BrokenBooks(f"holder {holder} is not alive")
        return Batch(self, life, now_ms)

    def _breach(
        self, life: Holder, number: int, lease: Lease | None, charge: int, reserved: int, spent: int, now_ms: int
    ) -> None:
        """Charge in full what cost more than was held for it, which for something free may be nothing, without a lease."""
        window = self._windows.get(number)
        if lease is None and window is None:
            raise BrokenBooks(f"holder {life.id} charges window {number}, which is long over")
        if lease is None and window is not None and spent != charge:  # its lease has ended
            self._charge(window, charge, charge, now_ms)
            return
        if lease is None and window is not None:
            lease = Lease(window, life)
        assert lease is not None, "there was one, or there was a window to make one on"
        self._spend(lease, charge, charge - reserved, now_ms)

    def _stop(self, life: Holder) -> None:
        if life.attempts:
            raise BrokenBooks(f"holder {life.id} stopped with attempts open: {sorted(life.attempts)}")
        self._interrupt(life)
        self._end_holder(life)

    # Rights.

    def refresh(self, message: Refresh, now_ms: int) -> tuple[Refreshed, Recalls]:
        """Take in what is released, lend what is wanted; and whom to recall for wants that could not be met.

        Each number is lent upon once. The same message may be handed in again, after a recall: what had nothing then is
        tried once more. An urgent want is met whole or not at all, so that nothing is stranded with one who cannot use
        it; another gets at most a share of what is left, and nothing near the limit. That all is given back ends nothing:
        reports overtake journals, and only the `Stop` at a journal's end says that no record follows.
        """
        life = self._holders.get(message.holder)
        if life is None or not life.live or life.kind != "worker":
            over = (LeaseAnswer(report.window, report.granted_seen, closed=True) for report in message.leases)
            return Refreshed(message.number, message.seq, tuple(over)), {}
        if message.seq > life.seq:
            life.seq = message.seq
            life.unmet = {report.window for report in message.leases if report.want > 0}
            if life.unmet:  # a number that nothing can be lent upon need not be kept: idle workers cost no commit
                self._changed_holders.add(life)
        current = message.seq == life.seq
        recalls: dict[int, list[int]] = {}
        answers = []
        for report in message.leases:
            window = self._windows.get(report.window)
            lease = life.leases.get(report.window)
            if lease is None and report.granted_seen and window is not None and not window.over(now_ms):
                lease = self._go_on(life, window)
            if lease is not None:
                self._reported(lease, report)
            # A lease that has come to its end is not begun again from nothing.
            if window is None or (lease is None and report.granted_seen):
                answers.append(LeaseAnswer(report.window, report.granted_seen, closed=True))
                continue
            answer = self._answer(life, window, report, current, now_ms)
            answers.append(answer)
            if answer.short is not None and report.urgent and not answer.closed:
                for other in window.others(life.id):
                    recalls.setdefault(other, []).append(window.id)
        reply = Refreshed(message.number, message.seq, tuple(answers))
        return reply, {other: tuple(windows) for other, windows in recalls.items()}

    def _go_on(self, life: Holder, window: Window) -> Lease | None:
        """A lease that came to rest, with the totals it had: an expiry was put off, or a clock went back."""
        totals = life.ended.pop(window.id, None)
        if totals is None:
            return None
        lease = Lease(window, life, *totals)
        window.closed -= lease.spent
        self._changed_windows.add(window)
        self._changed_leases.add(lease)
        return lease

    def _reported(self, lease: Lease, report: LeaseReport) -> None:
        if report.granted_seen > lease.granted or report.released > lease.granted:
            raise BrokenBooks(
                f"holder {lease.holder.id} knows of {report.granted_seen} on window {report.window} and released "
                f"{report.released}; it was granted {lease.granted}"
            )
        if report.released > lease.released:
            lease.release(report.released)
            if lease.found:  # it was released before the breach, and is only told now
                lease.breached = max(lease.breached, lease.spent - lease.rights)
            self._changed_leases.add(lease)

    def _answer(self, life: Holder, window: Window, report: LeaseReport, current: bool, now_ms: int) -> LeaseAnswer:
        lease = life.leases.get(window.id)
        granted = lease.granted if lease is not None else 0
        if window.over(now_ms):
            if lease is not None and _at_rest(lease, report):
                self._end_lease(lease)
            return LeaseAnswer(window.id, granted, closed=True)
        if report.want <= 0:
            return LeaseAnswer(window.id, granted, window.near(window.avail))
        window.wanted(report.want, now_ms)
        lent = 0
        if current and window.id in life.unmet:
            lent = _share(window, lease, report)
        if lent:
            life.unmet.discard(window.id)
            if lease is None:
                lease = Lease(window, life)
            lease.grant(lent)
            granted = lease.granted
            self._changed_leases.add(lease)
        left = window.avail
        short = max(0, left) if lent < report.want else None
        return LeaseAnswer(window.id, granted, window.near(left), False, short)


def _share(window: Window, lease: Lease | None, report: LeaseReport) -> int:
    """How much of a want is met now."""
    left = window.avail
    if left < 0:
        return 0
    # What a lease overspent has left the window already: lending it that much takes nothing more.
    room = left + (max(0, lease.spent - lease.rights) if lease is not None else 0)
    if report.urgent:
        return report.want if report.want <= room else 0
    workers = sum(other.holder.kind == "worker" for other in window.leases.values()) + (lease is None)
    share = min(report.want, left // (2 * workers))
    return 0 if window.near(left - share) else share


def _at_rest(lease: Lease, report: LeaseReport) -> bool:
    """Whether the holder and the journal agree that nothing is open on a lease and nothing free."""
    return (
        report.held == 0
        and not any(lease.window.id in send.windows for _, _, send in lease.holder.attempts.values())
        and report.granted_seen == lease.granted
        and report.spent == lease.spent
        and lease.rights <= lease.spent
    )
