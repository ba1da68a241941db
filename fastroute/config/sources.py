"""Where settings come from: flags over the environment over the file over the defaults, checked whole, then frozen.

`load` reads one file and nothing else of the world: the environment and the flags are handed in.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from fastroute.config import sections
from fastroute.config.document import Items, Leaf, Node, Section, read
from fastroute.config.model import (
    Agents,
    Auth,
    Auto,
    Cache,
    Config,
    Effective,
    Health,
    Ledger,
    Limits,
    Log,
    Pricing,
    Receipts,
    Relay,
    Server,
    Weights,
)
from fastroute.config.providers import KNOWN_PROVIDERS, OFFLINE_DIALECTS
from fastroute.config.table import SETTINGS, Setting
from fastroute.config.values import Given, Mistakes, in_flag, name, whole_file
from fastroute.config.walk import Walk
from fastroute.domain import Price, Rates
from fastroute.errors import ConfigError

FILE_NAME: Final = "fastroute.yaml"
_STRUCTURED: Final = ("providers", "models", "aliases")


class _Resolved(Struct, frozen=True):
    """A setting's value and where it came from."""

    value: Any
    source: str


def load(path: Path | None, environ: Mapping[str, str], flags: Mapping[str, object]) -> Config:
    """The whole configuration, or `ConfigError` with every mistake.

    With no path, FASTROUTE_CONFIG names the file, else `fastroute.yaml` in the working directory is read when it is
    there. `flags` maps a setting's dotted name, or its flag as click names it (`state_dir`), to a value; None is not
    given.
    """
    mistakes = Mistakes()
    file = _file(path, environ, mistakes)
    document = Section(1, {}) if file is None or mistakes else read(file, environ, mistakes)
    walk = Walk(str(file), mistakes)
    _check_keys(walk, document)
    literal: list[str] = []
    given_flags = _flags(flags)
    resolved = {each.name: _resolve(walk, each, document, environ, given_flags, literal) for each in SETTINGS}

    providers, literal_keys = sections.providers(walk, _section(walk, document, "providers"), environ)
    written = _section(walk, document, "providers").entries
    models = sections.models(
        walk,
        walk.items(document.entries["models"][1], "models", "models") if "models" in document.entries else (),
        frozenset([*KNOWN_PROVIDERS, *OFFLINE_DIALECTS, *written]),
    )
    aliases = sections.aliases(walk, _section(walk, document, "aliases"), frozenset(each.id for each in models))
    _check_cache(resolved, mistakes)
    if mistakes:
        raise ConfigError(mistakes.problems())

    top = {key: each.value for key, each in resolved.items() if "." not in key}
    return Config(
        **top,
        server=Server(**_group(resolved, "server")),
        auth=Auth(**_group(resolved, "auth")),
        relay=Relay(**_group(resolved, "relay")),
        auto=_auto(_group(resolved, "auto")),
        health=Health(**_group(resolved, "health")),
        pricing=Pricing(**_group(resolved, "pricing")),
        ledger=Ledger(**_group(resolved, "ledger")),
        limits=Limits(**_group(resolved, "limits")),
        cache=Cache(**_group(resolved, "cache")),
        agents=Agents(**_group(resolved, "agents")),
        receipts=Receipts(**_group(resolved, "receipts")),
        weights=Weights(**_group(resolved, "weights")),
        log=Log(**_group(resolved, "log")),
        providers=providers,
        models=models,
        aliases=aliases,
        file=file,
        effective=tuple(
            Effective(each.name, each.show(resolved[each.name].value), resolved[each.name].source) for each in SETTINGS
        ),
        literal_secrets=(*literal, *literal_keys),
    )


def _file(path: Path | None, environ: Mapping[str, str], mistakes: Mistakes) -> Path | None:
    if path is not None:
        return path
    named = environ.get("FASTROUTE_CONFIG", "").strip()
    if named:
        file = Path(named)
        if not os.path.lexists(file):
            mistakes.add(whole_file(named), "does not exist; env FASTROUTE_CONFIG names it")
        return file
    # A dangling link is there too: somebody meant a file, and it is better to say so than to start without it.
    return Path(FILE_NAME) if os.path.lexists(FILE_NAME) else None


