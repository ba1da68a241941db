"""What a reader of an exchange awaits: a future to its task, resumed inside the arrival of the bytes."""

import asyncio
import contextvars

import pytest

from fastroute.upstreams.pool import Deadlines, Origin, Pool, request_head

DEADLINES = Deadlines(connect_ms=5000, first_chunk_ms=5000, idle_ms=5000, total_ms=5000)
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@pytest.fixture
def talk():
    """Run a coroutine with a pool, and a provider that answers when it is let."""

    def go(act):
        async def main():
            let = asyncio.Event()

            async def provide(reader, writer):
                await reader.readuntil(b"\r\n\r\n")
                await let.wait()
                writer.write(ANSWER)
                await reader.read()
                writer.close()

            server = await asyncio.start_server(provide, "127.0.0.1", 0)
            pool = Pool()
            origin = Origin("http", "127.0.0.1", server.sockets[0].getsockname()[1])
            exchange = pool.begin(origin, request_head("POST", "/", origin.authority, []), b"", DEADLINES)
            try:
                async with asyncio.timeout(5):
                    await act(exchange, let)
            finally:
                await pool.aclose()
                server.close()

        asyncio.run(main())

    return go


def test_a_cancelled_reader_is_cancelled_and_not_resumed_again(talk):
    async def act(exchange, let):
        async def read():
            await exchange.coming()

        reader = asyncio.create_task(read())
        await asyncio.sleep(0)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        exchange.stop()

    talk(act)


def test_a_reader_goes_on_in_its_own_context_and_as_its_own_task(talk):
    """It runs inside the loop's reading of a socket, which is nobody's task and has a context of its own."""
    place = contextvars.ContextVar("place", default="elsewhere")

    async def act(exchange, let):
        async def read():
            place.set("reader")
            while not exchange.answer():
                await exchange.coming()
            assert place.get() == "reader"
            assert asyncio.current_task() is reader
            return await exchange.read()

        reader = asyncio.create_task(read())
        await asyncio.sleep(0)
        let.set()
        assert await reader == b"ok"
        assert place.get() == "elsewhere"

    talk(act)


def test_a_stop_from_another_task_wakes_the_reader_later_and_not_inside_it(talk):
    async def act(exchange, let):
        steps = []

        async def read():
            await exchange.coming()
            steps.append("resumed")

        reader = asyncio.create_task(read())
        await asyncio.sleep(0)
        exchange.stop()
        steps.append("stopped")
        await reader
        assert steps == ["stopped", "resumed"]

    talk(act)


def test_it_is_a_future_to_whoever_waits_for_it(talk):
    async def act(exchange, let):
        arrival = exchange.coming()
        assert asyncio.isfuture(arrival)
        assert not arrival.done()
        let.set()
        await asyncio.wait_for(arrival, 5)
        assert arrival.done()
        assert not arrival.cancelled()
        assert arrival.result() is None
        assert exchange.answer()
        exchange.stop()

    talk(act)
