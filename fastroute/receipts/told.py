"""What a receipt is told of a request that is over, and what it is when it is sealed."""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct

from fastroute.domain import Tariff, Usage

FORMAT: Final = 1
GENESIS: Final = bytes(32)  # what the first receipt of a chain names as `previous`
NAME_MAX: Final = 256
DETAILS_MAX: Final = 256 * 1024


class Charge(Struct, frozen=True, gc=False):
    """What one attempt held of one budget in one window, and what it was charged there."""

    account: str  # whose budget it is: the caller's, or one above it
    unit: str
    window: str
    reserved: int
    charged: int


class AttemptLine(Struct, frozen=True, gc=False):
    """One attempt as its receipt tells it."""

    attempt: int
    entry: str
    lane: str
    model: str
    outcome: str
    status: int | None
    basis: str
    reserved_microdollars: int | None
    charges: tuple[Charge, ...]
    picodollars: int | None  # None when the price is not known
    microdollars: int | None
    usage: Usage
    ms: int
    price: Tariff | None = None  # what its usage was priced at, where its charge rests on it


class Particulars(Struct, frozen=True, gc=False):
    """All that is told of one request that is over; the attempts stand in the order in which they were made."""

    request_id: str
    decision_id: str
    started_ms: int  # wall clock
    account: str | None  # public id; None when no key is configured
    account_name: str | None
    surface: str
    model: str  # the name the caller sent
    route_final: str | None  # the entry that answered
    reason: str
    status: int
    stream: bool
    latency_ms: int
    first_chunk_ms: int | None
    attempts: tuple[AttemptLine, ...]
    details: dict[str, Any] = {}  # what a policy, a shadow or a cache adds; texts and integers only


class Sealed(Struct, frozen=True, gc=False):
    """One receipt, and its link: the bytes of its signature, which the next one names as `previous`.

    A signature depends on every byte of what it signs, `previous` included, so it serves as the hash of the chain too.
    """

    id: str
    seq: int
    body: bytes
    link: bytes
