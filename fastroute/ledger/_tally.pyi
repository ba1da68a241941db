"""Records of a journal put upon the book, thousands at a time."""

from fastroute.ledger.balances import Holder
from fastroute.ledger.records import Finish, Record, Send, Settle
from fastroute.ledger.tally import Tally

class Underway:
    """A request under way; `kept` when the store has a row of it."""

    holder: int
    request: str
    sends: list[Send]
    settles: list[Settle | None]
    open: int  # attempts that are not closed
    finish: Finish | None
    kept: bool

    def __init__(self, holder: int, request: str) -> None: ...

class Batch:
    """What happens to one life at one instant; good until the book's changes are taken."""

    def __init__(self, tally: Tally, life: Holder, now_ms: int) -> None: ...
    def read(self, found: list[tuple[int, bytes]]) -> None:
        """Decode records of a journal and apply them. When one is refused, `progress` of the book tells how many were taken in.

        Raises `BrokenBooks` for one that contradicts what came before, `msgspec.DecodeError` or `KeyError` for none.
        """

    def apply(self, record: Record) -> None: ...
    def settle(self, record: Settle) -> None: ...
    def over(self, underway: Underway, finish: Finish) -> None: ...
