"""Names for requests and decisions: random once per worker, counted from there, so that making one costs no entropy."""

from __future__ import annotations

import secrets

from fastroute.routing.record import ENTROPY_BYTES, decision_id

_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_PAIRS = tuple(first + second for first in _ALPHABET for second in _ALPHABET)
_COUNTED = 10  # characters, fifty bits, that count


class Ids:
    """Two workers never share a name: their first eighty bits were drawn apart."""

    def __init__(self, entropy: bytes | None = None) -> None:
        whole = decision_id(entropy or secrets.token_bytes(ENTROPY_BYTES))
        self._prefix = whole[:-_COUNTED]
        self._request_prefix = "req_" + whole[3:11]
        self._count = 0
        self._carry(0)

    def decision(self) -> str:
        """`rd_` and 26 characters of lower-case base32."""
        self._count = count = self._count + 1
        if count >> 10 != self._thousands:
            self._carry(count >> 10)
        return self._high + _PAIRS[count & 1023]

    def request(self) -> str:
        """`req_` and at least nine characters."""
        self._count += 1
        return f"{self._request_prefix}{self._count:x}"

    def _carry(self, thousands: int) -> None:
        """All characters but the last two stand for 1024 names, of which two go to each request."""
        self._thousands = thousands
        pairs = [_PAIRS[thousands >> shift & 1023] for shift in (30, 20, 10, 0)]
        self._high = "".join((self._prefix, *pairs))
