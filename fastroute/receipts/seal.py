"""Receipts are made here: what is known of a request that is over becomes signed bytes, each chained to the one before.

Pure but for the place in the chain, which the sealer keeps; the bookkeeper, who calls it, makes that durable.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from msgspec import Struct

from fastroute.clock import iso
from fastroute.receipts._paper import receipt_id as receipt_id
from fastroute.receipts._paper import written
from fastroute.receipts.canonical import ReceiptError, canonical
from fastroute.receipts.told import Particulars
from fastroute.redaction import clip, scrub, scrub_text

FORMAT: Final = 1
GENESIS: Final = bytes(32)  # what the first receipt of a chain names as `previous`
NAME_MAX: Final = 256
DETAILS_MAX: Final = 256 * 1024


class Sealed(Struct, frozen=True, gc=False):
    """One receipt, and its link: the bytes of its signature, which the next one names as `previous`.

    A signature depends on every byte of what it signs, `previous` included, so it serves as the hash of the chain too.
    """

    id: str
    seq: int
    body: bytes
    link: bytes


class Signer:
    """HMAC-SHA256 under one key, which is taken in once: half the time of a call that begins with the key."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        if len(key) > 64:
            key = hashlib.sha256(key).digest()
        key = key.ljust(64, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in key))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in key))

    def sign(self, message: bytes) -> bytes:
        """The 32 bytes of its signature."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(message)
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
        self._sign = Signer(key).sign
        self.kid = kid

    def seal(self, told: Particulars) -> Sealed:
        """The next receipt. Details that have no canonical form are left out and named: the request has its receipt."""
        seq = self.seq + 1
        name = receipt_id(told.request_id)
        model = told.model
        body, link = written(
            told,
            name,
            self.kid,
            _shown(model if len(model) <= NAME_MAX else clip(model, NAME_MAX)),
            _fit(told.details) if told.details else told.details,
            self.link,
            seq,
            self._ts(told.started_ms),
            FORMAT,
            self._sign,
        )
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


def _fit(details: dict[str, Any]) -> dict[str, Any]:
    try:
        length = len(canonical(details))
        if length > DETAILS_MAX:
            raise ReceiptError(f"details are at most {DETAILS_MAX} bytes, not {length}")
    except ReceiptError as error:
        return {"refused": str(error)}
    fit: dict[str, Any] = scrub(details)
    return fit
