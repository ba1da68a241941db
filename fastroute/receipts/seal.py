"""Receipts are made here: what is known of a request that is over becomes signed bytes, each chained to the one before.

Pure but for the place in the chain, which the sealer keeps; the bookkeeper, who calls it, makes that durable.
"""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import UTC, datetime
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final

import msgspec
from msgspec import Struct

from fastroute.clock import iso
from fastroute.domain import Rates, Usage
from fastroute.money import usd_from_picodollars
from fastroute.receipts.canonical import ReceiptError, canonical
from fastroute.receipts.redaction import clip, scrub, scrub_text

FORMAT: Final = 1
GENESIS: Final = bytes(32)  # what the first receipt of a chain names as `previous`
NAME_MAX: Final = 256
DETAILS_MAX: Final = 256 * 1024

_OURS: Final = re.compile(r"req_[a-z2-7]{8}[1-9a-f][0-9a-f]{0,17}")
# Hexadecimal digits that base32 has no character for become letters that hexadecimal does not use.
_AS_BASE32: Final = bytes.maketrans(b"0189", b"wxyz")


class Charge(Struct, frozen=True):
    """What one attempt held of one budget in one window, and what it was charged there."""

    account: str  # whose budget it is: the caller's, or one above it
    unit: str
    window: str
    reserved: int
    charged: int


class AttemptLine(Struct, frozen=True):
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
    price: Rates | None = None  # what it was priced at


class Particulars(Struct, frozen=True):
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
    price_table: str | None = None  # version


class Sealed(Struct, frozen=True):
    """One receipt, and its link: the bytes of its signature, which the next one names as `previous`.

    A signature depends on every byte of what it signs, `previous` included, so it serves as the hash of the chain too.
    """

    id: str
    seq: int
    body: bytes
    link: bytes


class _Head(Struct, frozen=True):
    """The fields whose names come before `signature` in the canonical order."""

    account: str | None
    account_name: str | None
    attempts: tuple[AttemptLine, ...]
    cost_microdollars: int | None
    cost_picodollars: int | None
    cost_usd: str | None
    decision_id: str
    details: dict[str, Any]
    fallback_count: int
    first_chunk_ms: int | None
    id: str
    kid: str
    latency_ms: int
    model: str
    outcome: str
    previous: str
    price_table: str | None
    reason: str
    request_id: str
    route_final: str | None
    route_primary: str | None
    seq: int


class _Tail(Struct, frozen=True):
    """The fields whose names come after it."""

    status: int
    stream: bool
    surface: str
    ts: str
    usage: Usage
    v: int


assert max(_Head.__struct_fields__) < "signature" < min(_Tail.__struct_fields__)
# Twice as fast as building a dictionary for orjson; that both write the same bytes is a test.
_encode: Final = msgspec.json.Encoder(order="sorted").encode


