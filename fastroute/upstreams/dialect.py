"""What every provider dialect shares: the protocol the relay speaks to, refusals, faults, usage and chunk writing.

The canonical shape inside fastroute is an OpenAI chat body as decoded from JSON. A dialect says it in a provider's
words and hears the answer back. Everything here is pure: no clock, no I/O; times and ids are handed in. `openai`,
`anthropic`, `google` and `dummy` stand beside this file and know only it.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

import orjson

from fastroute.domain import TOKENS_MAX, Usage
from fastroute.errors import FastrouteError
from fastroute.redaction import scrub_text

Body = dict[str, Any]

DONE: Final = b"data: [DONE]\n\n"
"""What ends a chat stream. The relay writes it, after the cost comment; no translator does."""

FINISH_REASONS: Final = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})


class DialectError(FastrouteError):
    """A dialect has no words for this; `param` is the place in the request that cannot be said."""

    def __init__(self, param: str, message: str) -> None:
        self.param = param
        self.message = message
        super().__init__(f"{param}: {message}")


class BrokenAnswer(DialectError):
    """What the provider answered is not an answer in its own dialect; the request was not at fault."""

    def __init__(self, message: str) -> None:
        super().__init__("answer", message)


class ProviderError(NamedTuple):
    """A provider's error in one vocabulary; the message is scrubbed and at most 500 characters long."""

    type: str
    code: str
    message: str
    retry_after_s: int | None = None  # told in the body, as Google does, and not in a header


