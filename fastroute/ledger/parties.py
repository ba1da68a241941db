"""Whom a keeper deals with: journals and their graves, the desk, the shelf of the books, and letters with their answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from fastroute.ledger.balances import FinishedRequest
from fastroute.ledger.book import Book
from fastroute.ledger.protocol import Question, Reply
from fastroute.ledger.store import BookStore, ReceiptRow, RecordRow


class Grave(Protocol):
    """Proof that a holder is dead, as long as it is kept."""

    def remove(self) -> None: ...

    def close(self) -> None: ...


class Reading(Protocol):
    """A journal of one life, read from where it stands."""

    segment: int
    offset: int

    def read(self, limit: int = ...) -> list[tuple[int, bytes]]: ...

    def check_end(self) -> None: ...

    def drop_before(self, segment: int) -> int: ...

    def close(self) -> None: ...


class Journals(Protocol):
    """Where the journals are."""

    def open(self, holder: int, segment: int, offset: int) -> Reading: ...

    def grave(self, holder: int) -> Grave | None:
        """The proof that a holder is dead; None while it lives."""

    def holders(self) -> list[int]: ...


class Desk(Protocol):
    """Who answers `Ask`; one is made for each book."""

    def __call__(
        self, book: Book, operation: str, arguments: dict[str, Any], now_ms: int, *, again: bool = False
    ) -> Any:
        """The result; or `Refused`, or, but for `again`, `Scarce`: then nothing has changed."""

    def take(self) -> dict[tuple[str, str], RecordRow | None]:
        """Documents that changed since this was last asked; they go into the book's commit."""

    def tick(self, book: Book, now_ms: int) -> None:
        """What time alone brings about."""


class Shelf(BookStore, Protocol):
    """A store that one bookkeeper has, and that forgets documents whose time is over."""

    def keep(self) -> None:
        """Be its only bookkeeper; `StoreError` when somebody is."""

    def sweep(self, now_ms: int) -> int: ...


# The receipts that follow the last one, in the order of the requests.
Seal = Callable[[Book, Sequence[FinishedRequest], ReceiptRow | None], list[ReceiptRow]]


class Letter(NamedTuple):
    """A question, and the connection it came on."""

    sender: int
    question: Question


# To whom, and what; None hangs up.
Post = tuple[int, Reply | None]


class Now(NamedTuple):
    """The instant of a turn: the wall clock for windows and expiries, the monotonic one for waiting."""

    wall_ms: int
    mono_ms: int
