"""Answers in a Redis or Valkey: the one file that knows the client. The server counts each answer's time and its room.

It is imported only where an address is configured, since the client is an optional extra.
"""

from __future__ import annotations

import asyncio
from typing import Final

from redis.asyncio import BlockingConnectionPool
from redis.asyncio import Redis as Client
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from fastroute.cache.answers import ANSWER_MAX
from fastroute.cache.store import CacheAway
from fastroute.config import Secret
from fastroute.errors import ConfigError, Problem

PREFIX: Final = "fastroute:answer:"
TIMEOUT_S: Final = 2.0
# A caller waits for what is got.
GET_S: Final = 0.5
_CONNECTIONS: Final = 64
# More than an answer of ours can have; of what somebody else put there no more is read.
_VALUE_MAX: Final = ANSWER_MAX + (1 << 16)


class Redis:
    """A store behind Redis' own protocol; nothing is connected before the first question."""

    def __init__(self, url: Secret) -> None:
        try:
            pool = BlockingConnectionPool.from_url(
                url.reveal(),
                max_connections=_CONNECTIONS,
                timeout=TIMEOUT_S,
                socket_timeout=TIMEOUT_S,
                socket_connect_timeout=TIMEOUT_S,
                retry=Retry(NoBackoff(), 1),  # a kept connection that the server has closed meanwhile
            )
            pool.connection_class(**pool.connection_kwargs)  # which alone knows the options of an address
        except (ValueError, TypeError, AttributeError):  # which may repeat the address, and a password in it
            told = "is no address of a Redis, or has options that its client does not know; wanted redis://HOST:PORT/0"
            raise ConfigError([Problem("cache.redis_url", told)]) from None
        self._client = Client(connection_pool=pool)
        self._pool = pool

    async def get(self, name: str) -> bytes | None:
        try:
            async with asyncio.timeout(GET_S):
                value = await self._client.getrange(PREFIX + name, 0, _VALUE_MAX)
        except (RedisError, OSError) as error:
            raise CacheAway(_said(error, GET_S)) from error
        return value if isinstance(value, bytes) and value else None  # what is not there is empty

    async def put(self, name: str, value: bytes, ttl_s: int) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self._client.set(PREFIX + name, value, ex=ttl_s)
        except (RedisError, OSError) as error:
            raise CacheAway(_said(error, TIMEOUT_S)) from error

    async def close(self) -> None:
        await self._client.aclose()
        await self._pool.disconnect()


def _said(error: Exception, patience_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"it did not answer within {patience_s:g} s"
    return " ".join(str(error).split())[:200] or type(error).__name__
