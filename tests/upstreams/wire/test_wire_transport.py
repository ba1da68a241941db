"""The pool as an httpx transport: what a client sees is httpx, what the wire sees is ours."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from fastroute.upstreams.faults import FaultKind, UpstreamFault
from fastroute.upstreams.pool import Pool
from fastroute.upstreams.transport import _HTTPX, Transport


@pytest.fixture
def client(run):
    """Runs `case(client, pool)` with a client over its own pool."""

    def client(case, connections_max=512, **options):
        async def within():
            pool = Pool()
            transport = Transport(pool, connections_max=connections_max)
            async with httpx.AsyncClient(transport=transport, **options) as one:
                await case(one, pool)
            await pool.aclose()
            assert (pool.in_use, pool.idle, pool.waiting) == (0, 0, 0)

        run(within)

    return client


def test_get_and_post(client, scripted):
    upstream = scripted(scripted.serve(scripted.answer(b'{"a":1}', headers=["content-type: application/json"])))

    async def case(one, pool):
        answer = await one.get(upstream.url + "/v1/models?x=%20y#f")
        assert (answer.status_code, answer.json(), answer.http_version) == (200, {"a": 1}, "HTTP/1.1")
        assert answer.headers["Content-Type"] == "application/json"
        answer = await one.post(upstream.url + "/v1/chat", json={"q": 1}, headers={"authorization": "Bearer k"})
        assert answer.json() == {"a": 1}
        get, post = upstream.requests
        assert get.startswith(b"GET /v1/models?x=%20y HTTP/1.1\r\nhost: 127.0.0.1:")
        assert b"content-length" not in get.lower()
        assert b"content-length: 7" in post.lower()
        assert b"authorization: Bearer k" in post
        assert json.loads(upstream.bodies[1]) == {"q": 1}
        assert repr(pool) == "<Pool opened=1 reused=1 in_use=0 idle=1 waiting=0>"

    client(case)


def test_compression_is_not_asked_for_unless_the_caller_does(client, scripted):
    upstream = scripted(scripted.serve(scripted.answer()))

    async def case(one, pool):
        await one.get(upstream.url)
        await one.get(upstream.url, headers={"accept-encoding": "br"})
        asked = [line for head in upstream.requests for line in head.lower().split(b"\r\n") if b"encoding" in line]
        assert asked == [b"accept-encoding: identity", b"accept-encoding: br"]

    client(case)


def test_compression_nobody_asked_for_is_not_decoded(client, scripted):
    upstream = scripted(scripted.serve(scripted.answer(b"\x1f\x8b", headers=["content-encoding: gzip"])))

    async def case(one, pool):
        with pytest.raises(httpx.DecodingError):
            await one.get(upstream.url)

    client(case)


def test_requests_and_answers_stream(client, scripted):
    answer = scripted.send(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + scripted.chunks(b"one", b"two"), 5, 0.001
    )
    upstream = scripted(scripted.serve(answer))

    async def body():
        for part in (b"a" * 70_000, b"", b"b"):
            yield part

    async def case(one, pool):
        async with one.stream("POST", upstream.url, content=body()) as streamed:
            assert streamed.status_code == 200
            assert b"".join([part async for part in streamed.aiter_raw()]) == b"onetwo"
        assert upstream.bodies == [b"a" * 70_000 + b"b"]
        assert b"transfer-encoding" not in upstream.requests[0].lower()
        assert (pool.in_use, pool.idle) == (0, 1)

    client(case)


def test_redirects_are_the_clients_affair_and_not_followed_unasked(client, scripted):
    upstream = scripted(scripted.serve(scripted.answer(b"", 302, ["location: http://127.0.0.1:1/"])))

    async def case(one, pool):
        answer = await one.get(upstream.url)
        assert (answer.status_code, answer.is_redirect) == (302, True)
        assert len(upstream.requests) == 1

    client(case)


def test_the_environment_has_no_part_in_it(client, scripted, monkeypatch):
    """Neither proxies nor netrc: the transport is given, so httpx mounts nothing else."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    upstream = scripted(scripted.serve(scripted.answer(b"direct")))

    async def case(one, pool):
        assert (await one.get(upstream.url)).content == b"direct"

    client(case, trust_env=False)


def test_every_timeout_is_an_error_of_its_own(client, scripted):
    silent = scripted([scripted.request, scripted.hold])
    mute = scripted([scripted.request, scripted.head("content-length: 5"), scripted.send(b"12"), scripted.hold])
    deaf = scripted([scripted.pause(5)])
    full = scripted(backlog=0)

    async def case(one, pool):
        def within(**seconds):
            return httpx.Timeout(5, **seconds)

        with pytest.raises(httpx.ReadTimeout):
            await one.get(silent.url, timeout=within(read=0.04))
        async with one.stream("GET", mute.url, timeout=within(read=0.04)) as streamed:
            with pytest.raises(httpx.ReadTimeout):
                await streamed.aread()
        with pytest.raises(httpx.WriteTimeout):
            await one.post(deaf.url, content=bytes(16_000_000), timeout=within(write=0.04))
        plugs = [asyncio.create_task(one.get(full.url, timeout=within(connect=0.3, read=0.3))) for _ in range(3)]
        await asyncio.sleep(0.05)
        with pytest.raises(httpx.ConnectTimeout):
            await one.get(full.url, timeout=within(connect=0.04))
        await asyncio.gather(*plugs, return_exceptions=True)
        assert (pool.in_use, pool.waiting) == (0, 0)

    client(case)


