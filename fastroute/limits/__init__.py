"""Limits of one host: requests and tokens per window and requests at once, counted together by all worker processes.

`Limiter` is what a worker asks, `file` where the table lies, `_table` how it counts, `addresses` who an anonymous caller is.
"""

from fastroute.limits._table import KEY_MAX, LIMIT_MAX, TOKENS_MAX, WORKERS_MAX, Pass
from fastroute.limits.addresses import Addresses
from fastroute.limits.file import SLOTS, WINDOW_S, LimitsError
from fastroute.limits.limits import Exceeded, Kind, Limiter, Limits

__all__ = [
    "KEY_MAX",
    "LIMIT_MAX",
    "SLOTS",
    "TOKENS_MAX",
    "WINDOW_S",
    "WORKERS_MAX",
    "Addresses",
    "Exceeded",
    "Kind",
    "Limiter",
    "Limits",
    "LimitsError",
    "Pass",
]
