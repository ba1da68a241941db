"""What a worker counts: one `Metrics` for each process, whose updates are stores into memory and nothing else.

The first use of a set of labels writes it into the list of the file; from then on its handle comes from a dictionary.
Labels are closed sets: a name nobody declared is counted as `other`, so a caller cannot make series.
"""

from __future__ import annotations

import fcntl
import os
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from mmap import mmap
from pathlib import Path
from typing import Generic, TypeVar, cast

from fastroute.domain import EXCLUSIONS
from fastroute.metrics._slots import WIDTH_MAX, Counter, Finished, Gauge, Groups, Histogram, Tried, Verdicts
from fastroute.metrics.exposition import render, retire, scrape
from fastroute.metrics.shelf import SIZE, MetricsError, Shelf, create
from fastroute.metrics.table import METRICS, MONEY, Kind

SERIES_MAX = 10_000
OTHER = "other"
_NAME_MAX = 200
_INDEX = {metric.name: place for place, metric in enumerate(METRICS)}
# What is kept back so that every metric can still have its series of `other`: names and slots of one series of each.
_RESERVE = len(METRICS) * WIDTH_MAX * 8
_CODE = re.compile(r"[1-5][0-9][0-9]")
_WORD = re.compile(r"[a-z0-9_]{1,40}")

Handle = TypeVar("Handle", Counter, Gauge, Histogram)
Label = str | int
Bind = Callable[[tuple[Label, ...], dict[tuple[Label, ...], Handle]], Handle]


class Family(Generic[Handle]):
    """The series of one metric: `of(*labels)` is the handle of one of them, and the same handle every time."""

    __slots__ = ("_bind", "_handles")

    def __init__(self, bind: Bind[Handle]) -> None:
        self._bind: Bind[Handle] = bind
        self._handles: dict[tuple[Label, ...], Handle] = {}

    def of(self, *labels: Label) -> Handle:
        handle = self._handles.get(labels)
        return handle if handle is not None else self._bind(labels, self._handles)


class Counters(Family[Counter]):
    """A counter's series; calling it with labels counts one."""

    __slots__ = ()

    def __call__(self, *labels: Label) -> None:
        handle = self._handles.get(labels)
        (handle if handle is not None else self._bind(labels, self._handles)).inc()


