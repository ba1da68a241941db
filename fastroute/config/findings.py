"""What is insecure, or will not work, in a configuration that can be used; each with what would mend it.

It looks at the configuration and at the modes of two paths, the state directory and the file; it changes nothing.
"""

from __future__ import annotations

import ipaddress
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from msgspec import Struct

from fastroute.config.model import Config
from fastroute.config.secret import Secret

SECRET_LENGTH_MIN: Final = 16
# Secrets that stand in examples, and so in the lists that attackers try first.
WEAK_SECRETS: Final = frozenset(
    {"dev-secret", "sk-1234", "changeme", "change-me", "secret", "password", "admin", "test", "router-key"}
)


class Finding(Struct, frozen=True):
    """One thing an operator should know; an error keeps fastroute from starting, a warning does not."""

    severity: Literal["error", "warning"]
    what: str
    mend: str


def findings(config: Config) -> tuple[Finding, ...]:
    """Everything that is worth a warning, in the order of the settings."""
    return tuple(Finding("warning", what, mend) for what, mend in _warnings(config))


def _warnings(config: Config) -> Iterator[tuple[str, str]]:
    if not is_loopback(config.server.host):
        if config.auth.router_key is None:
            yield (
                f"server.host {config.server.host} can be reached from other machines, and auth.router_key is not set",
                "set ROUTER_API_KEY; with no key at all only loopback is served",
            )
        if config.auth.admin_key is None:
            yield (
                f"server.host {config.server.host} can be reached from other machines, and auth.admin_key is not set",
                "set FASTROUTE_ADMIN_KEY to a long random text",
            )
    for name, what, mend in weak_secrets(config):
        yield f"{name} {what}", mend
    if config.auth.admin_key is not None and config.auth.admin_key == config.auth.router_key:
        yield "auth.admin_key and auth.router_key are the same, so every caller is an administrator", "make two keys"
    for provider in config.providers.values():
        label = f"providers.{provider.name}"
        # The length of a provider's key is the provider's affair; a known placeholder is ours.
        for what, mend in _weak(provider.api_key, 0):
            yield f"{label}.api_key {what}", mend
        if provider.base_url is not None:
            if provider.api_key is not None:
                yield from _bare(f"{label}.base_url", provider.base_url)
            if _is_here(provider.base_url, config):
                yield (
                    f"{label}.base_url {provider.base_url} is this server itself ({provider.base_url_source}), "
                    "and its requests would go round in a circle",
                    "point it at the provider; a client's OPENAI_BASE_URL does not belong in the server's environment",
                )
    for model in config.models:
        provider_name = model.model.partition(":")[0]
        keyed = config.providers.get(provider_name)
        if model.endpoint is not None and keyed is not None and keyed.api_key is not None:
            yield from _bare(f"endpoint of model {model.id}", model.endpoint)
    yield from _cache(config)
    yield from _modes(config)


def _cache(config: Config) -> Iterator[tuple[str, str]]:
    cache = config.cache
    shared = (
        "cache.endpoint" if cache.endpoint is not None else "cache.redis_url" if cache.redis_url is not None else ""
    )
    if shared and cache.ttl_s == 0:
        yield (
            f"{shared} is set and cache.ttl_s is 0, so no answer is kept anywhere",
            "set CACHE_TTL=300, or leave it out",
        )


def weak_secrets(config: Config) -> Iterator[tuple[str, str, str]]:
    """The keys that open this house and that somebody could guess: the setting, what is wrong with it, what mends it."""
    for name, secret in (("auth.admin_key", config.auth.admin_key), ("auth.router_key", config.auth.router_key)):
        for what, mend in _weak(secret, SECRET_LENGTH_MIN):
            yield name, what, mend


def _weak(secret: Secret | None, length_min: int) -> Iterator[tuple[str, str]]:
    if secret is None:
        return
    if secret.reveal().lower() in WEAK_SECRETS:
        yield "is a secret that stands in examples", "make another, for instance with `openssl rand -hex 32`"
    elif len(secret.reveal()) < length_min:
        yield (
            f"is shorter than {length_min} characters",
            "make a longer one, for instance with `openssl rand -hex 32`",
        )


def _bare(name: str, url: str) -> Iterator[tuple[str, str]]:
    parts = urlsplit(url)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        yield f"{name} {url} carries a key without encryption", "use https://, or a proxy on this machine"


def _modes(config: Config) -> Iterator[tuple[str, str]]:
    mode = _mode(config.state_dir)
    if mode is not None and mode & 0o077:
        yield f"state_dir {config.state_dir} is open to others (mode {mode:04o})", f"chmod 0700 {config.state_dir}"
    if config.file is not None and config.literal_secrets:
        mode = _mode(config.file)
        if mode is not None and mode & 0o077:
            places = ", ".join(config.literal_secrets)
            yield (
                f"{config.file} holds secrets in plain text ({places}) and is open to others (mode {mode:04o})",
                f"chmod 0600 {config.file}, or write ${{NAME}} and set the variable",
            )


def _mode(path: Path) -> int | None:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return None  # not there yet, or not ours to see: then there is nothing to compare


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches that host."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _is_here(url: str, config: Config) -> bool:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return port == config.server.port and (is_loopback(parts.hostname or "") or parts.hostname == config.server.host)
