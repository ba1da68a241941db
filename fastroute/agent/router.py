"""The router as its agent sees it: where it announces itself and says that it lives, and how that can go wrong."""

from __future__ import annotations

from typing import Any, Final

from fastroute.errors import FastrouteError
from fastroute.upstreams.faults import UpstreamFault
from fastroute.upstreams.pool import Deadlines, Pool
from fastroute.upstreams.questions import Questions

_WORDS_MAX: Final = 400
_PATIENCE_MS: Final = 5000
_DEADLINES: Final = Deadlines(
    connect_ms=2000, first_chunk_ms=_PATIENCE_MS, idle_ms=_PATIENCE_MS, total_ms=2 * _PATIENCE_MS
)
_AGAIN: Final = frozenset({408, 425, 429})


class RouterAway(FastrouteError):
    """The router cannot be reached, or not well; later it may be."""


class RouterRefuses(FastrouteError):
    """The router says no, and would say it again."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class Router:
    """One router at one address, without `/v1`, spoken to with one token."""

    def __init__(self, address: str, token: str | None, pool: Pool) -> None:
        self.address = address
        self._token = token
        self._questions = Questions(address, token, pool, _DEADLINES)

    async def register(self, name: str, endpoint: str, models: tuple[str, ...], *, key: bool) -> str | None:
        """The key that the router will show, where one is asked for."""
        said: dict[str, Any] = {"name": name, "endpoint": endpoint, "models": list(models)}
        told = await self._ask("/register", {**said, "key": True} if key else said)
        given = told.get("key")
        if key and not (isinstance(given, str) and given.isascii() and given.isprintable() and len(given) >= 16):
            raise RouterRefuses(0, f"the router {self.address} gives no key to know it by, and anybody could ask here")
        return given if key else None

    async def beat(self, name: str, queue_length: int, *, draining: bool = False) -> None:
        said: dict[str, Any] = {"name": name, "queue_length": queue_length}
        await self._ask("/heartbeat", {**said, "draining": True} if draining else said)

    async def _ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            status, told = await self._questions.ask(path, body)
        except UpstreamFault as fault:
            raise RouterAway(f"the router {self.address} cannot be asked: {fault.message}") from None
        if 200 <= status < 300 and isinstance(told, dict):
            return told
        message = f"the router {self.address} answers {path} with {status}: {self._words(told)}"
        if 400 <= status < 500 and status not in _AGAIN:
            raise RouterRefuses(status, message)
        raise RouterAway(message)

    def _words(self, told: Any) -> str:
        said = told.get("error", told.get("detail")) if isinstance(told, dict) else None
        words = str(said.get("message") if isinstance(said, dict) else said or "nothing more")
        words = words if self._token is None else words.replace(self._token, "***")
        return "".join(letter for letter in words if letter.isprintable())[:_WORDS_MAX]
