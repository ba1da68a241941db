"""Requests as coding agents send them: Codex over Responses, Claude Code over Messages."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tests.sdk.fake_words import CITIES, TEXT

SHELL: Any = {
    "type": "function",
    "name": "shell",
    "description": "Runs a command.",
    "strict": False,
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CODEX: Any = {
    "instructions": "You are a coding agent.",
    "input": [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Stay in the sandbox."}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]},
    ],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "reasoning": {"effort": "medium", "summary": "auto"},
    "store": False,
    "stream": True,
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "0199a213-81c0-7800-8aa1-bbab2a035a53",
}
UNKNOWN_TOOLS: Any = [
    {"type": "web_search", "external_web_access": False},
    {"type": "namespace", "name": "mcp__files", "tools": [SHELL]},
    {"type": "custom", "name": "apply_patch", "format": {"type": "grammar", "syntax": "lark", "definition": "x"}},
]


def codex(http: httpx.Client, **changes: Any) -> list[dict[str, Any]]:
    """The events Codex would read."""
    with http.stream("POST", "/v1/responses", json={**CODEX, **changes}) as reply:
        assert reply.status_code == 200, reply.read()
        return [json.loads(line[6:]) for line in reply.iter_lines() if line.startswith("data: ")]


def test_codex_streams_through_every_upstream(http: httpx.Client, model: str) -> None:
    events = codex(http, model=model, tools=[SHELL], tool_choice="none")
    assert events[0]["type"] == "response.created"
    assert events[-1]["type"] == "response.completed"
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert done[-1]["content"][0]["text"] == TEXT
    assert events[-1]["response"]["usage"]["total_tokens"] == 30


def test_codex_calls_its_shell_and_hands_the_result_back(http: httpx.Client, model: str) -> None:
    events = codex(http, model=model, tools=[SHELL])
    calls = [
        event["item"]
        for event in events
        if event["type"] == "response.output_item.done" and event["item"]["type"] == "function_call"
    ]
    assert json.loads(calls[0]["arguments"])["city"] == CITIES[0]
    result = {"type": "function_call_output", "call_id": calls[0]["call_id"], "output": "done"}
    sealed = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAAA"}
    again = codex(http, model=model, tools=[SHELL], input=[*CODEX["input"], sealed, calls[0], result])
    assert again[-1]["type"] == "response.completed"


def test_codex_fields_reach_openai_unchanged(http: httpx.Client, gateway: Any) -> None:
    codex(http, model="gpt", tools=[SHELL, *UNKNOWN_TOOLS])
    sent = gateway.last.body
    assert sent == {**CODEX, "model": "gpt-4o-mini", "tools": [SHELL, *UNKNOWN_TOOLS]}


@pytest.mark.parametrize("tool", UNKNOWN_TOOLS, ids=lambda tool: tool["type"])
def test_a_tool_only_openai_runs_is_refused_by_name_elsewhere(http: httpx.Client, tool: Any) -> None:
    reply = http.post("/v1/responses", json={**CODEX, "model": "claude", "tools": [tool]})
    assert reply.status_code == 400
    assert tool["type"] in reply.json()["error"]["message"]
    assert reply.json()["error"]["param"] == "tools[0].type"


SYSTEM: Any = [
    {"type": "text", "text": "You are Claude Code."},
    {"type": "text", "text": "Long instructions.", "cache_control": {"type": "ephemeral"}},
]
BASH: Any = {
    "name": "Bash",
    "description": "Runs a command.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "cache_control": {"type": "ephemeral"},
}
BETAS = "claude-code-20250219,interleaved-thinking-2025-05-14,fine-grained-tool-streaming-2025-05-14"


def claude_code(ant: anthropic.Anthropic, model: str, messages: Any, **changes: Any) -> Any:
    """One turn as Claude Code asks for it."""
    request: Any = {
        "model": model,
        "max_tokens": 32000,
        "system": SYSTEM,
        "messages": messages,
        "tools": [BASH],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "metadata": {"user_id": "user_1_account__session_1"},
        "extra_headers": {"anthropic-beta": BETAS, "anthropic-version": "2023-06-01", "x-app": "cli"},
        **changes,
    }
    with ant.messages.stream(**request) as stream:
        return stream.get_final_message()


HELLO: Any = [{"role": "user", "content": [{"type": "text", "text": "Hello", "cache_control": {"type": "ephemeral"}}]}]


def test_claude_code_streams_tools_and_thinking_through_every_upstream(ant: anthropic.Anthropic, model: str) -> None:
    first = claude_code(ant, model, HELLO)
    call = first.content[-1]
    assert (call.type, call.name, call.input) == ("tool_use", "Bash", {"city": CITIES[0]})
    result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "done"}]}
    history: Any = [*HELLO, {"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
    assert claude_code(ant, model, history).stop_reason == "end_turn"


def test_claude_codes_headers_and_body_reach_anthropic_unchanged(ant: anthropic.Anthropic, gateway: Any) -> None:
    claude_code(ant, "claude", HELLO)
    seen = gateway.last
    assert seen.path == "/ant/v1/messages"
    assert seen.headers["anthropic-beta"] == BETAS
    assert seen.headers["anthropic-version"] == "2023-06-01"
    assert "x-app" not in seen.headers
    assert not [name for name in seen.headers if name.startswith("x-stainless")]
    assert seen.body["system"] == SYSTEM
    assert seen.body["tools"] == [BASH]
    assert seen.body["thinking"] == {"type": "enabled", "budget_tokens": 1024}
    assert seen.body["model"] == "claude-sonnet-4-5"


def test_any_version_is_taken_and_none_is_needed(http: httpx.Client, gateway: Any) -> None:
    body: Any = {"model": "claude", "max_tokens": 10, "messages": [{"role": "user", "content": "Hello"}]}
    assert http.post("/v1/messages", json=body).status_code == 200
    assert gateway.last.headers["anthropic-version"] == "2023-06-01"
    assert http.post("/v1/messages", json=body, headers={"anthropic-version": "2099-01-01"}).status_code == 200
    assert gateway.last.headers["anthropic-version"] == "2099-01-01"


def test_a_tool_only_anthropic_runs_is_refused_by_name_elsewhere(ant: anthropic.Anthropic) -> None:
    search: Any = {"type": "web_search_20250305", "name": "web_search", "max_uses": 5}
    with pytest.raises(anthropic.BadRequestError, match="web_search_20250305"):
        ant.messages.create(model="gpt", max_tokens=10, messages=HELLO, tools=[search])


def test_organisation_headers_reach_openai(gateway: Any) -> None:
    with openai.OpenAI(
        base_url=f"{gateway.url}/v1", api_key=gateway.key, organization="org-1", project="proj-1", max_retries=0
    ) as client:
        client.responses.create(model="gpt", input="Hello")
    assert gateway.last.headers["openai-organization"] == "org-1"
    assert gateway.last.headers["openai-project"] == "proj-1"
