"""Callers who speak OpenAI's Responses: `POST /v1/responses`, stateless, turned into chat and back.

Nothing is stored: a body that leans on what a provider keeps (an earlier response, a conversation, a stored prompt or
file) or on a tool the provider runs is `NativeOnly`. The events of a stream are in `responses_stream`.
"""

from __future__ import annotations

from typing import Any

from fastroute.callers.responses_reply import ECHOED, from_answer
from fastroute.callers.responses_stream import ResponseStream
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
    an_object,
    carry,
    finish_request,
    json_text,
    native_need,
    openai_error,
    optional,
    required,
)
from fastroute.callers.turns import (
    Turns,
    function_choice,
    function_tool,
    image_part,
    json_schema_format,
    text_part,
)

KEPT_BY_THE_PROVIDER = {
    "previous_response_id": "previous_response_id",
    "conversation": "a stored conversation",
    "prompt": "a stored prompt",
}
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")

error = openai_error
__all__ = ["error", "from_answer", "needs_native", "stream", "to_chat"]


def to_chat(body: Any) -> Body:
    """The request as chat. `store`, `include`, `metadata` and hints about cost or wording are not carried."""
    body = an_object(body, "body")
    for key, what in KEPT_BY_THE_PROVIDER.items():
        if body.get(key) is not None:
            raise NativeOnly(key, what)
    if optional(body, "background", a_flag):
        raise NativeOnly("background", "a background response")
    chat: Body = {"model": required(body, "model", a_name)}
    turns = Turns()
    turns.system(optional(body, "instructions", a_string) or "")
    given = required(body, "input", lambda value, _: value)
    if isinstance(given, str):
        turns.user([text_part(given)])
    else:
        for i, item in enumerate(a_list(given, "input")):
            _item(turns, an_object(item, f"input[{i}]"), f"input[{i}]")
    chat["messages"] = turns.done()
    if not chat["messages"]:
        raise ShapeError("input", "must hold at least one message")
    carry(
        body,
        chat,
        {
            "max_output_tokens": ("max_tokens", a_count),
            "temperature": ("temperature", a_number),
            "top_p": ("top_p", a_number),
            "parallel_tool_calls": ("parallel_tool_calls", a_flag),
            "safety_identifier": ("user", a_string),
            "user": ("user", a_string),
        },
    )
    optional(body, "metadata", an_object)
    for key in ECHOED:
        json_text(body.get(key), key)  # before anything is paid for: the reply must be able to say it again
    _tools(body, chat)
    _reasoning(body, chat)
    _format(body, chat)
    return finish_request(chat, optional(body, "stream", a_flag))


def needs_native(body: Any) -> str | None:
    return native_need(to_chat, body)


def _item(turns: Turns, item: Body, where: str) -> None:
    kind = item.get("type", "message" if "role" in item else None)
    if kind == "message":
        _message(turns, item, where)
    elif kind == "function_call":
        turns.call(
            required(item, "call_id", a_name, f"{where}."),
            required(item, "name", a_name, f"{where}."),
            optional(item, "arguments", a_string, f"{where}.") or "",
        )
    elif kind == "function_call_output":
        said = required(item, "output", lambda value, _: value, f"{where}.")
        turns.result(required(item, "call_id", a_name, f"{where}."), _parts(said, f"{where}.output"))
    elif kind == "reasoning":
        pass  # sealed for the provider that made it; the conversation reads without it
    elif isinstance(kind, str) and kind:
        raise NativeOnly(f"{where}.type", f"a {kind[:60]} item")
    else:
        raise ShapeError(f"{where}.type", "must name the type of the item")


def _message(turns: Turns, item: Body, where: str) -> None:
    role = item.get("role")
    parts = _parts(required(item, "content", lambda value, _: value, f"{where}."), f"{where}.content")
    if role == "user":
        turns.user(parts)
    elif role in ("assistant", "system", "developer"):
        if any(part["type"] != "text" for part in parts):
            raise ShapeError(f"{where}.content", f"must be text in a message of the {role}")
        # Every chat server knows the system; only OpenAI's own know the developer.
        say = turns.assistant if role == "assistant" else turns.system
        say("".join(part["text"] for part in parts))
    else:
        raise ShapeError(f"{where}.role", "must be user, assistant, system or developer")


def _parts(content: Any, where: str) -> list[Body]:
    if isinstance(content, str):
        return [text_part(content)]
    return [_part(an_object(part, f"{where}[{i}]"), f"{where}[{i}].") for i, part in enumerate(a_list(content, where))]


