"""The Google dialect: chat in and out of Gemini's generateContent.

The key travels in a header, never in the query, where access logs would keep it. Effort is a thinking level from Gemini
3 on and a token budget on 2.5, by the table of Google's own OpenAI bridge. Gemini 3 signs its calls and wants the
signatures back; they ride where that bridge puts them, in `extra_content.google.thought_signature` of a tool call.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

import orjson

from fastroute.domain import TOKENS_MAX, Usage
from fastroute.upstreams import google_embeddings
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
    read_error,
    refuse_unsaid,
    schema_of,
    stops_of,
    string,
    tool_calls_of,
    tool_choice_of,
)

_VERBS: Final = {
    "chat": ":generateContent", "count_tokens": ":countTokens",
    google_embeddings.ONE: ":embedContent", google_embeddings.MANY: ":batchEmbedContents",
}  # fmt: skip
_SAID: Final = frozenset({
    "frequency_penalty", "max_completion_tokens", "max_tokens", "messages", "model", "n", "parallel_tool_calls",
    "presence_penalty", "reasoning_effort", "response_format", "seed", "stop", "stream", "stream_options",
    "temperature", "tool_choice", "tools", "top_k", "top_p",
})  # fmt: skip
_NUMBERS: Final = {
    "temperature": "temperature", "top_p": "topP", "top_k": "topK", "n": "candidateCount", "seed": "seed",
    "presence_penalty": "presencePenalty", "frequency_penalty": "frequencyPenalty",
}  # fmt: skip
_FILTERED: Final = frozenset({
    "SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR", "IMAGE_SAFETY",
    "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION",
})  # fmt: skip
_MEDIA: Final = {
    "jpg": "image/jpeg", "jpeg": "image/jpeg", "png": "image/png", "webp": "image/webp", "gif": "image/gif",
    "heic": "image/heic", "heif": "image/heif", "pdf": "application/pdf",
}  # fmt: skip
_BUDGETS: Final = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24576, "xhigh": 24576, "max": 24576}
_PRO_FLOOR: Final = 128  # 2.5 Pro cannot be told not to think; this is the least it takes
_UNSIGNED: Final = "skip_thought_signature_validator"  # documented for calls another model made
_GEMINI: Final = re.compile(r"gemini-(\d{1,2})(?:\.(\d{1,2}))?(?!\d)")


class Google:
    """Gemini at generativelanguage.googleapis.com."""

    name = "google"
    speaks_chat = False

    def path(self, operation: str, model: str, stream: bool) -> str:
        if operation == "models":
            return "/v1beta/models"
        if operation not in _VERBS:
            raise DialectError("operation", f"the google dialect has no {operation!r}")
        verb = ":streamGenerateContent?alt=sse" if stream and operation == "chat" else _VERBS[operation]
        return f"/v1beta/models/{quote(model.removeprefix('models/'), safe='')}{verb}"

    def headers(self, key: str | None, passed: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
        return build_headers(("x-goog-api-key", key) if key else None, ())

    def request(self, chat: Body, model: str, *, stream: bool, max_output: int | None) -> Body:
        refuse_unsaid(chat, _SAID, self.name)
        system, contents = _conversation(chat, _version(model) >= (3, 0))
        config = _config(chat, model, max_output)
        body: Body = {"contents": contents}
        if system:
            body["systemInstruction"] = {"parts": system}
        _tools(chat, body)
        if config:
            body["generationConfig"] = config
        return body

    def answer(self, body: Any, *, model: str, created: int, id: str) -> Body:  # noqa: A002 - the wire's word
        candidates, blocked = _candidates(body)
        if blocked is not None:
            choice = {"index": 0, "message": assistant("", "", [], refusal=_blocked(blocked)), "logprobs": None}
            choices = [{**choice, "finish_reason": "content_filter", "native_finish_reason": blocked["blockReason"]}]
        elif not candidates:
            raise BrokenAnswer("has no candidates")
        else:
            choices = [_choice(place, candidate, id) for place, candidate in enumerate(candidates)]
        return completion(choices, self.usage(body), model=model, created=created, id=id)

    def usage(self, body: Any) -> Usage | None:
        return usage_of(body.get("usageMetadata")) if isinstance(body, dict) else None

    def error(self, status: int, body: bytes) -> ProviderError:
        return read_error(status, body)

    def stream(self, *, model: str, created: int, id: str, include_usage: bool) -> GoogleStream:  # noqa: A002 - the wire's word
        return GoogleStream(model=model, created=created, id=id, include_usage=include_usage)


# --- from chat -----------------------------------------------------------------------------------------------------


def _conversation(chat: Body, signed: bool) -> tuple[list[Body], list[Body]]:
    """System parts, and contents in which user and model alternate; tool results are part of the user's turn."""
    system: list[Body] = []
    turns: list[tuple[str, list[Body]]] = []
    called: dict[str, str] = {}
    for where, message in messages_of(chat):
        role = message.get("role")
        here = f"{where}.content"
        if role in ("system", "developer"):
            system.extend(_parts(message.get("content"), here, only_text=True))
            continue
        if role == "user":
            parts = _parts(message.get("content"), here)
        elif role == "assistant":
            role, parts = "model", _spoken(message, where, called, signed)
        elif role == "tool":
            role, parts = "user", [_result(message, where, called)]
        else:
            raise DialectError(f"{where}.role", "must be system, developer, user, assistant or tool")
        if not parts:
            continue  # the API refuses empty turns, and nothing was said
        if turns and turns[-1][0] == role:
            turns[-1][1].extend(parts)
        else:
            turns.append((role, parts))
    if not turns:
        raise DialectError("messages", "hold nothing to answer besides the system prompt")
    return system, [{"role": role, "parts": parts} for role, parts in turns]


