"""An answer of `POST /v1/route` as its asker holds it, whichever router gave it.

Routers differ in what they add and where they put it, so reading is lenient; but a placement that cannot be used, or a
budget that is no number, is no answer. Nothing here opens a socket; `client` does.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Struct

from fastroute.errors import FastrouteError
from fastroute.ledger.tokens import masked


class RouteError(FastrouteError):
    """A router could not be asked, or what it answered cannot be used."""


class RouteResponseError(RouteError):
    """What came back is no answer of a router; `detail` says why, and never repeats it, for it may hold a key."""

    kind = "invalid_route_response"

    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__(f"{self.kind}: {detail}")


class Candidate(Struct, frozen=True):
    """What the router made of one entry of its catalog: `chosen`, `ranked`, or `excluded` with a reason and its detail."""

    id: str
    verdict: str | None = None
    reason: str | None = None
    detail: Any = None


class RoutedPlacement(Struct, frozen=True):
    """Where a step shall run; `model` is what to ask the gateway for."""

    model: str
    id: str | None = None
    lane: str | None = None
    runtime: str | None = None
    cost_microdollars_max: int | None = None


class Grant(Struct, frozen=True):
    """Money for one step, and the key it is spent with; a budget of None is no limit. The key is never shown whole."""

    key: str
    expires_at: str | None = None
    budget_microdollars: int | None = None
    id: str | None = None

    def __repr__(self) -> str:
        return (
            f"Grant(key={masked(self.key)}, expires_at={self.expires_at!r}, "
            f"budget_microdollars={self.budget_microdollars}, id={self.id!r})"
        )

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """What pretty printers show instead of the fields."""
        return list({**msgspec.structs.asdict(self), "key": masked(self.key)}.items())


class GrantStatus(Struct, frozen=True):
    """How a grant stands now; `spent + held + remaining` is the limit, and all four are None where there is none."""

    id: str
    state: str
    decision_id: str | None = None
    models: tuple[str, ...] = ()
    expires_at: str | None = None
    limit_microdollars: int | None = None
    spent_microdollars: int | None = None
    held_microdollars: int | None = None
    remaining_microdollars: int | None = None
    resets_at: str | None = None


class RouteResponse(Struct, frozen=True):
    """A placement, with a grant if one was minted, or that nothing fits; the reasons and candidates of either."""

    verdict: Literal["placement", "no_candidate"]
    placement: RoutedPlacement | None = None
    grant: Grant | None = None
    reasons: tuple[str, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    workflow_id: str | None = None
    step_id: str | None = None
    decision_id: str | None = None
    snapshot_at: str | None = None


def decode(text: bytes) -> RouteResponse:
    """An answer from its bytes; `RouteResponseError` when they are none."""
    try:
        body = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        raise RouteResponseError(f"{len(text)} bytes that are no JSON") from None
    return parse(body)


def parse(body: object) -> RouteResponse:
    """An answer from its JSON value; `RouteResponseError` when it is none.

    What is of another type than it should be counts as absent, unless the answer would then say something else. Reasons
    and candidates stand beside the placement or in it; a list beside it wins, an empty one too.
    """
    if not isinstance(body, dict):
        raise RouteResponseError("not a JSON object")
    verdict = body.get("verdict")
    if verdict not in ("placement", "no_candidate"):
        shown = repr(verdict[:40]) if isinstance(verdict, str) else f"a {type(verdict).__name__}"
        raise RouteResponseError(f"the verdict is {shown}, neither placement nor no_candidate")
    within = body.get("placement")
    if not isinstance(within, dict):
        within = {}
    placed = verdict == "placement"
    return RouteResponse(
        verdict,
        placement=_placement(within) if placed else None,
        grant=_grant(body.get("grant")) if placed else None,
        reasons=tuple(each for each in _listed(body, within, "reasons") if isinstance(each, str)),
        candidates=tuple(_candidate(each) for each in _listed(body, within, "candidates") if _named(each)),
        workflow_id=_text(body, "workflow_id"),
        step_id=_text(body, "step_id"),
        decision_id=_text(body, "decision_id"),
        snapshot_at=_text(body, "snapshot_at"),
    )


def decode_status(text: bytes) -> GrantStatus:
    """How a grant stands, from the bytes of `/v1/grants/{id}`; `RouteResponseError` when they do not say."""
    try:
        return msgspec.json.decode(text, type=GrantStatus)
    except (msgspec.DecodeError, RecursionError) as error:
        raise RouteResponseError(f"not the state of a grant: {error}") from None


def _placement(said: dict[str, Any]) -> RoutedPlacement:
    model = _text(said, "model")
    if not model:
        raise RouteResponseError("a placement without a model")
    cost = said.get("cost_microdollars_max")
    return RoutedPlacement(
        model, _text(said, "id"), _text(said, "lane"), _text(said, "runtime"), cost if _is_amount(cost) else None
    )


def _grant(said: object) -> Grant | None:
    """The grant; one without a key is none."""
    if not isinstance(said, dict):
        return None
    key = _text(said, "key")
    if not key:
        return None
    budget = said.get("budget_microdollars")
    # Taking it for absent would make a limited grant an unlimited one.
    if budget is not None and not _is_amount(budget):
        raise RouteResponseError("the budget of the grant is no whole number of microdollars")
    return Grant(key, _text(said, "expires_at"), budget, _text(said, "id"))


def _listed(body: dict[str, Any], within: dict[str, Any], field: str) -> list[Any]:
    for place in (body, within):
        found = place.get(field)
        if isinstance(found, list):
            return found
    return []


def _named(said: object) -> bool:
    return isinstance(said, dict) and bool(_text(said, "id"))


def _candidate(said: dict[str, Any]) -> Candidate:
    return Candidate(said["id"], _text(said, "verdict"), _text(said, "reason"), said.get("detail"))


def _text(said: dict[str, Any], field: str) -> str | None:
    value = said.get(field)
    return value if isinstance(value, str) else None


def _is_amount(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
