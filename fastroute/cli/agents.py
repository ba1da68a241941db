"""`fastroute agents`: who offers models of its own, how each is, and how to take one out."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import click

from fastroute.assembly import beats_path
from fastroute.beats import Beats
from fastroute.cli import books
from fastroute.clock import iso
from fastroute.config import Config
from fastroute.panel.agents import GONE_MS

# From one beat to the next a quiet agent is not written down; only after so long its row knows less than nothing.
_DAY_MS = 86_400_000


@click.group("agents")
def command() -> None:
    """Agents that announced models of their own to this gateway (`fastroute agent` runs one)."""


@command.command("list")
@books.common
def list_(where: books.Where, as_json: bool) -> None:
    """Every agent: whether it is asked, where it is, what it has to do, and what it offers."""
    with where.desk() as ask:
        found = ask("agents.list")
    config = where.settings()
    shown = told(config, found)
    if as_json:
        books.print_json(shown)
        return
    if not shown:
        click.echo("no agents; start one with: fastroute agent --backend http://127.0.0.1:8080")
        return
    rows: list[tuple[str, ...]] = [("name", "state", "endpoint", "queue", "last heard", "models")]
    rows += [
        (
            each["name"],
            each["state"],
            each["endpoint"],
            "" if each["queue_length"] is None else str(each["queue_length"]),
            _ago(each["silent_s"]) + _until(each["forgotten_at"]),
            ", ".join(each["models"]),
        )
        for each in shown
    ]
    books.table(rows)


@command.command("remove")
@click.argument("name")
@books.common
def remove(where: books.Where, as_json: bool, name: str) -> None:
    """Take an agent out with all it offers; one that still runs announces itself again unless its token is revoked."""
    with where.desk() as ask:
        row = ask("agents.remove", name=name)
    if as_json:
        books.print_json({"name": row["name"], "endpoint": row["endpoint"], "models": row["models"]})
    else:
        click.echo(f"Removed {row['name']}")


def told(config: Config, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Agents as they are now: from the beats that workers share, else from what the books last heard."""
    path = beats_path(config)
    beats = Beats.open(path) if path.exists() else Beats.in_memory()
    mono_ms, wall_ms = time.monotonic_ns() // 1_000_000, time.time_ns() // 1_000_000
    shown = []
    for row in found:
        beat = beats.last(row["id"])
        heard_ms = None if beat is None else beat.silent_ms(mono_ms)
        if beat is not None and heard_ms is not None:
            silent_ms = heard_ms
            fresh = beat.fresh(mono_ms, config.agents.stale_ms)
            state = "draining" if beat.leaving else "ok" if fresh else "stale"
        else:
            silent_ms, state = max(wall_ms - row["heard_ms"], 0), "stale"
        forgotten_ms = wall_ms - silent_ms + GONE_MS
        shown.append(
            {
                "name": row["name"],
                "state": state,
                "endpoint": row["endpoint"],
                "models": row["models"],
                "queue_length": beat.queue if beat is not None and state == "ok" else None,
                "silent_s": silent_ms // 1000,
                "last_heard_at": iso(datetime.fromtimestamp((wall_ms - silent_ms) / 1000, UTC)),
                "forgotten_at": iso(datetime.fromtimestamp(forgotten_ms / 1000, UTC)) if silent_ms > _DAY_MS else None,
            }
        )
    return shown


def _ago(seconds: int) -> str:
    for size, word in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {word} ago"
    return f"{seconds} s ago"


def _until(instant: str | None) -> str:
    return "" if instant is None else f", forgotten {instant[:10]}"
