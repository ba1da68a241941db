"""The face of the door's compiled half."""

from fastroute.ledger.accounts import Account
from fastroute.ledger.teller import Teller
from fastroute.ledger.unlimited import Unlimited

class DoorCore:
    """Whoever shows a key that is known here; a subclass has `meet_otherwise` for everybody else."""

    _teller: Teller | None
    _plain: bool
    """Keys are the books' affair alone: there are books, and no key is configured."""
    guards: bool

    def meet(self, found: dict[bytes, bytes], query: bytes) -> Account | Unlimited | None:
        """The account of a caller that is known here; None when `find` has to ask. `Failed` 401 for one that is refused."""
