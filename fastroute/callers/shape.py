"""What every caller dialect shares: the protocol, the refusal, the checks on a body, and the few words of SSE.

The canonical shape inside fastroute is the body of OpenAI chat completions as plain decoded JSON. Three extension fields
ride in it for what chat has no word for; `without_extensions` takes them out for an upstream that is strict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

import orjson
from msgspec import Struct

from fastroute.domain import TOKENS_MAX, Usage
from fastroute.errors import FastrouteError

Body = dict[str, Any]
T = TypeVar("T")

BODY_EXTENSIONS = ("top_k",)
"""Sampling that OpenAI has no name for and nearly everyone else does."""

MESSAGE_EXTENSIONS = ("thinking_blocks",)
"""Signed thinking of an earlier turn, as Anthropic gave it; only the model that signed it can read it."""

CALL_EXTENSIONS = ("extra_content",)
"""On a tool call: `extra_content.google.thought_signature`, the place Google's own chat endpoint uses."""


WHOLE_MAX = 2**63


class ShapeError(FastrouteError):
    """A caller's body says something that cannot be carried; `param` is the path of the first such field."""

    def __init__(self, param: str, message: str) -> None:
        self.param = param
        self.message = message
        super().__init__(f"{param}: {message}" if param else message)


class NativeOnly(ShapeError):
    """The body is well made but asks for `what`, which only a provider of the caller's own dialect can do."""

    def __init__(self, param: str, what: str) -> None:
        self.what = what
        super().__init__(
            param, f"{what} cannot be carried to this model; it needs a provider that speaks this API itself"
        )


class Reply(Struct, frozen=True):
    """The facts one reply is made with, which a pure translation may not invent."""

    id: str  # bare, letters, digits, `_` and `-`; each dialect puts its own prefix before it
    created: int  # seconds since 1970
    model: str  # the name the caller is to read
    body: Body = {}  # the caller's own request: some dialects echo it, and it says whether reasoning was asked for
    input_tokens: int = 0  # an estimate, for dialects that tell the input before the answer is known


class Encoder(Protocol):
    """Turns one chat stream into the caller's own; what it returns is sent as it is, and may be empty.

    After `finish` or `fail` nothing more is said. `start` is optional: the first `feed` starts by itself.
    """

    def start(self) -> bytes: ...

    def feed(self, chunk: Mapping[str, Any]) -> bytes:
        """One decoded `chat.completion.chunk`; odd shapes in it are passed over, never raised."""

    def finish(self, usage: Usage | Mapping[str, Any] | None = None) -> bytes:
        """The clean end, with the usage given or the last one fed; without a finish reason it fails instead."""

    def fail(self, kind: str, code: str | None, message: str, status: int = 502) -> bytes:
        """A typed error in place of an end, for a reply whose first bytes have already left."""


class Caller(Protocol):
    """The shape of each dialect's module."""

    def to_chat(self, body: Any) -> Body:
        """The caller's request as a chat request; raises `ShapeError` and nothing else."""

    def needs_native(self, body: Any) -> str | None:
        """The first thing in the body that only a provider of this dialect can do, or None."""

    def from_answer(self, chat: Mapping[str, Any], reply: Reply) -> Body:
        """A `chat.completion` as the caller's answer."""

    def stream(self, reply: Reply) -> Encoder: ...

    def error(
        self,
        status: int,
        kind: str,
        code: str | None,
        message: str,
        request_id: str | None = None,
        param: str | None = None,
    ) -> Body:
        """The caller's error envelope."""


def openai_error(
    status: int, kind: str, code: str | None, message: str, request_id: str | None = None, param: str | None = None
) -> Body:
    """OpenAI's envelope, exactly four fields; the status and the request id travel outside it."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def native_need(to_chat: Callable[[Any], Body], body: Any) -> str | None:
    """What `to_chat` refuses as native only; a malformed body needs nothing, and is told so when it is translated."""
    try:
        to_chat(body)
    except NativeOnly as refusal:
        return refusal.what
    except ShapeError:
        return None
    return None


def without_extensions(chat: Body) -> Body:
    """The same request with nothing in it but OpenAI's own fields; the argument is left as it was."""
    strict = {key: value for key, value in chat.items() if key not in BODY_EXTENSIONS}
    strict["messages"] = [_strict_message(message) for message in chat["messages"]]
    return strict


def _strict_message(message: Body) -> Body:
    strict = {key: value for key, value in message.items() if key not in MESSAGE_EXTENSIONS}
    if "tool_calls" in strict:
        strict["tool_calls"] = [
            {key: value for key, value in call.items() if key not in CALL_EXTENSIONS} for call in strict["tool_calls"]
        ]
    return strict


def sse(data: Body, event: str | None = None) -> bytes:
    """One server-sent event, whole."""
    name = b"event: " + event.encode() + b"\n" if event else b""
    line = orjson.dumps(data)
    # httpx's line reader, which several SDKs use, ends a line at these three as well: they travel escaped.
    if b"\xe2\x80" in line or b"\xc2\x85" in line:
        line = line.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
        line = line.replace(b"\xc2\x85", b"\\u0085")
    return name + b"data: " + line + b"\n\n"


