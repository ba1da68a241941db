"""Gemini's contents as chat messages: parts, function calls and the responses that answer them.

Gemini may leave the ids of calls out; a response then answers the oldest open call of its name.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from fastroute.callers.shape import (
    Body,
    NativeOnly,
    ShapeError,
    a_list,
    a_name,
    a_string,
    an_object,
    json_text,
    optional,
    required,
)
from fastroute.callers.turns import Turns, data_url, file_part, image_part, text_part

AUDIO_FORMATS = {"audio/wav": "wav", "audio/x-wav": "wav", "audio/mp3": "mp3", "audio/mpeg": "mp3"}
KINDS = ("text", "inlineData", "fileData", "functionCall", "functionResponse")


@lru_cache(maxsize=256)
def _camel(key: str) -> str:
    return re.sub(r"(?<=[a-z0-9])_([a-z])", lambda found: found[1].upper(), key)


def camel(value: Body, param: str) -> Body:
    """The object with its keys in camel case; a field given in both cases is refused, for it has two meanings."""
    told = {_camel(key) if len(key) < 60 and "_" in key else key: item for key, item in value.items()}
    if len(told) != len(value):
        raise ShapeError(param, "names a field twice, in camel case and in snake case")
    return told


class Contents:
    """A conversation of contents, added one by one."""

    def __init__(self) -> None:
        self._turns = Turns()
        self._open: dict[str, list[str]] = {}  # ids of calls without an answer, oldest first, by name
        self._made = 0

    def system(self, instruction: Any) -> None:
        if instruction is None:
            return
        if isinstance(instruction, str):
            self._turns.system(instruction)
            return
        parts = an_object(instruction, "systemInstruction").get("parts")
        given = [parts] if isinstance(parts, dict) else a_list(parts, "systemInstruction.parts")
        texts = [
            required(
                an_object(part, f"systemInstruction.parts[{i}]"), "text", a_string, f"systemInstruction.parts[{i}]."
            )
            for i, part in enumerate(given)
        ]
        self._turns.system("\n\n".join(texts))

    def add(self, content: Any, where: str) -> None:
        content = an_object(content, where)
        role = content.get("role") or "user"
        given = content.get("parts")
        given = [] if given is None else [given] if isinstance(given, dict) else a_list(given, f"{where}.parts")
        parts = [camel(an_object(part, f"{where}.parts[{i}]"), f"{where}.parts[{i}]") for i, part in enumerate(given)]
        if role in ("user", "function", "tool"):
            self._user(parts, f"{where}.parts")
        elif role == "model":
            self._model(parts, f"{where}.parts")
        else:
            raise ShapeError(f"{where}.role", "must be user or model")

    def done(self) -> list[Body]:
        return self._turns.done()

    def _user(self, parts: list[Body], where: str) -> None:
        said: list[Body] = []
        for i, part in enumerate(parts):
            at = f"{where}[{i}]"
            if part.get("functionResponse") is not None:
                self._response(
                    camel(required(part, "functionResponse", an_object, f"{at}."), at), f"{at}.functionResponse."
                )
            elif part.get("functionCall") is not None:
                raise ShapeError(f"{at}.functionCall", "belongs to the role model")
            else:
                said.append(_said(part, at))
        self._turns.user(said)

    def _model(self, parts: list[Body], where: str) -> None:
        texts: list[str] = []
        calls: list[tuple[Body, Any, str]] = []
        for i, part in enumerate(parts):
            at = f"{where}[{i}]"
            if part.get("functionCall") is not None:
                call = required(part, "functionCall", an_object, f"{at}.")
                calls.append((call, part.get("thoughtSignature"), f"{at}.functionCall."))
            elif part.get("thought") is True:
                continue  # the model reads its own thoughts from their signature, never from our text
            else:
                said = _said(part, at)
                if said["type"] != "text":
                    raise ShapeError(at, "must be text or a functionCall in the role model")
                texts.append(said["text"])
        if texts or calls:
            self._turns.assistant("".join(texts))
        for call, signature, at in calls:
            self._call(call, signature, at)

    def _call(self, call: Body, signature: Any, at: str) -> None:
        name = required(call, "name", a_name, at)
        call_id = optional(call, "id", a_string, at)
        if not call_id:
            call_id = f"call_{self._made}"
            self._made += 1
        self._open.setdefault(name, []).append(call_id)
        arguments = json_text(optional(call, "args", an_object, at) or {}, f"{at}args")
        extra = {"google": {"thought_signature": signature}} if isinstance(signature, str) else None
        self._turns.call(call_id, name, arguments, extra)

    def _response(self, response: Body, at: str) -> None:
        name = required(response, "name", a_name, at)
        call_id = optional(response, "id", a_string, at)
        waiting = self._open.get(name, [])
        if not call_id:
            if not waiting:
                raise ShapeError(f"{at}name", "answers no functionCall before it")
            call_id = waiting[0]
        if call_id in waiting:
            waiting.remove(call_id)
        said = [text_part(json_text(optional(response, "response", an_object, at) or {}, f"{at}response"))]
        for i, part in enumerate(optional(response, "parts", a_list, at) or []):
            where = f"{at}parts[{i}]"
            said.append(_said(camel(an_object(part, where), where), where))
        self._turns.result(call_id, said)


def _said(part: Body, where: str) -> Body:
    """One part that is no call, as a chat part."""
    if part.get("text") is not None:
        return text_part(required(part, "text", a_string, f"{where}."))
    if part.get("inlineData") is not None:
        return _inline(camel(required(part, "inlineData", an_object, f"{where}."), where), f"{where}.inlineData.")
    if part.get("fileData") is not None:
        at = f"{where}.fileData."
        data = camel(required(part, "fileData", an_object, f"{where}."), where)
        uri = required(data, "fileUri", a_name, at)
        kind = optional(data, "mimeType", a_string, at) or ""
        if kind.startswith("image/") and uri.startswith(("https://", "http://")) and "googleapis.com/" not in uri:
            return image_part(uri)
        raise NativeOnly(f"{at}fileUri", "a stored file")
    other = next((key for key, value in part.items() if key not in KINDS and isinstance(value, dict)), None)
    if other:
        raise NativeOnly(f"{where}.{other}"[:80], f"a part of {other[:60]}")
    raise ShapeError(where, f"must hold one of {', '.join(KINDS)}")


def _inline(data: Body, at: str) -> Body:
    kind = required(data, "mimeType", a_name, at).lower()
    content = required(data, "data", a_name, at)
    if kind.startswith("image/"):
        return image_part(data_url(kind, content))
    if kind in AUDIO_FORMATS:
        return {"type": "input_audio", "input_audio": {"data": content, "format": AUDIO_FORMATS[kind]}}
    if kind == "application/pdf":
        return file_part(optional(data, "displayName", a_string, at) or "document.pdf", kind, content)
    raise NativeOnly(f"{at}mimeType", f"data of the type {kind[:60]}")
