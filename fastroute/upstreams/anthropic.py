"""The Anthropic dialect: chat in and out of the Messages API.

What cannot be said there is refused. Three choices are worth knowing. A JSON schema goes to `output_config.format`,
the documented successor of the `output_format` beta, since a forced tool would shut out thinking and the caller's own
tools. `json_object` has no counterpart (a schema there must be closed, so "any object" cannot be written); it becomes
one sentence in the system prompt. Reasoning effort is `output_config.effort` with adaptive thinking from Claude 4.6
on, a token budget inside `max_tokens` from 3.7 to 4.5, and nothing before that.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Mapping
from typing import Any, Final

from fastroute.domain import TOKENS_MAX, Usage
from fastroute.upstreams.dialect import (
    Body,
    BrokenAnswer,
    ChatStream,
    DialectError,
    ProviderError,
    assistant,
    build_headers,
    completion,
    count,
    data_url,
    dump,
    effort_of,
    error_from,
    file_of,
    functions_of,
    https_url,
    messages_of,
    number,
    output_cap,
    parts_of,
    pass_on,
    read_error,
    refuse_unsaid,
    schema_of,
    stops_of,
    string,
    tool_calls_of,
    tool_choice_of,
)

VERSION: Final = "2023-06-01"
DEFAULT_MAX_TOKENS: Final = 4096
"""What a caller who names no cap gets, or the model's own limit when that is smaller; the API insists on a figure."""

PATHS: Final = {
    "chat": "/v1/messages",
    "messages": "/v1/messages",
    "count_tokens": "/v1/messages/count_tokens",
    "models": "/v1/models",
}

JSON_ONLY: Final = "Answer with one JSON object and nothing else."

_SAID: Final = frozenset({
    "max_completion_tokens", "max_tokens", "messages", "model", "parallel_tool_calls", "reasoning_effort",
    "response_format", "stop", "stream", "stream_options", "temperature", "thinking", "tool_choice", "tools", "top_k",
    "top_p",
})  # fmt: skip
_FINISH: Final = {
    "end_turn": "stop", "stop_sequence": "stop", "tool_use": "tool_calls", "refusal": "content_filter",
    # Both stop short of the end: the text is a part of an answer, which is what `length` tells a client.
    "max_tokens": "length", "model_context_window_exceeded": "length", "pause_turn": "length",
}  # fmt: skip
_IMAGES: Final = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
_FOREIGN: Final = re.compile(r"[^A-Za-z0-9_-]")
_CLAUDE: Final = re.compile(r"claude-(?:[a-z]+-)?(\d{1,2})(?:[-.](\d{1,2}))?(?!\d)")
_DEPTH_MAX: Final = 64

# Shares of max_tokens spent on thinking, in hundredths; the API's floor for a budget is 1024.
_BUDGET_SHARE: Final = {"minimal": 10, "low": 20, "medium": 50, "high": 80, "xhigh": 95, "max": 95}
_BUDGET_MIN: Final = 1024
_BUDGET_MAX: Final = 32_000


