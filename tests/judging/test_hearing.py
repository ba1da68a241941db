"""Listening in: what any dialect's answer says, whole or streamed, as text, finish and calls of tools."""

import asyncio
import json

import pytest

from fastroute.hearing import COPY_MAX, Heard, Tap, prompt_text
from fastroute.upstreams.anthropic import Anthropic
from fastroute.upstreams.google import Google
from fastroute.upstreams.openai import OpenAI


class Played:
    """An exchange that gives the pieces it was made of."""

    status, sent, complete = 200, True, True

    def __init__(self, pieces):
        self._pieces = list(pieces)

    async def chunk(self):
        return self._pieces.pop(0) if self._pieces else b""

    async def read(self, limit=0):
        rest, self._pieces = b"".join(self._pieces), []
        return rest


def tapped(dialect, operation, stream, *pieces):
    """What was heard once everything had passed, and that it passed as it was."""
    tap = Tap(Played(pieces), dialect, operation, stream)

    async def run():
        first = await tap.chunk()
        return first + await tap.read()

    assert asyncio.run(run()) == b"".join(pieces)
    return tap.heard()


def events(*bodies, named=False):
    head = (lambda body: f"event: {body['type']}\n") if named else (lambda body: "")
    return [f"{head(body)}data: {json.dumps(body)}\n\n".encode() for body in bodies]


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CHAT = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Oslo."}, "finish_reason": "stop"}]}
CLAUDE = {"content": [{"type": "text", "text": "Oslo."}], "stop_reason": "max_tokens", "role": "assistant"}
GEMINI = {"candidates": [{"content": {"parts": [{"text": "Oslo."}], "role": "model"}, "finishReason": "STOP"}]}
RESPONSE = {
    "object": "response",
    "status": "completed",
    "output": [{"type": "message", "content": [{"type": "output_text", "text": "Oslo."}]}, {"type": "function_call"}],
}


@pytest.mark.parametrize(
    ("dialect", "operation", "body", "heard"),
    [
        (OpenAI(), "chat", CHAT, Heard("Oslo.", "stop")),
        (OpenAI(), "chat", {"choices": [{"index": 0, "message": {"tool_calls": [CALL]}}]}, Heard("", "tool_calls", 1)),
        (OpenAI(), "completions", {"choices": [{"text": "Oslo.", "finish_reason": "stop"}]}, Heard("Oslo.", "stop")),
        (OpenAI(), "responses", RESPONSE, Heard("Oslo.", "completed", 1)),
        (Anthropic(), "messages", CLAUDE, Heard("Oslo.", "length")),
        (Google(), "chat", GEMINI, Heard("Oslo.", "stop")),
        (OpenAI(), "chat", {"choices": 7}, Heard("")),
    ],
)
def test_a_whole_answer_is_heard(dialect, operation, body, heard):
    assert tapped(dialect, operation, False, json.dumps(body).encode()) == heard


def delta(finish=None, **said):
    return {"choices": [{"index": 0, "delta": said, "finish_reason": finish}]}


@pytest.mark.parametrize(
    ("dialect", "operation", "pieces", "heard"),
    [
        (OpenAI(), "chat", events(delta(content="Os"), delta(content="lo."), delta("stop")), Heard("Oslo.", "stop")),
        (OpenAI(), "completions", events({"choices": [{"text": "Oslo.", "finish_reason": "stop"}]}), Heard("Oslo.", "stop")),
        (
            OpenAI(),
            "responses",
            events(
                {"type": "response.output_text.delta", "delta": "Oslo."},
                {"type": "response.completed", "response": RESPONSE},
            ),
            Heard("Oslo.", "completed", 1),
        ),
        (
            Anthropic(),
            "messages",
            events(
                {"type": "message_start", "message": {"usage": {"input_tokens": 1, "output_tokens": 1}}},
                {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
                {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Oslo."}},
                {"type": "content_block_stop", "index": 0},
                {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}},
                {"type": "message_stop"},
                named=True,
            ),
            Heard("Oslo.", "stop"),
        ),
        (Google(), "chat", events(GEMINI), Heard("Oslo.", "stop")),
    ],
)  # fmt: skip
def test_a_stream_is_heard_however_it_was_cut(dialect, operation, pieces, heard):
    whole = b"".join(pieces) + b"data: [DONE]\n\n"
    assert tapped(dialect, operation, True, whole) == heard
    assert tapped(dialect, operation, True, *(whole[place : place + 7] for place in range(0, len(whole), 7))) == heard


def test_a_tool_that_is_called_in_pieces_is_one():
    pieces = events(
        delta(tool_calls=[{"index": 0, **CALL}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": "{}"}}]),
        delta("tool_calls"),
    )
    assert tapped(OpenAI(), "chat", True, *pieces) == Heard("", "tool_calls", 1)


def test_only_so_much_is_copied_and_everything_passes():
    piece = b"x" * (COPY_MAX // 2)
    heard = tapped(OpenAI(), "chat", True, piece, piece, piece)
    assert heard.cut
    assert heard.text == ""


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "hi"}]}, "hi"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]}]}, "a"),
        ({"contents": [{"parts": [{"text": "hi"}]}]}, "hi"),
        ({"messages": [{"role": "user", "content": "hi"}, {"role": "tool", "content": "42"}]}, "hi"),
        (
            {
                "messages": [
                    {"role": "user", "content": "hi"},
                    {"role": "assistant", "content": [{"type": "tool_use"}]},
                    {"role": "user", "content": [{"type": "tool_result", "content": [{"type": "text", "text": "42"}]}]},
                ]
            },
            "hi",
        ),
        ({"input": [{"role": "user", "content": "hi"}, {"type": "function_call_output", "output": "42"}]}, "hi"),
        ({"prompt": ["a", "b"]}, "b"),
        ({"input": "hi"}, "hi"),
        ({"prompt": "hi"}, "hi"),
        ({}, ""),
        ([], ""),
    ],
)
def test_what_was_asked_is_the_last_words_of_its_user(body, text):
    assert prompt_text(json.dumps(body).encode()) == text
    assert prompt_text(b"{") == ""


@pytest.mark.parametrize("said", [5, True, 1.5, "text", {"a": 1}, [5], [[]], [None]])
def test_what_is_no_list_where_one_should_be_is_heard_as_nothing(said):
    """The relay passes events on that it does not look into; whoever keeps or judges them must not fail over them."""
    for told in (
        {"choices": said},
        {"choices": [{"message": {"tool_calls": said}}]},
        {"object": "response", "status": "completed", "output": said},
        {"object": "response", "status": "completed", "output": [{"content": said}]},
        {"type": "response.completed", "response": {"output": said}},
    ):
        data = json.dumps(told).encode()
        for operation in ("chat", "completions", "responses"):
            assert not tapped(OpenAI(), operation, False, data).said_something
            assert not tapped(OpenAI(), operation, True, b"data: " + data + b"\n\n").said_something