def receipt_id(request_id: str) -> str:
    """`rcpt_` and 26 characters of base32, told from the request's id alone, so that a reply can name it beforehand.

    One to one for the ids this house makes; any other text is hashed.
    """
    if _OURS.fullmatch(request_id):
        count = request_id[12:].encode().rjust(18, b"0").translate(_AS_BASE32)
        return f"rcpt_{request_id[4:12]}{count.decode()}"
    digest = hashlib.blake2b(request_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return "rcpt_" + base64.b32encode(digest).decode().rstrip("=").lower()


class Signer:
    """HMAC-SHA256 under one key, which is taken in once: half the time of a call that begins with the key."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        if len(key) > 64:
            key = hashlib.sha256(key).digest()
        key = key.ljust(64, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in key))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in key))

    def sign(self, *parts: bytes) -> bytes:
        """The 32 bytes of the signature of all parts, one behind the other."""
        inner, outer = self._inner.copy(), self._outer.copy()
        for part in parts:
            inner.update(part)
        outer.update(inner.digest())
        return outer.digest()


class Sealer:
    """Signs one receipt after another. `seq` and `link` are those of the last one made, 0 and GENESIS when there is none.

    The same particulars in the same place give the same bytes, so a batch that could not be stored is made again by a
    sealer set back to the last stored receipt.
    """

    def __init__(self, key: bytes, kid: str, seq: int = 0, link: bytes = GENESIS) -> None:
        if seq < 0 or len(link) != 32 or (seq == 0) != (link == GENESIS):
            raise ReceiptError(f"a chain goes on from a number and the 32 bytes of its link, not from {seq}")
        self.seq = seq
        self.link = link
        self._second = -1
        self._date = ""
        self.use(key, kid)

    def use(self, key: bytes, kid: str) -> None:
        """Sign with another key from here on; the chain goes on."""
        self._signer = Signer(key)
        self.kid = kid

    def seal(self, told: Particulars) -> Sealed:
        """The next receipt. Details that have no canonical form are left out and named: the request has its receipt."""
        attempts = told.attempts
        primary = final = told.route_final
        fallbacks = 0
        outcome = "ok"
        if len(attempts) == 1:
            line = attempts[0]
            primary = line.entry
            usage, picodollars, microdollars = line.usage, line.picodollars, line.microdollars
        else:
            usage, picodollars, microdollars = _summed(attempts)
            if attempts:
                primary = attempts[0].entry
                fallbacks = sum(a.entry != b.entry for a, b in pairwise(attempts))
        if told.status >= 400:
            outcome = "failed"
        elif attempts and attempts[-1].outcome not in ("ok", "low_quality"):
            outcome = "partial"
        seq = self.seq + 1
        head = _encode(
            _Head(
                told.account,
                told.account_name,
                attempts,
                microdollars,
                picodollars,
                None if picodollars is None else usd_from_picodollars(picodollars),
                told.decision_id,
                _fit(told.details) if told.details else told.details,
                fallbacks,
                told.first_chunk_ms,
                name := receipt_id(told.request_id),
                self.kid,
                told.latency_ms,
                _shown(told.model if len(told.model) <= NAME_MAX else clip(told.model, NAME_MAX)),
                outcome,
                self.link.hex(),
                told.price_table,
                told.reason,
                told.request_id,
                final or None,
                primary or None,
                seq,
            )
        )[:-1]
        tail = _encode(_Tail(told.status, told.stream, told.surface, self._ts(told.started_ms), usage, FORMAT))[1:]
        link = self._signer.sign(head, b",", tail)
        body = head + b',"signature":"' + link.hex().encode() + b'",' + tail
        self.seq = seq
        self.link = link
        return Sealed(name, seq, body, link)

    def _ts(self, at_ms: int) -> str:
        second, ms = divmod(at_ms, 1000)
        if second != self._second:
            self._second = second
            self._date = iso(datetime.fromtimestamp(second, UTC))[:-4]
        return f"{self._date}{ms:03d}Z"


@lru_cache(maxsize=1024)
def _shown(name: str) -> str:
    """The name a caller sent, who may have pasted a key there."""
    return scrub_text(name)


def _summed(attempts: tuple[AttemptLine, ...]) -> tuple[Usage, int | None, int | None]:
    """A request costs what its attempts cost; one of an unknown price leaves the sum unknown."""
    picodollars: int | None = 0
    microdollars: int | None = 0
    counts = [0, 0, 0, 0, 0]
    for line in attempts:
        used = line.usage
        for place, count in enumerate((used.input, used.output, used.cache_read, used.cache_write, used.reasoning)):
            counts[place] += count
        picodollars = None if picodollars is None or line.picodollars is None else picodollars + line.picodollars
        microdollars = None if microdollars is None or line.microdollars is None else microdollars + line.microdollars
    return Usage(*counts), picodollars, microdollars


def _fit(details: dict[str, Any]) -> dict[str, Any]:
    try:
        length = len(canonical(details))
        if length > DETAILS_MAX:
            raise ReceiptError(f"details are at most {DETAILS_MAX} bytes, not {length}")
    except ReceiptError as error:
        return {"refused": str(error)}
    fit: dict[str, Any] = scrub(details)
    return fit
