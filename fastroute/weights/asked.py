"""A request to weights of this machine, read once: what is asked, and what this engine will not pretend to do."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Struct

from fastroute.weights.source import WeightsError

# What was always meant by silence here.
MAX_TOKENS: Final = 16
TEMPERATURE: Final = 0.7
_STOPS_MAX: Final = 16
_SEED_SPAN: Final = 1 << 63


class Refused(WeightsError):
    """The request is refused; `param` is the word of it that is."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        self.param, self.code = param, code
        super().__init__(message)


class Message(Struct, frozen=True):
    """One turn of a conversation, as text."""

    role: str
    content: str


class Asked(Struct, frozen=True):
    """One generation: a conversation, or a text to go on from."""

    messages: tuple[Message, ...] | None
    prompt: str
    max_tokens: int
    temperature: float
    top_p: float
    seed: int | None
    stops: tuple[str, ...]
    stream: bool
    include_usage: bool


class Done(Struct, frozen=True):
    """How a generation ended, and exactly how many tokens it read and made."""

    finish: str
    prompt_tokens: int
    completion_tokens: int


class _Options(Struct):
    include_usage: bool = False


class _Format(Struct):
    type: str = "text"


class _Turn(Struct):
    role: str
    content: str | list[dict[str, Any]] | None = None
    tool_calls: Any = None


class _Body(Struct):
    messages: list[_Turn] | None = None
    prompt: Any = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: _Options | None = None
    n: int | None = None
    best_of: int | None = None
    logprobs: bool | int | None = None
    echo: bool | None = None
    suffix: str | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    response_format: _Format | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, Any] | None = None


_BODY: Final = msgspec.json.Decoder(_Body)


def read(body: bytes, *, chat: bool) -> Asked:
    """The request of a body; `Refused` for what is wrong in it, and for what transformers does not do here."""
    try:
        given = _BODY.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(f"the body cannot be read: {error}") from None
    _refuse_what_is_not_done(given)
    cap = given.max_completion_tokens if given.max_completion_tokens is not None else given.max_tokens
    temperature = TEMPERATURE if given.temperature is None else given.temperature
    top_p = 1.0 if given.top_p is None else given.top_p
    if cap is not None and cap < 1:
        raise Refused("max_tokens is at least 1", "max_tokens")
    if not 0 <= temperature <= 2:
        raise Refused("temperature is from 0 to 2", "temperature")
    if not 0 < top_p <= 1:
        raise Refused("top_p is above 0 and at most 1", "top_p")
    stops = [given.stop] if isinstance(given.stop, str) else given.stop or []
    if len(stops) > _STOPS_MAX:
        raise Refused(f"there are at most {_STOPS_MAX} stops", "stop")
    return Asked(
        _messages(given) if chat else None,
        "" if chat else _prompt(given),
        MAX_TOKENS if cap is None else cap,
        temperature,
        top_p,
        None if given.seed is None else given.seed % _SEED_SPAN,
        tuple(stop for stop in stops if stop),
        bool(given.stream),
        given.stream_options is not None and given.stream_options.include_usage,
    )


def _messages(given: _Body) -> tuple[Message, ...]:
    if not given.messages:
        raise Refused("messages is a list of at least one message", "messages")
    return tuple(Message(turn.role, _text(turn, f"messages.{place}")) for place, turn in enumerate(given.messages))


def _text(turn: _Turn, where: str) -> str:
    if turn.tool_calls:
        raise Refused("these weights call no tools", f"{where}.tool_calls")
    if isinstance(turn.content, list):
        texts = [part.get("text") for part in turn.content]
        if not all(isinstance(text, str) for text in texts):
            raise Refused("these weights read text only", f"{where}.content")
        return "\n".join(str(text) for text in texts)
    return turn.content or ""


def _prompt(given: _Body) -> str:
    prompt = given.prompt
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise Refused("the prompt is one text", "prompt")
    return prompt


def _refuse_what_is_not_done(given: _Body) -> None:
    """An answer that ignores what was asked for would look like one that obeys."""
    kind = "text" if given.response_format is None else given.response_format.type
    undone = {
        "tools": bool(given.tools) and given.tool_choice != "none",
        "response_format": kind != "text",
        "n": given.n not in (None, 1),
        "best_of": given.best_of not in (None, 1),
        "logprobs": given.logprobs not in (None, False),
        "echo": bool(given.echo),
        "suffix": bool(given.suffix),
        "frequency_penalty": bool(given.frequency_penalty),
        "presence_penalty": bool(given.presence_penalty),
        "logit_bias": bool(given.logit_bias),
    }
    for word, wanted in undone.items():
        if wanted:
            raise Refused(f"weights run by transformers do not support {word}", word, "unsupported")
