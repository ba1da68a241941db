"""The list of models in the shape of each dialect that asks for `/v1/models`."""

from __future__ import annotations

from collections.abc import Sequence

from fastroute.callers.shape import Body
from fastroute.domain import Entry

RELEASED_UNKNOWN = "1970-01-01T00:00:00Z"  # what Anthropic itself gives when the day is not known


def openai_model(entry: Entry, created: int = 0) -> Body:
    """OpenAI's model, with the `type` and `capabilities` without which Mistral's clients read nothing."""
    told: Body = {
        "id": entry.id,
        "object": "model",
        "created": created,
        "owned_by": entry.ref.provider,
        "type": "base",
        "capabilities": {
            "completion_chat": True,
            "completion_fim": False,
            "function_calling": "tools" in entry.capabilities,
            "fine_tuning": False,
            "vision": "vision" in entry.capabilities,
            "audio": "audio" in entry.capabilities,
        },
    }
    if entry.context_window is not None:
        told["max_context_length"] = entry.context_window
    return told


def openai_list(entries: Sequence[Entry], created: int = 0) -> Body:
    return {"object": "list", "data": [openai_model(entry, created) for entry in entries]}


def anthropic_model(entry: Entry) -> Body:
    return {
        "type": "model",
        "id": entry.id,
        "display_name": entry.id,
        "created_at": RELEASED_UNKNOWN,
        "lifecycle": "active",
        "max_input_tokens": entry.context_window,
        "max_tokens": entry.max_output,
    }


def anthropic_list(entries: Sequence[Entry]) -> Body:
    """One page that holds them all."""
    data = [anthropic_model(entry) for entry in entries]
    ends = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"data": data, "has_more": False, "first_id": ends[0], "last_id": ends[1]}


def gemini_model(entry: Entry) -> Body:
    """Google's model; a limit that is not known is left out, for zero would mean none."""
    told: Body = {
        "name": f"models/{entry.id}",
        "baseModelId": entry.id,
        "version": "1",
        "displayName": entry.id,
        "supportedGenerationMethods": ["generateContent", "streamGenerateContent", "countTokens"],
    }
    if entry.context_window is not None:
        told["inputTokenLimit"] = entry.context_window
    if entry.max_output is not None:
        told["outputTokenLimit"] = entry.max_output
    return told


def gemini_list(entries: Sequence[Entry]) -> Body:
    return {"models": [gemini_model(entry) for entry in entries]}
