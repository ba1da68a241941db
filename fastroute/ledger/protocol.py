"""What a worker and the bookkeeper say to one another: length-prefixed MessagePack over a Unix socket.

Totals travel, never deltas, so that a message lost, doubled or late does no harm: whoever receives takes the larger.
Every question carries a number of its own and gets one answer with that number; a `Recall` comes unasked, and so may `Over`.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Struct

from fastroute.ledger.store import Prefer, Unit

# A frame is a big-endian uint32 length and so many bytes; none is longer than this.
FRAME_MAX: Final = 64 * 1024 * 1024


class Hello(Struct, frozen=True, tag="hello"):
    """A worker introduces itself. `holder` is 0 for a new life, else the one it goes on with after the bookkeeper's."""

    number: int
    worker: int  # its place at the supervisor, for people
    boot_id: str
    holder: int = 0


class Welcome(Struct, frozen=True, tag="welcome"):
    """The number of this life; it is in the store before it is told."""

    number: int
    holder: int
    refresh_ms: int  # how often to report at least
    lease_ms: int  # how long rights may be used without hearing from the bookkeeper


class LeaseReport(Struct, frozen=True, array_like=True):
    """One lease as its holder sees it; `want` is how much more is asked for, `urgent` when a request waits for it."""

    window: int
    granted_seen: int
    released: int
    spent: int
    held: int
    want: int = 0
    urgent: bool = False


class Refresh(Struct, frozen=True, tag="refresh"):
    """What a worker reports and asks for; `seq` grows by one with each."""

    number: int
    holder: int
    seq: int
    leases: tuple[LeaseReport, ...]
    heard: int = 0  # the last `Recall` obeyed before this report was made


class LeaseAnswer(Struct, frozen=True, array_like=True):
    """One lease as the bookkeeper holds it, durably.

    `exact`: the window is near its limit, so hold nothing back for later: ask for each request and release what is left.
    `closed`: the window is over (its account too, perhaps): admit nothing more and release what is free.
    `short`: with `want` refused in whole or part, what the window still had for everybody, in its unit.
    """

    window: int
    granted: int
    exact: bool = False
    closed: bool = False
    short: int | None = None


class Refreshed(Struct, frozen=True, tag="refreshed"):
    number: int
    seq: int
    leases: tuple[LeaseAnswer, ...]
    sick: bool = False  # the books cannot be written: nothing is lent until they can


class Recall(Struct, frozen=True, tag="recall"):
    """Somebody needs what you do not use: release what is free on these windows and report them with a `Refresh`.

    The report names the recall in `heard`: one that was on its way already is not taken for the answer.
    """

    windows: tuple[int, ...]
    number: int = 0


class Over(Struct, frozen=True, tag="over"):
    """This life contradicts the books and is not followed any more: it should end, and another begin.

    It answers a `Refresh` or a `Hello`, or comes unasked with the number 0. What the life holds stays held until it is gone.
    """

    number: int
    why: str


class Who(Struct, frozen=True, tag="who"):
    """Whose token has this digest, or which account has this id? With neither: does anybody have a key?"""

    number: int
    digest: bytes | None = None
    account: int | None = None


class PathWindow(Struct, frozen=True, array_like=True):
    """One window that an account's requests draw on. `ends_in_ms` counts from when the answer was made."""

    window: int
    unit: Unit
    limit: int
    name: str
    zone: str
    ends_in_ms: int | None
    owner: str  # public id of the account whose limit it is
    owner_kind: str


class Facts(Struct, frozen=True):
    """What a worker must know of an account to serve it."""

    account: int
    public_id: str
    kind: str
    name: str
    path: tuple[PathWindow, ...]
    expires_in_ms: int | None
    models: tuple[str, ...] = ()
    limits: tuple[
        tuple[int, int | None, int | None, int | None], ...
    ] = ()  # (account, rpm, tpm, concurrency), own first
    metadata: dict[str, Any] = {}
    prefer: Prefer | None = None


class Known(Struct, frozen=True, tag="known"):
    """`facts` is None when nobody has that token; `state` then tells a holder of a dead one what became of it."""

    number: int
    facts: Facts | None
    state: str = "unknown"  # unknown | revoked | ended | expired; of the whole house: open | closed


class Ask(Struct, frozen=True, tag="ask"):
    """An operation of the house's desk: keys, grants, usage, receipts. What it changes is durable before the answer."""

    number: int
    operation: str
    arguments: dict[str, Any] = {}


class Answered(Struct, frozen=True, tag="answered"):
    """`refusal` is (status, code, message, field) when the operation was refused; then nothing changed."""

    number: int
    result: Any = None
    refusal: tuple[int, str, str, str] | None = None


Question = Hello | Refresh | Who | Ask
Reply = Welcome | Refreshed | Known | Answered | Recall | Over

_encoder = msgspec.msgpack.Encoder()
_questions: msgspec.msgpack.Decoder[Question] = msgspec.msgpack.Decoder(Question)
_replies: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


def frame(message: Question | Reply) -> bytes:
    """A message as it travels."""
    body = _encoder.encode(message)
    return len(body).to_bytes(4, "big") + body


def question(body: bytes) -> Question:
    return _questions.decode(body)


def reply(body: bytes) -> Reply:
    return _replies.decode(body)