def _part(part: Body, at: str) -> Body:
    kind = part.get("type")
    if kind in ("input_text", "output_text", "text"):
        return text_part(required(part, "text", a_string, at))
    if kind == "refusal":
        return text_part(required(part, "refusal", a_string, at))
    if kind == "input_image":
        if part.get("file_id") is not None:
            raise NativeOnly(f"{at}file_id", "an uploaded file")
        return image_part(required(part, "image_url", a_name, at), optional(part, "detail", a_string, at))
    if kind == "input_file":
        for key, what in {"file_id": "an uploaded file", "file_url": "a file given by address"}.items():
            if part.get(key) is not None:
                raise NativeOnly(f"{at}{key}", what)
        name = optional(part, "filename", a_string, at) or "file"
        return {"type": "file", "file": {"filename": name, "file_data": required(part, "file_data", a_name, at)}}
    if kind == "input_audio":
        audio = required(part, "input_audio", an_object, at)
        told = {key: required(audio, key, a_name, f"{at}input_audio.") for key in ("data", "format")}
        return {"type": "input_audio", "input_audio": told}
    if isinstance(kind, str) and kind:
        raise NativeOnly(f"{at}type", f"a {kind[:60]} part")
    raise ShapeError(f"{at}type", "must name the type of the part")


def _tools(body: Body, chat: Body) -> None:
    tools = [_tool(tool, f"tools[{i}]") for i, tool in enumerate(optional(body, "tools", a_list) or [])]
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        kind = choice.get("type")
        if kind == "function":
            chat["tool_choice"] = function_choice(required(choice, "name", a_name, "tool_choice."))
        elif kind == "allowed_tools":
            tools = _allowed(choice, tools, chat)
        elif isinstance(kind, str) and kind:
            raise NativeOnly("tool_choice.type", f"a choice of {kind[:60]}")
        else:
            raise ShapeError("tool_choice.type", "must name the type of the choice")
    elif choice is not None:
        if choice not in ("auto", "none", "required"):
            raise ShapeError("tool_choice", "must be auto, none, required or an object")
        chat["tool_choice"] = choice
    if tools:
        chat["tools"] = tools


def _tool(tool: Any, where: str) -> Body:
    kind = required(an_object(tool, where), "type", a_name, f"{where}.")
    if kind != "function":
        raise NativeOnly(f"{where}.type", f"tool {kind[:60]!r}")
    return function_tool(
        required(tool, "name", a_name, f"{where}."),
        optional(tool, "description", a_string, f"{where}."),
        optional(tool, "parameters", a_schema, f"{where}."),
        optional(tool, "strict", a_flag, f"{where}."),
    )


def _allowed(choice: Body, tools: list[Body], chat: Body) -> list[Body]:
    """Chat servers other than OpenAI's know no list of allowed tools; leaving the others out says the same."""
    mode = choice.get("mode")
    if mode not in ("auto", "required"):
        raise ShapeError("tool_choice.mode", "must be auto or required")
    chat["tool_choice"] = mode
    names = set()
    for i, tool in enumerate(required(choice, "tools", a_list, "tool_choice.")):
        where = f"tool_choice.tools[{i}]"
        if an_object(tool, where).get("type") != "function":
            raise NativeOnly(f"{where}.type", "a choice of a tool the provider runs")
        names.add(required(tool, "name", a_name, f"{where}."))
    return [tool for tool in tools if tool["function"]["name"] in names]


def _reasoning(body: Body, chat: Body) -> None:
    reasoning = optional(body, "reasoning", an_object) or {}
    effort = optional(reasoning, "effort", a_string, "reasoning.")
    if effort is not None:
        if effort not in EFFORTS:
            raise ShapeError("reasoning.effort", f"must be one of {', '.join(EFFORTS)}")
        chat["reasoning_effort"] = effort


def _format(body: Body, chat: Body) -> None:
    text = optional(body, "text", an_object) or {}
    form = optional(text, "format", an_object, "text.")
    kind = "text" if form is None else form.get("type")
    if form is not None and kind == "json_schema":
        at = "text.format."
        chat["response_format"] = json_schema_format(
            required(form, "name", a_name, at),
            required(form, "schema", a_schema, at),
            optional(form, "strict", a_flag, at),
            optional(form, "description", a_string, at),
        )
    elif kind == "json_object":
        chat["response_format"] = {"type": "json_object"}
    elif kind != "text":
        raise ShapeError("text.format.type", "must be text, json_object or json_schema")


def stream(reply: Reply) -> Encoder:
    return ResponseStream(reply)
