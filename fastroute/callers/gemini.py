"""Callers who speak Gemini: `:generateContent`, `:streamGenerateContent` and `:countTokens`, turned into chat and back.

Field names are read as protobuf JSON reads them, in camel or in snake case; the model stands in the path, so the edge
hands it in. Google's own tools, caches and stored files are `NativeOnly`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastroute.callers.blocks import Block, Blocks, blocks_of, choices_of, finish_of, index_of
from fastroute.callers.gemini_contents import Contents, camel
from fastroute.callers.gemini_schema import json_schema
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
    native_need,
    optional,
    required,
    sse,
    strings,
    usage_of,
)
from fastroute.callers.turns import function_choice, function_tool, json_schema_format
from fastroute.domain import Usage

FINISH_REASONS = {"stop": "STOP", "tool_calls": "STOP", "function_call": "STOP", "length": "MAX_TOKENS"}
STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "RESOURCE_EXHAUSTED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    413: "INVALID_ARGUMENT",
    422: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
LEVELS = ("minimal", "low", "medium", "high")


def to_chat(body: Any, model: str | None = None, stream: bool | None = None) -> Body:
    """The request as chat; `model` and `stream` come from the path, and may also be laid into the body by its reader."""
    body = camel(an_object(body, "body"), "body")
    chat: Body = {"model": _bare(model if model is not None else required(body, "model", a_name))}
    if body.get("cachedContent") is not None:
        raise NativeOnly("cachedContent", "cached content")
    contents = Contents()
    contents.system(body.get("systemInstruction"))
    given = required(body, "contents", lambda value, _: value)
    for i, content in enumerate([given] if isinstance(given, dict) else a_list(given, "contents")):
        contents.add(content, f"contents[{i}]")
    chat["messages"] = contents.done()
    if not chat["messages"]:
        raise ShapeError("contents", "must hold at least one content with parts")
    _generation(body, chat)
    _tools(body, chat)
    return finish_request(chat, optional(body, "stream", a_flag) if stream is None else stream)


def count_to_chat(body: Any, model: str | None = None) -> Body:
    """The body of `:countTokens`, which holds the contents or a whole request, as the chat that would be sent."""
    outer = camel(an_object(body, "body"), "body")
    inner = optional(outer, "generateContentRequest", an_object)
    return to_chat(outer if inner is None else inner, model)


def needs_native(body: Any) -> str | None:
    return native_need(lambda given: to_chat(given, model="any"), body)


def _bare(model: str) -> str:
    return model.removeprefix("models/") or model


def _generation(body: Body, chat: Body) -> None:
    at = "generationConfig."
    config = camel(optional(body, "generationConfig", an_object) or {}, "generationConfig")
    carry(
        config,
        chat,
        {
            "temperature": ("temperature", a_number),
            "topP": ("top_p", a_number),
            "topK": ("top_k", _top_k),
            "maxOutputTokens": ("max_tokens", a_count),
            "stopSequences": ("stop", strings),
            "candidateCount": ("n", a_count),
            "presencePenalty": ("presence_penalty", a_number),
            "frequencyPenalty": ("frequency_penalty", a_number),
            "seed": ("seed", an_integer),
        },
        at,
    )
    for i, modality in enumerate(optional(config, "responseModalities", strings, at) or []):
        if modality.upper() != "TEXT":
            raise NativeOnly(f"{at}responseModalities[{i}]", "an answer that is not text")
    _format(config, chat, at)
    thinking = optional(config, "thinkingConfig", an_object, at)
    if thinking is not None:
        _thinking(camel(thinking, f"{at}thinkingConfig"), chat, f"{at}thinkingConfig.")


def _top_k(value: Any, param: str) -> int:
    number = a_number(value, param)  # a float in Google's schema, though it counts
    if isinstance(number, float) and not number.is_integer():
        raise ShapeError(param, "must be a whole number")
    return int(number)


def _format(config: Body, chat: Body, at: str) -> None:
    kind = optional(config, "responseMimeType", a_string, at) or "text/plain"
    schema: Body | None = None
    for key in ("responseJsonSchema", "_responseJsonSchema"):
        schema = schema or optional(config, key, a_schema, at)
    described = optional(config, "responseSchema", a_schema, at)
    if schema is None and described is not None:
        schema = json_schema(described, f"{at}responseSchema")
    if kind == "application/json":
        chat["response_format"] = {"type": "json_object"} if schema is None else json_schema_format("output", schema)
    elif kind == "text/x.enum":
        raise NativeOnly(f"{at}responseMimeType", "an answer of text/x.enum")
    elif kind != "text/plain":
        raise ShapeError(f"{at}responseMimeType", "must be text/plain or application/json")


def _thinking(config: Body, chat: Body, at: str) -> None:
    budget = optional(config, "thinkingBudget", an_integer, at)
    level = optional(config, "thinkingLevel", a_string, at)
    if level is not None and level.lower() != "thinking_level_unspecified":
        if level.lower() not in LEVELS:
            raise ShapeError(f"{at}thinkingLevel", f"must be one of {', '.join(LEVELS)}")
        chat["reasoning_effort"] = level.lower()
    elif budget == 0:
        chat["reasoning_effort"] = "none"
    elif budget is not None and budget > 0:
        chat["reasoning_effort"] = effort_for_budget(a_count(budget, f"{at}thinkingBudget"))


def _tools(body: Body, chat: Body) -> None:
    tools: list[Body] = []
    for i, given in enumerate(optional(body, "tools", a_list) or []):
        where = f"tools[{i}]"
        tool = camel(an_object(given, where), where)
        for kind, value in tool.items():
            if kind != "functionDeclarations" and value is not None:
                raise NativeOnly(f"{where}.{kind}"[:80], f"tool {kind[:60]!r}")
        declared = optional(tool, "functionDeclarations", a_list, f"{where}.") or []
        at = f"{where}.functionDeclarations"
        tools += [_function(function, f"{at}[{j}]") for j, function in enumerate(declared)]
    config = camel(optional(body, "toolConfig", an_object) or {}, "toolConfig")
    at = "toolConfig.functionCallingConfig"
    calling = camel(optional(config, "functionCallingConfig", an_object, "toolConfig.") or {}, at)
    mode = (optional(calling, "mode", a_string, f"{at}.") or "AUTO").upper()
    names = optional(calling, "allowedFunctionNames", strings, f"{at}.") or []
    if mode not in ("AUTO", "ANY", "NONE", "VALIDATED", "MODE_UNSPECIFIED"):
        raise ShapeError(f"{at}.mode", "must be AUTO, ANY, NONE or VALIDATED")
    if names and mode in ("ANY", "VALIDATED"):
        tools = [tool for tool in tools if tool["function"]["name"] in names]
    if tools:
        chat["tools"] = tools
    if mode == "ANY":
        chat["tool_choice"] = function_choice(names[0]) if len(names) == 1 else "required"
    elif mode == "NONE":
        chat["tool_choice"] = "none"


def _function(given: Any, where: str) -> Body:
    function = camel(an_object(given, where), where)
    parameters = optional(function, "parametersJsonSchema", a_schema, f"{where}.")
    described = optional(function, "parameters", a_schema, f"{where}.")
    if parameters is None and described is not None:
        parameters = json_schema(described, f"{where}.parameters")
    return function_tool(
        required(function, "name", a_name, f"{where}."),
        optional(function, "description", a_string, f"{where}."),
        parameters,
    )


def from_answer(chat: Mapping[str, Any], reply: Reply) -> Body:
    """The answer as a GenerateContentResponse; thoughts are told only to those who asked for them."""
    candidates = []
    for place, choice in enumerate(choices_of(chat)):
        parts = [
            _part(block)
            for block in blocks_of(choice)
            if _told(block, reply) and (block.pieces or block.kind == "tool")
        ]
        reason = _finish(choice.get("finish_reason"))
        candidates.append(_candidate(index_of(choice, place), parts, reason))
    return _response(reply, candidates, usage_of(chat.get("usage")))


def _told(block: Block, reply: Reply) -> bool:
    if block.kind != "reasoning":
        return True
    config: Any = reply.body
    for key, snake in (("generationConfig", "generation_config"), ("thinkingConfig", "thinking_config")):
        config = config.get(key, config.get(snake))
        if not isinstance(config, dict):
            return False
    return config.get("includeThoughts", config.get("include_thoughts")) is True


def _part(block: Block) -> Body:
    if block.kind == "reasoning":
        return {"text": block.text, "thought": True}
    if block.kind != "tool":
        return {"text": block.text}
    call: Body = {"name": block.name, "args": arguments_object(block.text)}
    part: Body = {"functionCall": {"id": block.id, **call} if block.id else call}
    google = (block.extra or {}).get("google")
    signature = google.get("thought_signature") if isinstance(google, Mapping) else None
    if isinstance(signature, str):
        part["thoughtSignature"] = signature
    return part


def _finish(reason: Any) -> str:
    known = finish_of(reason)
    return "SAFETY" if known == "content_filter" else FINISH_REASONS[known]


def _candidate(index: int, parts: list[Body], reason: str | None = None) -> Body:
    candidate: Body = {"content": {"parts": parts or [{"text": ""}], "role": "model"}, "index": index}
    if reason:
        candidate["finishReason"] = reason
    return candidate


def _response(reply: Reply, candidates: list[Body], usage: Usage | None = None) -> Body:
    # google-genai refuses fields it does not know, so nothing of ours may stand beside these.
    told: Body = {"candidates": candidates}
    if usage is not None:
        told["usageMetadata"] = _usage(usage)
    return {**told, "modelVersion": reply.model, "responseId": reply.id}


def _usage(usage: Usage) -> Body:
    told = {
        "promptTokenCount": usage.input_total,
        "candidatesTokenCount": max(0, usage.output - usage.reasoning),
        "totalTokenCount": usage.input_total + usage.output,
    }
    if usage.cache_read:
        told["cachedContentTokenCount"] = usage.cache_read
    if usage.reasoning:
        told["thoughtsTokenCount"] = usage.reasoning
    return told


class GeminiStream:
    """One streamed answer: text as it comes, a function call only when it is whole, the reason and usage at the end."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._choices: dict[int, Blocks] = {}
        self._usage: Usage | None = None
        self._ended = False

    def start(self) -> bytes:
        return b""

    def feed(self, chunk: Mapping[str, Any]) -> bytes:
        if self._ended:
            return b""
        if chunk.get("usage"):
            self._usage = usage_of(chunk["usage"])
        out = b""
        for index in dict.fromkeys(index_of(choice) for choice in choices_of(chunk)):
            blocks = self._choices.setdefault(index, Blocks(index))
            parts = self._parts(blocks.feed(chunk))
            if parts:
                out += sse(_response(self._reply, [_candidate(index, parts)]))
        return out

    def finish(self, usage: Usage | Mapping[str, Any] | None = None) -> bytes:
        if self._ended:
            return b""
        if not any(blocks.finish_reason for blocks in self._choices.values()):
            return self.fail("server_error", "incomplete_stream", "The model's stream ended before its answer did")
        self._ended = True
        counted = (self._usage or Usage()) if usage is None else usage_of(usage)
        candidates = [
            _candidate(index, self._parts(blocks.finish()), _finish(blocks.finish_reason))
            for index, blocks in sorted(self._choices.items())
        ]
        return sse(_response(self._reply, candidates, counted))

    def fail(self, kind: str, code: str | None, message: str, status: int = 502) -> bytes:
        if self._ended:
            return b""
        self._ended = True
        return sse(error(status, kind, code, message))

    def _parts(self, events: list[tuple[Any, Block, str]]) -> list[Body]:
        parts = []
        for op, block, text in events:
            if not _told(block, self._reply):
                continue
            if block.kind == "tool":
                if op == "close":
                    parts.append(_part(block))
            elif op == "more":
                parts.append({"text": text, "thought": True} if block.kind == "reasoning" else {"text": text})
        return parts


def stream(reply: Reply) -> Encoder:
    return GeminiStream(reply)


def error(
    status: int, kind: str, code: str | None, message: str, request_id: str | None = None, param: str | None = None
) -> Body:
    """Google's envelope: the HTTP status twice, as a number and as its word."""
    word = STATUSES.get(status, "INTERNAL" if status >= 500 else "INVALID_ARGUMENT")
    return {"error": {"code": status, "message": message, "status": word}}


def count(tokens: int) -> Body:
    """The answer of `:countTokens`."""
    return {"totalTokens": tokens, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": tokens}]}
