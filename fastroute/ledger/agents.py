"""Agents in the registry: who announced itself under which name, where it answers, and which models it offers.

Their rows stand apart from the registry's own and never touch them. When an agent was last heard is kept here seldom;
what is routed by is in shared memory (`beats`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from fastroute.errors import RegistryError
from fastroute.ledger.registry import ModelRow, Registry, problems
from fastroute.ledger.sqlite import Store, Transaction

# The table of beats has a place for each; the first is nobody's.
AGENTS_MAX: Final = 1023
OFFERS_MAX: Final = 500
# Of all agents together: with each change every worker makes its directory anew, which takes 16 us for each offer.
OFFERS_ALL_MAX: Final = 5000
NAME_CHARACTERS_MAX: Final = 100
# Names that were offered once; a token that invents names all day fills no disk with them.
REMEMBERED_MAX: Final = 10_000

_SELECT = "SELECT id, name, endpoint, owner, peer, keyed, since_ms, heard_ms FROM agents"


class NameTaken(RegistryError):
    """A name belongs to somebody else, who is told."""


class AgentRow(Struct, frozen=True):
    """One agent; `id` is its place in the table of beats."""

    id: int
    name: str
    endpoint: str
    owner: int = 0  # the account of its token; 0 where nobody needed one
    peer: str = ""  # the address it announced itself from
    keyed: bool = False  # whether it wants to be shown a key by whoever asks it
    since_ms: int = 0  # wall clock
    heard_ms: int = 0  # wall clock, late by minutes
    models: tuple[str, ...] = ()


class Announced(Struct, frozen=True):
    """What an agent says of itself."""

    name: str
    endpoint: str
    models: tuple[str, ...]
    owner: int = 0
    peer: str = ""
    keyed: bool = False


class Agents:
    """The agents inside one store; rows are in order of name."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def list(self) -> tuple[AgentRow, ...]:
        with self._store.read() as tx:
            offers: dict[str, list[str]] = {}
            for agent, model in tx.rows("SELECT agent, model FROM offers ORDER BY agent, model"):
                offers.setdefault(agent, []).append(model)
            return tuple(_row(row, offers.get(row[1], ())) for row in tx.rows(f"{_SELECT} ORDER BY name"))

    def once(self) -> frozenset[str]:
        """Every name that was ever offered, as far as they are remembered."""
        with self._store.read() as tx:
            return frozenset(model for (model,) in tx.rows("SELECT model FROM offered"))

    def get(self, name: str) -> AgentRow | None:
        with self._store.read() as tx:
            return _get(tx, name)

    def register(self, said: Announced, now_ms: int) -> AgentRow:
        """Put an agent in, or in place of itself: it then offers just these models.

        `RegistryError` names every bad field; `NameTaken` a model that is a row of the registry. Whose the agent's own
        name is was for the caller to ask.
        """
        found = announced_problems(said)
        if found:
            raise RegistryError("; ".join(found))
        with self._store.write() as tx:
            for model in said.models:
                row = tx.row("SELECT type FROM models WHERE name = ?", model)
                if row is not None:
                    raise NameTaken(f"model {model!r} is owned by {row[0]}: it is a row of the registry")
            before = _get(tx, said.name)
            offered = set(before.models) if before else set()
            _check_room(tx, said, len(offered))
            place = before.id if before else _free(tx)
            tx.run(
                "INSERT INTO agents (id, name, endpoint, owner, peer, keyed, since_ms, heard_ms) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET heard_ms = excluded.heard_ms",
                place,
                said.name,
                said.endpoint,
                said.owner,
                said.peer,
                said.keyed,
                now_ms,
                now_ms,
            )
            if before is not None and _told(before) != _told(said):
                tx.run(
                    "UPDATE agents SET endpoint = ?, owner = ?, peer = ?, keyed = ? WHERE name = ?",
                    said.endpoint,
                    said.owner,
                    said.peer,
                    said.keyed,
                    said.name,
                )
            tx.many("DELETE FROM offers WHERE agent = ? AND model = ?", _pairs(said.name, offered - {*said.models}))
            tx.many("INSERT INTO offers (agent, model) VALUES (?, ?)", _pairs(said.name, {*said.models} - offered))
            [[remembered]] = tx.rows("SELECT count(*) FROM offered")
            if remembered + len(said.models) <= REMEMBERED_MAX:
                tx.many("INSERT OR IGNORE INTO offered (model) VALUES (?)", [(model,) for model in said.models])
            row_now = _get(tx, said.name)
        assert row_now is not None
        return row_now

    def remove(self, name: str) -> AgentRow | None:
        """Take an agent out with all it offers, and return it; None when there is none."""
        with self._store.write() as tx:
            row = _get(tx, name)
            if row is not None:
                tx.run("DELETE FROM agents WHERE name = ?", name)
        return row

    def leave(self, owner: int) -> tuple[str, ...]:
        """Take out every agent of one token; their names."""
        with self._store.write() as tx:
            gone = tuple(name for (name,) in tx.rows("SELECT name FROM agents WHERE owner = ? ORDER BY name", owner))
            if gone:
                tx.run("DELETE FROM agents WHERE owner = ?", owner)
        return gone

    def heard(self, name: str, now_ms: int) -> None:
        """Note that it lives."""
        with self._store.write() as tx:
            tx.run("UPDATE agents SET heard_ms = ? WHERE name = ?", now_ms, name)

    def forget(self, before_ms: int) -> tuple[str, ...]:
        """Take out who was last heard before an instant; their names."""
        gone = tuple(row.name for row in self.list() if row.heard_ms < before_ms)
        if gone:
            with self._store.write() as tx:
                tx.many("DELETE FROM agents WHERE name = ? AND heard_ms < ?", [(name, before_ms) for name in gone])
        return gone


