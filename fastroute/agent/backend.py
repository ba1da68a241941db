"""What answers an agent's requests: one protocol, and the kind that is a server of its own (vLLM, llama.cpp, Ollama ...)."""

from __future__ import annotations

from typing import Final, Protocol
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from fastroute.errors import FastrouteError
from fastroute.upstreams.faults import UpstreamFault
from fastroute.upstreams.openai import OpenAI
from fastroute.upstreams.pool import Deadlines, Origin, Pool, request_head
from fastroute.upstreams.upstream import Remote, Upstream

_LIST_MAX: Final = 4 << 20
_LIST_DEADLINES: Final = Deadlines(connect_ms=2000, first_chunk_ms=10_000, idle_ms=10_000, total_ms=20_000)


class BackendAway(FastrouteError):
    """Nobody answers there yet, or not well; a server that still loads its weights is like that for a while."""


class BackendError(FastrouteError):
    """A backend answers, and cannot be used as it is."""


class Backend(Protocol):
    """Where an agent's answers come from."""

    words: str
    """What it is called on the terminal."""

    async def open(self) -> tuple[str, ...]:
        """The names of its models, once it is ready to answer; none when it does not tell.

        `BackendAway` when it may be later, and this is asked again; `BackendError` when it never will.
        """

    def upstream(self) -> Upstream:
        """What the agent's requests are sent on."""

    async def close(self) -> None:
        """Every request is over."""


class OpenAIBackend:
    """A server that speaks OpenAI's words; `address` has no `/v1`."""

    def __init__(self, address: str, key: str | None, pool: Pool) -> None:
        self.words = address
        self._pool = pool
        self._key = key
        self._upstream = Remote("backend", "Backend", OpenAI(), address, key, pool)

    async def open(self) -> tuple[str, ...]:
        parts = urlsplit(self.words)
        origin = Origin.of(self.words)
        headers = [(name.decode(), value.decode()) for name, value in OpenAI().headers(self._key, {})]
        head = request_head("GET", f"{parts.path.rstrip('/')}/v1/models", parts.netloc, headers)
        try:
            exchange = await self._pool.exchange(origin, head, b"", _LIST_DEADLINES)
            body = await exchange.read(_LIST_MAX)
        except UpstreamFault as fault:
            raise BackendAway(f"the backend {self.words} does not answer: {fault.message}") from None
        if exchange.status in (401, 403):
            raise BackendError(
                f"the backend {self.words} wants another key ({exchange.status}); give it with --backend-key or "
                "AGENT_BACKEND_KEY"
            )
        if exchange.status >= 500 or exchange.status == 429:
            raise BackendAway(f"the backend {self.words} is not ready: it answers {exchange.status}")
        if exchange.status != 200:
            return ()
        try:
            return tuple(dict.fromkeys(each.id for each in msgspec.json.decode(body, type=_List).data))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return ()

    def upstream(self) -> Upstream:
        return self._upstream

    async def close(self) -> None:
        """Its connections are the pool's."""


class _Listed(Struct):
    id: str


class _List(Struct):
    data: list[_Listed]
