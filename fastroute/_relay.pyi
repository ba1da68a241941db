"""The face of the relay's core: the attempt loop, and an attempt from its reservation to its settlement."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastroute._sweep import Sweep
from fastroute.call import Call, Poor
from fastroute.clock import Clock
from fastroute.domain import Attempt, Entry, Outcome, Reservation, Settlement, Usage
from fastroute.lanes import Health, Latency
from fastroute.ledger.accounts import Shortage
from fastroute.metrics import Metrics
from fastroute.outcomes import RetryBudget
from fastroute.pipes import Pipe
from fastroute.upstreams.faults import UpstreamFault
from fastroute.upstreams.pool import Deadlines
from fastroute.upstreams.upstream import Exchange, Upstream

class Core:
    """What every attempt of one worker stands on; `note` is told of each once it is settled."""

    kind: type[Try]
    """What every attempt is made as."""
    upstream_of: Callable[[Entry], Upstream]
    health: Health
    latency: Latency
    note: Callable[[Call, Attempt], object]
    metrics: Metrics
    clock: Clock
    retries: RetryBudget
    deadlines: Deadlines
    whole: Deadlines
    patient: Deadlines
    unwatched: Sweep[Call]
    leaving: Sweep[Exchange]
    """What said its last word, and may end its message; whatever else it says is nobody's."""
    max_attempts: int

    def cover(self, call: Call) -> None: ...
    async def fund(self, call: Call, entry: Entry, microdollars: int | None, tokens: int) -> Reservation | None: ...
    def answer(self, call: Call) -> Coroutine[Any, Any, bytes]:
        """A whole answer's bytes; `Failed` when no attempt gave one, `CallerGone` when nobody waits for it."""

    def stream(self, call: Call, writer: Any) -> Coroutine[Any, Any, None]:
        """A streamed answer, sent as it comes; `Failed` only while nothing of an answer has been sent."""

class Try:
    """One attempt: from its reservation to its settlement. The methods it lacks here are those of its kind."""

    reservation: Reservation
    exchange: Exchange | None
    settled: bool

    @property
    def relay(self) -> Core: ...
    @property
    def call(self) -> Call: ...
    @property
    def entry(self) -> Entry: ...
    @property
    def upstream(self) -> Upstream: ...
    @property
    def poor_matters(self) -> bool:
        """Whether an empty answer is a reason to ask the next candidate."""

    @property
    def started(self) -> float: ...
    async def heard(self, exchange: Exchange) -> bytes:
        """A whole answer's bytes, once its head is here."""

    def begin(self) -> Exchange:
        """Send the request; what cannot be sent settles the attempt and is `Poor`."""

    def named(self, exchange: Exchange) -> int:
        """Keep the id that the provider gave to this attempt."""

    def told(self, usage: Usage) -> Settlement | None:
        """The settlement of what the provider says it used; None when it cannot have."""

    def succeed(self, usage: Usage | None, content_bytes: int, outcome: Outcome = "ok") -> int:
        """Settle by the usage, or without one by what was seen."""

    def close(self, outcome: Outcome, status: int | None, settlement: Settlement) -> int:
        """Settle, once; tell health, latency and whoever keeps notes."""

    def stop(self) -> int: ...
    async def looked_into(self, body: bytes) -> bytes: ...
    async def streamed(self, exchange: Exchange, writer: Any) -> None:
        """A streamed answer whose head is here, sent as it comes; `Poor` while nothing of it has been."""

    async def ended(
        self, writer: Any, pipe: Pipe, fault: UpstreamFault | None, held: bytes, *, begun: bool
    ) -> None: ...
    def pipe(self, content_type: bytes) -> Pipe: ...
    async def not_a_stream(self, exchange: Exchange, content_type: bytes) -> Poor: ...
    async def answered_no(self, exchange: Exchange) -> Poor: ...
    def nonsense(self, what: str) -> Poor: ...
    def unwritten(self, shortage: Shortage) -> Poor: ...
    def faulted(self, fault: UpstreamFault, seen: Settlement | None = None) -> Poor: ...
