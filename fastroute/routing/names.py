"""Which provider a model's name belongs to: one table of families, shared by everyone who has to guess.

A name is looked up exactly first (catalog, then aliases); only what is left over comes here. `provider:model` and
`provider/model` say it themselves, then the longest prefix decides.
"""

from __future__ import annotations

import difflib
from collections.abc import Container, Iterable
from itertools import islice
from typing import Final

from msgspec import Struct

from fastroute.domain import ModelRef

# How long a name may be that is compared with others, with how many, and how much longer or shorter those are.
_NEAR_LETTERS: Final = 64
_NEAR_NAMES: Final = 32
_NEAR_LONGER: Final = 8


class Family(Struct, frozen=True):
    """Names that start so belong to one provider, and can at least this much."""

    prefix: str
    provider: str
    capabilities: tuple[str, ...] = ()
    whole_word: bool = False  # `o1` and `o1-mini`, but not `o1x`

    def holds(self, name: str) -> bool:
        if not name.startswith(self.prefix):
            return False
        rest = name[len(self.prefix) :]
        return not self.whole_word or rest == "" or not rest[0].isalnum()


_SEES = ("tools", "vision", "json")

# Longest prefix wins. The seeds' wildcards (`local*`, `claude*` ...) stay wildcards.
FAMILIES: Final = tuple(
    sorted(
        (
            Family("local", "local"),
            Family("llmd-", "llm-d"),
            Family("gpt-", "openai"),
            Family("gpt-4", "openai", ("tools", "json")),
            Family("gpt-4o", "openai", _SEES),
            Family("gpt-4.1", "openai", (*_SEES, "long_context")),
            Family("gpt-5", "openai", (*_SEES, "long_context")),
            Family("chatgpt-", "openai", ("vision",)),
            Family("o1", "openai", _SEES, whole_word=True),
            Family("o3", "openai", _SEES, whole_word=True),
            Family("o4", "openai", _SEES, whole_word=True),
            Family("text-embedding-", "openai"),
            Family("claude", "anthropic", _SEES),
            Family("google", "google"),
            Family("gemini-", "google", (*_SEES, "audio", "long_context")),
            Family("openrouter", "openrouter"),
            Family("grok", "grok"),
            Family("venice", "venice"),
            Family("mistral-", "mistral", ("tools", "json")),
            Family("mistral-medium", "mistral", _SEES),
            Family("mistral-small", "mistral", _SEES),
            Family("ministral-", "mistral", ("tools", "json")),
            Family("magistral-", "mistral", ("tools", "json")),
            Family("codestral-", "mistral", ("tools", "json")),
            Family("devstral-", "mistral", ("tools", "json")),
            Family("pixtral-", "mistral", _SEES),
            Family("open-mistral-", "mistral", ("json",)),
            Family("dummy", "dummy"),
        ),
        key=lambda family: -len(family.prefix),
    )
)


# What makers' models are called for short where the maker is named beside them, as AI gateways do.
_SHORT: Final = {
    ("mistral", "small"): "mistral-small-latest",
    ("mistral", "medium"): "mistral-medium-latest",
    ("mistral", "large"): "mistral-large-latest",
}


def spelled_out(provider: str, model: str) -> str:
    """A model's own name at its maker: `mistral/small` is mistral-small-latest there."""
    return _SHORT.get((provider, model), model)


def family_of(name: str) -> Family | None:
    """The family with the longest prefix that holds the name."""
    return next((family for family in FAMILIES if family.holds(name)), None)


def split(name: str, providers: Container[str]) -> ModelRef | None:
    """Who serves a name that no catalog row or alias has; None when nobody does.

    First `provider:model` at the first colon, then `provider/model`, each only with a provider that is known, since ids
    of open models carry slashes and tags carry colons; then the longest family.
    """
    for separator in (":", "/"):
        provider, found, model = name.partition(separator)
        if found and model and provider in providers:
            return ModelRef(provider, spelled_out(provider, model))
    family = family_of(name)
    if family is not None and family.provider in providers:
        return ModelRef(family.provider, name)
    return None


def capabilities_of(model: str) -> tuple[str, ...]:
    """What a model can do as far as its family tells; nothing when the family is not known."""
    maker, _, name = model.rpartition("/")
    family = family_of(spelled_out(maker, name))
    return family.capabilities if family else ()


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The name most like one that nobody has, if one is near; looked for among a few that begin or end like it.

    Whoever asks for names that nobody has may do so often, and the event loop waits for each comparison.
    """
    if len(name) > _NEAR_LETTERS:
        return None
    begins, ends, letters = name[:3], name[-3:], len(name)
    alike = (
        each
        for each in known
        if abs(len(each) - letters) <= _NEAR_LONGER and (each.startswith(begins) or each.endswith(ends))
    )
    found = difflib.get_close_matches(name, islice(alike, _NEAR_NAMES), n=1)
    return found[0] if found else None