def _parts(content: Any, where: str, *, only_text: bool = False) -> list[Body]:
    found: list[Body] = []
    for place, part in enumerate(parts_of(content, where)):
        here, kind = f"{where}[{place}]", part.get("type")
        if kind in ("text", "refusal"):
            text = string(part, kind, here)
            if text:
                found.append({"text": text})
        elif only_text:
            raise DialectError(here, "a system prompt is text")
        elif kind == "image_url":
            found.append(_image(part, here))
        elif kind == "file":
            media, data, _ = file_of(part, here)
            found.append(_inline(media, data))
        elif kind == "input_audio":
            audio = part.get("input_audio")
            form = string(audio, "format", f"{here}.input_audio")
            found.append(_inline(f"audio/{form}", string(audio, "data", f"{here}.input_audio")))
        else:
            raise DialectError(here, f"content of type {kind!r} cannot be expressed in the google dialect")
    return found


def _inline(media: str, data: str) -> Body:
    return {"inlineData": {"mimeType": media, "data": data}}


def _image(part: Body, where: str) -> Body:
    url = string(part.get("image_url"), "url", f"{where}.image_url")
    inline = data_url(url)
    if inline is not None:
        return _inline(*inline)
    if not https_url(url):
        raise DialectError(f"{where}.image_url.url", "must be an https: URL or a base64 data: URL")
    media = _MEDIA.get(url.partition("?")[0].rpartition(".")[2].lower())
    return {"fileData": {"fileUri": url, **({"mimeType": media} if media else {})}}


def _spoken(message: Body, where: str, called: dict[str, str], signed: bool) -> list[Body]:
    """A model's turn: text, then calls; the first call of a turn must be signed where the model signs."""
    if message.get("audio") is not None:
        raise DialectError(f"{where}.audio", "cannot be expressed in the google dialect")
    parts = _parts(message.get("content"), f"{where}.content")
    for place, (call, identity, name, arguments) in enumerate(tool_calls_of(message, where)):
        called[identity] = name
        part: Body = {"functionCall": {"id": identity, "name": name, "args": arguments}}
        signature = _signature(call)
        if signature is not None:
            part["thoughtSignature"] = signature
        elif signed and place == 0:
            part["thoughtSignature"] = _UNSIGNED
        parts.append(part)
    return parts


