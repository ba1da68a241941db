"""The providers known by name: where they live, which dialect they speak, and which variables hold their keys.

Everything the house knows of a provider before anybody configures it stands in `KNOWN_PROVIDERS`; `base_url`
normalises what somebody gave, once, at load.
"""

from __future__ import annotations

from typing import Final, Literal, get_args
from urllib.parse import urlsplit

from msgspec import Struct

from fastroute.config.values import Given, Refused, found

Dialect = Literal["openai", "anthropic", "google", "dummy", "demo"]
DIALECTS: Final[tuple[str, ...]] = get_args(Dialect)
# These answer by themselves: no address, no key.
OFFLINE_DIALECTS: Final = ("dummy", "demo")


class Known(Struct, frozen=True):
    """What is true of a provider whoever configures it."""

    name: str
    display: str
    base_url: str | None
    base_env: tuple[str, ...] = ()
    key_env: tuple[str, ...] = ()
    dialect: Dialect = "openai"
    prefix: str = ""  # the path in front of `/v1`, added where only a host is given
    prefix_host: str | None = None  # on this host only; None is on every host
    by_url: bool = False  # an address in the environment is enough to switch it on

    @property
    def refusal(self) -> str:
        """What a caller reads when a model leads here and nobody configured it."""
        return f"{self.base_env[0] if self.by_url else f'{self.display} key'} not configured"


KNOWN_PROVIDERS: Final = {
    known.name: known
    for known in (
        Known(
            "openai",
            "OpenAI",
            "https://api.openai.com",
            ("OPENAI_BASE_URL",),
            ("EXTERNAL_OPENAI_KEY", "OPENAI_API_KEY"),
        ),
        Known(
            "anthropic",
            "Anthropic",
            "https://api.anthropic.com",
            ("ANTHROPIC_BASE_URL",),
            ("EXTERNAL_ANTHROPIC_KEY", "ANTHROPIC_API_KEY"),
            dialect="anthropic",
        ),
        Known(
            "google",
            "Google",
            "https://generativelanguage.googleapis.com",
            ("GOOGLE_BASE_URL",),
            ("EXTERNAL_GOOGLE_KEY", "GOOGLE_API_KEY", "GEMINI_API_KEY"),
            dialect="google",
        ),
        Known(
            "openrouter",
            "OpenRouter",
            "https://openrouter.ai/api",
            ("OPENROUTER_BASE_URL",),
            ("EXTERNAL_OPENROUTER_KEY", "OPENROUTER_API_KEY"),
            prefix="/api",
        ),
        Known(
            "grok",
            "Grok",
            "https://api.groq.com/openai",
            ("GROK_BASE_URL",),
            ("EXTERNAL_GROK_KEY", "GROQ_API_KEY"),
            prefix="/openai",
        ),
        # Venice was called at the bare host once and stubs of it still are; its own host serves under /api today.
        Known(
            "venice",
            "Venice",
            "https://api.venice.ai/api",
            ("VENICE_BASE_URL",),
            ("EXTERNAL_VENICE_KEY", "VENICE_API_KEY"),
            prefix="/api",
            prefix_host="api.venice.ai",
        ),
        Known("mistral", "Mistral", "https://api.mistral.ai", ("MISTRAL_API_BASE_URL",), ("MISTRAL_API_KEY",)),
        Known("llm-d", "llm-d", None, ("LLMD_ENDPOINT",), by_url=True),
        Known("local", "Local agent", "http://localhost:5000", ("LOCAL_AGENT_URL",), by_url=True),
        Known("gateway", "AI gateway", None, ("AI_GATEWAY_BASE_URL",), ("AI_GATEWAY_API_KEY",), by_url=True),
    )
}


def base_url(given: Given, known: Known | None = None) -> str:
    """An address that adapters append `/v1/...` to: http or https, a host, and no trailing `/v1` or slash.

    A provider whose API stands under a path gets that path where only a host is given; an address that says `/v1`
    itself is taken at its word.
    """
    if not isinstance(given.value, str):
        raise Refused(f"found {found(given.value, given.written)}, wanted an http(s) address")
    address = given.value.strip()
    # Whatever may hold a password or a key is not repeated.
    said = found(given.value, given.written) if not set("@?#") & set(address) else "an address"
    if not address.isascii() or not address.isprintable() or " " in address:
        raise Refused(f"found {said}, wanted an http(s) address in plain ASCII without blanks")
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise Refused(f"found {said}, wanted an http(s) address such as https://api.example.com") from None
    if parts.scheme not in ("http", "https") or not host or port == 0:
        raise Refused(f"found {said}, wanted an http(s) address with a host, such as https://api.example.com")
    if "@" in parts.netloc:
        raise Refused(f"found {said} with a user or a password in it; give the key as api_key")
    if "?" in address or "#" in address:
        raise Refused(f"found {said} with a query or a fragment; wanted the address alone")
    path = parts.path.rstrip("/")
    if path == "" and known and known.prefix_host in (None, host):
        path = known.prefix
    return f"{parts.scheme}://{parts.netloc.lower()}{path.removesuffix('/v1').rstrip('/')}"
