"""The budget protocol's doors: a runtime with an agent's token leases money, reports what it spends and returns the rest.

Errors here are `{"error", "code"}`, as those runtimes read them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fastroute.config import KNOWN_PROVIDERS, Provider
from fastroute.ledger.accounts import Account
from fastroute.ledger.tokens import PREFIXES, well_formed
from fastroute.relay import Failed
from fastroute.web import desk, reading
from fastroute.web.envelope import JSON, refused

TOKEN_MAX = 2000
EVENTS_PER_MINUTE = 1000
# What can be written down; how much of it makes sense is for the desk to say.
Number = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
_EVENT_TYPES = ("llm_request_completed", "llm_request_failed")


class Handshake(Struct):
    ic_token: str
    provider: str = "openai"
    provider_key_id: Number | str | None = None
    requested_budget: Number | None = None


class Report(Struct):
    lease_id: str
    request_id: str
    tokens: Number
    cost_microdollars: Number
    model: str
    provider: str
    ic_token: str | None = None


class Refresh(Struct):
    current_lease_id: str
    ic_token: str | None = None
    requested_budget: Number | None = None


class Return(Struct):
    lease_id: str
    spent_microdollars: Number = 0
    ic_token: str | None = None


class Key(Struct):
    ic_token: str | None = None


class Event(Struct):
    """`agent_id` and `provider_id` are the panel's own knowledge, taken from the token."""

    event_id: str
    timestamp_ms: Number
    event_type: str
    model: str
    provider: str = "unknown"
    ic_token: str | None = None
    input_tokens: Number | None = None
    output_tokens: Number | None = None
    cost_micros: Number | None = None
    provider_id: str | None = None
    error_code: str | None = None
    error_message: str | None = None


_LENGTHS = {
    "provider": 50,
    "lease_id": 100,
    "request_id": 100,
    "model": 100,
    "current_lease_id": 100,
    "event_id": 100,
    "provider_id": 100,
    "error_code": 100,
    "error_message": 4000,
}

Act = Callable[[Request, Account, Any], Awaitable[Response]]


def routes() -> list[Route]:
    doors: dict[str, tuple[type[Struct], Act]] = {
        "/budget/handshake": (Handshake, _handshake),
        "/budget/report": (Report, _report),
        "/budget/refresh": (Refresh, _refresh),
        "/budget/return": (Return, _return),
        "/agents/provider-key": (Key, _provider_key),
        "/analytics/events": (Event, _event),
    }
    made = []
    for path, (kind, act) in doors.items():
        door = _door(kind, act)
        made.append(Route(f"/api/v1{path}", door, methods=["POST"]))
        if path.startswith("/budget/"):
            made.append(Route(f"/api{path}", door, methods=["POST"]))  # as an older client library asks
    return made


def _door(kind: type[Struct], act: Act) -> Callable[[Request], Awaitable[Response]]:
    async def door(request: Request) -> Response:
        try:
            asked = _read(await desk.body_of(request), kind)
            return await act(request, await _agent(request, asked), asked)
        except Failed as failed:
            return refused(request, failed, {"error": failed.message, "code": _code(failed)})

    return door


def _read(body: bytes, kind: type[Struct]) -> Any:
    try:
        asked = msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Failed(400, "invalid_request_error", "VALIDATION_ERROR", f"the body cannot be used: {error}") from None
    for name, most in _LENGTHS.items():
        value = getattr(asked, name, None)
        least = 0 if name.startswith("error_") else 1  # a provider may fail without a word
        if value is not None and not least <= len(value) <= most:
            message = f"{name} has {least} to {most} characters"
            raise Failed(400, "invalid_request_error", "VALIDATION_ERROR", message, param=name)
    return asked


