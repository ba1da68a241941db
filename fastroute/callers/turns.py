"""Builds chat messages in an order every chat provider takes, whatever order the caller's dialect allows.

Tool results follow the calls they answer at once; pictures a tool returned come after them in a user message of their
own, because a chat tool message holds text only.
"""

from __future__ import annotations

from typing import Any

from fastroute.callers.shape import Body


class Turns:
    """The conversation so far."""

    def __init__(self) -> None:
        self.messages: list[Body] = []
        self._pictures: list[Body] = []  # what tools returned and a chat tool message cannot hold

    def system(self, text: str) -> None:
        self._settle()
        if text:
            self.messages.append({"role": "system", "content": text})

    def user(self, parts: list[Body]) -> None:
        """What a person says; text alone is a plain string, which the plainest servers also read."""
        if not parts:
            return
        parts, self._pictures = [*self._pictures, *parts], []
        plain = all(part["type"] == "text" for part in parts)
        content: Any = "\n\n".join(part["text"] for part in parts) if plain else parts
        self.messages.append({"role": "user", "content": content})

    def assistant(self, text: str, thinking: list[Body] | None = None) -> None:
        """What the model said; the calls that follow it belong to the same message."""
        self._settle()
        message: Body = {"role": "assistant", "content": text}
        if thinking:
            message["thinking_blocks"] = thinking
        self.messages.append(message)

    def call(self, call_id: str, name: str, arguments: str, extra: Body | None = None) -> None:
        """A tool call the model made."""
        self._settle()
        if not self.messages or self.messages[-1]["role"] != "assistant":
            self.messages.append({"role": "assistant", "content": None})
        message = self.messages[-1]
        call: Body = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
        if extra:
            call["extra_content"] = extra
        message.setdefault("tool_calls", []).append(call)
        message["content"] = message["content"] or None

    def result(self, call_id: str, parts: list[Body]) -> None:
        """What a tool returned."""
        texts = [part["text"] for part in parts if part["type"] == "text"]
        self._pictures += [part for part in parts if part["type"] != "text"]
        self.messages.append({"role": "tool", "tool_call_id": call_id, "content": "\n".join(texts)})

    def _settle(self) -> None:
        if self._pictures:
            parts, self._pictures = [text_part("Returned by the tools above:"), *self._pictures], []
            self.user(parts)

    def done(self) -> list[Body]:
        self._settle()
        return self.messages


def text_part(text: str) -> Body:
    return {"type": "text", "text": text}


def image_part(url: str, detail: str | None = None) -> Body:
    image: Body = {"url": url}
    if detail:
        image["detail"] = detail
    return {"type": "image_url", "image_url": image}


def data_url(media_type: str, data: str) -> str:
    return f"data:{media_type};base64,{data}"


def file_part(filename: str, media_type: str, data: str) -> Body:
    return {"type": "file", "file": {"filename": filename, "file_data": data_url(media_type, data)}}


def function_tool(name: str, description: str | None, parameters: Body | None, strict: bool | None = None) -> Body:
    function: Body = {"name": name}
    if description is not None:
        function["description"] = description
    function["parameters"] = parameters if parameters is not None else {"type": "object", "properties": {}}
    if strict is not None:
        function["strict"] = strict
    return {"type": "function", "function": function}


def function_choice(name: str) -> Body:
    return {"type": "function", "function": {"name": name}}


def json_schema_format(name: str, schema: Body, strict: bool | None = None, description: str | None = None) -> Body:
    described: Body = {"name": name, "schema": schema}
    if strict is not None:
        described["strict"] = strict
    if description is not None:
        described["description"] = description
    return {"type": "json_schema", "json_schema": described}
