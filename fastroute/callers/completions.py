"""Callers who speak the legacy `POST /v1/completions`: one prompt becomes one user message, the answer is bare text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastroute.callers.blocks import choices_of, finish_of, index_of, text_of
from fastroute.callers.shape import (
    Body,
    Encoder,
    NativeOnly,
    Reply,
    ShapeError,
    a_count,
    a_flag,
    a_name,
    a_number,
    a_schema,
    a_string,
    an_integer,
    an_object,
    carry,
    finish_request,
    native_need,
    openai_error,
    optional,
    required,
    sse,
    strings_or_one,
    usage_of,
)
from fastroute.domain import Usage

FINISH_REASONS = {"length": "length", "content_filter": "content_filter"}

error = openai_error


def to_chat(body: Any) -> Body:
    """The request as chat. Without `max_tokens` the answer is as long as chat's would be, not sixteen tokens."""
    body = an_object(body, "body")
    chat: Body = {"model": required(body, "model", a_name)}
    if body.get("suffix"):
        raise NativeOnly("suffix", "filling in before a suffix")
    if optional(body, "echo", a_flag):
        raise NativeOnly("echo", "an echo of the prompt")
    if body.get("logprobs") is not None:
        raise NativeOnly("logprobs", "the log probabilities of a completion")
    copies = optional(body, "n", a_count) or 1
    if (optional(body, "best_of", a_count) or copies) != copies:
        raise NativeOnly("best_of", "the best of several completions")
    chat["messages"] = [{"role": "user", "content": _prompt(body)}]
    carry(
        body,
        chat,
        {
            "max_tokens": ("max_tokens", a_count),
            "temperature": ("temperature", a_number),
            "top_p": ("top_p", a_number),
            "n": ("n", a_count),
            "stop": ("stop", strings_or_one),
            "presence_penalty": ("presence_penalty", a_number),
            "frequency_penalty": ("frequency_penalty", a_number),
            "logit_bias": ("logit_bias", a_schema),
            "seed": ("seed", an_integer),
            "user": ("user", a_string),
        },
    )
    return finish_request(chat, optional(body, "stream", a_flag))


def needs_native(body: Any) -> str | None:
    return native_need(to_chat, body)


def _prompt(body: Body) -> str:
    prompt = required(body, "prompt", lambda value, _: value)
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str):
        return prompt[0]
    if isinstance(prompt, list) and prompt:
        raise NativeOnly("prompt", "a prompt of tokens, or of more than one text,")
    if not isinstance(prompt, str):
        raise ShapeError("prompt", "must be a string")
    return prompt


def _finish(reason: Any) -> str:
    return FINISH_REASONS.get(finish_of(reason), "stop")


def _usage(usage: Usage) -> Body:
    return {
        "prompt_tokens": usage.input_total,
        "completion_tokens": usage.output,
        "total_tokens": usage.input_total + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


def _completion(reply: Reply, choices: list[Body]) -> Body:
    head = {"id": f"cmpl-{reply.id}", "object": "text_completion", "created": reply.created}
    return {**head, "model": reply.model, "choices": choices}


def _choice(choice: Mapping[str, Any], text: str, reason: str | None) -> Body:
    return {"text": text, "index": index_of(choice), "logprobs": None, "finish_reason": reason}


def from_answer(chat: Mapping[str, Any], reply: Reply) -> Body:
    """The answer as a text completion; a tool call or reasoning has no place in one."""
    choices = []
    for choice in choices_of(chat):
        message = choice.get("message")
        text = text_of(message.get("content")) if isinstance(message, Mapping) else ""
        choices.append(_choice(choice, text, _finish(choice.get("finish_reason"))))
    return {**_completion(reply, choices), "usage": _usage(usage_of(chat.get("usage")))}


class CompletionStream:
    """The chunks of a streamed text completion, ended by `[DONE]`."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._usage: Usage | None = None
        self._finished = self._ended = False

    def start(self) -> bytes:
        return b""

    def feed(self, chunk: Mapping[str, Any]) -> bytes:
        if self._ended:
            return b""
        if chunk.get("usage"):
            self._usage = usage_of(chunk["usage"])
        told = []
        for choice in choices_of(chunk):
            delta = choice.get("delta")
            text = text_of(delta.get("content")) if isinstance(delta, Mapping) else ""
            reason = _finish(choice["finish_reason"]) if choice.get("finish_reason") else None
            self._finished = self._finished or reason is not None
            if text or reason:
                told.append(_choice(choice, text, reason))
        return sse(_completion(self._reply, told)) if told else b""

    def finish(self, usage: Usage | Mapping[str, Any] | None = None) -> bytes:
        if self._ended:
            return b""
        if not self._finished:
            return self.fail("server_error", "incomplete_stream", "The model's stream ended before its answer did")
        self._ended = True
        out = b""
        options = self._reply.body.get("stream_options")
        if isinstance(options, dict) and options.get("include_usage") is True:
            counted = (self._usage or Usage()) if usage is None else usage_of(usage)
            out = sse({**_completion(self._reply, []), "usage": _usage(counted)})
        return out + b"data: [DONE]\n\n"

    def fail(self, kind: str, code: str | None, message: str, status: int = 502) -> bytes:
        if self._ended:
            return b""
        self._ended = True
        return sse(error(status, kind, code, message))


def stream(reply: Reply) -> Encoder:
    return CompletionStream(reply)
