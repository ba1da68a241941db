"""One request's life: what the name means, where it runs, what is told of it. The rooms meet here.

The web room hands in a call with its body read; the gateway decides, the relay attempts, and whoever asked is told why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from fastroute import _core
from fastroute._scan import RequestScanner, ScanError
from fastroute.bodies import decoded
from fastroute.call import Call, Surface
from fastroute.callers import CALLERS, NativeOnly, ShapeError
from fastroute.clock import Clock, SystemClock
from fastroute.config import KNOWN_PROVIDERS, Config
from fastroute.domain import Attempt, Entry, Snapshot
from fastroute.errors import UnknownModel
from fastroute.ids import Ids
from fastroute.lanes import Health, Latency
from fastroute.logs import Logs
from fastroute.metrics import Metrics
from fastroute.relay import Failed, Relay
from fastroute.routing import chat
from fastroute.routing.directory import AUTO, Directory
from fastroute.routing.placement import decide, reasons_of
from fastroute.routing.prices import misses_cache_rate
from fastroute.routing.rankers import Ordered, Pinned, Tiers, Weighted
from fastroute.routing.tiers import too_long
from fastroute.upstreams.upstream import Upstream

# What a reservation needs of a body beside the names every scanner looks for.
_ALL_CAPS = (b"max_tokens", b"max_completion_tokens", b"max_output_tokens")
_CAPS = {
    "chat": _ALL_CAPS[:2],
    "completions": _ALL_CAPS[:2],
    "embeddings": (),
    "messages": _ALL_CAPS[:1],
    "responses": _ALL_CAPS[2:],
    "gemini": (),
}
# The longest name of a model: it travels in headers, logs and labels, and is kept where names are remembered.
NAME_MAX = 256
# These need neither an address nor a key.
IN_PROCESS = frozenset({"dummy", "demo"})
# Nor does an agent on this machine: it is expected where the registry's agents have always been.
UNCONFIGURED = IN_PROCESS | {name for name, known in KNOWN_PROVIDERS.items() if known.base_url and not known.key_env}
SCANNER = RequestScanner((*_ALL_CAPS, b"n", b"response_format"))
# Names of models beyond the catalog's that may become labels of metrics.
LEARNED_MAX = 256
# What a picture or a sound may cost where the model's window is not known.
CONTEXT_UNKNOWN = 1_000_000


class Gateway:
    """One worker's conductor."""

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
        self.metrics = metrics
        self.log = log
        self.health = Health(clock, config.health.threshold, config.health.probe_after_ms)
        self.latency = Latency(clock)
        self.ids = Ids()
        entries = self.directory.entries()
        metrics.know(
            models={name for entry in entries for name in (entry.ref.model, entry.id)},
            lanes={entry.lane for entry in entries} | set(config.providers) | IN_PROCESS,
            backends={entry.lane for entry in entries} | set(config.providers) | IN_PROCESS,
        )
        self._learned: set[str] = set()
        self._chosen = metrics.verdict.of("chosen")
        self.relay = Relay(config.relay, upstream_of, self.health, self.latency, self._attempted, metrics, clock)

    def read(self, call: Call, body: bytes) -> None:
        """Check the body as JSON and take out what is needed; `Failed` names what is wrong with it."""
        call.body = body
        try:
            scan = SCANNER.scan(body)
            # The largest of those that count here: which of them a provider obeys is its own affair.
            cap = scan.most(_CAPS.get(call.surface.name, _ALL_CAPS))
            choices = scan.integer(b"n")
            if scan.stream and call.surface.operation != "embeddings":
                call.stream = True
            if call.stream and call.surface.operation in ("chat", "completions"):
                call.usage_options = scan.usage_options()
                call.hide_usage = call.usage_options is not None
        except ScanError as error:
            self.metrics.bad_json(error.why)
            raise Failed(
                400, "invalid_request_error", "invalid_json", f"the body cannot be read: {error.message}"
            ) from None
        call.scan = scan
        if cap is not None and cap < 0:
            raise Failed(400, "invalid_request_error", None, "a token cap is not negative", param="max_tokens")
        call.output_cap = cap
        call.choices = choices if choices is not None and choices > 1 else 1
        if not call.model:  # a model in the path is the one that was asked for
            call.model = scan.model or ""
        if len(call.model) > NAME_MAX or not call.model.isprintable():
            message = f"a model's name is printable and at most {NAME_MAX} characters long"
            raise Failed(400, "invalid_request_error", "invalid_model", message, param="model")
        media = scan.media
        window = CONTEXT_UNKNOWN if media else _core.UNKNOWN
        call.input_bound = _core.token_bound(scan.text_bytes, scan.messages, scan.tools, media, window)

    def plan(self, call: Call) -> None:
        """Who may answer, best first, and why; `Failed` when the name is unknown or nobody may."""
        if not call.model:
            raise Failed(400, "invalid_request_error", "model_required", "you must provide a model", param="model")
        try:
            target = self.directory.resolve(call.model)
        except UnknownModel as error:
            raise Failed(404, "invalid_request_error", "model_not_found", str(error), param="model") from None
        call.decision_id = self.ids.decision()
        route = target.route
        if isinstance(route.ranker, Pinned):
            entry = target.catalog[route.ranker.entry_id]
            self._check_configured(entry)
            call.entries = [entry]
            call.reason = "manual_override"
            self._chosen.inc()
            return
        request, facts = self._facts(call)
        if isinstance(route.ranker, Tiers) and too_long(facts, route.ranker.thresholds):
            limit = route.ranker.thresholds.max_input_tokens
            message = f"the prompt has about {facts.estimated_tokens} tokens and this gateway takes {limit}"
            raise Failed(400, "invalid_request_error", "context_length_exceeded", message, param="messages")
        wants_latency = isinstance(route.ranker, Weighted) or (
            isinstance(route.ranker, Ordered) and route.ranker.target_p95_ms is not None
        )
        snapshot = Snapshot(lanes=self.health.troubled, latency=self.latency.facts() if wants_latency else {})
        descriptor = chat.infer(request, facts)
        decision = decide(descriptor, target.catalog, snapshot, route, facts)
        if not decision.order and snapshot.lanes:
            # Everybody who fits is unwell: the last resort is to ask one all the same, never to eject them all.
            decision = decide(descriptor, target.catalog, Snapshot(latency=snapshot.latency), route, facts)
        self.metrics.verdicts(decision.codes)
        if not decision.order:
            raise Failed(
                400, "invalid_request_error", "no_candidate", f"nothing behind {call.model!r} can take this request"
            )
        call.entries = [target.catalog.entries[row] for row in decision.order]
        usable = [entry for entry in call.entries if self._configured(entry)]
        if not usable:
            self._check_configured(call.entries[0])
        call.entries = usable
        call.quality = call.surface.talks
        call.wants_json = facts.wants_json
        call.reason = reasons_of(decision, call.entries[0], route)[-1]

    def _facts(self, call: Call) -> tuple[chat.ChatRequest, chat.Facts]:
        assert call.scan is not None
        if not call.surface.talks:
            return chat.ChatRequest(call.model, []), chat.Facts(estimated_tokens=call.scan.text_bytes // 4)
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

    def _configured(self, entry: Entry) -> bool:
        provider = entry.ref.provider
        return entry.endpoint is not None or provider in self.config.providers or provider in UNCONFIGURED

    def _check_configured(self, entry: Entry) -> None:
        if self._configured(entry):
            return
        known = KNOWN_PROVIDERS.get(entry.ref.provider)
        message = known.refusal if known else f"provider {entry.ref.provider!r} is not configured"
        raise Failed(500, "server_error", "provider_not_configured", message)

    def _attempted(self, call: Call, attempt: Attempt) -> None:
        at = call.first_chunk_at
        first_chunk_ms = None if at is None else (at - call.started) * 1000
        self.metrics.attempt(attempt.lane, attempt.outcome, attempt.settlement.basis, first_chunk_ms)
        price, usage = call.entry.price if call.entry is not None else None, attempt.settlement.usage
        if price is None or (usage.cache_read and misses_cache_rate(usage, price.at(usage.input_total))):
            self.metrics.pricing_miss.inc()
        if len(call.attempts) > 1:
            before = call.attempts[-2]
            self.metrics.fallback(self._word(before.entry_id), self._word(attempt.entry_id))

    def _word(self, entry_id: str) -> str:
        """The tier's word for a model where it has one: the fallback's labels are `small` and `medium`."""
        ranker = self.directory.resolve(AUTO).route.ranker
        # Not by the configured names, which may be aliases.
        words = {ranker.small: "small", ranker.medium: "medium"} if isinstance(ranker, Tiers) else {}
        return words.get(entry_id, entry_id)

    def listed(self) -> Iterable[Entry]:
        """What `/v1/models` shows: every name that can be asked for, entries before routes and aliases."""
        return self.directory.listed()

    def finished(self, call: Call) -> None:
        """Count what became of a request, once."""
        final = call.final
        latency_ms = int((call.loop.time() - call.started) * 1000)
        if final is None:
            model = lane = cost = None
            self.metrics.finished("other", call.status, latency_ms)
        else:
            model, lane, usage = final.model, final.lane, final.settlement.usage
            cost = call.cost_picodollars
            if call.status == 200 and model not in self._learned:
                self._learn(call, model)
            self.metrics.finished(model, call.status, latency_ms, cost, usage.input_total, usage.output, lane)
            if len(call.attempts) > 1:
                self._discarded(call, final)
        if self.log is not None:
            self.log.request(
                call.id,
                surface=call.surface.name,
                status=call.status,
                model=model,
                backend=lane,
                reason=call.reason,
                attempts=len(call.attempts),
                stream=call.stream,
                latency_ms=latency_ms,
                cost_picodollars=cost,
                cache_hit=False,
            )

    def _learn(self, call: Call, model: str) -> None:
        """A model that a provider answered for may be a label by its name: no caller can invent one of those."""
        provider = self.config.providers.get(call.entry.ref.provider) if call.entry is not None else None
        if provider is None or provider.api_key is None:
            return  # what needs no key often answers to any name
        if len(self._learned) < LEARNED_MAX:
            self._learned.add(model)
            self.metrics.know(models=(model,))

    def _discarded(self, call: Call, final: Attempt) -> None:
        """What was billed for answers that nobody read is counted under the model that gave them."""
        for attempt in call.attempts:
            if attempt is not final:
                usage = attempt.settlement.usage
                self.metrics.billed(attempt.model, usage.input_total, usage.output)


SURFACES = {
    "chat": Surface("chat", "chat", "openai", None),
    "completions": Surface("completions", "completions", "openai", CALLERS["completions"]),
    "embeddings": Surface("embeddings", "embeddings", "openai", None),
    "messages": Surface("messages", "messages", "anthropic", CALLERS["messages"]),
    "responses": Surface("responses", "responses", "openai", CALLERS["responses"]),
    "gemini": Surface("gemini", "chat", "google", CALLERS["gemini"]),
}