# The checks below read one value of a caller's body and name it by its path when it is not what it must be.


def an_object(value: Any, param: str) -> Body:
    if not isinstance(value, dict):
        raise ShapeError(param, f"must be an object, not {_kind(value)}")
    return value


def a_list(value: Any, param: str) -> list[Any]:
    if not isinstance(value, list):
        raise ShapeError(param, f"must be an array, not {_kind(value)}")
    return value


def a_string(value: Any, param: str) -> str:
    if not isinstance(value, str):
        raise ShapeError(param, f"must be a string, not {_kind(value)}")
    return value


def a_name(value: Any, param: str) -> str:
    if not isinstance(value, str) or not value:
        raise ShapeError(param, f"must be a string that is not empty, not {_kind(value)}")
    return value


def a_flag(value: Any, param: str) -> bool:
    if not isinstance(value, bool):
        raise ShapeError(param, f"must be true or false, not {_kind(value)}")
    return value


def a_number(value: Any, param: str) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ShapeError(param, f"must be a number, not {_kind(value)}")
    if not -WHOLE_MAX < value < WHOLE_MAX:
        raise ShapeError(param, "is a number beyond all use")
    return value


def an_integer(value: Any, param: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ShapeError(param, f"must be a whole number, not {_kind(value)}")
    if not -WHOLE_MAX < value < WHOLE_MAX:
        raise ShapeError(param, "is a number beyond all use")
    return value


def a_count(value: Any, param: str) -> int:
    if not 1 <= an_integer(value, param) <= TOKENS_MAX:
        raise ShapeError(param, f"must be at least 1 and at most {TOKENS_MAX}")
    return int(value)


def a_schema(value: Any, param: str) -> Body:
    """An object that is carried as it is: all that is asked of it is that it can be written again."""
    json_text(an_object(value, param), param)
    return dict(value)


def strings(value: Any, param: str) -> list[str]:
    return [a_string(item, f"{param}[{i}]") for i, item in enumerate(a_list(value, param))]


def strings_or_one(value: Any, param: str) -> str | list[str]:
    return value if isinstance(value, str) else strings(value, param)


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, str):
        return "a string" if value else "an empty string"
    return {dict: "an object", list: "an array", int: "a number", float: "a number"}.get(type(value), "that")


def optional(body: Body, key: str, check: Callable[[Any, str], T], where: str = "") -> T | None:
    """The checked value of a field that may be absent or null."""
    value = body.get(key)
    return None if value is None else check(value, f"{where}{key}")


def required(body: Body, key: str, check: Callable[[Any, str], T], where: str = "") -> T:
    if body.get(key) is None:
        raise ShapeError(f"{where}{key}", "is required")
    return check(body[key], f"{where}{key}")


def carry(body: Body, chat: Body, fields: Mapping[str, tuple[str, Callable[[Any, str], Any]]], where: str = "") -> None:
    """Copies every given field to its chat name once it is checked."""
    for key, (name, check) in fields.items():
        value = optional(body, key, check, where)
        if value is not None:
            chat[name] = value


def finish_request(chat: Body, stream: bool | None) -> Body:
    """The streaming flags: every encoder tells usage, so a stream always asks for it."""
    if stream:
        chat["stream"] = True
        chat["stream_options"] = {"include_usage": True}
    return chat


def effort_for_budget(tokens: int) -> str:
    """A thinking budget as one of the three efforts everybody knows."""
    if tokens <= 4096:
        return "low"
    return "medium" if tokens <= 16384 else "high"


def json_text(value: Any, param: str) -> str:
    """A decoded JSON value as compact text."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # what the encoder's own error is made of
        raise ShapeError(param, "holds a number beyond 64 bits or is nested too deep") from None


def arguments_object(text: str) -> Body:
    """The arguments of a tool call as the object some dialects want.

    A model may write what is not an object; it is handed on under `raw_arguments`, so that the caller's own check of
    its tool's input fails with the evidence in sight.
    """
    if not text.strip():
        return {}
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {"raw_arguments": text}
    return value if isinstance(value, dict) else {"raw_arguments": text}


def usage_of(usage: Usage | Mapping[str, Any] | None) -> Usage:
    """Chat's usage as our own; what is missing or absurd counts as nothing."""
    if isinstance(usage, Usage):
        return usage
    if not isinstance(usage, Mapping):
        return Usage()
    prompt = _details(usage, "prompt_tokens_details")
    cached = _tokens(prompt.get("cached_tokens"))
    written = _tokens(prompt.get("cache_write_tokens")) or _tokens(prompt.get("cache_creation_tokens"))
    return Usage(
        input=max(0, _tokens(usage.get("prompt_tokens")) - cached - written),
        output=_tokens(usage.get("completion_tokens")),
        cache_read=cached,
        cache_write=written,
        reasoning=_tokens(_details(usage, "completion_tokens_details").get("reasoning_tokens")),
    )


def _details(usage: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    details = usage.get(key)
    return details if isinstance(details, Mapping) else {}


def _tokens(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= TOKENS_MAX:
        return value
    return 0
