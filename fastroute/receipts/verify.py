"""Whether one receipt is what was signed.

Reading is separate from believing: a receipt that does not verify is still told by its id and number, as it claims them.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from msgspec import Struct

from fastroute.money import usd_from_picodollars
from fastroute.receipts.canonical import ReceiptError, parse, written
from fastroute.receipts.seal import Signer, receipt_id

_T = TypeVar("_T")
ProofState = Literal["ok", "bad_signature", "unknown_key", "unreadable"]


class Proof(Struct, frozen=True):
    """What became of checking one receipt; id, number and key are what it claims, believed only when `ok`."""

    state: ProofState
    id: str | None = None
    seq: int | None = None
    kid: str | None = None
    detail: str = ""
    contradictions: tuple[str, ...] = ()  # what in it does not fit together; of one that does not verify

    @property
    def ok(self) -> bool:
        return self.state == "ok"

    def __str__(self) -> str:
        who = self.id or "this receipt"
        if self.ok:
            return f"{who} verifies: key {self.kid}, number {self.seq} of its chain"
        loud = {"bad_signature": "BAD SIGNATURE", "unknown_key": "UNKNOWN KEY", "unreadable": "UNREADABLE"}[self.state]
        return f"{loud}: {'; '.join((f'{who}: {self.detail}', *self.contradictions))}"


def verify(body: bytes, keys: Mapping[str, bytes]) -> Proof:
    """Whether these bytes, in whatever order of keys and with whatever spacing, say what was signed."""
    try:
        return prove(parse(body), keys)
    except ReceiptError as error:
        return Proof("unreadable", detail=str(error))


def prove(fields: Mapping[str, Any], keys: Mapping[str, bytes]) -> Proof:
    """The same for a receipt that was parsed."""
    name, seq, kid = (_typed(fields.get("id"), str), _typed(fields.get("seq"), int), _typed(fields.get("kid"), str))
    signature = fields.get("signature")
    key = None if kid is None else keys.get(kid)
    if kid is None or not isinstance(signature, str):
        missing = "it names no key" if kid is None else "it carries no signature"
        return Proof("bad_signature", name, seq, kid, missing, _contradictions(fields))
    if key is None:
        return Proof("unknown_key", name, seq, kid, f"key {kid!r} is not here, so nothing can be said of it")
    expected = Signer(key).sign(written({field: value for field, value in fields.items() if field != "signature"}))
    if hmac.compare_digest(expected.hex().encode(), signature.encode()):
        return Proof("ok", name, seq, kid)
    return Proof("bad_signature", name, seq, kid, f"it is not what key {kid!r} signed", _contradictions(fields))


def _typed(value: Any, kind: type[_T]) -> _T | None:
    return value if type(value) is kind else None


def _contradictions(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """What a change that was made by hand gives away: figures that are told twice and now differ."""
    found = []
    request, picodollars = fields.get("request_id"), fields.get("cost_picodollars")
    if isinstance(request, str) and fields.get("id") != receipt_id(request):
        found.append("id is not that of request_id")
    for whole, part in (("cost_picodollars", "picodollars"), ("cost_microdollars", "microdollars")):
        parts: list[Any] = [line.get(part) for line in _lines(fields)]
        if all(type(one) is int for one in parts) and sum(parts) != fields.get(whole):
            found.append(f"{whole} is not what the attempts add up to")
    if type(picodollars) is int and picodollars >= 0 and fields.get("cost_usd") != usd_from_picodollars(picodollars):
        found.append("cost_usd is not cost_picodollars")
    entries = [line.get("entry") for line in _lines(fields)]
    if entries and fields.get("route_primary") != entries[0]:
        found.append("route_primary is not the entry of the first attempt")
    if entries and fields.get("route_final") not in (None, *entries):
        found.append("route_final is the entry of no attempt")
    return tuple(found)


def _lines(fields: Mapping[str, Any]) -> list[dict[str, Any]]:
    lines = fields.get("attempts")
    return [line for line in lines if isinstance(line, dict)] if isinstance(lines, list) else []
