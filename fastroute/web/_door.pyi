"""The face of the door's compiled half."""

from collections.abc import Mapping
from typing import Any

from fastroute.call import Call
from fastroute.ledger.accounts import Account
from fastroute.ledger.teller import Teller
from fastroute.ledger.unlimited import Unlimited
from fastroute.limits import Limiter

class DoorCore:
    """Whoever shows a key that is known here; a subclass has `meet_otherwise` and `ration` for everybody else."""

    _teller: Teller | None
    _limiter: Limiter | None
    _anonymous: int | None
    """Requests that an address without a key may send in a window."""
    _plain: bool
    """Keys are the books' affair alone: there are books, and no key is configured."""
    guards: bool

    def meet(self, found: dict[bytes, bytes], query: bytes) -> Account | Unlimited | None:
        """The account of a caller that is known here; None when `find` has to ask. `Failed` 401 for one that is refused."""

    def admit(self, call: Call, scope: Mapping[str, Any]) -> None:
        """Let a request in if its limits have room, and note its place in them; `Failed` 429 says which has none."""
