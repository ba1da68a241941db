"""Callers who speak Anthropic's Messages: `POST /v1/messages` and its token count, turned into chat and back.

Their server-side tools, containers and uploaded files exist only at Anthropic; a body that uses one is `NativeOnly`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastroute.callers.blocks import Block, Blocks, Event, blocks_of, choices_of, finish_of
from fastroute.callers.shape import (
    Body,
    Encoder,
    NativeOnly,
    Reply,
    ShapeError,
    a_count,
    a_flag,
    a_list,
    a_name,
    a_number,
    a_schema,
    a_string,
    an_integer,
    an_object,
    arguments_object,
    carry,
    effort_for_budget,
    finish_request,
    json_text,
    native_need,
    optional,
    required,
    sse,
    strings,
    usage_of,
)
from fastroute.callers.turns import (
    Turns,
    data_url,
    file_part,
    function_choice,
    function_tool,
    image_part,
    json_schema_format,
    text_part,
)
from fastroute.domain import Usage

STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
EFFORTS = {"low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}


def to_chat(body: Any) -> Body:
    """The request as chat. `max_tokens` may be missing, so that a body for the token count translates as well."""
    body = an_object(body, "body")
    chat: Body = {"model": required(body, "model", a_name)}
    if body.get("mcp_servers"):
        raise NativeOnly("mcp_servers", "an MCP server")
    if body.get("container") is not None:
        raise NativeOnly("container", "a container")
    turns = Turns()
    turns.system(_system(body.get("system")))
    for i, message in enumerate(required(body, "messages", a_list)):
        _message(turns, message, f"messages[{i}]")
    chat["messages"] = turns.done()
    if not chat["messages"]:
        raise ShapeError("messages", "must hold at least one message")
    carry(
        body,
        chat,
        {
            "max_tokens": ("max_tokens", a_count),
            "temperature": ("temperature", a_number),
            "top_p": ("top_p", a_number),
            "top_k": ("top_k", an_integer),
            "stop_sequences": ("stop", strings),
        },
    )
    _tools(body, chat)
    _reasoning(body, chat)
    user = optional(optional(body, "metadata", an_object) or {}, "user_id", a_string, "metadata.")
    if user:
        chat["user"] = user
    return finish_request(chat, optional(body, "stream", a_flag))


def needs_native(body: Any) -> str | None:
    return native_need(to_chat, body)


def _system(system: Any) -> str:
    if system is None or isinstance(system, str):
        return system or ""
    return "\n\n".join(_texts(system, "system"))


def _texts(blocks: Any, param: str) -> list[str]:
    texts = []
    for i, block in enumerate(a_list(blocks, param)):
        where = f"{param}[{i}]"
        if an_object(block, where).get("type") != "text":
            raise ShapeError(f"{where}.type", "must be text here")
        texts.append(required(block, "text", a_string, f"{where}."))
    return texts


def _message(turns: Turns, message: Any, where: str) -> None:
    message = an_object(message, where)
    role = message.get("role")
    content = required(message, "content", lambda value, _: value, f"{where}.")
    blocks = [text_part(content)] if isinstance(content, str) else a_list(content, f"{where}.content")
    blocks = [an_object(block, f"{where}.content[{i}]") for i, block in enumerate(blocks)]
    if role == "user":
        _user(turns, blocks, f"{where}.content")
    elif role == "assistant":
        _assistant(turns, blocks, f"{where}.content")
    elif role == "system":
        turns.system("\n\n".join(_texts(blocks, f"{where}.content")))
    else:
        raise ShapeError(f"{where}.role", "must be user or assistant")


def _user(turns: Turns, blocks: list[Body], where: str) -> None:
    parts: list[Body] = []
    for i, block in enumerate(blocks):
        at = f"{where}[{i}]"
        if block.get("type") == "tool_result":
            call = required(block, "tool_use_id", a_name, f"{at}.")
            said = _result(block.get("content"), f"{at}.content")
            if block.get("is_error") is True:
                said.insert(0, text_part("Error:"))
            turns.result(call, said)
        else:
            parts += _parts(block, at)
    turns.user(parts)


def _result(content: Any, where: str) -> list[Body]:
    if content is None:
        return []
    if isinstance(content, str):
        return [text_part(content)]
    blocks = enumerate(a_list(content, where))
    return [part for i, block in blocks for part in _parts(an_object(block, f"{where}[{i}]"), f"{where}[{i}]")]


def _parts(block: Body, where: str) -> list[Body]:
    """A block of what the user or a tool says, as chat parts."""
    kind = block.get("type")
    if kind == "text":
        return [text_part(required(block, "text", a_string, f"{where}."))]
    if kind == "image":
        return [_image(required(block, "source", an_object, f"{where}."), f"{where}.source")]
    if kind == "document":
        return _document(block, where)
    if kind == "search_result":
        title = optional(block, "title", a_string, f"{where}.")
        return [
            text_part(text) for text in ([title] if title else []) + _texts(block.get("content"), f"{where}.content")
        ]
    raise _unknown(kind, f"{where}.type")


def _unknown(kind: Any, param: str) -> ShapeError:
    if isinstance(kind, str) and kind:
        return NativeOnly(param, f"a {kind[:60]} block")
    return ShapeError(param, "must name the type of the block")


def _image(source: Body, where: str) -> Body:
    kind = source.get("type")
    if kind == "base64":
        media_type = required(source, "media_type", a_name, f"{where}.")
        return image_part(data_url(media_type, required(source, "data", a_name, f"{where}.")))
    if kind == "url":
        return image_part(required(source, "url", a_name, f"{where}."))
    if kind == "file":
        raise NativeOnly(f"{where}.type", "an uploaded file")
    raise ShapeError(f"{where}.type", "must be base64 or url")


def _document(block: Body, where: str) -> list[Body]:
    source = required(block, "source", an_object, f"{where}.")
    title = optional(block, "title", a_string, f"{where}.")
    kind = source.get("type")
    at = f"{where}.source."
    if kind == "base64":
        media_type = required(source, "media_type", a_name, at)
        return [file_part(title or "document.pdf", media_type, required(source, "data", a_name, at))]
    if kind in ("url", "file"):
        raise NativeOnly(f"{at}type", f"a document given by {kind}")
    if kind == "text":
        texts = [required(source, "data", a_string, at)]
    elif kind == "content":
        content = source.get("content")
        if not isinstance(content, str):
            return _result(content, f"{at}content")
        texts = [content]
    else:
        raise ShapeError(f"{at}type", "must be base64, text or content")
    return [text_part(text) for text in ([title] if title else []) + texts]


def _assistant(turns: Turns, blocks: list[Body], where: str) -> None:
    texts: list[str] = []
    thinking: list[Body] = []
    calls: list[tuple[str, str, str]] = []
    for i, block in enumerate(blocks):
        at = f"{where}[{i}]"
        kind = block.get("type")
        if kind == "text":
            texts.append(required(block, "text", a_string, f"{at}."))
        elif kind == "tool_use":
            arguments = json_text(optional(block, "input", an_object, f"{at}.") or {}, f"{at}.input")
            calls.append(
                (required(block, "id", a_name, f"{at}."), required(block, "name", a_name, f"{at}."), arguments)
            )
        elif kind == "thinking":
            # Unsigned thinking was another model's, told by us: no provider takes it back.
            if optional(block, "signature", a_string, f"{at}."):
                thinking.append(a_schema(block, at))
        elif kind == "redacted_thinking":
            thinking.append(a_schema(block, at))
        else:
            raise _unknown(kind, f"{at}.type")
    turns.assistant("".join(texts), thinking)
    for call in calls:
        turns.call(*call)


def _tools(body: Body, chat: Body) -> None:
    tools = optional(body, "tools", a_list) or []
    if tools:
        chat["tools"] = [_tool(tool, f"tools[{i}]") for i, tool in enumerate(tools)]
    choice = optional(body, "tool_choice", an_object)
    if choice is None:
        return
    kind = choice.get("type")
    if kind == "tool":
        chat["tool_choice"] = function_choice(required(choice, "name", a_name, "tool_choice."))
    elif kind in ("auto", "any", "none"):
        chat["tool_choice"] = "required" if kind == "any" else kind
    else:
        raise ShapeError("tool_choice.type", "must be auto, any, tool or none")
    if optional(choice, "disable_parallel_tool_use", a_flag, "tool_choice."):
        chat["parallel_tool_calls"] = False


def _tool(tool: Any, where: str) -> Body:
    kind = an_object(tool, where).get("type")
    if kind not in (None, "custom"):
        raise NativeOnly(f"{where}.type", f"tool {a_name(kind, f'{where}.type')[:60]!r}")
    return function_tool(
        required(tool, "name", a_name, f"{where}."),
        optional(tool, "description", a_string, f"{where}."),
        required(tool, "input_schema", a_schema, f"{where}."),
        optional(tool, "strict", a_flag, f"{where}."),
    )


def _reasoning(body: Body, chat: Body) -> None:
    thinking = optional(body, "thinking", an_object)
    if thinking is not None:
        if thinking.get("type") not in ("enabled", "disabled", "adaptive"):
            raise ShapeError("thinking.type", "must be enabled, disabled or adaptive")
        # The budget becomes an effort, which every dialect has a word for; adaptive thinking names none.
        if thinking["type"] == "enabled":
            chat["reasoning_effort"] = effort_for_budget(required(thinking, "budget_tokens", a_count, "thinking."))
    output = optional(body, "output_config", an_object) or {}
    effort = optional(output, "effort", a_string, "output_config.")
    if effort is not None:
        if effort not in EFFORTS:
            raise ShapeError("output_config.effort", f"must be one of {', '.join(EFFORTS)}")
        chat["reasoning_effort"] = EFFORTS[effort]
    form = optional(output, "format", an_object, "output_config.") or optional(body, "output_format", an_object)
    if form is not None:
        if form.get("type") != "json_schema":
            raise ShapeError("output_config.format.type", "must be json_schema")
        chat["response_format"] = json_schema_format(
            "output", required(form, "schema", a_schema, "output_config.format.")
        )


def _asked_for_thinking(body: Body) -> bool:
    thinking = body.get("thinking")
    return isinstance(thinking, dict) and thinking.get("type") in ("enabled", "adaptive")


def from_answer(chat: Mapping[str, Any], reply: Reply) -> Body:
    """The answer as a Message. Thinking is told only to those who asked: others read the first block as the text."""
    choice = next(iter(choices_of(chat)), {})
    blocks = blocks_of(choice)
    content = [_content(block, reply) for block in blocks if _told(block, reply)]
    stop = choice.get("stop_reason")
    message = _head(reply, usage_of(chat.get("usage")))
    message["content"] = content
    message |= _stop(choice.get("finish_reason"), stop, blocks, reply)
    return message


def _told(block: Block, reply: Reply) -> bool:
    return block.kind != "reasoning" or _asked_for_thinking(reply.body)


def _content(block: Block, reply: Reply) -> Body:
    if block.kind == "tool":
        return {**_tool_use(block, reply), "input": arguments_object(block.text)}
    if block.kind == "reasoning":
        return {"type": "thinking", "thinking": block.text, "signature": block.signature}
    return {"type": "text", "text": block.text, "citations": None}


def _tool_use(block: Block, reply: Reply) -> Body:
    return {"type": "tool_use", "id": block.id or f"toolu_{reply.id}_{block.index}", "name": block.name, "input": {}}


def _head(reply: Reply, usage: Usage) -> Body:
    return {
        "id": f"msg_{reply.id}",
        "type": "message",
        "role": "assistant",
        "model": reply.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": _usage(usage),
    }


def _usage(usage: Usage) -> Body:
    return {
        "input_tokens": usage.input,
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cache_read,
        "output_tokens": usage.output,
        "output_tokens_details": {"thinking_tokens": usage.reasoning},
        "server_tool_use": None,
    }


def _stop(reason: Any, sequence: Any, blocks: list[Block], reply: Reply) -> Body:
    known = finish_of(reason)
    if known == "stop" and any(block.kind == "tool" for block in blocks):
        known = "tool_calls"  # several servers say stop after a call
    if known == "stop" and any(block.kind == "refusal" for block in blocks):
        known = "content_filter"
    asked = reply.body.get("stop_sequences")
    if known == "stop" and isinstance(sequence, str) and isinstance(asked, list) and sequence in asked:
        return {"stop_reason": "stop_sequence", "stop_sequence": sequence}
    return {"stop_reason": STOP_REASONS[known], "stop_sequence": None}


class MessageStream:
    """The events of one streamed Message, in the one order their SDKs accept."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._blocks = Blocks()
        self._places: dict[int, int] = {}  # a block's place in the answer, to its place in what is told
        self._usage: Usage | None = None
        self._started = self._ended = False

    def start(self) -> bytes:
        if self._started or self._ended:
            return b""
        self._started = True
        message = _head(self._reply, Usage(input=self._reply.input_tokens))
        return sse({"type": "message_start", "message": message}, "message_start")

    def feed(self, chunk: Mapping[str, Any]) -> bytes:
        if self._ended:
            return b""
        if chunk.get("usage"):
            self._usage = usage_of(chunk["usage"])
        return self.start() + self._events(self._blocks.feed(chunk))

    def finish(self, usage: Usage | Mapping[str, Any] | None = None) -> bytes:
        if self._ended:
            return b""
        if self._blocks.finish_reason is None:
            return self.fail("api_error", "incomplete_stream", "The model's stream ended before its answer did")
        out = self.start() + self._events(self._blocks.finish())
        self._ended = True
        blocks = self._blocks
        told = self._usage if usage is None else usage_of(usage)
        delta = _stop(blocks.finish_reason, blocks.stop_sequence, blocks.opened, self._reply)
        last: Body = {"type": "message_delta", "delta": delta, "usage": _usage(told or Usage())}
        return out + sse(last, "message_delta") + sse({"type": "message_stop"}, "message_stop")

    def fail(self, kind: str, code: str | None, message: str, status: int = 502) -> bytes:
        if self._ended:
            return b""
        self._ended = True
        body = error(status, kind, code, message)
        body.pop("request_id")
        return sse(body, "error")

    def _events(self, events: list[Event]) -> bytes:
        return b"".join(self._event(*event) for event in events)

    def _event(self, op: str, block: Block, text: str) -> bytes:
        if not _told(block, self._reply):
            return b""
        index = self._places.setdefault(block.index, len(self._places))
        if op == "open":
            begun = _begun(block, self._reply)
            return sse({"type": "content_block_start", "index": index, "content_block": begun}, "content_block_start")
        if op == "more":
            return _delta(index, _piece(block, text))
        signed = block.kind == "reasoning" and block.signature
        sign = _delta(index, {"type": "signature_delta", "signature": block.signature}) if signed else b""
        return sign + sse({"type": "content_block_stop", "index": index}, "content_block_stop")


