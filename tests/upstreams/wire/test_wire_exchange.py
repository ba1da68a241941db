"""One exchange on a socket: what is sent, what comes back, and when a connection is kept."""

from __future__ import annotations

import asyncio
import threading

import pytest

from fastroute.upstreams.faults import UpstreamFault


async def drained(exchange):
    body = b""
    while chunk := await exchange.chunk():
        body += chunk
    return body


def test_a_request_is_its_head_its_length_and_its_body(run, scripted, wired):
    upstream = scripted(scripted.serve(scripted.answer(b'{"a":1}', headers=["x-id: 7"])))

    async def case():
        async with wired(upstream) as wire:
            exchange = await wire.post(b'{"q":1}')
            assert (exchange.status, exchange.sent, exchange.header(b"X-Id")) == (200, True, b"7")
            assert exchange.headers() == [(b"x-id", b"7"), (b"content-length", b"7")]
            assert await exchange.read() == b'{"a":1}'
            assert exchange.complete
            assert exchange.first_byte_at <= asyncio.get_running_loop().time()
            assert 0 <= exchange.age < 5
            (head,) = upstream.requests
            assert head.split(b"\r\n") == [
                b"POST /v1/chat HTTP/1.1",
                f"host: 127.0.0.1:{upstream.port}".encode(),
                b"accept-encoding: identity",
                b"content-length: 7",
            ]
            assert upstream.bodies == [b'{"q":1}']
            assert (await (await wire.post(b"")).read(), upstream.bodies[-1]) == (b'{"a":1}', b"")
            await (await wire.post(b"", method="GET")).read()
            assert b"content-length" not in upstream.requests[-1]

    run(case)


def test_a_clean_answer_keeps_the_connection(run, scripted, wired):
    upstream = scripted(scripted.serve(scripted.answer()))

    async def case():
        async with wired(upstream) as wire:
            for turn in range(5):
                exchange = await wire.post()
                assert (exchange.reused, exchange.retried) == (turn > 0, False)
                await exchange.read()
            assert repr(wire.pool) == "<Pool opened=1 reused=4 in_use=0 idle=1 waiting=0>"

    run(case)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nother",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nx",
    ],
    ids=["close", "http10", "two_answers", "surplus"],
)
def test_an_answer_that_does_not_end_cleanly_is_good_but_its_connection_is_not_kept(run, scripted, wired, answer):
    """A second answer on the same connection would be taken for the answer to the next request."""
    upstream = scripted([scripted.request, scripted.send(answer), scripted.hold])

    async def case():
        async with wired(upstream) as wire:
            assert await (await wire.post()).read() == b"ok"
            assert wire.state == (0, 0, 0, 0)
            assert await asyncio.to_thread(upstream.wait_gone, 0, 0.5)

    run(case)


def test_bytes_that_come_later_kill_an_idle_connection(run, scripted, wired):
    late = threading.Event()
    upstream = scripted(
        [scripted.request, scripted.answer(b"one"), scripted.wait(late), scripted.answer(b"evil"), scripted.hold],
        scripted.serve(scripted.answer(b"two")),
    )

    async def case():
        async with wired(upstream) as wire:
            assert await (await wire.post()).read() == b"one"
            assert wire.state == (0, 1, 0, 0)
            late.set()
            assert await asyncio.to_thread(upstream.wait_gone, 0, 0.5)
            assert wire.state == (0, 0, 0, 0)
            assert await (await wire.post()).read() == b"two"

    run(case)


def test_bytes_that_lie_unread_on_a_kept_connection_are_never_an_answer(run, scripted, wired):
    """The loop has not seen them yet when the next request comes: the socket is asked before it is used."""
    late = threading.Event()
    sent = threading.Event()

    class Told(threading.Event):
        def wait(self, timeout=None):
            sent.set()
            return super().wait(timeout)

    upstream = scripted(
        [
            *(scripted.request, scripted.answer(b"one"), scripted.wait(late)),
            *(scripted.answer(b"evil"), scripted.wait(Told()), scripted.hold),
        ],
        scripted.serve(scripted.answer(b"two")),
    )

    async def case():
        async with wired(upstream) as wire:
            await (await wire.post()).read()
            late.set()
            sent.wait(5)  # the loop stands still meanwhile
            exchange = await wire.post()
            assert (await exchange.read(), exchange.reused) == (b"two", False)
            upstream.close()

    run(case)


