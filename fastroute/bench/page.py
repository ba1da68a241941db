"""The page of a run: one HTML file that needs nothing else, its head the machine, the versions and the method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Final

from fastroute.bench import report
from fastroute.bench.plots import Bar, bars, lines
from fastroute.bench.results import Results, Sample

if TYPE_CHECKING:
    from fastroute.bench.scale import Scale

_STYLE: Final = """\
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
svg { max-width: 760px; width: 100%; height: auto; font: 12px system-ui, sans-serif; } svg text { fill: currentColor; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; } .wide { overflow-x: auto; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #8885; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.note { opacity: .75; margin: .2rem 0 1rem; font-size: 13px; } .noisy { border-left: 4px solid #da1e28; padding-left: .8rem; }
.no { color: #da1e28; font-weight: 600; }
"""

_METHOD: Final = (
    "Every process has its place: the gateway with all it starts on one core, the provider and the load on another. CPU is "
    "user and system time of every process of the tree, to the nanosecond, within the measured window; a request's share is "
    "what the tree spent divided by the answers that ended in the window.",
    "JSON and bursts are a closed loop: so many connections, each asking again at once. Fixed rates are open: request n is due "
    "at the start plus n divided by the rate, whatever became of those before, and latency counts from the instant it was due; "
    "what was never answered counts with the time it waited. Added is what comes on top of the same percentile asked directly "
    "in the same round.",
    "A burst writes each of its 23 events by itself, as fast as they are taken. An event of a paced stream carries the instant "
    "it was written; its delay is how old it is when it is read, and the table tells what is more than direct.",
    "Subjects take turns within each phase and round, and the order is turned in every other round. Figures are medians of the "
    "rounds with the least and the most beside them. Bytes kept: every answer is compared with what the provider sent.",
)


def _page(title: str, parts: Sequence[str]) -> str:
    return (
        f'<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style><h1>{escape(title)}</h1>{''.join(parts)}</html>\n"
    )


def _paragraphs(texts: Sequence[str]) -> str:
    return "".join(f"<p>{escape(text)}</p>" for text in texts)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def cells(row: Sequence[str], tag: str) -> str:
        return "".join(f"<{tag}{' class=no' if cell == 'no' else ''}>{escape(cell)}</{tag}>" for cell in row)

    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return f"<div class=wide><table><tr>{cells(head, 'th')}</tr>{body}</table></div>"


def _chapter(title: str, *parts: str) -> str:
    inner = "".join(parts)
    return f"<h2>{escape(title)}</h2>{inner}" if inner else ""


def _bars(results: Results, phase: str, unit: str, value: Callable[[Sample], float | None]) -> str:
    rows = []
    for about in results.subjects:
        found = results.spread(about.name, phase, value)
        if found:
            rows.append(Bar(about.name, found.middle, found.least, found.most))
    return bars(rows, unit)


def _percentiles(results: Results, phase: str, which: str) -> str:
    wanted = {500: "p50", 900: "p90", 990: "p99", 999: "p99.9"}
    places = dict(zip(wanted, (1.0, 2.0, 3.0, 4.0), strict=True))
    series = {}
    for about in results.subjects:
        found = []
        for per_mille, place in places.items():

            def quantile(each: Sample, per_mille: int = per_mille) -> float | None:
                told: float | None = getattr(each.told, which).quantile_ms(per_mille)
                return told

            middle = results.spread(about.name, phase, quantile)
            if middle:
                found.append((place, middle.middle))
        series[about.name] = found
    ticks = {places[per_mille]: name for per_mille, name in wanted.items()}
    return lines(series, "percentile", "ms", log_y=True, ticks=ticks)


def _added(results: Results, phase: str) -> str:
    """Four percentiles of what comes on top, for each subject."""
    rows = []
    for about in results.subjects:
        told = [report.spread(results.added_ms(about.name, phase, each), "+") for each in (500, 900, 990, 999)]
        if any(cell != report.NOTHING for cell in told) and about.name != "direct":
            rows.append([about.name, *told])
    return table(["added ms", "p50", "p90", "p99", "p99.9"], rows) if rows else ""


def _by_connections(results: Results) -> str:
    phases = sorted(
        (each for each in results.phases if not (each.rate or each.stream) and each.size == 500),
        key=lambda p: p.connections,
    )
    if len(phases) < 2:
        return ""
    series: dict[str, list[tuple[float, float]]] = {}
    for about in results.subjects:
        for phase in phases:
            found = results.spread(about.name, phase.name, lambda each: each.per_second)
            if found:
                series.setdefault(about.name, []).append((phase.connections, found.middle))
    return lines(series, "connections", "requests/s", log_x=True, log_y=True)


def _everything(results: Results) -> str:
    """Every phase of every subject, for whoever wants the last figure."""
    head = [
        "phase",
        "subject",
        "requests/s",
        "CPU us/request",
        "busiest",
        "events/s",
        "CPU us/event",
        "core",
        "p50 ms",
        "p99 ms",
        "other cores",
    ]
    rows = []
    for phase in results.phases:
        for about in results.subjects:
            name = about.name

            def cell(value: Callable[[Sample], float | None], name: str = name, phase: str = phase.name) -> str:
                return report.spread(results.spread(name, phase, value))

            if not results.of(name, phase.name):
                continue
            rows.append(
                [
                    phase.title,
                    name,
                    cell(lambda each: each.per_second),
                    cell(lambda each: each.tree_us),
                    cell(lambda each: each.worker_us),
                    cell(lambda each: each.events_per_second if each.told.events else None),
                    cell(lambda each: each.event_us),
                    cell(lambda each: each.core),
                    cell(lambda each: each.told.latency.quantile_ms(500)),
                    cell(lambda each: each.told.latency.quantile_ms(990)),
                    cell(lambda each: each.other_cores),
                ]
            )
    return table(head, rows)


def comparison(results: Results) -> str:
    """The page of `fastroute bench` and of `fastroute bench compare`."""
    noise = results.noise()
    bounds, aims = report.aims(results)
    about = [
        [
            each.name,
            each.version or report.NOTHING,
            report.NOTHING if each.ready_s is None else f"{each.ready_s:.2f} s",
            report.NOTHING if each.idle_pss_kib is None else f"{each.idle_pss_kib / 1024:.0f} MiB",
            each.settings,
        ]
        for each in results.subjects
    ]
    parts = [
        _paragraphs([line for line in report.head_lines(results) if not line.startswith("NOISY")]),
        f"<div class=noisy><p>This machine was too noisy for small differences: {escape('; '.join(noise))}.</p></div>"
        if noise
        else "",
        _chapter("Where it stands", table(*report.standing(results)), table(bounds, aims) if aims else ""),
        _chapter(
            "CPU a request",
            _bars(results, "json", "CPU us a request, whole tree, 0.5 KB, 32 connections", lambda each: each.tree_us),
        ),
        _chapter(
            "Requests a second",
            _bars(results, "json", "requests/s on one core, 32 connections", lambda each: each.per_second),
            _by_connections(results),
        ),
        _chapter("Streams", _bars(results, "burst", "CPU us an event, whole tree, bursts", lambda each: each.event_us)),
        _chapter("Latency at 200 requests a second", _percentiles(results, "rate", "latency"), _added(results, "rate")),
        _chapter("First event of a paced stream", _percentiles(results, "paced", "first")),
        _chapter("Each event of a paced stream", _percentiles(results, "paced", "late")),
        _chapter("What was measured", table(["", "version", "first 200", "memory idle", "settings"], about)),
        _chapter("What went wrong", _paragraphs([*report.held_back(results), *report.faults(results)])),
        _chapter("Method", _paragraphs(_METHOD)),
        _chapter("Every figure", _everything(results)),
    ]
    return _page(f"fastroute bench, {results.kind}", parts)


def scale(found: Scale) -> str:
    """The page of `fastroute bench scale`: each growth as a curve with its law."""
    parts = [_paragraphs([f"{found.machine}", f"fastroute {found.fastroute}, {found.date}"]), _paragraphs(found.notes)]
    for curve in found.curves:
        rows = [
            [each.label, *(report.NOTHING if value is None else report.number(value) for value in each.values)]
            for each in curve.points
        ]
        drawn = ""
        for place, unit in enumerate(curve.units):
            points = [(each.x, value) for each in curve.points if (value := each.values[place]) is not None]
            drawn += (
                lines({unit: points}, curve.across, unit, log_x=curve.log) if len(points) > 1 and curve.drawn else ""
            )
        parts.append(
            _chapter(
                curve.title,
                _paragraphs([curve.law]) if curve.law else "",
                drawn,
                table([curve.across, *curve.units], rows),
            )
        )
    return _page("fastroute bench, scale", parts)