def _signature(call: Body) -> str | None:
    content = call.get("extra_content")
    google = content.get("google") if isinstance(content, dict) else None
    signature = google.get("thought_signature") if isinstance(google, dict) else None
    return signature if isinstance(signature, str) else None


def _result(message: Body, where: str, called: dict[str, str]) -> Body:
    """A tool's result under the name of the call it answers; JSON objects stay objects, all else is `output`."""
    identity = string(message, "tool_call_id", where)
    if identity not in called:
        raise DialectError(f"{where}.tool_call_id", "answers no call made earlier in the conversation")
    parts = _parts(message.get("content"), f"{where}.content")
    text = "".join(part["text"] for part in parts if "text" in part)
    try:
        response = orjson.loads(text) if text.lstrip().startswith("{") else None
    except orjson.JSONDecodeError:
        response = None
    result: Body = {"id": identity, "name": called[identity]}
    result["response"] = response if isinstance(response, dict) else {"output": text}
    media = [part for part in parts if "text" not in part]
    return {"functionResponse": {**result, "parts": media} if media else result}


def _version(model: str) -> tuple[int, int]:
    """(2, 5) of `gemini-2.5-flash`; a name without a version is of the newest kind, other families of the oldest."""
    found = _GEMINI.search(model)
    if found:
        return int(found[1]), int(found[2] or 0)
    return (3, 0) if "gemini" in model else (0, 0)


def _config(chat: Body, model: str, max_output: int | None) -> Body:
    config: Body = {}
    cap = output_cap(chat, max_output)
    if cap is not None:
        config["maxOutputTokens"] = cap
    for param, word in _NUMBERS.items():
        value = number(chat, param)
        if value is not None and (param != "n" or value != 1):
            config[word] = value
    stops = stops_of(chat)
    if stops:
        config["stopSequences"] = stops
    kind, schema = schema_of(chat)
    if kind != "text":
        config["responseMimeType"] = "application/json"
    if schema is not None:
        config["responseJsonSchema"] = schema
    thinking = _thinking(effort_of(chat), model)
    if thinking is not None:
        config["thinkingConfig"] = thinking
    return config


def _thinking(effort: str | None, model: str) -> Body | None:
    """Effort in the words of the model's generation; models that do not think are told nothing."""
    version, pro = _version(model), "pro" in model
    if effort is None or version < (2, 5):
        return None
    if version < (3, 0):
        budget = _BUDGETS[effort] if effort != "none" else _PRO_FLOOR if pro else 0
        return {"thinkingBudget": budget, "includeThoughts": effort != "none"}
    level = {"none": "MINIMAL", "minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM"}.get(effort, "HIGH")
    if pro and level == "MINIMAL":
        level = "LOW"
    if level == "MEDIUM" and model.startswith("gemini-3-pro"):
        level = "HIGH"  # 3.0 Pro knows only two levels
    return {"thinkingLevel": level, "includeThoughts": effort != "none"}