def _begun(block: Block, reply: Reply) -> Body:
    if block.kind == "tool":
        return _tool_use(block, reply)
    if block.kind == "reasoning":
        return {"type": "thinking", "thinking": "", "signature": ""}
    return {"type": "text", "text": "", "citations": None}


def _piece(block: Block, text: str) -> Body:
    if block.kind == "tool":
        return {"type": "input_json_delta", "partial_json": text}
    if block.kind == "reasoning":
        return {"type": "thinking_delta", "thinking": text}
    return {"type": "text_delta", "text": text}


def _delta(index: int, delta: Body) -> bytes:
    return sse({"type": "content_block_delta", "index": index, "delta": delta}, "content_block_delta")


def stream(reply: Reply) -> Encoder:
    return MessageStream(reply)


def error(
    status: int, kind: str, code: str | None, message: str, request_id: str | None = None, param: str | None = None
) -> Body:
    """Anthropic's envelope; its own types stand, any other is replaced by the one that goes with the status.

    So is OpenAI's word for whatever is wrong with a request, which Anthropic keeps for what has no word of its own.
    """
    known = kind if kind in ERROR_TYPES.values() else "api_error"
    if known in ("api_error", "invalid_request_error"):
        known = ERROR_TYPES.get(status, known)
    return {"type": "error", "error": {"type": known, "message": message}, "request_id": request_id}


def count(tokens: int) -> Body:
    """The answer of `POST /v1/messages/count_tokens`."""
    return {"input_tokens": tokens}
