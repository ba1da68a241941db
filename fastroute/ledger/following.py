"""Following the journals of the living: read piece by piece, walled where they cannot be followed, closed with their life.

The lower half of `keeper`, which owns the book and commits what is taken in here. Whatever is wrong with one journal, or
with the disk under it, costs its own life and nobody else.
"""

from __future__ import annotations

import logging
from typing import ClassVar, Final

import msgspec

from fastroute.errors import FastrouteError
from fastroute.ledger.book import Book, BrokenBooks
from fastroute.ledger.journal import JournalDamaged, JournalError, JournalMissing
from fastroute.ledger.parties import Grave, Journals, Now, Reading
from fastroute.ledger.store import HolderRow

TURN_RECORDS: Final = 4096  # of all journals in one turn: what takes longer would keep an asker waiting
SWEEP_MS: Final = 200
KEPT: Final = "damaged_journal:"  # and a holder's number: its files stay, for whoever wants to know

log = logging.getLogger("fastroute.bookkeeper")


class Contradiction(FastrouteError):
    """The culprit is put aside; the turn is done again without it."""


class Follower:
    """Who lives, how far each journal was taken in, and who is to be closed."""

    PIECE: ClassVar = 192  # records that are taken in at a time: what is made of them fits the nearer caches

    def __init__(self, journals: Journals, boot_id: str) -> None:
        self.found = False  # journals held something in the last turn
        self._journals = journals
        self._boot_id = boot_id
        self._sweep_ms = 0
        self._rows: dict[int, HolderRow] = {}  # live workers as they were loaded or said hello
        self._readers: dict[int, Reading] = {}
        self._reached: dict[int, tuple[int, int]] = {}  # up to where records were taken in since the last commit
        self._applied: dict[int, tuple[int, int]] = {}  # up to where they were at the last commit
        self._walls: dict[int, tuple[int, int]] = {}  # where a journal cannot be followed any further
        self._over: dict[int, str] = {}  # lives that are not followed any more, though they go on; and why
        self._untold: set[int] = set()  # of those, who has not heard of it
        self._stuck: set[int] = set()  # holders that the book cannot close
        self._unread: set[int] = set()  # holders whose journal could not be read the last time
        self._waiting_graves: set[int] = set()  # of the dead, whose end could not be looked at the last time
        self._known = 0  # the newest life that the books know of
        self._graves: dict[int, Grave] = {}
        self._senders: dict[int, int] = {}  # holder -> connection
        self._notes: dict[str, bytes] = {}  # as they are committed
        self._doubted = False

    def _seal_up(self, book: Book) -> None:
        """A piece was taken in."""
        raise NotImplementedError  # the keeper's, who owns the receipts

    def _give_up(self, holder: int, why: str) -> None:
        if holder not in self._over:
            self._over[holder] = why
            self._untold.add(holder)

    def _follow(self, holder: int, segment: int, offset: int) -> None:
        reader = self._journals.open(holder, segment, offset)
        self._readers[holder] = reader
        self._applied[holder] = reader.segment, reader.offset

    def _read_all(self, book: Book, now: Now, *, everything: bool = False) -> bool:
        """Apply what the journals of the living hold; True when there may be more than one turn takes."""
        left = TURN_RECORDS
        for holder in list(self._readers):
            left -= self._read(book, holder, now, None if everything else max(left, 1))
        self.found = left < TURN_RECORDS
        return left <= 0

    def _read(self, book: Book, holder: int, now: Now, most: int | None) -> int:
        reader = self._readers[holder]
        done = 0
        unread = False
        while True:
            before = reader.segment, reader.offset
            wall = self._walls.get(holder)
            if wall == before or done == most:
                break
            limit = 1 if wall is not None else self.PIECE if most is None else min(most - done, self.PIECE)
            try:
                found = reader.read(limit)
            except JournalDamaged as error:
                # What stands before the damage has been read: the reader hands that out first.
                log.error("the journal of holder %d cannot be followed; what it holds stays held: %s", holder, error)
                self._walls[holder] = before
                self._give_up(holder, f"the journal of this life cannot be followed: {error}")
                break
            except JournalError as error:
                if holder not in self._unread:
                    log.error("the journal of holder %d cannot be read and is tried again: %s", holder, error)
                self._unread.add(holder)
                unread = True
                break
            if not found:
                break
            try:
                book.read(holder, found, now.wall_ms)
            except (BrokenBooks, msgspec.DecodeError, UnicodeDecodeError, KeyError) as error:
                log.error("holder %d wrote what contradicts the books; what it holds stays held: %s", holder, error)
                self._wall(holder, before, book.progress)
                self._give_up(holder, f"the journal of this life contradicts the books: {error}")
                raise Contradiction from error
            self._seal_up(book)
            done += len(found)
        if not unread:
            self._unread.discard(holder)
        if done:
            # Not where the reader stands: one that could not go on may have moved already.
            book.applied(holder, *before)
            self._reached[holder] = before
        return done

    def _wall(self, holder: int, start: tuple[int, int], count: int) -> None:
        """Remember the place behind `count` records from `start`: nothing beyond it is read."""
        again = self._journals.open(holder, *start)
        try:
            if count:
                again.read(count)
            self._walls[holder] = again.segment, again.offset
        finally:
            again.close()

    def _bury_dead(self, book: Book, now: Now) -> None:
        """Close the lives whose lock is free, each after the rest of its journal."""
        self._doubted = False
        self._sweep_ms = now.mono_ms + SWEEP_MS
        for holder, row in list(self._rows.items()):
            # A connection is a living process at its other end, though it may be stopped.
            if holder in self._senders or holder in self._stuck:
                continue
            try:
                grave = self._journals.grave(holder)
            except JournalError as error:
                self._put_off(holder, error)
                continue
            if grave is None:
                continue
            self._graves[holder] = grave
            self._read(book, holder, now, None)
            if holder in self._unread:
                self._graves.pop(holder).close()
                continue
            lost = row.boot_id != self._boot_id or holder in self._walls
            try:
                if holder not in self._walls:
                    self._readers[holder].check_end()
            except JournalDamaged as error:
                # Of a life that was never lent anything, no journal is nothing lost.
                if not isinstance(error, JournalMissing) or book.lent(holder):
                    log.error("records of holder %d are lost: %s", holder, error)
                    self._walls[holder] = self._readers[holder].segment, self._readers[holder].offset
                    lost = True
            except JournalError as error:
                self._graves.pop(holder).close()
                self._put_off(holder, error)
                continue
            self._waiting_graves.discard(holder)
            try:
                book.bury(holder, now.wall_ms, power_lost=lost)
            except BrokenBooks as error:
                log.error("holder %d cannot be closed; what it holds stays held: %s", holder, error)
                self._stuck.add(holder)
                raise Contradiction from error
            log.info("holder %d has ended%s", holder, "; all that it held is charged" if lost else "")
            del self._rows[holder]

    def _put_off(self, holder: int, error: JournalError) -> None:
        if holder not in self._waiting_graves:
            log.error("holder %d cannot be closed yet, and is tried again: %s", holder, error)
        self._waiting_graves.add(holder)

    def _strangers(self) -> list[int]:
        """Lives that these books never began, whose journals are here nevertheless."""
        found = [holder for holder in self._journals.holders() if holder > self._known]
        for holder in found:
            log.error(
                "these books know nothing of holder %d, whose journal is here: an earlier copy of them was put back, and "
                "what that journal tells is not in it; its files are kept",
                holder,
            )
        return found

    def _clear_leftovers(self) -> None:
        """Remove the files of lives that are over in the books already; a crash left them."""
        for holder in self._journals.holders():
            if holder in self._rows or f"{KEPT}{holder}" in self._notes:
                continue
            try:
                if (grave := self._journals.grave(holder)) is not None:
                    self._remove(grave)
            except JournalError as error:
                log.error("what is left of holder %d stays for now: %s", holder, error)

    def _remove(self, grave: Grave) -> None:
        """Its records are in the books: files that cannot be removed are only in the way, and found by the next start."""
        try:
            grave.remove()
        except JournalError as error:
            log.error("%s", error)
        finally:
            grave.close()
