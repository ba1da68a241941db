"""The agents' doors: one announces itself with the models it offers, and says again and again that it lives.

Who may: whoever brings an agent's token, and while nobody has a key at all, whoever reaches a house that only this machine
reaches. A beat goes into shared memory; the books hear of it seldom.
"""

from __future__ import annotations

import logging
from typing import Any, Final

import msgspec
from msgspec import Struct
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fastroute.gateway import Gateway
from fastroute.ledger.accounts import Account
from fastroute.ledger.agents import OFFERS_MAX
from fastroute.relay import Failed
from fastroute.upstreams import permits
from fastroute.web import desk
from fastroute.web.envelope import JSON

BODY_MAX: Final = 256 * 1024
# How often the books hear that an agent lives.
TELL_MS: Final = 600_000
# A proxy in front says with one of these that the address we see is its own, and nobody's agent is there.
_FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-real-ip", "via")

log = logging.getLogger("fastroute.agents")


class _Announcement(Struct):
    """`key` asks for the key that this house will show the agent with every request."""

    name: str
    endpoint: str
    models: list[str]
    key: bool = False


class _Beat(Struct):
    """`draining`: it finishes what it has and takes nothing new."""

    name: str
    queue_length: int = 0
    draining: bool = False


def routes() -> list[Route]:
    return [
        Route("/register", _register, methods=["POST"]),
        Route("/heartbeat", _heartbeat, methods=["POST"]),
    ]


async def _register(request: Request) -> Response:
    owner, models = await _owner(request)
    said = _read(await desk.body_of(request, BODY_MAX), _Announcement)
    gateway: Gateway = request.app.gateway
    if len(said.models) > OFFERS_MAX:
        raise _bad("models", f"models: an agent offers at most {OFFERS_MAX} models")
    for model in said.models:
        if models is not None and model not in models:
            message = f"the token of this agent is for {', '.join(sorted(models))}, and not for {model!r}"
            raise Failed(403, "permission_error", "insufficient_scope", message, param="models")
        taken = owner_of(gateway, model)
        if taken is not None:
            message = f"model {model!r} is owned by {taken}; offer it under another name"
            raise Failed(409, "invalid_request_error", "model_name_taken", message, param="models")
    peer = _peer(request)
    await _check_endpoint(gateway, said.endpoint, peer)
    row = await desk.ask(
        request,
        "agents.register",
        name=said.name,
        endpoint=said.endpoint,
        models=said.models,
        owner=owner,
        peer=peer,
        keyed=said.key,
    )
    _note(gateway, row["id"], 0)
    request.app.told_agents[row["id"]] = gateway.relay.clock.monotonic_ms()
    request.app.look()
    return JSON({"status": "ok"} if row["key"] is None else {"status": "ok", "key": row["key"]})


async def _heartbeat(request: Request) -> Response:
    owner, _ = await _owner(request)
    said = _read(await desk.body_of(request, BODY_MAX), _Beat)
    if not 0 <= said.queue_length < 1 << 31:
        raise _bad("queue_length", "queue_length is a whole number from 0")
    gateway: Gateway = request.app.gateway
    assert gateway.fleet is not None
    known = gateway.fleet.agents.get(said.name)
    place, whose = (known.id, known.owner) if known is not None else (0, 0)
    if known is None or whose != owner:
        # One that came a moment ago is not in this worker's directory yet, nor is a new owner.
        row = await desk.ask(request, "agents.find", name=said.name)
        place, whose = row["id"], row["owner"]
    if whose != owner:
        message = f"no agent of yours is registered as {said.name!r}"  # another's is not there
        raise Failed(404, "invalid_request_error", "agent_not_found", message, param="name")
    _note(gateway, place, said.queue_length, leaving=said.draining)
    await _tell(request, place, said.name)
    return JSON({"status": "ok"})


def owner_of(gateway: Gateway, model: str) -> str | None:
    """Who answers to a name already, where it is nobody's agent: then no agent may offer it."""
    directory = gateway.directory
    if model in directory.offers:
        return None
    if model in directory.routes:
        return "this gateway: it is a route or an alias"
    entry = directory.entry(model)
    if entry is None:
        return None
    if entry.id in directory.catalog:
        return f"{entry.ref.provider}: this gateway has a model of that name"
    # Names that only begin like an agent's (`local...`) are there for agents to take.
    return None if entry.ref.provider == "local" and entry.ref.model == model else entry.ref.provider


async def _owner(request: Request) -> tuple[int, frozenset[str] | None]:
    """The account of the agent's token and the names it may offer (None is all); account 0 is an open house's."""
    if "origin" in request.headers:
        # A page that somebody looks at on this machine reaches an open house as well as its owner does.
        raise Failed(403, "permission_error", "browser_refused", "a browser announces no agents")
    account = await request.app.data.who(request.scope)
    if isinstance(account, Account) and account.id:
        if account.facts.kind != "agent":
            message = (
                f"a {account.facts.kind} may not announce models; make a token with "
                "`fastroute keys create --kind agent --name NAME`"
            )
            raise Failed(403, "permission_error", "insufficient_scope", message)
        request.app.data.doorman.admit_asker(account)
        return account.id, account.models
    if request.app.gateway.config.auth.router_key is not None:
        message = "the key of all callers may not announce models; send an agent's token (ic_...)"
        raise Failed(403, "permission_error", "insufficient_scope", message)
    return 0, None


async def _check_endpoint(gateway: Gateway, endpoint: str, peer: str) -> None:
    problem = permits.shape_problem(endpoint)
    if problem is not None:
        raise _bad("endpoint", problem)
    resolved = await run_in_threadpool(permits.resolve, endpoint)
    config = gateway.config
    try:
        permits.check(permits.Permits(config.agents.allowed), endpoint, peer, resolved)
        permits.check_elsewhere(endpoint, resolved, config.server.host, config.server.port)
    except permits.NotPermitted as error:
        raise Failed(403, "permission_error", "endpoint_not_allowed", str(error), param="endpoint") from None


def _peer(request: Request) -> str:
    """The address that speaks; nobody's where a proxy stands in between."""
    if request.client is None or any(name in request.headers for name in _FORWARDED):
        return ""
    return request.client.host


def _note(gateway: Gateway, place: int, queue: int, *, leaving: bool = False) -> None:
    assert gateway.fleet is not None
    gateway.fleet.beats.beat(place, gateway.relay.clock.monotonic_ms(), queue, leaving=leaving)


async def _tell(request: Request, place: int, name: str) -> None:
    """Let the books hear of it, if they did not for a while; should they be away, the next beat will."""
    told: dict[int, int] = request.app.told_agents
    now_ms = request.app.gateway.relay.clock.monotonic_ms()
    if now_ms - told.get(place, -TELL_MS) < TELL_MS:
        return
    told[place] = now_ms
    try:
        await desk.ask(request, "agents.heard", name=name)
    except Failed as failed:
        if failed.status < 500:
            raise
        del told[place]


def _read(body: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Failed(400, "invalid_request_error", "invalid_request", f"the body cannot be used: {error}") from None


def _bad(field: str, message: str) -> Failed:
    return Failed(400, "invalid_request_error", "invalid_request", message, param=field)
