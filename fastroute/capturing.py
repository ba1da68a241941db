"""Keeping what a policy wants kept: content is scrubbed and encrypted in a thread, and the bookkeeper gets bytes.

It happens after the answer, never delays one and never fails one: what cannot be kept is lost, counted and said in the log
without a word of it.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from fastroute.call import Call
from fastroute.capture import CaptureError, Vault, content_of
from fastroute.ledger.teller import BooksUnreachable, Declined, Teller
from fastroute.metrics import Metrics
from fastroute.receipts.seal import receipt_id
from fastroute.ruling import Ruling

# Captures on their way to the books; each holds a body and an answer, and the next one is lost.
UNDERWAY_MAX: Final = 32

log = logging.getLogger("fastroute.capture")


class Captures:
    """One worker's."""

    def __init__(self, teller: Teller, state_dir: Path, metrics: Metrics) -> None:
        self._teller = teller
        self._secrets = state_dir / "secrets"
        self._metrics = metrics
        self._vault: Vault | None = None
        self._thread = ThreadPoolExecutor(1, "fastroute-capture")
        self._underway: set[asyncio.Task[None]] = set()
        self._loud = True  # the first loss after something was kept is said, the next ones are counted only

    def take(self, call: Call, ruling: Ruling) -> None:
        """Keep the content of an answered request, soon."""
        if len(self._underway) >= UNDERWAY_MAX:
            self._lost("too many are on their way to the books")
            return
        task = call.loop.create_task(self._keep(call, ruling))
        self._underway.add(task)
        task.add_done_callback(self._underway.discard)

    async def settle(self, patience_s: float) -> None:
        """Wait for those under way, no longer than that; what is late is lost."""
        if self._underway:
            _, late = await asyncio.wait(tuple(self._underway), timeout=patience_s)
            for task in late:
                task.cancel()
            for _ in late:
                self._lost("this process ends")
        self._thread.shutdown(wait=False)

    async def _keep(self, call: Call, ruling: Ruling) -> None:
        name = receipt_id(call.id)
        try:
            body = await call.loop.run_in_executor(self._thread, self._closed, name, call, ruling)
            days = ruling.policy.capture.retention_days
            await self._teller.ask("contents.keep", account=call.account.id, receipt=name, body=body, days=days)
        except (CaptureError, BooksUnreachable, Declined) as error:
            self._lost(str(error))
            return
        self._loud = True
        self._metrics.captures("kept")

    def _closed(self, name: str, call: Call, ruling: Ruling) -> bytes:
        """In the thread: what is kept of it, encrypted."""
        if self._vault is None or not self._vault.is_of(self._secrets):
            self._vault = Vault.open(self._secrets, make=True)
        heard = ruling.heard() if ruling.policy.capture.answers else None
        content = content_of(
            call.surface.name,
            ruling.asked,
            stream=bool(call.stream),
            wants_json=bool(call.wants_json),
            answer=None if heard is None else heard.text,
            answer_cut=heard is not None and heard.cut,
            finish=None if heard is None else heard.finish,
            calls=0 if heard is None else heard.calls,
        )
        return self._vault.close(name, content.encode())

    def _lost(self, why: str) -> None:
        self._metrics.captures("lost")
        if self._loud:
            log.error("a prompt that its policy wants kept is lost, and more may be: %s", why)
        self._loud = False
