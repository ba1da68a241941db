"""Policies in effect: the names they are asked by, and what each says to the relay about one call and its attempts.

Routing knows nothing of them but an order; a `Ruling` hangs on a call as its `rules`, and a call without one pays a look
for that and nothing more. A policy rules chats in every dialect; of embeddings and the rest it only orders the models.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

import orjson
from msgspec.structs import replace

from fastroute import _core, capture, settle
from fastroute.bodies import decoded
from fastroute.call import Call, Failed, Poor
from fastroute.domain import Entry, LatencyFact
from fastroute.errors import CatalogError, ConfigError, Problem, UnknownModel
from fastroute.gateway import SCANNER
from fastroute.hearing import Heard, Tap, made_out
from fastroute.lanes import Latency
from fastroute.money import usd_from_microdollars
from fastroute.policies import STRUCTURE, Policies, Policy, digest
from fastroute.routing.directory import Directory
from fastroute.routing.rankers import Ordered, Pinned, Preferring, Ranker
from fastroute.upstreams.anthropic import Anthropic
from fastroute.upstreams.dialect import Dialect
from fastroute.upstreams.google import Google
from fastroute.upstreams.openai import OpenAI
from fastroute.upstreams.pool import Deadlines
from fastroute.upstreams.upstream import Exchange, Upstream, Wrapped

log = logging.getLogger("fastroute.policies")

# Where a dialect keeps what a policy says in chat's words: for its sampling, its system text and its longest answer.
_SAMPLING: Final[dict[str, dict[str, str]]] = {
    "chat": {name: name for name in ("temperature", "top_p", "stop", "response_format")},
    "completions": {name: name for name in ("temperature", "top_p", "stop")},
    "messages": {"temperature": "temperature", "top_p": "top_p", "stop": "stop_sequences"},
    "responses": {"temperature": "temperature", "top_p": "top_p"},
    "gemini": {"temperature": "temperature", "top_p": "topP", "stop": "stopSequences"},
}
_CAPS: Final[dict[str, tuple[str, ...]]] = {
    "chat": ("max_completion_tokens", "n_predict", "max_tokens"),
    "completions": ("max_tokens", "n_predict"),
    "messages": ("max_tokens",),
    "responses": ("max_output_tokens",),
    "gemini": ("maxOutputTokens", "max_output_tokens"),
}
# What a caller reads of an answer, by the dialect of its door.
_SPOKEN: Final[dict[str, Dialect]] = {"openai": OpenAI(), "anthropic": Anthropic(), "google": Google()}
_SYSTEM_ROLES: Final = ("system", "developer")


def add_policies(directory: Directory, policies: Policies) -> None:
    """Every policy as a route of its name, and each of its models as `policy:model`, which is not listed.

    Rows, models and aliases come before a policy of the same name. `CatalogError` names the policy that cannot be served.
    """
    taken = set(directory.names())
    for policy in policies.by_name.values():
        if policy.name in taken:
            log.warning("policy %r is hidden by a model or an alias of that name", policy.name)
            continue
        named: dict[str, str] = {}
        orders: dict[str, tuple[str, ...]] = {}
        for model in policy.models:
            orders[model] = tuple(_entries(directory, model, policy, policies.sources[policy.name]))
            for entry_id in orders[model]:
                named.setdefault(entry_id, model)
        _check_asides(directory, policy, policies.sources[policy.name])
        rules = Rules(policy, named)
        ids = tuple(named)
        directory.add_route(policy.name, _ranker(policy, ids), ids, rules=rules)
        for model, first in orders.items():
            rest = tuple(each for each in ids if each not in first) if policy.pinned == "failover" else ()
            order = (*first, *rest)
            directory.add_route(f"{policy.name}:{model}", Ordered(order), order, rules=rules, listed=False)


def latency_window(directory: Directory) -> int:
    """How many attempts of each entry have to be remembered for the policies of this directory."""
    return max((rules.policy.routing.p95_window_n for rules in directory.rules()), default=0)


def _entries(directory: Directory, model: str, policy: Policy, source: str) -> Iterable[str]:
    """The entries that one model of a policy stands for: one, or the targets of an alias."""
    if directory.absent(model) is not None:
        return (model,)
    try:
        ranker = directory.resolve(model).route.ranker
    except UnknownModel as error:
        raise CatalogError(f"policy {policy.name!r} ({source}): {error}") from None
    if isinstance(ranker, Pinned):
        return (ranker.entry_id,)
    if isinstance(ranker, Ordered):
        return ranker.order
    raise CatalogError(f"policy {policy.name!r} ({source}): {model!r} chooses for itself; name models or aliases")


def _check_asides(directory: Directory, policy: Policy, source: str) -> None:
    """What a policy does beside answering must be possible here."""
    if policy.capture.prompts and not capture.installed():
        message = (
            f"policy {policy.name!r}: capture.prompts keeps them encrypted, with a package that is not installed; "
            "run `pip install 'fastroute[capture]'`, or leave it out"
        )
        raise ConfigError([Problem(source, message)])
    if policy.shadow is not None:
        _entries(directory, policy.shadow.model, policy, source)
    if policy.judge not in (None, STRUCTURE):
        _entries(directory, policy.judge, policy, source)


def _ranker(policy: Policy, ids: tuple[str, ...]) -> Ranker:
    prefer = policy.objectives.prefer
    if prefer is None or prefer == "order":
        return Ordered(ids, policy.target_p95_ms)
    return Preferring(prefer)


class Rules:
    """One policy as it is served; `named` has each entry's name as the policy's file spells it."""

    def __init__(self, policy: Policy, named: dict[str, str]) -> None:
        self.policy = policy
        self.named = named
        self.digest = digest(policy)
        # An upper bound: a caller that brings a system text of its own is not sent ours.
        text = policy.system
        self.system_bound = 0 if text is None else _core.token_bound(len(text.encode()), 1, 0, 0, _core.UNKNOWN)

    def shadow_of(self, request: str) -> str | None:
        """The model that is asked again what this request asks; None for those that the policy's share leaves out."""
        shadow = self.policy.shadow
        if shadow is None or zlib.crc32(request.encode()) % 1000 >= shadow.share_thousandths:
            return None
        return shadow.model

    def latencies(self, latency: Latency) -> Callable[[], dict[str, LatencyFact]]:
        """What is known of the models' latencies, over the policy's own window."""
        return partial(latency.facts, self.policy.routing.p95_window_n)

    def leaves_open(self, asked: str) -> bool:
        """Whether how its models rank is anybody else's to say: not if the policy does, or the caller named one of them."""
        return self.policy.objectives.prefer is None and asked == self.policy.name

    def rule(self, call: Call) -> None:
        """Put a call, whose entries are chosen, under this policy; `Failed` 402 when none of them is cheap enough."""
        if not call.surface.talks:
            return
        policy = self.policy
        call.details = {**(call.details or {}), "policy": policy.name, "policy_hash": self.digest}
        call.input_bound += self.system_bound
        cap = policy.max_tokens_of_call
        shorter = call.output_cap is None or call.output_cap > cap
        if shorter:
            call.output_cap = cap
        call.entries = self._affordable(call)
        call.quality = call.quality and policy.falls_over("low_quality")
        call.rules = Ruling(self, call, cap if shorter else None)

    def retold(self, call: Call, answer: bytes) -> None:
        """The same for a call that was told an answer again: what the policy has kept is kept of it too, and that is all."""
        if self.policy.capture.prompts and call.surface.talks:
            call.rules = Ruling(self, call, None, answer)

    def _affordable(self, call: Call) -> list[Entry]:
        most = self.policy.objectives.max_cost_microdollars
        if most is None:
            return call.entries
        needed = {
            entry.id: settle.bound(entry.price, call.input_bound, call.output_cap, entry.max_output, call.choices)
            for entry in call.entries
        }
        # What nobody knows the price of runs only where the operator allows it, and then there is nothing to compare.
        kept = [entry for entry in call.entries if (cost := needed[entry.id]) is None or cost <= most]
        if not kept:
            least = min(cost for cost in needed.values() if cost is not None)
            message = (
                f"policy {self.policy.name!r} lets a request cost ${usd_from_microdollars(most)} and this one may cost "
                f"${usd_from_microdollars(least)} at its cheapest model; make it shorter, or raise max_cost_usd"
            )
            raise Failed(402, "insufficient_quota", "cost_ceiling", message)
        return kept


