"""The control panel as an embedded router sees it: questions by POST, answers as JSON objects, and what can go wrong."""

from __future__ import annotations

from typing import Any, Final

from fastroute.errors import FastrouteError
from fastroute.upstreams.faults import UpstreamFault
from fastroute.upstreams.pool import Deadlines, Pool
from fastroute.upstreams.questions import Questions

_WORDS_MAX: Final = 200
_AGAIN: Final = frozenset({408, 425, 429})


class PanelError(FastrouteError):
    """The panel could not be asked, or would not; `status` is None where it said nothing that could be used."""

    def __init__(self, message: str, status: int | None = None, code: str = "") -> None:
        self.message = message
        self.status = status
        self.code = code
        super().__init__(message)

    @property
    def passing(self) -> bool:
        """Whether asking again, later, may help."""
        return self.status is None or self.status >= 500 or self.status in _AGAIN


class Panel:
    """One panel, asked with one agent's token."""

    def __init__(self, address: str, token: str, pool: Pool, patience_s: float) -> None:
        self.address = address
        self.token = token
        ms = int(patience_s * 1000)
        deadlines = Deadlines(connect_ms=ms, first_chunk_ms=ms, idle_ms=ms, total_ms=ms)
        self._questions = Questions(address, token, pool, deadlines)

    async def ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to a question; `PanelError` for a refusal and for everything else that is none."""
        try:
            status, told = await self._questions.ask(f"/api/v1{path}", body)
        except UpstreamFault as fault:
            raise PanelError(f"the panel at {self.address} cannot be asked: {fault.message}") from None
        if not 200 <= status < 300:
            raise self._refusal(status, told)
        if not isinstance(told, dict):
            raise PanelError(f"the panel at {self.address} answered {path} with something that is no JSON object")
        return told

    def _refusal(self, status: int, told: Any) -> PanelError:
        words = str(told.get("error", "")) if isinstance(told, dict) else ""
        code = str(told.get("code", "")) if isinstance(told, dict) else ""
        words = words.replace(self.token, "***")[:_WORDS_MAX] or "nothing more"
        return PanelError(f"the panel at {self.address} says {status}: {words}", status, code[:_WORDS_MAX])


def whole(told: dict[str, Any], field: str, least: int, most: int) -> int:
    """A whole number of an answer; `PanelError` for anything else, so that no nonsense becomes money."""
    value = told.get(field)
    if type(value) is not int or not least <= value <= most:
        raise PanelError(f"the panel's answer has no usable {field}: {value!r}"[:_WORDS_MAX])
    return value


def text(told: dict[str, Any], field: str, most: int = 4096) -> str:
    """A text of an answer that is not empty."""
    value = told.get(field)
    if not isinstance(value, str) or not 0 < len(value) <= most or not value.isprintable() or not value.isascii():
        raise PanelError(f"the panel's answer has no usable {field}")
    return value
