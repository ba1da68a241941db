"""`fastroute replay`: requests whose content was kept, run again on other models, and the policy that follows from it."""

from __future__ import annotations

import asyncio
import sys
from decimal import Decimal
from typing import Any

import click
import msgspec

from fastroute.cli import books, exits
from fastroute.cli.exits import fail
from fastroute.errors import FastrouteError, MoneyError
from fastroute.judging import decimals
from fastroute.money import microdollars_from_usd, usd_from_microdollars, usd_from_picodollars
from fastroute.policies import PolicyError, UnknownPolicy, to_yaml
from fastroute.receipts.describe import dollars
from fastroute.replaying import ReplayRefused, Report, Skipped, Wanted, replay
from fastroute.weighing import Line

_INTERRUPTED = 130
_SKIPPED_SHOWN = 5


@click.command("replay")
@click.option("-p", "--policy", required=True, help="Whose requests are run again.")
@click.option("--last", default=50, show_default=True, type=click.IntRange(1, 1000), help="How many, of the latest.")
@click.option("--alts", required=True, help="The models they are run on, with commas between them.")
@click.option(
    "--judge",
    is_flag=False,
    flag_value="",
    default=None,
    metavar="[MODEL]",
    help="Score answers too: by their form (or as the policy's quality.judge says), or by this model's opinion.",
)
@click.option("-u", "--user", default=None, help="Whose budgets pay; default: an account of its own, without limits.")
@click.option("--max-cost-usd", "most", default=None, help="Refuse to begin when it might cost more.")
@books.demo
@books.common
def command(
    where: books.Where,
    as_json: bool,
    policy: str,
    last: int,
    alts: str,
    judge: str | None,
    user: str | None,
    most: str | None,
) -> None:
    """Run a policy's latest requests again on other models.

    Only requests whose policy had them kept (`capture: {prompts: true}`) can be; the others are listed as skipped. The
    table has medians of latencies and means of costs, beside what was recorded of the same requests; the policy that
    follows stands below it. Exit codes: 0 ok, 1 it may cost too much, 65 nothing to replay or a bad policy, 69 nobody
    answered, 75 a quota is used up, 78 configuration, 130 interrupted.
    """
    names = tuple(dict.fromkeys(name.strip() for name in alts.split(",") if name.strip()))
    if not names:
        raise click.UsageError("--alts names no model; write them with commas between them")
    wanted = Wanted(policy, last, names, judge, user, _dollars(most))
    progress = _Progress()
    try:
        report = asyncio.run(replay(where.settings(), wanted, progress.say, progress))
    except ReplayRefused as refused:
        for line in _skipped(refused.skipped):
            click.echo(line, err=True)
        click.echo(str(refused), err=True)
        sys.exit(exits.DATA if refused.nothing_kept else exits.FAILED)
    except (PolicyError, UnknownPolicy) as error:
        click.echo(str(error), err=True)
        sys.exit(exits.DATA)
    except FastrouteError as error:
        fail(error)
    if as_json:
        books.print_json(_fields(report))
    else:
        _print(report)
    if report.stopped is not None:
        click.echo(f"stopped early: {report.stopped}", err=True)
        sys.exit(exits.QUOTA if report.exhausted else _INTERRUPTED)
    if not any(line.answered for line in report.alternatives):
        sys.exit(exits.UNAVAILABLE)


