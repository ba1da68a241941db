"""What a run says of a policy and its baseline: sums, shares, accuracies, savings and how sure they are.

Nothing is left out in silence. A failed answer is a wrong one, and what it cost is in the sums; savings compare prompts
that both sides answered at a known cost, and how many were not so is told. Prompts that the rules were tuned on stand in
a row of their own and in no total.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from msgspec import Struct

from fastroute.evaluation.answers import Answer, Key
from fastroute.evaluation.bootstrap import Interval, intervals, mean_difference
from fastroute.evaluation.prompts import Prompt, PromptSet
from fastroute.lanes.latency import quantile

TUNING: Final = "(tuning)"


class Side(Struct, frozen=True):
    """One name over some prompts; money in picodollars, latency of the answers in milliseconds."""

    prompts: int
    answered: int
    failed: int
    missing: int  # neither asked nor recorded
    fallbacks: int
    checked: int  # prompts with an expected answer that were asked
    right: int
    picodollars: int
    cost_unknown: int
    tokens_in: int
    tokens_out: int
    mean_ms: int | None
    p95_ms: int | None
    models: dict[str, int]  # that answered


class Row(Struct, frozen=True):
    """Both sides over the prompts of one category."""

    category: str
    policy: Side
    baseline: Side


class Line(Struct, frozen=True):
    """The requests of one side that one model answered for one reason."""

    policy: str
    model: str
    reason: str
    requests: int
    tokens_in: int
    tokens_out: int
    latency_ms: int  # mean
    picodollars: int


class Report(Struct, frozen=True):
    """The whole comparison; intervals are 95 %, of paired resamples under the seed."""

    policy: str
    baseline: str
    source: str
    seed: int
    lines: tuple[Line, ...]
    rows: tuple[Row, ...]
    total: Row
    savings: Interval | None  # picodollars
    savings_share: Interval | None  # thousandths of a percent of the baseline's cost
    savings_pairs: int
    quality: Interval | None  # percentage points in thousandths, the policy's above the baseline's
    quality_pairs: int
    warnings: tuple[str, ...]


def report(
    prompts: PromptSet, answers: Mapping[Key, Answer], policy: str, baseline: str, seed: int, unasked: int = 0
) -> Report:
    """The comparison of what was answered."""
    tuning = [prompt for prompt in prompts.prompts if prompt.split == "tuning"]
    counted = [prompt for prompt in prompts.prompts if prompt.split != "tuning"] or tuning
    categories: dict[str, list[Prompt]] = {}
    for prompt in counted:
        categories.setdefault(prompt.category, []).append(prompt)
    if tuning and counted is not tuning:
        categories[TUNING] = tuning

    def row(category: str, some: Sequence[Prompt]) -> Row:
        return Row(category, _side(some, answers, policy), _side(some, answers, baseline))

    costs: list[tuple[int, int]] = []
    marks: list[tuple[int, int]] = []
    for prompt in counted:
        ours, theirs = answers.get((policy, prompt.digest)), answers.get((baseline, prompt.digest))
        if ours is None or theirs is None:
            continue
        if ours.good and theirs.good and ours.picodollars is not None and theirs.picodollars is not None:
            costs.append((theirs.picodollars, ours.picodollars))
        if prompt.expect is not None:
            marks.append((_right(prompt, theirs), _right(prompt, ours)))
    savings = intervals(costs, seed)
    return Report(
        policy=policy,
        baseline=baseline,
        source=prompts.source,
        seed=seed,
        lines=(*_lines(counted, answers, policy), *_lines(counted, answers, baseline)),
        rows=tuple(row(name, some) for name, some in categories.items()),
        total=row("total", counted),
        savings=None if savings is None else savings[0],
        savings_share=None if savings is None else savings[1],
        savings_pairs=len(costs),
        quality=mean_difference(marks, seed),
        quality_pairs=len(marks),
        warnings=tuple(_warnings(counted, tuning, answers, len(costs), unasked)),
    )


def _side(prompts: Sequence[Prompt], answers: Mapping[Key, Answer], name: str) -> Side:
    found = [(prompt, answers.get((name, prompt.digest))) for prompt in prompts]
    asked = [(prompt, answer) for prompt, answer in found if answer is not None]
    good = [answer for _, answer in asked if answer.good]
    ms = sorted(answer.latency_ms for answer in good)
    return Side(
        prompts=len(prompts),
        answered=len(good),
        failed=len(asked) - len(good),
        missing=len(prompts) - len(asked),
        fallbacks=sum(answer.fallback for _, answer in asked),
        checked=sum(prompt.expect is not None for prompt, _ in asked),
        right=sum(_right(prompt, answer) for prompt, answer in asked),
        picodollars=sum(answer.picodollars or 0 for _, answer in asked),
        cost_unknown=sum(answer.picodollars is None for _, answer in asked),
        tokens_in=sum(answer.tokens_in for _, answer in asked),
        tokens_out=sum(answer.tokens_out for _, answer in asked),
        mean_ms=sum(ms) // len(ms) if ms else None,
        p95_ms=quantile(ms, 95) if ms else None,
        models=dict(Counter(answer.model or "unknown" for answer in good).most_common()),
    )


def _lines(prompts: Sequence[Prompt], answers: Mapping[Key, Answer], name: str) -> Iterable[Line]:
    groups: dict[tuple[str, str], list[Answer]] = {}
    for prompt in prompts:
        answer = answers.get((name, prompt.digest))
        if answer is not None:
            reason = (answer.reason or "unknown") if answer.good else f"failed: {answer.status}"
            groups.setdefault((answer.model or "none", reason), []).append(answer)
    for (model, reason), some in sorted(groups.items()):
        yield Line(
            name,
            model,
            reason,
            len(some),
            sum(answer.tokens_in for answer in some),
            sum(answer.tokens_out for answer in some),
            sum(answer.latency_ms for answer in some) // len(some),
            sum(answer.picodollars or 0 for answer in some),
        )


def _right(prompt: Prompt, answer: Answer) -> int:
    return int(prompt.expect is not None and answer.text is not None and prompt.expect.met(answer.text))


def _warnings(
    counted: Sequence[Prompt], tuning: Sequence[Prompt], answers: Mapping[Key, Answer], pairs: int, unasked: int
) -> Iterable[str]:
    if counted is tuning:
        yield "every prompt is one that the rules were tuned on: these figures flatter them; use a held-out set"
    elif tuning:
        yield f"{len(tuning)} prompts are ones that the rules were tuned on: they have a row of their own and are in no total"
    unknown = sum(prompt.split == "unknown" for prompt in counted)
    if unknown:
        yield (
            f"{unknown} prompts do not say whether the rules were made with them in sight (split: tuning or held_out); "
            "if they were, these figures flatter them"
        )
    if unasked:
        yield f"{unasked} questions were not asked: the limit of the cost was reached"
    if pairs < len(counted):
        yield (
            f"{len(counted) - pairs} of {len(counted)} prompts are not in the savings: they were not answered by both, "
            "or at an unknown cost"
        )
    models = {answer.model for answer in answers.values() if answer.model is not None}
    if models and all(model.startswith("demo-") for model in models):
        yield "simulated models made these answers and know nothing: costs and latencies are as told, accuracy means nothing"
