"""Telling an answer again: which requests may be told one, who runs the one they all wait for, and what is kept of it.

A request that may be answered here meets, in this order, the worker's own memory, whoever already asks the same, and the
store that workers share. Nothing of it stands in the way of a request: what is away or spoiled counts as not kept.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import importlib.util
import re
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

from fastroute.bodies import decoded
from fastroute.cache import (
    Answer,
    CacheAway,
    Memory,
    Service,
    Shared,
    Store,
    Wishes,
    answer_of,
    canonical,
    deterministic,
    name_of,
    root_of,
    sealed,
    secret_of,
    unsealed,
)
from fastroute.call import Call, CallerGone, Failed
from fastroute.callers import ShapeError
from fastroute.clock import Clock
from fastroute.config import Config, Secret
from fastroute.domain import Entry
from fastroute.errors import ConfigError, Problem
from fastroute.ledger import secrets
from fastroute.ledger.accounts import Account
from fastroute.routing.directory import Target
from fastroute.standalone import stands_alone
from fastroute.upstreams.faults import UpstreamFault
from fastroute.upstreams.pool import Deadlines, Origin, Pool, request_head

# What a shared store may take over one question, for which a caller waits, and over keeping an answer, for which nobody does.
ASK_MS: Final = 500
TELL_MS: Final = 2000
_ANSWER_READ_MAX: Final = 4 << 20
# Answers on their way to a shared store; more than these stay in this worker's memory alone.
_PUTTING_MAX: Final = 64
# Names of models and tenants that are remembered, of those that callers may invent.
_REMEMBERED_MAX: Final = 1024
_CLOSINGS: Final[set[asyncio.Task[None]]] = set()
_ZERO: Final = re.compile(rb'"temperature"\s*:\s*-?0(?:\.0*)?(?:[eE][-+]?[0-9]+)?\s*[,}]').search


class Flight:
    """One run that others wait for; `over` gives its answer, None where it came to none."""

    __slots__ = ("left", "over")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.over: asyncio.Future[Answer | None] = loop.create_future()
        self.left = False  # its caller went away, which says nothing of the request

    def end(self, answer: Answer | None) -> None:
        if not self.over.done():
            self.over.set_result(answer)


class Question(Struct):
    """One request as the cache knows it; `flight` is its own while others may wait for it."""

    name: str
    secret: bytes
    wishes: Wishes
    target: Target
    flight: Flight | None = None


class Caching:
    """One worker's cache. A configuration that is read again has another one, over the same answers."""

    def __init__(self, config: Config, pool: Pool, root: bytes, clock: Clock, before: Caching | None = None) -> None:
        settings = config.cache
        self.ttl_s = settings.ttl_s
        self._config = config
        self.root = root
        self._clock = clock
        self._secrets: dict[str, bytes] = {}
        self._meanings: dict[str, tuple[Target, bytes]] = {}
        self._flights: dict[str, Flight] = {} if before is None else before._flights
        self._putting: set[asyncio.Task[None]] = set() if before is None else before._putting
        self.memory: Memory = Memory(settings.max_bytes, clock) if before is None else before.memory
        self.memory.max_bytes = settings.max_bytes
        same = before is not None and _where(before._config) == _where(config)
        self.shared: Shared | None = before.shared if before is not None and same else _shared(config, pool, clock)

    def question(self, call: Call, wishes: Wishes, target: Target, asker: str) -> Question | None:
        """What a call is called here; None for one whose answer may not be told again."""
        try:
            body = decoded(call)
        except ShapeError:
            return None
        surface = call.surface.name
        if not (wishes.asked or deterministic(surface, body)) or not stands_alone(surface, body):
            return None
        account = call.account
        # A number of the books' would be somebody else's on another host that has the same secrets.
        tenant = f"account {account.facts.public_id}" if isinstance(account, Account) and account.id else f"key {asker}"
        secret = self._secrets.get(tenant)
        if secret is None:
            if len(self._secrets) >= _REMEMBERED_MAX:
                self._secrets.clear()
            secret = self._secrets[tenant] = secret_of(self.root, tenant)
        parts = [
            surface.encode(),
            b"stream" if call.stream else b"whole",
            b"mistral" if call.mistral else b"",
            call.model.encode("utf-8", "surrogatepass"),
            self._meaning(call.model, target),
            b"" if account.models is None else "\n".join(sorted(account.models)).encode(),
            b"\n".join([f"{name}: {value}".encode() for name, value in sorted(call.passed.items())]),
            canonical(surface, body),
        ]
        return Question(name_of(secret, parts), secret, wishes, target)

    async def find(self, question: Question, call: Call) -> tuple[Answer, Entry, int] | None:
        """A kept answer, the entry that gave it and its age in seconds; None when the caller is to run the request.

        It may wait for somebody who runs the same. Whoever gets None and has a `flight` is waited for, and says with
        `keep` or `drop` what became of it.
        """
        if not question.wishes.reads:
            return None
        # Nobody waits for another longer than for a provider.
        relay = self._config.relay
        until = call.loop.time() + (relay.first_chunk_ms if call.stream else relay.whole_ms) / 1000
        while True:
            found = self._told(question, call, _unpacked(await self.memory.get(question.name)))
            if found is not None:
                return found
            flight = self._flights.get(question.name)
            if flight is None:
                break
            answer = await self._follow(flight, call, until)
            if answer is not None:
                return self._told(question, call, answer)
            if not flight.left:
                return None  # it failed, or takes too long: each goes on its own
        question.flight = self._flights[question.name] = Flight(call.loop)
        if self.shared is None:
            return None
        value = await self.shared.get(question.name)
        answer = None if value is None else unsealed(question.secret, question.name, value)
        if answer is None:
            if value is not None:
                self.shared.spoiled()
            return None
        found = self._told(question, call, answer)
        if found is not None:
            left_s = self.ttl_s - found[2]
            await self.memory.put(question.name, answer.pack(), left_s)
            self._land(question, answer)
        return found

    async def keep(self, question: Question, call: Call, body: bytes | None) -> None:
        """The run is over, and this is all of what its caller read; kept where it is worth being told again."""
        answer = None if body is None or not self._sound(call) else self._made(call, body)
        if answer is not None:
            await self.memory.put(question.name, answer.pack(), self.ttl_s)
            if self.shared is not None:
                self._share(question, answer)
        self._land(question, answer)

    def drop(self, question: Question, *, left: bool) -> None:
        """The run came to nothing; `left` when only because its caller went away."""
        if question.flight is not None:
            question.flight.left = left
        self._land(question, None)

    async def close(self) -> None:
        """Finish what is on its way to the shared store, and let go of it."""
        if self._putting:
            await asyncio.wait(self._putting, timeout=TELL_MS / 1000)
        if self.shared is not None:
            await self.shared.close()

    def _land(self, question: Question, answer: Answer | None) -> None:
        flight, question.flight = question.flight, None
        if flight is not None:
            if self._flights.get(question.name) is flight:
                del self._flights[question.name]
            flight.end(answer)

    async def _follow(self, flight: Flight, call: Call, until: float) -> Answer | None:
        """The answer of a run that is under way; None when it comes to none, or not until then."""
        call.watch()
        try:
            assert call.watcher is not None
            await asyncio.wait(
                (flight.over, call.watcher),
                timeout=max(until - call.loop.time(), 0),
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            call.unwatch()
        if call.gone:
            raise CallerGone("the caller left")
        account = call.account
        if isinstance(account, Account) and account.state != "live":
            raise Failed(401, "authentication_error", "invalid_api_key", "this key is not known here, or no longer")
        return flight.over.result() if flight.over.done() else None

    def _told(self, question: Question, call: Call, answer: Answer | None) -> tuple[Answer, Entry, int] | None:
        """An answer that this caller may be told now, with its entry and its age."""
        if answer is None or answer.stream != bool(call.stream):
            return None
        age_s = max(self._now_ms() - answer.stored_ms, 0) // 1000
        if age_s >= self.ttl_s or age_s > question.wishes.max_age_s:
            return None
        catalog = question.target.catalog
        return (answer, catalog[answer.entry_id], age_s) if answer.entry_id in catalog else None

    def _made(self, call: Call, body: bytes) -> Answer | None:
        assert call.entry is not None
        return answer_of(call.id, call.entry.id, self._now_ms(), body, stream=bool(call.stream))

    @staticmethod
    def _sound(call: Call) -> bool:
        """A clean end of an answer that was not made shorter than it would be with more money."""
        final = call.final
        if final is None or final.outcome != "ok" or call.status != 200 or call.entry is None:
            return False
        return call.set_cap is None or call.output_cap is not None or call.set_cap == call.entry.max_output

    def _share(self, question: Question, answer: Answer) -> None:
        """Put it where others find it, beside the request, which is over."""
        assert self.shared is not None
        if len(self._putting) < _PUTTING_MAX:
            value = sealed(question.secret, question.name, answer)
            task = asyncio.get_running_loop().create_task(self.shared.put(question.name, value, self.ttl_s))
            self._putting.add(task)
            task.add_done_callback(self._putting.discard)

    def _meaning(self, name: str, target: Target) -> bytes:
        """What a name stands for now: an alias that leads elsewhere, or a provider at another address, is another request."""
        known = self._meanings.get(name)
        if known is not None and known[0] is target:
            return known[1]
        told = hashlib.sha256()
        for entry in target.catalog.entries:
            provider = self._config.providers.get(entry.ref.provider)
            at = entry.endpoint or (None if provider is None else provider.base_url)
            told.update(f"{entry.id}\0{entry.ref}\0{at}\n".encode("utf-8", "surrogatepass"))
        told.update(f"{target.route.ranker!r}\n{'' if target.rules is None else target.rules.digest}".encode())
        if len(self._meanings) >= _REMEMBERED_MAX:
            self._meanings.clear()
        self._meanings[name] = target, told.digest()
        return told.digest()

    def _now_ms(self) -> int:
        return int(self._clock.now().timestamp() * 1000)


def caching(config: Config, pool: Pool, clock: Clock, before: Caching | None = None) -> Caching | None:
    """The cache that a configuration asks for; None where it asks for none. What it does not share with `before` is let go."""
    after: Caching | None = None
    if config.cache.ttl_s:
        root = root_of(secrets.pepper(config.state_dir)) if before is None else before.root
        after = Caching(config, pool, root, clock, before)
    if before is not None and before.shared is not None and (after is None or after.shared is not before.shared):
        closing = asyncio.get_running_loop().create_task(before.shared.close())
        _CLOSINGS.add(closing)
        closing.add_done_callback(_CLOSINGS.discard)
    return after


def check(config: Config) -> None:
    """`ConfigError` for a cache that cannot be served here; nothing is connected to find out."""
    if config.cache.ttl_s and config.cache.redis_url is not None:
        _redis(config.cache.redis_url)


def likely(call: Call) -> bool:
    """Whether a request can be one that is answered the same each time; for most a look at their bytes says no."""
    if call.surface.name == "embeddings":
        return True
    at = call.body.find(b'"temperature"')
    return at >= 0 and _ZERO(call.body, at) is not None


def _unpacked(value: bytes | None) -> Answer | None:
    return None if value is None else Answer.unpack(value)


def _where(config: Config) -> tuple[str | None, Secret | None]:
    """The store that workers share."""
    return config.cache.endpoint, config.cache.redis_url


def _shared(config: Config, pool: Pool, clock: Clock) -> Shared | None:
    settings = config.cache
    if settings.endpoint is not None:
        return Shared(Service(_Asking(pool, settings.endpoint)), settings.endpoint, clock)
    if settings.redis_url is not None:
        parts = urlsplit(settings.redis_url.reveal())
        where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2] or parts.path}"  # the rest may hold a password
        return Shared(_redis(settings.redis_url), where, clock)
    return None


