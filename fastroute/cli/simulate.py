"""`fastroute simulate`: the requests of the past under another policy, and what would have been different."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from fastroute.cli import books
from fastroute.clock import SystemClock
from fastroute.reaching import reach
from fastroute.receipts.describe import dollars

if TYPE_CHECKING:
    from fastroute.evaluation.simulation import Simulation, Times

LAST = 1000

NOTES = (
    "tokens are the recorded ones, priced as the other model is; another model may write more or less",
    "a latency is the other model's own, at the place the recorded one has among its model's",
    "pictures, tools that no rule of auto named, and the caller's own token cap are not recorded: such refusals are missing",
    "where auto's rule is recorded it is taken at its word, so other thresholds change nothing here",
    "max_cost_usd is held against the tokens that were used, where the gateway holds it against the most there can be",
)


@click.command("simulate")
@click.option(
    "--policy", required=True, help="A policy's file (.yaml), or any name that is served: a policy, auto, an alias."
)
@click.option("--last", type=click.IntRange(min=1), help=f"So many of the latest requests; default {LAST}.")
@click.option("--since", help="Those since 7d, 12h ago or an instant such as 2027-01-31T00:00:00Z.")
@books.demo
@books.common
def command(where: books.Where, as_json: bool, policy: str, last: int | None, since: str | None) -> None:
    """Decide recorded requests anew under a policy, and show what it would have changed.

    Nothing is sent. Exit codes: 0 ok, 2 usage, 65 a name nobody has, 74 store, 78 the policy's file or the configuration.
    """
    from fastroute.evaluation.past import recorded
    from fastroute.evaluation.simulation import simulate
    from fastroute.evaluation.targets import trial_of

    if last is not None and since is not None:
        raise click.UsageError("give --last or --since, not both")
    with books.told():
        began = None if since is None else books.past(since, SystemClock().now(), "--since")
        config = where.settings()
        trial = trial_of(config, policy)
        with reach(config) as ask:
            found = recorded(ask, LAST if last is None and began is None else last, began)
        told = simulate(trial.name, trial.target, found)
    if as_json:
        books.print_json(fields(told))
    else:
        _show(told)


def fields(told: Simulation) -> dict[str, Any]:
    """The answer as JSON: money in picodollars and as exact dollars, shares in whole requests."""
    return {
        "policy": told.policy,
        "requests": told.requests,
        "decided": told.decided,
        "moved": told.moved,
        "named_models": told.named,
        "cost": {
            "requests": told.cost_compared,
            "unknown": told.cost_unknown,
            "recorded_picodollars": told.cost_recorded,
            "projected_picodollars": told.cost_projected,
            "delta_picodollars": told.cost_projected - told.cost_recorded,
            "delta_usd": books.signed_dollars(told.cost_projected - told.cost_recorded),
            "discarded_picodollars": told.discarded,
        },
        "latency": {
            "requests": told.latency_compared,
            "unknown": told.latency_unknown,
            "recorded": _times(told.latency_recorded),
            "projected": _times(told.latency_projected),
        },
        "refusals": {"recorded": told.refused_before, "projected": told.refusals, "by_reason": told.refused},
        "models": {"recorded": told.models_recorded, "projected": told.models_projected},
        "steps": {
            "decided": told.steps.decided,
            "placed_recorded": told.steps.placed_before,
            "placed_projected": told.steps.placed,
            "moved": told.steps.moved,
        },
        "not_decided": told.skipped,
        "notes": list(NOTES),
        "decisions": told.decisions,
        "decisions_per_second": told.decisions_per_second,
    }


def _times(times: Times | None) -> dict[str, int] | None:
    return None if times is None else {"mean_ms": times.mean_ms, "p50_ms": times.p50_ms, "p95_ms": times.p95_ms}


def _show(told: Simulation) -> None:
    if not told.requests and not told.steps.decided:
        click.echo("nothing is recorded; requests are, once a server has books (any `fastroute serve`)")
        return
    rows: list[tuple[str, ...]] = [("", "recorded", "projected", "change")]
    before, after = told.cost_recorded, told.cost_projected
    share = f" ({books.percent((after - before) * 100_000, before)})" if before else ""
    change = books.signed_dollars(after - before, "+") + share
    rows.append(("cost", books.signed_dollars(before), books.signed_dollars(after), change))
    was, would = told.latency_recorded, told.latency_projected
    if was is not None and would is not None:
        for name, one, other in (
            ("mean latency", was.mean_ms, would.mean_ms),
            ("p50 latency", was.p50_ms, would.p50_ms),
            ("p95 latency", was.p95_ms, would.p95_ms),
        ):
            rows.append((name, f"{one:,} ms", f"{other:,} ms", f"{other - one:+,} ms"))
    why = ", ".join(f"{name} {count:,}" for name, count in told.refused.items())
    rows.append(("refused", f"{told.refused_before:,}", f"{told.refusals:,}", why))
    click.echo(f"{told.decided:,} of {told.requests:,} requests under {told.policy}; {told.moved:,} would have moved")
    books.table(rows)
    click.echo()
    models: list[tuple[str, ...]] = [("model", "recorded", "projected")]
    for name in dict.fromkeys((*told.models_recorded, *told.models_projected)):
        counts = (told.models_recorded.get(name, 0), told.models_projected.get(name, 0))
        models.append((name, *(f"{n:,} ({books.percent(n * 100_000, told.decided)})" for n in counts)))
    books.table(models)
    click.echo()
    if told.steps.decided:
        steps = told.steps
        click.echo(
            f"steps        {steps.decided:,} decisions of /v1/route: {steps.placed_before:,} placed then, "
            f"{steps.placed:,} now, {steps.moved:,} on another model"
        )
    _show_unknown(told)
    click.echo(
        f"speed        {told.decisions:,} decisions in {told.decision_ns / 1e6:.1f} ms of CPU, {told.decisions_per_second:,}/s"
    )


def _show_unknown(told: Simulation) -> None:
    from fastroute.evaluation.past import SKIPPED

    for why, count in told.skipped.items():
        click.echo(f"not decided  {count:,}: {SKIPPED[why]}")
    if told.named:
        click.echo(
            f"named        {told.named:,} asked for one model by its name; here they go by the policy like the others"
        )
    for what, count in (("cost", told.cost_unknown), ("latency", told.latency_unknown)):
        if count:
            click.echo(
                f"unknown      the {what} of {count:,} requests is not known on both sides; they are in neither sum"
            )
    if told.discarded:
        click.echo(
            f"discarded    {dollars(books.signed_dollars(told.discarded)[1:])} went to answers nobody read; in neither sum"
        )
    for note in NOTES:
        click.echo(f"note         {note}")
