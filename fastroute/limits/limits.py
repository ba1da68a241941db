"""Whether a request may pass now: what a worker asks before it does anything that costs, and what a caller is told.

The table counts; here are its words. A refusal is a value.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple, cast

from msgspec import Struct

from fastroute.limits._table import Pass, headers
from fastroute.limits.file import SLOTS, WINDOW_S, Shared, in_memory, open_table

Kind = Literal["rpm", "tpm", "concurrency"]

_UNITS: Final[dict[Kind, str]] = {"rpm": "requests", "tpm": "tokens", "concurrency": "requests at once"}
_LEADS: Final[dict[Kind, str]] = {
    "rpm": "Rate limit exceeded",
    "tpm": "Token rate limit exceeded",
    "concurrency": "Concurrency limit exceeded",
}
# Nobody knows when a request in progress will end; a second is a wait worth trying.
_AT_ONCE_MS: Final = 1000


class Limits(NamedTuple):
    """What one account may use of each kind; None is no limit, 0 is closed. The key is an id below 2**61, or an address'."""

    key: int
    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None


class Exceeded(Struct, frozen=True):
    """Which limit had no room, and when it may have."""

    kind: Kind
    level: int  # the place of the account among those that were asked: 0 is the caller's own
    limit: int
    unit: str
    window_s: int
    remaining: int
    requested: int
    reset_ms: int | None  # until this request would fit; None when waiting does not help
    retry_after_s: int | None  # a little later than that, each time another little

    @property
    def message(self) -> str:
        lead = _LEADS[self.kind]
        if self.kind == "concurrency":
            if self.limit == 0:
                return f"{lead}: no requests are allowed"
            return f"{lead}: {self.limit} {self.unit} are allowed; try again when one of them has ended"
        allowed = f"{lead}: {self.limit} {self.unit} in {self.window_s} s are allowed"
        if self.reset_ms is None:
            if self.limit == 0:
                return f"{lead}: no {self.unit} are allowed"
            return f"{allowed}, and this request may need {self.requested}; make it smaller"
        if self.kind == "tpm":
            allowed += f", {self.remaining} are left, this request may need {self.requested}"
        return f"{allowed}; try again in {self.retry_after_s} s"

    def headers(self) -> list[tuple[bytes, bytes]]:
        """`Retry-After` where waiting helps, and `X-RateLimit-*` of the limit that had no room."""
        told = headers(self.kind, self.limit, self.remaining, self.reset_ms)
        if self.retry_after_s is not None:
            told.append((b"retry-after", b"%d" % self.retry_after_s))
        return told


class Limiter:
    """One worker's door: it admits a request on all of its accounts or on none."""

    def __init__(self, shared: Shared, *, jitter: Callable[[], float] = random.random) -> None:
        self._shared = shared
        self._jitter = jitter
        self.table = shared.table
        self.window_s = shared.table.window_ms // 1000

    @classmethod
    def open(cls, path: Path, worker: int, *, slots: int = SLOTS, window_s: int = WINDOW_S) -> Limiter:
        """The host's limits, kept at this path for all workers; raises `LimitsError`."""
        return cls(open_table(path, worker, slots=slots, window_s=window_s))

    @classmethod
    def visit(cls, path: Path, worker: int, *, window_s: int = WINDOW_S) -> Limiter:
        """The same for a command beside a server, whose table and window it takes as they are."""
        return cls(open_table(path, worker, window_s=window_s, guest=True))

    @classmethod
    def in_memory(cls, *, window_s: int = WINDOW_S) -> Limiter:
        """The limits of a process that is alone."""
        return cls(in_memory(window_s=window_s))

    @property
    def secret(self) -> bytes:
        """What the addresses of anonymous callers are hashed with: the same in every worker of the host."""
        return self._shared.secret

    def admit(
        self, limits: Sequence[tuple[int, int | None, int | None, int | None]], tokens: int, now_ms: int
    ) -> Pass | Exceeded:
        """One request that may need so many tokens, of up to four accounts, the caller's own first.

        `now_ms` is monotonic. Who has a `Pass` leaves it when the request is over, however it ended.
        """
        taken = self.table.take(limits, tokens, now_ms)
        if isinstance(taken, Pass):
            return taken
        level, name, limit, remaining, reset_ms = taken
        kind = cast("Kind", name)
        if kind == "concurrency" and limit:
            reset_ms = _AT_ONCE_MS
        return Exceeded(
            kind=kind,
            level=level,
            limit=limit,
            unit=_UNITS[kind],
            window_s=self.window_s,
            remaining=remaining,
            requested=tokens if kind == "tpm" else 1,
            reset_ms=reset_ms,
            retry_after_s=None if reset_ms is None else self._retry_after(reset_ms),
        )

    def clear_worker(self, worker: int) -> None:
        """A worker is known to be dead: nothing of it is in progress."""
        self.table.clear_worker(worker)

    def close(self) -> None:
        self._shared.close()

    def _retry_after(self, reset_ms: int) -> int:
        # Up to a tenth later, so that those who were refused together do not come back together.
        return max(1, math.ceil(reset_ms * (1 + self._jitter() / 10) / 1000))