def test_a_full_pool_is_a_pool_timeout_and_connect_time_counts_from_the_slot(client, scripted, until):
    upstream = scripted([scripted.request, scripted.pause(0.1), scripted.answer(), scripted.fin])

    async def case(one, pool):
        first = asyncio.create_task(one.get(upstream.url))
        await until(lambda: pool.in_use)
        with pytest.raises(httpx.PoolTimeout):
            await one.get(upstream.url, timeout=httpx.Timeout(5, pool=0.03))
        second = one.get(upstream.url, timeout=httpx.Timeout(5, pool=None, connect=0.05))
        assert [answer.status_code for answer in await asyncio.gather(first, second)] == [200, 200]

    client(case, connections_max=1)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", httpx.ReadError),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n", httpx.ReadError),
        (b"", httpx.ReadError),
        (b"HTTP/1.1 700 Odd\r\n\r\n", httpx.RemoteProtocolError),
        (b"nonsense", httpx.RemoteProtocolError),
    ],
)
def test_a_broken_answer_is_httpxs_error_and_never_looks_complete(client, scripted, answer, error):
    upstream = scripted([scripted.request, scripted.send(answer), scripted.fin])

    async def case(one, pool):
        with pytest.raises(error) as raised:
            await one.get(upstream.url)
        assert isinstance(raised.value.__cause__, UpstreamFault)
        assert raised.value.request.url.port == upstream.port

    client(case)


def test_a_refused_connect_is_a_connect_error(client, scripted):
    upstream = scripted()
    upstream.close()

    async def case(one, pool):
        with pytest.raises(httpx.ConnectError):
            await one.get(upstream.url)

    client(case)


def test_every_kind_of_fault_has_its_httpx_error():
    from typing import get_args

    assert set(_HTTPX) == set(get_args(FaultKind))


@pytest.mark.parametrize("when", ["waiting", "streaming"])
def test_a_cancelled_call_closes_the_socket(client, scripted, until, when):
    head = [scripted.head("transfer-encoding: chunked"), scripted.send(b"3\r\none\r\n")] if when == "streaming" else []
    upstream = scripted([scripted.request, *head, scripted.hold])

    async def case(one, pool):
        task = asyncio.create_task(one.get(upstream.url))
        await until(lambda: upstream.requests)
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(upstream.wait_gone, 0, 0.5)
        assert (pool.in_use, pool.idle) == (0, 0)

    client(case)


def test_leaving_a_stream_half_read_closes_the_socket(client, scripted):
    upstream = scripted([scripted.request, scripted.head("content-length: 99"), scripted.send(b"half"), scripted.hold])

    async def case(one, pool):
        async with one.stream("GET", upstream.url) as streamed:
            async for part in streamed.aiter_raw():
                assert part == b"half"
                break
        assert await asyncio.to_thread(upstream.wait_gone, 0, 0.5)
        assert (pool.in_use, pool.idle) == (0, 0)

    client(case)


def test_a_forgotten_answer_gives_its_slot_back(client, scripted):
    upstream = scripted([scripted.request, scripted.head("content-length: 99"), scripted.hold])

    async def case(one, pool):
        import gc

        request = one.build_request("GET", upstream.url)
        answer = await one.send(request, stream=True)
        assert pool.in_use == 1
        del answer
        gc.collect()
        assert pool.in_use == 0
        assert await asyncio.to_thread(upstream.wait_gone, 0, 0.5)

    client(case)


@pytest.mark.parametrize("headers", [{"x-a": "b\r\nx-c: d"}, {"x-a": "caf\u00e9"}, {"x\na": "b"}])
def test_headers_that_could_smuggle_are_refused(client, scripted, headers):
    upstream = scripted(scripted.serve(scripted.answer()))

    async def case(one, pool):
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        with pytest.raises(httpx.LocalProtocolError):
            await one.get(upstream.url, headers=raw)
        assert upstream.connections == []

    client(case)


def test_other_protocols_are_not_spoken(client):
    async def case(one, pool):
        with pytest.raises(httpx.UnsupportedProtocol):
            await one.get("ftp://127.0.0.1/")

    client(case)


def test_a_request_beyond_64_mib_is_refused_before_anything_is_sent(client, scripted):
    upstream = scripted(scripted.serve(scripted.answer()))

    async def body():
        part = bytes(1 << 20)
        for _ in range(65):
            yield part

    async def case(one, pool):
        with pytest.raises(httpx.LocalProtocolError, match="64 MiB"):
            await one.post(upstream.url, content=body())
        assert upstream.connections == []

    client(case)
