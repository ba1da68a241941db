"""One contract for every store of answers, and what each promises beside it."""

from __future__ import annotations

import asyncio
import logging
import traceback

import pytest

from fastroute.cache import ANSWER_MAX, ENTRIES_MAX, CacheAway, Memory, Shared
from fastroute.cache.shared import REST_S
from fastroute.caching import check
from fastroute.clock import ManualClock
from fastroute.config import Secret, load
from fastroute.errors import ConfigError

NAME, OTHER = "ab" * 32, "cd" * 32
EVERY_BYTE = bytes(range(256)) * 5


def test_what_was_put_is_got_byte_for_byte(kept):
    async def case():
        async with kept() as it:
            assert await it.store.get(NAME) is None
            await it.store.put(NAME, EVERY_BYTE, 60)
            assert await it.store.get(NAME) == EVERY_BYTE
            assert await it.store.get(OTHER) is None

    asyncio.run(case())


def test_the_last_put_counts(kept):
    async def case():
        async with kept() as it:
            await it.store.put(NAME, b"first", 60)
            await it.store.put(NAME, b"second", 60)
            assert await it.store.get(NAME) == b"second"

    asyncio.run(case())


def test_its_time_ends_and_runs_from_the_last_put(kept):
    async def case():
        async with kept() as it:
            await it.store.put(NAME, b"a", 60)
            await it.store.put(OTHER, b"b", 600)
            await it.pass_time(55)
            assert await it.store.get(NAME) == b"a"
            await it.store.put(NAME, b"c", 60)
            await it.pass_time(55)
            assert await it.store.get(NAME) == b"c"
            await it.pass_time(10)
            assert await it.store.get(NAME) is None
            assert await it.store.get(OTHER) == b"b"

    asyncio.run(case())


def test_many_ask_at_once(kept):
    async def case():
        async with kept() as it:
            names = [f"{number:064x}" for number in range(200)]
            await asyncio.gather(*(it.store.put(name, name.encode() * 10, 60) for name in names))
            got = await asyncio.gather(*(it.store.get(name) for name in names))
            assert got == [name.encode() * 10 for name in names]

    asyncio.run(case())


# --- memory ---------------------------------------------------------------------------------------------------------


def test_memory_is_bounded_in_bytes_and_what_was_not_asked_for_longest_goes_first():
    async def case():
        memory = Memory(10_000, ManualClock())
        for number in range(8):
            await memory.put(f"{number}", bytes(1000), 60)
            assert memory.bytes <= 10_000
            await memory.get("0")
        assert await memory.get("0") is not None
        assert await memory.get("1") is None
        assert await memory.get("7") is not None
        await memory.put("big", bytes(20_000), 60)
        assert await memory.get("big") is None
        assert await memory.get("7") is not None

    asyncio.run(case())


def test_memory_is_bounded_in_entries():
    async def case():
        memory = Memory(1 << 30, ManualClock())
        for number in range(ENTRIES_MAX + 1000):
            await memory.put(f"{number}", b"x", 60)
        assert len(memory) == ENTRIES_MAX
        await memory.close()
        assert (len(memory), memory.bytes) == (0, 0)

    asyncio.run(case())


def test_memory_gives_back_the_room_of_what_is_replaced_or_over():
    async def case():
        clock = ManualClock()
        memory = Memory(1 << 20, clock)
        await memory.put("a", bytes(1000), 60)
        before = memory.bytes
        await memory.put("a", bytes(1000), 60)
        assert memory.bytes == before
        clock.advance(60_000)
        assert await memory.get("a") is None
        assert memory.bytes == 0

    asyncio.run(case())


# --- those that may be away -----------------------------------------------------------------------------------------


class Moody:
    """A store that is away when it is told so."""

    def __init__(self):
        self.away = False
        self.asked = 0

    async def get(self, name):
        self.asked += 1
        if self.away:
            raise CacheAway("it took no connection")
        return b"kept"

    async def put(self, name, value, ttl_s):
        await self.get(name)

    async def close(self):
        pass


