"""Where weights lie that this machine runs itself, as one address: `file:///...` or a repository of the hub.

Said in the configuration, in the registry and on the command line; all of them mean the same by the same words.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote, urlsplit

HUB: Final = "https://huggingface.co"
WEIGHT_TYPES: Final = ("gguf", "huggingface")
_REPO: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?")


def place(text: str) -> str:
    """The address of a path, a `file://` address, a repository's name or its page at the hub; `ValueError` for others."""
    if text.startswith(("http://", "https://")):
        if text != HUB and not text.startswith(HUB + "/"):
            raise ValueError(f"{text!r} is no place of weights; wanted a path, or a repository of {HUB}")
        return _repository(text[len(HUB) :].strip("/"))
    if text.startswith("file://"):
        return _path(unquote(urlsplit(text).path))
    if text.startswith(("/", "./", "../", "~")) or text.endswith(".gguf") or Path(text).is_dir():
        return _path(text)
    return _repository(text)


def place_of_row(kind_of_provider: str, name: str, endpoint: str, kind: str) -> str | None:
    """The address of a registry row's weights; None where its endpoint is a server's."""
    if kind_of_provider not in WEIGHT_TYPES or kind != "weight":
        return None
    if endpoint.startswith(("/", "file://")):
        return place(endpoint)
    if kind_of_provider == "huggingface" and endpoint.rstrip("/") == HUB:
        return place(f"{HUB}/{name}")  # the hub alone: the model's name is the repository's
    return place(endpoint) if endpoint.startswith(HUB + "/") else None


def is_place(address: str | None) -> bool:
    """Whether it is an address of weights, and not a server's."""
    return address is not None and address.startswith(("file://", HUB + "/"))


def engine(address: str) -> str:
    """What runs the weights of an address."""
    return "gguf" if address.endswith(".gguf") else "huggingface"


def path(address: str) -> str | None:
    """The path of an address; None for a repository's."""
    return unquote(urlsplit(address).path) if address.startswith("file://") else None


def _path(text: str) -> str:
    return f"file://{quote(str(Path(text).expanduser().absolute()))}"


def _repository(name: str) -> str:
    if not _REPO.fullmatch(name) or ".." in name or name.endswith(".gguf"):
        raise ValueError(f"{name!r} is neither a path (such as ./{name}) nor a repository such as org/model")
    return f"{HUB}/{name}"
