"""The data plane's doors: each is a plain ASGI callable that reads, asks the gateway and tells.

No request object, no middleware and no task of its own stands between the server and the relay.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import urllib.parse
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any, Final

import orjson

from fastroute import _heads, caching, counting
from fastroute._sweep import Sweep
from fastroute.bodies import decoded
from fastroute.cache import wishes
from fastroute.call import Call, Failed, Receive, Send, Serve, Surface
from fastroute.callers import CALLERS, ShapeError, embeddings, gemini, mistral
from fastroute.gateway import SURFACES, Gateway
from fastroute.ledger.accounts import Account
from fastroute.ledger.unlimited import Unlimited
from fastroute.relay import encoder_for
from fastroute.web import cached, once, passthrough, reading, telling
from fastroute.web._front import Front
from fastroute.web.doorman import Doorman

log = logging.getLogger("fastroute.web")

Door = Callable[[Mapping[str, Any], Receive, Send], Coroutine[Any, Any, None]]

_GEMINI: Final = re.compile(
    r"/(?:v1|v1beta)/models/(?P<model>[^:]+(?::[^:/]+)*):(?P<verb>generateContent|streamGenerateContent|countTokens"
    r"|embedContent|batchEmbedContents)"
)
_GEMINI_EMBEDDINGS: Final = Surface("embeddings", "embeddings", "openai", CALLERS["gemini"])


def _give_up(task: asyncio.Task[Any] | None) -> None:
    if task is not None:
        task.cancel()


class DataPlane(Front):
    """One worker's data plane."""

    def __init__(self, gateway: Gateway, doorman: Doorman | None = None) -> None:
        # Tasks whose request has sent no byte of its body yet.
        bodiless: Sweep[asyncio.Task[Any] | None] = Sweep(reading.FIRST_BYTE_S, _give_up)
        super().__init__(
            gateway,
            gateway.config.server.body_limit_bytes,
            doorman or Doorman(gateway.config, gateway.teller, gateway.limiter, gateway.metrics),
            bodiless,
        )
        self.beats = telling.beats()
        doors = {
            "/chat/completions": self.door(SURFACES["chat"]),
            "/completions": self.door(SURFACES["completions"]),
            "/embeddings": self.door(SURFACES["embeddings"]),
            "/responses": self.door(SURFACES["responses"]),
        }
        anthropic = {
            "/messages": self.door(SURFACES["messages"]),
            "/messages/count_tokens": self.door(SURFACES["messages"], self._count),
        }
        self.posts: dict[str, Door] = {f"/v1{path}": door for path, door in (doors | anthropic).items()}
        self.posts |= {f"/openai{version}{path}": door for path, door in doors.items() for version in ("", "/v1")}
        self.posts |= {f"/anthropic/v1{path}": door for path, door in anthropic.items()}

    def post(self, path: str) -> Door | None:
        """The door behind a path that is posted to."""
        door = self.posts.get(path)
        if door is None and ":" in path:
            found = _GEMINI.fullmatch(path)
            if found is not None:
                verb, model = found["verb"], urllib.parse.unquote(found["model"])
                if verb in ("embedContent", "batchEmbedContents"):
                    return self.door(
                        _GEMINI_EMBEDDINGS, partial(self._embed, verb == "batchEmbedContents"), model=model
                    )
                serve = self._count if verb == "countTokens" else None
                door = self.door(SURFACES["gemini"], serve, model=model, stream=verb == "streamGenerateContent")
        return door

    def last_resort(self, path: str) -> Door | None:
        """A door to a route of the provider's own; to be asked when nothing else is served at the path."""
        surface = passthrough.surface_of(path)
        return None if surface is None else self.door(surface, partial(passthrough.serve, self.gateway))

    async def who(self, scope: Mapping[str, Any]) -> Account | Unlimited:
        """Who sends a request of any method; `Failed` for who may not ask here."""
        found = reading.look(scope["headers"])
        account = self.doorman.meet(found, scope["query_string"])
        return await self.doorman.find(found, scope["query_string"], scope) if account is None else account

    def door(
        self,
        surface: Surface,
        serve: Serve | None = None,
        *,
        model: str = "",
        stream: bool = False,
    ) -> Door:
        """A callable for one surface; `serve` answers once the body is read."""
        return partial(self.handle, surface, serve, model, stream)

    # What the front hands on, because it is not the usual thing.

    def misread(self, error: _heads.HeadError) -> Failed:
        return reading.misread(error)

    def length_of(self, found: dict[bytes, bytes]) -> int:
        return reading.length_of(found, self.limit)

    def slow(self) -> Failed:
        return reading.slow()

    def rest_of(self, receive: Receive, begun: Mapping[str, Any], length: int) -> Coroutine[Any, Any, bytes]:
        return reading.rest_of(receive, begun, length, self.limit)

    def passed_on(self, found: dict[bytes, bytes]) -> Mapping[str, str]:
        return reading.passed_on(found)

    def form_of(self, surface: Surface, found: dict[bytes, bytes]) -> bytes | None:
        return passthrough.boundary(surface, found.get(b"content-type", b"application/json"))

    def read_form(self, call: Call, body: bytes, found: dict[bytes, bytes], mark: bytes) -> None:
        passthrough.read(self.gateway, call, body, found[b"content-type"], mark)

    async def refuse(self, call: Call, failed: Failed, unread: int) -> None:
        """`unread`: how long the body is that nobody will read, as `_heads.length` tells it."""
        if failed.closes:
            self.count(failed.code)
        closes = failed.closes or not await reading.passed_over(call.receive, unread)
        await telling.refusal(call, failed, closes=closes)

    def left(self, call: Call) -> None:
        if call.stream:
            self.metrics.stream_abort("down", "mid" if call.status else "first")
        call.status = 499

    async def own_fault(self, call: Call, fault: Exception) -> None:
        """A fault of ours: said in the log, and to the caller in its own envelope while nothing was told yet."""
        log.error("request %s met a fault of this gateway", call.id, exc_info=fault)
        if call.status:
            raise fault
        message = "this gateway met a fault of its own; its log has the request's id"
        await telling.refusal(call, Failed(500, "server_error", "internal_error", message, closes=True))

    def once(self, call: Call, key: bytes, scope: Mapping[str, Any], serve: Serve | None) -> Serve:
        return partial(once.serve, self.gateway, key, scope["path"], serve or self.ordinary)

    def cached(self, call: Call, found: dict[bytes, bytes], scope: Mapping[str, Any]) -> Serve | None:
        """The same by the cache, where this call may be answered from it; None for every other one."""
        wanted = wishes(found.get(b"cache-control"), found.get(b"x-cache"))
        if not (wanted.keeps and (wanted.asked or caching.likely(call))):
            return None
        asker = "" if call.account.id else caching.digest_of(reading.credential(found, scope["query_string"]))
        return partial(cached.serve, self.gateway, wanted, asker, self.ordinary)

    async def ordinary(self, call: Call) -> None:
        """The usual answer, for who wants it served in an unusual way."""
        self.gateway.plan(call)
        call.created = int(time.time())
        if call.stream:
            await self.stream(call)
            return
        body = await self.gateway.relay.answer(call)
        await telling.answer(call, mistral.with_id(body, call.id) if call.mistral else body)

    def count(self, code: str | None) -> None:
        """A request that was refused while it was read, by what was wrong with it."""
        metrics = self.gateway.metrics
        match code:
            case "malformed_request":
                metrics.desync_rejected.inc()
            case "body_aborted":
                metrics.body_aborted.inc()
            case "body_too_large":
                metrics.limit("body")
            case "slow_body":
                metrics.limit("body_slow")
            case "head_too_large":
                metrics.limit("head")
            case "slow_head":
                metrics.limit("head_slow")

    def cut(self) -> None:
        """End every answer that is under way; its caller reads that this gateway is shutting down."""
        for call in tuple(self.open):
            if call.exchange is not None:
                call.exchange.stop()

    def writer(self, call: Call) -> telling.StreamWriter:
        return telling.StreamWriter(call, encoder_for(call), self.beats)

    async def _embed(self, batch: bool, call: Call) -> None:
        """Gemini's embeddings, asked for and answered as OpenAI's on the way."""
        try:
            asked = embeddings.to_embeddings(orjson.loads(call.body), call.model)
        except ShapeError as error:
            raise Failed(400, "invalid_request_error", None, error.message, param=error.param or None) from None
        self.gateway.read(call, orjson.dumps(asked))
        self.gateway.plan(call)
        answer = await self.gateway.relay.answer(call)
        await telling.answer(call, orjson.dumps(embeddings.from_embeddings(orjson.loads(answer), batch)))

    async def _count(self, call: Call) -> None:
        """How many tokens a prompt has: as its provider says, or else as its characters do, over four."""
        target = self.gateway.target(call)
        counted = await counting.ask(self.gateway, call, target)
        if counted is not None:
            await telling.answer(call, counted)
            return
        assert call.surface.caller is not None
        try:
            if call.surface.name == "gemini":
                gemini.count_to_chat(decoded(call), call.model)  # which may hold a whole request
            else:
                call.surface.caller.to_chat({"max_tokens": 1, **decoded(call), "model": call.model})
        except ShapeError as error:
            raise Failed(400, "invalid_request_error", None, error.message, param=error.param or None) from None
        assert call.scan is not None
        tokens = max(1, call.scan.text_bytes // 4)
        field = "input_tokens" if call.surface.name == "messages" else "totalTokens"
        await telling.answer(call, orjson.dumps({field: tokens}))
