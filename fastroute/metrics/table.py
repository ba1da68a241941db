"""Every metric of the data plane: one table that recording, exposition and the tests read.

The first names are those our predecessors published, so existing dashboards go on working; `fastroute_` marks our own.
"""

from __future__ import annotations

import zlib
from typing import Final, Literal

from msgspec import Struct

Kind = Literal["counter", "gauge", "histogram"]


class Metric(Struct, frozen=True):
    """One name of the exposition; `bounds` and sums are whole units, `per_unit` of which are one of what is shown."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[int, ...] = ()
    per_unit: int = 1

    @property
    def width(self) -> int:
        """How many 64-bit words one series takes: a histogram has its sum, its buckets, and the one above them all."""
        return len(self.bounds) + 2 if self.bounds else 1


_US_PER_MS = 1_000
_US_PER_S = 1_000_000
_PICODOLLARS_PER_DOLLAR = 1_000_000_000_000

_MS = tuple(ms * _US_PER_MS for ms in (10, 50, 100, 250, 500, 1000, 2500, 5000, 10000))
_SECONDS = tuple(
    ms * _US_PER_MS for ms in (5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 120_000, 300_000)
)
# 0.00001 to 0.1 dollars
_DOLLARS = (*(step * 10**power for power in (7, 8, 9, 10) for step in (1, 5)), 10**11)

# Told by the books when it is asked for, not recorded by workers.
MONEY: Final = "fastroute_money_microdollars"

METRICS: tuple[Metric, ...] = (
    Metric("router_requests_total", "counter", "Requests answered.", ("model", "status_code")),
    Metric("router_fallback_total", "counter", "Attempts made because another model had failed.", ("from", "to")),
    Metric(
        "router_request_latency_ms",
        "histogram",
        "Milliseconds from a request's first byte to its answer's last.",
        ("model",),
        _MS,
        _US_PER_MS,
    ),
    Metric(
        "router_request_latency_seconds",
        "histogram",
        "Seconds from a request's first byte to its answer's last.",
        ("backend",),
        _SECONDS,
        _US_PER_S,
    ),
    Metric(
        "router_cost_usd",
        "histogram",
        "Dollars one request cost, all its attempts together.",
        ("model",),
        _DOLLARS,
        _PICODOLLARS_PER_DOLLAR,
    ),
    Metric("router_tokens_total", "counter", "Tokens billed by upstreams.", ("model", "type")),
    Metric("router_tier_requests_total", "counter", "Requests to `auto`, by the tier that was chosen.", ("tier",)),
    Metric("router_active_requests", "gauge", "Requests in progress."),
    Metric("router_cache_hits_total", "counter", "Requests answered from the cache.", ("model",)),
    Metric("router_backend_requests_total", "counter", "Requests by backend and outcome.", ("backend", "outcome")),
    Metric(
        "fastroute_first_chunk_seconds",
        "histogram",
        "Seconds from an attempt's start to its first content.",
        ("lane",),
        _SECONDS,
        _US_PER_S,
    ),
    Metric("fastroute_attempts_total", "counter", "Attempts by lane and outcome.", ("lane", "outcome")),
    Metric("fastroute_verdicts_total", "counter", "Candidates weighed, by what became of them.", ("class",)),
    Metric("fastroute_refusals_total", "counter", "Requests refused for want of money or allowance.", ("kind",)),
    Metric("fastroute_ledger_breach_total", "counter", "Settlements above what was reserved for them."),
    Metric("fastroute_usage_implausible_total", "counter", "Token counts that cannot be, settled by what was seen."),
    Metric("fastroute_settle_total", "counter", "Reservations closed, by what the amount rests on.", ("basis",)),
    Metric(
        "fastroute_pricing_miss_total",
        "counter",
        "Attempts whose price, or whose rate for cached tokens, is not known.",
    ),
    Metric("fastroute_events_dropped_total", "counter", "Log lines and events lost because nobody could take them."),
    Metric("fastroute_stream_abort_total", "counter", "Streams that ended early, by whom and when.", ("side", "phase")),
    Metric("fastroute_first_chunk_timeout_total", "counter", "Attempts given up before their first content."),
    Metric("fastroute_upstream_error_in_200_total", "counter", "Upstream errors under a status of 200."),
    Metric("fastroute_retry_budget_exhausted_total", "counter", "Failovers not made because too many were."),
    Metric("fastroute_limit_total", "counter", "Requests or answers cut at a limit.", ("what",)),
    Metric("fastroute_bad_json_total", "counter", "Bodies refused as JSON, by what was wrong.", ("why",)),
    Metric("fastroute_body_aborted_total", "counter", "Bodies whose sender left before their end."),
    Metric("fastroute_desync_rejected_total", "counter", "Requests whose framing can be read in two ways."),
    Metric(
        "fastroute_loop_lag_seconds",
        "histogram",
        "Seconds by which beats of the event loop came late, four times a second.",
        (),
        _SECONDS,
        _US_PER_S,
    ),
    Metric(
        "fastroute_captures_total", "counter", "Prompts that a policy wants kept, by what became of them.", ("outcome",)
    ),
    Metric(
        "fastroute_shadows_total", "counter", "Requests asked again of a shadow, by what became of it.", ("outcome",)
    ),
    Metric(
        MONEY,
        "gauge",
        "Microdollars that live accounts may spend, by where they are; left out while the books are away.",
        ("account_kind", "state"),
    ),
    Metric("fastroute_series_overflow_total", "counter", "Updates counted as `other` for want of room."),
)

# A file written by another table cannot be read by this one.
FINGERPRINT = zlib.crc32(repr(METRICS).encode())