async def _agent(request: Request, asked: Any) -> Account:
    """The agent whose token came with the request: as a bearer, or in the body as the handshake has it."""
    given = asked.ic_token
    header = reading.look(request.scope["headers"]).get(b"authorization", b"")
    scheme, _, bearer = header.decode("latin-1").partition(" ")
    if scheme.lower() == "bearer":
        if given is not None and given != bearer.strip():
            raise Failed(400, "invalid_request_error", "INVALID_TOKEN", "the bearer and the body name two tokens")
        given = bearer.strip()
    if given is None:
        raise Failed(401, "authentication_error", "UNAUTHORIZED", "send the agent's token")
    if (
        len(given) > TOKEN_MAX
        or not given.isascii()
        or not given.startswith(PREFIXES["agent"])
        or not well_formed(given)
    ):
        raise Failed(400, "invalid_request_error", "INVALID_TOKEN", "this is not an agent's token (ic_...)")
    account: Account = await request.app.data.doorman.holder(given.encode(), request.scope)
    if account.facts.kind != "agent":
        raise Failed(403, "permission_error", "UNAUTHORIZED", "only an agent's token is good here")
    return account


def _provider(request: Request, account: Account, wanted: str | None) -> Provider:
    """The provider an agent may use, with its key; `Failed` when none is assigned or configured.

    The assignment decides: runtimes ask for `openai` whatever their agent uses.
    """
    name = account.facts.metadata.get("provider") or wanted
    if name is None:
        raise Failed(403, "permission_error", "NO_PROVIDER_ASSIGNED", "no provider is assigned to this agent")
    provider: Provider | None = request.app.gateway.config.providers.get(name)
    if provider is None or provider.api_key is None:
        raise Failed(
            404, "invalid_request_error", "PROVIDER_NOT_FOUND", f"no key for provider {name!r} is configured here"
        )
    return provider


async def _handshake(request: Request, account: Account, asked: Handshake) -> Response:
    provider = _provider(request, account, asked.provider)
    granted = await desk.ask(
        request, "leases.handshake", account=account.id, provider=provider.name, requested=asked.requested_budget
    )
    return JSON(granted)


async def _report(request: Request, account: Account, asked: Report) -> Response:
    fields = {name: getattr(asked, name) for name in ("lease_id", "request_id", "tokens", "cost_microdollars")}
    told = await desk.ask(
        request, "leases.report", account=account.id, model=asked.model, provider=asked.provider, **fields
    )
    refused = told.pop("refused")
    if refused is not None:
        return JSON({"error": refused, "code": "LEASE_REFUSED", **told}, 403)
    return JSON(told)


async def _refresh(request: Request, account: Account, asked: Refresh) -> Response:
    return JSON(
        await desk.ask(
            request,
            "leases.refresh",
            account=account.id,
            current_lease_id=asked.current_lease_id,
            requested=asked.requested_budget,
        )
    )


async def _return(request: Request, account: Account, asked: Return) -> Response:
    return JSON(
        await desk.ask(
            request,
            "leases.return",
            account=account.id,
            lease_id=asked.lease_id,
            spent_microdollars=asked.spent_microdollars,
        )
    )


async def _provider_key(request: Request, account: Account, asked: Key) -> Response:
    provider = _provider(request, account, None)
    assert provider.api_key is not None
    known = KNOWN_PROVIDERS.get(provider.name)
    told = {"provider_key": provider.api_key.reveal(), "provider": provider.name}
    if provider.base_url is not None and (known is None or provider.base_url != known.base_url):
        told["base_url"] = provider.base_url
    return JSON(told, headers={"cache-control": "no-store"})


async def _event(request: Request, account: Account, asked: Event) -> Response:
    if asked.event_type not in _EVENT_TYPES:
        message = f"event_type is one of {', '.join(_EVENT_TYPES)}"
        raise Failed(400, "invalid_request_error", "VALIDATION_ERROR", message)
    for name in ("timestamp_ms", "input_tokens", "output_tokens", "cost_micros"):
        value = getattr(asked, name)
        if value is not None and value < 0:
            raise Failed(400, "invalid_request_error", "VALIDATION_ERROR", f"{name} is not negative", param=name)
    request.app.data.doorman.admit_event(account, EVENTS_PER_MINUTE)
    body = msgspec.to_builtins(asked)
    del body["ic_token"]
    told = await desk.ask(request, "events.note", account=account.id, event_id=asked.event_id, body=body)
    return JSON(told, 202 if told["status"] == "accepted" else 200)


def _code(failed: Failed) -> str:
    codes = {"missing_api_key": "UNAUTHORIZED", "invalid_api_key": "UNAUTHORIZED"}
    code = failed.code or "ERROR"
    return codes.get(code, code)
