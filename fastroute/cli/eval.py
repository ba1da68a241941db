"""`fastroute eval`: a set of prompts asked of a policy and of a baseline, and what the difference is worth."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
import msgspec

from fastroute.cli import books, comparison, exits
from fastroute.errors import FastrouteError
from fastroute.money import microdollars_from_usd, usd_from_microdollars

if TYPE_CHECKING:
    from fastroute.evaluation.answers import Answer, Record
    from fastroute.evaluation.prompts import PromptSet
    from fastroute.evaluation.running import Ran

INTERRUPTED = 130


class Refused(FastrouteError):
    """The run is not made: what it may cost is above what may be spent, or nobody can tell."""


@click.command("eval")
@click.option(
    "--prompts", "path", type=click.Path(path_type=Path), help="One JSON object a line; default: the shipped set."
)
@click.option(
    "--policy",
    default="auto",
    show_default=True,
    help="What is tried: a name that is served, or a policy's file (.yaml).",
)
@click.option("--baseline", help="What it is compared with; default: the dearest model the policy may choose.")
@click.option("--url", envvar="FASTROUTE_URL", help="Ask this server instead of the providers.")
@click.option("--key", envvar="FASTROUTE_API_KEY", help="The key for --url.")
@click.option("--limit", type=click.IntRange(min=1), help="So many prompts only, spread over the set.")
@click.option(
    "--concurrency", type=click.IntRange(1, 256), default=8, show_default=True, help="Requests at the same time."
)
@click.option(
    "--record", type=click.Path(path_type=Path), help="Append answers to this file, and ask for none that is in it."
)
@click.option("--recorded", type=click.Path(path_type=Path), help="Ask nobody: the answers of this file.")
@click.option(
    "--json",
    "json_to",
    is_flag=False,
    flag_value="-",
    metavar="[FILE]",
    help="Everything as JSON, on standard output or to a file.",
)
@click.option("--picture", type=click.Path(path_type=Path), help="Cost against quality and the savings, as an .svg.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=1, show_default=True, help="Of the resampling.")
@click.option("--max-cost-usd", default="1.00", show_default=True, help="Refuse a run that may cost more.")
@books.demo
@books.located
def command(**given: Any) -> None:
    """Compare a policy with a baseline over prompts whose answers can be checked.

    Exit codes: 0 ok, 1 it may cost too much, 2 usage, 65 the prompts, the record or a name, 69 nobody answers, 74 store,
    78 configuration, 130 interrupted (with --record, the same command goes on).
    """
    from fastroute.evaluation.answers import RecordError
    from fastroute.evaluation.asking import Stopped
    from fastroute.evaluation.prompts import PromptSetError
    from fastroute.evaluation.running import Unreachable
    from fastroute.evaluation.targets import NothingToTry

    if given["record"] is not None and given["recorded"] is not None:
        raise click.UsageError("give --record or --recorded, not both")
    if given["picture"] is not None and given["picture"].suffix != ".svg":
        raise click.BadParameter(f"{given['picture']}: a picture is an .svg", param_hint="--picture")
    try:
        code = _evaluate(given)
    except (Stopped, KeyboardInterrupt):
        _end("interrupted" + ("; the same command goes on" if given["record"] is not None else ""), INTERRUPTED)
    except (PromptSetError, RecordError, NothingToTry) as error:
        _end(str(error), exits.DATA)
    except Unreachable as error:
        _end(str(error), exits.UNAVAILABLE)
    except FastrouteError as error:
        exits.fail(error)
    sys.exit(code)


def _end(message: str, code: int) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(code)


def _evaluate(given: dict[str, Any]) -> int:
    from fastroute.evaluation.answers import Record, read_answers
    from fastroute.evaluation.picture import picture
    from fastroute.evaluation.prompts import read_prompts
    from fastroute.evaluation.report import report
    from fastroute.evaluation.running import Ran

    most = microdollars_from_usd(given["max_cost_usd"])
    prompts = read_prompts(given["path"]).some(given["limit"])
    names, asking = _ways(given)
    if given["recorded"] is not None:
        ran = Ran(read_answers(given["recorded"]), 0)
    else:
        record = None if given["record"] is None else Record(given["record"])
        try:
            ran = asking(prompts, names, record, most)
        finally:
            if record is not None:
                record.close()
    told = report(prompts, ran.answers, *names, given["seed"], ran.unasked)
    if given["picture"] is not None:
        _write(given["picture"], picture(told).encode())
    if given["json_to"] is not None:
        raw = msgspec.json.encode(comparison.fields(told, prompts, ran.answers)) + b"\n"
        if given["json_to"] == "-":
            sys.stdout.buffer.write(raw)
        else:
            _write(Path(given["json_to"]), raw)
    if given["json_to"] != "-":
        comparison.show(told)
    for name, side in ((told.policy, told.total.policy), (told.baseline, told.total.baseline)):
        if not side.answered:
            errors = sorted({answer.error for answer in ran.answers.values() if answer.asked == name and answer.error})
            said = f": {'; '.join(errors[:3])}" if errors else ""
            click.echo(f"{name} answered nothing; {side.failed} requests failed{said}", err=True)
            return exits.UNAVAILABLE
    return exits.OK


Asking = Callable[["PromptSet", tuple[str, str], "Record | None", int], "Ran"]


def _ways(given: dict[str, Any]) -> tuple[tuple[str, str], Asking]:
    """The two names, and how they are asked."""
    from fastroute.evaluation.targets import baseline_of, trial_of

    policy, baseline = given["policy"], given["baseline"]
    concurrency = given["concurrency"]
    if given["url"] is not None:
        if baseline is None:
            if policy != "auto":
                raise click.UsageError(
                    "name what to compare with, with --baseline: what a server's policy may choose is not known here"
                )
            baseline = "medium"
        _differ(policy, baseline)

        def far(prompts: PromptSet, names: tuple[str, str], record: Record | None, most: int) -> Ran:
            from fastroute.cli.remote import Server

            click.echo(
                f"what a server will cost is not known beforehand; asking ends at ${usd_from_microdollars(most)}",
                err=True,
            )
            return asyncio.run(_far(Server(given["url"], given["key"]), prompts, names, record, concurrency, most))

        return (policy, baseline), far
    trial = trial_of(given["where"].settings(), policy)
    if baseline is None:
        baseline = baseline_of(trial)
    trial.directory.resolve(baseline)
    _differ(trial.name, baseline)

    def near(prompts: PromptSet, names: tuple[str, str], record: Record | None, most: int) -> Ran:
        return asyncio.run(_near(trial, prompts, names, record, concurrency, most))

    return (trial.name, baseline), near


def _differ(policy: str, baseline: str) -> None:
    if policy == baseline:
        raise click.UsageError(f"{policy} would be compared with itself; give another --baseline")


async def _far(
    server: Any, prompts: PromptSet, names: tuple[str, str], record: Record | None, concurrency: int, most: int
) -> Ran:
    async with server:
        return await _run(server, prompts, names, record, concurrency, most * 1_000_000)


async def _near(
    trial: Any, prompts: PromptSet, names: tuple[str, str], record: Record | None, concurrency: int, most: int
) -> Ran:
    from fastroute.evaluation.asking import asking

    async with asking(trial) as asker:
        known = {} if record is None else record.answers
        missing = [
            (name, [prompt for prompt in prompts.prompts if not _is_good(known.get((name, prompt.digest)))])
            for name in names
        ]
        bounds = [asker.bound((name,), some) for name, some in missing]
        unpriced = tuple(dict.fromkeys(name for bound in bounds for name in bound.unpriced))
        if unpriced:
            raise Refused(
                f"nobody knows what {', '.join(unpriced)} costs; give it a price, or set pricing.allow_unpriced if it is free"
            )
        total = sum(bound.microdollars for bound in bounds)
        asked = sum(len(some) for _, some in missing)
        click.echo(f"{asked} requests, at most ${usd_from_microdollars(total)} in all", err=True)
        if total > most:
            raise Refused(
                f"that is above ${usd_from_microdollars(most)}; raise --max-cost-usd, or ask fewer with --limit"
            )
        return await _run(asker, prompts, names, record, concurrency, None)


def _is_good(answer: Answer | None) -> bool:
    return answer is not None and answer.good


async def _run(
    asker: Any, prompts: PromptSet, names: tuple[str, str], record: Record | None, concurrency: int, most: int | None
) -> Ran:
    from fastroute.evaluation.running import run

    progress = _Progress()
    try:
        return await run(
            prompts.prompts,
            names,
            asker,
            known={} if record is None else record.answers,
            concurrency=concurrency,
            limit_picodollars=most,
            keep=_forget if record is None else record.add,
            tick=progress.tick,
        )
    finally:
        progress.end()


def _forget(answer: Answer) -> None:
    """Nobody asked for a record."""


class _Progress:
    """A bar, on a terminal only."""

    _WIDTH = 30

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._open = False

    def tick(self, done: int, total: int) -> None:
        if self._shown and total:
            full = self._WIDTH * done // total
            click.echo(f"\r[{'#' * full}{'.' * (self._WIDTH - full)}] {done}/{total}", nl=False, err=True)
            self._open = True

    def end(self) -> None:
        if self._open:
            click.echo(err=True)
            self._open = False


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise click.FileError(str(path), error.strerror or "cannot be written") from None
