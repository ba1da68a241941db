"""Questions over the gateway's own connections: JSON by POST, with a token or none, and JSON in answer.

An agent asks its router so, and an embedded router its panel; what an answer means is theirs to say.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from fastroute.upstreams.pool import Deadlines, Origin, Pool, request_head

_ANSWER_MAX: Final = 1 << 20


class Questions:
    """What is asked at one address, below its path, with one token or none."""

    def __init__(self, address: str, token: str | None, pool: Pool, deadlines: Deadlines) -> None:
        self._origin = Origin.of(address)
        self._prefix = urlsplit(address).path.rstrip("/")
        self._headers = [("content-type", "application/json")]
        if token is not None:
            self._headers.append(("authorization", f"Bearer {token}"))
        self._pool = pool
        self._deadlines = deadlines

    async def ask(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """An answer's status and its JSON, None where it is none; `UpstreamFault` when none comes whole."""
        head = request_head("POST", f"{self._prefix}{path}", self._origin.authority, self._headers)
        exchange = await self._pool.exchange(self._origin, head, msgspec.json.encode(body), self._deadlines)
        try:
            said = await exchange.read(_ANSWER_MAX)
        except BaseException:
            exchange.stop()
            raise
        try:
            return exchange.status, msgspec.json.decode(said)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return exchange.status, None
