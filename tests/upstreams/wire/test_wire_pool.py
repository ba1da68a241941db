"""Who gets which connection, when one is opened, and when it goes."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading

import pytest

from fastroute.upstreams.faults import UpstreamFault
from fastroute.upstreams.pool import Deadlines, Origin, Pool, request_head
from fastroute.upstreams.resolver import Resolver

LONG = Deadlines(connect_ms=5000, first_chunk_ms=5000, idle_ms=5000, total_ms=5000)


def test_the_connection_used_last_is_used_next(run, scripted, wired, until):
    all_there = threading.Event()
    upstream = scripted(scripted.serve(scripted.wait(all_there), scripted.answer()))

    async def case():
        async with wired(upstream) as wire:
            tasks = [asyncio.create_task(wire.post()) for _ in range(3)]
            await until(lambda: len(upstream.requests) == 3)
            all_there.set()
            await asyncio.gather(*tasks)
            assert repr(wire.pool) == "<Pool opened=3 reused=0 in_use=0 idle=3 waiting=0>"
            for _ in range(6):
                await wire.post()
            assert sorted(len(served.requests) for served in upstream.connections) == [1, 1, 7]
            assert repr(wire.pool) == "<Pool opened=3 reused=6 in_use=0 idle=3 waiting=0>"

    run(case)


def test_a_full_lane_serves_its_waiters_in_order(run, scripted, wired):
    upstream = scripted(scripted.serve(scripted.pause(0.002), scripted.answer()))

    async def case():
        async with wired(upstream, connections_max=2) as wire:
            served = []

            async def caller(number):
                await (await wire.post(b"%d" % number)).read()
                served.append(number)

            tasks = [asyncio.create_task(caller(number)) for number in range(20)]
            await asyncio.sleep(0)
            assert wire.state == (0, 0, 20, 2)
            await asyncio.gather(*tasks)
            assert wire.pool.opened == 2
            assert wire.state == (0, 2, 0, 0)
            first, second = ([int(body) for body in one.bodies] for one in upstream.connections)
            assert sorted(first + second) == list(range(20))
            assert (first, second) == (sorted(first), sorted(second))

    run(case)


def test_a_waiter_that_leaves_is_passed_over(run, scripted, wired, until):
    release = threading.Event()
    upstream = scripted(scripted.serve(scripted.wait(release), scripted.answer()))

    async def case():
        async with wired(upstream, connections_max=1) as wire:
            tasks = [asyncio.create_task(wire.post(b"%d" % number)) for number in range(4)]
            await until(lambda: wire.state == (1, 0, 3, 0))
            tasks[1].cancel()
            await asyncio.gather(tasks[1], return_exceptions=True)
            assert wire.state == (1, 0, 2, 0)
            release.set()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert upstream.bodies == [b"0", b"2", b"3"]

    run(case)


def test_a_slot_freed_by_a_fault_goes_to_the_next_waiter(run, scripted, wired, until):
    upstream = scripted([scripted.request, scripted.hold], [scripted.request, scripted.answer(), scripted.hold])

    async def case():
        async with wired(upstream, connections_max=1) as wire:
            first = asyncio.create_task(wire.post(first_chunk_ms=40))
            await until(lambda: wire.pool.in_use)
            exchange = await wire.post()
            assert await exchange.read() == b"{}"
            with pytest.raises(UpstreamFault, match="first_chunk"):
                await first
            assert (wire.pool.opened, wire.state) == (2, (0, 1, 0, 0))

    run(case)


def test_a_freed_connection_goes_to_a_waiter_whose_own_is_still_being_opened(run, scripted, wired, until):
    """The one that is being opened is kept for the next."""
    upstream = scripted(scripted.serve(scripted.pause(0.03), scripted.answer()))

    async def case():
        resolved = asyncio.Event()
        resolved.set()

        async def lookup(host, port):
            await resolved.wait()
            return ["127.0.0.1"]

        resolver = Resolver(lookup)
        async with wired(upstream, host="model.test", resolver=resolver) as wire:
            first = asyncio.create_task(wire.post())
            await until(lambda: wire.state == (1, 0, 0, 0))
            resolved.clear()
            resolver._known.clear()
            second = asyncio.create_task(wire.post())
            await asyncio.sleep(0)
            assert wire.state == (1, 0, 1, 1)
            await asyncio.gather(first, second)
            assert wire.state == (0, 1, 0, 1)
            resolved.set()
            await until(lambda: wire.state == (0, 2, 0, 0))
            assert repr(wire.pool) == "<Pool opened=2 reused=1 in_use=0 idle=2 waiting=0>"

    run(case)


def test_idle_connections_are_closed_after_their_time(run, scripted, wired, until):
    upstream = scripted(scripted.serve(scripted.answer()))

    async def case():
        async with wired(upstream, idle_ms=80) as wire:
            while wire.pool.idle < 2:
                await asyncio.gather(wire.post(), wire.post())
            await asyncio.sleep(0.05)
            await wire.post()
            # One has rested since the beginning, the other was used half-way.
            await until(lambda: wire.pool.idle == 1)
            await until(lambda: wire.pool.idle == 0)
            for connection in range(2):
                assert await asyncio.to_thread(upstream.wait_gone, connection, 0.5)
            assert await (await wire.post()).read() == b"{}"
            assert wire.state == (0, 1, 0, 0)

    run(case)


def test_an_origin_with_nothing_left_in_it_is_forgotten_and_met_anew(run, scripted, wired, until):
    """Every change of a registry makes origins anew; those of the one before must not stay for the life of a worker."""
    upstream = scripted(scripted.serve(scripted.answer()))

    async def case():
        async with wired(upstream, idle_ms=30) as wire:
            await wire.post()
            assert wire.origin in wire.pool._lanes
            await until(lambda: not wire.pool._lanes)
            assert await (await wire.post()).read() == b"{}"
            nowhere = Origin("http", "127.0.0.1", 1)
            with pytest.raises(UpstreamFault):
                await wire.pool.exchange(nowhere, request_head("POST", "/", "x", []), b"", LONG)
            await until(lambda: nowhere not in wire.pool._lanes)

    run(case)


def test_an_idle_connection_the_upstream_closes_leaves_the_pool(run, scripted, wired, until):
    upstream = scripted([scripted.request, scripted.answer(), scripted.pause(0.02), scripted.fin])

    async def case():
        async with wired(upstream) as wire:
            await wire.post()
            assert wire.state == (0, 1, 0, 0)
            await until(lambda: wire.state == (0, 0, 0, 0))

    run(case)


@pytest.mark.parametrize("ending", ["fin", "reset"])
def test_a_request_on_a_kept_connection_that_was_dead_is_sent_once_more(run, scripted, wired, ending):
    """The upstream gives up a kept connection just when it is used again: one fresh try, and nobody notices."""
    stale = [scripted.request, scripted.answer(b"one"), scripted.request, getattr(scripted, ending)]
    upstream = scripted(stale, scripted.serve(scripted.answer(b"two")))

    async def case():
        async with wired(upstream) as wire:
            await (await wire.post()).read()
            exchange = await wire.post(b"again")
            assert (exchange.reused, exchange.retried, await exchange.read()) == (True, True, b"two")
            assert upstream.bodies == [b"{}", b"again", b"again"]
            assert wire.state == (0, 1, 0, 0)

    run(case)


@pytest.mark.parametrize(
    ("second", "requests"),
    [(["request", "fin"], 3), (["fin"], 2)],
)
def test_it_is_sent_once_more_and_not_twice(run, scripted, wired, second, requests):
    stale = [scripted.request, scripted.answer(), scripted.request, scripted.fin]
    upstream = scripted(stale, [getattr(scripted, name) for name in second])

    async def case():
        async with wired(upstream) as wire:
            await wire.post()
            with pytest.raises(UpstreamFault) as raised:
                await wire.post()
            assert raised.value.kind in ("cut", "connect")
            assert raised.value.sent, "the first connection had taken the request"
            assert len(upstream.requests) == requests
            assert wire.state == (0, 0, 0, 0)

    run(case)


def test_a_first_answer_byte_forbids_the_second_try(run, scripted, wired):
    stale = [scripted.request, scripted.answer(), scripted.request, scripted.send(b"H"), scripted.fin]
    upstream = scripted(stale)

    async def case():
        async with wired(upstream) as wire:
            await wire.post()
            with pytest.raises(UpstreamFault, match="cut"):
                await wire.post()
            assert len(upstream.connections) == 1

    run(case)


def test_a_fresh_connection_that_dies_is_not_tried_again(run, scripted, wired):
    upstream = scripted([scripted.request, scripted.fin])

    async def case():
        async with wired(upstream) as wire:
            with pytest.raises(UpstreamFault, match="cut"):
                await wire.post()
            assert len(upstream.requests) == 1

    run(case)


def test_a_deadline_on_a_kept_connection_is_not_tried_again(run, scripted, wired):
    upstream = scripted([scripted.request, scripted.answer(), scripted.request, scripted.hold])

    async def case():
        async with wired(upstream) as wire:
            await wire.post()
            with pytest.raises(UpstreamFault, match="first_chunk"):
                await wire.post(first_chunk_ms=30)
            assert len(upstream.connections) == 1

    run(case)


def test_a_refused_connect_is_told_at_once(run, scripted, wired):
    upstream = scripted()
    upstream.close()

    async def case():
        async with wired(upstream) as wire:
            for fault in await asyncio.gather(*(wire.post() for _ in range(20)), return_exceptions=True):
                assert (fault.kind, fault.sent, fault.timed_out) == ("connect", False, False)
            assert wire.state == (0, 0, 0, 0)

    run(case)


def test_a_lane_that_refuses_every_connect_fails_all_who_wait(run, scripted, wired):
    upstream = scripted()
    upstream.close()

    async def case():
        async with wired(upstream, connections_max=1) as wire:
            faults = await asyncio.gather(*(wire.post() for _ in range(10)), return_exceptions=True)
            assert [fault.kind for fault in faults] == ["connect"] * 10

    run(case)


def test_addresses_are_tried_in_order(run, scripted, wired):
    upstream = scripted(scripted.serve(scripted.answer()))
    tried = []

    async def lookup(host, port):
        tried.append((host, port))
        return ["127.0.0.2", "::1", "127.0.0.1"]

    listening_elsewhere = socket.create_server(("127.0.0.2", 0))

    async def case():
        async with wired(upstream, host="model.test", resolver=Resolver(lookup)) as wire:
            assert await (await wire.post()).read() == b"{}"
            assert tried == [("model.test", upstream.port)]
            assert upstream.requests[0].split(b"\r\n")[1] == f"host: model.test:{upstream.port}".encode()

    run(case)
    listening_elsewhere.close()


def test_an_address_that_swallows_the_handshake_leaves_time_for_the_next(run, scripted, wired, until):
    hole = socket.create_server(("127.0.0.3", 0), backlog=0)
    port = hole.getsockname()[1]
    plugs = [socket.socket() for _ in range(3)]
    for plug in plugs:
        plug.setblocking(False)
        plug.connect_ex(("127.0.0.3", port))

    async def case():
        async def handler(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            await reader.read()
            writer.close()

        async def lookup(host, port):
            return ["127.0.0.3", "127.0.0.1"]

        server = await asyncio.start_server(handler, "127.0.0.1", port)

        class Upstream:
            tls = None

        Upstream.port = port
        async with wired(Upstream, host="model.test", resolver=Resolver(lookup)) as wire:
            exchange = await wire.post(connect_ms=200)
            assert await exchange.read() == b"ok"
            assert 0.09 < exchange.age < 1
        server.close()
        await server.wait_closed()

    run(case)
    for plug in [hole, *plugs]:
        plug.close()


def test_only_permitted_addresses_are_connected_to(run, scripted, wired):
    """The address that is asked about is the one connected to; no second look-up can change it."""
    upstream = scripted(scripted.serve(scripted.answer()))
    asked = []

    async def lookup(host, port):
        return ["127.0.0.2", "127.0.0.1"]

    async def case():
        def permit(address):
            asked.append(address)
            return address == "127.0.0.1"

        async with wired(upstream, host="model.test", resolver=Resolver(lookup), permit=permit) as wire:
            assert await (await wire.post()).read() == b"{}"
            assert asked == ["127.0.0.2", "127.0.0.1"]
        async with wired(upstream, permit=lambda address: False) as wire:
            with pytest.raises(UpstreamFault, match=r"no address of 127\.0\.0\.1 may be connected to"):
                await wire.post()
            assert len(upstream.connections) == 1

    run(case)


@pytest.mark.parametrize("trouble", [socket.gaierror(-2, "Name or service not known"), OSError("resolver down")])
def test_a_name_that_leads_nowhere_is_a_dns_fault(run, scripted, wired, trouble):
    async def lookup(host, port):
        raise trouble

    async def case():
        async with wired(scripted(), host="model.test", resolver=Resolver(lookup)) as wire:
            with pytest.raises(UpstreamFault) as raised:
                await wire.post()
            assert (raised.value.kind, raised.value.sent, raised.value.timed_out) == ("dns", False, False)

    run(case)


def test_a_name_without_addresses_and_a_slow_resolver_are_dns_faults(run, scripted, wired):
    async def nothing(host, port):
        return []

    async def slow(host, port):
        await asyncio.sleep(0.1)
        raise OSError("too late to be told")

    async def case():
        for lookup, timed_out in ((nothing, False), (slow, True)):
            async with wired(scripted(), host="model.test", resolver=Resolver(lookup)) as wire:
                with pytest.raises(UpstreamFault) as raised:
                    await wire.post(connect_ms=40)
                assert (raised.value.kind, raised.value.timed_out) == ("dns", timed_out)
        # The look-up nobody waits for any more ends by itself, and nothing is reported.
        await asyncio.sleep(0.1)
        gc.collect()

    run(case)


def test_addresses_come_from_memory_and_outlive_a_failing_resolver(monkeypatch):
    """30 s from memory; then asked again; up to 60 s the old answer stands when the resolver fails or is slow."""
    answers = []
    now = [1000.0]

    async def lookup(host, port):
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        if answer is None:
            await asyncio.sleep(30)
        return answer

    async def case():
        loop = asyncio.get_running_loop()
        real, start = loop.time, loop.time()
        monkeypatch.setattr(loop, "time", lambda: real() - start + now[0])
        monkeypatch.setattr("fastroute.upstreams.resolver._PATIENCE_S", 0.02)
        resolver = Resolver(lookup)
        answers.append(["10.0.0.1"])
        assert await asyncio.gather(*(resolver.addresses("a", 1) for _ in range(5))) == [["10.0.0.1"]] * 5
        now[0] += 29
        assert await resolver.addresses("a", 1) == ["10.0.0.1"]
        now[0] += 10
        answers.append(OSError("down"))
        assert await resolver.addresses("a", 1) == ["10.0.0.1"]
        answers.append(["10.0.0.2"])
        assert await resolver.addresses("a", 1) == ["10.0.0.2"]
        now[0] += 61
        answers.append(OSError("down"))
        with pytest.raises(OSError, match="down"):
            await resolver.addresses("a", 1)
        answers.append(["10.0.0.3"])
        assert await resolver.addresses("a", 1) == ["10.0.0.3"]
        now[0] += 40
        answers.append(None)
        assert await resolver.addresses("a", 1) == ["10.0.0.3"]
        assert answers == []

    asyncio.run(case())


def test_a_closed_pool_stops_everything_and_takes_nothing(run, scripted, wired):
    upstream = scripted([scripted.request, scripted.head("transfer-encoding: chunked"), scripted.hold])

    async def case():
        async with wired(upstream, connections_max=1) as wire:
            exchange = await wire.post()
            waiting = asyncio.create_task(wire.post())
            await asyncio.sleep(0)
            reading = asyncio.create_task(exchange.chunk())
            await asyncio.sleep(0)
            await wire.pool.aclose()
            for task in (waiting, reading):
                with pytest.raises(UpstreamFault) as raised:
                    await task
                assert raised.value.kind == "stopped"
            with pytest.raises(UpstreamFault, match="closed"):
                await wire.post()
            assert await asyncio.to_thread(upstream.wait_gone, 0, 0.5)

    run(case)


def test_two_origins_to_one_host_share_nothing(run, scripted):
    upstream = scripted(scripted.serve(scripted.answer()))

    async def case():
        from fastroute.upstreams.pool import Deadlines

        within = Deadlines(connect_ms=1000, first_chunk_ms=1000, idle_ms=1000, total_ms=1000)
        pool = Pool()
        for _ in range(2):
            origin = Origin("http", "127.0.0.1", upstream.port)
            await (await pool.exchange(origin, request_head("GET", "/", origin.authority, []), b"", within)).read()
        assert repr(pool) == "<Pool opened=2 reused=0 in_use=0 idle=2 waiting=0>"
        await pool.aclose()

    run(case)


@pytest.mark.parametrize(
    ("origin", "authority"),
    [
        (("http", "a.test", 80), "a.test"),
        (("https", "a.test", 443), "a.test"),
        (("https", "a.test", 8443), "a.test:8443"),
        (("http", "::1", 80), "[::1]"),
        (("http", "::1", 8080), "[::1]:8080"),
    ],
)
def test_the_authority_names_the_port_only_where_it_must(origin, authority):
    assert Origin(*origin).authority == authority


@pytest.mark.parametrize(
    "wrong", [{"scheme": "ftp"}, {"scheme": "unix"}, {"connections_max": 0}], ids=["ftp", "unix", "no_connections"]
)
def test_an_origin_that_cannot_work_is_refused(wrong):
    with pytest.raises(ValueError):
        Origin(**{"scheme": "http", "host": "a.test", "port": 80} | wrong)


def test_a_head_is_made_once_with_identity_asked_for():
    head = request_head("POST", "/v1/x?y=z", "a.test", [("Authorization", "Bearer k"), ("x-empty", "")])
    assert head == (
        b"POST /v1/x?y=z HTTP/1.1\r\nhost: a.test\r\nAuthorization: Bearer k\r\nx-empty: \r\n"
        b"accept-encoding: identity\r\n"
    )
    assert request_head("GET", "/", "a.test", [("Accept-Encoding", "br")]).count(b"ncoding") == 1


@pytest.mark.parametrize("bad", ["\r", "\n", "\0", "\r\nx: y", "é", "\x7f", "\x1b", "€"])
@pytest.mark.parametrize("where", ["method", "path", "host", "name", "value"])
def test_what_could_smuggle_is_never_put_on_a_wire(where, bad):
    parts = {"method": "GET", "path": "/x", "host": "a.test", "name": "x-a", "value": "b"}
    for text in (parts[where] + bad, bad + parts[where], bad):
        values = parts | {where: text}
        with pytest.raises(ValueError):
            request_head(values["method"], values["path"], values["host"], [(values["name"], values["value"])])


@pytest.mark.parametrize(
    ("method", "path", "host"),
    [
        *[("get", "/", "a"), ("", "/", "a"), ("GET /", "/", "a"), ("GET", "x", "a"), ("GET", "", "a")],
        *[("GET", "/a b", "a"), ("GET", "http://evil/", "a")],
        *[("GET", "/", ""), ("GET", "/", "a/b"), ("GET", "/", "a@b"), ("GET", "/", "a b")],
    ],
)
def test_a_target_that_is_not_a_path_is_refused(method, path, host):
    with pytest.raises(ValueError):
        request_head(method, path, host, [])


@pytest.mark.parametrize(
    "name", ["Content-Length", "transfer-encoding", "Host", "Connection", "upgrade", "TE", "Expect", "x y", "x:", ""]
)
def test_headers_that_belong_to_the_connection_are_refused(name):
    with pytest.raises(ValueError):
        request_head("POST", "/", "a.test", [(name, "1")])