def _dollars(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        amount = microdollars_from_usd(text)
    except MoneyError as error:
        raise click.BadParameter(str(error), param_hint="--max-cost-usd") from None
    # What is allowed is never rounded up.
    return amount - 1 if Decimal(amount).scaleb(-6) > Decimal(text) else amount


class _Progress:
    """How far it is, on a terminal alone: in a pipe only what it may cost is said."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()

    def say(self, text: str) -> None:
        click.echo(text, err=True)

    def __call__(self, done: int, total: int, model: str) -> None:
        if not self._shown:
            return
        filled = 24 * done // total
        bar = f"[{'#' * filled}{'-' * (24 - filled)}] {done}/{total} {model}"
        click.echo(f"\r\x1b[K{bar if done < total else ''}", nl=False, err=True)


def _print(report: Report) -> None:
    rows: list[tuple[str, ...]] = [("model", "answered", "latency", "", "cost", "", *_heads(report), "score")]
    rows.extend(_row(line, report) for line in (report.recorded, *report.alternatives))
    books.table(rows)
    for line in report.alternatives:
        if line.failures:
            click.echo(f"{line.model}: " + ", ".join(f"{count} x {why}" for why, count in line.failures.items()))
    for why, count in report.unjudged.items():
        click.echo(f"no score for {count} answer{'' if count == 1 else 's'}: {why}")
    for text in _skipped(report.skipped):
        click.echo(text)
    click.echo()
    what = f"{report.promoted} comes first, clearly better" if report.promoted else "its first model as it was"
    click.echo(f"# the policy that follows: {what}; its backups by measured latency")
    click.echo(to_yaml(report.patch), nl=False)


def _heads(report: Report) -> tuple[str, ...]:
    return () if report.judge is None else ("quality", "")


def _row(line: Line, report: Report) -> tuple[str, ...]:
    is_recorded = line is report.recorded
    cells = [line.model, f"{line.answered}/{line.runs}"]
    cells += ["-" if line.latency_ms is None else f"{line.latency_ms} ms"]
    cells += ["" if is_recorded or line.latency_delta_ms is None else f"{line.latency_delta_ms:+d} ms"]
    cells += ["-" if line.cost_picodollars is None else _money(line.cost_picodollars)]
    cells += ["" if is_recorded else _money_delta(line.cost_delta_picodollars)]
    if report.judge is not None:
        delta = line.quality_delta
        sign = "-" if delta is not None and delta < 0 else "+"
        cells += [decimals(line.quality) or "-"]
        cells += ["" if is_recorded or delta is None else f"{sign}{decimals(abs(delta))}"]
    return (*cells, decimals(line.score) or "-")


def _money(picodollars: int) -> str:
    """A mean, to the tenth of a microdollar: what is finer only says how many there were."""
    return dollars(usd_from_picodollars((picodollars + 50_000) // 100_000 * 100_000))


def _money_delta(delta: int | None) -> str:
    return "" if delta is None else f"{'-' if delta < 0 else '+'}{_money(abs(delta))}"


def _skipped(skipped: tuple[Skipped, ...]) -> list[str]:
    if not skipped:
        return []
    lines = [f"skipped {len(skipped)}:"]
    lines += [f"  {each.receipt}  {each.why}" for each in skipped[:_SKIPPED_SHOWN]]
    if len(skipped) > _SKIPPED_SHOWN:
        lines.append(f"  and {len(skipped) - _SKIPPED_SHOWN} more (--json lists them all)")
    return lines


def _fields(report: Report) -> dict[str, Any]:
    most = report.at_most_microdollars
    return {
        "policy": report.policy,
        "replayed": report.replayed,
        "skipped": msgspec.to_builtins(report.skipped),
        "at_most_usd": None if most is None else usd_from_microdollars(most),
        "judge": report.judge,
        "recorded": _line(report.recorded),
        "alternatives": [_line(line) for line in report.alternatives],
        "promoted": report.promoted,
        "patch": to_yaml(report.patch),
        "unjudged": report.unjudged,
        "stopped": report.stopped,
    }


def _line(line: Line) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(line)
    return {**fields, **{name: decimals(fields[name]) for name in ("quality", "score")}, **_signed(line)}


def _signed(line: Line) -> dict[str, Any]:
    delta = line.quality_delta
    return {"quality_delta": None if delta is None else f"{'-' if delta < 0 else ''}{decimals(abs(delta))}"}
