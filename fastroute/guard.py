"""The soft half of a budget: a guard is asked between two turns of a session and says when to halt.

The hard half is the gateway's, which refuses the call that would pass a grant. A guard sees only what a turn has used
already, so the turn that passes a limit is its last, not its first too many. It asks nobody, and once made it never
raises.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cache
from typing import Any, Final, Literal

from msgspec import Struct

from fastroute.domain import TOKENS_MAX, Price, Usage
from fastroute.routed import Grant
from fastroute.routing import names
from fastroute.routing.prices import PriceTable, microdollars

log = logging.getLogger("fastroute.guard")

Reason = Literal["max_turns", "max_total_tokens", "max_cost_microdollars", "budget_exceeded", "invalid_pricing"]

# Who names what: OpenAI's responses and Anthropic, OpenAI's chat, and `fastroute.Usage`.
_INPUT: Final = ("input_tokens", "prompt_tokens", "input")
_OUTPUT: Final = ("output_tokens", "completion_tokens", "output")
_CACHE_READ: Final = ("cache_read_input_tokens", "cache_read")
_CACHE_WRITE: Final = ("cache_creation_input_tokens", "cache_write")
_DETAILS: Final = ("input_tokens_details", "prompt_tokens_details")


class Halt(Struct, frozen=True):
    """Why to halt: the limit that was reached, and by what."""

    reason: Reason
    value: int | None = None
    limit: int | None = None


class Limit(Struct, frozen=True):
    """One thing a guard watches; a cost without a price cannot be watched."""

    reason: Reason
    most: int
    model: str | None = None
    price: Price | None = None


class Guard(Struct, frozen=True):
    """Called with what a session has used so far, in all; answers None to go on, or the first limit that is reached.

    A usage is a `fastroute.Usage`, or the usage of OpenAI or Anthropic, as an object or a mapping; what it does not say,
    or says in no whole number, counts as nothing. Cached tokens are tokens. The sum is priced as one request: where a
    model has a dearer rate for long inputs, a guard may halt early, never late.
    """

    limits: tuple[Limit, ...] = ()

    def __call__(self, usage: object, turns: int = 0) -> Halt | None:
        used = _used(usage)
        for limit in self.limits:
            if limit.reason == "max_turns":
                value = _count(turns)
            elif limit.reason == "max_total_tokens":
                value = used.input_total + used.output
            else:
                try:
                    value = 0 if limit.price is None else microdollars(_bounded(used), limit.price)
                except (ArithmeticError, AttributeError, TypeError, ValueError):
                    # A price nobody can reckon with holds nothing back; going on would be without any limit.
                    return Halt("invalid_pricing", None, limit.most)
            if value >= limit.most:
                return Halt(limit.reason, value, limit.most)
        return None

    @property
    def unpriced(self) -> tuple[str, ...]:
        """The models whose cost this guard should hold and cannot, because nobody knows their price."""
        costly = (each for each in self.limits if each.reason in ("max_cost_microdollars", "budget_exceeded"))
        return tuple(dict.fromkeys(each.model for each in costly if each.model and each.price is None))


def caps(
    *,
    max_turns: int | None = None,
    max_total_tokens: int | None = None,
    max_cost_microdollars: int | None = None,
    model: str | None = None,
    price: Price | None = None,
) -> Guard:
    """A guard of plain limits, for sessions without a grant; None is no limit, 0 halts at once.

    A cost is that of `model` (`provider:model`, or a name of a known family) at its shipped price, or at `price`.
    `ValueError` for a limit that is no count, and for a cost without a model.
    """
    limits = []
    if max_turns is not None:
        limits.append(Limit("max_turns", _limit("max_turns", max_turns)))
    if max_total_tokens is not None:
        limits.append(Limit("max_total_tokens", _limit("max_total_tokens", max_total_tokens)))
    if max_cost_microdollars is not None:
        if not model:
            raise ValueError("max_cost_microdollars needs the model whose price it is held against")
        most = _limit("max_cost_microdollars", max_cost_microdollars)
        limits.append(Limit("max_cost_microdollars", most, model, _price(model, price)))
    return Guard(tuple(limits))


def for_grant(grant: Grant, model: str, caps: Guard | None = None, *, price: Price | None = None) -> Guard:
    """A guard that halts at the caps, then at the grant's budget; a grant without a budget never halts it."""
    limits = () if caps is None else caps.limits
    budget = grant.budget_microdollars
    if budget is None:
        return Guard(limits)
    most = _limit("the budget of the grant", budget)
    return Guard((*limits, Limit("budget_exceeded", most, model, _price(model, price))))


def _price(model: str, price: Price | None) -> Price | None:
    if price is not None:
        return price
    table = PriceTable.load()
    ref = names.split(model, table.providers())
    found = None if ref is None else table.find(ref.provider, ref.model)
    if found is None:
        _say_unpriced(model)
    return found


@cache  # once for each model in a process
def _say_unpriced(model: str) -> None:
    log.warning(
        "no price is known for %s, so no guard here can hold what it costs; give `price`, or rely on the gateway", model
    )


def _limit(what: str, value: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{what} is a whole number from 0, or None for no limit, not {value!r}")
    return value


def _used(said: object) -> Usage:
    """What was used, whoever counted; OpenAI counts cached tokens within the input, Anthropic beside it."""
    given = _count(_field(said, _INPUT))
    within = min(_count(_field(_field(said, _DETAILS), ("cached_tokens",))), given)
    return Usage(
        input=given - within,
        output=_count(_field(said, _OUTPUT)),
        cache_read=within + _count(_field(said, _CACHE_READ)),
        cache_write=_count(_field(said, _CACHE_WRITE)),
    )


def _field(said: object, spellings: tuple[str, ...]) -> Any:
    """The value under the first spelling that is there; a 0 is there."""
    for name in spellings:
        value = said.get(name) if isinstance(said, Mapping) else getattr(said, name, None)
        if value is not None:
            return value
    return None


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _bounded(used: Usage) -> Usage:
    """As much as can be priced at once; no session is so long."""
    return Usage(
        min(used.input, TOKENS_MAX),
        min(used.output, TOKENS_MAX),
        min(used.cache_read, TOKENS_MAX),
        min(used.cache_write, TOKENS_MAX),
    )