class Anthropic:
    """Claude at Anthropic, or whoever else answers `/v1/messages`."""

    name = "anthropic"
    speaks_chat = False

    def path(self, operation: str, model: str, stream: bool) -> str:
        if operation not in PATHS:
            raise DialectError("operation", f"the anthropic dialect has no {operation!r}")
        return PATHS[operation]

    def headers(self, key: str | None, passed: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
        kept = pass_on(passed, ("anthropic-version", "anthropic-beta"))
        if not kept or kept[0][0] != "anthropic-version":
            kept.insert(0, ("anthropic-version", VERSION))
        return build_headers(("x-api-key", key) if key else None, kept)

    def request(self, chat: Body, model: str, *, stream: bool, max_output: int | None) -> Body:
        refuse_unsaid(chat, _SAID, self.name)
        system, turns = _conversation(chat)
        kind, schema = schema_of(chat)
        if kind == "json_object":
            system.append({"type": "text", "text": JSON_ONLY})
        cap = output_cap(chat, max_output) or min(DEFAULT_MAX_TOKENS, max_output or DEFAULT_MAX_TOKENS)
        body: Body = {"model": model, "max_tokens": cap}
        if system:
            plain = not any("cache_control" in block for block in system)
            body["system"] = "\n".join(block["text"] for block in system) if plain else system
        body["messages"] = turns
        temperature = number(chat, "temperature")
        if temperature is not None:
            body["temperature"] = min(temperature, 1)  # chat goes to 2, Claude to 1; Anthropic's own bridge caps too
        for param in ("top_p", "top_k"):
            value = number(chat, param)
            if value is not None:
                body[param] = value
        stops = stops_of(chat)
        if any(not stop.strip() for stop in stops):
            raise DialectError("stop", "the anthropic dialect has no stop sequences of white space alone")
        if stops:
            body["stop_sequences"] = stops
        _tools(chat, body)
        if schema is not None:
            body["output_config"] = {"format": {"type": "json_schema", "schema": _closed(schema, 0)}}
        _thinking(chat, model, body)
        if stream:
            body["stream"] = True
        return body

    def answer(self, body: Any, *, model: str, created: int, id: str) -> Body:  # noqa: A002 - the wire's word
        blocks = body.get("content") if isinstance(body, dict) else None
        if not isinstance(blocks, list) or body.get("type") == "error":
            raise BrokenAnswer("has no list of content blocks")
        text: list[str] = []
        thoughts: list[Body] = []
        calls: list[Body] = []
        for block in blocks:
            kind = block.get("type") if isinstance(block, dict) else None
            if kind == "text" and isinstance(block.get("text"), str):
                text.append(block["text"])
            elif kind in ("thinking", "redacted_thinking"):
                thoughts.append(block)
            elif kind == "tool_use":
                calls.append(_call(block))
        reasoning = "".join(block["thinking"] for block in thoughts if isinstance(block.get("thinking"), str))
        extra = {"thinking_blocks": thoughts} if thoughts else None
        native = body.get("stop_reason")
        choice = {
            "index": 0,
            "message": assistant("".join(text), reasoning, calls, refusal=_refusal(body), extra=extra),
            "logprobs": None,
            "finish_reason": _finish(native, bool(calls)),
            "native_finish_reason": native,
        }
        return completion([choice], self.usage(body), model=model, created=created, id=id)

    def usage(self, body: Any) -> Usage | None:
        return usage_of(body.get("usage")) if isinstance(body, dict) else None

    def error(self, status: int, body: bytes) -> ProviderError:
        return read_error(status, body)

    def stream(self, *, model: str, created: int, id: str, include_usage: bool) -> AnthropicStream:  # noqa: A002 - the wire's word
        return AnthropicStream(model=model, created=created, id=id, include_usage=include_usage)


# --- from chat -----------------------------------------------------------------------------------------------------


def _conversation(chat: Body) -> tuple[list[Body], list[Body]]:
    """System blocks, and turns in which the roles alternate; tool results are part of the user's turn."""
    system: list[Body] = []
    turns: list[tuple[str, list[Body]]] = []
    for where, message in messages_of(chat):
        role = message.get("role")
        if role in ("system", "developer"):
            system.extend(_blocks(message.get("content"), f"{where}.content", only_text=True))
            continue
        if role == "user":
            blocks = _blocks(message.get("content"), f"{where}.content")
        elif role == "assistant":
            blocks = _spoken(message, where)
        elif role == "tool":
            role, blocks = "user", [_result(message, where)]
        else:
            raise DialectError(f"{where}.role", "must be system, developer, user, assistant or tool")
        if not blocks:
            continue  # the API refuses empty turns, and nothing was said
        if turns and turns[-1][0] == role:
            turns[-1][1].extend(blocks)
        else:
            turns.append((role, blocks))
    if not turns:
        raise DialectError("messages", "hold nothing to answer besides the system prompt")
    return system, [{"role": role, "content": _plain(blocks)} for role, blocks in turns]


def _plain(blocks: list[Body]) -> str | list[Body]:
    """A single text block as the string it is."""
    only = blocks[0]
    return only["text"] if len(blocks) == 1 and only.keys() == {"type", "text"} else blocks


def _blocks(content: Any, where: str, *, only_text: bool = False) -> list[Body]:
    found = []
    for place, part in enumerate(parts_of(content, where)):
        here, kind = f"{where}[{place}]", part.get("type")
        if kind in ("text", "refusal"):
            text = string(part, kind, here)
            # Blank text blocks are refused there.
            block: Body | None = {"type": "text", "text": text} if text.strip() else None
        elif only_text:
            raise DialectError(here, "a system prompt is text")
        elif kind == "image_url":
            block = {"type": "image", "source": _image(part, here)}
        elif kind == "file":
            block = _document(part, here)
        else:
            raise DialectError(here, f"content of type {kind!r} cannot be expressed in the anthropic dialect")
        if block is not None:
            if part.get("cache_control") is not None:
                block["cache_control"] = part["cache_control"]
            found.append(block)
    return found


def _image(part: Body, where: str) -> Body:
    url = string(part.get("image_url"), "url", f"{where}.image_url")
    inline = data_url(url)
    if inline is not None:
        if inline[0] not in _IMAGES:
            raise DialectError(f"{where}.image_url", "must be jpeg, png, gif or webp")
        return {"type": "base64", "media_type": inline[0], "data": inline[1]}
    if not https_url(url):
        raise DialectError(f"{where}.image_url.url", "must be an https: URL or a base64 data: URL")
    return {"type": "url", "url": url}


def _document(part: Body, where: str) -> Body:
    media, data, name = file_of(part, where)
    if media == "application/pdf":
        source: Body = {"type": "base64", "media_type": media, "data": data}
    elif media == "text/plain":
        try:
            text = b64decode(data, validate=True).decode()
        except ValueError:
            raise DialectError(f"{where}.file.file_data", "must be base64 of UTF-8 text") from None
        source = {"type": "text", "media_type": media, "data": text}
    else:
        raise DialectError(f"{where}.file", "must be a PDF or plain text")
    return {"type": "document", "source": source, **({"title": name} if name else {})}


def _spoken(message: Body, where: str) -> list[Body]:
    """An assistant's turn: its signed thoughts first, as they were, then text, then calls."""
    if message.get("audio") is not None:
        raise DialectError(f"{where}.audio", "cannot be expressed in the anthropic dialect")
    thoughts = message.get("thinking_blocks") or []
    if not isinstance(thoughts, list) or not all(
        isinstance(block, dict) and block.get("type") in ("thinking", "redacted_thinking") for block in thoughts
    ):
        raise DialectError(f"{where}.thinking_blocks", "must be the blocks an earlier answer held")
    calls = [
        {"type": "tool_use", "id": _id(identity), "name": name, "input": arguments}
        for _, identity, name, arguments in tool_calls_of(message, where)
    ]
    return [*thoughts, *_blocks(message.get("content"), f"{where}.content"), *calls]


def _result(message: Body, where: str) -> Body:
    identity = _id(string(message, "tool_call_id", where))
    result: Body = {"type": "tool_result", "tool_use_id": identity}
    blocks = _blocks(message.get("content"), f"{where}.content")
    if blocks:
        result["content"] = _plain(blocks)
    return result


def _id(identity: str) -> str:
    """Other providers put dots and colons into call ids; the API refuses them. The same id stays the same."""
    return _FOREIGN.sub("_", identity) or "call"


def _tools(chat: Body, body: Body) -> None:
    tools = []
    for tool, function in functions_of(chat):
        said: Body = {"name": function["name"]}
        if isinstance(function.get("description"), str):
            said["description"] = function["description"]
        said["input_schema"] = {"type": "object", **(function.get("parameters") or {"properties": {}})}
        if function.get("strict") is True:
            said["strict"] = True
        if tool.get("cache_control") is not None:
            said["cache_control"] = tool["cache_control"]
        tools.append(said)
    word, name = tool_choice_of(chat)
    if not tools:
        if word in ("required", "named"):
            raise DialectError("tool_choice", "asks for a tool but there are no tools")
        return
    body["tools"] = tools
    choice: Body | None = None
    if word == "named":
        choice = {"type": "tool", "name": name}
    elif word:
        choice = {"type": "any" if word == "required" else word}
    if chat.get("parallel_tool_calls") is False and word != "none":
        choice = {**(choice or {"type": "auto"}), "disable_parallel_tool_use": True}
    if choice is not None:
        body["tool_choice"] = choice


def _closed(schema: Any, depth: int) -> Any:
    """The schema with every object closed, which structured outputs insist on, as Anthropic's own clients send it."""
    if depth > _DEPTH_MAX:
        raise DialectError("response_format", f"the schema is nested deeper than {_DEPTH_MAX} levels")
    if isinstance(schema, list):
        return [_closed(each, depth + 1) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value, depth + 1) for key, value in schema.items()}
    if schema.get("type") == "object" and isinstance(schema.get("properties"), dict):
        closed.setdefault("additionalProperties", False)
    return closed