@pytest.mark.parametrize("greeting", [b"220 ready\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"])
def test_an_upstream_that_speaks_first_is_not_listened_to(run, scripted, wired, greeting):
    """Before the request it is `desync`; when the request was quicker, what came is no answer or ends the connection."""
    upstream = scripted([scripted.send(greeting), scripted.hold])

    async def case():
        async with wired(upstream) as wire:
            (outcome,) = await asyncio.gather(wire.post(), return_exceptions=True)
            if isinstance(outcome, UpstreamFault):
                assert (outcome.kind, outcome.sent) in (("desync", False), ("protocol", True))
            else:
                assert (greeting[:4], outcome.status) == (b"HTTP", 200)

    run(case)


BODY = bytes(range(256)) * 3
WHOLE = [
    b"HTTP/1.1 200 OK\r\ncontent-length: 768\r\n\r\n" + BODY,
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n100\r\n%s\r\n200\r\n%s\r\n0\r\n\r\n"
    % (BODY[:256], BODY[256:]),
]


@pytest.mark.parametrize("ending", ["fin", "reset"])
@pytest.mark.parametrize("whole", WHOLE, ids=["length", "chunked"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_an_end_before_the_end_is_a_cut_and_never_a_clean_end(run, scripted, wired, whole, ending, kept):
    """Wherever it is cut and however, the reader gets the fault: whole bodies at once, streams after what had come."""
    some = whole[: int(len(whole) * kept)]
    cut = [scripted.request, scripted.send(some), scripted.pause(0.02), getattr(scripted, ending)]
    upstream = scripted(cut)

    async def case():
        async with wired(upstream) as wire:
            for read in (lambda exchange: exchange.read(), drained):
                with pytest.raises(UpstreamFault) as raised:
                    await read(await wire.post())
                assert (raised.value.kind, raised.value.sent, raised.value.timed_out) == ("cut", True, False)
            assert wire.state == (0, 0, 0, 0)

    run(case)


def test_a_stream_hands_out_what_came_before_the_cut(run, scripted, wired):
    upstream = scripted(
        [
            scripted.request,
            scripted.head("transfer-encoding: chunked"),
            scripted.send(scripted.chunks(b"one", end=False)),
        ]
    )

    async def case():
        async with wired(upstream) as wire:
            exchange = await wire.post()
            assert await exchange.chunk() == b"one"
            for _ in range(2):
                with pytest.raises(UpstreamFault, match="cut"):
                    await exchange.chunk()

    run(case)


def test_a_body_until_close_ends_with_the_connection_and_says_so(run, scripted, wired):
    head, part = scripted.head("connection: close"), scripted.send(b"some")
    upstream = scripted([scripted.request, head, part, scripted.pause(0.02), scripted.send(b"thing"), scripted.fin])
    broken = scripted([scripted.request, head, part, scripted.pause(0.02), scripted.reset])

    async def case():
        async with wired(upstream) as wire:
            exchange = await wire.post()
            assert await drained(exchange) == b"something"
            assert exchange.until_close
            assert wire.state == (0, 0, 0, 0)
        async with wired(broken) as wire:
            with pytest.raises(UpstreamFault, match="cut"):
                await (await wire.post()).read()

    run(case)


def test_everything_that_has_arrived_is_one_chunk(run, scripted, wired, until):
    parts = [b"event %d\n\n" % number for number in range(20)]
    data = scripted.chunks(*parts, end=False)
    release = threading.Event()
    stream = [scripted.request, scripted.head("transfer-encoding: chunked"), scripted.send(data, 11)]
    upstream = scripted([*stream, scripted.wait(release), scripted.send(b"0\r\n\r\n"), scripted.hold])

    async def case():
        async with wired(upstream) as wire:
            exchange = await wire.post()
            await until(lambda: exchange.turn.unread == sum(map(len, parts)))
            assert await exchange.chunk() == b"".join(parts)
            release.set()
            assert await exchange.chunk() == b""
            assert await exchange.chunk() == b""

    run(case)


@pytest.mark.parametrize("segment", [1, 3, 7])
def test_segments_of_any_size_give_the_same_answer(run, scripted, wired, segment):
    answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + scripted.chunks(b"hello", b" ", b"world")
    upstream = scripted(scripted.serve(scripted.send(answer, segment)))

    async def case():
        async with wired(upstream) as wire:
            for _ in range(3):
                assert await (await wire.post()).read() == b"hello world"
            assert wire.pool.opened == 1

    run(case)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"HTTP/1.1 999 Odd\r\n\r\n", "protocol"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", "protocol"),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc", "encoding"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "protocol"),
    ],
)
def test_a_refused_head_is_a_fault_and_the_connection_is_closed(run, scripted, wired, answer, kind):
    upstream = scripted([scripted.request, scripted.send(answer), scripted.hold])

    async def case():
        async with wired(upstream) as wire:
            with pytest.raises(UpstreamFault) as raised:
                await wire.post()
            assert (raised.value.kind, raised.value.sent) == (kind, True)
            assert wire.state == (0, 0, 0, 0)
            assert await asyncio.to_thread(upstream.wait_gone, 0, 0.5)

    run(case)


