"""A directory of counters, and what a scrape of it says, read by Prometheus' own parser."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fastroute.metrics import Metrics, prepare

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
Read = Callable[[bytes], Samples]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    directory = tmp_path / "run" / "metrics"
    prepare(directory)
    return directory


@pytest.fixture
def metrics() -> Metrics:
    metrics = Metrics.in_memory()
    metrics.know(models=["mistral-small-latest", "mistral-medium-latest", "m"], lanes=["lane"], backends=["backend"])
    return metrics


@pytest.fixture
def opened(directory: Path) -> Iterator[Callable[[int], Metrics]]:
    """Makes workers' counters in the directory; they are given up at the end."""
    made: list[Metrics] = []

    def make(worker: int) -> Metrics:
        metrics = Metrics.open(directory, worker)
        metrics.know(models=["m"], lanes=["lane"], backends=["backend"])
        made.append(metrics)
        return metrics

    yield make
    for metrics in made:
        metrics.close()


@pytest.fixture
def samples() -> Read:
    """Every sample by name and sorted labels; no sample may come twice."""

    def read(text: bytes) -> Samples:
        found: Samples = {}
        for family in text_string_to_metric_families(text.decode()):
            for sample in family.samples:
                key = (sample.name, tuple(sorted(sample.labels.items())))
                assert key not in found, key
                found[key] = sample.value
        return found

    return read