class Ruling:
    """A policy over one call: it belongs to the call, and keeps what the caller sent."""

    __slots__ = (
        "_body",
        "_call",
        "_cap",
        "_scan",
        "_tap",
        "_tapped",
        "_told",
        "listens",
        "max_attempts",
        "policy",
        "rules",
        "shadow",
    )

    def __init__(self, rules: Rules, call: Call, cap: int | None, told: bytes | None = None) -> None:
        self.rules = rules
        self.policy = rules.policy
        self.max_attempts = rules.policy.strategy.max_attempts
        self._call = call
        self._cap = cap  # what the caller's own caps are lowered to; None when they are low enough
        self._body = call.body
        self._scan = call.scan
        self._tap: Tap | None = None
        self._tapped = ""
        self._told = told  # what the cache answered: then nobody is asked, and no shadow either
        self.shadow = None if told is not None else rules.shadow_of(call.id)
        self.listens = self.shadow is not None or rules.policy.capture.answers

    @property
    def asked(self) -> bytes:
        """The body as the caller sent it."""
        return self._body

    def heard(self) -> Heard | None:
        """What was answered, when that was listened to; it takes a moment for each kilobyte."""
        entry, surface = self._call.entry, self._call.surface
        if self._told is not None:
            return made_out(self._told, _SPOKEN[surface.native], surface.operation, stream=bool(self._call.stream))
        return self._tap.heard() if self._tap is not None and entry is not None and entry.id == self._tapped else None

    def falls_over(self, poor: Poor) -> bool:
        """Whether the attempt that just ended may be followed by another."""
        return self.policy.falls_over(self._call.attempts[-1].outcome, poor.fault)

    async def pause(self, fallbacks: int) -> None:
        """Before the first, second ... fallback."""
        if self.policy.escalates(fallbacks):
            log.warning("policy %s: request %s is at its fallback %d", self.policy.name, self._call.id, fallbacks)
        await asyncio.sleep(self.policy.pause_ms(fallbacks) / 1000)

    def dress(self, entry: Entry) -> None:
        """Make the call's body what this entry is to be sent; `ShapeError` for a body that cannot be read."""
        call = self._call
        if self._scan is None:
            return
        call.body, call.scan, call.decoded = self._body, self._scan, None
        said = self.policy.generation_for(self.rules.named.get(entry.id, entry.id))
        if not said and self.policy.system is None and self._cap is None:
            return
        body = decoded(call)
        surface = call.surface.name
        if self._change(surface, body, said, entry):
            call.body = orjson.dumps(body)
            call.scan = SCANNER.scan(call.body)

    def begin(self, upstream: Upstream, operation: str, entry: Entry, body: bytes, deadlines: Deadlines) -> Exchange:
        """An attempt's exchange: a stream has as long to its first content as the policy waits for one.

        A whole answer comes when all of it is made, so it keeps the gateway's own deadline.
        """
        call, strategy = self._call, self.policy.strategy
        if not call.stream:
            whole = upstream.begin(operation, entry.ref.model, call.stream, call.passed, body, deadlines)
            return self._overheard(whole, upstream, operation, entry)
        wait_ms = strategy.fallback_on_latency_ms
        connect_ms = wait_ms if deadlines.connect_ms is None else min(wait_ms, deadlines.connect_ms)
        deadlines = replace(deadlines, first_chunk_ms=wait_ms, connect_ms=connect_ms)
        exchange = upstream.begin(operation, entry.ref.model, call.stream, call.passed, body, deadlines)
        exchange = self._overheard(exchange, upstream, operation, entry)
        # What is held back must leave time to be looked at before the deadline for it. Who is asked last has nobody to give
        # way to, and is told as it comes.
        last = entry is call.entries[-1] or len(call.attempts) + 1 >= self.max_attempts
        gate_ms = 0 if last else min(strategy.first_chunk_gate_ms, wait_ms // 2)
        return Gate(exchange, call.loop, call.loop.time() + gate_ms / 1000) if gate_ms else exchange

    def _overheard(self, exchange: Exchange, upstream: Upstream, operation: str, entry: Entry) -> Exchange:
        if not self.listens:
            return exchange
        self._tap, self._tapped = Tap(exchange, upstream.dialect, operation, bool(self._call.stream)), entry.id
        return self._tap

    def _change(self, surface: str, body: dict[str, Any], said: dict[str, Any], entry: Entry) -> bool:
        """Say in the body what the policy says and the caller did not; whether anything was."""
        before = orjson.dumps(body)
        held = body
        if surface == "gemini":
            found = body.pop("generation_config", None) or body.get("generationConfig")
            held = body["generationConfig"] = dict(found) if isinstance(found, dict) else {}
        for name, word in _SAMPLING[surface].items():
            if name in said and held.get(word) is None:
                held[word] = said[name]
        if "response_format" in said:
            self._as_json(surface, body, held)
        if self._cap is not None:
            self._lower(surface, held, self._cap, entry)
        if self.policy.system is not None:
            _instruct(surface, body, self.policy.system)
        return orjson.dumps(body) != before

    def _as_json(self, surface: str, body: dict[str, Any], held: dict[str, Any]) -> None:
        match surface:
            case "responses":
                if body.get("text") is None:
                    body["text"] = {"format": {"type": "json_object"}}
            case "gemini":
                held.setdefault("responseMimeType", "application/json")
            case "messages" | "completions":
                return  # which have no word for it
        self._call.wants_json = True

    @staticmethod
    def _lower(surface: str, held: dict[str, Any], cap: int, entry: Entry) -> None:
        words = _CAPS[surface]
        given = [word for word in words if held.get(word) is not None]
        for word in given:
            held[word] = min(held[word], cap)
        if not given:
            # OpenAI's own models of today know only the newer name, everybody else's only the older one.
            newer = surface != "chat" or entry.ref.provider == "openai"
            held[words[0] if newer else words[-1]] = cap


def _instruct(surface: str, body: dict[str, Any], text: str) -> None:
    """The policy's system text, where the caller has none."""
    match surface:
        case "chat":
            messages = body.get("messages")
            if isinstance(messages, list) and not any(
                isinstance(each, dict) and each.get("role") in _SYSTEM_ROLES for each in messages
            ):
                body["messages"] = [{"role": "system", "content": text}, *messages]
        case "messages":
            if not body.get("system"):
                body["system"] = text
        case "responses":
            if not body.get("instructions"):
                body["instructions"] = text
        case "gemini":
            if not (body.get("systemInstruction") or body.get("system_instruction")):
                body["systemInstruction"] = {"parts": [{"text": text}]}


class Gate(Wrapped):
    """An exchange whose first bytes are held back for a moment: what breaks within it was never told to anybody."""

    def __init__(self, exchange: Exchange, loop: asyncio.AbstractEventLoop, until: float) -> None:
        super().__init__(exchange)
        self._loop = loop
        self._until = until
        self._early: asyncio.Task[bytes] | None = None  # a read that the gate's end did not wait for

    @property
    def complete(self) -> bool:
        return self._early is None and self._exchange.complete

    async def chunk(self) -> bytes:
        early, self._early = self._early, None
        data = await (self._exchange.chunk() if early is None else early)
        while data and not self._exchange.complete and (left := self._until - self._loop.time()) > 0:
            # Not a timeout around the read: cancelling one would end the exchange.
            reading = self._loop.create_task(self._exchange.chunk())
            reading.add_done_callback(_heard)
            try:
                done, _ = await asyncio.wait((reading,), timeout=left)
            except BaseException:
                reading.cancel()
                raise
            if not done:
                self._early = reading
                break
            more = await reading
            if not more:
                break
            data += more
        return data


def _heard(reading: asyncio.Task[bytes]) -> None:
    """An attempt may be over before its last read is; nobody waits for that one."""
    if not reading.cancelled():
        reading.exception()
