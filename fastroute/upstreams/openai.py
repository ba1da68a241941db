"""The OpenAI dialect: fastroute's own shape, so bodies pass as they came and only what clients trip over is mended.

One class serves every compatible provider; they differ in the path before `/v1` and in nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fastroute.domain import TOKENS_MAX, Usage
from fastroute.upstreams.dialect import (
    FINISH_REASONS,
    Body,
    BrokenAnswer,
    ChatStream,
    DialectError,
    ProviderError,
    build_headers,
    chat_usage,
    count,
    dump,
    error_from,
    pass_on,
    read_error,
)

PATHS: Final = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "embeddings": "/v1/embeddings",
    "models": "/v1/models",
    "responses": "/v1/responses",
}

# x-stainless-* describes the caller's machine and no provider needs it. Idempotency-Key stays with us: two tenants
# share one provider account, where equal keys would meet, and no provider documents it for these endpoints.
PASSED: Final = ("openai-organization", "openai-project", "openai-beta")

_FINISH: Final = {
    "end_turn": "stop", "eos": "stop", "eos_token": "stop", "stop_sequence": "stop", "max_tokens": "length",
    "model_length": "length", "max_length": "length", "tool_use": "tool_calls", "safety": "content_filter",
    "refusal": "content_filter",
}  # fmt: skip


class OpenAI:
    """Any provider that speaks OpenAI's chat; `chat_path` stands in place of the chat path, for agents with one of their own.

    What a provider has before `/v1` belongs to its base URL.
    """

    name = "openai"
    speaks_chat = True

    def __init__(self, chat_path: str | None = None) -> None:
        self._paths = dict(PATHS)
        if chat_path is not None:
            self._paths["chat"] = chat_path

    def path(self, operation: str, model: str, stream: bool) -> str:
        if operation not in self._paths:
            raise DialectError("operation", f"the openai dialect has no {operation!r}")
        return self._paths[operation]

    def headers(self, key: str | None, passed: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
        return build_headers(("authorization", f"Bearer {key}") if key else None, pass_on(passed, PASSED))

    def request(self, chat: Body, model: str, *, stream: bool, max_output: int | None) -> Body:
        """The same body for `model`; a stream is always asked for usage, hidden again if the caller did not ask."""
        body = {**chat, "model": model}
        if stream:
            options = chat.get("stream_options")
            body["stream"] = True
            body["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
        else:
            body.pop("stream_options", None)
            if "stream" in body:
                body["stream"] = False
        return body

    def answer(self, body: Any, *, model: str, created: int, id: str) -> Body:  # noqa: A002 - the wire's word
        choices = body.get("choices") if isinstance(body, dict) else None
        if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
            raise BrokenAnswer("has no list of choices")
        whole = {**body, "choices": [_mend_choice(place, choice) for place, choice in enumerate(choices)]}
        _fill(whole, "chat.completion", model, created, id)
        if self.usage(body) is None:
            whole["usage"] = chat_usage(None)
        return whole

    def usage(self, body: Any) -> Usage | None:
        return usage_of(body.get("usage")) if isinstance(body, dict) else None

    def error(self, status: int, body: bytes) -> ProviderError:
        return read_error(status, body)

    def stream(self, *, model: str, created: int, id: str, include_usage: bool) -> OpenAIStream:  # noqa: A002 - the wire's word
        return OpenAIStream(model=model, created=created, id=id, include_usage=include_usage)


def usage_of(told: Any) -> Usage | None:
    """A `usage` object of chat, completions, embeddings or responses; None when it does not add up."""
    if not isinstance(told, dict):
        return None
    plain = _plain_usage(told)
    if plain is not None:
        return plain
    newer = "input_tokens" in told
    prompt_word, output_word = ("input", "output") if newer else ("prompt", "completion")
    if not isinstance(told.get(f"{prompt_word}_tokens"), int):
        return None
    details, output_details = told.get(f"{prompt_word}_tokens_details"), told.get(f"{output_word}_tokens_details")
    prompt, output = count(told, f"{prompt_word}_tokens"), count(told, f"{output_word}_tokens")
    read, write = count(details, "cached_tokens"), count(details, "cache_write_tokens")
    reasoning, total = count(output_details, "reasoning_tokens"), told.get("total_tokens")
    if min(prompt, output, read, write, reasoning) < 0 or read + write > prompt:
        return None
    if total is not None and total != prompt + output:
        # xAI and Gemini's compatible endpoint count reasoning beside the completion, and only the total tells.
        if isinstance(total, bool) or total != prompt + output + reasoning:
            return None
        output += reasoning
    if reasoning > output or output > TOKENS_MAX:
        return None
    return Usage(input=prompt - read - write, output=output, cache_read=read, cache_write=write, reasoning=reasoning)


def _plain_usage(told: Body) -> Usage | None:
    """The usual object, read at a quarter of the price; None for anything that wants a closer look."""
    prompt, output = told.get("prompt_tokens"), told.get("completion_tokens")
    if type(prompt) is not int or type(output) is not int or told.get("total_tokens") != prompt + output:
        return None
    read = reasoning = 0
    details = told.get("prompt_tokens_details")
    if details is not None:
        if type(details) is not dict or details.get("cache_write_tokens"):
            return None
        read = details.get("cached_tokens", 0)
    details = told.get("completion_tokens_details")
    if details is not None:
        if type(details) is not dict:
            return None
        reasoning = details.get("reasoning_tokens", 0)
    if type(read) is not int or type(reasoning) is not int:
        return None
    if not (0 <= read <= prompt <= TOKENS_MAX and 0 <= reasoning <= output <= TOKENS_MAX):
        return None
    return Usage(prompt - read, output, read, 0, reasoning)


def _fill(body: Body, kind: str, model: str, created: int, id: str) -> bool:  # noqa: A002 - the wire's word
    """Put in what is missing or of the wrong kind; whether anything was."""
    mended = False
    wanted = (("id", str, id), ("object", str, kind), ("created", int, created), ("model", str, model))
    for field, expected, value in wanted:
        if not isinstance(body.get(field), expected) or body[field] == "":
            body[field] = value
            mended = True
    return mended


def _mend_finish(choice: Body) -> bool:
    finish = choice.get("finish_reason")
    if finish is None or (isinstance(finish, str) and finish in FINISH_REASONS):
        return False
    choice["finish_reason"] = _FINISH.get(finish, "stop") if isinstance(finish, str) else "stop"
    choice["native_finish_reason"] = finish
    return True


def _mend_choice(place: int, choice: Body) -> Body:
    choice = {**choice}
    if not isinstance(choice.get("index"), int):
        choice["index"] = place
    if not isinstance(choice.get("message"), dict) and not isinstance(choice.get("text"), str):
        raise BrokenAnswer("has a choice without a message")
    if choice.get("finish_reason") is None:
        message = choice.get("message")
        choice["finish_reason"] = "tool_calls" if isinstance(message, dict) and message.get("tool_calls") else "stop"
    _mend_finish(choice)
    return choice


class _Calls:
    """The tool calls of one streamed choice, told apart by their id where the index is missing or lies."""

    def __init__(self) -> None:
        self._open: dict[Any, tuple[int, Any, Any]] = {}  # upstream index: our index, id, name
        self._made = 0
        self._last: Any = None

    def mend(self, call: Body) -> bool:
        """Index, id and name as clients need them; whether the delta was changed."""
        index, identity = call.get("index"), call.get("id")
        function = call["function"] if isinstance(call.get("function"), dict) else {}
        key = index if isinstance(index, int) else None if identity else self._last
        known = self._open.get(key)
        if known is None or (identity and identity != known[1]):
            known = self._open[key] = (self._made, identity, function.get("name"))
            self._made += 1
            fresh = True
        else:
            fresh = False
        self._last = key
        mended = index != known[0]
        call["index"] = known[0]
        if not fresh and identity:
            # Clients glue repeated names together: only the first delta of a call may carry one.
            del call["id"]
            call.pop("type", None)
            if function.get("name") == known[2]:
                function.pop("name", None)
            mended = True
        elif not fresh and function.get("name") and function["name"] == known[2]:
            del function["name"]
            mended = True
        return mended


class OpenAIStream(ChatStream):
    """Chunks pass byte for byte unless something in them would trip a client.

    `done` needs both `[DONE]` and a finish reason for every choice that began; `whole` is the second half alone, for a
    provider that closes its body cleanly and never says `[DONE]`.
    """

    def __init__(self, *, model: str, created: int, id: str, include_usage: bool) -> None:  # noqa: A002 - the wire's word
        super().__init__(model=model, created=created, id=id, include_usage=include_usage)
        self._identity = (model, created, id)
        self._finished: set[int] = set()
        self._calls: dict[int, _Calls] = {}

    @property
    def whole(self) -> bool:
        return self.done or (bool(self._started) and self._started == self._finished)

    def _read(self, event: str, data: bytes) -> list[bytes]:
        if data.strip() == b"[DONE]":
            self.done = self.whole
            return []
        chunk = self._object(data)
        if chunk.get("error") or event == "error":
            self.error = error_from(200, chunk)
            return []
        choices = chunk.get("choices")
        mended = _fill(chunk, "chat.completion.chunk", *self._identity)
        if not isinstance(choices, list):
            choices = chunk["choices"] = []
            mended = True
        for choice in choices:
            if not isinstance(choice, dict):
                raise BrokenAnswer("has a choice that is not an object")
            mended |= self._see(choice)
        if chunk.get("usage") is not None:
            usage = self.usage_so_far = usage_of(chunk["usage"])
            if self.whole or not choices:
                self.usage = usage
            if not choices and not self.include_usage:
                return []
        # A JSON text may hold raw line breaks between its tokens; inside an event each line carries its own prefix.
        return [b"data: %b\n\n" % (dump(chunk) if mended else data.replace(b"\n", b"\ndata: "))]

    def _see(self, choice: Body) -> bool:
        """Take note of one choice and mend it; whether it was changed."""
        index = choice.get("index")
        mended = not isinstance(index, int)
        place = index if isinstance(index, int) else 0
        choice["index"] = place
        self._started.add(place)
        delta = choice.get("delta")
        if isinstance(delta, dict):
            self._note(*(delta.get(word) for word in ("content", "reasoning_content", "reasoning", "refusal")))
            calls = delta.get("tool_calls")
            for call in calls if isinstance(calls, list) else ():
                if isinstance(call, dict):
                    mended |= self._calls.setdefault(place, _Calls()).mend(call)
                    function = call.get("function")
                    self.content_seen = True
                    self._note(function.get("arguments") if isinstance(function, dict) else None)
        self._note(choice.get("text"))
        mended |= _mend_finish(choice)
        if choice.get("finish_reason") is not None:
            self._finished.add(place)
            self.finish_reason = self.finish_reason or choice["finish_reason"]
        return mended
