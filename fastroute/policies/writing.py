"""A policy as a file that reads back as the same policy, and the digest by which receipts name it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any, Final

import msgspec

from fastroute.money import usd_from_microdollars
from fastroute.policies.policy import Parameters, Policy

_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t"}


def to_yaml(policy: Policy) -> str:
    """The whole policy as YAML, defaults written out; what has no value stands there as null or is left out."""
    return "".join(f"{line}\n" for line in _lines(policy))


def digest(policy: Policy) -> str:
    """SHA-256 in hex of what the policy says, however its file is laid out."""
    return hashlib.sha256(msgspec.json.encode(policy, order="sorted")).hexdigest()


def _lines(policy: Policy) -> Iterator[str]:
    objectives, routing, strategy, budgets = policy.objectives, policy.routing, policy.strategy, policy.budgets
    cost = objectives.max_cost_microdollars
    yield f"policy: {_quoted(policy.name)}"
    if policy.version is not None:
        yield f"policy_version: {policy.version}"
    if policy.notes is not None:
        yield f"notes: {_quoted(policy.notes)}"
    yield f"pinned: {policy.pinned}"
    yield "objectives:"
    yield f"  p95_latency_ms: {_value(objectives.p95_latency_ms)}"
    yield f"  max_cost_usd: {'null' if cost is None else usd_from_microdollars(cost)}"
    yield f"  max_tokens: {objectives.max_tokens}"
    yield f"  prefer: {_value(objectives.prefer)}"
    yield "routing:"
    yield f"  primary: {_list(routing.primary)}"
    yield f"  backups: {_list(routing.backups)}"
    yield f"  p95_window_n: {routing.p95_window_n}"
    if routing.params:
        yield "  params:"
        for model, own in routing.params.items():
            yield f"    {_quoted(model)}: {{{', '.join(_parameters(own))}}}"
    yield "strategy:"
    yield f"  stream: {_value(strategy.stream)}"
    yield f"  retry_on: {_list(strategy.retry_on)}"
    yield f"  fallback_on_latency_ms: {strategy.fallback_on_latency_ms}"
    yield f"  max_attempts: {strategy.max_attempts}"
    yield f"  backoff_ms: [{', '.join(map(str, strategy.backoff_ms))}]"
    yield f"  first_chunk_gate_ms: {strategy.first_chunk_gate_ms}"
    yield f"  escalate_after_fallbacks: {strategy.escalate_after_fallbacks}"
    yield "tenancy:"
    yield f"  per_user_daily_tokens: {_value(budgets.daily_tokens)}"
    yield f"  per_user_rpm: {_value(budgets.rpm)}"
    yield f"  timezone: {_quoted(budgets.zone)}"
    gen = list(_parameters(policy.gen))
    if policy.system is not None:
        gen.insert(0, f"system: {_quoted(policy.system)}")
    if gen:
        yield "gen:"
        yield from (f"  {line}" for line in gen)
    yield "quality:"
    yield f"  judge: {_value(policy.judge)}"
    yield "capture:"
    yield f"  prompts: {_value(policy.capture.prompts)}"
    if policy.capture.answers:
        yield "  answers: true"
    yield f"  retention_days: {policy.capture.retention_days}"
    if policy.shadow is not None:
        yield "shadow:"
        yield f"  model: {_quoted(policy.shadow.model)}"
        yield f"  share: {_thousandths(policy.shadow.share_thousandths)}"


def _parameters(parameters: Parameters) -> Iterator[str]:
    if parameters.temperature_thousandths is not None:
        yield f"temperature: {_thousandths(parameters.temperature_thousandths)}"
    if parameters.top_p_thousandths is not None:
        yield f"top_p: {_thousandths(parameters.top_p_thousandths)}"
    if parameters.stop is not None:
        yield f"stop: {_list(parameters.stop)}"
    if parameters.json_mode is not None:
        yield f"json_mode: {_value(parameters.json_mode)}"


def _thousandths(value: int) -> Decimal:
    return Decimal(value).scaleb(-3).normalize()


def _list(texts: Iterable[str]) -> str:
    return f"[{', '.join(map(_quoted, texts))}]"


def _value(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return _quoted(value) if isinstance(value, str) else str(value)


def _quoted(text: str) -> str:
    """Text in double quotes on one line, in which every YAML reader finds the same characters."""
    return f'"{"".join(map(_letter, text))}"'


def _letter(letter: str) -> str:
    if letter in _ESCAPES:
        return _ESCAPES[letter]
    return letter if letter.isprintable() else f"\\U{ord(letter):08X}"
