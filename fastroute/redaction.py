"""What looks like a key is masked before anything is logged or kept: one list of shapes for all rooms.

Every pattern takes the whole run of characters it looks at in one match, so the time is linear in the text.
"""

from __future__ import annotations

import re
from typing import Any, Final

_DEPTH_MAX: Final = 64
_MASK: Final = "***"

# Not inside a word ("task-oriented"), but right behind an escape such as \n, \x0a or %3D, which only looks like one.
_BOUNDARY: Final = (
    r"(?:(?<![A-Za-z0-9])|(?<=\\[abfnrtv])|(?<=\\x[0-9A-Fa-f]{2})|(?<=\\u[0-9A-Fa-f]{4})|(?<=%[0-9A-Fa-f]{2}))"
)
# A sentence about the bearer of something is left as it is.
_PROSE: Final = (
    r"(?!(?:tokens?|auth(?:entication|orization)?|scheme|keys?|headers?|credentials?|is|was|or|and|in|of)"
    r"\b(?![-._~+/=]))"
)
_SIGNS: Final = ("sk-", "vk-", "xai-", "fr_", "ic_", "gsk_", "AKIA", "ASIA", "AIza")
# Providers mask a key in their own way when they repeat it, and show its ends: stars are part of one.
_KEY: Final = re.compile(
    r"(?=[svxfigA])"  # what cannot begin one is passed over at once: a third of the time
    + _BOUNDARY
    + r"(?:(sk-|vk-|xai-|gsk_)[A-Za-z0-9_*-]{4,}+|(fr_|ic_|AIza)[A-Za-z0-9_*-]{8,}+|(AKIA|ASIA)[0-9A-Z]{12,}+)"
)
# A JSON Web Token. The run is taken whole and looked at afterwards: a pattern that asked for the dots would look for them
# again from every place where a run might begin.
_TOKEN: Final = re.compile(r"(?=e)" + _BOUNDARY + r"eyJ[A-Za-z0-9_-]*+(?:\.[A-Za-z0-9_-]*+)*+")
_BEARER: Final = re.compile(
    r"(bearer(?:\s|%20|\\t)++)" + _PROSE + r"[A-Za-z0-9._~+/=-][A-Za-z0-9._~+/=*-]*+", re.IGNORECASE
)
# Google takes its key in the address, whatever it looks like.
_PARAMETER: Final = re.compile(r"([?&]key=)[A-Za-z0-9._~%+/=*-]++")

SIGNS: Final = (*_SIGNS, "eyJ", "earer", "EARER", "key=")
"""A text without any of these holds nothing that would be masked."""


def scrub(value: Any) -> Any:
    """A copy of a JSON value in which nothing looks like a key, neither in its texts nor in the keys of its maps.

    Two map keys that look alike afterwards are told apart by a number. What lies deeper than 64 levels is masked whole.
    """
    return _scrubbed(value, 0)


def _scrubbed(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return scrub_text(value)
    if isinstance(value, (list, tuple, dict)) and depth >= _DEPTH_MAX:
        return _MASK
    if isinstance(value, (list, tuple)):
        return [_scrubbed(one, depth + 1) for one in value]
    if isinstance(value, dict):
        return _scrubbed_map(value, depth)
    return value


def _scrubbed_map(value: dict[Any, Any], depth: int) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    count = 1
    for key, inner in value.items():
        shown = scrub_text(key) if isinstance(key, str) else key
        # The number goes on, so that a thousand alike cost a thousand steps.
        while shown in found:
            count += 1
            shown = f"{scrub_text(key)}#{count}"
        found[shown] = _scrubbed(inner, depth + 1)
    return found


def scrub_text(text: str) -> str:
    """One text with every key in it masked; the prefix stays, so that a reader sees what kind it was."""
    if "eyJ" in text:
        text = _TOKEN.sub(_masked_token, text)
    for sign in _SIGNS:
        if sign in text:
            text = _KEY.sub(_masked_key, text)
            break
    if "earer" in text or "EARER" in text:
        text = _BEARER.sub(rf"\1{_MASK}", text)
    if "key=" in text:
        text = _PARAMETER.sub(rf"\1{_MASK}", text)
    return text


def _masked_key(match: re.Match[str]) -> str:
    return f"{match[match.lastindex or 0]}{_MASK}"


def _masked_token(match: re.Match[str]) -> str:
    head, dot, rest = match[0].partition(".")
    return f"eyJ{_MASK}" if dot and len(head) > 10 and rest.strip(".") else match[0]


def clip(text: str, most_bytes: int) -> str:
    """As much of a text as fits into so many bytes of UTF-8, whole characters only, with `…` where something is missing."""
    if len(text) * 4 <= most_bytes:
        return text
    encoded = text[: most_bytes + 1].encode("utf-8", "replace")
    if len(encoded) <= most_bytes:
        return text
    mark = "…" if most_bytes >= 3 else ""
    return encoded[: most_bytes - len(mark.encode())].decode("utf-8", "ignore") + mark
