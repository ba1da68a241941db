"""One turn of the bookkeeper, without its process: journals and messages in, one commit, answers out.

No answer leaves before what it tells is durable. Whatever goes wrong with the store or contradicts the books costs the
book in memory, never what is stored: it is loaded anew, and the journals still hold all that was not committed.
`bookkeeper` gives this a socket and a loop; tests and a simulator drive it turn by turn.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from fastroute.errors import StoreCorrupt, StoreDamaged, StoreError
from fastroute.ledger._piles import Receipts
from fastroute.ledger.book import Book, BrokenBooks, Recalls, Refused, Scarce
from fastroute.ledger.following import KEPT, SWEEP_MS, Contradiction, Follower
from fastroute.ledger.journal import JournalError
from fastroute.ledger.parties import Desk, Journals, Letter, Now, Post, Seal, Shelf
from fastroute.ledger.protocol import (
    Answered,
    Ask,
    Hello,
    Known,
    LeaseAnswer,
    Over,
    Recall,
    Refresh,
    Refreshed,
    Reply,
    Welcome,
    Who,
)
from fastroute.ledger.store import Changes, HolderRow, ReceiptRow, ToldTwice

REFRESH_MS: Final = 1000  # how often a worker reports at least
LEASE_MS: Final = 120_000  # how long a worker may spend what it has, unheard; it returns nothing
RECALL_MS: Final = 100  # how long an urgent question waits for what others do not use
TICK_MS: Final = 1000
BACKOFF_MS: Final = (50, 100, 200, 500, 1000)

UNAVAILABLE: Final = (503, "books_unavailable", "the books cannot be written at the moment; try again", "")
CLEAN_STOP: Final = "clean_stop"
BOOT_ID: Final = "boot_id"

log = logging.getLogger("fastroute.bookkeeper")


class _Waiting:
    """An urgent question that waits until those who were recalled have reported."""

    __slots__ = ("awaited", "letter", "until_ms")

    def __init__(self, letter: Letter, awaited: dict[int, int], until_ms: int) -> None:
        self.letter = letter
        self.awaited = awaited  # holder -> the recall it has to have heard
        self.until_ms = until_ms


class Keeper(Follower):
    """Owns the book; whoever owns the keeper owns the store."""

    def __init__(
        self,
        store: Shelf,
        journals: Journals,
        desk: Callable[[], Desk],
        seal: Seal | None,
        boot_id: str,
    ) -> None:
        super().__init__(journals, boot_id)
        self.more = False  # journals may hold more than one turn takes
        self.changed = False  # accounts or budgets did, in the last turn
        self._store = store
        self._make_desk = desk
        self._seal = seal
        self._book: Book | None = None
        self._desk = desk()
        self._last: ReceiptRow | None = None  # the newest that was sealed
        self._receipts = Receipts()  # sealed since the last commit
        self._last_account = 0  # the newest that was ever committed
        self._holders: dict[int, int] = {}  # connection -> holder
        self._waiting: list[_Waiting] = []
        self._recalls = 0
        self._faults = 0
        self._spoiled = False  # while the store is sick: nothing is read until the next try either
        self._retry_ms = 0
        self._tick_ms = 0

    @property
    def well(self) -> bool:
        """Whether the last turn could write."""
        return self._faults == 0

    @property
    def lives(self) -> int:
        """How many workers have begun and not been buried."""
        return len(self._rows)

    @property
    def book(self) -> Book | None:
        """The book as it is now, for who checks it; None while it cannot be loaded."""
        return self._book

    # Beginning and end

    def start(self, now: Now) -> None:
        """Load the books, apply what journals hold, bury who died meanwhile. Faults of the store are raised."""
        book = self._load()
        notes = self._notes
        before = notes.get(BOOT_ID, b"").decode()
        if before and before != self._boot_id and CLEAN_STOP not in notes and self._rows:
            log.error("the machine went down without a clean stop: what its workers held and did not spend is charged")
        # Once noted they are kept by the next start too, which knows of higher numbers.
        said: dict[str, bytes | None] = {f"{KEPT}{holder}": b"1" for holder in self._strangers()}
        said |= {BOOT_ID: self._boot_id.encode(), CLEAN_STOP: None}
        while True:
            try:
                self._read_all(book, now, everything=True)
                self._bury_dead(book, now)
                self._commit(book, said)
                break
            except ToldTwice as error:
                if not self._wall_off(error):
                    raise
                book = self._load()
            except Contradiction:
                book = self._load()
        self._clear_leftovers()
        self._sweep_ms = now.mono_ms + SWEEP_MS

    def stop(self, now: Now) -> bool:
        """The final pass, once the workers have ended; True when nobody is left and the stop is marked as clean."""
        self._holders.clear()
        self._senders.clear()
        self._waiting.clear()
        while True:
            try:
                book = self._book or self._load()
                self._read_all(book, now, everything=True)
                self._bury_dead(book, now)
                self._commit(book, {} if self._rows else {CLEAN_STOP: b"1"})
            except Contradiction:
                self._forget()
                continue
            except StoreError as error:
                if isinstance(error, ToldTwice) and self._wall_off(error):
                    continue
                self._forget()
                log.error("the last pass over the journals was not kept and is made at the next start: %s", error)
                return False
            for reader in self._readers.values():
                reader.close()
            return not self._rows

    # A turn

    def turn(self, letters: Sequence[Letter], now: Now) -> list[Post]:
        """Everything that is there, in one commit; then the answers. A fault of the store is told in the answers.

        Raises `StoreCorrupt` alone: with pages that do not add up nobody goes on.
        """
        self.changed = False
        if now.mono_ms < self._retry_ms:
            return self._apologies(letters, now)
        self._spoiled = False
        dropped: set[int] = set()
        while True:
            asked = [letter for letter in letters if letter.sender not in dropped]
            waiting = list(self._waiting)
            try:
                book = self._book or self._load()
                posts = self._work(book, asked, now)
                written = self._commit(book, {})
                break
            except Contradiction as fault:
                self._forget()
                self._waiting = waiting
                if fault.args:
                    dropped.add(fault.args[0])
                    self._waiting = [one for one in waiting if one.letter.sender not in dropped]
            except StoreCorrupt:
                raise
            except StoreError as error:
                if isinstance(error, ToldTwice) and self._wall_off(error):
                    self._waiting = waiting
                    continue
                self._forget()
                self._waiting = []
                self._note_fault(error, now)
                # Which of these has changed something is not known any more; they may ask again.
                self._spoiled = True
                asked += [one.letter for one in waiting if one.letter.sender not in dropped]
                posts = self._apologies(asked, now)
                self._spoiled = False
                return posts + self._farewells(dropped)
        if self._faults and written:
            log.warning("the books are written again")
            self._faults = 0
        return posts + self._farewells(dropped)

    def _farewells(self, dropped: set[int]) -> list[Post]:
        """A life that contradicts the books is told so, for it would come again; who is no such life is hung up on."""
        posts: list[Post] = [(sender, None) for sender in dropped if self._holders.get(sender) not in self._over]
        told = self._untold & self._senders.keys()  # the others learn it when they say hello
        posts += [(self._senders[holder], Over(0, self._over[holder])) for holder in sorted(told)]
        self._untold -= told
        return posts

    def gone(self, sender: int) -> None:
        """A connection has closed: nobody waits there, and its holder may be dead."""
        holder = self._holders.pop(sender, None)
        if holder is not None and self._senders.get(holder) == sender:
            del self._senders[holder]
            self._doubted = True
        self._waiting = [one for one in self._waiting if one.letter.sender != sender]
        for one in self._waiting:
            if holder is not None:
                one.awaited.pop(holder, None)

    def doubt(self) -> None:
        """Look in the next turn who has died."""
        self._doubted = True

    def due_ms(self) -> int | None:
        """When on the monotonic clock a question that waits wants its answer."""
        return min((one.until_ms for one in self._waiting), default=None)

    def _work(self, book: Book, letters: list[Letter], now: Now) -> list[Post]:
        self.more = self._read_all(book, now)
        if self._doubted or now.mono_ms >= self._sweep_ms:
            self._bury_dead(book, now)
        if now.mono_ms >= self._tick_ms:
            self._tick_ms = now.mono_ms + TICK_MS
            self._store.sweep(now.wall_ms)
            self._desk.tick(book, now.wall_ms)
        posts: list[Post] = []
        for letter in letters:
            self._answer(book, letter, now, posts)
        still: list[_Waiting] = []
        for one in self._waiting:
            if one.awaited and now.mono_ms < one.until_ms:
                still.append(one)
            else:
                sender, question = one.letter
                if isinstance(question, Refresh):
                    posts.append((sender, self._refreshed(book, sender, question, now)[0]))
                else:
                    assert isinstance(question, Ask)
                    posts.append((sender, self._asked(book, question, now.wall_ms, again=True)))
        self._waiting = still
        return posts

    def _answer(self, book: Book, letter: Letter, now: Now, posts: list[Post]) -> None:
        sender, question = letter
        if isinstance(question, Refresh) and self._holders.get(sender) == question.holder in self._over:
            posts.append((sender, Over(question.number, self._over[question.holder])))
        elif isinstance(question, Refresh):
            for one in self._waiting:
                if question.heard >= one.awaited.get(question.holder, question.heard + 1):
                    del one.awaited[question.holder]
            reply, recalls = self._refreshed(book, sender, question, now)
            urgent = any(report.urgent for report in question.leases)
            if not (urgent and self._recalled(letter, recalls, question.holder, now, posts)):
                posts.append((sender, reply))
        elif isinstance(question, Who):
            posts.append((sender, _known(book, question, now.wall_ms)))
        elif isinstance(question, Ask):
            try:
                posts.append((sender, self._asked(book, question, now.wall_ms)))
            except Scarce as scarce:
                if not self._recalled(letter, scarce.recalls, 0, now, posts):
                    posts.append((sender, self._asked(book, question, now.wall_ms, again=True)))
        else:
            posts.append((sender, self._welcome(book, sender, question, now)))

    def _refreshed(self, book: Book, sender: int, question: Refresh, now: Now) -> tuple[Refreshed, dict[int, Any]]:
        if self._holders.get(sender) != question.holder:
            log.error("a report of holder %d comes from somebody else and is refused", question.holder)
            raise Contradiction(sender)
        try:
            return book.refresh(question, now.wall_ms)
        except BrokenBooks as error:
            log.error("holder %d reports what contradicts the books and is told to end: %s", question.holder, error)
            self._give_up(question.holder, f"a report of this life contradicts the books: {error}")
            raise Contradiction(sender) from error

    def _recalled(self, letter: Letter, recalls: Recalls, asker: int, now: Now, posts: list[Post]) -> bool:
        """Ask others to give back what they do not use, and let the letter wait for them; False when nobody can."""
        awaited: dict[int, int] = {}
        for holder, windows in recalls.items():
            reached = self._senders.get(holder)
            if reached is not None and holder != asker:
                self._recalls += 1
                awaited[holder] = self._recalls
                posts.append((reached, Recall(windows, self._recalls)))
        if awaited:
            self._waiting.append(_Waiting(letter, awaited, now.mono_ms + RECALL_MS))
        return bool(awaited)

    def _asked(self, book: Book, question: Ask, now_ms: int, *, again: bool = False) -> Answered:
        try:
            said = self._desk(book, question.operation, question.arguments, now_ms, again=again)
            return Answered(question.number, said)
        except Refused as no:
            return Answered(question.number, refusal=(no.status, no.code, str(no), no.field))
        except StoreDamaged as error:
            log.error("%s is refused: %s", question.operation, error)
            return Answered(question.number, refusal=(500, "books_damaged", str(error), ""))

    def _welcome(self, book: Book, sender: int, question: Hello, now: Now) -> Welcome | Over | None:
        if question.boot_id != self._boot_id:
            log.error("worker %d says hello from another boot of this machine and is refused", question.worker)
            return None
        if question.holder in self._over:
            return Over(question.number, self._over[question.holder])
        holder = book.hello(question.boot_id, now.wall_ms, question.holder)
        before = self._holders.get(sender)
        if before is not None and before != holder and self._senders.get(before) == sender:
            del self._senders[before]  # a life it could not begin
            self._doubted = True
        if holder not in self._rows:
            self._rows[holder] = HolderRow(holder, "worker", boot_id=self._boot_id)
            self._follow(holder, 0, 0)
        self._holders[sender] = holder
        self._senders[holder] = sender
        return Welcome(question.number, holder, REFRESH_MS, LEASE_MS)

    # The store

    def _load(self) -> Book:
        self._forget()
        state = self._store.load()
        self._notes = dict(state.notes)
        # A journal of a life beyond those tells that the books were put back: its number is not given again.
        self._known = state.last_holder
        state.last_holder = max(state.last_holder, max(self._journals.holders(), default=0))
        self._last = state.last_receipt
        self._last_account = max((row.id for row in state.accounts), default=0)
        book = Book(state)
        self._desk = self._make_desk()
        for row in state.holders:
            if row.kind == "worker":
                self._rows[row.id] = row
                self._follow(row.id, row.segment, row.offset)
        self._book = book
        return book

    def _forget(self) -> None:
        """Throw the book away with everything that only it knew."""
        self._book = None
        self._receipts = Receipts()
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()
        self._applied.clear()
        self._reached.clear()
        self._rows.clear()
        for grave in self._graves.values():
            grave.close()
        self._graves.clear()

    def _seal_up(self, book: Book) -> None:
        """Make receipts of what has ended, and keep the bytes alone of them and of what was entered."""
        if self._seal is not None and book.finished:
            rows = self._seal(book, book.finished, self._last)
            self._receipts.add(rows)
            self._last = rows[-1] if rows else self._last
        book.finished.clear()
        book.pile_up()

    def _commit(self, book: Book, notes: dict[str, bytes | None]) -> bool:
        """Seal receipts, commit, and then remove what is needed no more; True when anything was written."""
        self._seal_up(book)
        changes = book.take()
        changes.receipts, self._receipts = self._receipts, Receipts()
        changes.records.update(self._desk.take())
        changes.notes.update(notes)
        changes.notes.update({f"{KEPT}{holder}": b"1" for holder in self._graves if holder in self._walls})
        self._store.commit(changes)
        for name, note in changes.notes.items():
            if note is None:
                self._notes.pop(name, None)
            else:
                self._notes[name] = note
        self.changed = self._is_news(changes)
        for holder, place in self._reached.items():
            if place[0] > self._applied[holder][0]:
                try:
                    self._readers[holder].drop_before(place[0])
                except JournalError as error:
                    log.error("%s", error)  # with the next segment it is tried again
            self._applied[holder] = place
        self._reached.clear()
        for holder, grave in self._graves.items():
            self._readers.pop(holder).close()
            self._applied.pop(holder)
            self._over.pop(holder, None)
            self._untold.discard(holder)
            if self._walls.pop(holder, None) is None:
                self._remove(grave)
            else:
                grave.close()
        self._graves.clear()
        return changes != Changes()

    def _is_news(self, changes: Changes) -> bool:
        """Whether workers may remember otherwise: an allocation that was just made is not remembered anywhere."""
        made = {
            row.id
            for row in changes.accounts.values()
            if row.kind in ("grant", "lease") and row.id > self._last_account
        }
        self._last_account = max(self._last_account, max(changes.accounts, default=0))
        return any(number not in made for number in changes.accounts) or any(
            row.account not in made for row in changes.budgets.values()
        )

    def _wall_off(self, error: ToldTwice) -> bool:
        """Read nothing of a journal that tells something again beyond what was committed; False for the desk's own."""
        place = self._applied.get(error.holder)
        if place is None:
            return False
        log.error("%s; its life is not followed any further", error)
        self._walls[error.holder] = place
        self._give_up(error.holder, f"the journal of this life tells an attempt twice: {error}")
        self._forget()
        return True

    def _note_fault(self, error: StoreError, now: Now) -> None:
        pause_ms = BACKOFF_MS[min(self._faults, len(BACKOFF_MS) - 1)]
        self._faults += 1
        self._retry_ms = now.mono_ms + pause_ms
        if self._faults == 1:
            log.error("the books cannot be written; nothing is granted until they can: %s", error)

    def _apologies(self, letters: Sequence[Letter], now: Now) -> list[Post]:
        """Answers while nothing can be written: what only reads is answered from what is durable."""
        posts: list[Post] = []
        for sender, question in letters:
            if isinstance(question, Refresh):
                told = tuple(LeaseAnswer(report.window, report.granted_seen) for report in question.leases)
                # Totals are told to whom they belong: another would take them for rights of his own.
                own = self._holders.get(sender) == question.holder
                posts.append((sender, Refreshed(question.number, question.seq, told, sick=True) if own else None))
            elif isinstance(question, Hello):
                posts.append((sender, None))
            else:
                posts.append((sender, self._read_only(question, now)))
        return posts

    def _read_only(self, question: Who | Ask, now: Now) -> Reply:
        if not self._spoiled:
            try:
                book = self._book or self._load()
                if isinstance(question, Who):
                    reply: Reply = _known(book, question, now.wall_ms)
                else:
                    reply = self._asked(book, question, now.wall_ms, again=True)
                if book.take() == Changes() and not self._desk.take():
                    return reply
            except StoreError as error:
                log.debug("the books cannot be read either: %s", error)
            self._forget()
            self._spoiled = True  # loading anew for each who would change something is work for nothing
        if isinstance(question, Who):
            return Known(question.number, None, "unavailable")
        return Answered(question.number, refusal=UNAVAILABLE)


def _known(book: Book, question: Who, now_ms: int) -> Known:
    if question.digest is None and question.account is None:
        return Known(question.number, None, "open" if book.nobody_has_a_key else "closed")
    if question.digest is not None:
        row = book.by_digest(question.digest, now_ms)
    else:
        row = None if question.account is None else book.account(question.account)
    if row is None:
        return Known(question.number, None)
    standing = book.standing(row.id, now_ms)
    if standing != "live":
        return Known(question.number, None, standing)
    return Known(question.number, book.facts(row.id, now_ms), standing)
