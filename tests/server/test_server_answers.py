"""What our own server says to a caller: whole answers, streams, refusals, and what becomes of an application's faults.

What the application is told is in `test_server_listener.py`.
"""

from __future__ import annotations

import asyncio
import email.utils
import time
from contextlib import suppress

import h11
import pytest

from tests.kits import load

kit = load("server/listener_kit.py")
run, place, until, turns, silent = kit.run, kit.place, kit.until, kit.turns, kit.silent
body_of, start, say, ok = kit.body_of, kit.start, kit.say, kit.ok
SPACE, GET, POST = kit.SPACE, kit.GET, kit.POST
OLD = b"GET / HTTP/1.0\r\n\r\n"
CUT = (h11.RemoteProtocolError, ConnectionError)


def answers(*parts, status=200, **headers):
    """An application that sends these parts, and nothing else."""

    async def app(scope, receive, send):
        await start(send, status, **headers)
        for part in parts[:-1]:
            await say(send, part, more=True)
        await say(send, parts[-1])

    return app


def framing(answer):
    return answer.header(b"content-length"), answer.header(b"transfer-encoding")


# --- whole answers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "headers", "length", "chunked"),
    [
        ([b"whole"], {}, b"5", None),
        ([b""], {}, b"0", None),
        ([b"whole"], {"content_length": "5"}, b"5", None),
        ([b"who", b"le"], {"content_length": "5"}, b"5", None),
        ([b"", b"whole", b""], {"content_length": "5"}, b"5", None),
        ([b"who", b"le"], {}, None, b"chunked"),
        ([b"", b"who", b"", b"le", b""], {}, None, b"chunked"),
        ([b"", b""], {}, None, b"chunked"),
        ([b"x" * 17, b"y" * 4096, b"z" * 300_000], {}, None, b"chunked"),
    ],
)
def test_an_answer_is_what_the_application_sent(run, parts, headers, length, chunked):
    """And the next one on the same connection too; what its content-length does not say, chunks do."""

    async def case():
        async with place(answers(*parts, x_one="1", **headers)) as here:
            caller = here.dial()
            for _ in range(2):
                await caller.say(GET)
                answer = await caller.answer()
                assert (answer.status, answer.body, answer.header(b"x-one")) == (200, b"".join(parts), b"1")
                assert (*framing(answer), answer.header(b"connection")) == (length, chunked, None)
            assert len(here.lines) == 1

    run(case)


@pytest.mark.parametrize("status", [200, 204, 299, 304, 400, 404, 503, 599])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("parts", [[b""], [b"a body"], [b"a ", b"body"]])
def test_some_answers_have_no_body_whatever_is_sent(run, status, method, parts):
    async def case():
        async with place(answers(*parts, status=status)) as here:
            caller = here.dial()
            for _ in range(2):
                await caller.say(GET.replace(b"GET", method.encode()))
                answer = await caller.answer(method)
                bare = method == "HEAD" or status in (204, 304)
                assert (answer.status, answer.body) == (status, b"" if bare else b"".join(parts))
                assert framing(answer) == (None, None) or not bare
                assert await silent(caller, 0.003)

    run(case)


def test_a_head_tells_the_length_that_the_application_tells(run):
    async def case():
        async with place(answers(b"", content_length="77")) as here:
            caller = await here.asks(GET.replace(b"GET", b"HEAD") * 2)
            assert [framing(await caller.answer("HEAD")) for _ in range(2)] == [(b"77", None)] * 2

    run(case)


@pytest.mark.parametrize("parts", [[b"whole"], [b"who", b"le"]])
@pytest.mark.parametrize("kind", ["text/plain", "text/event-stream"])
def test_an_old_caller_gets_no_chunks_and_an_end(run, parts, kind):
    async def case():
        async with place(answers(*parts, content_type=kind)) as here:
            caller = await here.asks(OLD.replace(b"\r\n\r\n", b"\r\nconnection: keep-alive\r\n\r\n"))
            answer = await caller.answer()
            assert (answer.body, answer.header(b"transfer-encoding")) == (b"whole", None)
            assert (answer.header(b"connection"), await caller.end()) == (b"close", b"")

    run(case)


