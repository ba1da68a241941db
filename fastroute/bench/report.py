"""Where the gateway stands, in words: one table, what is aimed at and what came, and the lines that the README shows."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from fastroute.bench.results import Results, Sample, Spread

NOTHING: Final = "-"


class Rows(msgspec.Struct, frozen=True):
    """What the rows of one of our servers are called."""

    heading: str
    whole: str
    bare: str
    two_budgets: str


GRANIAN: Final = Rows("came", "fastroute", "fastroute, data plane", "fastroute, two budgets")
COMPILED: Final = Rows("compiled listener", *(f"{name}, compiled" for name in msgspec.structs.astuple(GRANIAN)[1:]))


class Aim(msgspec.Struct, frozen=True):
    """What should hold between us and another of the same run: a ratio, or microseconds on top of our own data plane."""

    what: str
    peer: str
    phase: str
    bound: float
    at_most: bool = False
    unit: str = "x"

    def holds(self, came: float) -> bool:
        return came <= self.bound if self.at_most else came >= self.bound

    def __str__(self) -> str:
        return f"{self.what}, beside {self.peer}" if self.peer else self.what

    @property
    def sign(self) -> str:
        return "<=" if self.at_most else ">="


WORKER: Final = "CPU of the worker a request"
THROUGHPUT: Final = "requests a CPU second"
EVENTS: Final = "events a CPU second"
ADDED: Final = "added p50 at 200 a second"
MONEY: Final = "CPU of the worker that money adds to a request"
BOOKS: Final = "CPU of bookkeeper and supervisor a request"
STEADY: Final = "steady"

AIMS: Final = (
    Aim(WORKER, "constant", "json", 1.8, at_most=True),
    Aim(THROUGHPUT, "litellm", "json", 100),
    Aim(THROUGHPUT, "portkey", "json", 12),
    Aim(THROUGHPUT, "vllm-router", "json", 1.4),
    Aim(THROUGHPUT, "sglang-router", "json", 1.8),
    Aim(THROUGHPUT, "envoy", "json", 0.95),
    Aim(THROUGHPUT, "nginx", "json", 0.25),
    Aim(EVENTS, "litellm", "burst", 100),
    Aim(EVENTS, "vllm-router", "burst", 1.5),
    Aim(EVENTS, "nginx", "burst", 0.6),
    Aim(ADDED, "envoy", "rate", 1.5, at_most=True),
    Aim(MONEY, "", STEADY, 25, at_most=True, unit=" us"),
    Aim(BOOKS, "", STEADY, 25, at_most=True, unit=" us"),
)


def came(results: Results, aim: Aim, rows: Rows = GRANIAN) -> float | None:
    """What came of an aim, of medians; None when what it is between was not measured."""
    if aim.what == BOOKS:
        books = results.spread(rows.two_budgets, aim.phase, lambda each: each.beside_us)
        return books.middle if books else None
    if aim.what == MONEY:
        bare = {each.round: each.worker_us for each in results.of(rows.bare, aim.phase)}

        def more(each: Sample) -> float | None:
            base = bare.get(each.round)
            return None if base is None or each.worker_us is None else each.worker_us - base

        added = results.spread(rows.two_budgets, aim.phase, more)
        return added.middle if added else None
    if aim.what == ADDED:
        ours, theirs = (results.added_ms(each, aim.phase, 500) for each in (rows.whole, aim.peer))
        return ours.middle / theirs.middle if ours and theirs and theirs.middle > 0 else None
    value: Callable[[Sample], float | None] = {
        WORKER: lambda each: each.worker_us,
        THROUGHPUT: lambda each: each.tree_us,
        EVENTS: lambda each: each.event_us,
    }[aim.what]
    ours, theirs = (results.spread(each, aim.phase, value) for each in (rows.whole, aim.peer))
    if not ours or not theirs:
        return None
    return ours.middle / theirs.middle if aim.at_most else theirs.middle / ours.middle


def number(value: float) -> str:
    """Three figures that count, thousands parted."""
    if abs(value) >= 1000:
        digits = len(str(round(abs(value)))) - 3
        return f"{round(value, -digits):,.0f}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def spread(found: Spread | None, sign: str = "") -> str:
    """A median with its range, when there was more than one round."""
    if found is None:
        return NOTHING
    middle = f"{'+' if sign and found.middle >= 0 else ''}{number(found.middle)}"
    return middle if found.least == found.most else f"{middle} ({number(found.least)}..{number(found.most)})"


def kept(results: Results, name: str, phase: str) -> str:
    """Whether the provider's bytes came through as they were."""
    samples = results.of(name, phase)
    answers = sum(each.told.answers for each in samples)
    if not answers or name in {"direct", "constant"}:
        return NOTHING
    changed = sum(each.told.changed for each in samples)
    if changed:
        return "no" if changed >= answers / 2 else f"{changed} of {answers} changed"
    return "yes, and a comment" if any(each.told.comments for each in samples) else "yes"


Column = tuple[str, Callable[[Results, str], str]]

_RANGE = re.compile(r" \(-?[\d.,]+\.\.-?[\d.,]+\)")
_ROOM: Final = 5  # subjects whose ranges fit a terminal


def _value(phase: str, value: Callable[[Sample], float | None]) -> Callable[[Results, str], str]:
    return lambda results, name: spread(results.spread(name, phase, value))


def _added(phase: str, per_mille: int, which: str = "latency") -> Callable[[Results, str], str]:
    def told(results: Results, name: str) -> str:
        if name == "direct":
            quantile = results.spread(name, phase, lambda each: getattr(each.told, which).quantile_ms(per_mille))
            return NOTHING if quantile is None else f"({spread(quantile)})"
        return spread(results.added_ms(name, phase, per_mille, which), "+")

    return told