def test_redirects_are_answers_like_any_other(run, scripted, wired):
    upstream = scripted(scripted.serve(scripted.answer(b"", 307, ["location: http://127.0.0.1:1/"])))

    async def case():
        async with wired(upstream) as wire:
            exchange = await wire.post()
            assert (exchange.status, await exchange.read(), len(upstream.requests)) == (307, b"", 1)

    run(case)


def test_a_slow_reader_holds_the_upstream_back(run, scripted, wired, until):
    """More than 64 KiB unread stops the reading, so memory stays bounded however much the upstream has to say."""
    size = 32 * 1024 * 1024
    upstream = scripted(
        [scripted.request, scripted.head(f"content-length: {size}"), scripted.send(bytes(size)), scripted.hold]
    )

    async def case():
        async with wired(upstream) as wire:
            exchange = await wire.post(idle_ms=150)
            exchange.committed()
            # The idle deadline is for the upstream's silence, not for ours.
            await until(lambda: exchange.turn.unread > 64 * 1024)
            await asyncio.sleep(0.3)
            assert 64 * 1024 < exchange.turn.unread <= 320 * 1024
            seen, largest = 0, 0
            while chunk := await exchange.chunk():
                seen, largest = seen + len(chunk), max(largest, len(chunk))
            assert (seen, largest <= 320 * 1024) == (size, True)

    run(case)


def test_a_whole_read_takes_a_large_body_at_once(run, scripted, wired):
    size = 3 * 1024 * 1024
    upstream = scripted(scripted.serve(scripted.answer(bytes(size))))

    async def case():
        async with wired(upstream) as wire:
            exchange = await wire.post(bytes(size))
            await asyncio.sleep(0.02)
            assert await exchange.read() == bytes(size)
            assert upstream.bodies == [bytes(size)]
            assert wire.state == (0, 1, 0, 0)

    run(case)


@pytest.mark.parametrize("announced", [True, False], ids=["length", "chunked"])
@pytest.mark.parametrize("size", [2_000, 2_000_000])
def test_a_body_beyond_the_readers_limit_is_a_fault(run, scripted, wired, announced, size):
    body = bytes(size)
    answer = scripted.answer(body) if announced else scripted.send(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + scripted.chunks(body)
    )  # fmt: skip
    upstream = scripted(scripted.serve(answer))

    async def case():
        async with wired(upstream) as wire:
            assert len(await (await wire.post()).read(size)) == size
            with pytest.raises(UpstreamFault, match="limit"):
                await (await wire.post()).read(size - 1)
            assert wire.state[0] == 0

    run(case)


