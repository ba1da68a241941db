"""The data plane's doors: each is a plain ASGI callable that reads, asks the gateway and tells.

No request object, no middleware and no task of its own stands between the server and the relay.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import time
import urllib.parse
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any, Final

import orjson

from fastroute import _heads
from fastroute._sweep import Sweep
from fastroute.bodies import decoded
from fastroute.call import Call, Receive, Send, Surface
from fastroute.callers import CALLERS, ShapeError, embeddings, gemini, mistral
from fastroute.errors import UnknownModel
from fastroute.gateway import SURFACES, Gateway
from fastroute.relay import CallerGone, Failed
from fastroute.web import passthrough, reading, telling

log = logging.getLogger("fastroute.web")

Door = Callable[[Mapping[str, Any], Receive, Send], Coroutine[Any, Any, None]]
Serve = Callable[[Call], Coroutine[Any, Any, None]]

_GEMINI: Final = re.compile(
    r"/(?:v1|v1beta)/models/(?P<model>[^:]+(?::[^:/]+)*):(?P<verb>generateContent|streamGenerateContent|countTokens"
    r"|embedContent|batchEmbedContents)"
)
_GEMINI_EMBEDDINGS: Final = Surface("embeddings", "embeddings", "openai", CALLERS["gemini"])


def _give_up(task: asyncio.Task[Any] | None) -> None:
    if task is not None:
        task.cancel()


class DataPlane:
    """One worker's data plane."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.open: set[Call] = set()
        # Tasks whose request has sent no byte of its body yet.
        self._bodiless: Sweep[asyncio.Task[Any] | None] = Sweep(reading.FIRST_BYTE_S, _give_up)
        self._limit = gateway.config.server.body_limit_bytes
        key = gateway.config.auth.router_key
        self._key = None if key is None else key.reveal().encode()
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
                serve = self._count if verb == "countTokens" else self._serve
                door = self.door(SURFACES["gemini"], serve, model=model, stream=verb == "streamGenerateContent")
        return door

    def last_resort(self, path: str) -> Door | None:
        """A door to a route of the provider's own; to be asked when nothing else is served at the path."""
        surface = passthrough.surface_of(path)
        return None if surface is None else self.door(surface, partial(passthrough.serve, self.gateway))

    def admit(self, scope: Mapping[str, Any]) -> None:
        """`Failed` for a request of any method whose sender may not ask here."""
        self._know(reading.look(scope["headers"]), scope["query_string"])

    def door(
        self,
        surface: Surface,
        serve: Serve | None = None,
        *,
        model: str = "",
        stream: bool = False,
    ) -> Door:
        """A callable for one surface; `serve` answers once the body is read."""
        return partial(self._handle, surface, serve or self._serve, model, stream)

    async def _handle(
        self,
        surface: Surface,
        serve: Serve,
        model: str,
        stream: bool,
        scope: Mapping[str, Any],
        receive: Receive,
        send: Send,
    ) -> None:
        gateway = self.gateway
        loop = asyncio.get_running_loop()
        call = Call(surface, receive, send, gateway.ids.request(), loop.time(), loop)
        call.model = model
        call.stream = stream
        self.open.add(call)
        gateway.metrics.active.inc()
        try:
            found = reading.look(scope["headers"])
            if self._key is not None:
                self._know(found, scope["query_string"])
            if surface.opaque and not found.get(b"content-type", b"application/json").startswith(b"application/json"):
                message = f"only JSON is passed on to {surface.operation}"
                raise Failed(415, "invalid_request_error", "unsupported_content_type", message, closes=True)
            length = reading.length_of(found, self._limit)
            body = b""
            if length:
                task = asyncio.current_task(loop)
                self._bodiless.add(task, loop)
                try:
                    begun = await receive()
                except asyncio.CancelledError:
                    if self._bodiless.drop(task):
                        raise
                    raise reading.slow() from None
                finally:
                    self._bodiless.drop(task)
                whole = _heads.whole(begun, length)
                body = await reading.rest_of(receive, begun, length, self._limit) if whole is None else whole
            call.passed = reading.passed_on(found)
            agent = found.get(b"user-agent")
            if agent is not None and b"mistral" in agent:
                call.mistral = True
            gateway.read(call, body)
            await serve(call)
        except Failed as failed:
            if failed.closes:
                self.count(failed)
            await telling.refusal(call, failed)
        except CallerGone:
            if call.stream:
                gateway.metrics.stream_abort("down", "mid" if call.status else "first")
            call.status = 499
        except Exception:  # a fault of ours: said in the log, and to the caller in its own envelope
            log.exception("request %s met a fault of this gateway", call.id)
            if call.status:
                raise
            message = "this gateway met a fault of its own; its log has the request's id"
            await telling.refusal(call, Failed(500, "server_error", "internal_error", message, closes=True))
        finally:
            self.open.discard(call)
            gateway.metrics.active.dec()
            gateway.finished(call)

    def count(self, failed: Failed) -> None:
        """A request that was refused while it was read, by what was wrong with it."""
        metrics = self.gateway.metrics
        match failed.code:
            case "malformed_request":
                metrics.desync_rejected.inc()
            case "body_aborted":
                metrics.body_aborted.inc()
            case "body_too_large":
                metrics.limit("body")
            case "slow_body":
                metrics.limit("body_slow")

    def cut(self) -> None:
        """End every answer that is under way; its caller reads that this gateway is shutting down."""
        for call in tuple(self.open):
            if call.exchange is not None:
                call.exchange.stop()

    def _know(self, found: dict[bytes, bytes], query: bytes) -> None:
        """Who asks: with a key configured, only who brings it."""
        if self._key is None:
            return
        given = reading.credential(found, query)
        if given is None:
            raise Failed(401, "authentication_error", "missing_api_key", "send your key as a bearer token or x-api-key")
        if not hmac.compare_digest(given.encode("latin-1"), self._key):
            raise Failed(401, "authentication_error", "invalid_api_key", "this key is not known here")

    async def _serve(self, call: Call) -> None:
        gateway = self.gateway
        gateway.plan(call)
        call.created = int(time.time())
        if not call.stream:
            answer = await gateway.relay.answer(call)
            body = mistral.with_id(answer.body, call.id) if call.mistral else answer.body
            await telling.answer(call, body, answer.content_type)
            return
        writer = telling.StreamWriter(call, gateway.relay.encoder(call))
        try:
            await gateway.relay.stream(call, writer)
        except Failed as failed:
            await writer.fail(failed)
        finally:
            await writer.close()

    async def _embed(self, batch: bool, call: Call) -> None:
        """Gemini's embeddings, asked for and answered as OpenAI's on the way."""
        try:
            asked = embeddings.to_embeddings(orjson.loads(call.body), call.model)
        except ShapeError as error:
            raise Failed(400, "invalid_request_error", None, error.message, param=error.param or None) from None
        self.gateway.read(call, orjson.dumps(asked))
        self.gateway.plan(call)
        answer = await self.gateway.relay.answer(call)
        told = embeddings.from_embeddings(orjson.loads(answer.body), batch)
        await telling.answer(call, orjson.dumps(told), answer.content_type)

    async def _count(self, call: Call) -> None:
        """How many tokens a prompt has, as far as a gateway without its tokenizer can tell: characters over four."""
        try:
            self.gateway.directory.resolve(call.model)
        except UnknownModel as error:
            raise Failed(404, "invalid_request_error", "model_not_found", str(error), param="model") from None
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
        await telling.answer(call, orjson.dumps({field: tokens}), b"application/json")
