"""Our own server on real sockets: what an application is told, whom it lets in and waits for, and how it ends.

What goes back to the caller is in `test_server_answers.py`.
"""

from __future__ import annotations

import asyncio
import gc
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from fastroute.web.serving import server
from tests.kits import load

kit = load("server/listener_kit.py")
run, place, until, turns, silent = kit.run, kit.place, kit.until, kit.turns, kit.silent
body_of, start, say, echo, ok, Gate = kit.body_of, kit.start, kit.say, kit.echo, kit.ok, kit.Gate
SPACE, GET, POST = kit.SPACE, kit.GET, kit.POST


# --- what an application is told ------------------------------------------------------------------------------------


def test_an_application_is_told_exactly_what_was_asked(run):
    scopes = []

    async def app(scope, receive, send):
        scopes.append(scope)
        await ok(scope, receive, send)

    async def case():
        async with place(app) as here:
            caller = await here.asks(
                b"PUT /a%20b/%C3%A9?q=%201&r HTTP/1.1\r\nHost: t\r\nX-One: 1\r\nx-one:  2 \r\n\r\n"
            )
            assert (await caller.answer()).body == b"ok"
            assert scopes[0] == {
                "type": "http",
                "asgi": {"version": "3.0", "spec_version": "2.3"},
                "http_version": "1.1",
                "method": "PUT",
                "scheme": "http",
                "path": "/a b/é",
                "raw_path": b"/a%20b/%C3%A9",
                "query_string": b"q=%201&r",
                "root_path": "",
                "headers": [(b"host", b"t"), (b"x-one", b"1"), (b"x-one", b"2")],
                "client": caller.sock.getsockname(),
                "server": here.address,
                "extensions": {},
            }
            scopes[0]["path"] = "/changed"
            await caller.say(b"GET /two HTTP/1.0\r\n\r\n")
            await caller.answer()
            assert {name: scopes[1][name] for name in ("http_version", "path", "query_string", "headers")} == {
                "http_version": "1.0",
                "path": "/two",
                "query_string": b"",
                "headers": [],
            }

    run(case)


BODY = bytes(range(256)) * 4
CHUNKED = (
    b"POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0100\r\n%b\r\n0\r\nx: y\r\n\r\n"
    % (
        768,
        BODY[:768],
        BODY[768:],
    )
)


@pytest.mark.parametrize("segment", [1, 7, 100, 9999])
@pytest.mark.parametrize("request_", [POST % 1024 + BODY, CHUNKED], ids=["length", "chunked"])
def test_a_body_arrives_whole_however_it_is_cut(run, request_, segment):
    async def app(scope, receive, send):
        assert await body_of(receive) == BODY
        await ok(scope, receive, send)

    async def case():
        async with place(app) as here:
            caller = here.dial()
            for _ in range(2):
                for at in range(0, len(request_), segment):
                    await caller.say(request_[at : at + segment])
                    await asyncio.sleep(0)
                assert (await caller.answer()).body == b"ok"
            assert len(here.lines) == 1

    run(case)


def test_a_request_without_a_body_is_one_message_and_then_the_callers_leaving(run):
    heard = []

    async def app(scope, receive, send):
        heard.extend([await receive(), await receive(), await receive()])

    async def case():
        async with place(app) as here:
            caller = await here.asks()
            await until(lambda: len(here.lines) == 1)
            caller.leave("close")
            await until(lambda: heard)
            gone = {"type": "http.disconnect"}
            assert heard == [{"type": "http.request", "body": b"", "more_body": False}, gone, gone]

    run(case)


@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
@pytest.mark.parametrize("sent", [0, 4, 10])
def test_an_application_learns_that_its_caller_left(run, how, sent):
    """Also where the body is still coming: then it is never told that this is its end."""
    heard = []

    async def app(scope, receive, send):
        while not heard or heard[-1]["type"] == "http.request":
            heard.append(await receive())

    async def case():
        async with place(app) as here:
            caller = await here.asks(POST % 10 + bytes(sent))
            await until(lambda: len(here.lines) == 1 and (heard or not sent))
            assert (await silent(caller), len(heard)) == (True, int(sent > 0))
            caller.leave(how)
            await until(lambda: heard and heard[-1] == {"type": "http.disconnect"})
            assert [message["more_body"] for message in heard[:-1]] == [sent < 10] * (sent > 0)
            await until(lambda: not here.lines)

    run(case)


