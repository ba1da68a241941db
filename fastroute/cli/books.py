"""What commands about money share: where the books are, how the desk is asked, and how answers are printed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
from msgspec import Struct

from fastroute.cli.exits import fail
from fastroute.cli.options import Command, together
from fastroute.config import Config, load
from fastroute.errors import FastrouteError
from fastroute.money import usd_from_microdollars, usd_from_picodollars

if TYPE_CHECKING:
    from fastroute.reaching import Asking


@contextmanager
def told() -> Iterator[None]:
    """Faults of ours become a sentence on stderr and an exit code."""
    try:
        yield
    except FastrouteError as error:
        fail(error)


class Where(Struct, frozen=True):
    """Where the books are, as the options of a command say."""

    config_path: Path | None
    state_dir: str | None
    demo: bool | None = None

    def settings(self) -> Config:
        return load(self.config_path, os.environ, {"state_dir": self.state_dir, "demo": self.demo})

    @contextmanager
    def desk(self) -> Iterator[Asking]:
        """The desk: of the server that runs on this state directory, or of the books themselves when none runs."""
        from fastroute.reaching import reach  # the books and all their desk, which not every command opens

        with told(), reach(self.settings()) as ask:
            yield ask


demo = click.option("--demo", is_flag=True, default=None, help="With the simulated providers.")
located = together(
    "where",
    Where,
    click.option("--config", "config_path", type=click.Path(path_type=Path), help="The fastroute.yaml of the server."),
    click.option("--state-dir", default=None, help="Where the books are kept (default ./data)."),
)


def common(command: Command) -> Command:
    """The options every command about money takes."""
    return located(click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")(command))


def past(text: str, now: datetime, option: str) -> datetime:
    """`7d`, `12h` ago, or an instant that has been."""
    from fastroute.panel import wording  # brings the books along, as above

    if text[-1:] in "smhdw":
        ahead_ms = wording.expiry(text, now) - int(now.timestamp() * 1000)
        return now - timedelta(milliseconds=ahead_ms)
    at = datetime.fromtimestamp(wording.expiry(text, now) / 1000, now.tzinfo)
    if at > now:
        raise click.BadParameter(f"{text} is yet to come", param_hint=option)
    return at


def print_json(value: Any) -> None:
    click.echo(msgspec.json.encode(value).decode())


def amount(unit: str, number: int | None) -> str:
    """A number of a budget as people read it."""
    if number is None:
        return "-"
    return f"${usd_from_microdollars(number)}" if unit == "microdollar" else f"{number:,}"


def table(rows: list[tuple[str, ...]]) -> None:
    """Columns, the first row above them."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def signed_dollars(picodollars: int, plus: str = "") -> str:
    """An exact amount that may be below zero: `-$0.0000345`."""
    sign = "-" if picodollars < 0 else plus
    return f"{sign}${usd_from_picodollars(abs(picodollars))}"


def percent(thousandths: int, of: int) -> str:
    """`thousandths` is 100,000 times the part: one decimal, halves away from zero."""
    tenths, rest = divmod(abs(thousandths), 100 * of)
    tenths += 2 * rest >= 100 * of
    return f"{'-' if thousandths < 0 else ''}{tenths // 10}.{tenths % 10} %"
