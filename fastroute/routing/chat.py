"""A chat body as far as routing reads it: decoded once, counted once.

What routing does not need stays as it came. Text parts of multi-part content count; images, audio and files are facts,
not text.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

from fastroute import _core
from fastroute.domain import TOKENS_MAX, Descriptor, ExpectedTokens


class Message(Struct, frozen=True):
    """One message; content is text, parts or nothing."""

    role: str
    content: str | list[dict[str, Any]] | None = None

    def texts(self) -> Iterator[str]:
        if isinstance(self.content, str):
            yield self.content
        elif self.content:
            for part in self.content:
                text = part.get("text")
                if isinstance(text, str):
                    yield text

    def part_types(self) -> Iterator[str]:
        if isinstance(self.content, list):
            for part in self.content:
                kind = part.get("type")
                if isinstance(kind, str):
                    yield kind


class ChatRequest(Struct, frozen=True):
    """What a caller asks for, as far as it routes or is priced; other fields are kept in the body and not here."""

    model: str
    messages: list[Message]
    stream: bool | None = None
    tools: msgspec.Raw = msgspec.Raw(b"")
    response_format: dict[str, Any] | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None

    @property
    def has_tools(self) -> bool:
        return bytes(self.tools).strip(b" \t\r\n[]") not in (b"", b"null")

    @property
    def wants_json(self) -> bool:
        return self.response_format is not None and self.response_format.get("type") in ("json_object", "json_schema")

    @property
    def output_cap(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


_decoder = msgspec.json.Decoder(ChatRequest)


def decode(body: bytes) -> ChatRequest:
    """A chat body; msgspec's `ValidationError` or `DecodeError` says what is wrong, and the edge words it."""
    return _decoder.decode(body)


class Facts(Struct, frozen=True):
    """What the rules of a route look at."""

    characters: int = 0
    messages: int = 0
    estimated_tokens: int = 0
    has_tools: bool = False
    wants_json: bool = False
    text: str = ""  # of user and system turns, which is where a keyword counts


def facts(chat: ChatRequest) -> Facts:
    """The chat counted once."""
    counts = []
    spoken = []
    for message in chat.messages:
        size = 0
        for text in message.texts():
            size += len(text)
            if message.role in ("user", "system", "developer"):
                spoken.append(text)
        counts.append(size)
    return Facts(
        characters=sum(counts),
        messages=len(counts),
        estimated_tokens=_core.estimate_message_tokens(counts),
        has_tools=chat.has_tools,
        wants_json=chat.wants_json,
        text="\n".join(spoken),
    )


def facts_of_descriptor(descriptor: Descriptor) -> Facts:
    """What a descriptor says of the same things, for a route asked without a chat."""
    expected = descriptor.expected_tokens
    return Facts(
        characters=4 * expected.input if expected else 0,  # as the estimates of tokens have it, the other way round
        estimated_tokens=expected.input if expected else 0,
        has_tools="tools" in descriptor.capabilities,
        wants_json="json" in descriptor.capabilities,
    )


_PART_CAPABILITY = {"image_url": "vision", "input_image": "vision", "input_audio": "audio"}


def infer(chat: ChatRequest, counted: Facts, default_output: int | None = None) -> Descriptor:
    """The descriptor a chat body amounts to: no ceiling, no tolerance, and the estimate as expected tokens."""
    needs: dict[str, None] = {}
    if counted.has_tools:
        needs["tools"] = None
    if counted.wants_json:
        needs["json"] = None
    for message in chat.messages:
        for kind in message.part_types():
            if kind in _PART_CAPABILITY:
                needs[_PART_CAPABILITY[kind]] = None
    output = chat.output_cap
    if output is None:
        output = default_output
    return Descriptor(
        task_class="chat",
        budget_ceiling_microdollars=None,
        latency_tolerance_ms=None,
        expected_tokens=None if output is None else ExpectedTokens(counted.estimated_tokens, min(output, TOKENS_MAX)),
        capabilities=tuple(needs),
    )
