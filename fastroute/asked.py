"""How many answers a request asks for, and how long each may be, where a dialect says it in words of its own.

A reservation holds the whole output cap for every answer of every prompt; chat's `n` is read where all else is.
"""

from __future__ import annotations

from typing import Any, Final

import orjson
from msgspec import Struct

from fastroute._scan import Scan, ScanError
from fastroute.domain import TOKENS_MAX

# What a scanner has to look for beside the names it knows.
NAMES: Final = (b"best_of", b"generationConfig", b"generation_config")
# The surfaces that have words of their own.
SURFACES: Final = frozenset({"completions", "embeddings", "gemini"})
ANSWERS_MAX: Final = 1_000_000


class Asked(Struct, frozen=True):
    """Answers in all, the prompts they are given to, and the cap of each answer when this dialect names one."""

    answers: int
    prompts: int = 1
    cap: int | None = None


def asked(surface: str, scan: Scan, n: int) -> Asked:
    """What one body asks for; `ScanError` for a count that is no integer. What is malformed counts as one."""
    if surface == "gemini":
        return _gemini(scan)
    if surface == "embeddings":
        prompts = _texts(scan.raw(b"input"))
        return Asked(prompts, prompts)
    prompts = _texts(scan.raw(b"prompt"))
    best_of = scan.integer(b"best_of") or 1
    # Of the best of several all are made and billed; only the best are sent.
    return Asked(min(max(n, best_of, 1) * prompts, ANSWERS_MAX), prompts)


def _texts(raw: bytes | None) -> int:
    """How many prompts a text, an array of texts, token ids, or arrays of token ids are."""
    if raw is None or not raw.startswith(b"["):
        return 1
    try:
        given = orjson.loads(raw)
    except orjson.JSONDecodeError:  # a number that is too large: not a token id
        return 1
    return len(given) if given and not isinstance(given[0], int) else 1


def _gemini(scan: Scan) -> Asked:
    answers, cap = 1, None
    for raw in (scan.raw(b"generationConfig"), scan.raw(b"generation_config")):
        config = _object(raw)
        for word in ("candidateCount", "candidate_count"):
            answers = max(answers, _count(config.get(word)) or 1)
        for word in ("maxOutputTokens", "max_output_tokens"):
            told = _count(config.get(word))
            cap = told if cap is None or (told is not None and told > cap) else cap
    return Asked(min(answers, ANSWERS_MAX), 1, cap)


def _object(raw: bytes | None) -> dict[str, Any]:
    try:
        value = orjson.loads(raw or b"null")
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _count(value: Any) -> int | None:
    """A count as Google's JSON may say it: 8, 8.0 or "8". `ScanError` for what may mean anything."""
    if value is None:
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value) if len(value) < 19 else -1
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= TOKENS_MAX:
        raise ScanError("number", 0, "a count of answers or tokens is a whole number above 0")
    return value