class Dialect(Protocol):
    """How one family of providers is spoken to."""

    name: str
    speaks_chat: bool
    """The canonical shape is this dialect's own, so a body may pass with nothing but `model` changed."""

    def path(self, operation: str, model: str, stream: bool) -> str:
        """The path and query below a base URL that carries no version; `DialectError` for what is not offered."""

    def headers(self, key: str | None, passed: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
        """The whole of what goes up beside Host and framing: ours, the key, and what of the caller's is on the list."""

    def request(self, chat: Body, model: str, *, stream: bool, max_output: int | None) -> Body:
        """The provider's body; `chat` is left as it was. `DialectError` for what would change meaning if left out."""

    def answer(self, body: Any, *, model: str, created: int, id: str) -> Body:  # noqa: A002 - the wire's word
        """A whole `chat.completion`; `BrokenAnswer` when the body is not an answer."""

    def usage(self, body: Any) -> Usage | None:
        """What a whole answer says was used; None when it says nothing or nothing plausible."""

    def error(self, status: int, body: bytes) -> ProviderError:
        """The provider's error body, normalised; it never raises."""

    def stream(self, *, model: str, created: int, id: str, include_usage: bool) -> ChatStream:  # noqa: A002 - as above
        """A translator for one streamed answer."""


# --- what a request asks that a dialect may leave unsaid -----------------------------------------------------------

HINTS: Final[dict[str, str]] = {
    "metadata": "a label for the provider's own store",
    "prediction": "only makes the same answer come sooner",
    "prompt_cache_key": "steers a cache, never the answer",
    "prompt_cache_options": "steers a cache, never the answer",
    "prompt_cache_retention": "steers a cache, never the answer",
    "safety_identifier": "names an end user to another provider",
    "seed": "best effort even where it exists",
    "service_tier": "names the tiers of another provider",
    "store": "asks for a copy in another provider's store",
    "user": "names an end user to another provider",
    "verbosity": "a wish about length",
}
"""Parameters a dialect without a word for them drops: with or without them, the question asked is the same."""

NEUTRAL: Final[dict[str, tuple[Any, ...]]] = {
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "presence_penalty": (0,),
    "top_logprobs": (0,),
}
"""Values that say what leaving the parameter out says; clients send them by habit."""


def refuse_unsaid(chat: Body, said: frozenset[str], dialect: str) -> None:
    """Raise for the first parameter that is neither translated, nor a hint, nor at its neutral value."""
    for param, value in chat.items():
        if value is None or param in said or param in HINTS or value in NEUTRAL.get(param, ()):
            continue
        raise DialectError(param, f"the {dialect} dialect cannot express {param!r}; leave it out or pin another model")


def messages_of(chat: Body) -> Iterator[tuple[str, Body]]:
    """Each message with the name of its place; refuses what is not a list of objects."""
    messages = chat.get("messages")
    if not isinstance(messages, list) or not messages:
        raise DialectError("messages", "must be a list of at least one message")
    for number, message in enumerate(messages):
        if not isinstance(message, dict):
            raise DialectError(f"messages[{number}]", "must be an object")
        yield f"messages[{number}]", message


def parts_of(content: Any, where: str) -> list[Body]:
    """Message content as a list of parts: none for null, one for a string."""
    if content is None:
        return []
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise DialectError(where, "must be a string or a list of parts")
    for number, part in enumerate(content):
        if not isinstance(part, dict):
            raise DialectError(f"{where}[{number}]", "must be an object")
    return content


def string(holder: Any, field: str, where: str) -> str:
    """A string that must be there."""
    value = holder.get(field) if isinstance(holder, dict) else None
    if not isinstance(value, str):
        raise DialectError(f"{where}.{field}", "must be a string")
    return value


def number(chat: Body, param: str) -> int | float | None:
    """A number that may be there."""
    value = chat.get(param)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise DialectError(param, "must be a number")
    return value


def output_cap(chat: Body, max_output: int | None) -> int | None:
    """The most output tokens asked for; what the model cannot give is not asked for."""
    for param in ("max_completion_tokens", "max_tokens"):
        value = chat.get(param)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise DialectError(param, "must be a whole number above 0")
        return value if max_output is None else min(value, max_output)
    return None


def stops_of(chat: Body) -> list[str]:
    """The stop sequences: none, one or several."""
    stop = chat.get("stop")
    stops = [] if stop is None else [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or not all(isinstance(each, str) for each in stops):
        raise DialectError("stop", "must be a string or a list of strings")
    return stops


def functions_of(chat: Body) -> list[tuple[Body, Body]]:
    """Each tool with its function; refuses tools that are not functions."""
    tools = chat.get("tools")
    if tools is None:
        return []
    if not isinstance(tools, list):
        raise DialectError("tools", "must be a list")
    pairs = []
    for place, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or tool.get("type", "function") != "function":
            raise DialectError(f"tools[{place}]", "only tools of type 'function' can be translated")
        string(function, "name", f"tools[{place}].function")
        if not isinstance(function.get("parameters") or {}, dict):
            raise DialectError(f"tools[{place}].function.parameters", "must be a JSON schema object")
        pairs.append((tool, function))
    return pairs


def tool_choice_of(chat: Body) -> tuple[str, str | None]:
    """(`auto` | `none` | `required` | `named` | ``, the name): the empty word when nothing was said."""
    choice = chat.get("tool_choice")
    if choice is None:
        return "", None
    if choice in ("auto", "none", "required"):
        return choice, None
    if choice == "any":  # Mistral's word
        return "required", None
    if isinstance(choice, dict) and choice.get("type") == "function":
        return "named", string(choice.get("function"), "name", "tool_choice.function")
    raise DialectError("tool_choice", "must be 'auto', 'none', 'required' or name one function")


def tool_calls_of(message: Body, where: str) -> list[tuple[Body, str, str, Body]]:
    """(call, id, name, arguments) for each call an assistant message made."""
    if message.get("function_call") is not None:
        raise DialectError(f"{where}.function_call", "is the deprecated form; use tool_calls")
    calls = message.get("tool_calls")
    if calls is None:
        return []
    if not isinstance(calls, list):
        raise DialectError(f"{where}.tool_calls", "must be a list")
    found = []
    for place, call in enumerate(calls):
        here = f"{where}.tool_calls[{place}]"
        if not isinstance(call, dict) or call.get("type", "function") != "function":
            raise DialectError(here, "only calls of type 'function' can be translated")
        function = call.get("function")
        name = string(function, "name", f"{here}.function")
        raw = string(function, "arguments", f"{here}.function")
        try:
            arguments = orjson.loads(raw) if raw.strip() else {}
        except orjson.JSONDecodeError:
            arguments = None
        if not isinstance(arguments, dict):
            raise DialectError(f"{here}.function.arguments", "must be the JSON text of an object")
        found.append((call, string(call, "id", here), name, arguments))
    return found


def data_url(url: str) -> tuple[str, str] | None:
    """(media type, base64 text) of a `data:` URL; None for any other URL."""
    if url[:5].lower() != "data:":
        return None
    head, comma, data = url.partition(",")
    media, *options = head[5:].lower().split(";")
    return (media, data) if comma and "base64" in options else None


def https_url(url: str) -> bool:
    return url.startswith(("https://", "http://"))


def file_of(part: Body, where: str) -> tuple[str, str, str | None]:
    """(media type, base64 text, file name) of a `file` part that carries its bytes."""
    file = part.get("file")
    if not isinstance(file, dict) or not isinstance(file.get("file_data"), str):
        raise DialectError(f"{where}.file", "must carry file_data; an id names a file in another provider's store")
    found = data_url(file["file_data"])
    if found is None:
        raise DialectError(f"{where}.file.file_data", "must be a base64 data: URL")
    name = file.get("filename")
    return *found, name if isinstance(name, str) and name else None


def schema_of(chat: Body) -> tuple[str, Body | None]:
    """(`text` | `json_object` | `json_schema`, the schema) of the response format."""
    wanted = chat.get("response_format")
    if wanted is None:
        return "text", None
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind in ("text", "json_object"):
        return kind, None
    named = wanted.get("json_schema") if kind == "json_schema" else None
    schema = named.get("schema") if isinstance(named, dict) else None
    if not isinstance(schema, dict):
        raise DialectError("response_format", "must be text, json_object or a json_schema with its schema")
    return "json_schema", schema


def effort_of(chat: Body) -> str | None:
    """How hard the model should think, in OpenAI's words."""
    effort = chat.get("reasoning_effort")
    if effort is not None and effort not in ("none", "minimal", "low", "medium", "high", "xhigh", "max"):
        raise DialectError("reasoning_effort", "must be none, minimal, low, medium, high, xhigh or max")
    return effort


# --- headers -------------------------------------------------------------------------------------------------------

_OURS: Final = (
    (b"content-type", b"application/json"),
    (b"accept", b"application/json"),
    (b"accept-encoding", b"identity"),
)
_VISIBLE: Final = re.compile(r"[\x20-\x7e]*")


def build_headers(key: tuple[str, str] | None, fixed: Sequence[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Our own headers, then the key's, then the rest; a value that could end a line early is refused unseen."""
    headers = list(_OURS)
    for name, value in (*((key,) if key else ()), *fixed):
        if not _VISIBLE.fullmatch(value):
            raise DialectError(name, "header values must be printable ASCII")
        headers.append((name.encode(), value.encode()))
    return headers


def pass_on(passed: Mapping[str, str], allowed: Sequence[str]) -> list[tuple[str, str]]:
    """The caller's headers that are on the list; names compare without case."""
    lowered = {name.lower(): value for name, value in passed.items()}
    return [(name, lowered[name]) for name in allowed if name in lowered]


# --- faults --------------------------------------------------------------------------------------------------------

MESSAGE_MAX: Final = 500
_CODE: Final = re.compile(r"[A-Za-z0-9_.\-]{1,64}")
_DELAY: Final = re.compile(r"([0-9]{1,9})((?:\.[0-9]{1,9})?)s")
_DELAY_MAX_S: Final = 86_400
# Anthropic tells an empty account with the 400 and the type of a bad request.
_NO_MONEY: Final = "credit balance is too low"
_TOO_LONG: Final = ("prompt is too long", "exceeds the maximum number of tokens", "maximum context length")
# What llama.cpp says with a 500 of a request that it will never take.
_UNSUPPORTED: Final = ("image input is not supported", "audio input is not supported", "failed to parse tools")

_BY_STATUS: Final[dict[int, str]] = {
    400: "invalid_request_error", 401: "authentication_error", 402: "insufficient_quota", 403: "permission_error",
    404: "not_found_error", 408: "timeout_error", 413: "invalid_request_error", 422: "invalid_request_error",
    429: "rate_limit_error", 503: "overloaded_error", 504: "timeout_error", 529: "overloaded_error",
}  # fmt: skip
_BY_WORD: Final[dict[str, str]] = {
    "api_error": "server_error", "api_key_invalid": "authentication_error",
    "authentication_error": "authentication_error", "billing_error": "insufficient_quota",
    "deadline_exceeded": "timeout_error", "insufficient_quota": "insufficient_quota", "internal": "server_error",
    "internal_server_error": "server_error", "invalid_api_key": "authentication_error",
    "invalid_argument": "invalid_request_error", "invalid_request_error": "invalid_request_error",
    "not_found": "not_found_error", "not_found_error": "not_found_error", "overloaded_error": "overloaded_error",
    "permission_denied": "permission_error", "permission_error": "permission_error",
    "rate_limit_error": "rate_limit_error", "rate_limit_exceeded": "rate_limit_error",
    "resource_exhausted": "rate_limit_error", "server_error": "server_error", "timeout_error": "timeout_error",
    "unauthenticated": "authentication_error", "unavailable": "overloaded_error",
    "unsupported": "invalid_request_error",
}  # fmt: skip


def scrub(text: str) -> str:
    """One line of at most 500 characters with everything that looks like a key taken out first."""
    # Keys go before the cut: half a key at the edge would no longer look like one.
    line = " ".join(scrub_text(text[: 8 * MESSAGE_MAX]).split())
    return line if len(line) <= MESSAGE_MAX else line[: MESSAGE_MAX - 3] + "..."


def read_error(status: int, body: bytes) -> ProviderError:
    """An error body of any provider in one vocabulary; a page of HTML is never echoed."""
    value = parse(body) if len(body) <= 262_144 else None
    if value is None:
        text = body[: 8 * MESSAGE_MAX].decode("utf-8", "replace").strip()
        value = {} if text.startswith(("<", "{", "[")) else {"message": text}
    return error_from(status, value)


def error_from(status: int, value: Any) -> ProviderError:
    """The same for a decoded body; a status below 400 means the error came inside an answer."""
    if isinstance(value, list) and value:
        value = value[0]
    outer = value if isinstance(value, dict) else {}
    inner = outer.get("error") or outer
    if isinstance(inner, str):
        inner = {"message": inner}
    elif not isinstance(inner, dict):
        inner = {}
    message = next((inner[word] for word in ("message", "detail", "msg") if isinstance(inner.get(word), str)), "")
    words = [word.lower() for word in _words(inner) if _CODE.fullmatch(word)]
    numeric = inner.get("code")
    if status < 400 and isinstance(numeric, int) and 400 <= numeric <= 599:
        status = numeric
    if any(mark in message.lower() for mark in _TOO_LONG):
        words.insert(0, "context_length_exceeded")
    if _NO_MONEY in message.lower():
        words.insert(0, "insufficient_quota")
    if status in (500, 501) and ("not_supported_error" in words or message.lower().startswith(_UNSUPPORTED)):
        words.insert(0, "unsupported")
    kind = next((_BY_WORD[word] for word in words if word in _BY_WORD), None) or _BY_STATUS.get(status)
    if kind is None:
        kind = "invalid_request_error" if 400 <= status < 500 else "server_error"
    code = words[0] if words else f"http_{status}"
    told = scrub(message) or f"the provider answered {status} and gave no reason"
    return ProviderError(kind, scrub(code), told, _retry_delay(inner))


def _retry_delay(inner: Body) -> int | None:
    """Whole seconds of Google's `RetryInfo`, which says when to come back as "34.07s"."""
    details = inner.get("details")
    for detail in details if isinstance(details, list) else ():
        delay = detail.get("retryDelay") if isinstance(detail, dict) else None
        found = _DELAY.fullmatch(delay) if isinstance(delay, str) else None
        if found is not None:
            return min(int(found[1]) + bool(found[2].strip(".0")), _DELAY_MAX_S)
    return None


def _words(inner: Body) -> Iterator[str]:
    details = inner.get("details")
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict) and detail.get("reason") == "API_KEY_INVALID":
            yield "api_key_invalid"  # Google answers a bad key with a plain 400
    for field in ("code", "status", "type"):
        if isinstance(inner.get(field), str):
            yield inner[field]


def parse(data: bytes) -> Any:
    """JSON with bytes that are not UTF-8 replaced; None when it is not JSON at all."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        pass
    try:
        return orjson.loads(data.decode("utf-8", "replace"))
    except orjson.JSONDecodeError:
        return None


def dump(value: Any) -> bytes:
    """Compact JSON; `BrokenAnswer` for what cannot be written again, such as nesting without end."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError as fault:
        raise BrokenAnswer("holds a value that cannot be written as JSON") from fault


# --- usage ---------------------------------------------------------------------------------------------------------


def count(holder: Any, field: str) -> int:
    """A token count: 0 when absent or null, -1 when it is not a plausible count."""
    value = holder.get(field) if isinstance(holder, dict) else None
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= TOKENS_MAX:
        return -1
    return value


def chat_usage(usage: Usage | None) -> Body:
    """Usage in chat's words; all zero when nothing plausible is known, since clients insist on the fields."""
    usage = usage or Usage()
    return {
        "prompt_tokens": usage.input_total,
        "completion_tokens": usage.output,
        "total_tokens": usage.input_total + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read, "cache_write_tokens": usage.cache_write},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


# --- answers -------------------------------------------------------------------------------------------------------


def assistant(
    text: str, reasoning: str, calls: list[Body], *, refusal: str | None = None, extra: Body | None = None
) -> Body:
    """An assistant message; content is null only when there are calls or a refusal instead of it."""
    message: Body = {"role": "assistant", "content": text or (None if calls or refusal else ""), "refusal": refusal}
    if reasoning:
        message["reasoning_content"] = reasoning
    if calls:
        message["tool_calls"] = calls
    return message | (extra or {})


def completion(choices: list[Body], usage: Usage | None, *, model: str, created: int, id: str) -> Body:  # noqa: A002 - the wire's word
    """A whole answer with every field clients insist on."""
    return {
        "id": id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": choices,
        "usage": chat_usage(usage),
    }


class ChatStream(ABC):
    """One streamed answer on its way into chat chunks; fed with split SSE events, it gives back ready ones.

    Nothing is given back before there is content, unless the answer ends empty: the role rides on the first delta. A
    broken event becomes an `error`, after which everything is ignored. `[DONE]` is never written here. `done` says the
    provider's terminal event came; usage may still follow, so the body is read to its end all the same.
    """

    def __init__(self, *, model: str, created: int, id: str, include_usage: bool) -> None:  # noqa: A002 - the wire's word
        self.include_usage = include_usage
        self.content_seen = False
        self.content_bytes = 0
        """UTF-8 bytes of text, reasoning and arguments so far: what a bounded settlement counts."""
        self.finish_reason: str | None = None
        self.usage: Usage | None = None
        """Final and plausible, or None."""
        self.usage_so_far: Usage | None = None
        """The last plausible count before the end; its input side is what a cut stream is known to have cost."""
        self.error: ProviderError | None = None
        self.done = False
        head = {"id": id, "object": "chat.completion.chunk", "created": created, "model": model}
        self._head = orjson.dumps(head)[:-1]
        self._started: set[int] = set()

    @property
    def whole(self) -> bool:
        """Whether a clean end of the body may stand for the terminal event: only where providers are known to skip it."""
        return self.done

    @property
    def ended(self) -> bool:
        """Whether nothing that matters can follow, so that the rest of the body need not be waited for."""
        return self.done

    def feed(self, event: str, data: bytes) -> list[bytes]:
        """The chunks that one event of the provider makes, each a whole SSE event; it never raises."""
        if self.error is not None:
            return []
        try:
            return self._read(event, data)
        except BrokenAnswer as fault:
            self.error = ProviderError("server_error", "malformed_event", f"the provider's stream {fault.message}")
            return []

    @abstractmethod
    def _read(self, event: str, data: bytes) -> list[bytes]: ...

    def _object(self, data: bytes) -> Body:
        value = parse(data)
        if not isinstance(value, dict):
            raise BrokenAnswer("has an event that is not a JSON object")
        return value

    def _note(self, *texts: Any) -> None:
        """Count what a delta carries."""
        for text in texts:
            if isinstance(text, str) and text:
                self.content_seen = True
                self.content_bytes += len(text) if text.isascii() else len(text.encode())

    def _chunk(self, index: int, delta: Body, finish: str | None = None, native: Any = None) -> bytes:
        if index not in self._started:
            self._started.add(index)
            delta = {"role": "assistant", **delta}
        choice: Body = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        if finish is not None:
            self.finish_reason = self.finish_reason or finish
            choice["native_finish_reason"] = native
        return b'data: %b,"choices":[%b]}\n\n' % (self._head, dump(choice))

    def _usage_chunk(self) -> bytes:
        return b'data: %b,"choices":[],"usage":%b}\n\n' % (self._head, dump(chat_usage(self.usage)))
