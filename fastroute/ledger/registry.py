"""The registry: which models there are by name, who serves each, and where.

Rows are filled by people, by seed files, by a provider's own list and by agents. Everything here is one transaction:
a change is there as a whole or not at all, and moves a generation by which a reader can tell that something changed.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from fastroute.config.places import WEIGHT_TYPES
from fastroute.domain import MODEL_KINDS
from fastroute.errors import RegistryError
from fastroute.ledger.sqlite import Store, Transaction

AUTO = "auto"
MODEL_TYPES: tuple[str, ...] = (
    "local",
    "openai",
    "llm-d",
    "anthropic",
    "google",
    "openrouter",
    "grok",
    "venice",
    "huggingface",
    "mistral",
    "dummy",
    "gguf",
)
NAME_CHARACTERS_MAX = 200

_ALL = "SELECT name, type, endpoint, kind, agent FROM models ORDER BY name"
_LISTED = """
    SELECT name, type, endpoint, kind, agent FROM models
    UNION ALL SELECT model, 'local', endpoint, 'weight', agent FROM offers JOIN agents ON agents.name = offers.agent
    ORDER BY 1, 5
"""
_ONE = "SELECT name, type, endpoint, kind, agent FROM models WHERE name = ?"
_FIELDS = {"name": True, "type": True, "endpoint": True, "kind": False}  # of a seed row, and whether it must be there
_UPSERT = """
    INSERT INTO models (name, type, endpoint, kind, agent) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (name) DO UPDATE
    SET type = excluded.type, endpoint = excluded.endpoint, kind = excluded.kind, agent = excluded.agent
"""


class ModelRow(Struct, frozen=True):
    """One model of the registry; `agent` names the agent that announced it, if one did."""

    name: str
    type: str
    endpoint: str
    kind: str = "api"
    agent: str | None = None


class Replaced(Struct, frozen=True):
    """What became of a provider's rows: now listed, gone, and kept because another type holds the name."""

    inserted: tuple[str, ...]
    removed: tuple[str, ...]
    kept: tuple[ModelRow, ...]


class Registry:
    """The registry inside one store; rows are in order of name. What agents offer is listed, and `agents` changes it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def generation(self) -> int:
        """A number that has grown whenever a row was added, changed or removed since it was last read."""
        with self._store.read() as tx:
            row = tx.row("SELECT value FROM counters WHERE name = 'registry_generation'")
        assert row is not None, "migration 1 makes the counter"
        return int(row[0])

    def list(self) -> tuple[ModelRow, ...]:
        """Every row, and one for each agent that offers a model."""
        with self._store.read() as tx:
            return tuple(ModelRow(*row) for row in tx.rows(_LISTED))

    def rows(self) -> tuple[ModelRow, ...]:
        """Those that people and providers' lists have put in."""
        with self._store.read() as tx:
            return tuple(ModelRow(*row) for row in tx.rows(_ALL))

    def get(self, name: str) -> ModelRow | None:
        with self._store.read() as tx:
            return _get(tx, name)

    def add(self, row: ModelRow) -> Literal["added", "updated", "unchanged"]:
        """Put a row in, in place of any of the same name. Raises `RegistryError` for a bad field."""
        _refuse(problems(row))
        with self._store.write() as tx:
            before = _get(tx, row.name)
            if before == row:
                return "unchanged"
            _put(tx, [row])
        return "updated" if before else "added"

    def remove(self, name: str) -> ModelRow:
        """Take a row out and return it. Raises `RegistryError`, with the nearest name, when there is none."""
        with self._store.write() as tx:
            row = _get(tx, name)
            if row is None:
                offering = tx.row("SELECT agent FROM offers WHERE model = ?", name)
                if offering is not None:
                    mend = "stop that agent, or take it out with `fastroute agents remove`"
                    raise RegistryError(f"model {name!r} is offered by agent {offering[0]!r}; {mend}")
                names = [known for (known,) in tx.rows("SELECT name FROM models")]
                nearest = get_close_matches(name, names, n=1)
                hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
                raise RegistryError(f"model {name!r} is not in the registry{hint}")
            tx.run("DELETE FROM models WHERE name = ?", name)
        return row

    def seed(self, rows: Sequence[ModelRow]) -> int:
        """Put all rows in, or none when one is bad; `RegistryError` then names every mistake by row and field."""
        found = [f"row {index}: {problem}" for index, row in enumerate(rows) for problem in problems(row)]
        _refuse(found + _twice(rows))
        with self._store.write() as tx:
            _put(tx, rows)
        return len(rows)

    def replace_provider(self, type: str, names: Iterable[str], endpoint: str) -> Replaced:  # noqa: A002 (the column's name)
        """Make the rows of one type exactly these names, all at this endpoint.

        Rows of other types are never touched: where one of them holds a listed name it is kept, and reported.
        """
        wanted = {name: ModelRow(name, type, endpoint) for name in names}
        _refuse([problem for row in wanted.values() for problem in problems(row)])
        with self._store.write() as tx:
            there = {row[0]: ModelRow(*row) for row in tx.rows(_ALL)}
            kept = tuple(row for name, row in there.items() if name in wanted and row.type != type)
            removed = [name for name, row in there.items() if row.type == type and name not in wanted]
            for row in kept:
                del wanted[row.name]
            for name in removed:
                tx.run("DELETE FROM models WHERE name = ?", name)
            _put(tx, wanted.values())
        return Replaced(tuple(wanted), tuple(removed), kept)


