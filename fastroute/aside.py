"""What goes on in one worker beside its requests once they are over: content that is kept, and shadows.

The gateway hands over every finished call that a policy ruled; nothing here delays one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fastroute.call import Call
from fastroute.capturing import Captures
from fastroute.gateway import Gateway
from fastroute.ledger.teller import Teller
from fastroute.metrics import Metrics
from fastroute.shadowing import Shadows

PATIENCE_S: Final = 2.0


class Asides:
    """One worker's, whatever gateway serves: a configuration that is read again changes nothing that is under way."""

    def __init__(self, teller: Teller, state_dir: Path, metrics: Metrics) -> None:
        self.captures = Captures(teller, state_dir, metrics)
        self.shadows = Shadows(teller)

    def take(self, gateway: Gateway, call: Call) -> None:
        """Do for a finished call what its policy says; it never waits and never fails the call."""
        ruling, final = call.rules, call.final
        answered = call.reason == "cache_hit" if final is None else final.outcome == "ok"
        if ruling is None or not answered or not call.account.booked:
            return
        if ruling.policy.capture.prompts:
            self.captures.take(call, ruling)
        if ruling.shadow is not None:
            self.shadows.take(gateway, call, ruling)

    def leave(self) -> None:
        """End the shadows: this process is about to stop."""
        self.shadows.leave()

    async def close(self) -> None:
        """End the shadows, and wait a moment for what is on its way to the books."""
        self.leave()
        await self.shadows.settle(PATIENCE_S)
        await self.captures.settle(PATIENCE_S)
