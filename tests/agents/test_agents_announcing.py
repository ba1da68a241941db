"""How an agent keeps its router knowing of it, with a router that says what a script tells it to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from fastroute.agent import announcing
from fastroute.agent.announcing import Announcer, Offering
from fastroute.agent.router import RouterAway, RouterRefuses


class Scripted:
    """A router; each answer is used once, and then all is well."""

    address = "http://router"

    def __init__(self, *answers: Exception | None) -> None:
        self.answers = list(answers)
        self.heard: list[str] = []
        self.at: list[float] = []

    async def register(self, name: str, endpoint: str, models: tuple[str, ...], *, key: bool) -> str | None:
        self._answer("register")
        return "a key of this router" if key else None

    async def beat(self, name: str, queue_length: int, *, draining: bool = False) -> None:
        self._answer(f"draining {queue_length}" if draining else f"beat {queue_length}")

    def _answer(self, heard: str) -> None:
        self.heard.append(heard)
        self.at.append(asyncio.get_running_loop().time())
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer


class Played:
    """One announcer at work, and what it said."""

    def __init__(self, router: Scripted, interval_s: float = 0.01, *, keyed: bool = False) -> None:
        self.said: list[str] = []
        self.keys: list[str | None] = []
        self.queue = 0
        offering = Offering("mac", "http://here", ("m",), keyed)
        router_: Any = router
        self.announcer = Announcer(
            router_, offering, interval_s, lambda: self.queue, self.keys.append, self.said.append
        )

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            running = asyncio.create_task(self.announcer.run())
            await seen(lambda: true() or running.done())
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            if not running.cancelled():
                running.result()


async def seen(true: Callable[[], bool]) -> None:
    """What a script has heard has no event of its own."""
    for _ in range(10_000):
        if true():
            return
        await asyncio.sleep(0.001)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcing, "PAUSE_S", 0.02)
    monkeypatch.setattr(announcing, "PAUSE_MAX_S", 0.04)
    monkeypatch.setattr(announcing, "CHANGED_S", 0.005)


def run(work: Awaitable[None]) -> None:
    async def whole() -> None:
        await work

    asyncio.run(whole())


def test_it_registers_and_beats() -> None:
    router = Scripted()
    played = Played(router)
    run(played.until(lambda: len(router.heard) > 3))
    assert router.heard[:4] == ["register", "beat 0", "beat 0", "beat 0"]
    assert played.said == ["registered with http://router; a heartbeat every 0.01 s"]
    assert played.keys == [None]


def test_who_is_away_is_asked_again_with_growing_pauses_and_told_of_once() -> None:
    router = Scripted(*[RouterAway("nobody answers")] * 3)
    played = Played(router)
    run(played.until(lambda: "beat 0" in router.heard))
    assert router.heard[:5] == ["register"] * 4 + ["beat 0"]
    gaps = [later - earlier for earlier, later in zip(router.at, router.at[1:4], strict=False)]
    assert all(gap >= least for gap, least in zip(gaps, (0.02, 0.04, 0.04), strict=True))
    assert played.said[0] == "nobody answers; trying again in 0.02 s"
    assert sum("nobody answers" in line for line in played.said) == 1
    assert "the router http://router is back" in played.said


def test_a_beat_that_is_not_heard_is_no_reason_to_register_anew() -> None:
    router = Scripted(None, RouterAway("it restarts"), None)
    played = Played(router)
    run(played.until(lambda: len(router.heard) > 3))
    assert router.heard[:4] == ["register", "beat 0", "beat 0", "beat 0"]


def test_who_is_not_known_any_more_registers_at_once() -> None:
    router = Scripted(None, RouterRefuses(404, "unknown"))
    played = Played(router, keyed=True)
    run(played.until(lambda: router.heard.count("register") == 2 and len(played.keys) == 2))
    assert router.heard[:3] == ["register", "beat 0", "register"]
    assert played.keys == ["a key of this router"] * 2


def test_a_first_refusal_is_the_end_and_a_later_one_is_not() -> None:
    with pytest.raises(RouterRefuses, match="taken"):
        run(Played(Scripted(RouterRefuses(409, "the name is taken"))).until(lambda: False))
    router = Scripted(None, RouterRefuses(401, "the token is revoked"), None)
    played = Played(router)
    run(played.until(lambda: len(router.heard) > 2))
    assert any("the token is revoked" in line for line in played.said)


def test_a_changed_queue_is_told_before_its_beat_is_due() -> None:
    router = Scripted()
    played = Played(router, interval_s=1000)

    async def work() -> None:
        waiting = asyncio.create_task(played.until(lambda: router.heard[-1:] == ["beat 3"]))
        await seen(lambda: bool(router.heard))
        played.queue = 3
        await waiting

    run(work())
    assert router.heard == ["register", "beat 3"]


def test_a_farewell_is_said_once_it_was_met_and_never_fails() -> None:
    async def work() -> None:
        stranger, router = Scripted(), Scripted(None, RouterAway("gone"))
        await Played(stranger).announcer.farewell()
        assert stranger.heard == []
        played = Played(router, interval_s=1000)
        await played.until(lambda: router.heard == ["register"] and played.announcer.registered)
        played.queue = 2
        await played.announcer.farewell()
        assert router.heard == ["register", "draining 2"]
        assert played.said[-1] == "the router was not told of the end: gone"

    run(work())


def test_a_farewell_waits_for_what_is_on_its_way() -> None:
    """A router that hears of an agent after its farewell would send it requests until it is found to be silent."""

    class Slow(Scripted):
        async def register(self, *said: Any, key: bool) -> str | None:
            self.heard.append("register begins")
            await asyncio.sleep(0.05)
            return await super().register(*said, key=key)

    async def work() -> None:
        router = Slow()
        played = Played(router)
        await played.until(lambda: bool(router.heard))
        await played.announcer.farewell()
        assert router.heard == ["register begins", "register", "draining 0"]

    run(work())


def test_a_farewell_is_said_to_a_router_whose_answer_was_lost() -> None:
    async def work() -> None:
        lost, refused = Scripted(RouterAway("no answer came")), Scripted(RouterRefuses(409, "the name is taken"))
        played = Played(lost)
        await played.until(lambda: bool(played.said))
        await played.announcer.farewell()
        assert lost.heard[0] == "register"
        assert lost.heard[-1] == "draining 0"
        played = Played(refused)
        with pytest.raises(RouterRefuses):
            await played.until(lambda: False)
        await played.announcer.farewell()
        assert refused.heard == ["register"]

    run(work())


def test_a_farewell_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcing, "FAREWELL_S", 0.02)

    class Deaf(Scripted):
        async def register(self, *said: Any, key: bool) -> str | None:
            self.heard.append("register")
            await asyncio.Event().wait()
            return None

    async def work() -> None:
        router = Deaf()
        played = Played(router)
        await played.until(lambda: bool(router.heard))
        await played.announcer.farewell()
        assert router.heard == ["register"]

    run(work())