class Metrics(Groups):
    """The counters of one process.

    Recording neither waits nor touches a file. Handles take whole units: microseconds where it is time, picodollars
    where it is money. Labels stand in the order of the table.
    """

    def __init__(self, shelf: Shelf, directory: Path | None = None, fd: int = -1) -> None:
        super().__init__()
        self._shelf = shelf
        self._directory = directory
        self._fd = fd
        self._binding = threading.Lock()
        self._bound: dict[tuple[int, bytes], Counter | Gauge | Histogram] = {}
        self._known: dict[str, set[str]] = {
            "model": {OTHER},
            "lane": {OTHER},
            "backend": {OTHER},
            "from": {OTHER, "small", "medium"},
            "to": {OTHER, "small", "medium"},
        }
        self.series_overflow = self._single("fastroute_series_overflow_total")

        self.requests = self._counters("router_requests_total")
        self.fallback = self._counters("router_fallback_total")
        self.latency_ms = self._histograms("router_request_latency_ms")
        self.latency_seconds = self._histograms("router_request_latency_seconds")
        self.cost_usd = self._histograms("router_cost_usd")
        self.tokens = self._counters("router_tokens_total")
        self.tier = self._counters("router_tier_requests_total")
        self.active = self._gauge("router_active_requests")
        self.cache_hit = self._counters("router_cache_hits_total")
        self.backend_requests = self._counters("router_backend_requests_total")
        self.first_chunk = self._histograms("fastroute_first_chunk_seconds")
        self.attempts = self._counters("fastroute_attempts_total")
        self.verdict = self._counters("fastroute_verdicts_total")
        self.refusal = self._counters("fastroute_refusals_total")
        self.ledger_breach = self._single("fastroute_ledger_breach_total")
        self.usage_implausible = self._single("fastroute_usage_implausible_total")
        self.settle = self._counters("fastroute_settle_total")
        self.pricing_miss = self._single("fastroute_pricing_miss_total")
        self.events_dropped = self._single("fastroute_events_dropped_total")
        self.stream_abort = self._counters("fastroute_stream_abort_total")
        self.first_chunk_timeout = self._single("fastroute_first_chunk_timeout_total")
        self.upstream_error_in_200 = self._single("fastroute_upstream_error_in_200_total")
        self.retry_budget_exhausted = self._single("fastroute_retry_budget_exhausted_total")
        self.limit = self._counters("fastroute_limit_total")
        self.bad_json = self._counters("fastroute_bad_json_total")
        self.loop_lag = self._histograms("fastroute_loop_lag_seconds")
        self.body_aborted = self._single("fastroute_body_aborted_total")
        self.desync_rejected = self._single("fastroute_desync_rejected_total")

        self.captures = self._counters("fastroute_captures_total")
        self.shadows = self._counters("fastroute_shadows_total")

        # Alerts want a series that stands at zero before anything has happened.
        self.fallback.of("small", "medium")
        excluded = tuple(self.verdict.of(word) for word in EXCLUSIONS)
        self._verdicts = Verdicts(self.verdict.of("chosen"), self.verdict.of("ranked"), excluded)

    @classmethod
    def open(cls, directory: Path, worker: int) -> Metrics:
        """The counters of this process, kept in a file of `directory` until the server starts anew."""
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise MetricsError(f"counters cannot be kept in {directory}: {error.strerror}") from None
        retire(directory)
        path = directory / f"{worker}.{os.getpid()}.bin"
        if path.exists():
            raise MetricsError(f"worker {worker} of this process counts in {directory} already")
        shelf, fd = create(path)
        return cls(shelf, directory, fd)

    @classmethod
    def in_memory(cls) -> Metrics:
        """Counters that no other process sees."""
        return cls(Shelf(mmap(-1, SIZE)))

    def know(self, models: Iterable[str] = (), lanes: Iterable[str] = (), backends: Iterable[str] = ()) -> None:
        """Declare names that may be labels; whatever was not declared is counted as `other`."""
        models = set(models)
        for label in ("model", "from", "to"):
            self._known[label] |= models
        self._known["lane"] |= set(lanes)
        self._known["backend"] |= set(backends)

    def billed(self, model: str, tokens_in: int, tokens_out: int) -> None:
        """Tokens of an answer that nobody read."""
        model = self._closed("model", model)
        self.tokens.of(model, "input").inc(tokens_in)
        self.tokens.of(model, "output").inc(tokens_out)

    def verdicts(self, codes: bytes) -> None:
        """One decision, as the core's code for each candidate: 0 is viable, else 1 + the index of the exclusion."""
        self._verdicts.record(codes)

    def finished_group(self, model: str, status: int, backend: str | None) -> Finished:
        # Only names that were let in become keys: else a caller's inventions would fill the memory.
        model = self._closed("model", model)
        backend = backend and self._closed("backend", backend)
        status = status if 100 <= status <= 599 else 0
        group = self._finished.get((model, status, backend))
        if group is None:
            outcome = "ok" if status < 400 else "client_error" if status < 500 else "server_error"
            group = Finished(
                self.requests.of(model, status),
                self.latency_ms.of(model),
                self.cost_usd.of(model),
                self.tokens.of(model, "input"),
                self.tokens.of(model, "output"),
                self.latency_seconds.of(backend) if backend else None,
                self.backend_requests.of(backend, outcome) if backend else None,
            )
            if len(self._finished) < SERIES_MAX:
                self._finished[model, status, backend] = group
        return group

    def tried_group(self, lane: str, outcome: str, basis: str | None) -> Tried:
        lane = self._closed("lane", lane)
        outcome = self._closed("outcome", outcome)
        basis = basis and self._closed("basis", basis)
        group = self._tried.get((lane, outcome, basis))
        if group is None:
            settle = self.settle.of(basis) if basis else None
            group = Tried(self.attempts.of(lane, outcome), settle, self.first_chunk.of(lane))
            if len(self._tried) < SERIES_MAX:
                self._tried[lane, outcome, basis] = group
        return group

    def exposition(self, money: Mapping[str, Mapping[str, int]] | None = None) -> bytes:
        """What `/metrics` answers: every worker's counters, or these alone when they are in memory; and the books' money.

        It reads files and may wait for another scrape, so a server calls it in a thread. `money` is by kind of account
        and state; None leaves it out.
        """
        place = _index(MONEY, "gauge")
        beside = {
            (place, label_text(METRICS[place].labels, (kind, state))): [amount % 2**64]
            for kind, states in (money or {}).items()
            for state, amount in states.items()
        }
        if self._directory is not None:
            return scrape(self._directory, beside)
        return render({(entry.metric, entry.labels): entry.words for entry in self._shelf.entries()} | beside)

    def close(self) -> None:
        """Give the file up: what was counted stays in the totals, gauges and later updates do not."""
        if self._fd >= 0:
            # The mapping holds a copy of the descriptor, so closing ours alone would not unlock the file.
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            os.close(self._fd)
            self._fd = -1

    def _counters(self, name: str) -> Counters:
        index = _index(name, "counter")
        return Counters(lambda labels, handles: self._bind(index, labels, handles, self._shelf.slots.counter))

    def _histograms(self, name: str) -> Family[Histogram]:
        index = _index(name, "histogram")
        bounds = METRICS[index].bounds

        def make(word: int) -> Histogram:
            return self._shelf.slots.histogram(word, bounds)

        return Family(lambda labels, handles: self._bind(index, labels, handles, make))

    def _single(self, name: str) -> Counter:
        return self._bind(_index(name, "counter"), (), {}, self._shelf.slots.counter)

    def _gauge(self, name: str) -> Gauge:
        return self._bind(_index(name, "gauge"), (), {}, self._shelf.slots.gauge)

    def _bind(
        self,
        index: int,
        labels: tuple[Label, ...],
        handles: dict[tuple[Label, ...], Handle],
        make: Callable[[int], Handle],
    ) -> Handle:
        names = METRICS[index].labels
        if len(labels) != len(names):
            raise TypeError(f"{METRICS[index].name} has the labels {names}, not {len(labels)} of them")
        values = tuple(self._closed(name, value) for name, value in zip(names, labels, strict=True))
        known = handles.get(values)
        if known is not None:
            return known
        with self._binding:
            text = label_text(names, values)
            if (index, text) not in self._bound and not self._room(index, text):
                self.series_overflow.inc()
                values = (OTHER,) * len(names)
                text = label_text(names, values)
            handle = self._bound.get((index, text))
            if handle is None:
                handle = self._bound[index, text] = make(self._shelf.add(index, text))
            # One index has one type of handle.
            handles[values] = handle = cast("Handle", handle)
            if values == tuple(map(str, labels)):  # a status code comes as a number
                handles[labels] = handle
        return handle

    def _room(self, index: int, text: bytes) -> bool:
        return not text or (len(self._bound) < SERIES_MAX and self._shelf.takes(index, text, _RESERVE))

    def _closed(self, label: str, value: Label) -> str:
        known = self._known.get(label)
        if known is not None:
            return value if isinstance(value, str) and value in known and len(value) <= _NAME_MAX else OTHER
        # The words of our own code; their shape is checked so that no text from outside gets in by mistake.
        text = str(value)
        shape = _CODE if label == "status_code" else _WORD
        return text if shape.fullmatch(text) else OTHER


def label_text(names: tuple[str, ...], values: tuple[str, ...]) -> bytes:
    """Labels as the exposition prints them, escaped."""
    pairs = (
        '{}="{}"'.format(name, value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"'))
        for name, value in zip(names, values, strict=True)
    )
    return ",".join(pairs).encode("utf-8", "backslashreplace")


def _index(name: str, kind: Kind) -> int:
    index = _INDEX[name]
    assert METRICS[index].kind == kind, name
    return index