def _check_keys(walk: Walk, document: Section) -> None:
    inside: dict[str, list[str]] = {}
    elsewhere: dict[str, list[str]] = {}
    for setting in SETTINGS:
        section, _, word = setting.name.rpartition(".")
        inside.setdefault(section, []).append(word)
        elsewhere.setdefault(word, []).append(setting.name)
    top = [*inside.pop(""), *inside, *_STRUCTURED]
    walk.known_keys(document, top, "", elsewhere)
    for section, words in inside.items():
        walk.known_keys(_section(walk, document, section), words, section, elsewhere)


def _section(walk: Walk, document: Section, key: str) -> Section:
    if key not in document.entries:
        return Section(1, {})
    return walk.section(document.entries[key][1], key) or Section(1, {})


def _flags(flags: Mapping[str, object]) -> dict[str, object]:
    by_flag = {each.flag.strip("-").replace("-", "_"): each.name for each in SETTINGS if each.flag}
    settings = {each.name for each in SETTINGS}
    given: dict[str, object] = {}
    for key, value in flags.items():
        setting = by_flag.get(key, key)
        if setting not in settings:
            raise TypeError(f"no setting is filled by {key!r}")
        if value is not None:
            given[setting] = value
    return given


def _resolve(
    walk: Walk,
    setting: Setting,
    document: Section,
    environ: Mapping[str, str],
    flags: Mapping[str, object],
    literal: list[str],
) -> _Resolved:
    """The first that speaks: flag, environment, file, default; the file is checked even where it is overruled."""
    resolved = _Resolved(_default(setting), "default")
    node = _node(document, setting.name)
    given = None if node is None else walk.given(node)
    if node is not None and given is not None:
        resolved = _Resolved(_from_file(walk, setting, node, given), sections.source(given))
        if setting.secret and given.literal and given.value is not None:
            literal.append(str(given.place))
    variable = sections.set_variable(environ, tuple(each.name for each in setting.env))
    if variable is not None:
        times = next(each.times for each in setting.env if each.name == variable.variable)
        value = walk.attempt(variable, setting.name, lambda each: setting.read(each, times), None)
        resolved = _Resolved(value, sections.source(variable))
    if setting.name in flags:
        value = flags[setting.name]
        flag = Given(value, in_flag(setting.flag or setting.name), str(value), textual=isinstance(value, str))
        resolved = _Resolved(
            walk.attempt(flag, setting.name, lambda each: _from_flag(setting, each), None), str(flag.place)
        )
    if setting.name == "server.workers" and not resolved.value:
        return _Resolved(cores(), resolved.source)
    return resolved


def _node(document: Section, dotted: str) -> Node | None:
    section, _, word = dotted.rpartition(".")
    if not section:
        return document.entries[word][1] if word in document.entries else None
    inside = document.entries[section][1] if section in document.entries else None
    return inside.entries[word][1] if isinstance(inside, Section) and word in inside.entries else None


def _from_file(walk: Walk, setting: Setting, node: Node, given: Given) -> Any:
    if setting.kind == "names" and (isinstance(node, Items) or (isinstance(node, Leaf) and given.value is None)):
        return walk.names(node, setting.name)
    return walk.attempt(given, setting.name, setting.read, None)


def _from_flag(setting: Setting, given: Given) -> Any:
    if setting.kind == "names" and isinstance(given.value, list | tuple):
        return tuple(name(Given(each, given.place, str(each))) for each in given.value)
    return setting.read(given)


def _default(setting: Setting) -> Any:
    if setting.kind == "names" or setting.default is None:
        return setting.default
    given = Given(setting.default, in_flag("default"), str(setting.default))
    return setting.read(given)


def _group(resolved: Mapping[str, _Resolved], section: str) -> dict[str, Any]:
    words: dict[str, Any] = {}
    for key, each in resolved.items():
        inside, _, word = key.rpartition(".")
        if inside == section:
            words[word] = each.value
    return words


def _check_cache(resolved: Mapping[str, _Resolved], mistakes: Mistakes) -> None:
    """One store is shared, or none: two would each hold half of the answers."""
    first, second = resolved["cache.endpoint"], resolved["cache.redis_url"]
    if first.value is not None and second.value is not None:
        mistakes.add(
            whole_file(second.source),
            f"cache.redis_url: cache.endpoint is set too ({first.source}); wanted one of the two",
        )


def _auto(words: dict[str, Any]) -> Auto:
    prices: dict[str, Any] = {
        f"{tier}_price": Price(Rates(words.pop(f"price_{tier}_input"), words.pop(f"price_{tier}_output")))
        for tier in ("small", "medium")
    }
    return Auto(**words, **prices)


def cores() -> int:
    """The cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1
