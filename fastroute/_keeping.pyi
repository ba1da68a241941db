"""What the books know of a request that is over, in the words of its receipt."""

from collections.abc import Callable, Sequence

from fastroute.ledger.balances import FinishedRequest
from fastroute.ledger.records import Finish, Send, Settle
from fastroute.ledger.store import AccountRow, ReceiptRow
from fastroute.receipts.told import Particulars, Sealed

class Told:
    """For one batch: accounts and windows are asked for once each.

    `window` tells whose a window is, its unit and its name; None of one that is long over.
    """

    def __init__(
        self,
        account: Callable[[int], AccountRow | None],
        window: Callable[[int], tuple[str, str, str] | None],
    ) -> None: ...
    def receipts(self, finished: Sequence[FinishedRequest], seal: Callable[[Particulars], Sealed]) -> list[ReceiptRow]:
        """The receipt of each, as it is stored."""

    def particulars(self, finish: Finish, attempts: tuple[tuple[Send, Settle], ...]) -> Particulars: ...
