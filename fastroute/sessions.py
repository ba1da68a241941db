"""From a routed step to a session: the granted key and the router's address where a client reads them, a guard for
between the turns, and the names under which everything can be found again.
"""

from __future__ import annotations

import secrets
from typing import Any

import msgspec
from msgspec import Struct

from fastroute import guard
from fastroute.domain import Price
from fastroute.guard import Guard
from fastroute.ledger.tokens import masked
from fastroute.routed import RouteError, RouteResponse

Metadata = dict[str, str | None]


class SessionError(RouteError):
    """A route response has nothing to begin a session with."""


class ModelConfig(Struct, frozen=True):
    """What a client of a model is made with; the key is never shown whole.

    `base_url` is the router's own, as it was given: OpenAI's clients want `/v1` behind it, Anthropic's do not.
    """

    model: str
    api_key: str
    base_url: str | None
    metadata: Metadata

    def __repr__(self) -> str:
        return (
            f"ModelConfig(model={self.model!r}, api_key={masked(self.api_key)}, "
            f"base_url={self.base_url!r}, metadata={self.metadata!r})"
        )

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """What pretty printers show instead of the fields."""
        return list({**msgspec.structs.asdict(self), "api_key": masked(self.api_key)}.items())


class Session(Struct, frozen=True):
    """What one routed step runs with."""

    model_config: ModelConfig
    turn_guard: Guard
    telemetry_metadata: Metadata


def session(
    response: RouteResponse,
    *,
    base_url: str | None = None,
    request_id: str | None = None,
    caps: Guard | None = None,
    price: Price | None = None,
) -> Session:
    """The session of a routed step; `SessionError` now, rather than in mid-session, when there is no placement or grant.

    `base_url` is the router's (`client.base_url`); None is for runtimes that do not go through it, which only
    the guard holds to the budget. A `request_id` of its own is made when none is given. `caps` are checked before the
    grant's budget, and `price` is what the guard reckons with instead of the shipped table.
    """
    placement, grant = response.placement, response.grant
    if placement is None:
        why = ", ".join(response.reasons) or "no reason given"
        raise SessionError(f"the route response has no placement ({response.verdict}: {why}; {response.decision_id})")
    if grant is None:
        raise SessionError(f"the route response has no grant, or one without a key ({response.decision_id})")
    metadata: Metadata = {
        "request_id": request_id or f"req_route_{secrets.token_urlsafe(12)}",
        "decision_id": response.decision_id,
        "workflow_id": response.workflow_id,
        "step_id": response.step_id,
    }
    return Session(
        ModelConfig(placement.model, grant.key, base_url, metadata),
        guard.for_grant(grant, placement.model, caps, price=price),
        dict(metadata),
    )
