"""`fastroute doctor`: what holds, where it was said, what is insecure, and what would mend it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import click
import msgspec
import orjson

from fastroute.assembly import directory_for, directory_without_policies, with_demo
from fastroute.cli.agents import told
from fastroute.cli.exits import CONFIG
from fastroute.config import KNOWN_PROVIDERS, Config, Provider, load
from fastroute.config.findings import Finding, findings
from fastroute.config.secret import MASK
from fastroute.domain import Entry
from fastroute.errors import ConfigError, FastrouteError
from fastroute.ledger.agents import registered
from fastroute.policies import Policies, load_policies
from fastroute.routing.directory import AUTO, Directory

# The core numbers a route's targets in a byte.
TARGETS_MAX: Final = 255


@click.command("doctor")
@click.option("--config", "path", type=click.Path(path_type=Path), help="The file to read; default: fastroute.yaml.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(path: Path | None, as_json: bool) -> None:
    """Show the settings that hold, where each came from, and what is insecure.

    Exits 0 when the configuration can be used, whatever warnings it has, and 78 when it cannot.
    """
    try:
        config = load(path, os.environ, {})
    except ConfigError as error:
        found = tuple(Finding("error", str(problem), f"correct {problem.where}") for problem in error.problems)
        if as_json:
            _print_json([], [], found)
        else:
            click.echo(f"{error}\nThe configuration cannot be used.", err=True)
        sys.exit(CONFIG)
    found = findings(config)
    policies = Policies({}, {})
    try:
        policies = load_policies(config.policies_dir)
        found += tuple(_routes(config, directory_for(with_demo(config))))
        found += tuple(_hidden(policies, config))
        found += tuple(_silent(config))
    except FastrouteError as error:
        # Every setting is well said, and together they cannot be served.
        found = (Finding("error", str(error), "correct what it names; the server refuses to start so"), *found)
    if as_json:
        _print_json(
            config.effective, [_provider(each) for each in config.providers.values()], found, _policies(policies)
        )
    else:
        _print_text(config, found, policies)
    if any(each.severity == "error" for each in found):
        sys.exit(CONFIG)


def _routes(config: Config, directory: Directory) -> Iterator[Finding]:
    """Where the routes lead: `auto` to somebody who cannot be asked, an alias to more than can be ranked."""
    unasked: dict[str, tuple[str, str]] = {}
    # With no provider at all nothing can be asked, which the list of providers says by itself.
    for entry in directory.resolve(AUTO).catalog.entries if config.providers else ():
        mend = _keyless(config, entry)
        if mend is not None:
            unasked.setdefault(entry.ref.provider, (entry.id, mend))
    for provider, (model, mend) in unasked.items():
        yield Finding("warning", f"auto leads to {model} of provider {provider!r}, which has no key", mend)
    for name in directory.aliases:
        targets = directory.resolve(name).catalog.entries
        if len(targets) > TARGETS_MAX:
            what = f"alias {name!r} has {len(targets)} targets and at most {TARGETS_MAX} can be put in order"
            yield Finding("warning", what, "split it, or take targets out; requests for it fail")


def _keyless(config: Config, entry: Entry) -> str | None:
    """What would mend it, when the provider of an entry wants a key and has none."""
    name = entry.ref.provider
    known, provider = KNOWN_PROVIDERS.get(name), config.providers.get(name)
    if known is None or not known.key_env or entry.endpoint is not None:
        return None
    # Somebody's own server under a known name may want no key.
    if provider is not None and (provider.api_key is not None or provider.base_url != known.base_url):
        return None
    return f"set {known.key_env[-1]}, or let auto name models that can be asked"


def _hidden(policies: Policies, config: Config) -> Iterator[Finding]:
    """Policies that cannot be asked by their name, because somebody else answers to it."""
    plain = directory_without_policies(with_demo(config)).names()
    for name in sorted(set(policies.names) & set(plain)):
        what = f"policy {name!r} ({policies.sources[name]}) is hidden by a model or an alias of that name"
        yield Finding("warning", what, "call one of the two otherwise")


def _silent(config: Config) -> Iterator[Finding]:
    """Agents that were not heard of for a day, which are forgotten in a while."""
    rows = registered(config.database_path).agents
    for each in told(config, [msgspec.to_builtins(row) for row in rows]):
        if each["forgotten_at"] is not None:
            what = f"agent {each['name']!r} was last heard of {each['last_heard_at'][:10]}"
            mend = f"start it again, or `fastroute agents remove {each['name']}`; it is forgotten"
            yield Finding("warning", what, f"{mend} {each['forgotten_at'][:10]}")


def _policies(policies: Policies) -> list[dict[str, Any]]:
    return [
        {"name": each.name, "models": list(each.models), "source": policies.sources[each.name]}
        for each in policies.by_name.values()
    ]


def _print_json(
    settings: Sequence[Any],
    providers: list[dict[str, Any]],
    found: Sequence[Finding],
    policies: Sequence[dict[str, Any]] = (),
) -> None:
    body = msgspec.to_builtins(
        {"settings": list(settings), "providers": providers, "policies": list(policies), "findings": list(found)}
    )
    click.echo(orjson.dumps(body, option=orjson.OPT_INDENT_2).decode())


def _provider(provider: Provider) -> dict[str, Any]:
    return {
        "name": provider.name,
        "dialect": provider.dialect,
        "base_url": provider.base_url,
        "base_url_source": provider.base_url_source,
        "api_key": MASK if provider.api_key else None,
        "api_key_source": provider.api_key_source,
    }


def _print_text(config: Config, found: Sequence[Finding], policies: Policies) -> None:
    click.echo(f"file: {config.file or 'none'}\n\nSettings")
    _columns([(each.name, _word(each.value), each.source) for each in config.effective])
    click.echo("\nProviders")
    _columns(
        [
            (each.name, f"{each.base_url or each.dialect} ({each.base_url_source})", _key(each))
            for each in config.providers.values()
        ]
        or [("none", "no key of a provider is set", "")]
    )
    click.echo("\nPolicies")
    _columns(
        [(each["name"], ", ".join(each["models"]), each["source"]) for each in _policies(policies)]
        or [("none", "", "")]
    )
    click.echo("\nFindings")
    for each in found:
        click.echo(f"  {each.severity}: {each.what}\n    mend: {each.mend}")
    if not found:
        click.echo("  none")


def _key(provider: Provider) -> str:
    return f"key {MASK} ({provider.api_key_source})" if provider.api_key else "no key"


def _word(value: bool | int | str | list[str] | None) -> str:
    if isinstance(value, list):
        return ", ".join(value) or "none"
    if value is None:
        return "not set"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _columns(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
