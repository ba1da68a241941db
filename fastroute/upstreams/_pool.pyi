"""The face of the pool's hot half."""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from fastroute.upstreams._wire import Connection, Exchange, Turn
from fastroute.upstreams.pool import Deadlines, Origin, Pool

class LaneCore:
    """The connections of one origin."""

    pool: Pool
    loop: asyncio.AbstractEventLoop
    idle: list[Connection]
    queue: OrderedDict[Turn, asyncio.Task[None] | None]

    def release(self, connection: Connection) -> None:
        """A connection is clean again: whoever waits first gets it, or it is kept."""

class PoolCore:
    """Every connection to every origin."""

    reused: int
    reaper: asyncio.TimerHandle | None
    _lanes: dict[Origin, Any]

    def begin(self, origin: Origin, head: bytes, body: bytes, deadlines: Deadlines) -> Exchange:
        """Send a request and return at once, so that somebody can stop it before its answer begins."""

class RemoteCore:
    """An upstream behind a base URL."""

    origin: Origin
    _pool: Pool
    _heads: dict[tuple[str, str, bool], bytes]

    def begin(
        self, operation: str, model: str, stream: bool, passed: Mapping[str, str], body: bytes, deadlines: Deadlines
    ) -> Exchange:
        """Send a request whose head is made once, or anew for a caller that sends its own pass-through headers."""
