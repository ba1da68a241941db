"""Whether a request says all that its answer depends on, and leaves nothing behind but its answer.

Only such a one is told an answer again, is asked of a second model, or is run once more.
"""

from __future__ import annotations

from typing import Any, Final

from fastroute.plausibility import runs_tools

# What else an answer depends on than the request: a state that the provider keeps, a search, a machine that runs.
_ELSEWHERE: Final = frozenset({
    "previous_response_id", "conversation", "background", "prompt_cache_id", "cachedContent", "cached_content",
    "container", "mcp_servers", "web_search_options", "plugins", "search_parameters",
})  # fmt: skip


def stands_alone(surface: str, body: dict[str, Any]) -> bool:
    """Whether it does, by its body: a stored conversation grows by an answer, and the provider's own tools act."""
    if any(body[word] for word in _ELSEWHERE.intersection(body)) or body.get("store") is True:
        return False
    if surface == "responses" and isinstance(body.get("prompt"), dict):
        return False  # a template that its owner may change
    return not runs_tools(body)