def rows_from_json(data: bytes) -> tuple[ModelRow, ...]:
    """The rows of a seed file: a list of {name, type, endpoint, kind?}. `RegistryError` names every mistake by row."""
    try:
        items = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise RegistryError(f"a seed file is JSON: {error}") from error
    if not isinstance(items, builtins.list):
        raise RegistryError("a seed file is a list of {name, type, endpoint, kind?}")
    rows: list[ModelRow] = []
    found: list[str] = []
    for index, item in enumerate(items):
        mistakes = _shape(item)
        if not mistakes:
            row = ModelRow(**item)
            rows.append(row)
            mistakes = problems(row)
        found += [f"row {index}: {mistake}" for mistake in mistakes]
    _refuse(found)
    return tuple(rows)


def problems(row: ModelRow) -> list[str]:
    """What is wrong with a row, a sentence for each field."""
    found = []
    if not row.name or not row.name.isprintable() or row.name != row.name.strip():
        found.append(f"name: {row.name!r} is not a name: printable, no space at either end")
    elif len(row.name) > NAME_CHARACTERS_MAX:
        found.append(f"name: {row.name[:40]!r}... is longer than {NAME_CHARACTERS_MAX} characters")
    elif row.name == AUTO:
        found.append(f"name: {AUTO!r} is the route that chooses among models, and no model's name")
    if row.type not in MODEL_TYPES:
        found.append(f"type: {row.type!r} is not one of {', '.join(MODEL_TYPES)}")
    elif row.type in WEIGHT_TYPES and row.endpoint.startswith(("/", "file://")):
        found += _weights_problems(row)
    elif row.type != "dummy" and (problem := _endpoint_problem(row.endpoint)):
        found.append(f"endpoint: {problem}")
    elif not row.endpoint.isprintable():
        found.append(f"endpoint: {row.endpoint!r} is not printable")
    if row.kind not in MODEL_KINDS:
        found.append(f"kind: {row.kind!r} is not one of {', '.join(MODEL_KINDS)}")
    return found


def _endpoint_problem(endpoint: str) -> str | None:
    problem = f"{endpoint!r} is not an http:// or https:// URL"
    if not endpoint.isprintable() or " " in endpoint:
        return problem
    try:
        url = urlsplit(endpoint)
        port = url.port
    except ValueError:
        return problem
    if "@" in url.netloc:
        return "a URL here carries no user or password; keys belong to the provider's settings"
    if url.scheme not in ("http", "https") or not url.hostname or port == 0:
        return problem
    return None


def _weights_problems(row: ModelRow) -> list[str]:
    """What is wrong with a row whose weights are on this machine."""
    found = []
    if not row.endpoint.isprintable():
        found.append(f"endpoint: {row.endpoint!r} is not printable")
    elif row.type == "gguf" and not row.endpoint.endswith(".gguf"):
        found.append(f"endpoint: {row.endpoint!r} is no GGUF file; its name ends in .gguf")
    if row.kind == "api":
        found.append("kind: weights on this machine are of kind weight, not api")
    return found


def _shape(item: Any) -> list[str]:
    if not isinstance(item, dict):
        return [f"is {{name, type, endpoint, kind?}}, not {item!r:.40}"]
    found = [f"{field}: is missing" for field, needed in _FIELDS.items() if needed and field not in item]
    for field, value in item.items():
        if field not in _FIELDS:
            found.append(f"{field}: is not a field; there are {', '.join(_FIELDS)}")
        elif not isinstance(value, str):
            found.append(f"{field}: is text, not {value!r:.40}")
    return found


def _twice(rows: Sequence[ModelRow]) -> list[str]:
    first: dict[str, int] = {}
    return [
        f"row {index}: name: {row.name!r} is already row {first[row.name]}"
        for index, row in enumerate(rows)
        if first.setdefault(row.name, index) != index
    ]


def _refuse(found: list[str]) -> None:
    if found:
        raise RegistryError("\n".join(found))


def _get(tx: Transaction, name: str) -> ModelRow | None:
    row = tx.row(_ONE, name)
    return ModelRow(*row) if row else None


def _put(tx: Transaction, rows: Iterable[ModelRow]) -> None:
    for row in rows:
        tx.run(_UPSERT, row.name, row.type, row.endpoint, row.kind, row.agent)
