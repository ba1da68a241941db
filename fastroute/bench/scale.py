"""How cost grows: with workers, keys, models and open streams, and with receipts in the books; each a curve with its law."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from fastroute import __version__
from fastroute.bench import books, report, traffic
from fastroute.bench.load import Load, loading
from fastroute.bench.machine import Cores, Machine, pss_kib, tree
from fastroute.bench.own import Keyed, Served
from fastroute.bench.processes import NotStarted
from fastroute.bench.results import Phase, Sample
from fastroute.bench.rounds import many_files, sample
from fastroute.bench.subjects import Subject, provider, started

Step = Callable[[str], None]

KEYS: Final = (1, 100, 10_000)
KEYS_FULL: Final = 50_000
MODELS: Final = (10, 100, 1_000, 10_000)
STREAMS: Final = (100, 500, 2_000)
WORKERS: Final = (1, 2, 4)
RECEIPTS: Final = 10_000_000
_STEPS: Final = 6
_BOUNDED: Final = 60_000  # receipts of a run that is not --full
_ROTATE_MAX_S: Final = 60.0
_STREAM: Final = traffic.Pace(wait_us=20_000, every_us=100_000, events=40)
_STREAM_S: Final = 4.0


class Point(msgspec.Struct, frozen=True):
    """One size, and what was measured there, in the order of the curve's units; None where it could not be."""

    label: str
    x: float
    values: list[float | None]


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """How some figures go with one size."""

    title: str
    across: str
    units: list[str]
    points: list[Point]
    law: str
    log: bool = True
    drawn: bool = True


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run."""

    machine: Machine
    fastroute: str
    date: str
    notes: list[str]
    curves: list[Curve]


class _Many(Served):
    """A gateway with so many keys in its books."""

    name = "keys"
    start_s = 120.0

    def __init__(self, count: int) -> None:
        self.count = count
        self.tokens: list[bytes] = []

    def headers(self, place: Path, upstream: int) -> dict[str, str]:
        self.tokens = [each["key"].encode() for each in books.make_keys(place / "state", self.count)]
        return {"authorization": f"Bearer {self.tokens[0].decode()}"}


class _Models(Keyed):
    """A gateway with so many models in its catalog."""

    name = "models"
    start_s = 120.0

    def __init__(self, count: int) -> None:
        # The shortest spelling: ten thousand of them are nearly as long as a configuration may be.
        self.names = [f"m{number:05}" for number in range(count)]
        self.config = "models:\n" + "".join(
            f"- {{id: {name}, model: openai:{name}, price: {{input: 1, output: 1}}, max_output: 99}}\n"
            for name in self.names
        )


class _Workers(Keyed):
    name = "workers"

    def __init__(self, count: int) -> None:
        self.workers = count


def run(seconds: float, *, full: bool, step: Step) -> Scale:
    """Every curve; bounded unless `full`."""
    cores = Cores.here()
    with ExitStack() as stack:
        stack.enter_context(many_files())
        before = os.sched_getaffinity(0)
        stack.callback(os.sched_setaffinity, 0, before)
        os.sched_setaffinity(0, {cores.rest})
        upstream = stack.enter_context(provider(cores))
        load = stack.enter_context(loading(cores.rest))
        bench = _Bench(upstream, load, cores, sorted(before), seconds, step)
        made: dict[str, Callable[[], Curve]] = {
            "workers": bench.workers,
            "keys": lambda: bench.keys(full),
            "models": bench.models,
            "streams": bench.streams,
            "receipts": lambda: receipts(RECEIPTS if full else _BOUNDED, step),
        }
        curves, faults = [], []
        for name, curve in made.items():
            try:
                curves.append(curve())
            except NotStarted as error:
                faults.append(f"{name} were not measured: {error}")
                step(faults[-1])
    notes = [
        *faults,
        "Sizes are run one after the other, each once: differences of a tenth mean nothing. CPU is that of the whole tree.",
        f"Everything is on: keys, a budget, journal, metrics, receipts; {seconds:g} s each, 32 connections.",
    ]
    if not full:
        notes.append(f"This run was bounded; what is said of {RECEIPTS:,} receipts is extrapolated. --full runs them.")
    return Scale(
        machine=Machine.here(len(before)),
        fastroute=__version__,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        notes=notes,
        curves=curves,
    )


class _Bench:
    """What the curves of running gateways share."""

    def __init__(
        self, upstream: Subject, load: Load, cores: Cores, all_cores: list[int], seconds: float, step: Step
    ) -> None:
        self.upstream = upstream
        self.load = load
        self.cores = cores
        self.all_cores = all_cores
        self.seconds = seconds
        self.step = step

    @contextmanager
    def gateway(self, peer: Served, cores: Sequence[int] = (), body: bytes | None = None) -> Iterator[Subject]:
        given = list(cores) or [self.cores.gateway]
        with started(peer, Path(), given, self.upstream.port, body or traffic.body(500)) as subject:
            yield subject

    def workers(self) -> Curve:
        points = []
        notes = []
        for count in WORKERS:
            if count > len(self.all_cores):
                notes.append(f"{count} workers want {count} cores and there are {len(self.all_cores)}")
                continue
            self.step(f"{count} workers")
            if count == len(self.all_cores) and count > 1:
                notes.append(f"{count} workers shared their cores with provider and load")
            with self.gateway(_Workers(count), self.all_cores[:count]) as subject:
                found = sample(subject, Phase(name="json", seconds=self.seconds), 0, self.upstream, self.load)
                _sound(found.told.failures)
                points.append(Point(str(count), count, [found.per_second, found.tree_us, _mib(found.pss_kib)]))
        return Curve(
            title="Workers",
            across="workers",
            units=["requests/s", "CPU us a request", "MiB"],
            points=points,
            law="; ".join(notes),
            log=False,
        )

    def keys(self, full: bool) -> Curve:
        points = []
        for count in (*KEYS, *([KEYS_FULL] if full else [])):
            self.step(f"{count} keys")
            peer = _Many(count)
            with self.gateway(peer) as subject:
                points.append(self.turns(subject, subject.request(traffic.body(500)), peer.tokens))
        return _in_turn("Keys, each under its own budget, asked in turn", "keys", points)

    def models(self) -> Curve:
        points = []
        for count in MODELS:
            self.step(f"{count} models")
            peer = _Models(count)
            body = traffic.body(500, model=peer.names[0])
            with self.gateway(peer, body=body) as subject:
                points.append(self.turns(subject, subject.request(body), [name.encode() for name in peer.names]))
        return _in_turn("Models in the catalog, asked for in turn", "models", points)

    def turns(self, subject: Subject, request: bytes, words: list[bytes]) -> Point:
        """One request whose first word gives way to each of the others in turn, all of one length."""
        more = {
            "request": request,
            "slots": b"".join(words),
            "slot_at": request.index(words[0]),
            "slot_size": len(words[0]),
        }
        cold, warm = self.twice(subject, len(words), more)
        figures = [cold.tree_us, warm.tree_us, warm.worker_us, _mib(warm.pss_kib), subject.ready_s]
        return Point(f"{len(words):,}", len(words), figures)

    def twice(self, subject: Subject, count: int, more: dict[str, Any]) -> tuple[Sample, Sample]:
        """From the first request on, and again when every one of so many has had its turn."""
        phase = Phase(name="json", seconds=self.seconds)
        cold = sample(subject, phase, 0, self.upstream, self.load, more={**more, "warm_s": 0.0})
        _sound(cold.told.failures)
        turn_s = min(1.5 * count / max(cold.per_second, 1.0), _ROTATE_MAX_S)
        warm = sample(subject, phase, 0, self.upstream, self.load, more={**more, "warm_s": turn_s})
        _sound(warm.told.failures)
        return cold, warm

    def streams(self) -> Curve:
        points = []
        failed: list[str] = []
        with self.gateway(Keyed()) as subject:
            assert subject.pid is not None
            pids = tree(subject.pid)
            for count in STREAMS:
                self.step(f"{count} open streams")
                idle = peak = sum(pss_kib(pids).values())

                def watch() -> None:
                    nonlocal peak
                    peak = max(peak, sum(pss_kib(pids).values()))

                # As many begin as end once the first are over; the window comes after that.
                phase = Phase(
                    name="paced",
                    stream=True,
                    pace=_STREAM,
                    rate=count / _STREAM_S,
                    connections=2 * count,
                    seconds=self.seconds,
                )
                more = {"warm_s": _STREAM_S + 1}
                found = sample(subject, phase, 0, self.upstream, self.load, more=more, watch=watch)
                if found.told.failures:
                    points.append(Point(f"{count:,}", count, [None] * 4))
                    failed.append(f"of {count:,}, {_said(found.told.failures)}: no figure.")
                    continue
                late = found.told.late
                points.append(
                    Point(
                        f"{count:,}",
                        count,
                        [(peak - idle) / count, found.event_us, late.quantile_ms(500), late.quantile_ms(990)],
                    )
                )
        return Curve(
            title="Open streams, ten events a second each, all on one worker",
            across="streams",
            units=["KiB a stream", "CPU us an event", "an event's age p50, ms", "p99, ms"],
            points=points,
            law=" ".join(filter(None, (law(points, 1, "CPU an event", "us"), *failed))),
        )


def receipts(wanted: int, step: Step) -> Curve:
    """Journal and database with so many receipts; beyond what was run the curve is a line through it."""
    points, grown = [], []
    with tempfile.TemporaryDirectory(prefix="fastroute-bench-") as directory:
        before = books.Grown(0, 0.0, 0, 0, 0)
        for found in books.grow(Path(directory), _STEPS, wanted // _STEPS):
            step(f"{found.receipts:,} receipts")
            grown.append(found)
            more = found.receipts - before.receipts
            points.append(
                Point(
                    f"{found.receipts:,}",
                    found.receipts,
                    [
                        found.cpu_us,
                        (found.database_bytes - before.database_bytes) / more,
                        found.database_bytes / 2**20,
                        (found.journalled_bytes - before.journalled_bytes) / more,
                        found.journal_bytes / 2**20,
                    ],
                )
            )
            before = found
    first, last = grown[0], grown[-1]
    each = (last.database_bytes - first.database_bytes) / (last.receipts - first.receipts)
    said = f"{each:,.0f} bytes of database a receipt"
    if wanted < RECEIPTS:
        said += f", so {each * RECEIPTS / 2**30:.1f} GiB for {RECEIPTS:,} (extrapolated)"
    said += "; the journal is dropped as it is applied. " + law(points, 0, "CPU of the bookkeeper a request", "us")
    return Curve(
        title="Receipts in the books",
        across="receipts",
        units=["CPU us a request", "database bytes each", "database MiB", "journal bytes each", "journal MiB on disk"],
        points=points,
        law=said,
        log=False,
    )


def _in_turn(title: str, across: str, points: list[Point]) -> Curve:
    return Curve(
        title=title,
        across=across,
        units=["CPU us, first use among them", "CPU us, all in use", "worker us", "MiB", "first 200, s"],
        points=points,
        law=law(points, 1, "CPU a request with all in use", "us"),
    )


def law(points: Sequence[Point], place: int, what: str, unit: str) -> str:
    """How a figure goes with the logarithm of its size, by least squares, said with what it was at both ends."""
    found = [(math.log10(each.x), value) for each in points if (value := each.values[place]) is not None]
    if len(found) < 2 or found[0][0] == found[-1][0]:
        return ""
    middle_x = sum(x for x, _ in found) / len(found)
    middle_y = sum(y for _, y in found) / len(found)
    slope = sum((x - middle_x) * (y - middle_y) for x, y in found) / sum((x - middle_x) ** 2 for x, _ in found)
    ends = f"{what} went from {report.number(found[0][1])} to {report.number(found[-1][1])} {unit}"
    if abs(slope) < 0.05 * middle_y:
        return f"{ends}: it does not grow beyond what rounds differ by."
    return f"{ends}: {report.number(slope)} {unit} {'more' if slope > 0 else '(less)'} for each tenfold."


def told(found: Scale) -> str:
    """The report for a terminal."""
    parts = [f"{found.machine}\nfastroute {found.fastroute}, {found.date}", "\n".join(found.notes)]
    for curve in found.curves:
        rows = [
            [each.label, *(report.NOTHING if value is None else report.number(value) for value in each.values)]
            for each in curve.points
        ]
        parts.append(
            "\n".join(filter(None, (curve.title, report.text_table([curve.across, *curve.units], rows), curve.law)))
        )
    return "\n\n".join(parts)


def _sound(failures: dict[str, int]) -> None:
    """A size at which requests fail has no figure."""
    if failures:
        raise NotStarted(f"requests failed: {_said(failures)}")


def _said(failures: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in failures.items())


def _mib(kib: int | None) -> float | None:
    return None if kib is None else kib / 1024
