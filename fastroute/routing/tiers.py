"""The rules of `auto`: which of two models a request deserves, small or medium, and why.

The first rule that speaks decides. Keywords are whole words, so that improving is not proving and a preview is not a
review.
"""

from __future__ import annotations

import re
from typing import Literal

from msgspec import Struct

from fastroute.routing.chat import Facts

Tier = Literal["small", "medium"]
TierReason = Literal[
    "function_calling",
    "json_mode",
    "heuristic_conversation",
    "heuristic_tokens",
    "heuristic_keyword",
    "heuristic_length",
    "default_small",
]

KEYWORDS = (
    "analyze",
    "analyse",
    "architecture",
    "assess",
    "brainstorm",
    "compare and contrast",
    "complex",
    "comprehensive",
    "critique",
    "debug",
    "derive",
    "design",
    "elaborate",
    "evaluate",
    "explain why",
    "hypothesis",
    "implications",
    "in depth",
    "in detail",
    "investigate",
    "justify",
    "optimize",
    "outline",
    "pros and cons",
    "prove",
    "reason",
    "refactor",
    "review",
    "step by step",
    "strategy",
    "synthesize",
    "thorough",
    "trade-offs",
)

# One alternation of literals between word boundaries: linear in the text, nothing to backtrack into.
_keyword = re.compile(r"\b(?:" + "|".join(re.escape(word) for word in KEYWORDS) + r")\b", re.IGNORECASE)


class Thresholds(Struct, frozen=True):
    """Where each rule begins to speak; a value equal to its threshold does not."""

    length: int = 120
    tokens: int = 150
    conversation: int = 6
    max_input_tokens: int | None = None


def too_long(facts: Facts, thresholds: Thresholds) -> bool:
    """Whether the request is refused as `context_length_exceeded` before any rule is asked."""
    return thresholds.max_input_tokens is not None and facts.estimated_tokens > thresholds.max_input_tokens


def choose(facts: Facts, thresholds: Thresholds) -> tuple[Tier, TierReason]:
    """The tier and the rule that chose it."""
    if facts.has_tools:
        return "medium", "function_calling"
    if facts.wants_json:
        return "medium", "json_mode"
    if facts.messages > thresholds.conversation:
        return "medium", "heuristic_conversation"
    if facts.estimated_tokens > thresholds.tokens:
        return "medium", "heuristic_tokens"
    if _keyword.search(facts.text):
        return "medium", "heuristic_keyword"
    if facts.characters > thresholds.length:
        return "medium", "heuristic_length"
    return "small", "default_small"
