"""`fastroute route`: where would this run, and why not elsewhere. Decided here, with no server."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from fastroute.assembly import directory_for, with_demo
from fastroute.cli.exits import fail
from fastroute.clock import SystemClock, iso
from fastroute.config import load
from fastroute.domain import NoCandidate, Placement, Snapshot
from fastroute.errors import FastrouteError
from fastroute.money import usd_from_microdollars
from fastroute.routing.descriptor import RouteRequest, decode_route_request
from fastroute.routing.placement import CHEAPEST, Route, place
from fastroute.routing.record import ENTROPY_BYTES, answer, decision_id

EXAMPLE = (
    b'{"task_class":"extraction","budget_ceiling_microdollars":50000,"latency_tolerance_ms":30000,'
    b'"expected_tokens":{"in":2000,"out":500},"capabilities":["tools"]}'
)


EMPTY = "the catalog is empty: name models in fastroute.yaml, add some with `fastroute models add`, or try --demo"


@click.command("route")
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="The fastroute.yaml to decide with.")
@click.option("--descriptor", default=None, help="A file with the descriptor's JSON, or - for standard input.")
@click.option("--model", default=None, help="A name to route by (auto, an alias, a model); default: the whole catalog.")
@click.option("--state-dir", default=None, help="Where the registry is kept.")
@click.option("--demo", is_flag=True, default=None, help="Among the simulated providers too.")
@click.option("--json", "as_json", is_flag=True, help="Print the body that POST /v1/route would answer.")
def command(
    config_path: Path | None,
    descriptor: str | None,
    model: str | None,
    state_dir: str | None,
    demo: bool | None,
    as_json: bool,
) -> None:
    """Say where a request should run, and why every other candidate will not.

    Without --descriptor an example one is placed. Nothing is sent and nothing is minted.
    """
    try:
        request = decode_route_request(_read(descriptor))
        config = load(config_path, os.environ, {"state_dir": state_dir, "demo": demo})
        config = with_demo(config)
        directory = directory_for(config)
        catalog, route = (
            directory.catalog,
            Route("cheapest", CHEAPEST.ranker, allow_unpriced=config.pricing.allow_unpriced),
        )
        if model is not None:
            target = directory.resolve(model)
            catalog, route = target.catalog, target.route
        snapshot = Snapshot(snapshot_at=iso(SystemClock().now()))
        outcome = place(request.descriptor, catalog, snapshot, route)
    except FastrouteError as error:
        fail(error)
    body = answer(decision_id(secrets.token_bytes(ENTROPY_BYTES)), request, snapshot, outcome)
    if as_json:
        click.echo(msgspec.json.encode(body))
    else:
        _show(request, outcome, body)


def _read(descriptor: str | None) -> bytes:
    if descriptor is None:
        return EXAMPLE
    if descriptor == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(descriptor).read_bytes()
    except OSError as error:
        raise click.BadParameter(f"{descriptor}: {error.strerror}", param_hint="--descriptor") from None


def _show(request: RouteRequest, outcome: Placement | NoCandidate, body: dict[str, Any]) -> None:
    if isinstance(outcome, Placement):
        cost = outcome.cost_microdollars_max
        click.echo(f"placement    {outcome.id} ({outcome.model}, lane {outcome.lane}, {outcome.runtime})")
        click.echo(f"expected     {'unknown' if cost is None else '$' + usd_from_microdollars(cost)}")
    else:
        click.echo("no candidate")
    click.echo(f"reasons      {', '.join(outcome.reasons) or EMPTY}")
    click.echo(f"decision_id  {body['decision_id']}")
    if not outcome.candidates:
        return
    rows = [("candidate", "verdict", "reason", "detail")]
    for verdict in outcome.candidates:
        detail = "" if verdict.detail is None else _plain(verdict.detail)
        rows.append((verdict.id, verdict.verdict, verdict.reason or "", detail))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    click.echo()
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        click.echo("  ".join([*cells, row[3]]).rstrip())


def _plain(detail: object) -> str:
    if isinstance(detail, dict):
        return ", ".join(f"{key} {value}" for key, value in detail.items())
    if isinstance(detail, list):
        return ", ".join(map(str, detail))
    return str(detail)