def _redis(url: Secret) -> Store:
    if importlib.util.find_spec("redis") is None:
        raise ConfigError(
            [Problem("cache.redis_url", "needs the package redis, which is not here: pip install 'fastroute[redis]'")]
        )
    from fastroute.cache.redis import Redis  # its client is an optional extra

    return Redis(url)


class _Asking:
    """Questions to a cache service, over the gateway's own connections."""

    def __init__(self, pool: Pool, endpoint: str) -> None:
        parts = urlsplit(endpoint)
        self._origin = Origin.of(endpoint)
        self._path = parts.path
        self._pool = pool
        self._deadlines = {
            method: Deadlines(connect_ms=ms, first_chunk_ms=ms, idle_ms=ms, total_ms=ms, write_ms=ms)
            for method, ms in (("GET", ASK_MS), ("PUT", TELL_MS))
        }

    async def __call__(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        headers = (("content-type", "application/json"),) if body else ()
        head = request_head(method, self._path + path, self._origin.authority, headers)
        try:
            exchange = await self._pool.exchange(self._origin, head, body, self._deadlines[method])
            exchange.committed()
            return exchange.status, await exchange.read(_ANSWER_READ_MAX)
        except UpstreamFault as fault:
            raise CacheAway(fault.message) from fault


def digest_of(credential: str | None) -> str:
    """A caller without an account, by the key it shows, if any; the key itself is kept nowhere."""
    return "" if credential is None else hmac.digest(b"asker", credential.encode("latin-1"), "sha256").hex()