@pytest.mark.parametrize("parts", [[b"whole"], [b"who", b"le"]])
@pytest.mark.parametrize("wants", ["caller", "application", "both"])
def test_either_side_may_want_the_connection_to_end(run, parts, wants):
    told = {} if wants == "caller" else {"connection": "close"}
    asked = GET if wants == "application" else GET.replace(b"host: t", b"host: t\r\nConnection: x, Close")

    async def case():
        async with place(answers(*parts, **told)) as here:
            caller = await here.asks(asked)
            answer = await caller.answer()
            assert (answer.body, answer.header(b"connection"), await caller.end()) == (b"whole", b"close", b"")

    run(case)


def test_an_answer_is_dated_now(run):
    async def case():
        async with place(ok) as here:
            caller = await here.asks()
            told = (await caller.answer()).header(b"date").decode()
            assert abs(email.utils.parsedate_to_datetime(told).timestamp() - time.time()) < 2
            assert told.endswith(" GMT")

    run(case)


# --- streams --------------------------------------------------------------------------------------------------------


def test_the_head_of_a_stream_of_events_does_not_wait_for_the_first(run):
    async def case():
        first, second = asyncio.Event(), asyncio.Event()

        async def app(scope, receive, send):
            await start(send, content_type="text/event-stream; charset=utf-8")
            await first.wait()
            await say(send, b"data: 1\n\n", more=True)
            await second.wait()
            await say(send)

        async with place(app) as here:
            caller = await here.asks()
            head = await caller.hear()
            assert head.startswith(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n")
            assert head.endswith(b"\r\n\r\n")
            assert await silent(caller)
            first.set()
            assert await caller.hear() == b"9\r\ndata: 1\n\n\r\n"
            second.set()
            assert await caller.hear() == b"0\r\n\r\n"
            caller.seen = head + b"9\r\ndata: 1\n\n\r\n0\r\n\r\n"
            assert (await caller.answer()).body == b"data: 1\n\n"

    run(case)


LARGE = bytes(range(256)) * 4 * 20 * 1024  # 20 MiB
PIECE = 4096


@pytest.mark.parametrize("size", [PIECE, 100_000, len(LARGE)], ids=["small", "middling", "one"])
@pytest.mark.parametrize("told", [{}, {"content_length": str(len(LARGE))}], ids=["chunked", "length"])
def test_who_reads_slowly_gets_all_of_it_and_is_waited_for(run, size, told):
    """What is sent meanwhile stays within what sockets and transports keep: the application does not get on."""
    sent = 0

    async def app(scope, receive, send):
        nonlocal sent
        await start(send, **told)
        for at in range(0, len(LARGE), size):
            await say(send, LARGE[at : at + size], more=True)
            sent = at + size
        await say(send)

    async def case():
        async with place(app, space=SPACE) as here:
            caller = await here.asks()
            await until(lambda: sent or size == len(LARGE))
            await asyncio.sleep(0.05)
            assert sent < 1_000_000
            assert (await caller.answer()).body == LARGE

    run(case)


def test_a_send_that_was_given_up_may_be_followed_by_another(run):
    """A deadline of the application's own ends one wait; the next send waits again, and is no cancellation."""
    count = 0

    async def app(scope, receive, send):
        nonlocal count
        await start(send)
        while count < 3:
            try:
                async with asyncio.timeout(0.02):
                    await say(send, bytes(SPACE), more=True)
            except TimeoutError:
                count += 1
        await say(send, b"end")

    async def case():
        async with place(app, space=SPACE) as here:
            caller = await here.asks()
            await until(lambda: count == 3)
            assert (await caller.answer()).body.endswith(bytes(100) + b"end")

    run(case, within=1)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_who_waits_for_a_caller_to_read_is_let_go_when_it_leaves(run, how):
    """And what is sent after that goes nowhere, without a fault and without a wait."""
    sent, ended = 0, []

    async def app(scope, receive, send):
        nonlocal sent
        await start(send)
        while sent < 3000:
            await say(send, bytes(SPACE), more=True)
            sent += 1
        await say(send)
        ended.append(await receive())
        ended.append(await receive())

    async def case():
        async with place(app, space=SPACE) as here:
            caller = await here.asks()
            await caller.hear()
            await until(lambda: sent)
            await asyncio.sleep(0.02)
            assert sent < 20
            caller.leave(how)
            await until(lambda: len(ended) == 2)
            assert (sent, ended[1], len(here.lines)) == (3000, {"type": "http.disconnect"}, 0)

    run(case)


# --- refusals -------------------------------------------------------------------------------------------------------


REFUSED = {
    "malformed": (b"GET /\r\n\r\n", 400, "malformed_request"),
    "no http": (b"\x16\x03\x01\x02\x00\x01", 400, "malformed_request"),
    "bare line feeds": (b"GET / HTTP/1.1\nhost: t\n\n", 400, "malformed_request"),
    "two lengths": (b"POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\nx", 400, "malformed_request"),
    "large": (b"GET / HTTP/1.1\r\nx: %b\r\n\r\n" % (b"y" * 65_536), 431, "head_too_large"),
    "endless": (b"GET / HTTP/1.1\r\nx: %b" % (b"y" * 70_000), 431, "head_too_large"),
    "many lines": (b"GET / HTTP/1.1\r\n%b\r\n" % (b"x: y\r\n" * 101), 431, "head_too_large"),
    "version": (b"GET / HTTP/1.2\r\n\r\n", 505, "malformed_request"),
    "http2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "malformed_request"),
}


@pytest.mark.parametrize("before", [b"", GET], ids=["first", "second"])
@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_request_is_told_so_and_is_the_last_on_its_connection(run, what, before):
    data, status, code = REFUSED[what]
    counted = []

    async def case():
        async with place(ok, refused=counted.append) as here:
            caller = await here.asks(before + data + GET)
            if before:
                assert (await caller.answer()).body == b"ok"
            answer = await caller.answer()
            assert (answer.status, answer.code, await caller.end()) == (status, code, b"")
            assert counted == [code]
            caller.leave("close")
            await until(lambda: not here.lines)

    run(case)


def test_a_head_that_is_slow_is_refused_however_it_drips(run):
    async def case():
        async with place(ok, head_s=0.06) as here:
            began = time.monotonic()
            mute, dripping, quick = here.dial(), await here.asks(GET[:5]), await here.asks(GET[:5])
            await quick.say(GET[5:])
            for n in range(5, 100):
                await asyncio.sleep(0.005)
                with suppress(ConnectionError):
                    await dripping.say(GET[n : n + 1])
                if not here.server._house.slow:
                    break
            answer = await dripping.answer()
            assert (answer.status, answer.code, await dripping.end()) == (408, "slow_head", b"")
            assert 0.05 < time.monotonic() - began < 2
            assert (await quick.answer()).body == b"ok"
            await mute.say(GET)
            assert (await mute.answer()).body == b"ok"

    run(case)


def test_a_head_that_began_and_was_refused_is_not_refused_again_for_being_slow(run):
    """Its caller may take its time to leave, longer than what was left for the head."""

    async def case():
        async with place(ok, head_s=0.04, linger_s=0.5) as here:
            caller = await here.asks(GET[:16])
            await until(lambda: len(here.server._house.slow))
            await caller.say(b" no name: x\r\n\r\n")
            assert (await caller.answer()).status == 400
            assert await caller.end() == b""
            slow = await here.asks(GET[:16])
            await asyncio.sleep(0.06)
            assert (await slow.answer()).status == 408
            assert len(here.lines) == 2

    run(case, within=0.5)


@pytest.mark.parametrize("asked", [0, 1])
def test_a_connection_on_which_nothing_is_asked_is_closed_without_a_word(run, asked):
    async def app(scope, receive, send):
        await asyncio.sleep(0.07)  # longer than a connection may be idle, which it is not
        await ok(scope, receive, send)

    async def case():
        async with place(app, idle_s=0.05) as here:
            caller = await here.asks(GET * asked)
            for _ in range(asked):
                assert (await caller.answer()).body == b"ok"
            began = time.monotonic()
            assert await caller.end() == b""
            assert 0.03 < time.monotonic() - began < 2
            await until(lambda: not here.lines)

    run(case)


@pytest.mark.parametrize("asked", [POST % 8_000_000, b"no request\r\n\r\n"], ids=["body", "malformed"])
def test_who_still_sends_when_it_is_refused_reads_all_of_the_refusal(run, asked):
    """A closed socket that is written to resets the connection, and takes the answer with it."""

    async def case():
        async with place(answers(b"too large" * 20_000, status=413), space=SPACE) as here:
            caller = await here.asks(asked)
            for _ in range(10):
                await caller.say(bytes(80_000))
            answer = await caller.answer()
            assert answer.status in (400, 413)
            assert (answer.header(b"connection"), await caller.end()) == (b"close", b"")
            caller.leave("close")
            await until(lambda: not here.lines)

    run(case)


@pytest.mark.parametrize("asked", [POST % 8_000_000, b"no request\r\n\r\n"], ids=["body", "malformed"])
def test_who_never_ends_is_cut(run, asked):
    async def case():
        async with place(ok, linger_s=0.06) as here:
            began = time.monotonic()
            caller = await here.asks(asked)
            with suppress(ConnectionError):
                while time.monotonic() - began < 2:
                    await caller.say(b"more")
                    await asyncio.sleep(0.002)
            assert 0.05 < time.monotonic() - began < 2
            assert not here.lines

    run(case)


def test_who_sends_much_more_after_it_was_refused_is_read_no_further_than_a_mebibyte(run):
    """And is cut when its time is over, or its whole body would be taken for nothing."""

    async def case():
        async with place(ok, linger_s=0.3, space=SPACE) as here:
            caller = await here.asks(POST % 100_000_000)
            said = 0
            with suppress(ConnectionError):
                while said < 100:
                    await caller.say(bytes(SPACE))
                    said += 1
            assert 15 < said < 64
            await until(lambda: not here.lines)

    run(case)


def test_who_resets_the_connection_under_the_last_of_an_answer_is_no_fault(run):
    """Nothing is left to be sent, and so nothing but the end itself meets a socket that is no more."""

    async def case():
        outcome = []

        async def app(scope, receive, send):
            await start(send, content_length="2")
            await say(send, b"ok", more=True)
            here.callers[0].leave("reset")
            outcome.append("a fault")
            await say(send)
            outcome.append("none")

        async with place(app) as here:
            await here.asks(POST % 9)
            await until(lambda: outcome and not here.lines)
            assert outcome[-1] == "none"

    run(case, within=1)


@pytest.mark.parametrize("asked", [POST % 9, b"no request\r\n\r\n", GET], ids=["body", "malformed", "whole"])
@pytest.mark.parametrize("apart", range(5))
def test_who_resets_the_connection_as_it_is_answered_is_no_fault(run, asked, apart):
    async def case():
        async with place(ok) as here:
            for how in ("reset", "close", "half-close"):
                caller = await here.asks(asked)
                await turns(apart)
                caller.leave(how)
                await until(lambda: not here.lines)
                await turns(5)

    run(case)


# --- faults of the application --------------------------------------------------------------------------------------


async def raises(scope, receive, send):
    raise RuntimeError("before its answer")


async def raises_late(scope, receive, send):
    await start(send)
    raise RuntimeError("before its body")


async def leaves(scope, receive, send):
    pass


async def leaves_late(scope, receive, send):
    await start(send, content_length="3", content_type="text/plain")


@pytest.mark.parametrize("app", [raises, raises_late, leaves, leaves_late, answers(b"abc", content_length="2")])
def test_an_application_that_does_not_answer_is_a_fault_told_by_the_server(run, app):
    async def case():
        async with place(app) as here:
            caller = await here.asks()
            answer = await caller.answer()
            assert (answer.status, answer.code, await caller.end()) == (500, "internal_error", b"")
            assert answer.header(b"content-length") == str(len(answer.body)).encode()

    run(case)


@pytest.mark.parametrize("asked", [GET, OLD], ids=["http11", "http10"])
@pytest.mark.parametrize("fault", ["raises", "leaves", "less", "more"])
@pytest.mark.parametrize("kind", ["text/plain", "text/event-stream"])
def test_an_answer_that_is_not_ended_is_never_taken_for_whole(run, fault, kind, asked):
    """Not even where its end is that of the connection."""
    told = {"content_length": "10"} if fault in ("less", "more") else {}

    async def app(scope, receive, send):
        await start(send, content_type=kind, **told)
        await say(send, b"some", more=True)
        if fault == "raises":
            raise RuntimeError("within its answer")
        if fault != "leaves":
            await say(send, b"x" * (5 if fault == "less" else 7))

    async def case():
        async with place(app) as here:
            caller = await here.asks(asked)
            with pytest.raises(CUT):
                await caller.answer()
            await until(lambda: not here.lines)

    run(case)


@pytest.mark.parametrize("kind", ["text/plain", "text/event-stream"])
@pytest.mark.parametrize("name", ["x-one", "x-one\r\nx-two"])
@pytest.mark.parametrize("value", ["a\r\nx-evil: 1", "a\nx-evil: 1", "a\r", "a\0"])
def test_a_header_that_would_be_two_is_not_sent(run, name, value, kind):
    async def case():
        async with place(answers(b"whole", content_type=kind, **{name: value})) as here:
            caller = await here.asks()
            with suppress(ConnectionError):
                seen = await caller.end()
                assert (b"x-evil" in seen, b"x-two" in seen, seen.startswith(b"HTTP/1.1 200")) == (False, False, False)
            await until(lambda: not here.lines)

    run(case)


def test_a_piece_that_is_too_long_is_as_if_it_had_not_been_sent(run):
    async def app(scope, receive, send):
        await start(send, content_length="2")
        with pytest.raises(RuntimeError, match="content-length"):
            await say(send, b"too long", more=True)
        await say(send, b"x", more=True)
        with pytest.raises(RuntimeError, match="content-length"):
            await say(send, b"")
        await say(send, b"y")

    async def case():
        async with place(app) as here:
            caller = await here.asks(GET.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
            head, _, body = (await caller.end()).partition(b"\r\n\r\n")
            assert (body, head.count(b"content-length: 2"), head.count(b"transfer-encoding")) == (b"xy", 1, 0)

    run(case, within=1)


def test_an_application_that_passes_over_its_fault_is_still_not_heard(run):
    """What it sends next would come without a head: another answer to whoever reads it."""
    bodies = [b"one", b"HTTP/1.1 200 OK\r\n\r\n"]

    async def app(scope, receive, send):
        await start(send, x_one="a\r\nb")
        for body in bodies:
            with suppress(RuntimeError, ValueError):
                await say(send, body, more=body is not bodies[-1])

    async def case():
        async with place(app) as here:
            caller = await here.asks()
            seen = b""
            with suppress(ConnectionError):
                seen = await caller.end()
            assert seen == b"" or seen.startswith(
                b"HTTP/1.1 500 Internal Server Error\r\ncontent-type: application/json\r\n"
            )

    run(case, within=1)


def test_messages_out_of_order_are_errors_of_the_application(run):
    async def app(scope, receive, send):
        with pytest.raises(RuntimeError, match="after the answer's start"):
            await say(send, b"early")
        with pytest.raises(RuntimeError, match="no message of an answer"):
            await send({"type": "http.response.trailers"})
        await start(send)
        with pytest.raises(RuntimeError, match="begins once"):
            await start(send)
        await say(send, b"one,", more=True)
        with pytest.raises(RuntimeError, match="begins once"):
            await start(send)
        await say(send, b"two")
        with pytest.raises(RuntimeError, match="before its end"):
            await say(send, b"three")
        with pytest.raises(RuntimeError, match="begins once"):
            await start(send)

    async def case():
        async with place(app) as here:
            caller = here.dial()
            for _ in range(2):
                await caller.say(GET)
                assert (await caller.answer()).body == b"one,two"
            assert await silent(caller)

    run(case)


def test_a_fault_after_the_answer_is_none_of_the_callers(run):
    async def app(scope, receive, send):
        await ok(scope, receive, send)
        raise RuntimeError("after its answer")

    async def case():
        async with place(app) as here:
            caller = await here.asks(GET * 2)
            assert [(await caller.answer()).body for _ in range(2)] == [b"ok"] * 2
            assert await silent(caller)

    run(case)
