"""Names for requests and decisions: random once per worker, counted from there, so that making one costs no entropy."""

from __future__ import annotations

import secrets

from fastroute._ids import Counted
from fastroute.routing.record import ENTROPY_BYTES, decision_id

_COUNTED = 10  # characters, fifty bits, that count


class Ids(Counted):
    """Two workers never share a name: their first eighty bits were drawn apart."""

    def __init__(self, entropy: bytes | None = None) -> None:
        whole = decision_id(entropy or secrets.token_bytes(ENTROPY_BYTES))
        super().__init__(whole[:-_COUNTED], "req_" + whole[3:11])
