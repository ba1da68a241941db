"""`fastroute usage`: what somebody used, has on hold and has left, and when that begins anew."""

from __future__ import annotations

import click

from fastroute.cli import books


@click.command("usage")
@click.option("-u", "--user", "name", required=True, help="A key, agent or user, by name or id.")
@click.option("--days", default=31, show_default=True, help="How far back days and models are told.")
@books.common
def command(where: books.Where, as_json: bool, name: str, days: int) -> None:
    """What a key or user has used and has left."""
    with where.desk() as ask:
        found = ask("usage.show", id=name, days=days)
    if as_json:
        books.print_json(found)
        return
    click.echo(f"{found['name']} ({found['id']})")
    if not found["budgets"]:
        click.echo("not limited")
    for budget in found["budgets"]:
        unit = budget["unit"]
        what = {"microdollar": "money", "token": "tokens", "request": "requests"}[unit]
        owner = "" if budget["owner"] == found["id"] else f" of {budget['owner']}"
        click.echo(f"{what}{owner}, {budget['window']} {budget['window_name']}".rstrip())
        for field in ("limit", "used", "held", "remaining"):
            click.echo(f"  {field:<10} {books.amount(unit, budget[field])}")
        if budget["resets_at"]:
            click.echo(f"  {'resets':<10} {budget['resets_at']}")
    if found["by_model"]:
        click.echo()
        rows: list[tuple[str, ...]] = [("model", "requests", "input", "output", "cost")]
        for each in found["by_model"]:
            numbers = (f"{each[field]:,}" for field in ("requests", "input_tokens", "output_tokens"))
            rows.append(
                (each["model"] or "(nobody asked)", *numbers, books.amount("microdollar", each["microdollars"]))
            )
        books.table(rows)
