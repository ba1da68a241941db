"""Requests as the books tell them, as far as they can be decided anew; what cannot be says why.

A receipt has the model, tokens, price and time of every attempt. What `auto` saw of a request is only known by the rule
that spoke; pictures, thresholds in between and the caller's own cap are not written down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from fastroute.domain import Basis, Descriptor, Usage
from fastroute.errand import ASIDE

Skipped = Literal["not_a_chat", "aside", "cache_hit", "no_answer", "usage_unknown", "unreadable"]
SKIPPED: Final[dict[Skipped, str]] = {
    "not_a_chat": "embeddings and other operations are not chats, and no policy rules them",
    "aside": "shadows, judges and replays are not what users asked",
    "cache_hit": "the answer was told again from the cache, and nobody was asked",
    "no_answer": "nobody answered, so what it would have used is not known",
    "usage_unknown": "what it used was presumed, not told",
    "unreadable": "it is no receipt of this version",
}

_CHATS: Final = frozenset({"chat", "completions", "messages", "responses", "gemini"})
# Of a request that went under with its worker nobody knows the door.
_INTERRUPTED: Final = "interrupted"
_PAGE: Final = 1000
# Receipts stand in the order in which requests ended, which is not that in which they began.
_LONGEST: Final = timedelta(hours=1)
# What the rules of `auto` that stand for a capability tell of the request.
_NEEDS: Final[dict[str, tuple[str, ...]]] = {"function_calling": ("tools",), "json_mode": ("json",)}


class _Line(Struct, frozen=True, gc=False):
    entry: str
    basis: Basis
    ms: int
    picodollars: int | None
    usage: Usage


class _Paper(Struct, frozen=True, gc=False):
    ts: str
    surface: str
    model: str
    reason: str
    status: int
    route_primary: str | None
    route_final: str | None
    attempts: tuple[_Line, ...]


class Past(Struct, frozen=True, gc=False):
    """One request that was answered: by whom, with what tokens, for how much and how long."""

    at: str
    asked: str  # the name the caller sent
    reason: str
    first: str  # the entry that was tried first
    entry: str  # that answered
    usage: Usage
    ms: int  # its attempt alone
    picodollars: int | None
    discarded_picodollars: int  # of attempts before it
    capabilities: tuple[str, ...] = ()


class Step(Struct, frozen=True):
    """One decision of `POST /v1/route`: the descriptor, what was known, and the model that was placed, if one was."""

    descriptor: Descriptor
    degraded: tuple[str, ...]
    model: str | None  # provider:model


class Recorded(Struct, frozen=True):
    """What the books had: requests newest first, and how many could not be used, by why."""

    requests: tuple[Past, ...]
    skipped: dict[Skipped, int]
    refused: int  # of those skipped, refused before anybody was asked
    steps: tuple[Step, ...]


_papers: Final = msgspec.json.Decoder(_Paper)


def recorded(ask: Callable[..., Any], last: int | None, since: datetime | None) -> Recorded:
    """The last so many receipts and decisions, or those since an instant; `ask` is the desk's."""
    requests: list[Past] = []
    skipped: dict[Skipped, int] = {}
    refused = 0
    for body in _receipts(ask, last):
        try:
            paper = _papers.decode(body)
        except msgspec.MsgspecError:
            skipped["unreadable"] = skipped.get("unreadable", 0) + 1
            continue
        if since is not None and (began := datetime.fromisoformat(paper.ts)) < since:
            if began < since - _LONGEST:
                break
            continue
        found = past_of(paper)
        if isinstance(found, Past):
            requests.append(found)
        else:
            skipped[found] = skipped.get(found, 0) + 1
            refused += not paper.attempts and paper.status >= 400
    return Recorded(tuple(requests), skipped, refused, tuple(_steps(ask, last, since)))


def past_of(paper: _Paper) -> Past | Skipped:
    """A receipt as something to decide anew; or why it cannot be."""
    if paper.reason == _INTERRUPTED:
        return "no_answer"
    if paper.surface not in _CHATS:
        return "not_a_chat"
    if paper.reason in ASIDE:
        return "aside"
    if paper.reason == "cache_hit":
        return "cache_hit"
    if not paper.attempts or paper.status >= 400 or paper.route_final is None:
        return "no_answer"
    final = paper.attempts[-1]
    if final.basis in ("presumed", "void"):
        return "usage_unknown"
    return Past(
        at=paper.ts,
        asked=paper.model,
        reason=paper.reason,
        first=paper.attempts[0].entry,
        entry=final.entry,
        usage=final.usage,
        ms=final.ms,
        picodollars=final.picodollars,
        discarded_picodollars=sum(line.picodollars or 0 for line in paper.attempts[:-1]),
        capabilities=_NEEDS.get(paper.reason, ()),
    )


def _receipts(ask: Callable[..., Any], last: int | None) -> Iterator[bytes]:
    """Newest first."""
    left, before = last, None
    while left is None or left > 0:
        limit = _PAGE if left is None else min(_PAGE, left)
        page = ask("receipts.list", limit=limit, before=before)
        yield from (row["body"] for row in page)
        if len(page) < limit:
            return
        before = page[-1]["seq"]
        left = None if left is None else left - len(page)


def _steps(ask: Callable[..., Any], last: int | None, since: datetime | None) -> Iterable[Step]:
    since_ms = None if since is None else int(since.timestamp() * 1000)
    seen: set[str] = set()
    before_ms: int | None = None
    while last is None or len(seen) < last:
        page = ask("decisions.list", limit=_PAGE, before_ms=before_ms)
        fresh = [row for row in page if row["id"] not in seen]
        if not fresh:
            return
        for row in fresh:
            if (since_ms is not None and row["at_ms"] < since_ms) or (last is not None and len(seen) >= last):
                return
            seen.add(row["id"])
            told = row["record"]
            yield Step(
                msgspec.convert(told["descriptor"], Descriptor),
                tuple(told["snapshot"]["degraded_lanes"]),
                told["verdict"]["model"],
            )
        before_ms = page[-1]["at_ms"] + 1  # several may share an instant