def announced_problems(said: Announced) -> list[str]:
    """What is wrong with what an agent says of itself, a sentence for each field."""
    found = []
    name = said.name
    if not 0 < len(name) <= NAME_CHARACTERS_MAX or not name.isprintable() or any(letter.isspace() for letter in name):
        found.append(
            f"name: {name[:40]!r} is no name of an agent: 1 to {NAME_CHARACTERS_MAX} printable characters, no blanks"
        )
    if not said.models:
        found.append("models: an agent offers at least one model")
    elif len(said.models) > OFFERS_MAX:
        found.append(f"models: an agent offers at most {OFFERS_MAX} models, not {len(said.models)}")
    for model in dict.fromkeys(said.models):
        found += problems(ModelRow(model, "local", said.endpoint, "weight"))
    return list(dict.fromkeys(found))


class Registered(Struct, frozen=True):
    """All that a directory is made of: rows, agents, and names that agents offered once."""

    rows: tuple[ModelRow, ...] = ()
    agents: tuple[AgentRow, ...] = ()
    once: frozenset[str] = frozenset()


def registered(database: Path) -> Registered:
    """What a registry's file holds; one that was never made holds nothing."""
    if not database.exists():
        return Registered()
    with Store.glance(database) as store:
        agents = Agents(store)
        return Registered(Registry(store).rows(), agents.list(), agents.once())


def _told(row: AgentRow | Announced) -> tuple[str, int, str, bool]:
    return row.endpoint, row.owner, row.peer, row.keyed


def _pairs(agent: str, models: set[str]) -> Sequence[tuple[str, str]]:
    return [(agent, model) for model in sorted(models)]


def _get(tx: Transaction, name: str) -> AgentRow | None:
    row = tx.row(f"{_SELECT} WHERE name = ?", name)
    if row is None:
        return None
    return _row(row, [model for (model,) in tx.rows("SELECT model FROM offers WHERE agent = ? ORDER BY model", name)])


def _row(row: tuple[object, ...], models: Sequence[str]) -> AgentRow:
    number, name, endpoint, owner, peer, keyed, since_ms, heard_ms = row
    return AgentRow(
        int(str(number)), str(name), str(endpoint), int(str(owner)), str(peer), bool(keyed), int(str(since_ms)),
        int(str(heard_ms)), tuple(models),
    )  # fmt: skip


def _check_room(tx: Transaction, said: Announced, before: int) -> None:
    """`RegistryError` for one agent's offers too many; who offers no more than before is never refused."""
    [[others]] = tx.rows("SELECT count(*) FROM offers WHERE agent <> ?", said.name)
    if len(said.models) > before and others + len(said.models) > OFFERS_ALL_MAX:
        message = f"agents offer {others} models already, and {OFFERS_ALL_MAX} can be kept; remove some agents"
        raise RegistryError(f"models: {message}")


def _free(tx: Transaction) -> int:
    """A place in the table of beats: one that was never used if there is any, so that nobody takes an old one's beat."""
    taken = {number for (number,) in tx.rows("SELECT id FROM agents")}
    place = max(taken, default=0) + 1
    if place > AGENTS_MAX:
        place = next((number for number in range(1, AGENTS_MAX + 1) if number not in taken), 0)
    if not place:
        raise RegistryError(f"there are {AGENTS_MAX} agents already, and no more can be kept; remove some")
    return place
