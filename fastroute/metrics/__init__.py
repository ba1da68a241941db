"""Counters of one host: many worker processes count in files of their own, and one scrape adds them up.

`Metrics` is what a worker counts with, `table` what there is to count, `shelf` the file, `exposition` the sum and its text.
"""

from fastroute.metrics._slots import Counter, Gauge, Histogram
from fastroute.metrics.exposition import CONTENT_TYPE, prepare, scrape
from fastroute.metrics.recorder import SERIES_MAX, Metrics
from fastroute.metrics.shelf import MetricsError
from fastroute.metrics.table import METRICS, Metric

__all__ = [
    "CONTENT_TYPE",
    "METRICS",
    "SERIES_MAX",
    "Counter",
    "Gauge",
    "Histogram",
    "Metric",
    "Metrics",
    "MetricsError",
    "prepare",
    "scrape",
]