def test_stop_closes_at_once_and_wakes_the_reader(run, scripted, wired):
    upstream = scripted([scripted.request, scripted.head("transfer-encoding: chunked"), scripted.hold])

    async def case():
        async with wired(upstream) as wire:
            exchange = await wire.post()
            asyncio.get_running_loop().call_later(0.02, exchange.stop)
            with pytest.raises(UpstreamFault) as raised:
                await exchange.chunk()
            assert (raised.value.kind, raised.value.sent) == ("stopped", True)
            assert wire.state == (0, 0, 0, 0)
            assert await asyncio.to_thread(upstream.wait_gone, 0, 0.5)
            exchange.stop()

    run(case)


def test_stop_after_the_whole_answer_keeps_the_connection_and_the_answer(run, scripted, wired):
    upstream = scripted(scripted.serve(scripted.answer(b"whole")))

    async def case():
        async with wired(upstream) as wire:
            exchange = await wire.post()
            exchange.stop()
            assert wire.state == (0, 1, 0, 0)
            assert await exchange.read() == b"whole"

    run(case)


@pytest.mark.parametrize("phase", ["head", "chunk", "read"])
def test_a_cancelled_reader_closes_the_socket(run, scripted, wired, until, phase):
    head = [] if phase == "head" else [scripted.head("transfer-encoding: chunked")]
    upstream = scripted([scripted.request, *head, scripted.hold])

    async def case():
        async with wired(upstream) as wire:

            async def caller():
                exchange = await wire.post()
                await (exchange.chunk() if phase == "chunk" else exchange.read())

            task = asyncio.create_task(caller())
            await until(lambda: upstream.requests)
            await asyncio.sleep(0.01)
            assert wire.state == (1, 0, 0, 0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert wire.state == (0, 0, 0, 0)
            assert await asyncio.to_thread(upstream.wait_gone, 0, 0.5)

    run(case)


def test_a_cancellation_that_crosses_the_answer_leaks_nothing(run, scripted, wired, until):
    """The answer has woken the caller, the caller is cancelled before it runs: the slot is free or the message whole."""
    upstream = scripted([scripted.request, scripted.hold])

    async def case():
        async with wired(upstream) as wire:
            task = asyncio.create_task(wire.post())
            await until(lambda: wire.pool.in_use)
            (connection,) = next(iter(wire.pool._lanes.values())).connections
            deliver = connection.data_received
            deliver(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert wire.state == (0, 0, 0, 0)

    run(case)


def test_a_forgotten_exchange_gives_its_slot_back(run, scripted, wired):
    upstream = scripted([scripted.request, scripted.head("transfer-encoding: chunked"), scripted.hold])

    async def case():
        async with wired(upstream) as wire:
            exchange = await wire.post()
            assert wire.state == (1, 0, 0, 0)
            del exchange
            assert wire.state == (0, 0, 0, 0)
            assert await asyncio.to_thread(upstream.wait_gone, 0, 0.5)

    run(case)


def test_an_exchange_has_one_reader_at_a_time(run, scripted, wired):
    upstream = scripted([scripted.request, scripted.head("transfer-encoding: chunked"), scripted.hold])

    async def case():
        async with wired(upstream) as wire:
            exchange = await wire.post()
            first = asyncio.create_task(exchange.chunk())
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="one reader"):
                await exchange.chunk()
            with pytest.raises(UpstreamFault, match="stopped"):
                await first

    run(case)


def test_an_early_refusal_of_a_large_request_is_heard_and_its_connection_not_kept(run, scripted, wired):
    """The upstream answers before it has read the request; what is left of that must not precede the next one."""
    upstream = scripted([scripted.answer(b"too large", 413), scripted.pause(0.2), scripted.hold])

    async def case():
        async with wired(upstream) as wire:
            (outcome,) = await asyncio.gather(wire.post(bytes(16 * 1024 * 1024)), return_exceptions=True)
            if isinstance(outcome, UpstreamFault):
                assert outcome.kind == "desync"
            else:
                assert (outcome.status, await outcome.read()) == (413, b"too large")
            assert wire.state == (0, 0, 0, 0)

    run(case)
