"""The table of one host's limits: what every limited identity used of late, in memory all workers share.

No more than a limit is ever admitted in any window on the host, whoever asks where; of the limit at most one sixtieth
is refused too early, as the tick in which the window began is counted in full. An admission counts at an instant
between the clock's reading that was handed in and the return of `take`. What is refused changes nothing.

An identity has a slot from its first call on. A slot unused for two windows, with no request in progress, is the next
newcomer's. Where a newcomer's 16 entries are all in use, it pushes out the one unused for longest, those with requests
in progress last: that identity begins anew, which is the one case in which more than its limit can pass.
"""

from collections.abc import Sequence
from mmap import mmap
from typing import Final, final

HEADER: Final[int]
"""Bytes before the first slot: the words magic, slots, milliseconds of a window, 0 and 0, then what `file` keeps."""

SLOT: Final[int]
"""Bytes of one slot."""

SLOTS_MIN: Final[int]
WORKERS_MAX: Final[int]
ACCOUNTS_MAX: Final[int]
LIMIT_MAX: Final[int]
TOKENS_MAX: Final[int]
KEY_MAX: Final[int]

@final
class Pass:
    """What one admitted request holds; one that is dropped leaves by itself, which is the net and not the plan."""

    tokens: Final[int]
    """Counted for this request: the reservation, then what it was corrected to."""

    @property
    def requests_left(self) -> tuple[int, int, int] | None:
        """(limit, remaining, ms until more is free) of the account with the least left; None without such a limit."""

    @property
    def tokens_left(self) -> tuple[int, int, int] | None: ...
    def leave(self) -> None:
        """Give the place among the concurrent requests back; a second call does nothing."""

    def correct(self, tokens: int) -> None:
        """Count so many tokens instead, where the reservation was counted; nothing once that has left the window."""

    def headers(self) -> list[tuple[bytes, bytes]]:
        """`X-RateLimit-Limit`, `-Remaining` and `-Reset` (seconds), and the same with `-Requests` and `-Tokens`."""

class Table:
    """The table as one worker sees it; a worker number belongs to one process at a time."""

    slots: Final[int]
    worker: Final[int]

    def __init__(self, memory: mmap | bytearray | memoryview, worker: int = 0) -> None:
        """The memory is `HEADER + slots * SLOT` bytes, zero but for the header; `slots` is a power of two."""

    @property
    def window_ms(self) -> int: ...
    @property
    def identities(self) -> int:
        """How many slots are taken."""

    @property
    def pushed_out(self) -> int:
        """How many identities had to make room before their time, since the table was made."""

    def take(
        self, accounts: Sequence[tuple[int, int | None, int | None, int | None]], tokens: int, now_ms: int
    ) -> Pass | tuple[int, str, int, int, int | None]:
        """Admit one request on all of the accounts, or on none.

        An account is (key, requests and tokens per window, requests at once); None is no limit, 0 is closed. A refusal
        is (place of the account, `rpm`, `tpm` or `concurrency`, limit, remaining, ms until this request would fit), the
        last None where time alone does not help. A number out of its range is a `ValueError` or an `OverflowError`.
        """

    def in_use(self, key: int) -> int:
        """Requests in progress of an identity with a concurrency limit, over all workers."""

    def clear_worker(self, worker: int) -> None:
        """A dead worker has no requests in progress; only who knows it dead may say so."""

    def clear_workers(self) -> None:
        """The same of all of them, in one pass."""

def headers(kind: str, limit: int, remaining: int, reset_ms: int | None) -> list[tuple[bytes, bytes]]:
    """What a refusal tells, named as in `Pass.headers`."""
