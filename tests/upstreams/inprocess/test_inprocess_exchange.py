"""An answer made in the process keeps the contract of one that came over a socket."""

from __future__ import annotations

import asyncio
import gc

import pytest

from fastroute.upstreams.faults import UpstreamFault
from fastroute.upstreams.inprocess import JSON, InProcess, Script
from fastroute.upstreams.openai import OpenAI
from fastroute.upstreams.pool import Deadlines
from fastroute.upstreams.upstream import Upstream


class Scripted(InProcess):
    """Tells one script, whatever is asked."""

    def __init__(self, script: Script) -> None:
        super().__init__("scripted", "Scripted", OpenAI())
        self._script = script

    def script(self, operation: str, model: str, stream: bool, body: bytes) -> Script:
        return self._script


def script(*pieces: tuple[int, bytes], head_ms: int = 0, end=None) -> Script:
    return Script(200, JSON, pieces, head_ms, end)


def deadlines(first_chunk_ms=None, idle_ms=None, total_ms=None) -> Deadlines:
    return Deadlines(connect_ms=None, first_chunk_ms=first_chunk_ms, idle_ms=idle_ms, total_ms=total_ms)


async def opened(told: Script, limits: Deadlines | None = None):
    upstream: Upstream = Scripted(told)
    exchange = upstream.begin("chat", "m", True, {}, b"{}", limits or deadlines())
    while not exchange.answer():
        await exchange.coming()
    return exchange


def test_open_returns_when_the_head_is_due_and_not_before(loop, run):
    exchange = run(opened(script((0, b"x"), head_ms=70)))
    assert loop.time() == pytest.approx(0.070)
    assert (exchange.status, exchange.sent) == (200, True)


def test_a_header_is_found_in_any_case_of_letters(run):
    exchange = run(opened(script()))
    assert exchange.header(b"Content-Type") == b"application/json"
    assert exchange.header(b"retry-after") is None


def test_chunks_come_when_they_are_due_and_the_clean_end_is_empty(loop, run):
    async def watch():
        exchange = await opened(script((10, b"a"), (20, b"b")))
        seen = []
        while data := await exchange.chunk():
            seen.append((round(loop.time() * 1000), data))
        return seen, await exchange.chunk(), exchange.complete

    assert run(watch()) == ([(10, b"a"), (30, b"b")], b"", True)


def test_a_chunk_is_everything_due_so_far(run):
    async def late():
        exchange = await opened(script((10, b"a"), (10, b"b"), (0, b""), (10, b"c"), (50, b"d")))
        await asyncio.sleep(0.035)
        return await exchange.chunk(), await exchange.chunk()

    assert run(late()) == (b"abc", b"d")


def test_read_waits_for_the_whole_of_the_rest(loop, run):
    async def whole():
        exchange = await opened(script((10, b"a"), (10, b"b"), (10, b"c")))
        return await exchange.chunk() + b"|" + await exchange.read()

    assert run(whole()) == b"a|bc"
    assert loop.time() == pytest.approx(0.030)


def test_a_body_larger_than_its_reader_allows_is_refused(run):
    async def whole(limit: int):
        return await (await opened(script((5, b"aaa"), (5, b"bbb"), (60_000, b"ccc")))).read(limit)

    assert len(run(whole(9))) == 9
    with pytest.raises(UpstreamFault) as raised:
        run(whole(5))
    assert (raised.value.kind, raised.value.timed_out) == ("limit", False)


def test_an_answer_without_delays_sets_no_timer(loop, run):
    async def at_once():
        exchange = await opened(script((0, b"a"), (0, b"b")), deadlines(10, 10, 10))
        return await exchange.read()

    assert run(at_once()) == b"ab"
    assert loop.timers == []


# --- deadlines -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "limits", "kind", "at_ms"),
    [
        # told                                   first, idle, total       fault          when
        (script((0, b"x"), head_ms=900), deadlines(300, 100, 500), "first_chunk", 300),
        (script((0, b"x"), head_ms=900), deadlines(600, 100, 500), "total", 500),
        (script((900, b"x"), head_ms=10), deadlines(300, 100, 500), "first_chunk", 300),
        (script((10, b"x"), (900, b"y")), deadlines(300, 100, 500), "idle", 110),
        (script((10, b"x"), (80, b"y"), (900, b"z")), deadlines(300, 100, 500), "idle", 190),
        (script(*[(90, b"x")] * 9), deadlines(300, 100, 500), "total", 500),
        (script((900, b"x")), deadlines(None, None, 500), "total", 500),
    ],
)
def test_each_deadline_ends_the_exchange_by_its_own_name_at_its_own_instant(loop, run, told, limits, kind, at_ms):
    """First chunk until content is committed to, idle between bytes after it, total over everything."""

    async def relay():
        exchange = await opened(told, limits)
        while await exchange.chunk():
            exchange.committed()

    with pytest.raises(UpstreamFault) as raised:
        run(relay())
    assert (raised.value.kind, raised.value.sent, raised.value.timed_out) == (kind, True, True)
    assert loop.time() * 1000 == pytest.approx(at_ms, abs=1)
    assert loop.pending == []


def test_bytes_without_content_do_not_end_the_first_chunk_deadline(loop, run):
    """A role and a comment are not an answer: only `committed` stops that clock."""

    async def relay():
        exchange = await opened(script((10, b": hi\n\n"), (10, b": hi\n\n"), (900, b"x")), deadlines(300, 1000, None))
        while await exchange.chunk():
            pass

    with pytest.raises(UpstreamFault, match="first_chunk"):
        run(relay())
    assert loop.time() == pytest.approx(0.300, abs=0.001)


