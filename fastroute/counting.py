"""How many tokens a prompt has, asked of the provider that would answer it where that speaks the caller's dialect.

Counting is not billed, so nothing is reserved; and it is no attempt, so a lane is not judged by it. Whoever cannot ask
estimates: `ask` says None.
"""

from __future__ import annotations

import orjson
from msgspec.structs import replace

from fastroute import outcomes
from fastroute._scan import json_string
from fastroute.call import Call
from fastroute.domain import Entry
from fastroute.gateway import Gateway
from fastroute.relay import CallerGone, Failed
from fastroute.routing.directory import Target
from fastroute.routing.rankers import Ordered, Pinned
from fastroute.upstreams.dialect import parse
from fastroute.upstreams.faults import UpstreamFault
from fastroute.upstreams.upstream import Exchange, Remote, refused_with

# Somebody waits for a number before the real request; a provider that is slow with it is not waited for.
COUNT_MS = 5000


async def ask(gateway: Gateway, call: Call, target: Target) -> bytes | None:
    """The provider's own answer, or None where there is none to be had; `Failed` when the fault is the request's."""
    entry = _entry_of(target)
    if entry is None or entry.lane in gateway.health.troubled or not gateway.configured(entry):
        return None
    relay = gateway.relay
    upstream = relay.upstream_of(entry)
    if not isinstance(upstream, Remote) or upstream.dialect.name != call.surface.native:
        return None
    deadlines = replace(relay.deadlines, first_chunk_ms=COUNT_MS, total_ms=COUNT_MS)
    relay.unwatched.add(call, call.loop)
    exchange: Exchange | None = None
    try:
        exchange = upstream.begin("count_tokens", entry.ref.model, False, call.passed, _body(call, entry), deadlines)
        call.exchange = exchange
        while not exchange.answer():
            await exchange.coming()
        if exchange.status != 200:
            said = upstream.dialect.error(exchange.status, await refused_with(exchange))
            status = outcomes.true_status(exchange.status, said.type)
            if status not in outcomes.CALLERS_FAULT:
                return None
            raise Failed(status, said.type, said.code, upstream.without_key(said.message))
        body = await exchange.read()
    except UpstreamFault:
        if call.gone:
            raise CallerGone("the caller left") from None
        return None
    finally:
        if exchange is not None and not exchange.complete:
            exchange.stop()
        call.exchange = None
        relay.unwatched.drop(call)
        call.unwatch()
    return body if _counts(body) else None


def _entry_of(target: Target) -> Entry | None:
    """The one that would be asked first; rules that read the prompt have no one entry."""
    match target.route.ranker:
        case Pinned(entry_id):
            return target.catalog[entry_id]
        case Ordered(order):
            return target.catalog[order[0]]
    return None


def _body(call: Call, entry: Entry) -> bytes:
    """The caller's bytes with the provider's name of the model, wherever this dialect says it."""
    scan = call.scan
    assert scan is not None
    if scan.model is not None:
        return scan.rewrite([(b"model", json_string(entry.ref.model))])
    if b"odel" in call.body and call.surface.native == "google":
        told = orjson.loads(call.body)
        for word in ("generateContentRequest", "generate_content_request"):
            if isinstance(told.get(word), dict) and "model" in told[word]:
                told[word]["model"] = f"models/{entry.ref.model.removeprefix('models/')}"
                return orjson.dumps(told)
    return call.body


def _counts(body: bytes) -> bool:
    told = parse(body)
    return isinstance(told, dict) and any(type(told.get(word)) is int for word in ("input_tokens", "totalTokens"))
