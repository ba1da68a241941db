"""What a request is called in the cache: an HMAC, under a secret of its tenant, over everything that shapes its answer.

Nobody without the tenant's secret can tell from a name what was asked, nor make the name of another tenant's request.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from typing import Any, Final

import orjson

# Who asks, and how a provider files it, changes no answer; `model` and `stream` are said beside the body.
_SILENT: Final = frozenset(
    {"model", "stream", "user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"}
)
_GENERATION: Final = ("generationConfig", "generation_config")


def root_of(pepper: bytes) -> bytes:
    """The cache's own secret, of a house's pepper; whoever has it learns nothing of the pepper."""
    return hmac.digest(pepper, b"fastroute answers 1", "sha256")


def secret_of(root: bytes, tenant: str) -> bytes:
    """A tenant's own secret."""
    return hmac.digest(root, tenant.encode("utf-8", "surrogatepass"), "sha256")


def name_of(secret: bytes, parts: Iterable[bytes]) -> str:
    """The name of what these parts say together; where one ends and the next begins counts."""
    told = b"".join([b"%d:%b" % (len(part), part) for part in parts])
    return hmac.digest(secret, told, hashlib.sha256).hex()


def canonical(body: dict[str, Any]) -> bytes:
    """A decoded body in one form, whatever the order of its keys, its blanks and escapes, and who sent it."""
    return orjson.dumps(
        {name: value for name, value in body.items() if name not in _SILENT}, option=orjson.OPT_SORT_KEYS
    )


def deterministic(surface: str, body: dict[str, Any]) -> bool:
    """Whether the same answer is expected each time: embeddings, and whatever asks for a temperature of zero."""
    if surface == "embeddings":
        return True
    if surface != "gemini":
        return _is_zero(body.get("temperature"))
    told = [body[word] for word in _GENERATION if isinstance(body.get(word), dict)]
    return len(told) == 1 and _is_zero(told[0].get("temperature"))


def _is_zero(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == 0
