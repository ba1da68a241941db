"""`fastroute models`: the registry from the command line, and the same under the names older tools use."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import click
import msgspec

from fastroute.cli import books
from fastroute.clock import SystemClock
from fastroute.config import Config, load, places
from fastroute.errors import FetchError, RegistryError
from fastroute.ledger import migrations
from fastroute.ledger.registry import ModelRow, Registry, problems, rows_from_json
from fastroute.ledger.sqlite import Store

FETCH_MS = 10_000
LIST_BYTES_MAX = 8 * 1024 * 1024  # the longest list seen is a few hundred KiB

F = TypeVar("F", bound=Callable[..., Any])


_CONFIG = "fastroute.config"


def configured(state_dir: Path | None) -> Config:
    """The configuration the server would have: the registry it reads is the one these commands change."""
    return load(click.get_current_context().meta.get(_CONFIG), os.environ, {"state_dir": state_dir})


def database_path(state_dir: Path | None) -> Path:
    """The registry's file: SQLITE_DB_PATH, or the configuration's, else the state directory's own."""
    return configured(state_dir).database_path


def _keep(ctx: click.Context, param: click.Parameter, value: Path | None) -> None:
    ctx.meta[_CONFIG] = value


def _common(function: F) -> F:
    function = click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)
    function = click.option(
        "--config",
        is_eager=True,
        expose_value=False,
        callback=_keep,
        type=click.Path(path_type=Path),
        help="The fastroute.yaml of the server.",
    )(function)
    return click.option(
        "--state-dir",
        type=click.Path(path_type=Path),
        help="Directory of the database (default ./data), unless SQLITE_DB_PATH names the file.",
    )(function)


@contextmanager
def _registry(state_dir: Path | None) -> Iterator[Registry]:
    with books.told(), Store.open(database_path(state_dir)) as store:
        yield Registry(store)


def _shown(row: ModelRow) -> dict[str, str]:
    return {"name": row.name, "type": row.type, "endpoint": row.endpoint, "kind": row.kind}


@click.group("models")
def command() -> None:
    """The registry: which models there are, who serves each, and where."""


@command.command("add")
@click.argument("name")
@click.argument("type_", metavar="TYPE")
@click.argument("endpoint")
@click.argument("kind", required=False)
@click.option("--kind", "kind_option", metavar="KIND", help="api (the default) or weight; the same as the argument.")
@_common
def add(
    name: str,
    type_: str,
    endpoint: str,
    kind: str | None,
    kind_option: str | None,
    state_dir: Path | None,
    as_json: bool,
) -> None:
    """Add a model, or update the one of that name."""
    if kind is not None and kind_option is not None and kind != kind_option:
        raise click.UsageError(f"KIND is given twice: {kind!r} and {kind_option!r}")
    kind = kind if kind is not None else kind_option
    if type_ in places.WEIGHT_TYPES and not endpoint.startswith(("http://", "https://")):
        # Weights of this machine: where they are is said in full, since the server runs in another directory.
        try:
            endpoint, kind = places.place(endpoint), kind or "weight"
        except ValueError as error:
            raise click.UsageError(str(error)) from None
    row = ModelRow(name, type_, endpoint, kind or "api")
    with _registry(state_dir) as registry:
        outcome = registry.add(row)
    if as_json:
        books.print_json(_shown(row))
    else:
        click.echo(f"{outcome.capitalize()} {row.name}")


@command.command("list")
@_common
def list_(state_dir: Path | None, as_json: bool) -> None:
    """Print every model: name, type, endpoint and kind, with tabs between."""
    rows: tuple[ModelRow, ...] = ()
    # Looking makes nothing: with no database yet there are no models.
    if database_path(state_dir).exists():
        with _registry(state_dir) as registry:
            rows = registry.list()
    if as_json:
        books.print_json([_shown(row) for row in rows])
        return
    for row in rows:
        click.echo(f"{row.name}\t{row.type}\t{row.endpoint}\t{row.kind}")


@command.command("remove")
@click.argument("name")
@_common
def remove(name: str, state_dir: Path | None, as_json: bool) -> None:
    """Remove a model."""
    with _registry(state_dir) as registry:
        row = registry.remove(name)
    if as_json:
        books.print_json(_shown(row))
    else:
        click.echo(f"Removed {row.name}")