def _about(results: Results, name: str) -> str:
    about = next(each for each in results.subjects if each.name == name)
    memory = results.spread(name, "json", lambda each: each.pss_kib)
    ready = "" if about.ready_s is None else f", {about.ready_s:.2f} s"
    return NOTHING if memory is None else f"{memory.middle / 1024:.0f} MiB{ready}"


STANDING: Final[tuple[Column, ...]] = (
    ("requests/s", _value("json", lambda each: each.per_second)),
    ("CPU us/request, whole tree", _value("json", lambda each: each.tree_us)),
    ("busiest process", _value("json", lambda each: each.worker_us)),
    ("events/s", _value("burst", lambda each: each.events_per_second)),
    ("CPU us/event", _value("burst", lambda each: each.event_us)),
    ("added p50 ms at 200/s", _added("rate", 500)),
    ("added p99 ms", _added("rate", 990)),
    ("first event ms", _added("paced", 500, "first")),
    ("each event ms", _added("paced", 500, "late")),
    ("JSON bytes kept", lambda results, name: kept(results, name, "json")),
    ("SSE bytes kept", lambda results, name: kept(results, name, "burst")),
    ("worker us/request at a steady rate", _value(STEADY, lambda each: each.worker_us)),
    ("beside it", _value(STEADY, lambda each: each.beside_us)),
    ("memory, first 200", _about),
)


def standing(results: Results) -> tuple[list[str], list[list[str]]]:
    """The one table: a head and a row for each subject, of what was measured of anybody."""
    columns = [(name, [tell(results, each.name) for each in results.subjects]) for name, tell in STANDING]
    told = [(name, cells) for name, cells in columns if any(cell != NOTHING for cell in cells)]
    rows = [[each.name, *(cells[place] for _, cells in told)] for place, each in enumerate(results.subjects)]
    return ["", *(name for name, _ in told)], rows


def aims(results: Results) -> tuple[list[str], list[list[str]]]:
    """What is aimed at beside what came, for those that were measured, on either server of ours."""
    found = {rows.heading: [came(results, aim, rows) for aim in AIMS] for rows in (GRANIAN, COMPILED)}
    servers = {heading: values for heading, values in found.items() if any(value is not None for value in values)}
    lines = []
    for aim, *values in zip(AIMS, *servers.values(), strict=True):
        cells: list[str] = []
        for value in values:
            if value is None:
                cells += [NOTHING, NOTHING]
            else:
                cells += [f"{number(value)}{aim.unit}", "yes" if aim.holds(value) else "no"]
        if any(cell != NOTHING for cell in cells):
            lines.append([str(aim), f"{aim.sign} {aim.bound:g}{aim.unit}", *cells])
    return ["aim", "bound", *(word for heading in servers for word in (heading, "holds"))], lines


def faults(results: Results) -> list[str]:
    """What failed while it was measured, and who was not."""
    found = [f"{name} was not measured: {why}" for name, why in results.missing.items()]
    for about in results.subjects:
        for phase in results.phases:
            failures = results.failures(about.name, phase.name)
            if failures:
                told = ", ".join(f"{count} {name}" for name, count in failures.items())
                found.append(f"{about.name}, {phase.title}: {told}")
    return found


def held_back(results: Results) -> list[str]:
    """Where the provider and the load were full, so that a gateway could not show what it can."""
    found = []
    for about in results.subjects:
        for phase in results.phases:
            full = results.spread(about.name, phase.name, lambda each: each.rest_core)
            if full and full.middle > 0.9 and not phase.rate and about.name != "direct":
                found.append(f"{about.name}, {phase.title}: provider and load took {full.middle:.0%} of their core")
    return found


def head_lines(results: Results) -> list[str]:
    """Machine, versions, method and noise."""
    fast = results.spread("direct", "json", lambda each: each.per_second)
    place = (
        "one core for all" if results.shared_core else "the gateway's tree on one core, provider and load on another"
    )
    lines = [
        f"{results.machine}",
        f"fastroute {results.fastroute}, {results.date}, {results.rounds} interleaved rounds, medians (least..most); {place}",
    ]
    if fast:
        lines.append(
            f"the provider asked directly answers {number(fast.middle)} requests/s with the load on its own core"
        )
    return [*lines, *(f"NOISY: {each}" for each in results.noise())]


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = [
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    return "\n".join(line(row) for row in (head, *rows))


def turned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """Columns as rows: many figures of a few subjects fit a terminal so."""
    return [head[0], *(row[0] for row in rows)], [
        [head[place], *(row[place] for row in rows)] for place in range(1, len(head))
    ]


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def told(results: Results, *, markdown: bool = False) -> str:
    """The whole report for a terminal, or as the README has it."""
    head, rows = standing(results)
    parts = ["\n".join(head_lines(results))]
    if markdown:
        parts.append(markdown_table(head, rows))
    else:
        if len(rows) > _ROOM:
            rows = [[_RANGE.sub("", cell) for cell in row] for row in rows]
        parts.append(text_table(*turned(head, rows)))
    bounds, lines = aims(results)
    if lines:
        parts.append((markdown_table if markdown else text_table)(bounds, lines))
    beside = results.spread(GRANIAN.whole, "json", lambda each: each.beside_us)
    if beside:
        parts.append(f"beside the worker, its bookkeeper and supervisor take {spread(beside)} us of CPU a request")
    parts += [*held_back(results), *faults(results)]
    return "\n\n".join(parts)
