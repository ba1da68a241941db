"""Reserving by a guess instead of by a bound: for budgets whose owner would rather overrun a little than wait for a lot.

The strict bound counts bytes, which no tokenizer beats; a guess is a quarter of it. What a guess was short of is charged
all the same, so a budget may be passed by the excess of the requests that were under way, and never by more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from fastroute import _core
from fastroute.bodies import decoded
from fastroute.call import Call
from fastroute.callers import ShapeError
from fastroute.gateway import Gateway

# Where prompts stand, whatever the dialect; what else a body says is no text of anybody's.
_PROMPTS: Final = ("messages", "system", "input", "prompt", "instructions", "contents", "systemInstruction")
_TEXTS: Final = ("content", "text", "parts", "input", "arguments", "output")


class Estimating(Gateway):
    """A gateway whose reservations rest on an estimate of the prompt's tokens."""

    def read(self, call: Call, body: bytes) -> int:
        super().read(call, body)
        # With pictures or sounds in it nobody can guess: then the bound stays.
        if call.scan is not None and not call.scan.media:
            call.input_bound = min(call.input_bound, estimated(call))
        return 0


def estimated(call: Call) -> int:
    """The tokens a prompt probably has."""
    try:
        body = decoded(call)
    except ShapeError:
        return call.input_bound
    return _core.estimate_tokens(sum(len(text) for word in _PROMPTS for text in _texts(body.get(word))))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, dict):
        for word in _TEXTS:
            yield from _texts(value.get(word))
