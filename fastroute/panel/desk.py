"""The table of operations: what may be asked at the desk, each with the fields it takes and what answers it.

An operation reads and changes the book in one step and never waits; what it refuses is a `Refused`, and then nothing
has changed (but for `leases.ChargedAll`, which says so).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from fastroute.ledger.agents import Agents
from fastroute.ledger.book import Book, Refused
from fastroute.ledger.library import Library
from fastroute.ledger.store import RecordRow
from fastroute.panel import agents, answers, contents, corrections, grants, keys, leases, receipts, usage, users
from fastroute.panel.counter import Counter

Operation = Callable[[Counter, Any], Any]

OPERATIONS: dict[str, tuple[type[msgspec.Struct], Operation]] = {
    "keys.create": (keys.Create, keys.create),
    "keys.list": (keys.List, keys.list_),
    "keys.show": (keys.Named, keys.show),
    "keys.change": (keys.Change, keys.change),
    "keys.rotate": (keys.Rotate, keys.rotate),
    "keys.revoke": (keys.Named, keys.revoke),
    "grants.remaining": (grants.Remaining, grants.remaining),
    "grants.place": (grants.Place, grants.place),
    "grants.show": (grants.Show, grants.show),
    "grants.revoke": (grants.Show, grants.revoke),
    "decisions.show": (grants.Decision, grants.decision),
    "decisions.list": (grants.Decisions, grants.decisions),
    "leases.handshake": (leases.Handshake, leases.handshake),
    "leases.report": (leases.Report, leases.report),
    "leases.refresh": (leases.Refresh, leases.refresh),
    "leases.return": (leases.Return, leases.return_),
    "events.note": (leases.Event, leases.note),
    "answers.claim": (answers.Claim, answers.claim),
    "answers.look": (answers.Look, answers.look),
    "answers.keep": (answers.Keep, answers.keep),
    "answers.drop": (answers.Drop, answers.drop),
    "contents.keep": (contents.Keep, contents.keep),
    "contents.show": (contents.Show, contents.show),
    "contents.kept": (contents.Kept, contents.kept),
    "contents.list": (contents.List, contents.list_),
    "contents.forget": (contents.Forget, contents.forget),
    "contents.compare": (contents.Compare, contents.compare),
    "receipts.show": (receipts.Show, receipts.show),
    "receipts.list": (receipts.List, receipts.list_),
    "receipts.chain": (receipts.Chain, receipts.chain),
    "receipts.correct": (corrections.Correct, corrections.correct),
    "receipts.corrections": (corrections.List, corrections.list_),
    "usage.show": (usage.Show, usage.show),
    "usage.overview": (usage.Overview, usage.overview),
    "usage.money": (usage.Money, usage.money),
    "users.open": (users.Open, users.open_),
    "agents.register": (agents.Register, agents.register),
    "agents.find": (agents.Named, agents.find),
    "agents.heard": (agents.Named, agents.heard),
    "agents.list": (agents.All, agents.list_),
    "agents.remove": (agents.Named, agents.remove),
}


class Desk:
    """What the bookkeeper asks; made anew with every book, since it remembers what that book has not committed yet."""

    def __init__(self, library: Library, pepper: bytes, registry: Agents | None = None) -> None:
        self._counter = Counter(library, pepper, registry)

    def __call__(
        self, book: Book, operation: str, arguments: dict[str, Any], now_ms: int, *, again: bool = False
    ) -> Any:
        """The result of an operation, `Refused`, or `Scarce` unless others were asked already."""
        known = OPERATIONS.get(operation)
        if known is None:
            raise Refused(404, "unknown_operation", f"nobody answers {operation!r} here")
        kind, act = known
        try:
            asked = msgspec.convert(arguments, kind)
        except msgspec.ValidationError as error:
            raise Refused(400, "invalid_request", *_wrong(str(error))) from None
        return act(self._counter.at(book, now_ms, again=again), asked)

    def take(self) -> dict[tuple[str, str], RecordRow | None]:
        """The documents that changed since this was last asked; they go into the same commit as the book's rows."""
        return self._counter.take()

    def tick(self, book: Book, now_ms: int) -> None:
        """What time alone brings about: grants and leases that are over, agents that are long gone."""
        book.expire(now_ms)
        agents.forget(self._counter, now_ms)


_FIELD: Final = re.compile(r"field `([^`]*)`")


def _wrong(message: str) -> tuple[str, str]:
    """What was wrong, and the field that it was wrong with."""
    what, _, where = message.partition(" - at `$")
    named = _FIELD.search(what)
    path = where.strip("`.")
    return what, path if named is None else ".".join(filter(None, (path, named[1])))