def test_a_slow_reader_is_not_the_upstreams_silence(run):
    async def slow():
        exchange = await opened(script((10, b"a"), (10, b"b")), deadlines(100, 50, 1000))
        first = await exchange.chunk()
        exchange.committed()
        await asyncio.sleep(5)
        return first, await exchange.chunk(), await exchange.chunk()

    assert run(slow()) == (b"a", b"b", b"")


def test_what_came_before_a_deadline_is_handed_out_before_the_fault(run):
    async def slow():
        exchange = await opened(script((10, b"a"), (10, b"b"), (900, b"c")), deadlines(100, 50, None))
        exchange.committed()
        await asyncio.sleep(5)
        first = await exchange.chunk()
        with pytest.raises(UpstreamFault, match="idle"):
            await exchange.chunk()
        return first

    assert run(slow()) == b"ab"


def test_committing_while_a_reader_waits_gives_it_the_idle_deadline(loop, run):
    async def relay():
        exchange = await opened(script((900, b"x")), deadlines(600, 100, None))
        reader = asyncio.ensure_future(exchange.chunk())
        await asyncio.sleep(0.05)
        exchange.committed()
        await reader

    with pytest.raises(UpstreamFault, match="idle"):
        run(relay())
    assert loop.time() == pytest.approx(0.100, abs=0.001)


# --- ends ----------------------------------------------------------------------------------------------------------


def test_a_cut_hands_out_what_came_and_then_says_so(run):
    async def cut():
        exchange = await opened(script((0, b"half"), end="cut"))
        data = await exchange.chunk()
        with pytest.raises(UpstreamFault) as raised:
            await exchange.chunk()
        return data, raised.value.kind, raised.value.timed_out, exchange.complete

    assert run(cut()) == (b"half", "cut", False, False)


def test_a_cut_answer_is_never_read_as_whole(run):
    async def cut():
        return await (await opened(script((5, b"half"), end="cut"))).read()

    with pytest.raises(UpstreamFault, match="cut"):
        run(cut())


@pytest.mark.parametrize("how", ["chunk", "read"])
def test_stop_wakes_whoever_waits(loop, run, how):
    async def stopped():
        exchange = await opened(script((60_000, b"x")), deadlines(90_000, 90_000, 90_000))
        asyncio.get_running_loop().call_later(0.02, exchange.stop)
        await getattr(exchange, how)()

    with pytest.raises(UpstreamFault) as raised:
        run(stopped())
    assert (raised.value.kind, raised.value.sent, raised.value.timed_out) == ("stopped", True, False)
    assert loop.time() == pytest.approx(0.020)
    assert loop.pending == []


def test_stop_drops_what_was_not_read_unless_all_of_it_had_arrived(run):
    async def both():
        early = await opened(script((0, b"a"), (10, b"b")))
        early.stop()
        early.stop()
        with pytest.raises(UpstreamFault, match="stopped"):
            await early.chunk()
        late = await opened(script((0, b"a"), (10, b"b")))
        await asyncio.sleep(0.02)
        late.stop()
        return await late.chunk()

    assert run(both()) == b"ab"


@pytest.mark.parametrize("told", [script((0, b"x"), head_ms=60_000), script((60_000, b"x"))])
def test_a_cancelled_reader_leaves_no_timer_and_no_task_behind(loop, run, told):
    async def cancelled():
        async def relay():
            await (await opened(told, deadlines(90_000, None, None))).read()

        reader = asyncio.ensure_future(relay())
        await asyncio.sleep(0.01)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert run(cancelled()) == set()
    assert loop.pending == []


def test_a_cancelled_reader_stops_the_exchange(run):
    async def cancelled():
        exchange = await opened(script((60_000, b"x")))
        reader = asyncio.ensure_future(exchange.chunk())
        await asyncio.sleep(0.01)
        reader.cancel()
        await asyncio.wait({reader})
        await exchange.chunk()

    with pytest.raises(UpstreamFault, match="stopped"):
        run(cancelled())


def test_an_exchange_has_one_reader_at_a_time(run):
    async def two():
        exchange = await opened(script((50, b"x")))
        first = asyncio.ensure_future(exchange.chunk())
        await asyncio.sleep(0.01)
        with pytest.raises(RuntimeError, match="one reader"):
            await exchange.chunk()
        return await first

    assert run(two()) == b"x"


def test_a_raised_fault_keeps_no_exchange_alive(run):
    """Reference cycles would wait for the collector, and it runs late on a busy worker."""

    async def cut():
        exchange = await opened(script((0, b"a"), end="cut"))
        for _ in range(2):
            with pytest.raises(UpstreamFault):
                await exchange.read()

    gc.collect()
    gc.disable()
    try:
        run(cut())
        left = [thing for thing in gc.get_objects() if type(thing).__name__ == "ScriptedExchange"]
    finally:
        gc.enable()
    assert left == []


def test_an_exchange_tells_its_state(run):
    async def states():
        exchange = await opened(script((0, b"abc"), (10, b"d")))
        seen = [repr(exchange)]
        await exchange.read()
        return [*seen, repr(exchange)]

    assert run(states()) == [
        "<ScriptedExchange open status=200 unread=3>",
        "<ScriptedExchange complete status=200 unread=0>",
    ]
