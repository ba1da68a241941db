"""What a worker writes in its journal, in the order in which it happens: one record for each step of a request's money.

Amounts stand beside totals: a total can be told twice, late or out of order without harm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import Struct

SEND: Final = 1
SETTLE: Final = 2
FINISH: Final = 3
STOP: Final = 4


class Send(Struct, frozen=True, array_like=True, gc=False):
    """An attempt's bytes are about to leave: written before the first of them does."""

    attempt: int  # 1, 2, 3 ... within one holder
    request: str
    account: int  # 0 is nobody: no key is configured
    windows: tuple[int, ...]
    reserved: tuple[int, ...]
    entry: str
    model: str
    lane: str
    at_ms: int
    microdollars: int | None  # the bound in money, whatever the windows count in


class Settle(Struct, frozen=True, array_like=True, gc=False):
    """An attempt is closed: what it is charged on every window of its `Send`, and what the lease has spent in all."""

    attempt: int
    basis: str
    outcome: str
    status: int
    charged: tuple[int, ...]
    spent: tuple[int, ...]  # this holder's total on each of the windows, this attempt included
    usage: tuple[int, int, int, int, int]
    picodollars: int | None
    microdollars: int | None
    ms: int
    # What the usage was priced at, as `Tariff` has it: input, output, cache reads and writes, and their source.
    tariff: tuple[int, int, int | None, int | None, str] | None = None


class Finish(Struct, frozen=True, array_like=True, gc=False):
    """A request is over and its caller answered: with its attempts, all that its receipt says."""

    request: str
    account: int
    decision: str
    surface: str
    asked: str  # the name the caller sent
    entry: str  # that answered; empty when none did
    reason: str
    status: int
    stream: bool
    started_ms: int
    latency_ms: int
    first_chunk_ms: int | None
    details: dict[str, Any] = {}  # what a policy, a shadow or a cache adds


class Stop(Struct, frozen=True, array_like=True, gc=False):
    """The worker ended in good order: nothing is open and everything free was given back."""

    at_ms: int


Record = Send | Settle | Finish | Stop

_encoder = msgspec.msgpack.Encoder()
# By kind; a `msgspec.DecodeError` tells of bytes that are no such record.
DECODERS: Final[dict[int, Callable[[bytes], Any]]] = {
    SEND: msgspec.msgpack.Decoder(Send).decode,
    SETTLE: msgspec.msgpack.Decoder(Settle).decode,
    FINISH: msgspec.msgpack.Decoder(Finish).decode,
    STOP: msgspec.msgpack.Decoder(Stop).decode,
}
encode = _encoder.encode


def decode(kind: int, payload: bytes) -> Record:
    """The record of one kind; `msgspec.DecodeError` or `KeyError` when it is none."""
    record: Record = DECODERS[kind](payload)
    return record