def test_one_that_is_away_is_said_once_and_asked_again_after_a_rest(caplog):
    async def case():
        clock, store = ManualClock(), Moody()
        shared = Shared(store, "http://cache:8600", clock)
        store.away = True
        for _ in range(5):
            assert await shared.get(NAME) is None
            await shared.put(NAME, b"x", 60)
        assert store.asked == 1
        clock.advance(REST_S * 1000)
        assert await shared.get(NAME) is None
        assert await shared.get(NAME) is None
        assert store.asked == 2
        store.away = False
        clock.advance(REST_S * 1000)
        assert await shared.get(NAME) == b"kept"
        assert await shared.get(NAME) == b"kept"

    with caplog.at_level(logging.WARNING, "fastroute.cache"):
        asyncio.run(case())
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert told[0].startswith(
        "the answer cache at http://cache:8600 is away (it took no connection); this worker goes on"
    )
    assert "\n" not in told[0]
    assert told[1] == "the answer cache at http://cache:8600 is back"


def test_a_service_that_answers_with_something_else_is_away_or_has_nothing(cache_service):
    from fastroute.cache import Service
    from fastroute.caching import _Asking
    from fastroute.upstreams.pool import Pool

    async def case():
        server, pool = cache_service(), Pool()
        await server.open()
        store = Service(_Asking(pool, server.url))
        server.kept[NAME] = (b'{"another": "document"}', 100.0)
        server.kept[OTHER] = (b"\xff no json", 100.0)
        assert await store.get(NAME) is None
        assert await store.get(OTHER) is None
        server.mood = "sick"
        with pytest.raises(CacheAway, match="500"):
            await store.get(NAME)
        with pytest.raises(CacheAway, match="500"):
            await store.put(NAME, b"x", 60)
        await server.close()
        await pool.aclose()

    asyncio.run(case())


def test_a_redis_that_is_not_there_is_away_and_its_password_is_not_told():
    pytest.importorskip("redis", reason="the redis package is not installed")
    from fastroute.cache.redis import Redis

    async def case():
        store = Redis(Secret("redis://:hunter2secret@127.0.0.1:9/0"))
        with pytest.raises(CacheAway) as told:
            await store.get(NAME)
        assert "hunter2secret" not in str(told.value)
        with pytest.raises(CacheAway):
            await store.put(NAME, b"x", 60)
        await store.close()

    asyncio.run(case())


def test_of_what_somebody_put_into_a_redis_no_more_is_read_than_an_answer_may_have(redis_url):
    from fastroute.cache.redis import PREFIX, Redis

    async def case():
        store = Redis(Secret(redis_url))
        await store._client.set(f"{PREFIX}long", b"x" * (4 << 20))
        await store._client.set(f"{PREFIX}empty", b"")
        found = await store.get("long")
        assert found is not None
        assert ANSWER_MAX < len(found) < 2 * ANSWER_MAX
        assert await store.get("empty") is None
        assert await store.get("none") is None
        await store.close()

    asyncio.run(case())


@pytest.mark.parametrize(
    "address",
    [
        "redis://:hunter2secret@127.0.0.1:6553?foo=1",
        "redis://:hunter2secret@127.0.0.1:6553?retry=1",
        "redis://:hunter2secret@127.0.0.1:6553?socket_timeout=soon",
        "redis://:hunter2secret@127.0.0.1:655399",
        "redis://:hunter2secret/unquoted@127.0.0.1:6379",
    ],
)
def test_an_address_that_its_client_cannot_use_is_refused_before_anything_is_served(address, tmp_path):
    """Its options are looked at where a connection is made: by the first request, which met a fault of ours."""
    pytest.importorskip("redis", reason="the redis package is not installed")
    said = {"CACHE_TTL": "60", "CACHE_REDIS_URL": address}
    config = load(None, {**said, "FASTROUTE_STATE_DIR": str(tmp_path)}, {})
    with pytest.raises(ConfigError, match=r"cache\.redis_url: is no address of a Redis") as refused:
        check(config)
    assert "hunter2secret" not in "".join(traceback.format_exception(refused.value))
    check(load(None, {**said, "CACHE_REDIS_URL": "redis://:hunter2secret@127.0.0.1:6379/2"}, {}))