def test_a_body_that_is_malformed_is_never_whole(run):
    heard = []

    async def app(scope, receive, send):
        heard.extend([await receive(), await receive()])
        await ok(scope, receive, send)

    async def case():
        async with place(app) as here:
            caller = await here.asks(
                b"POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nxyz\r\n"
            )
            assert (await caller.answer()).header(b"connection") == b"close"
            assert heard == [{"type": "http.request", "body": b"abc", "more_body": True}, {"type": "http.disconnect"}]
            assert await caller.end() == b""

    run(case)


def test_after_its_answer_an_application_hears_that_it_is_over(run):
    """Whether it asks then or has been waiting since before; the connection serves the next request."""
    heard = []

    async def app(scope, receive, send):
        await receive()
        waiting = asyncio.create_task(receive()) if scope["path"] == "/waiting" else None
        await asyncio.sleep(0)
        await start(send)
        await say(send)
        heard.append(await (waiting or receive()))

    async def case():
        async with place(app) as here:
            caller = here.dial()
            for path in (b"/", b"/waiting", b"/"):
                await caller.say(GET.replace(b"/", path, 1))
                await caller.answer()
            await until(lambda: len(heard) == 3)
            assert heard == [{"type": "http.disconnect"}] * 3

    run(case, within=1)


def test_a_request_has_one_reader_at_a_time_and_another_after_one_that_gave_up(run):
    async def app(scope, receive, send):
        first = asyncio.create_task(receive())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="one reader"):
            await receive()
        first.cancel()
        await asyncio.wait([first])
        await echo(scope, receive, send)

    async def case():
        async with place(app) as here:
            caller = await here.asks(POST % 2)
            assert await silent(caller)
            await caller.say(b"me")
            assert (await caller.answer()).body == b"me"

    run(case)


# --- one request after the other ------------------------------------------------------------------------------------


def test_a_thousand_requests_take_one_connection(run):
    async def case():
        async with place(echo) as here:
            caller = here.dial()
            for _ in range(1000):
                await caller.say(GET)
                seen = await caller.hear()
                assert seen.startswith(b"HTTP/1.1 200 OK\r\n")
                assert seen.endswith(b"\r\n\r\n/")
            assert len(here.lines) == 1

    run(case)


def test_fifty_requests_in_one_segment_are_answered_in_order(run):
    async def case():
        async with place(echo) as here:
            caller = await here.asks(b"".join(POST % 2 + b"%02d" % n for n in range(50)))
            assert [(await caller.answer()).body for _ in range(50)] == [b"%02d" % n for n in range(50)]
            await caller.say(GET)
            assert (await caller.answer()).body == b"/"

    run(case)


@pytest.mark.parametrize("first", [POST % 5 + b"first", CHUNKED], ids=["length", "chunked"])
def test_two_requests_are_two_wherever_they_are_cut(run, first):
    """Also where the end of one's body comes together with the next one's beginning."""
    both = first + POST.replace(b"/", b"/second", 1) % 6 + b"second"
    end = len(first)
    cuts = sorted({*range(20), *range(end - 12, len(both))})

    async def one(here, cut):
        caller = await here.asks(both[:cut])
        await turns(8)
        await caller.say(both[cut:])
        async with asyncio.timeout(0.5):
            found = [(await caller.answer()).body, (await caller.answer()).body]
        caller.sock.close()
        return found

    async def case():
        async with place(echo) as here:
            found = await asyncio.gather(*(one(here, cut) for cut in cuts), return_exceptions=True)
            body = BODY if first is CHUNKED else b"first"
            assert [cut for cut, was in zip(cuts, found, strict=True) if was != [body, b"second"]] == []

    run(case)


def test_a_request_that_comes_while_another_is_answered_waits_its_turn(run):
    async def case():
        gate = Gate()
        async with place(gate) as here:
            caller = await here.asks()
            await until(lambda: gate.inside == 1)
            await caller.say(GET[:9])
            await turns(5)
            await caller.say(GET[9:] + GET[:5])
            assert await silent(caller)
            assert gate.inside == 1
            gate.open.set()
            assert [(await caller.answer()).body for _ in range(2)] == [b"two", b"two"]
            await caller.say(GET[5:])
            assert (await caller.answer()).body == b"two"

    run(case)


