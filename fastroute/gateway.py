"""One request's life: what the name means, where it runs, what is told of it. The rooms meet here.

The web room hands in a call with its body read; the gateway decides, the relay attempts, and whoever asked is told why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NoReturn, Protocol

import msgspec
from msgspec.structs import replace

from fastroute import asked
from fastroute._gateway import Core
from fastroute._scan import RequestScanner, ScanError
from fastroute.bodies import decoded
from fastroute.caching import Caching
from fastroute.call import Call, Surface
from fastroute.callers import CALLERS, NativeOnly, ShapeError
from fastroute.clock import Clock, SystemClock
from fastroute.config import KNOWN_PROVIDERS, Config
from fastroute.domain import Attempt, Entry, LaneState, Snapshot
from fastroute.errors import UnknownModel
from fastroute.fleet import Fleet
from fastroute.ids import Ids
from fastroute.lanes import Health, Latency
from fastroute.ledger.teller import Teller
from fastroute.limits import Limiter
from fastroute.logs import Logs
from fastroute.metrics import Metrics
from fastroute.relay import Failed, Relay
from fastroute.routing import chat
from fastroute.routing.catalog import Catalog
from fastroute.routing.directory import AUTO, Directory, Target
from fastroute.routing.names import nearest
from fastroute.routing.placement import decide, reasons_of
from fastroute.routing.rankers import Ordered, Pinned, Preferring, Tiers, Weighted
from fastroute.routing.tiers import too_long
from fastroute.upstreams.pool import Pool
from fastroute.upstreams.upstream import Upstream
from fastroute.weights import Keepers

# What a reservation needs of a body beside the names every scanner looks for.
# The first is llama.cpp's own word, which it obeys before the others (and `n_cmpl` before `n`).
_ALL_CAPS = (b"n_predict", b"max_tokens", b"max_completion_tokens", b"max_output_tokens")
_CAPS = {
    "chat": _ALL_CAPS[:3],
    "completions": _ALL_CAPS[:3],
    "embeddings": (),
    "messages": _ALL_CAPS[1:2],
    "responses": _ALL_CAPS[3:],
    "gemini": (),
}
# The longest name of a model: it travels in headers, logs and labels, and is kept where names are remembered.
NAME_MAX = 256
# These need neither an address nor a key.
IN_PROCESS = frozenset({"dummy", "demo"})
# Nor does an agent on this machine: it is expected where the registry's agents have always been.
UNCONFIGURED = IN_PROCESS | {name for name, known in KNOWN_PROVIDERS.items() if known.base_url and not known.key_env}
SCANNER = RequestScanner((*_ALL_CAPS, b"n", b"n_cmpl", b"response_format", *asked.NAMES))
# Names of models beyond the catalog's that may become labels of metrics.
LEARNED_MAX = 256
# What a picture or a sound may cost where the model's window is not known.
CONTEXT_UNKNOWN = 1_000_000


class Aside(Protocol):
    """What goes on beside the requests of one worker: `aside.Asides`, which knows gateways, so that they need not know it."""

    def take(self, gateway: Gateway, call: Call) -> None:
        """Do for a finished call what its policy says; it never waits and never fails the call."""

    def leave(self) -> None:
        """Begin to end: nothing that nobody waits for is begun any more."""

    async def close(self) -> None:
        """End what is under way, and wait a moment for what has to be written."""


class Gateway(Core):
    """One worker's conductor."""

    teller: Teller | None = None  # who keeps this worker's accounts; None where nobody's money is counted
    limiter: Limiter | None = None
    cache: Caching | None = None  # what tells answers again; None where none are kept
    fleet: Fleet | None = None  # the agents of its directory; None where nobody hears of them
    aside: Aside | None = None  # what policies want done once an answer is over; None where nothing is
    pool: Pool | None = None  # what its upstreams connect through; a gateway after it takes it over
    keepers: Keepers | None = None  # the processes of weights that were started for it; those too

    def __init__(
        self,
        config: Config,
        directory: Directory,
        upstream_of: Callable[[Entry], Upstream],
        metrics: Metrics,
        log: Logs | None = None,
        clock: Clock | None = None,
    ) -> None:
        clock = clock or SystemClock()
        self.config = config
        self.directory = directory
        super().__init__(SCANNER, _CAPS, _ALL_CAPS, Ids(), metrics, log)
        self.health = Health(clock, config.health.threshold, config.health.probe_after_ms)
        self.latency = Latency(clock)
        entries = self.directory.entries()
        offered = {offer.entry.lane for each in directory.offers.values() for offer in each}
        lanes = {entry.lane for entry in entries} | offered | set(config.providers) | IN_PROCESS
        models = {name for entry in entries for name in (entry.ref.model, entry.id)}
        metrics.know(models=models, lanes=lanes, backends=lanes)
        self.relay = Relay(config.relay, upstream_of, self.health, self.latency, self.attempted, metrics, clock)

    def left(self, call: Call) -> None:
        """Give a request's place back, and count the tokens it used instead of those it might have."""
        assert call.permit is not None
        if call.permit.tokens:
            used = sum(
                attempt.settlement.usage.input_total + attempt.settlement.usage.output for attempt in call.attempts
            )
            call.permit.correct(used)
        call.permit.leave()

    def unreadable(self, error: ScanError) -> Failed:
        """What is wrong with a body, counted."""
        self.metrics.bad_json(error.why)
        return Failed(400, "invalid_request_error", "invalid_json", f"the body cannot be read: {error.message}")

    def negative_cap(self) -> Failed:
        return Failed(400, "invalid_request_error", None, "a token cap is at least 1", param="max_tokens")

    def bad_name(self) -> Failed:
        return bad_name()

    def place(self, call: Call) -> Entry | None:
        """The entry that alone a name stands for; else None, and the call has its entries and their reason."""
        if not call.model:
            raise Failed(400, "invalid_request_error", "model_required", "you must provide a model", param="model")
        target = self.target(call)
        route, rules = target.route, target.rules
        if isinstance(route.ranker, Pinned):
            entry = target.catalog[route.ranker.entry_id]
            self._check_configured(entry)
            if self.fleet is None or entry.id not in self.fleet.offers:
                return entry
            # Who is to be asked changes with every beat, so this name is not remembered as one entry.
            call.decision_id = self.ids.decision()
            call.entries = self.fleet.ranked(entry.id) or self._silent(call)
            call.reason = "manual_override"
            self.metrics.verdict.of("chosen").inc()
            return None
        call.decision_id = self.ids.decision()
        request, facts = self._facts(call)
        if isinstance(route.ranker, Tiers) and too_long(facts, route.ranker.thresholds):
            limit = route.ranker.thresholds.max_input_tokens
            message = f"the prompt has about {facts.estimated_tokens} tokens and this gateway takes {limit}"
            raise Failed(400, "invalid_request_error", "context_length_exceeded", message, param="messages")
        tiers = route.ranker if isinstance(route.ranker, Tiers) else None
        prefer = call.account.prefer
        if prefer is not None and (rules is None or rules.leaves_open(call.model)):
            route = replace(route, ranker=Preferring(prefer))
        ranker = route.ranker
        wants_latency = isinstance(ranker, Weighted | Preferring) or (
            isinstance(ranker, Ordered) and ranker.target_p95_ms is not None
        )
        facts_of = self.latency.facts if rules is None else rules.latencies(self.latency)
        snapshot = Snapshot(lanes=self.lanes(target.catalog), latency=facts_of() if wants_latency else {})
        descriptor = chat.infer(request, facts, None if rules is None else rules.policy.max_tokens_of_call)
        decision = decide(descriptor, target.catalog, snapshot, route, facts)
        if not decision.order and snapshot.lanes:
            # Everybody who fits is unwell: the last resort is to ask one all the same, never to eject them all.
            silent: dict[str, LaneState] = {lane: state for lane, state in snapshot.lanes.items() if state == "stale"}
            last = Snapshot(lanes=silent, latency=snapshot.latency)
            decision = decide(descriptor, target.catalog, last, route, facts)
            if not decision.order and silent:
                decision = decide(descriptor, target.catalog, Snapshot(latency=snapshot.latency), route, facts)
                if decision.order:
                    self._silent(call)
        self.metrics.verdicts(decision.codes)
        allowed = call.account.models
        call.entries = [
            entry
            for entry in (target.catalog.entries[row] for row in decision.order)
            if allowed is None or call.model in allowed or admits(allowed, entry)
        ]
        if not call.entries:
            raise Failed(
                400, "invalid_request_error", "no_candidate", f"nothing behind {call.model!r} can take this request"
            )
        usable = [entry for entry in call.entries if self.configured(entry)]
        if not usable:
            self._check_configured(call.entries[0])
        call.entries = usable
        call.quality = call.surface.talks
        call.wants_json = facts.wants_json
        if rules is not None:
            rules.rule(call)
        if self.fleet is not None and self.fleet.offers:
            call.entries = self.fleet.spread(call.entries) or self._silent(call)
        call.reason = reasons_of(decision, call.entries[0], route)[-1]
        if tiers is not None:
            call.words = tiers.words
            self.metrics.tier(call.words.get(call.entries[0].id, "other"))
        return None

    def lanes(self, catalog: Catalog) -> dict[str, LaneState]:
        """The lanes of a catalog that are not well now, those of agents that are silent with them."""
        troubled = self.health.troubled
        if self.fleet is None or not self.fleet.offers:
            return troubled
        return {**troubled, **self.fleet.states(catalog, troubled)}

    def _silent(self, call: Call) -> NoReturn:
        assert self.fleet is not None
        message = f"no agent that offers {call.model!r} was heard of lately; one that comes back is asked at once"
        again_s = max(1, self.fleet.stale_ms // 3000)
        raise Failed(503, "server_error", "agent_stale", message, retry_after_s=again_s)

    def target(self, call: Call) -> Target:
        """Where the asked name leads; `Failed` 404 for one nobody has, and in the same words for one it may not ask for."""
        allowed = call.account.models
        try:
            target = self.directory.resolve(call.model)
        except UnknownModel as error:
            raise (_unknown(str(error)) if allowed is None else self._not_here(call, allowed)) from None
        if (
            allowed is not None
            and call.model not in allowed
            and not any(admits(allowed, entry) for entry in _candidates(target))
        ):
            raise self._not_here(call, allowed)
        return target

    def check_allowed(self, call: Call, entry: Entry) -> None:
        """The same for a name that is known to mean one entry."""
        allowed = call.account.models
        if allowed is not None and call.model not in allowed and not admits(allowed, entry):
            raise self._not_here(call, allowed)

    def _not_here(self, call: Call, allowed: frozenset[str]) -> Failed:
        # The nearest name is one of its own: another would tell what else there is.
        near = nearest(call.model, (entry.id for entry in self.listed(allowed)))
        return _unknown(str(UnknownModel(call.model, near)))

    def _facts(self, call: Call) -> tuple[chat.ChatRequest, chat.Facts]:
        if not call.surface.talks:
            read = call.scan or call.form
            assert read is not None
            return chat.ChatRequest(call.model, []), chat.Facts(estimated_tokens=read.text_bytes // 4)
        assert call.scan is not None
        try:
            body = call.body
            if call.surface.caller is not None:
                translated = call.surface.caller.to_chat({**decoded(call), "model": call.model})
                body = msgspec.json.encode(translated)
            request = chat.decode(body)
        except NativeOnly:
            # Whoever speaks the caller's dialect may do it; the others refuse it when they are asked.
            return chat.ChatRequest(call.model, []), chat.Facts(estimated_tokens=call.scan.text_bytes // 4)
        except ShapeError as error:
            raise Failed(400, "invalid_request_error", None, error.message, param=error.param or None) from None
        except msgspec.ValidationError as error:
            raise Failed(400, "invalid_request_error", None, f"the body is not a chat request: {error}") from None
        return request, chat.facts(request)

    def configured(self, entry: Entry) -> bool:
        """Whether there is an address to ask it at, and whatever else its provider needs."""
        provider = entry.ref.provider
        return entry.endpoint is not None or provider in self.config.providers or provider in UNCONFIGURED

    def _check_configured(self, entry: Entry) -> None:
        if self.configured(entry):
            return
        known = KNOWN_PROVIDERS.get(entry.ref.provider)
        message = known.refusal if known else f"provider {entry.ref.provider!r} is not configured"
        raise Failed(500, "server_error", "provider_not_configured", message)

    def fell_back(self, call: Call, attempt: Attempt) -> None:
        """Count an attempt that was made because another had failed."""
        before = call.attempts[-2]
        self.metrics.fallback(self._word(before.entry_id), self._word(attempt.entry_id))

    def _word(self, entry_id: str) -> str:
        """The tier's word for a model where it has one: the fallback's labels are `small` and `medium`."""
        ranker = self.directory.resolve(AUTO).route.ranker
        # Not by the configured names, which may be aliases.
        words = ranker.words if isinstance(ranker, Tiers) else {}
        return words.get(entry_id, entry_id)

    def listed(self, allowed: frozenset[str] | None = None) -> Iterable[Entry]:
        """What `/v1/models` shows to who may ask for these: every name there is, entries before routes and aliases."""
        listed = self.directory.listed()
        if allowed is None:
            return listed
        return [
            entry
            for entry in listed
            if entry.id in allowed
            or any(admits(allowed, each) for each in _candidates(self.directory.resolve(entry.id)))
        ]

    def learn(self, call: Call, model: str, learned: set[str]) -> None:
        """A model that a provider answered for may be a label by its name: no caller can invent one of those."""
        provider = self.config.providers.get(call.entry.ref.provider) if call.entry is not None else None
        if provider is None or provider.api_key is None:
            return  # what needs no key often answers to any name
        if len(learned) < LEARNED_MAX:
            learned.add(model)
            self.metrics.know(models=(model,))

    def ruled(self, call: Call) -> None:
        """A request that a policy ruled is over, and its caller has been told everything."""
        if self.aside is not None:
            self.aside.take(self, call)

    def discarded(self, call: Call, final: Attempt) -> None:
        """What was billed for answers that nobody read is counted under the model that gave them."""
        for attempt in call.attempts:
            if attempt is not final:
                usage = attempt.settlement.usage
                self.metrics.billed(attempt.model, usage.input_total, usage.output)


def admits(allowed: frozenset[str], entry: Entry) -> bool:
    """Whether a list of names lets one use this entry, whatever it asked for."""
    return entry.id in allowed or entry.ref.model in allowed or str(entry.ref) in allowed


def _candidates(target: Target) -> Iterable[Entry]:
    """The entries that a name may lead to."""
    ranker = target.route.ranker
    return (target.catalog[ranker.entry_id],) if isinstance(ranker, Pinned) else target.catalog.entries


def _unknown(message: str) -> Failed:
    return Failed(404, "invalid_request_error", "model_not_found", message, param="model")


def bad_name() -> Failed:
    message = f"a model's name is printable and at most {NAME_MAX} characters long"
    return Failed(400, "invalid_request_error", "invalid_model", message, param="model")


SURFACES = {
    "chat": Surface("chat", "chat", "openai", None),
    "completions": Surface("completions", "completions", "openai", CALLERS["completions"]),
    "embeddings": Surface("embeddings", "embeddings", "openai", None),
    "messages": Surface("messages", "messages", "anthropic", CALLERS["messages"]),
    "responses": Surface("responses", "responses", "openai", CALLERS["responses"]),
    "gemini": Surface("gemini", "chat", "google", CALLERS["gemini"]),
}
