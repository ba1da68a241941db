"""What a request is called in the cache: an HMAC, under a secret of its tenant, over everything that shapes its answer.

Nobody without the tenant's secret can tell from a name what was asked, nor make the name of another tenant's request.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from typing import Any, Final

import orjson

# Said beside the body.
_BESIDE: Final = frozenset({"model", "stream"})
# Who asks, and how a provider files it, changes no answer, but one of `responses`, which repeats them.
_SILENT: Final = _BESIDE | {"user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"}
# Where schemas are: a model fills their fields in the order they are written in.
_IN_ORDER: Final = frozenset({
    "tools", "functions", "response_format", "text", "output_format", "output_config", "generationConfig",
    "generation_config",
})  # fmt: skip
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


def canonical(surface: str, body: dict[str, Any]) -> bytes:
    """A decoded body in one form, whatever the order of its keys, its blanks and escapes, and who sent it.

    The order of a schema's keys counts.
    """
    silent = _BESIDE if surface == "responses" else _SILENT
    told = {name: body[name] for name in sorted(body) if name not in silent}
    in_order = [(name, told.pop(name)) for name in list(told) if name in _IN_ORDER]
    return orjson.dumps(told, option=orjson.OPT_SORT_KEYS) + b"\n" + orjson.dumps(in_order)


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