def claude_version(model: str) -> tuple[int, int] | None:
    """(4, 6) of `claude-opus-4-6-20260101` and (3, 7) of `claude-3-7-sonnet`; None when the name tells no version."""
    found = _CLAUDE.search(model)
    return (int(found[1]), int(found[2] or 0)) if found else None


def _thinking(chat: Body, model: str, body: Body) -> None:
    """Effort in the words of the model's generation; a hint, so it gives way where the API would refuse the request."""
    given = chat.get("thinking")
    if given is not None:
        body["thinking"] = given
    effort = effort_of(chat)
    version = claude_version(model) or (5, 0)
    if effort is None or version < (3, 7):
        return
    choice = body.get("tool_choice")
    forced = isinstance(choice, dict) and choice["type"] in ("any", "tool")
    wanted = effort != "none" and given is None and not forced
    if version >= (4, 6):
        word = "low" if effort in ("none", "minimal") else effort
        if word == "xhigh" and version == (4, 6):
            word = "high"
        body["output_config"] = {**body.get("output_config", {}), "effort": word}
        thinking: Body = {"type": "adaptive"}
    else:
        budget = min(max(body["max_tokens"] * _BUDGET_SHARE.get(effort, 0) // 100, _BUDGET_MIN), _BUDGET_MAX)
        wanted = wanted and budget < body["max_tokens"] and not _unsigned_loop(body["messages"])
        thinking = {"type": "enabled", "budget_tokens": budget}
    if wanted:
        clash = _sampled(body)
        if clash is not None:
            raise DialectError(clash, f"{model} takes no {clash} beside reasoning_effort; send one or the other")
        body["thinking"] = thinking


def _sampled(body: Body) -> str | None:
    """The first sampling setting that the API refuses beside thinking."""
    if body.get("temperature", 1) != 1:
        return "temperature"
    if body.get("top_p", 1) < 0.95:
        return "top_p"
    return "top_k" if "top_k" in body else None


def _unsigned_loop(turns: list[Body]) -> bool:
    """In the middle of a tool loop whose turn began without thinking; the API would refuse to begin now."""
    last = next((turn for turn in reversed(turns) if turn["role"] == "assistant"), None)
    if last is None or not isinstance(last["content"], list):
        return False
    kinds = [block["type"] for block in last["content"]]
    return "tool_use" in kinds and kinds[0] not in ("thinking", "redacted_thinking")


# --- to chat -------------------------------------------------------------------------------------------------------


def usage_of(told: Any) -> Usage | None:
    """A Messages `usage` object; None when it does not add up."""
    if not isinstance(told, dict) or "input_tokens" not in told or "output_tokens" not in told:
        return None
    usage = Usage(
        input=count(told, "input_tokens"),
        output=count(told, "output_tokens"),
        cache_read=count(told, "cache_read_input_tokens"),
        cache_write=count(told, "cache_creation_input_tokens"),
        reasoning=count(told.get("output_tokens_details"), "thinking_tokens"),
    )
    counts = (usage.input, usage.output, usage.cache_read, usage.cache_write, usage.reasoning)
    absurd = min(counts) < 0 or usage.input_total > TOKENS_MAX or usage.reasoning > usage.output
    return None if absurd else usage


def _finish(native: Any, called: bool) -> str:
    known = _FINISH.get(native) if isinstance(native, str) else None
    return known or ("tool_calls" if called else "stop")


def _refusal(body: Body) -> str | None:
    details = body.get("stop_details")
    explanation = details.get("explanation") if isinstance(details, dict) else None
    return explanation if body.get("stop_reason") == "refusal" and isinstance(explanation, str) else None


def _call(block: Body) -> Body:
    identity, name, arguments = block.get("id"), block.get("name"), block.get("input", {})
    if not isinstance(identity, str) or not isinstance(name, str) or not isinstance(arguments, dict):
        raise BrokenAnswer("has a tool_use block without an id, a name or an input object")
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": dump(arguments).decode()}}


class _Open:
    """A content block between its start and its stop."""

    def __init__(self, block: Body, call: int) -> None:
        self.block = dict(block)
        self.call = call
        self.grown = False


class AnthropicStream(ChatStream):
    """Messages events into chunks; `message_stop` is the end, and nothing else is."""

    def __init__(self, *, model: str, created: int, id: str, include_usage: bool) -> None:  # noqa: A002 - the wire's word
        super().__init__(model=model, created=created, id=id, include_usage=include_usage)
        self._told: Body = {}
        self._open: dict[int, _Open] = {}
        self._calls = 0

    def _read(self, event: str, data: bytes) -> list[bytes]:
        if self.done:
            return []
        told = self._object(data)
        kind = told.get("type")
        kind = kind if isinstance(kind, str) else event
        index = told.get("index")
        place = index if isinstance(index, int) else 0
        if kind == "content_block_start":
            return self._start(place, _object(told, "content_block"))
        if kind == "content_block_delta":
            return self._grow(place, _object(told, "delta"))
        if kind == "content_block_stop":
            return self._stop(place)
        if kind == "message_start":
            self._count(_object(told, "message").get("usage"))
        elif kind == "message_delta":
            return self._end(told)
        elif kind == "message_stop":
            self.done = self.finish_reason is not None
            return [self._usage_chunk()] if self.done and self.include_usage else []
        elif kind == "error":
            self.error = error_from(200, told)
        return []

    def _start(self, place: int, block: Body) -> list[bytes]:
        kind = block.get("type")
        opened = self._open[place] = _Open(block, self._calls)
        if kind == "tool_use":
            if not isinstance(block.get("id"), str) or not isinstance(block.get("name"), str):
                raise BrokenAnswer("has a tool_use block without an id or a name")
            self._calls += 1
            self.content_seen = True
            function = {"name": block["name"], "arguments": ""}
            return [self._call(opened, {"id": block["id"], "type": "function", "function": function})]
        if kind == "text":
            return self._text("content", block.get("text"))
        if kind == "thinking":
            return self._text("reasoning_content", block.get("thinking"))
        return []

    def _grow(self, place: int, delta: Body) -> list[bytes]:
        kind, opened = delta.get("type"), self._open.get(place)
        if opened is None:
            raise BrokenAnswer("continues a block that never began")
        if kind == "text_delta":
            return self._text("content", delta.get("text"))
        if kind == "thinking_delta":
            piece = delta.get("thinking")
            if isinstance(piece, str):
                opened.block["thinking"] = _joined(opened.block.get("thinking"), piece)
            return self._text("reasoning_content", piece)
        if kind == "signature_delta" and isinstance(delta.get("signature"), str):
            opened.block["signature"] = _joined(opened.block.get("signature"), delta["signature"])
        elif kind == "input_json_delta" and opened.block.get("type") == "tool_use":
            piece = delta.get("partial_json")
            if isinstance(piece, str) and piece:
                opened.grown = True
                self._note(piece)
                return [self._call(opened, {"function": {"arguments": piece}})]
        return []

    def _stop(self, place: int) -> list[bytes]:
        opened = self._open.pop(place, None)
        if opened is None:
            return []
        if opened.block.get("type") in ("thinking", "redacted_thinking"):
            self.content_seen = True
            return [self._chunk(0, {"thinking_blocks": [opened.block]})]
        if opened.block.get("type") != "tool_use" or opened.grown:
            return []
        # A call without arguments sends no piece at all, but clients parse what they were given: it must be JSON.
        text = dump(opened.block.get("input") or {}).decode()
        self._note(text)
        return [self._call(opened, {"function": {"arguments": text}})]

    def _end(self, told: Body) -> list[bytes]:
        delta = _object(told, "delta")
        native = delta.get("stop_reason")
        if isinstance(told.get("usage"), dict):
            self._count(told["usage"], final=native is not None)
        if native is None or self.finish_reason is not None:
            return []
        refusal = _refusal(delta)
        self._note(refusal)
        return [self._chunk(0, {"refusal": refusal} if refusal else {}, _finish(native, self._calls > 0), native)]

    def _count(self, told: Any, *, final: bool = False) -> None:
        """Counts are cumulative: a later event replaces what it names and leaves the rest."""
        if isinstance(told, dict):
            self._told |= {field: value for field, value in told.items() if value is not None}
        self.usage_so_far = usage_of(self._told)
        if final:
            self.usage = self.usage_so_far

    def _text(self, field: str, text: Any) -> list[bytes]:
        if not isinstance(text, str) or not text:
            return []
        self._note(text)
        return [self._chunk(0, {field: text})]

    def _call(self, opened: _Open, piece: Body) -> bytes:
        return self._chunk(0, {"tool_calls": [{"index": opened.call, **piece}]})


def _object(holder: Body, field: str) -> Body:
    value = holder.get(field)
    return value if isinstance(value, dict) else {}


def _joined(before: Any, piece: str) -> str:
    return (before if isinstance(before, str) else "") + piece
