"""What every operation has at hand: the book, its instant, the library of what is committed, and tokens.

Documents kept moments ago are found here although they are not committed yet.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from fastroute.ledger import tokens
from fastroute.ledger.agents import Agents
from fastroute.ledger.book import Balance, Book, Refused, Scarce
from fastroute.ledger.library import Library
from fastroute.ledger.store import AccountRow, RecordRow

T = TypeVar("T")

# What brings its money along: above it money is not asked, and it sees nothing of who is above.
ALLOCATED = ("grant", "lease")


class Counter:
    """One desk's counter; `at` hands it the book and the instant of an operation."""

    book: Book
    now_ms: int
    again: bool  # whether workers have been asked to give back what they do not use

    def __init__(self, library: Library, pepper: bytes, registry: Agents | None = None) -> None:
        self.library = library
        self.registry = registry  # of agents; None where no registry is kept
        self.agents_look_ms = 0  # when those who are long gone are looked for
        self.pepper = pepper
        # Whoever takes these commits them before the next operation, or throws the desk away.
        self._pending: dict[tuple[str, str], RecordRow | None] = {}
        self._names: dict[tuple[str, str], int] | None = None

    def at(self, book: Book, now_ms: int, *, again: bool = False) -> Counter:
        self.book, self.now_ms, self.again = book, now_ms, again
        return self

    def need(self, account: AccountRow, amount: int) -> None:
        """Before anything changes: `Scarce` when workers may give back what is missing of an amount of money."""
        left = self.available(account)
        if left is not None and left < amount and not self.again:
            recalls = self.book.recall(account.id, self.now_ms)
            if recalls:
                raise Scarce(recalls)

    # --- documents --------------------------------------------------------------------------------------------------

    def row(self, kind: str, id: str) -> RecordRow | None:  # noqa: A002 (what they are called everywhere)
        """A kept document as its row, if it has not expired."""
        row = self._pending[kind, id] if (kind, id) in self._pending else self.library.record(kind, id)
        if row is None or (row.expires_ms is not None and row.expires_ms <= self.now_ms):
            return None
        return row

    def document(self, kind: str, id: str, type: type[T]) -> T | None:  # noqa: A002  as above
        """What is in a kept document, if it has not expired."""
        row = self.row(kind, id)
        return None if row is None else msgspec.msgpack.decode(row.body, type=type)

    def keep(self, kind: str, id: str, account: int, body: Any, *, for_ms: int | None = None) -> None:  # noqa: A002  as above
        expires = None if for_ms is None else self.now_ms + for_ms
        self._pending[kind, id] = RecordRow(kind, id, account, self.now_ms, msgspec.msgpack.encode(body), expires)

    def forget(self, kind: str, id: str) -> None:  # noqa: A002  as above
        self._pending[kind, id] = None

    def take(self) -> dict[tuple[str, str], RecordRow | None]:
        """The documents that changed since this was last asked."""
        pending, self._pending = self._pending, {}
        return pending

    # --- accounts ---------------------------------------------------------------------------------------------------

    def account(self, id: int) -> AccountRow:  # noqa: A002  as above
        row = self.book.account(id)
        if row is None:
            raise Refused(404, "account_not_found", "this account is gone")
        return row

    def called(self, kind: str, name: str) -> AccountRow | None:
        """The last account of that name: if any of them is live, it is."""
        if self._names is None:
            # Asking the book for all of its accounts takes as long as ten thousand look-ups here.
            self._names = {
                (row.kind, row.name): row.id for each in ("key", "agent", "user") for row in self.book.accounts(each)
            }
        number = self._names.get((kind, name))
        return None if number is None else self.book.account(number)

    def note_name(self, row: AccountRow) -> None:
        """An account was opened, under a name that no live one has."""
        if self._names is not None:
            self._names[row.kind, row.name] = row.id

    def standing(self, row: AccountRow) -> str:
        """live, revoked or ended: over is also who has expired, or hangs on somebody who is over."""
        standing = self.book.standing(row.id, self.now_ms)
        return "ended" if standing == "expired" else standing

    def balances(self, row: AccountRow) -> list[Balance]:
        """The limits that its requests draw on: its own, then its parent's and theirs."""
        found: list[Balance] = []
        funded = False
        above: AccountRow | None = row
        while above is not None:
            own = self.book.balances(above.id, self.now_ms)
            found += [each for each in own if not (funded and each.unit == "microdollar")]
            funded = funded or above.kind in ALLOCATED
            above = None if above.parent is None else self.account(above.parent)
        return found

    def family(self, row: AccountRow) -> list[AccountRow]:
        """The account and all that hang on it, each after the one it hangs on."""
        found = [row]
        for one in found:
            found += self.book.children(one.id)
        return found

    def available(self, row: AccountRow) -> int | None:
        """Microdollars that nobody holds on any of the budgets it draws on, at least 0; None is no limit."""
        left = min((each.remaining for each in self.balances(row) if each.unit == "microdollar"), default=None)
        return None if left is None else max(left, 0)

    def expires_ms(self, row: AccountRow, wanted: int) -> int:
        """The wanted instant, or the earlier one at which the account or one above it expires."""
        left = self.book.facts(row.id, self.now_ms).expires_in_ms
        return wanted if left is None else min(wanted, self.now_ms + left)

    def sent(self, request: str) -> bool:
        """Whether anything of a request that is over had left for a provider."""
        return bool(self.book.entered(request) or self.library.entries(request))

    def owns(self, asker: int, owner: int) -> bool:
        """Whether an account may see what belongs to another: its own, and what was taken out of it."""
        while owner:
            if owner == asker:
                return True
            row = self.book.account(owner)
            owner = 0 if row is None or row.parent is None else row.parent
        return False

    def token(self, kind: str, secret_of: bytes | None = None) -> tuple[tokens.Token, bytes]:
        """A new token and its digest; the same one again for the same `secret_of`."""
        token = tokens.new_token(kind, None if secret_of is None else tokens.digest(self.pepper, b"token:" + secret_of))
        return token, tokens.digest(self.pepper, token.text.encode())
