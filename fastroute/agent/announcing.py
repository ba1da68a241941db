"""How an agent keeps its router knowing of it: registered with patience, heard of at every beat, said farewell to.

A queue that changed is told before its beat is due, at most once a second: the router sends to whoever has least to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from fastroute.agent.router import Router, RouterAway, RouterRefuses

PAUSE_S: Final = 1.0
PAUSE_MAX_S: Final = 30.0
# How soon a changed queue is told.
CHANGED_S: Final = 1.0
FAREWELL_S: Final = 3.0


class Offering(Struct, frozen=True):
    """What an agent announces; `keyed` when it lets in nobody but its router."""

    name: str
    endpoint: str
    models: tuple[str, ...]
    keyed: bool


class Announcer:
    """`run` never ends by itself, but with `RouterRefuses` when the first registration is refused."""

    def __init__(
        self,
        router: Router,
        offering: Offering,
        interval_s: float,
        queue: Callable[[], int],
        use_key: Callable[[str | None], None],
        say: Callable[[str], None],
    ) -> None:
        self._router, self._offering, self._interval_s = router, offering, interval_s
        self._queue, self._use_key, self._say = queue, use_key, say
        self.registered = False
        self._met = False  # whether it ever was
        self._trouble = ""  # what was said last, so that it is not said at every try
        self._told = 0
        self._known = False  # whether the router may know of it, as far as can be told from here
        self._step: asyncio.Task[None] | None = None

    async def run(self) -> None:
        pause_s = PAUSE_S
        while True:
            try:
                # Whoever stops this does not stop what is on its way: the router would hear of it after the farewell.
                self._step = asyncio.create_task(self._once())
                await asyncio.shield(self._step)
            except RouterRefuses as refusal:
                if not self._met:
                    self._known = False
                    raise
                if self.registered and refusal.status == 404:
                    self._say("the router does not know this agent any more; registering again")
                    self.registered = False
                    continue
                self._troubled(str(refusal), pause_s)
            except RouterAway as away:
                self._troubled(str(away), pause_s)
            else:
                if self._trouble:
                    self._say(f"the router {self._router.address} is back")
                    self._trouble = ""
                pause_s = PAUSE_S
                await self._rest()
                continue
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_MAX_S)

    async def farewell(self) -> None:
        """Say that nothing new is taken, once `run` is over; a router that cannot be told finds out by itself."""
        try:
            async with asyncio.timeout(FAREWELL_S):
                if self._step is not None:
                    await asyncio.wait((self._step,))
                if self._known:
                    await self._router.beat(self._offering.name, self._queue(), draining=True)
        except (RouterAway, RouterRefuses, TimeoutError) as error:
            if self.registered:
                self._say(f"the router was not told of the end: {error or 'it does not answer'}")
        finally:
            if self._step is not None:
                self._step.cancel()

    async def _once(self) -> None:
        if self.registered:
            self._told = self._queue()
            await self._router.beat(self._offering.name, self._told)
            return
        offering = self._offering
        self._known = True  # even of one whose answer never comes
        self._use_key(
            await self._router.register(offering.name, offering.endpoint, offering.models, key=offering.keyed)
        )
        self.registered = self._met = True
        self._told = 0
        self._say(f"registered with {self._router.address}; a heartbeat every {self._interval_s:g} s")

    async def _rest(self) -> None:
        """Until the next beat: the interval, or less when the queue changed."""
        loop = asyncio.get_running_loop()
        due = loop.time() + self._interval_s
        while (left := due - loop.time()) > 0:
            await asyncio.sleep(min(left, CHANGED_S))
            if self._queue() != self._told:
                return

    def _troubled(self, message: str, pause_s: float) -> None:
        if message != self._trouble:
            self._trouble = message
            self._say(f"{message}; trying again in {pause_s:g} s")
