"""A comparison as `fastroute eval` prints it: tables and results as text, or everything as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec

from fastroute.cli import books

if TYPE_CHECKING:
    from fastroute.evaluation.answers import Answer, Key
    from fastroute.evaluation.bootstrap import Interval
    from fastroute.evaluation.prompts import PromptSet
    from fastroute.evaluation.report import Report, Side


def fields(told: Report, prompts: PromptSet, answers: dict[Key, Answer]) -> dict[str, Any]:
    """The report, and under it every prompt with both answers and whether they were right."""

    def answered(name: str, prompt: Any) -> dict[str, Any] | None:
        answer = answers.get((name, prompt.digest))
        if answer is None:
            return None
        right = None if prompt.expect is None else answer.text is not None and prompt.expect.met(answer.text)
        return {**msgspec.to_builtins(answer), "right": right}

    whole: dict[str, Any] = msgspec.to_builtins(told)
    whole["prompts"] = [
        {
            "id": prompt.id,
            "category": prompt.category,
            "split": prompt.split,
            "messages": prompt.messages,
            "expect": prompt.expect,
            "policy": answered(told.policy, prompt),
            "baseline": answered(told.baseline, prompt),
        }
        for prompt in prompts.prompts
    ]
    return whole


def show(told: Report) -> None:
    """The tables and the results, as text."""
    rows: list[tuple[str, ...]] = [
        ("policy", "model", "reason", "requests", "tokens_in", "tokens_out", "latency_ms", "cost_usd")
    ]
    for line in told.lines:
        numbers = (f"{n:,}" for n in (line.requests, line.tokens_in, line.tokens_out, line.latency_ms))
        rows.append((line.policy, line.model, line.reason, *numbers, books.signed_dollars(line.picodollars)[1:]))
    books.table(rows)
    click.echo()
    rows = [("category", "asked", "prompts", "models", "right", "mean ms", "p95 ms", "cost")]
    for row in (*told.rows, told.total) if len(told.rows) > 1 else (told.total,):
        for name, side, label in ((told.policy, row.policy, row.category), (told.baseline, row.baseline, "")):
            rows.append((label, name, f"{side.prompts:,}", *_cells(side)))
    books.table(rows)
    click.echo()
    _results(told)
    for warning in told.warnings:
        click.echo(f"note      {warning}")


def _cells(side: Side) -> tuple[str, ...]:
    models = ", ".join(
        f"{model} {books.percent(count * 100_000, side.answered)}" for model, count in side.models.items()
    )
    right = (
        f"{side.right}/{side.checked} ({books.percent(side.right * 100_000, side.checked)})" if side.checked else "-"
    )
    times = ("-" if ms is None else f"{ms:,}" for ms in (side.mean_ms, side.p95_ms))
    return (models or "none", right, *times, books.signed_dollars(side.picodollars))


def _results(told: Report) -> None:
    ours, theirs = told.total.policy, told.total.baseline
    for name, side in ((told.policy, ours), (told.baseline, theirs)):
        click.echo(
            f"cost      {name}: {books.signed_dollars(side.picodollars)}, {side.answered:,} answered, "
            f"{side.failed:,} failed, {side.fallbacks:,} fallbacks"
            + (f", {side.missing:,} missing" if side.missing else "")
            + (f", {side.cost_unknown:,} at an unknown cost" if side.cost_unknown else "")
        )
    money, share = told.savings, told.savings_share
    if money is None or share is None:
        click.echo("savings   nothing to compare: no prompt was answered by both at a known cost above zero")
    else:
        click.echo(
            f"savings   {_dollars(money)}; {_percent(share, '%')}; "
            f"95 % intervals over {told.savings_pairs} prompts, seed {told.seed}"
        )
    if told.quality is None:
        click.echo("quality   not measured: no prompt says what is expected")
    else:
        click.echo(
            f"quality   {_percent(told.quality, 'points')} right answers against {told.baseline}, "
            f"over {told.quality_pairs} prompts"
        )


def _dollars(found: Interval) -> str:
    low, high = (books.signed_dollars(end) for end in (found.low, found.high))
    return f"{books.signed_dollars(found.value)} ({low} to {high})"


def _percent(found: Interval, unit: str) -> str:
    value, low, high = (books.percent(end, 1).removesuffix(" %") for end in (found.value, found.low, found.high))
    return f"{value} {unit} ({low} to {high})"