def _tools(chat: Body, body: Body) -> None:
    functions = [function for _, function in functions_of(chat)]
    word, name = tool_choice_of(chat)
    if not functions:
        if word in ("required", "named"):
            raise DialectError("tool_choice", "asks for a tool but there are no tools")
        return
    if chat.get("parallel_tool_calls") is False and word != "none":
        raise DialectError("parallel_tool_calls", "the google dialect cannot hold a model to one call at a time")
    declared = []
    for function in functions:
        said: Body = {"name": function["name"]}
        if isinstance(function.get("description"), str):
            said["description"] = function["description"]
        if function.get("parameters"):
            said["parametersJsonSchema"] = function["parameters"]
        declared.append(said)
    body["tools"] = [{"functionDeclarations": declared}]
    # VALIDATED is AUTO held to the schemas, which is what `strict` asks for.
    strict = any(function.get("strict") is True for function in functions)
    mode = {"none": "NONE", "required": "ANY", "named": "ANY"}.get(word, "VALIDATED" if strict else "AUTO")
    if word or mode != "AUTO":
        calling: Body = {"mode": mode}
        if name is not None:
            calling["allowedFunctionNames"] = [name]
        body["toolConfig"] = {"functionCallingConfig": calling}


# --- to chat -------------------------------------------------------------------------------------------------------


def usage_of(told: Any) -> Usage | None:
    """A `usageMetadata` object; None when it does not add up. Thoughts are output, tool prompts are input."""
    if not isinstance(told, dict) or "promptTokenCount" not in told:
        return None
    prompt, cached = count(told, "promptTokenCount"), count(told, "cachedContentTokenCount")
    tools, thoughts = count(told, "toolUsePromptTokenCount"), count(told, "thoughtsTokenCount")
    spoken, total = count(told, "candidatesTokenCount"), count(told, "totalTokenCount")
    if min(prompt, cached, tools, thoughts, spoken, total) < 0 or cached > prompt:
        return None
    if total:
        if told.get("candidatesTokenCount") is None:
            spoken = total - prompt - tools - thoughts  # left out now and then; what nothing else explains is output
        if spoken < 0 or total != prompt + tools + thoughts + spoken:
            return None
    if prompt + tools > TOKENS_MAX or spoken + thoughts > TOKENS_MAX:
        return None
    return Usage(input=prompt - cached + tools, output=spoken + thoughts, cache_read=cached, reasoning=thoughts)


def _candidates(body: Any) -> tuple[list[Body], Body | None]:
    """The candidates, and the prompt's feedback when it says the prompt was blocked."""
    if not isinstance(body, dict):
        raise BrokenAnswer("is not an object")
    candidates = body.get("candidates") or []
    if not isinstance(candidates, list) or not all(isinstance(each, dict) for each in candidates):
        raise BrokenAnswer("has candidates that are not objects")
    feedback = body.get("promptFeedback")
    blocked = isinstance(feedback, dict) and isinstance(feedback.get("blockReason"), str)
    return candidates, feedback if blocked and not candidates else None


def _blocked(feedback: Body) -> str:
    told = feedback.get("blockReasonMessage")
    return told if isinstance(told, str) and told else f"the provider blocked the prompt: {feedback['blockReason']}"


def _finish(native: Any, called: bool) -> str:
    if native == "MAX_TOKENS":
        return "length"
    if isinstance(native, str) and native in _FILTERED:
        return "content_filter"
    return "tool_calls" if called else "stop"


class _Heard:
    """What the parts of one candidate say, in chat's words."""

    def __init__(self, id: str, calls: int = 0) -> None:  # noqa: A002 - the wire's word
        self._id = id
        self.calls = calls
        self.said: list[tuple[str, Any]] = []

    def hear(self, candidate: Body) -> None:
        content = candidate.get("content")
        parts = content.get("parts") if isinstance(content, dict) else None
        for part in parts if isinstance(parts, list) else ():
            if not isinstance(part, dict):
                raise BrokenAnswer("has a part that is not an object")
            text, inline = part.get("text"), part.get("inlineData")
            if isinstance(text, str) and text:
                self.said.append(("reasoning_content" if part.get("thought") is True else "content", text))
            elif isinstance(part.get("functionCall"), dict):
                self.said.append(("tool_calls", self._call(part)))
            elif isinstance(inline, dict) and part.get("thought") is not True:
                url = f"data:{inline.get('mimeType')};base64,{inline.get('data')}"
                self.said.append(("images", {"type": "image_url", "image_url": {"url": url}}))

    def _call(self, part: Body) -> Body:
        told = part["functionCall"]
        name, arguments = told.get("name"), told.get("args") or {}
        if not isinstance(name, str) or not isinstance(arguments, dict):
            raise BrokenAnswer("has a functionCall without a name or an object of args")
        identity = told.get("id")
        if not isinstance(identity, str) or not identity:
            identity = f"call_{self._id.rpartition('-')[2]}_{self.calls}"  # older models name no calls
        self.calls += 1
        function = {"name": name, "arguments": dump(arguments).decode()}
        call: Body = {"id": identity, "type": "function", "function": function}
        if isinstance(part.get("thoughtSignature"), str):
            call["extra_content"] = {"google": {"thought_signature": part["thoughtSignature"]}}
        return call

    def all(self, field: str) -> list[Any]:
        return [value for name, value in self.said if name == field]