@command.command("seed")
@click.argument("file", type=click.File("rb"))
@_common
def seed(file: BinaryIO, state_dir: Path | None, as_json: bool) -> None:
    """Add or update every model of a JSON FILE: a list of {name, type, endpoint, kind?}. All of them, or none."""
    with books.told():
        rows = rows_from_json(file.read())
    with _registry(state_dir) as registry:
        count = registry.seed(rows)
    if as_json:
        books.print_json([_shown(row) for row in rows])
    else:
        click.echo(f"Seeded {count} models")


@command.command("refresh")
@click.argument("provider", type=click.Choice(["openai"]))
@_common
def refresh(provider: str, state_dir: Path | None, as_json: bool) -> None:
    """Make the rows of one PROVIDER what its own list says; the rows of others stay."""
    _refresh(provider, state_dir, as_json)


@click.command("refresh-openai")
@_common
def refresh_openai(state_dir: Path | None, as_json: bool) -> None:
    """The same as `models refresh openai`."""
    _refresh("openai", state_dir, as_json)


@click.command("migrate")
@_common
def migrate(state_dir: Path | None, as_json: bool) -> None:
    """Bring the database to the latest schema; commands and the server do so by themselves as they open it."""
    with books.told(), Store.open(database_path(state_dir)) as store:
        applied = store.applied
    if as_json:
        books.print_json({"applied": applied, "schema": migrations.LATEST})
    elif applied:
        click.echo("\n".join(f"Applied {name}" for name in applied))
    else:
        click.echo(f"Up to date at schema {migrations.LATEST}")


def _alias(name: str, original: click.Command) -> click.Command:
    alias = copy.copy(original)
    alias.name = name
    return alias


add_model = _alias("add-model", add)
list_models = _alias("list-models", list_)


def _refresh(provider: str, state_dir: Path | None, as_json: bool) -> None:
    with books.told():
        asked = configured(state_dir).providers.get(provider)
        if asked is None or asked.api_key is None or asked.base_url is None:
            raise FetchError("EXTERNAL_OPENAI_KEY not set")
        base = asked.base_url
        # Asked of the registry first, so that no key goes to an address whose rows it would refuse.
        if found := problems(ModelRow(provider, provider, base)):
            raise RegistryError(f"OPENAI_BASE_URL: {'; '.join(found)}")
        names = fetch_names(base, asked.api_key.reveal())
    with _registry(state_dir) as registry:
        replaced = registry.replace_provider(provider, names, base)
    for row in replaced.kept:
        click.echo(f"Kept {row.name} of type {row.type}", err=True)
    if as_json:
        kept = [_shown(row) for row in replaced.kept]
        books.print_json({"inserted": replaced.inserted, "removed": replaced.removed, "kept": kept})
    else:
        click.echo(f"Inserted {len(replaced.inserted)} models")


class _List(msgspec.Struct):
    data: list[_Listed]


class _Listed(msgspec.Struct):
    id: str


def fetch_names(base: str, key: str) -> list[str]:
    """The models an OpenAI-compatible provider lists. Raises `FetchError`, which never tells the key."""
    import httpx  # costs 100 ms, which only this command should pay

    # httpx quotes a header it refuses, and this header is a secret.
    if not key.isascii() or not key.isprintable():
        raise FetchError("the key holds characters that no header may carry")
    url = f"{base}/v1/models"
    clock = SystemClock()
    deadline_ms = clock.monotonic_ms() + FETCH_MS
    headers = {"authorization": f"Bearer {key}", "accept": "application/json", "accept-encoding": "identity"}
    body = bytearray()
    try:
        with (
            httpx.Client(trust_env=False, follow_redirects=False, timeout=FETCH_MS / 1000) as client,
            client.stream("GET", url, headers=headers) as answer,
        ):
            if answer.status_code != 200:
                raise FetchError(f"{url} answered {answer.status_code}; nothing was changed")
            for chunk in answer.iter_raw():
                body += chunk
                if len(body) > LIST_BYTES_MAX:
                    raise FetchError(f"{url} answered more than {LIST_BYTES_MAX} bytes; nothing was changed")
                if clock.monotonic_ms() > deadline_ms:
                    raise FetchError(f"{url} took more than {FETCH_MS} ms; nothing was changed")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise FetchError(f"{url} gave no answer: {error or type(error).__name__}; nothing was changed") from error
    try:
        names = [listed.id for listed in msgspec.json.decode(bytes(body), type=_List).data]
    except (msgspec.DecodeError, RecursionError) as error:
        raise FetchError(f"{url} answered 200 with no list of models ({error}); nothing was changed") from error
    if not names:
        raise FetchError(f"{url} answered 200 with an empty list; nothing was changed")
    return names
