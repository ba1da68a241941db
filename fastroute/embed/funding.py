"""Where an embedded router's money and key come from: one task that asks the panel, in the order the books want.

Reports of what was spent go out before a lease is replaced or returned, so that the panel never frees what is spent. A
panel that cannot be reached is asked again and again; what is leased is spent meanwhile, and what is not is not.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

from msgspec import Struct

from fastroute.call import Failed
from fastroute.config import Secret
from fastroute.domain import MICRODOLLARS_MAX
from fastroute.embed.panel import Panel, PanelError, text, whole
from fastroute.embed.proxy import Target
from fastroute.embed.purse import Purse, Spent

TRANCHE: Final = 10_000_000
REFRESH_MAX: Final = 1_000_000_000
LOW_WATER: Final = 1_000_000
REPORTS_MAX: Final = 10_000
_GONE: Final = ("expired", "revoked", "not active", "not found")

log = logging.getLogger("fastroute.embed")


class Pace(Struct, frozen=True):
    """How patient a router is with its panel, in seconds."""

    ask_s: float = 5.0  # one question
    retries_s: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 5.0, 15.0)  # after so many failures in a row; then the last
    dry_s: float = 30.0  # before a panel that had nothing more is asked once more
    before_expiry_s: float = 60.0
    sync_s: float = 30.0
    stop_s: float = 5.0  # for the last reports, the return and the last events together
    drain_s: float = 60.0


class Lease(Struct):
    """Money from the panel: `base` is what had been spent and told before it."""

    id: str
    granted: int
    base: int
    refresh_at: float | None
    ends_at: float | None


class Funding:
    """The money and the key of one router, from its panel."""

    def __init__(
        self,
        panel: Panel,
        purse: Purse,
        use: Callable[[Target], None],
        pace: Pace,
        ttl_s: float,
        target: Target | None,
        *,
        leases: bool,
    ) -> None:
        self.panel = panel
        self.cause: PanelError | None = PanelError("the panel was not asked yet")
        self.lease: Lease | None = None
        self.dropped = 0
        self._purse = purse
        self._use = use
        self._pace = pace
        self._ttl_s = ttl_s
        self._own_key = target is not None
        self._target = target
        self._key_until = 0.0
        self._leases = leases
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._reports: deque[Spent] = deque()
        self._lost_microdollars = 0  # of reports there was no room for
        self._failures = 0
        self._trouble: PanelError | None = None  # what failed last
        self._had: set[str] = set()  # every lease there was
        self._dry_until = 0.0
        self._needed = 0  # by calls that wait for the next step
        self._wanted = 0  # by those that wait for the one under way
        self._asked: asyncio.Future[bool] | None = None
        if leases:
            purse.lease(0)
            purse.on_spent = self._note
            purse.more = self._more

    def obstacle(self) -> Failed | None:
        """Why no call can be made now; None when one can."""
        cause = self.cause
        if cause is None:
            return None
        if cause.status == 403 and "budget" in cause.message.lower():
            message = f"Iron Cage budget limit exceeded. {cause.message}"
            return Failed(402, "iron_cage_budget_exceeded", "budget_exceeded", message)
        return Failed(503, "server_error", "budget_unavailable", f"no budget: {cause.message}", retry_after_s=1)

    # --- the task ---------------------------------------------------------------------------------------------------

    async def run_once(self) -> None:
        """Wait until there is something to ask, and ask it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._pause()):
                await self._wake.wait()
        self._wake.clear()
        await self.step()

    def wake(self) -> None:
        """Do not wait any longer."""
        self._wake.set()

    async def step(self) -> None:
        """Do what is due, in order; what fails is due again a little later."""
        # Who asks from now on is meant by the next step.
        asked, self._asked = self._asked, None
        self._wanted, self._needed = self._needed, 0
        try:
            if not self._own_key and (self._target is None or self._loop.time() >= self._key_until):
                await self._fetch_key()
            if self._leases:
                await self._keep_leased()
            self._failures = 0
            self.cause = None
        except PanelError as error:
            self._failures += 1
            self._trouble = error
            if self._target is None or (self._leases and self.lease is None):
                if self.cause is None or self.cause.message != error.message:
                    log.warning("this router cannot serve: %s", error.message)
                self.cause = error
            else:
                log.info("the panel is asked again later: %s", error.message)
        finally:
            if asked is not None and not asked.done():
                asked.set_result(not self._failures)

    async def close(self) -> None:
        """Report what is not reported yet and return the rest of the lease; the panel gets a few tries."""
        if self.lease is None:
            return
        for attempt in range(len(self._pace.retries_s) + 1):
            try:
                await self._report_all()
                if self.lease is not None:
                    await self._return(self.lease)
                return
            except PanelError as error:
                if not error.passing:
                    log.warning("the lease was not taken back: %s", error.message)
                    return
                if attempt < len(self._pace.retries_s):
                    await asyncio.sleep(self._pace.retries_s[attempt])

    def _pause(self) -> float | None:
        if self._failures:
            return self._pace.retries_s[min(self._failures, len(self._pace.retries_s)) - 1]
        instants = []
        if not self._own_key:
            instants.append(self._key_until)
        lease = self.lease
        if lease is not None and lease.refresh_at is not None and lease.ends_at is not None:
            instants += (max(lease.refresh_at, self._dry_until), lease.ends_at)
        if self._low():
            instants.append(self._dry_until)
        return max(min(instants) - self._loop.time(), 0.01) if instants else None

    # --- the key ----------------------------------------------------------------------------------------------------

    async def _fetch_key(self) -> None:
        try:
            told = await self.panel.ask("/agents/provider-key", {"ic_token": self.panel.token})
            provider = text(told, "provider")
            if provider not in ("openai", "anthropic"):
                raise PanelError(f"the panel assigns the provider {provider!r}, whom this router cannot ask", 404)
            base_url = None if told.get("base_url") is None else text(told, "base_url").rstrip("/").removesuffix("/v1")
            target = Target(provider, Secret(text(told, "provider_key")), base_url)
        except PanelError as error:
            if not error.passing:
                self._target = None  # it was taken away, and is not used on
            raise
        self._key_until = self._loop.time() + self._ttl_s
        if target != self._target:
            self._target = target
            self._use(target)

    # --- the money --------------------------------------------------------------------------------------------------

    async def _keep_leased(self) -> None:
        lease = self.lease
        if lease is not None and lease.ends_at is not None and self._loop.time() >= lease.ends_at:
            self._lose("its lease is over")
        await self._report_all()
        lease = self.lease
        if lease is not None and self._due(lease):
            if self._lost_microdollars:
                # What could not be reported call by call is told as a sum, which only a return can do.
                await self._return(lease)
            else:
                await self._refresh(lease)
        lease = self.lease
        if lease is None:
            await self._handshake()

    async def _handshake(self) -> None:
        assert self._target is not None
        asked = {"ic_token": self.panel.token, "provider": self._target.provider}
        told = await self.panel.ask("/budget/handshake", asked)
        self._adopt(told)

    async def _refresh(self, lease: Lease) -> None:
        wanted = min(max(TRANCHE, self._wanted + self._purse.held), REFRESH_MAX)
        told = await self.panel.ask(
            "/budget/refresh",
            {"ic_token": self.panel.token, "current_lease_id": lease.id, "requested_budget": wanted},
        )
        if told.get("status") == "approved":
            self._adopt(told)
            if told.get("budget_remaining") != 0:
                return
        elif any(word in str(told.get("reason", "")).lower() for word in _GONE):
            self._lose(f"its lease was ended: {told.get('reason')}")
        # There is no more where this came from; it is not asked for at every call.
        self._dry_until = self._loop.time() + self._pace.dry_s

    async def _return(self, lease: Lease) -> None:
        spent = self._purse.spent - lease.base
        await self.panel.ask("/budget/return", {"lease_id": lease.id, "spent_microdollars": spent})
        self.lease = None
        self._lost_microdollars = 0
        self._purse.lease(0)

    def _adopt(self, told: dict[str, Any]) -> None:
        granted = whole(told, "budget_granted", 1, MICRODOLLARS_MAX)
        lease_id = text(told, "lease_id", 100)
        if lease_id in self._had:
            # Its money is counted, or given back: told twice, by whatever stands between, it would be spent twice.
            raise PanelError(f"the panel at {self.panel.address} gave lease {lease_id!r} a second time")
        self._had.add(lease_id)
        base = self._purse.spent - sum(spent.microdollars for spent in self._reports) - self._lost_microdollars
        left_s = _left_s(told.get("expires_at"))
        now = self._loop.time()
        refresh_at = None if left_s is None else now + max(left_s - self._pace.before_expiry_s, left_s / 2)
        self.lease = Lease(lease_id, granted, base, refresh_at, None if left_s is None else now + left_s)
        self._dry_until = 0.0
        self._purse.lease(base + granted)

    def _lose(self, why: str) -> None:
        log.warning("this router leases anew: %s", why)
        self.lease = None
        self.cause = PanelError(why)
        self._purse.lease(0)

    def _due(self, lease: Lease) -> bool:
        now = self._loop.time()
        if now < self._dry_until:
            return False
        return (lease.refresh_at is not None and now >= lease.refresh_at) or self._wanted > 0 or self._low()

    def _low(self) -> bool:
        if self.lease is None:
            return False
        left = self.lease.base + self.lease.granted - self._purse.spent
        return left < min(LOW_WATER, self.lease.granted // 10)

    async def _more(self, needed: int) -> None:
        """A call needs more than is left: wait for what the panel says; `Failed` when it cannot be asked."""
        if self.lease is None or self._loop.time() < self._dry_until:
            return
        if self._purse.capped(needed):
            return
        self._needed = max(self._needed, needed)
        self._asked = asked = self._asked or self._loop.create_future()
        self._wake.set()
        await asyncio.wait({asked}, timeout=2 * self._pace.ask_s)
        if not asked.done() or not asked.result():
            cause = self.cause or self._trouble or PanelError(f"the panel at {self.panel.address} did not say in time")
            raise Failed(503, "server_error", "budget_unavailable", f"no budget: {cause.message}", retry_after_s=1)

    # --- reports ----------------------------------------------------------------------------------------------------

    def _note(self, spent: Spent) -> None:
        if len(self._reports) >= REPORTS_MAX:
            if not self.dropped:
                log.warning("the panel takes no reports and %d wait; what follows is told as a sum", REPORTS_MAX)
            self.dropped += 1
            self._lost_microdollars += spent.microdollars
        else:
            self._reports.append(spent)
        if not self._failures:  # else the panel has its rest
            self._wake.set()

    async def _report_all(self) -> None:
        while self._reports and self.lease is not None:
            spent, lease = self._reports[0], self.lease
            report = {
                "lease_id": lease.id,
                "request_id": spent.request,
                "tokens": max(1, spent.usage.input_total + spent.usage.output),
                "cost_microdollars": spent.microdollars,
                "model": spent.model[:100],
                "provider": spent.lane[:50],
            }
            try:
                await self.panel.ask("/budget/report", report)
            except PanelError as error:
                if error.passing:
                    raise
                log.warning("a report was refused: %s", error.message)
                if error.status == 404 or any(word in error.message.lower() for word in _GONE):
                    self._reports.popleft()
                    self._lose(error.message)
                    return
            self._reports.popleft()


def _left_s(instant: object) -> float | None:
    """Seconds until an instant in ISO 8601; None when none is told that could be read."""
    if not isinstance(instant, str):
        return None
    try:
        at = datetime.fromisoformat(instant)
    except ValueError:
        return None
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return max((at - datetime.now(UTC)).total_seconds(), 0.0)
