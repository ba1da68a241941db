"""CPU per small JSON request of the upstream client alone: `python -m bench.wire [--seconds 2] [--rounds 3]`.

32 tasks post 339 bytes and read 627, one event loop, over `Pool.exchange`, over `httpx.AsyncClient` with our transport
and over plain `httpx.AsyncClient`; the floor is a uvloop protocol that writes and takes what comes, unparsed. The
upstream is a raw uvloop protocol in a process of its own, on the other core when there is one. Counted is user and
system time of this process; on a busy machine the distance to the floor is what holds. Streams are 20 chunks as fast as
the reader takes them.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import platform
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from typing import cast

import httpx
import uvloop

from fastroute.upstreams.pool import Deadlines, Origin, Pool, request_head
from fastroute.upstreams.transport import Transport

TASKS = 32
QUESTION = b'{"model":"m","messages":[{"role":"user","content":"' + b"x" * 286 + b'"}]}'
ANSWER = b'{"object":"chat.completion","choices":[],"usage":{},"pad":"' + b"y" * 566 + b'"}'
JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(ANSWER), ANSWER)
EVENT = b'data: {"choices":[{"delta":{"content":"' + b"z" * 146 + b'"}}]}\n\n'
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENTS = 20
STREAM = STREAM_HEAD + (b"%x\r\n%s\r\n" % (len(EVENT), EVENT)) * EVENTS + b"0\r\n\r\n"
DEADLINES = Deadlines(connect_ms=2_000, first_chunk_ms=10_000, idle_ms=30_000, total_ms=600_000)

Request = Callable[[], Awaitable[int]]


class Upstream(asyncio.Protocol):
    """Answers every whole request at once; the path decides which way."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are of no asyncio class.
        self.transport = cast("asyncio.Transport", transport)
        self.pending = b""

    def data_received(self, data: bytes) -> None:
        data = self.pending + data
        end = data.find(b"\r\n\r\n")
        if end < 0 or len(data) < end + 4 + int(data.lower().split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0]):
            self.pending = data
            return
        self.pending = b""
        self.transport.write(STREAM if data.startswith(b"POST /stream") else JSON)


class Floor(asyncio.Protocol):
    """What kernel and loop cost when the client does nothing."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.answer.set_result(data)

    async def ask(self, request: bytes) -> bytes:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self.answer


def serve(core: int | None, port: Connection) -> None:
    if core is not None:
        os.sched_setaffinity(0, {core})

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    uvloop.run(run())


async def measure(request: Request, seconds: float, expected: int) -> tuple[float, float]:
    """(CPU microseconds a request, requests a second) with all tasks busy."""

    async def work(until: float) -> int:
        done = 0
        while time.monotonic() < until:
            assert await request() == expected
            done += 1
        return done

    async def run(length: float) -> int:
        until = time.monotonic() + length
        return sum(await asyncio.gather(*(work(until) for _ in range(TASKS))))

    await run(min(0.2, seconds))
    wall, cpu = time.monotonic(), time.process_time()
    done = await run(seconds)
    return (time.process_time() - cpu) / done * 1e6, done / (time.monotonic() - wall)


async def compare(port: int, seconds: float, rounds: int) -> None:
    pool = Pool()
    origin = Origin("http", "127.0.0.1", port)
    headers = [("content-type", "application/json"), ("authorization", "Bearer none")]
    head = request_head("POST", "/v1/chat/completions", origin.authority, headers)
    stream_head = request_head("POST", "/stream", origin.authority, headers)
    base = f"http://127.0.0.1:{port}"
    limits = httpx.Limits(max_connections=1000, max_keepalive_connections=500)

    loop = asyncio.get_running_loop()
    request = head + b"content-length: %d\r\n\r\n%s" % (len(QUESTION), QUESTION)
    bare = [(await loop.create_connection(Floor, "127.0.0.1", port))[1] for _ in range(TASKS)]

    async def floor() -> int:
        protocol = bare.pop()
        answer = await protocol.ask(request)
        bare.append(protocol)
        return len(answer)

    async def exchange() -> int:
        return len(await (await pool.exchange(origin, head, QUESTION, DEADLINES)).read())

    async def stream() -> int:
        running = await pool.exchange(origin, stream_head, QUESTION, DEADLINES)
        running.committed()
        size = 0
        while chunk := await running.chunk():
            size += len(chunk)
        return size

    async with (
        httpx.AsyncClient(transport=Transport(pool), base_url=base) as ours,
        httpx.AsyncClient(base_url=base, limits=limits, trust_env=False) as plain,
    ):

        async def through_ours() -> int:
            return len((await ours.post("/v1/chat/completions", content=QUESTION)).content)

        async def through_plain() -> int:
            return len((await plain.post("/v1/chat/completions", content=QUESTION)).content)

        subjects: list[tuple[str, Request, int, float]] = [
            ("floor, JSON", floor, len(JSON), seconds / 2),
            ("Pool.exchange, JSON", exchange, len(ANSWER), seconds),
            (f"Pool.exchange, stream of {EVENTS} chunks", stream, len(EVENT) * EVENTS, seconds),
            ("httpx.AsyncClient over Transport, JSON", through_ours, len(ANSWER), seconds / 2),
            ("httpx.AsyncClient as it comes, JSON", through_plain, len(ANSWER), seconds / 2),
        ]
        figures: dict[str, list[tuple[float, float]]] = {}
        for _ in range(rounds):
            for name, ask, expected, length in subjects:
                figures.setdefault(name, []).append(await measure(ask, length / rounds, expected))
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {TASKS} tasks")
    for name, found in figures.items():
        found.sort()
        (best, _), (middle, rate) = found[0], found[len(found) // 2]
        print(f"{name:44} {middle:8.1f} us CPU (best {best:.1f}) {rate:10,.0f}/s")
    print(pool)
    await pool.aclose()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each figure of the pool, half for the others")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    upstream = context.Process(target=serve, args=(cores[1] if len(cores) > 1 else None, theirs), daemon=True)
    upstream.start()
    if len(cores) > 1:
        os.sched_setaffinity(0, {cores[0]})
    try:
        uvloop.run(compare(ours.recv(), options.seconds, options.rounds))
    finally:
        upstream.terminate()
        upstream.join()


if __name__ == "__main__":
    main()
