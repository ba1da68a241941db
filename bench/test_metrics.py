"""What counting and logging cost: one update, one finished request, one scrape, one line of the log.

`pytest bench/test_metrics.py --benchmark-enable`; medians, one process, in-memory or on the disk of the temporary directory.
"""

import logging
from pathlib import Path

import pytest

from fastroute import logs
from fastroute.metrics import Metrics, prepare, scrape

MODELS = [f"provider-{n % 7}/model-{n:03}" for n in range(100)]


@pytest.fixture
def metrics() -> Metrics:
    metrics = Metrics.in_memory()
    metrics.know(models=["m", *MODELS], lanes=["lane"], backends=["backend"])
    return metrics


def many(benchmark, call, *arguments) -> None:
    """The harness itself takes longer than one of these calls, so it times a thousand at once."""
    benchmark.pedantic(call, arguments, rounds=300, iterations=1000, warmup_rounds=5)


def test_inc(benchmark, metrics):
    many(benchmark, metrics.requests.of("m", 200).inc)


def test_inc_by_labels(benchmark, metrics):
    many(benchmark, metrics.requests, "m", 200)


def test_observe(benchmark, metrics):
    many(benchmark, metrics.latency_ms.of("m").observe, 112_500)


def test_finished(benchmark, metrics):
    many(benchmark, metrics.finished, "m", 200, 112.5, 5_600_000, 11, 15, "backend")


def test_finished_with_an_invented_model(benchmark, metrics):
    many(benchmark, metrics.finished, "invented", 404, 0.4)


def test_attempt(benchmark, metrics):
    many(benchmark, metrics.attempt, "lane", "ok", "exact", 55.0)


def test_verdicts_of_50_candidates(benchmark, metrics):
    many(benchmark, metrics.verdicts, bytes([0] * 20 + [1] * 10 + [6] * 20))


def fill(metrics: Metrics) -> None:
    """About 1000 series, a quarter of them histograms: 100 models with five statuses each."""
    for model in MODELS:
        for status in (200, 429, 500, 502, 504):
            metrics.finished(model, status, 112.5, 5_600_000, 11, 15)


def test_scrape_of_1000_series_of_two_workers(benchmark, tmp_path: Path):
    prepare(tmp_path)
    workers = [Metrics.open(tmp_path, n) for n in range(2)]
    for metrics in workers:
        metrics.know(models=MODELS)
        fill(metrics)
    text = benchmark(scrape, tmp_path)
    assert 900 < sum(len(metrics._bound) for metrics in workers) / 2 < 1100
    assert text.count(b"\n") > 2900
    for metrics in workers:
        metrics.close()


FIELDS = {
    "method": "POST",
    "path": "/v1/chat/completions",
    "status": 200,
    "ms": 112,
    "model": "mistral-small-latest",
    "lane": "mistral",
    "reason": "default_small",
    "tokens_in": 11,
    "tokens_out": 15,
    "cost_usd": "0.0000056",
    "key": "k_1a2b3c4d",
}


@pytest.fixture
def book(tmp_path: Path):
    yield logs.setup("INFO", tmp_path / "router.log", 0)
    logs.shutdown()


def batches(benchmark, book: logs.Logs, call) -> None:
    """The caller's side only: fewer lines at once than the queue holds, and the writer empties it in between."""
    benchmark.pedantic(call, setup=lambda: book.flush() and None, rounds=20, iterations=1, warmup_rounds=2)
    assert book.dropped == 0


def test_log_one_request(benchmark, book):
    """1000 requests a round: divide by a thousand."""

    def log() -> None:
        for _ in range(1000):
            book.request("req_0123456789abcdef", **FIELDS)

    batches(benchmark, book, log)


def test_log_one_info_line(benchmark, book):
    """1000 lines a round: divide by a thousand."""
    author = logging.getLogger("fastroute.bench")
    # Past the handlers of pytest, which format every record on the spot.
    author.handlers = [handler for handler in logging.getLogger().handlers if isinstance(handler, logs._Queued)]
    author.propagate = False

    def log() -> None:
        for n in range(1000):
            author.info("served %s in %d ms", "alice", n)

    batches(benchmark, book, log)


def test_write_one_request(benchmark, book):
    """The writer's side of 1000 requests, formatting, masking and writing: divide by a thousand."""
    entries = [(1_780_000_000_000_000_000 + n, "req_0123456789abcdef", FIELDS) for n in range(1000)]
    benchmark.pedantic(book._write, (entries,), rounds=20, warmup_rounds=2)
