"""The compiled listener and callers that are slow to read: what is behind an answer, its connection's end, and ours."""

from __future__ import annotations

import asyncio

import h11
import pytest

from tests.kits import load

kit = load("server/listener_kit.py")
run, place, until, silent, start, say = kit.run, kit.place, kit.until, kit.silent, kit.start, kit.say
SPACE, GET = kit.SPACE, kit.GET

LARGE = 4_000_000


async def app(scope, receive, send):
    """A body as long as the path says."""
    await start(send)
    await say(send, bytes(int(scope["path"][1:])))


def asked(size, *headers):
    return GET.replace(b"/", b"/%d" % size, 1).replace(b"\r\n\r\n", b"".join((b"\r\n", *headers, b"\r\n")), 1)


def test_a_request_behind_an_answer_that_nobody_reads_yet_is_answered_in_its_turn(run):
    async def case():
        async with place(app, space=SPACE) as here:
            caller = await here.asks(asked(LARGE) + asked(5) + asked(6))
            await until(lambda: len(here.lines) == 1)
            await asyncio.sleep(0.05)
            assert [len((await caller.answer()).body) for _ in range(3)] == [LARGE, 5, 6]

    run(case)


@pytest.mark.parametrize("more", [b"", b"\r\n", b"GET / HTTP/1.1\r\n"])
def test_an_answer_that_ends_its_connection_is_read_whole_however_slowly(run, more):
    async def case():
        async with place(app, space=SPACE, linger_s=0.05) as here:
            caller = await here.asks(asked(LARGE, b"connection: close\r\n") + more)
            await asyncio.sleep(0.2)
            whole = await caller.end()
            assert len(whole.partition(b"\r\n\r\n")[2]) == LARGE

    run(case)


def test_an_idle_connection_is_not_closed_over_an_answer_that_is_still_being_read(run):
    async def case():
        async with place(app, space=SPACE, idle_s=0.05) as here:
            caller = await here.asks(asked(LARGE))
            await asyncio.sleep(0.2)
            assert len((await caller.answer()).body) == LARGE
            await until(lambda: not here.lines)

    run(case)


def test_the_end_waits_for_who_reads_slowly_until_everything_is_cut(run):
    async def case():
        async with place(app, space=SPACE) as here:
            caller = await here.asks(asked(LARGE))
            await until(lambda: not here.server._house.visits and here.lines)
            here.server.end()
            await asyncio.sleep(0.05)
            assert not here.serving.done()
            here.server.cut()
            await here.serving
            with pytest.raises((ConnectionError, h11.RemoteProtocolError)):
                await caller.answer()

    run(case)


def test_the_end_waits_for_work_whose_caller_is_gone(run):
    async def case():
        going, done = asyncio.Event(), []

        async def settles(scope, receive, send):
            await going.wait()
            done.append(scope["path"])

        async with place(settles) as here:
            caller = await here.asks()
            await until(lambda: here.server._house.visits)
            caller.leave("reset")
            await until(lambda: not here.lines)
            here.server.end()
            await asyncio.sleep(0.02)
            assert (here.serving.done(), done) == (False, [])
            going.set()
            await here.serving
            assert done == ["/"]

    run(case)


def test_what_follows_an_answer_is_not_begun_by_a_server_that_ends(run):
    async def case():
        seen, gate = [], asyncio.Event()

        async def notes(scope, receive, send):
            seen.append(scope["path"])
            await gate.wait()
            await start(send)
            await say(send, b"ok")

        async with place(notes) as here:
            caller = await here.asks(asked(1) + asked(2))
            await until(lambda: seen)
            here.server.end()
            gate.set()
            assert (await caller.end()).count(b"HTTP/1.1 200") == 1
            assert seen == ["/1"]
            assert not await silent(caller)

    run(case)
