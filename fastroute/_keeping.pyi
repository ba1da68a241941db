"""What the books know of a request that is over, in the words of its receipt."""

from collections.abc import Callable

from fastroute.ledger.records import Finish, Send, Settle
from fastroute.ledger.store import AccountRow
from fastroute.receipts.told import Particulars

class Told:
    """For one batch: accounts and windows are asked for once each.

    `window` tells whose a window is, its unit and its name; None of one that is long over.
    """

    def __init__(
        self,
        account: Callable[[int], AccountRow | None],
        window: Callable[[int], tuple[str, str, str] | None],
    ) -> None: ...
    def particulars(self, finish: Finish, attempts: tuple[tuple[Send, Settle], ...]) -> Particulars: ...
