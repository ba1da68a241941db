"""What there is to count is fixed for the outside: names, kinds and labels are a contract with dashboards."""

import re

from fastroute.metrics import METRICS, Counter, Gauge, Metrics
from fastroute.metrics.recorder import Family
from fastroute.metrics.table import MONEY

CONTRACT = """
router_requests_total counter model status_code
router_fallback_total counter from to
router_request_latency_ms histogram model
router_request_latency_seconds histogram backend
router_cost_usd histogram model
router_tokens_total counter model type
router_active_requests gauge
router_cache_hits_total counter model
router_backend_requests_total counter backend outcome
fastroute_first_chunk_seconds histogram lane
fastroute_attempts_total counter lane outcome
fastroute_verdicts_total counter class
fastroute_refusals_total counter kind
fastroute_pricing_miss_total counter
fastroute_events_dropped_total counter
fastroute_stream_abort_total counter side phase
fastroute_limit_total counter what
fastroute_settle_total counter basis
fastroute_ledger_breach_total counter
fastroute_usage_implausible_total counter
fastroute_loop_lag_seconds histogram
router_tier_requests_total counter tier
fastroute_upstream_error_in_200_total counter
fastroute_first_chunk_timeout_total counter
fastroute_bad_json_total counter why
fastroute_body_aborted_total counter
fastroute_desync_rejected_total counter
fastroute_retry_budget_exhausted_total counter
fastroute_captures_total counter outcome
fastroute_shadows_total counter outcome
fastroute_money_microdollars gauge account_kind state
fastroute_series_overflow_total counter
"""


def test_the_names_and_labels_are_those_of_the_contract():
    assert {" ".join([m.name, m.kind, *m.labels]) for m in METRICS} == set(CONTRACT.strip().splitlines())
    assert len({m.name for m in METRICS}) == len(METRICS)


def test_latency_in_milliseconds_and_cost_have_the_buckets_dashboards_were_built_on():
    bounds = {m.name: [bound / m.per_unit for bound in m.bounds] for m in METRICS}
    assert bounds["router_request_latency_ms"] == [10, 50, 100, 250, 500, 1000, 2500, 5000, 10000]
    assert bounds["router_cost_usd"][0] == 1e-5
    assert bounds["router_cost_usd"][-1] == 0.1


def test_every_metric_is_named_and_explained_as_prometheus_wants_it():
    for metric in METRICS:
        assert re.fullmatch(r"(router|fastroute)_[a-z0-9_]+", metric.name)
        assert (metric.kind == "counter") == metric.name.endswith("_total")
        assert (metric.kind == "histogram") == bool(metric.bounds)
        assert metric.bounds == tuple(sorted(set(metric.bounds)))
        assert metric.help.endswith(".")
        assert "\n" not in metric.help
        assert "\\" not in metric.help


def test_each_metric_has_exactly_one_place_where_it_is_recorded():
    """A name without an attribute could never rise; the recorder refuses a second one of its own."""
    recorded = [one for one in vars(Metrics.in_memory()).values() if isinstance(one, Family | Counter | Gauge)]
    assert len(recorded) == len([metric for metric in METRICS if metric.name != MONEY]), "which the books tell"
