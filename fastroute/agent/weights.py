"""The backend that is no server of somebody else's: weights of this machine, run in a process that the agent starts."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path

from fastroute.agent.backend import BackendAway, BackendError
from fastroute.config import Weights
from fastroute.upstreams.hosted import Hosted
from fastroute.upstreams.pool import Pool
from fastroute.upstreams.upstream import Upstream
from fastroute.weights import Keeper, Source, Unloadable, spec_of


class WeightsBackend:
    """One model: a GGUF file, a directory or a repository, run as the settings of `weights` say. Its process is its own."""

    def __init__(self, source: Source, said: Weights, pool: Pool, say: Callable[[str], None]) -> None:
        self.words = source.name
        self._directory = tempfile.TemporaryDirectory(prefix="fastroute-agent-")
        spec = spec_of(source, said, linger_s=0.0)
        token = said.hub_token.reveal() if said.hub_token is not None else None
        self._source = source
        self._keeper = Keeper(Path(self._directory.name), spec, token)
        self._upstream = Hosted("weights", source.name, self._keeper, pool, say)

    async def open(self) -> tuple[str, ...]:
        refusal = self._source.refusal()
        if refusal is not None:
            raise BackendError(refusal)
        try:
            address = await self._keeper.arrive()
        except Unloadable as error:
            raise BackendAway(f"{error} ({self._keeper.log})") from None
        return (address.model,)

    def upstream(self) -> Upstream:
        return self._upstream

    async def close(self) -> None:
        await asyncio.to_thread(self._keeper.end)
        self._directory.cleanup()
