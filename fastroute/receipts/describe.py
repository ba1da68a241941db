"""A receipt as a person reads it in a terminal. What callers wrote is shown without the characters that move cursors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from fastroute.receipts.canonical import ReceiptError, canonical, parse
from fastroute.receipts.verify import Proof
from fastroute.redaction import clip

_WIDTH: Final = 10
_CACHES: Final = {"cache_read": "read from cache", "cache_write": "written to cache"}
_RATES: Final = {"input": "in", "output": "out", **_CACHES}
_VALUE_MAX: Final = 400


def describe(body: bytes, proof: Proof) -> str:
    """A few lines, the proof first; of bytes that are no receipt only their beginning."""
    lines = [_plain(str(proof))]
    try:
        fields = parse(body)
    except ReceiptError:
        return "\n".join((*lines, _plain(body[:_VALUE_MAX].decode("utf-8", "replace"))))
    return "\n".join((*lines, *(f"{label:<{_WIDTH}}{text}".rstrip() for label, text in _lines(fields))))


def dollars(text: Any) -> str:
    """An exact amount as `$0.000165`: no rounding, no zeros that say nothing, two decimals at least."""
    if not isinstance(text, str):
        return "unknown"
    whole, _, rest = text.partition(".")
    return f"${whole}.{rest.rstrip('0').ljust(2, '0')}"


def _lines(fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    def said(name: str) -> str:
        return _word(fields.get(name))

    yield "receipt", said("id")
    yield "request", f"{said('request_id')}  decision {said('decision_id')}"
    yield "when", said("ts")
    name = fields.get("account_name")
    yield "account", said("account") + (f" ({_word(name)})" if name else "")
    yield "asked", f"{said('model')} on {said('surface')}{', streamed' if fields.get('stream') is True else ''}"
    count = fields.get("fallback_count")
    path = said("route_final") if not count else f"{said('route_primary')} -> {said('route_final')}"
    yield "route", f"{path}  fallbacks={_word(count)} reason={said('reason')}"
    yield "answer", f"{said('outcome')}, status {said('status')}"
    first = fields.get("first_chunk_ms")
    yield "latency", f"{said('latency_ms')} ms" + ("" if first is None else f", first chunk after {_word(first)} ms")
    yield "tokens", _tokens(fields.get("usage"))
    yield "cost", _plain(dollars(fields.get("cost_usd")))
    attempts = fields.get("attempts")
    for line in attempts if isinstance(attempts, list) else []:
        if isinstance(line, dict):
            yield from _attempt(line)
    if fields.get("details"):
        yield "details", _plain(canonical(fields["details"]).decode())
    yield "chain", f"number {said('seq')}, key {said('kid')}, after {said('previous')[:16]}"


def _attempt(line: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    def said(name: str) -> str:
        return _word(line.get(name))

    status = "" if line.get("status") is None else f" {said('status')}"
    yield (
        "attempt",
        (
            f"{said('entry')} on {said('lane')}: {said('outcome')}{status}, {said('ms')} ms, {said('basis')}, "
            f"{said('microdollars')} of {said('reserved_microdollars')} microdollars reserved"
        ),
    )
    price, usage = line.get("price"), line.get("usage")
    if isinstance(price, dict) and isinstance(usage, dict):
        # A cache whose own rate is not known was priced at that of the input.
        rates = {name: price.get(name) for name in _RATES}
        rates |= {name: price.get("input") for name in _CACHES if rates[name] is None and usage.get(name)}
        said_rates = ", ".join(f"{_word(rate)} {_RATES[name]}" for name, rate in rates.items() if rate is not None)
        yield "", f"  {_tokens(usage)}; microdollars a million tokens: {said_rates} ({_word(price.get('source'))})"
    charges = line.get("charges")
    for charge in charges if isinstance(charges, list) else []:
        if isinstance(charge, dict):
            charged, reserved = _word(charge.get("charged")), _word(charge.get("reserved"))
            of = f"{_word(charge.get('account'))} {_word(charge.get('unit'))}/{_word(charge.get('window'))}"
            yield "", f"  {of}: charged {charged} of {reserved}"


def _tokens(usage: Any) -> str:
    if not isinstance(usage, dict):
        return "unknown"
    parts = [f"{_word(usage.get('input'))} in", f"{_word(usage.get('output'))} out"]
    named = {**_CACHES, "reasoning": "reasoning"}
    parts += [f"{_word(usage[name])} {label}" for name, label in named.items() if usage.get(name)]
    return ", ".join(parts)


def _word(value: Any) -> str:
    return "-" if value is None or value == "" else _plain(value if isinstance(value, str) else str(value))


def _plain(text: str) -> str:
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[: _VALUE_MAX * 2])
    return clip(shown, _VALUE_MAX)
