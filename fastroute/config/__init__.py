"""Configuration: one settings table filled by file, environment and flags, read once, checked whole, then frozen.

`load` gives a `Config`; `SETTINGS` says what there is to decide, `KNOWN_PROVIDERS` which providers are known by name.
"""

from fastroute.config.model import (
    Auth,
    Auto,
    Cache,
    Config,
    Effective,
    Health,
    Ledger,
    Listening,
    Log,
    ModelConfig,
    Pricing,
    Provider,
    Relay,
    Server,
    Weights,
)
from fastroute.config.providers import KNOWN_PROVIDERS, Dialect, Known
from fastroute.config.secret import Secret
from fastroute.config.sources import load
from fastroute.config.table import SETTINGS, Setting, reference

__all__ = [
    "KNOWN_PROVIDERS",
    "SETTINGS",
    "Auth",
    "Auto",
    "Cache",
    "Config",
    "Dialect",
    "Effective",
    "Health",
    "Known",
    "Ledger",
    "Listening",
    "Log",
    "ModelConfig",
    "Pricing",
    "Provider",
    "Relay",
    "Secret",
    "Server",
    "Setting",
    "Weights",
    "load",
    "reference",
]
