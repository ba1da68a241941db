"""Looking on while a provider streams its own Responses events to a caller who speaks them."""

from __future__ import annotations

from typing import Final

from fastroute.domain import Usage
from fastroute.upstreams.dialect import ProviderError, error_from, parse
from fastroute.upstreams.openai import usage_of

_CONTENT: Final = ("response.output_text.delta", "response.function_call_arguments.delta", "response.refusal.delta")
_ENDS: Final = ("response.completed", "response.incomplete")


class ResponsesStream:
    """Fed with split events; it says what was seen and writes nothing."""

    def __init__(self) -> None:
        self.content_seen = False
        self.content_bytes = 0
        self.usage: Usage | None = None
        self.error: ProviderError | None = None
        self.done = False

    @property
    def ended(self) -> bool:
        return self.done

    def feed(self, event: str, data: bytes) -> list[bytes]:
        if event in _CONTENT or event.startswith(("response.reasoning", "response.output_item.added")):
            self.content_bytes += len(data)
            # An item that opens is not yet an answer, but the events before it are promises only.
            self.content_seen = self.content_seen or event in _CONTENT or b'"function_call"' in data
        elif event in _ENDS or event in ("response.failed", "error"):
            body = parse(data)
            told = body.get("response") if isinstance(body, dict) else None
            if event in _ENDS:
                self.done = True
                self.usage = usage_of(told.get("usage")) if isinstance(told, dict) else None
            else:
                self.error = error_from(200, told if isinstance(told, dict) else body)
        return []
