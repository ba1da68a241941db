"""`fastroute keys`: virtual keys with their budgets and limits. A key is shown once, when it is made."""

from __future__ import annotations

from typing import Any

import click

from fastroute.cli import books
from fastroute.clock import SystemClock
from fastroute.panel import wording

_PAGE = 1000


@click.group("keys")
def command() -> None:
    """Keys that callers send, each with what it may spend."""


def _limits(function: Any) -> Any:
    for option in (
        click.option("--budget-usd", help="What it may spend, in dollars: 12.50."),
        click.option("--budget-microdollars", type=int, help="The same in microdollars; 0 is closed."),
        click.option("--rpm", type=int, help="Requests in any 60 seconds."),
        click.option("--tpm", type=int, help="Tokens in any 60 seconds."),
        click.option("--concurrency", type=int, help="Requests at the same time."),
        click.option("--daily-tokens", type=int, help="Tokens a day, until midnight in the key's time zone."),
        click.option("--models", help="The names it may ask for, with commas between; default all."),
        click.option(
            "--prefer",
            type=click.Choice(["cost", "latency"]),
            help="Rank the models of auto, of aliases and of policies that leave it open by price, or by latency.",
        ),
        click.option("--expires", help="30d, 12h or an instant such as 2027-01-31T00:00:00Z."),
    ):
        function = option(function)
    return function


@command.command("create")
@click.option("--name", required=True, help="What people call it; no two live keys share one.")
@click.option("--kind", type=click.Choice(["key", "agent", "user"]), default="key", show_default=True)
@click.option(
    "--window", type=click.Choice(["total", "daily", "monthly"]), help="What the budget is for; default total."
)
@click.option("--timezone", help="Where its days and months turn, such as Europe/Berlin (default UTC).")
@click.option("--parent", help="Another key, whose budgets it draws on as well.")
@click.option("--provider", help="Of an agent: the provider whose key it may fetch.")
@_limits
@books.common
def create(where: books.Where, as_json: bool, **given: Any) -> None:
    """Make a key and print it, once."""
    with where.desk() as ask:
        provider = given.pop("provider")
        if provider is not None:
            given["metadata"] = {"provider": provider}
        made = ask("keys.create", **_fields(given))
    if as_json:
        books.print_json(made)
        return
    if "key" in made:
        click.echo(made["key"])
        click.echo(f"{made['id']} is made. Keep the key now: it is not stored and cannot be shown again.", err=True)
    else:
        click.echo(made["id"])


@command.command("list")
@click.option("--kind", "kinds", multiple=True, type=click.Choice(["key", "agent", "user", "grant", "lease"]))
@click.option("--all", "everything", is_flag=True, help="Revoked ones too.")
@books.common
def list_(where: books.Where, as_json: bool, kinds: tuple[str, ...], everything: bool) -> None:
    """Every key with what it has left."""
    with where.desk() as ask:
        asked = {"kinds": list(kinds or ("key", "agent", "user")), "live": not everything, "limit": _PAGE}
        found = page = ask("keys.list", **asked)
        while len(page) == _PAGE:
            page = ask("keys.list", **asked, after=page[-1]["id"])
            found += page
    if as_json:
        books.print_json(found)
        return
    if not found:
        click.echo("no keys; make one with: fastroute keys create --name NAME --budget-usd 10")
        return
    rows: list[tuple[str, ...]] = [("id", "name", "state", "key", "limit", "used", "left")]
    for each in found:
        own = [budget for budget in each["budgets"] if budget["owner"] == each["id"]] or [None]
        for place, budget in enumerate(own):
            first = (each["id"], each["name"], each["state"], each["hint"]) if place == 0 else ("", "", "", "")
            rows.append((*first, *_budget(budget)))
    books.table(rows)


@command.command("show")
@click.argument("key")
@books.common
def show(where: books.Where, as_json: bool, key: str) -> None:
    """One key, by its id or name."""
    with where.desk() as ask:
        found = ask("keys.show", id=key)
    _print(found, as_json)


@command.command("change")
@click.argument("key")
@_limits
@click.option("--no-budget", is_flag=True, help="Take the limit of money away.")
@click.option("--no-preference", is_flag=True, help="Rank as names and policies say.")
@books.common
def change(where: books.Where, as_json: bool, key: str, no_budget: bool, no_preference: bool, **given: Any) -> None:
    """Give a key other limits; they hold at once."""
    with where.desk() as ask:
        changes = _fields(given)
        if no_budget:
            changes["budget_microdollars"] = None
        if no_preference:
            changes["prefer"] = None
        found = ask("keys.change", id=key, changes=changes)
    _print(found, as_json)


@command.command("rotate")
@click.argument("key")
@click.option("--grace", default="0s", show_default=True, help="How long the old one stays good: 0s, 30m, 24h, 7d.")
@books.common
def rotate(where: books.Where, as_json: bool, key: str, grace: str) -> None:
    """Give a key a new secret; the old one stays good for a while."""
    now = SystemClock().now()
    with where.desk() as ask:
        grace_ms = wording.expiry(grace, now) - int(now.timestamp() * 1000)
        made = ask("keys.rotate", id=key, grace_ms=grace_ms)
    if as_json:
        books.print_json(made)
    else:
        click.echo(made["key"])


@command.command("revoke")
@click.argument("key")
@books.common
def revoke(where: books.Where, as_json: bool, key: str) -> None:
    """End a key for good, with all grants and keys under it."""
    with where.desk() as ask:
        found = ask("keys.revoke", id=key)
    _print(found, as_json)


def _fields(given: dict[str, Any]) -> dict[str, Any]:
    words = {name: value for name, value in given.items() if value is not None}
    if "models" in words:
        words["models"] = [name.strip() for name in words["models"].split(",") if name.strip()]
    return wording.key_fields(words, SystemClock().now())


def _budget(budget: dict[str, Any] | None) -> tuple[str, str, str]:
    if budget is None:
        return ("none", "", "")
    unit = budget["unit"]
    limit = f"{books.amount(unit, budget['limit'])} {'' if unit == 'microdollar' else 'tokens '}{budget['window']}"
    return (limit, books.amount(unit, budget["used"]), books.amount(unit, budget["remaining"]))


def _print(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        books.print_json(found)
        return
    for field in (
        "id",
        "kind",
        "name",
        "hint",
        "state",
        "created_at",
        "expires_at",
        "parent",
        "rpm",
        "tpm",
        "concurrency",
        "prefer",
    ):
        if found[field] not in (None, ""):
            click.echo(f"{field:<12} {found[field]}")
    click.echo(f"{'models':<12} {', '.join(found['models']) or 'all'}")
    for name, value in found["metadata"].items():
        click.echo(f"{'metadata':<12} {name}={value}")
    if not found["budgets"]:
        click.echo(f"{'budget':<12} none: not limited")
    for budget in found["budgets"]:
        limit, used, left = _budget(budget)
        owner = "" if budget["owner"] == found["id"] else f" of {budget['owner']}"
        held = books.amount(budget["unit"], budget["held"])
        resets = f", resets {budget['resets_at']}" if budget["resets_at"] else ""
        click.echo(f"{'budget':<12} {limit}{owner}: used {used}, held {held}, left {left}{resets}")
