"""Many slow streams at once: 2,000 callers, ten events a second each, one in a hundred leaving at a random moment.

    python -m bench.streams [--streams N] [--direct]

Prints what failed, how late events came beside their hundred milliseconds, and what a stream costs in memory and CPU.
`--direct` asks the provider itself: what is late there is the machine's and the client's own.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import resource
import statistics
import tempfile
import time
from contextlib import ExitStack

import uvloop

from bench.gateway import FIRST, LAST, cpu_us, free_port, rss_mib, start, wait_for
from bench.load import request

EVENTS = 103  # a hundred of content, the finish, the usage and the end
LEAVING = 0.01


class Listener(asyncio.Protocol):
    """One caller of one stream."""

    late_ms: list[float] = []
    whole = broken = left = events = 0

    def __init__(self, asked: bytes, over: asyncio.Event, leaves_after: int) -> None:
        self.asked = asked
        self.over = over
        self.leaves_after = leaves_after
        self.seen = 0
        self.before = 0.0
        self.tail = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # a stream's
        self.transport = transport
        transport.write(self.asked)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        if not self.seen and data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 200"):
            self.transport.close()
            return
        found = data.count(b"\ndata: ") + data.startswith(b"data: ")
        if found and self.before and found == 1 and 2 <= self.seen < 99:
            Listener.late_ms.append((now - self.before - 0.1) * 1000)
        if found:
            self.before = now
        self.seen += found
        Listener.events += found
        self.tail = (self.tail + data)[-24:]
        if self.seen >= self.leaves_after:
            Listener.left += 1
            self.transport.abort()
        elif self.tail.endswith(b"0\r\n\r\n"):
            Listener.whole += b"[DONE]" in self.tail + data
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.tail.endswith(b"0\r\n\r\n") and self.seen < self.leaves_after:
            Listener.broken += 1
        self.over.set()


async def listen(port: int, streams: int) -> float:
    """All streams, begun over five seconds; returns the seconds they took."""
    draw = random.Random(7)
    asked = request(port, True, "gpt-paced-bench")
    overs = []
    loop = asyncio.get_running_loop()
    began = time.monotonic()
    for number in range(streams):
        over = asyncio.Event()
        overs.append(over)
        leaves = draw.randrange(1, EVENTS - 3) if draw.random() < LEAVING else EVENTS * 2
        await loop.create_connection(lambda o=over, n=leaves: Listener(asked, o, n), "127.0.0.1", port)  # type: ignore[misc]  # bound now
        await asyncio.sleep(max(0.0, began + 5 * (number + 1) / streams - time.monotonic()))
    async with asyncio.timeout(60):
        await asyncio.gather(*(over.wait() for over in overs))
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=2000)
    parser.add_argument("--direct", action="store_true")
    asked = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with ExitStack() as stack:
        state = stack.enter_context(tempfile.TemporaryDirectory())
        provider, port = free_port(), free_port()
        start(stack, LAST, "bench.upstream", str(provider))
        served = start(
            stack,
            FIRST,
            *("fastroute", "serve", "--port", str(port), "--workers", "1", "--state-dir", state),
            OPENAI_API_KEY="sk-bench-bench-bench-bench",
            OPENAI_BASE_URL=f"http://127.0.0.1:{provider}",
            LOG_PATH=f"{state}/router.log",
        )
        wait_for(f"http://127.0.0.1:{port}/readyz")
        memory, spent = rss_mib(served.pid), sum(cpu_us(served.pid).values())
        peak = memory

        async def run() -> float:
            nonlocal peak
            listening = asyncio.create_task(listen(provider if asked.direct else port, asked.streams))
            while not listening.done():
                await asyncio.wait({listening}, timeout=0.5)
                peak = max(peak, rss_mib(served.pid))
            return listening.result()

        seconds = uvloop.run(run())
        spent = sum(cpu_us(served.pid).values()) - spent
        late = sorted(Listener.late_ms)
        print(
            f"{asked.streams} streams in {seconds:.1f} s: {Listener.whole} whole, {Listener.left} left by their callers, "
            f"{Listener.broken} broken, {Listener.events} events"
        )
        print(
            f"an event beside its 100 ms: p50 {statistics.median(late):+.2f} ms, p99 {late[len(late) * 99 // 100]:+.2f} ms"
        )
        if not asked.direct:
            print(
                f"{(peak - memory) * 1024 / asked.streams:.0f} KiB a stream, {spent / Listener.events:.0f} us of CPU an event"
            )


if __name__ == "__main__":
    main()
