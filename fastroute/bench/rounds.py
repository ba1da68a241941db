"""The run itself: subjects started, phases in interleaved rounds, samples taken; bounded, and everything ended with it."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from fastroute import __version__
from fastroute.bench import report, traffic
from fastroute.bench.load import Load, Order, loading
from fastroute.bench.machine import Cores, Machine, busy_ns, cpu_ns, pss_kib, tree
from fastroute.bench.peers import Peer
from fastroute.bench.processes import NotStarted
from fastroute.bench.results import About, Phase, Results, Sample, sequence
from fastroute.bench.subjects import Subject, provider, started

# A stream of a paced phase is opened once each so often; what is open at once must fit the connections.
PACE = traffic.Pace(wait_us=20_000, every_us=10_000, events=100)

Step = Callable[[str], None]
"""Called before each sample with what it is."""


def quick(seconds: float) -> list[Phase]:
    """Where it stands, in under two minutes."""
    return [
        Phase(name="json", seconds=seconds),
        Phase(name="burst", stream=True, seconds=seconds),
        Phase(name="rate", rate=200, seconds=seconds),
        Phase(
            name="paced", stream=True, pace=traffic.Pace(20_000, 10_000, 25), rate=32, connections=128, seconds=seconds
        ),
    ]


def whole(seconds: float) -> list[Phase]:
    """Everything a page tells."""
    return [
        Phase(name="json", seconds=seconds),
        *(Phase(name=f"json-c{n}", connections=n, seconds=seconds) for n in (1, 8, 128, 512)),
        Phase(name="json-4k", size=4_000, seconds=seconds),
        Phase(name="json-32k", size=32_000, seconds=seconds),
        Phase(name="burst", stream=True, seconds=seconds),
        Phase(name="rate", rate=200, connections=64, seconds=2 * seconds),
        Phase(name="rate-20", rate=20, seconds=2 * seconds),
        Phase(name="paced", stream=True, pace=PACE, rate=32, connections=256, seconds=2 * seconds),
    ]


def steady(rate: float, seconds: float) -> list[Phase]:
    """One rate that every subject is far from being full at, so that what a request costs is what it takes."""
    return [Phase(name=report.STEADY, rate=rate, connections=64, seconds=seconds)]


def length_s(phases: Sequence[Phase], subjects: int, rounds: int) -> float:
    """About how long a run takes."""
    return rounds * subjects * sum(phase.seconds + _tail_s(phase) + 0.5 for phase in phases)


def _tail_s(phase: Phase) -> float:
    return phase.pace.events * phase.pace.every_us / 1e6 if phase.pace else 0.0


@contextmanager
def many_files() -> Iterator[None]:
    """As many open files as may be, for hundreds of connections and those who inherit it; ours again afterwards."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def order_of(subject: Subject, phase: Phase, pids: Sequence[int]) -> Order:
    body = traffic.body(phase.size, stream=phase.stream, pace=phase.pace)
    return Order(
        host=subject.host,
        port=subject.port,
        request=subject.request(body),
        connections=phase.connections,
        seconds=phase.seconds,
        warm_s=min(0.3, phase.seconds / 2) + _tail_s(phase) / 2,
        rate=phase.rate,
        stream=phase.stream,
        expected=b"" if phase.stream else traffic.ANSWER,
        events=traffic.EVENTS if phase.stream and not phase.pace else (),
        pids=tuple(pids),
    )


def sample(
    subject: Subject,
    phase: Phase,
    number: int,
    upstream: Subject,
    load: Load,
    *,
    more: Mapping[str, Any] | None = None,
    watch: Callable[[], None] | None = None,
) -> Sample:
    """One subject under one phase; `more` are fields of the order that no phase has."""
    own = [] if subject.pid is None or subject is upstream else tree(subject.pid)
    assert upstream.pid is not None
    watched = [*own, upstream.pid]

    def taken() -> int:
        return cpu_ns([*watched, load.pid]) + time.process_time_ns()

    began, busy, ours = time.monotonic_ns(), busy_ns(), taken()
    told = load.run(msgspec.structs.replace(order_of(subject, phase, watched), **(more or {})), watch)
    took, busy, ours = time.monotonic_ns() - began, busy_ns() - busy, taken() - ours
    spent = [told.cpu_ns[pid] for pid in own if pid in told.cpu_ns]
    memory = pss_kib(own)
    return Sample(
        subject=subject.name,
        phase=phase.name,
        round=number,
        told=told,
        worker_ns=max(spent, default=None),
        tree_ns=sum(spent) if spent else None,
        pss_kib=sum(memory.values()) if memory else None,
        provider_ns=told.cpu_ns.get(upstream.pid, 0),
        other_cores=max(busy - ours, 0) / took,
    )


def measure(
    kind: str,
    peers: Sequence[Peer],
    phases: Sequence[Phase],
    rounds: int,
    *,
    homes: Path,
    step: Step,
    skipped: Callable[[str, str], None],
    elsewhere: Sequence[Subject] = (),
    upstream_port: int = 0,
    missing: Mapping[str, str] | None = None,
) -> Results:
    """Start everybody, run the rounds and end everybody. Whoever does not start is told to `skipped` and left out."""
    cores = Cores.here()
    left_out = dict(missing or {})
    with ExitStack() as stack:
        stack.enter_context(many_files())
        before = os.sched_getaffinity(0)
        stack.callback(os.sched_setaffinity, 0, before)
        os.sched_setaffinity(0, {cores.rest})
        upstream = stack.enter_context(provider(cores, upstream_port))
        load = stack.enter_context(loading(cores.rest))
        subjects, abouts = [upstream], []
        for peer in peers:
            step(f"starting {peer.name}")
            try:
                subjects.append(stack.enter_context(started(peer, homes, [cores.gateway], upstream.port)))
            except NotStarted as error:
                left_out[peer.name] = str(error)
                skipped(peer.name, str(error))
        subjects += elsewhere
        for each in subjects:
            idle = {} if each.pid is None else pss_kib(tree(each.pid))
            abouts.append(
                About(
                    name=each.name,
                    version=each.version,
                    settings=each.settings,
                    ready_s=each.ready_s,
                    idle_pss_kib=sum(idle.values()) if idle and each is not upstream else None,
                )
            )
        machine = Machine.here(len(before))
        named = {each.name: each for each in subjects}
        loads = {each.name: each for each in phases}
        samples = []
        json_only = [each.name for each in subjects if not each.streams]
        for number, phase, name in sequence(rounds, [*named], phases, json_only):
            step(f"round {number + 1} of {rounds}: {name}, {loads[phase].title}")
            samples.append(sample(named[name], loads[phase], number, upstream, load))
        return Results(
            kind=kind,
            fastroute=__version__,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            machine=machine,
            shared_core=cores.shared,
            rounds=rounds,
            phases=list(phases),
            subjects=abouts,
            samples=samples,
            missing=left_out,
        )
