"""What an embedded router tells a panel of its calls, one event each: kept until taken, lost only when there are too many.

An event keeps its id however often it is sent, so a panel that took it and could not say so counts it once.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import deque
from contextlib import suppress
from typing import Any, Final

from fastroute.call import Call
from fastroute.embed.panel import Panel, PanelError
from fastroute.routing.names import family_of

KEPT_MAX: Final = 10_000
_AT_ONCE: Final = 10
_WORD_MAX: Final = 100

log = logging.getLogger("fastroute.embed")


class Events:
    """The events of one router, in the order they happened; `dropped` counts those there was no room for."""

    def __init__(self, panel: Panel, every_s: float) -> None:
        self._panel = panel
        self._every_s = every_s
        self._pending: deque[dict[str, Any]] = deque()
        self._enough = asyncio.Event()
        self._away = False  # the panel took nothing when it was last asked, and has its rest
        self._closed = False
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._pending)

    def note(self, call: Call) -> None:
        """A request that reached a provider is over."""
        final = call.final
        assert final is not None
        usage = final.settlement.usage
        event: dict[str, Any] = {
            "event_id": str(uuid.uuid4()),
            "timestamp_ms": time.time_ns() // 1_000_000,
            "event_type": "llm_request_completed" if final.outcome == "ok" else "llm_request_failed",
            "model": final.model[:_WORD_MAX] or "unknown",
            "provider": _maker(final.model),
        }
        if final.outcome == "ok":
            event |= {"input_tokens": usage.input_total, "output_tokens": usage.output}
        else:
            event |= {"error_code": final.outcome, "error_message": f"status {final.status or 'none'}"}
        if final.settlement.microdollars is not None:
            event["cost_micros"] = final.settlement.microdollars
        self.add(event)

    def add(self, event: dict[str, Any]) -> None:
        """Keep an event; the newest is dropped when there is no room."""
        if len(self._pending) >= KEPT_MAX:
            if not self.dropped:
                log.warning("the panel takes no events and %d wait; those that follow are dropped", KEPT_MAX)
            self.dropped += 1
            return
        self._pending.append(event)
        if len(self._pending) >= _AT_ONCE and not self._away:
            self._enough.set()

    async def run(self) -> None:
        """Send what there is every so often, and as soon as there is enough of it, until `close`."""
        while not self._closed:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._every_s):
                    await self._enough.wait()
            self._enough.clear()
            if not self._closed:
                self._away = not await self.sync()

    def close(self) -> None:
        """No more of `run` than what it is about."""
        self._closed = True
        self._enough.set()

    async def sync(self) -> bool:
        """Send all that wait, oldest first; False when the panel cannot take them now."""
        while self._pending:
            try:
                await self._panel.ask("/analytics/events", self._pending[0])
            except PanelError as error:
                if error.passing:
                    return False
                log.warning("an event is dropped: %s", error.message)
            self._pending.popleft()
        return True


def _maker(model: str) -> str:
    family = family_of(model.lower())
    return family.provider if family is not None and family.provider in ("openai", "anthropic") else "unknown"