def _choice(place: int, candidate: Body, id: str) -> Body:  # noqa: A002 - the wire's word
    heard = _Heard(id)
    heard.hear(candidate)
    native, index, images = candidate.get("finishReason"), candidate.get("index"), heard.all("images")
    return {
        "index": index if isinstance(index, int) else place,
        "message": assistant(
            "".join(heard.all("content")),
            "".join(heard.all("reasoning_content")),
            heard.all("tool_calls"),
            extra={"images": images} if images else None,
        ),
        "logprobs": None,
        "finish_reason": _finish(native, heard.calls > 0),
        "native_finish_reason": native,
    }


class GoogleStream(ChatStream):
    """generateContent responses, one an event, into chunks; the end is a finish reason for every candidate begun."""

    def __init__(self, *, model: str, created: int, id: str, include_usage: bool) -> None:  # noqa: A002 - the wire's word
        super().__init__(model=model, created=created, id=id, include_usage=include_usage)
        self._id = id
        self._calls: dict[int, int] = {}
        self._finished: set[int] = set()
        self._usage_sent = False

    @property
    def ended(self) -> bool:
        """No event is marked as the last: another candidate, or the usage, may still come."""
        return False

    def _read(self, event: str, data: bytes) -> list[bytes]:
        told = self._object(data)
        if told.get("error"):
            self.error = error_from(200, told)
            return []
        candidates, blocked = _candidates(told)
        chunks: list[bytes] = []
        for place, candidate in enumerate(candidates):
            index = candidate.get("index")
            chunks.extend(self._hear(index if isinstance(index, int) else place, candidate))
        if blocked is not None and not self._finished:
            refusal = _blocked(blocked)
            self._finished.add(0)
            chunks.append(self._chunk(0, {"refusal": refusal}, "content_filter", blocked["blockReason"]))
        self.done = bool(self._started) and self._started == self._finished
        if told.get("usageMetadata") is not None:
            self.usage_so_far = usage_of(told["usageMetadata"])
            if self.done:
                self.usage = self.usage_so_far
        if self.done and self.include_usage and not self._usage_sent:
            self._usage_sent = True
            chunks.append(self._usage_chunk())
        return chunks

    def _hear(self, index: int, candidate: Body) -> list[bytes]:
        if index in self._finished:
            return []
        before = self._calls.get(index, 0)
        heard = _Heard(self._id, before)
        heard.hear(candidate)
        self._calls[index] = heard.calls
        chunks, number = [], before
        for field, value in heard.said:
            if field == "tool_calls":
                delta: Any = [{"index": number, **value}]
                number += 1
                self._note(value["function"]["arguments"])
            else:
                delta = [value] if field == "images" else value
                self._note(value["image_url"]["url"] if field == "images" else value)
            chunks.append(self._chunk(index, {field: delta}))
        native = candidate.get("finishReason")
        if native is not None:
            self._finished.add(index)
            chunks.append(self._chunk(index, {}, _finish(native, heard.calls > 0), native))
        return chunks
