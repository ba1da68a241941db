"""Connect, first chunk, idle, write and total: each ends an exchange on time and says its name.

Times are real and short; what is asserted is the name, that it came no sooner, and that it came within a generous bound.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager

import pytest

from fastroute.upstreams.faults import UpstreamFault

SOON_S = 1.0


@contextmanager
def ends(kind, *, after_ms, sent=True):
    before = time.monotonic()
    with pytest.raises(UpstreamFault) as raised:
        yield
    took = time.monotonic() - before
    assert (raised.value.kind, raised.value.sent, raised.value.timed_out) == (kind, sent, True), raised.value
    assert after_ms / 1000 - 0.005 <= took < after_ms / 1000 + SOON_S


def test_a_silent_upstream_meets_the_first_chunk_deadline(run, scripted, wired):
    upstream = scripted([scripted.request, scripted.hold])

    async def case():
        async with wired(upstream) as wire:
            with ends("first_chunk", after_ms=40):
                await wire.post(first_chunk_ms=40)
            assert wire.state == (0, 0, 0, 0)
            assert await asyncio.to_thread(upstream.wait_gone, 0, 0.5)

    run(case)


def test_a_head_is_no_content(run, scripted, wired):
    """Headers, comments and dribble do not stop the first-chunk deadline: only the caller knows what content is."""
    dribble = scripted.send(scripted.chunks(*[b": keep-alive\n\n"] * 40), 19, 0.005)
    upstream = scripted([scripted.request, scripted.head("transfer-encoding: chunked"), dribble, scripted.hold])

    async def case():
        async with wired(upstream) as wire:
            with ends("first_chunk", after_ms=60):
                exchange = await wire.post(first_chunk_ms=60)
                while await exchange.chunk():
                    pass
            assert wire.state == (0, 0, 0, 0)

    run(case)


def test_after_the_commitment_silence_meets_the_idle_deadline(run, scripted, wired):
    part = scripted.send(scripted.chunks(b"x", end=False))
    beat = [step for _ in range(5) for step in (part, scripted.pause(0.03))]
    upstream = scripted([scripted.request, scripted.head("transfer-encoding: chunked"), *beat, scripted.hold])

    async def case():
        async with wired(upstream) as wire:
            exchange = await wire.post(first_chunk_ms=50, idle_ms=80)
            exchange.committed()
            # Five parts 30 ms apart outlive both deadlines; then there is silence.
            with ends("idle", after_ms=200):
                while await exchange.chunk():
                    pass
            assert wire.state == (0, 0, 0, 0)

    run(case)


@pytest.mark.parametrize("committed", [True, False])
def test_the_total_deadline_ends_even_a_lively_answer(run, scripted, wired, committed):
    dribble = scripted.send(scripted.chunks(*[b"x"] * 200), 6, 0.005)
    upstream = scripted([scripted.request, scripted.head("transfer-encoding: chunked"), dribble, scripted.hold])

    async def case():
        async with wired(upstream) as wire:
            with ends("total", after_ms=70):
                exchange = await wire.post(total_ms=70)
                if committed:
                    exchange.committed()
                while await exchange.chunk():
                    pass
            assert wire.state == (0, 0, 0, 0)

    run(case)


def test_the_total_deadline_reaches_a_reader_that_holds_back(run, scripted, wired):
    """A caller who never reads keeps no connection beyond the total deadline."""
    upstream = scripted([scripted.request, scripted.head("content-length: 8000000"), scripted.send(bytes(8_000_000))])

    async def case():
        async with wired(upstream) as wire:
            exchange = await wire.post(total_ms=60, idle_ms=20)
            exchange.committed()
            await asyncio.sleep(0.12)
            assert wire.state == (0, 0, 0, 0)
            assert len(await exchange.chunk()) > 0
            with pytest.raises(UpstreamFault, match="total"):
                await exchange.chunk()

    run(case)


def test_an_upstream_that_takes_no_request_meets_the_write_deadline(run, scripted, wired):
    upstream = scripted([scripted.pause(5)])

    async def case():
        async with wired(upstream) as wire:
            with ends("write", after_ms=50):
                await wire.post(bytes(16_000_000), write_ms=50)
            with ends("first_chunk", after_ms=50):
                await wire.post(bytes(16_000_000), first_chunk_ms=50)
            assert wire.state == (0, 0, 0, 0)

    run(case)


def test_an_upstream_that_goes_before_it_took_the_request_is_a_write_fault(run, scripted, wired):
    upstream = scripted([scripted.pause(0.05), scripted.reset])

    async def case():
        async with wired(upstream) as wire:
            with pytest.raises(UpstreamFault) as raised:
                await wire.post(bytes(16_000_000))
            assert (raised.value.kind, raised.value.sent, raised.value.timed_out) == ("write", True, False)

    run(case)


def test_a_connect_nobody_takes_meets_the_connect_deadline(run, scripted, wired):
    """A full backlog drops the handshake, as a black hole does."""
    upstream = scripted(backlog=0)

    async def case():
        import socket

        plugs = [socket.socket() for _ in range(3)]
        for plug in plugs:
            plug.setblocking(False)
            plug.connect_ex(("127.0.0.1", upstream.port))
        await asyncio.sleep(0.02)
        async with wired(upstream) as wire:
            with ends("connect_timeout", after_ms=50, sent=False):
                await wire.post(connect_ms=50)
            with ends("total", after_ms=50, sent=False):
                await wire.post(total_ms=50)
            # Told to stop, the attempt to connect ends at once.
            task = asyncio.create_task(wire.post())
            await asyncio.sleep(0.02)
            assert wire.state == (0, 0, 1, 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.sleep(0.01)
            assert wire.state == (0, 0, 0, 0)
        for plug in plugs:
            plug.close()

    run(case)


def test_a_full_lane_meets_the_pool_deadline(run, scripted, wired, until):
    upstream = scripted([scripted.request, scripted.hold])

    async def case():
        async with wired(upstream, connections_max=1) as wire:
            first = asyncio.create_task(wire.post())
            await until(lambda: wire.pool.in_use)
            with ends("pool_timeout", after_ms=40, sent=False):
                await wire.post(connect_ms=40)
            with ends("pool_timeout", after_ms=30, sent=False):
                await wire.post(pool_ms=30)
            with ends("total", after_ms=30, sent=False):
                await wire.post(total_ms=30)
            assert wire.state == (1, 0, 0, 0)
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)

    run(case)


def test_a_connections_timer_serves_its_later_exchanges(run, scripted, wired):
    """A long deadline before and a short one after, and the reverse, on one connection."""
    answered = [scripted.request, scripted.answer()]
    upstream = scripted([*answered, *answered, *answered, scripted.request, scripted.hold])

    async def case():
        async with wired(upstream) as wire:
            for first_chunk_ms in (5000, 30, 5000):
                await (await wire.post(first_chunk_ms=first_chunk_ms)).read()
            await asyncio.sleep(0.06)
            assert wire.state == (0, 1, 0, 0)
            with ends("first_chunk", after_ms=40):
                await wire.post(first_chunk_ms=40)
            assert wire.pool.opened == 1

    run(case)


def test_without_deadlines_an_exchange_waits(run, scripted, wired):
    upstream = scripted([scripted.request, scripted.pause(0.05), scripted.answer()])

    async def case():
        async with wired(upstream) as wire:
            none = dict.fromkeys(("connect_ms", "first_chunk_ms", "idle_ms", "total_ms"))
            exchange = await wire.post(**none)
            exchange.committed()
            assert await exchange.read() == b"{}"

    run(case)


def test_a_whole_answer_outlives_every_deadline(run, scripted, wired):
    upstream = scripted(scripted.serve(scripted.answer(b"kept")))

    async def case():
        async with wired(upstream) as wire:
            exchange = await wire.post(first_chunk_ms=30, idle_ms=30, total_ms=30)
            await asyncio.sleep(0.06)
            assert await exchange.read() == b"kept"

    run(case)
