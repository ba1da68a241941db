"""The Response object and its output items, whole or half made, as OpenAI's SDKs list their fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastroute.callers.blocks import Block, blocks_of, choices_of, finish_of
from fastroute.callers.shape import Body, Reply, usage_of
from fastroute.domain import Usage

ECHOED = (
    "instructions",
    "max_tool_calls",
    "metadata",
    "prompt_cache_key",
    "reasoning",
    "safety_identifier",
    "text",
    "tool_choice",
    "tools",
    "user",
)
"""Fields of the request that the reply repeats, besides the numbers and flags that are checked as such."""

INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
ID_PREFIX = {"reasoning": "rs", "tool": "fc", "text": "msg", "refusal": "msg"}


def from_answer(chat: Mapping[str, Any], reply: Reply) -> Body:
    """The answer as a Response. Reasoning is told only to those who asked for any."""
    choice = next(iter(choices_of(chat)), {})
    blocks = [block for block in blocks_of(choice) if told(block, reply)]
    reason = INCOMPLETE.get(finish_of(choice.get("finish_reason")))
    status = "incomplete" if reason else "completed"
    output = [item(block, i, reply, "completed") for i, block in enumerate(blocks)]
    if output and reason:
        output[-1]["status"] = "incomplete"
    return response(reply, status, output, usage_of(chat.get("usage")), reason)


def told(block: Block, reply: Reply) -> bool:
    return block.kind != "reasoning" or isinstance(reply.body.get("reasoning"), dict)


def response(
    reply: Reply, status: str, output: list[Body], usage: Usage | None = None, incomplete: str | None = None
) -> Body:
    """The Response object; what the caller asked for is echoed, the rest holds the documented defaults."""
    body = reply.body
    reasoning = body.get("reasoning") or {}
    text = body.get("text") or {}
    return {
        "id": f"resp_{reply.id}",
        "object": "response",
        "created_at": reply.created,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": {"reason": incomplete} if incomplete else None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "max_tool_calls": body.get("max_tool_calls"),
        "metadata": body.get("metadata") or {},
        "model": reply.model,
        "output": output,
        "parallel_tool_calls": body.get("parallel_tool_calls") is not False,
        "previous_response_id": None,
        "prompt_cache_key": body.get("prompt_cache_key"),
        "reasoning": {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")},
        "safety_identifier": body.get("safety_identifier"),
        "service_tier": "default",
        "store": False,
        "temperature": _or(body.get("temperature"), 1.0),
        "text": {"format": text.get("format") or {"type": "text"}, "verbosity": text.get("verbosity") or "medium"},
        "tool_choice": _or(body.get("tool_choice"), "auto"),
        "tools": [_tool(tool) for tool in body.get("tools") or []],
        "top_logprobs": 0,
        "top_p": _or(body.get("top_p"), 1.0),
        "truncation": "disabled",
        "usage": None if usage is None else _usage(usage),
        "user": body.get("user"),
    }


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _tool(tool: Body) -> Body:
    return {"description": None, "parameters": None, "strict": True, **tool}


def _usage(usage: Usage) -> Body:
    return {
        "input_tokens": usage.input_total,
        "input_tokens_details": {"cached_tokens": usage.cache_read, "cache_write_tokens": usage.cache_write},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input_total + usage.output,
    }


def item_id(block: Block, index: int, reply: Reply) -> str:
    return f"{ID_PREFIX[block.kind]}_{reply.id}_{index}"


def item(block: Block, index: int, reply: Reply, status: str) -> Body:
    """A block as an output item: with its content when it is done, without any while it is in progress."""
    begun = status == "in_progress"
    made: Body = {"id": item_id(block, index, reply), "status": status}
    if block.kind == "tool":
        call = block.id or f"call_{reply.id}_{index}"
        told = {"call_id": call, "name": block.name, "arguments": "" if begun else block.text}
        return {**made, "type": "function_call", **told}
    if block.kind == "reasoning":
        return {**made, "type": "reasoning", "summary": [] if begun else [part(block)], "encrypted_content": None}
    return {**made, "type": "message", "role": "assistant", "content": [] if begun else [part(block)]}


def part(block: Block, begun: bool = False) -> Body:
    """The one part of a block that is not a call."""
    text = "" if begun else block.text
    if block.kind == "reasoning":
        return {"type": "summary_text", "text": text}
    if block.kind == "refusal":
        return {"type": "refusal", "refusal": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
