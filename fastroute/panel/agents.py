"""Agents at the desk: registered, found, heard of, listed, removed, and forgotten once they are long gone.

Unlike all else here their rows are not the book's: each change is a transaction of its own, made before the answer, and
asked twice it changes nothing more.
"""

from __future__ import annotations

import logging
from typing import Any, Final

import msgspec
from msgspec import Struct

from fastroute.errors import RegistryError
from fastroute.ledger import tokens
from fastroute.ledger.agents import AgentRow, Agents, Announced, NameTaken
from fastroute.ledger.book import Refused
from fastroute.panel.counter import Counter

# An agent of which nothing was heard for so long is forgotten with its models.
GONE_MS: Final = 7 * 86_400_000
# When the house itself was away, everybody has so long to be heard again.
LOOK_MS: Final = 3_600_000

log = logging.getLogger("fastroute.agents")


class Register(Struct, forbid_unknown_fields=True):
    """`owner` is the account of the agent's token, 0 in an open house; `peer` where it speaks from."""

    name: str
    endpoint: str
    models: list[str]
    owner: int
    peer: str
    keyed: bool = False


class Named(Struct, forbid_unknown_fields=True):
    name: str


class All(Struct, forbid_unknown_fields=True):
    pass


def register(counter: Counter, asked: Register) -> dict[str, Any]:
    """The agent as it stands now, with the key that this house will show it if it wants one."""
    agents = _registry(counter)
    before = agents.get(asked.name)
    if before is not None and before.owner != asked.owner and before.owner and _lives(counter, before.owner):
        message = f"an agent with another token is called {asked.name!r}; take another name, or remove that agent"
        raise Refused(409, "agent_name_taken", message, "name")
    said = Announced(
        asked.name, asked.endpoint, tuple(dict.fromkeys(asked.models)), asked.owner, asked.peer, asked.keyed
    )
    try:
        row = agents.register(said, counter.now_ms)
    except NameTaken as error:
        raise Refused(409, "model_name_taken", str(error), "models") from None
    except RegistryError as error:
        raise Refused(400, "invalid_request", str(error)) from None
    if before is None or before.models != row.models or before.endpoint != row.endpoint:
        log.info("agent %s at %s offers %s", row.name, row.endpoint, ", ".join(row.models))
    key = tokens.agent_key(counter.pepper, row.name, row.endpoint) if row.keyed else None
    return {**_shown(row), "key": key}


def find(counter: Counter, asked: Named) -> dict[str, Any]:
    return _shown(_found(counter, asked.name))


def heard(counter: Counter, asked: Named) -> None:
    _found(counter, asked.name)
    _registry(counter).heard(asked.name, counter.now_ms)


def list_(counter: Counter, asked: All) -> list[dict[str, Any]]:
    return [_shown(row) for row in _registry(counter).list()]


def remove(counter: Counter, asked: Named) -> dict[str, Any]:
    row = _found(counter, asked.name)
    _registry(counter).remove(asked.name)
    log.info("agent %s is removed", row.name)
    return _shown(row)


def leave(counter: Counter, owner: int) -> None:
    """A token is no more, and nothing is asked of whoever announced itself with it."""
    if counter.registry is not None:
        for name in counter.registry.leave(owner):
            log.info("agent %s is removed with its token", name)


def forget(counter: Counter, now_ms: int) -> None:
    """Take out who is long gone; looked for once an hour, and not before everybody had the time to be heard."""
    if counter.registry is None or now_ms < counter.agents_look_ms:
        return
    if counter.agents_look_ms:
        for name in counter.registry.forget(now_ms - GONE_MS):
            log.warning("agent %s was not heard of for %d days and is forgotten", name, GONE_MS // 86_400_000)
    counter.agents_look_ms = now_ms + LOOK_MS


def _registry(counter: Counter) -> Agents:
    if counter.registry is None:
        raise Refused(503, "books_unavailable", "no registry is kept here")
    return counter.registry


def _found(counter: Counter, name: str) -> AgentRow:
    row = _registry(counter).get(name)
    if row is None:
        raise Refused(404, "agent_not_found", f"no agent is registered as {name!r}", "name")
    return row


def _lives(counter: Counter, owner: int) -> bool:
    row = counter.book.account(owner)
    return row is not None and counter.standing(row) == "live"


def _shown(row: AgentRow) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(row)
    return {**shown, "models": list(row.models)}