def test_who_asks_without_end_and_reads_nothing_is_held_back(run):
    """What it has asked waits in its own buffers, and every request is answered in the end."""
    count = 40_000

    async def case():
        gate = Gate()
        async with place(gate, space=SPACE) as here:
            caller = here.dial()
            said = 0

            async def asking():
                nonlocal said
                for _ in range(count // 100):
                    await caller.say(GET * 100)
                    said += 100

            task = asyncio.create_task(asking())
            await until(lambda: said)
            assert await silent(caller, 0.05)
            assert len(GET) * said < 1_000_000
            gate.open.set()
            heard = 0
            while heard < 2000:
                heard += (await caller.hear()).count(b"HTTP/1.1 200 OK")
            task.cancel()

    run(case)


# --- bodies that are not read ---------------------------------------------------------------------------------------


def test_a_sender_whose_body_is_not_read_is_held_back_and_goes_on_later(run):
    whole = bytes(range(256)) * 4 * 8192  # 8 MiB

    async def case():
        gate = asyncio.Event()
        found = []

        async def app(scope, receive, send):
            await gate.wait()
            found.append(await body_of(receive))
            await ok(scope, receive, send)

        async with place(app, space=SPACE) as here:
            caller = await here.asks(POST % len(whole))
            said = 0

            async def sending():
                nonlocal said
                for at in range(0, len(whole), SPACE):
                    await caller.say(whole[at : at + SPACE])
                    said = at + SPACE

            task = asyncio.create_task(sending())
            await until(lambda: said)
            await asyncio.sleep(0.05)
            assert said < 1_000_000
            gate.set()
            assert (await caller.answer()).body == b"ok"
            await task
            assert found == [whole]

    run(case)


EXPECTING = b"POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n"


def test_who_waits_to_be_told_to_go_on_is_told_once_the_body_is_wanted(run):
    async def case():
        wanted = asyncio.Event()

        async def app(scope, receive, send):
            await wanted.wait()
            await echo(scope, receive, send)

        async with place(app) as here:
            caller = await here.asks(EXPECTING)
            assert await silent(caller)
            wanted.set()
            assert await caller.hear() == b"HTTP/1.1 100 Continue\r\n\r\n"
            await caller.say(b"me")
            assert (await caller.answer()).body == b"me"
            await caller.say(EXPECTING + b"we")
            answer = await caller.answer()
            assert (answer.body, answer.continued) == (b"we", False)

    run(case)


def test_who_is_refused_is_never_told_to_send_its_body(run):
    async def case():
        async with place(ok) as here:
            caller = await here.asks(EXPECTING)
            answer = await caller.answer()
            assert (answer.body, answer.continued, answer.header(b"connection")) == (b"ok", False, b"close")
            assert await caller.end() == b""

    run(case)


# --- who is let in, and the end -------------------------------------------------------------------------------------


def test_one_connection_too_many_waits_until_another_leaves(run):
    async def case():
        async with place(ok, connections_max=2) as here:
            first, second, third, fourth = [await here.asks() for _ in range(4)]
            assert (await first.answer()).body == (await second.answer()).body == b"ok"
            assert (await silent(third), await silent(fourth), len(here.lines)) == (True, True, 2)
            first.leave("close")
            assert (await third.answer()).body == b"ok"
            assert await silent(fourth)
            second.leave("reset")
            assert (await fourth.answer()).body == b"ok"

    run(case)


@pytest.mark.parametrize("apart", range(8))
def test_there_is_room_for_two_where_two_may_come(run, apart):
    """However few turns of the loop lie between them."""

    async def case():
        async with place(ok, connections_max=2) as here:
            first = await here.asks()
            await turns(apart)
            second = await here.asks()
            assert (await first.answer()).body == b"ok"
            async with asyncio.timeout(0.5):
                assert (await second.answer()).body == b"ok"

    run(case)


def test_the_end_closes_who_waits_and_lets_answers_finish(run):
    async def case():
        before, within = Gate(), Gate(before=False)

        async def app(scope, receive, send):
            await {"/before": before, "/within": within}.get(scope["path"], ok)(scope, receive, send)

        async with place(app) as here:
            silent_one, partial = here.dial(), await here.asks(GET[:20])
            kept, early, late = [
                await here.asks(b"GET %b HTTP/1.1\r\n\r\n" % path) for path in (b"/", b"/before", b"/within")
            ]
            await kept.answer()
            await until(lambda: before.inside and within.inside and len(here.lines) == 5)
            late.seen = await late.hear()
            here.server.end()
            here.server.end()
            assert [await one.end() for one in (silent_one, partial, kept)] == [b""] * 3
            with pytest.raises(ConnectionRefusedError):
                here.dial()
            assert not here.serving.done()
            before.open.set()
            answer = await early.answer()
            assert (answer.body, answer.header(b"connection"), await early.end()) == (b"two", b"close", b"")
            assert not here.serving.done()
            within.open.set()
            answer = await late.answer()
            assert (answer.body, await late.end()) == (b"one,two", b"")
            await asyncio.wait_for(here.serving, 1)
            here.server.end()

    run(case)


@pytest.mark.parametrize("apart", range(8))
def test_the_end_may_come_while_a_connection_is_taken(run, apart):
    async def case():
        async with place(ok) as here:
            await turns(1)
            callers = [here.dial(), await here.asks()]
            await turns(apart)
            here.server.end()
            await asyncio.wait_for(here.serving, 0.5)
            for caller in callers:
                with suppress(ConnectionResetError):
                    assert (await caller.end())[:15] in (b"", b"HTTP/1.1 200 OK")

    run(case)


def test_a_server_that_ends_before_it_serves_is_over_at_once(run):
    async def case():
        with socket.create_server(("127.0.0.1", 0)) as own:
            ended = server(ok, "127.0.0.1", own.getsockname()[1], 10, own, kind="compiled")
            ended.end()
            await asyncio.wait_for(ended.serve(), 0.5)
            assert own.fileno() > 0  # it stays its owner's

    run(case)


def test_a_server_can_bind_by_itself_and_beside_another(run):
    async def case():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
            both = [server(ok, "127.0.0.1", port, 10, kind="compiled") for _ in range(2)]
            tasks = [asyncio.create_task(one.serve()) for one in both]
            for _ in range(10):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(GET.replace(b"1.1", b"1.0"))
                assert (await reader.read()).endswith(b"ok")
                writer.close()
            for one in both:
                one.end()
            await asyncio.gather(*tasks)

    run(case)


# --- what stays -----------------------------------------------------------------------------------------------------


def test_hundreds_of_callers_leave_nothing_behind(run):
    """Served or gone in the midst of it, by every way there is."""

    def left():
        gc.collect()
        kinds = [type(one).__name__ for one in gc.get_objects()]
        return (
            kinds.count("Visit"),
            kinds.count("Inbound"),
            kinds.count("Arrival"),
            len(list(Path("/proc/self/fd").iterdir())),
        )

    async def app(scope, receive, send):
        await start(send, content_type="text/event-stream")
        if scope["path"] == "/":
            await say(send, b"whole")
        while (await receive())["type"] == "http.request":
            await say(send, b"some", more=True) if scope["path"] == "/stream" else None

    async def case():
        async with place(app) as here:
            await (await here.asks()).answer()
            before = left()
            for n in range(150):
                served = [await here.asks() for _ in range(4)]
                for caller in served:
                    assert (await caller.answer()).body == b"whole"
                    caller.leave("close")
                for how, asked in (
                    ("reset", b"/hang"),
                    ("close", b"/stream"),
                    ("reset", b"/stream"),
                    ("half-close", b"/hang"),
                ):
                    caller = await here.asks(GET.replace(b"/", asked, 1))
                    await turns(n % 7)
                    caller.leave(how)
                await until(lambda: len(here.lines) < 50)
                for caller in here.callers[1:]:
                    caller.sock.close()
                del here.callers[1:]
            del served, caller
            await until(lambda: len(here.lines) == 1)
            *objects, files = left()
            assert (objects, files <= before[-1]) == ([*before[:-1]], True)  # what tests before left open may be gone

    run(case, within=20)
