"""The face of the gateway's core: what every request asks of it."""

from fastroute._scan import RequestScanner, ScanError
from fastroute.call import Call, Failed
from fastroute.domain import Attempt, Entry
from fastroute.ids import Ids
from fastroute.logs import Logs
from fastroute.metrics import Metrics

class Core:
    """The usual way through a gateway; `caps` names the token caps of surfaces, `any_cap` those of all others."""

    log: Logs | None

    def __init__(
        self,
        scanner: RequestScanner,
        caps: dict[str, tuple[bytes, ...]],
        any_cap: tuple[bytes, ...],
        ids: Ids,
        metrics: Metrics,
        log: Logs | None,
    ) -> None: ...
    @property
    def ids(self) -> Ids: ...
    @property
    def metrics(self) -> Metrics: ...
    def read(self, call: Call, body: bytes) -> int:
        """Check the body as JSON and take out what is needed; `Failed` names what is wrong with it."""

    def plan(self, call: Call) -> int:
        """Who may answer, best first, and why; `Failed` when the name is unknown or nobody may."""

    def attempted(self, call: Call, attempt: Attempt) -> int:
        """Count one attempt that is settled."""

    def finished(self, call: Call) -> int:
        """Count what became of a request, once."""

    def unreadable(self, error: ScanError) -> Failed: ...
    def negative_cap(self) -> Failed: ...
    def bad_name(self) -> Failed: ...
    def place(self, call: Call) -> Entry | None: ...
    def check_allowed(self, call: Call, entry: Entry) -> None: ...
    def fell_back(self, call: Call, attempt: Attempt) -> None: ...
    def left(self, call: Call) -> None: ...
    def learn(self, call: Call, model: str, learned: set[str]) -> None: ...
    def ruled(self, call: Call) -> None: ...
    def discarded(self, call: Call, final: Attempt) -> None: ...
