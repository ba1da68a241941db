"""The text of a scrape: the exact lines of the seed, and what Prometheus' own parser makes of it."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from fastroute.metrics import CONTENT_TYPE, METRICS, Metrics


def lines(metrics):
    return metrics.exposition().decode().splitlines()


def test_t_a11_the_lines_of_the_seed_come_out_byte_for_byte(metrics):
    assert 'router_fallback_total{from="small",to="medium"} 0.0' in lines(metrics)
    metrics.finished("mistral-small-latest", 200, 112.0, 5_600_000, 11, 15, "backend")
    metrics.finished("mistral-medium-latest", 200, 250.0, 152_000_000, 210, 34, "backend")
    shown = lines(metrics)
    assert 'router_requests_total{model="mistral-small-latest",status_code="200"} 1.0' in shown
    assert 'router_requests_total{model="mistral-medium-latest",status_code="200"} 1.0' in shown
    assert 'router_fallback_total{from="small",to="medium"} 0.0' in shown
    metrics.fallback("small", "medium")
    assert 'router_fallback_total{from="small",to="medium"} 1.0' in lines(metrics)


def test_the_content_type_is_that_of_text_0_0_4():
    assert CONTENT_TYPE == "text/plain; version=0.0.4; charset=utf-8"


def test_one_finished_request_shows_in_both_latencies_its_cost_its_tokens_and_its_backend(metrics, samples):
    metrics.finished("m", 200, 112.5, 5_600_000, 11, 15, "backend")
    found = samples(metrics.exposition())
    model, backend = (("model", "m"),), (("backend", "backend"),)
    assert found["router_request_latency_ms_sum", model] == 112.5
    assert found["router_request_latency_ms_count", model] == 1
    assert found["router_request_latency_seconds_sum", backend] == 0.1125
    assert found["router_cost_usd_sum", model] == 0.0000056
    assert found["router_tokens_total", (("model", "m"), ("type", "input"))] == 11
    assert found["router_tokens_total", (("model", "m"), ("type", "output"))] == 15
    assert found["router_backend_requests_total", (("backend", "backend"), ("outcome", "ok"))] == 1
    assert found["router_request_latency_ms_bucket", (("le", "100.0"), *model)] == 0
    assert found["router_request_latency_ms_bucket", (("le", "250.0"), *model)] == 1


@pytest.mark.parametrize(
    ("status", "outcome"), [(200, "ok"), (399, "ok"), (404, "client_error"), (502, "server_error")]
)
def test_t_b7_a_failure_is_counted_and_timed_under_the_real_model(metrics, samples, status, outcome):
    metrics.finished("m", status, 30_000, None, 0, 0, "backend")
    found = samples(metrics.exposition())
    assert found["router_requests_total", (("model", "m"), ("status_code", str(status)))] == 1
    assert found["router_request_latency_ms_sum", (("model", "m"),)] == 30_000
    assert found["router_backend_requests_total", (("backend", "backend"), ("outcome", outcome))] == 1
    assert found["router_cost_usd_count", (("model", "m"),)] == 0


def test_a_request_that_reached_no_backend_is_counted_under_none(metrics, samples):
    metrics.finished("m", 402, 1)
    found = samples(metrics.exposition())
    assert found["router_requests_total", (("model", "m"), ("status_code", "402"))] == 1
    assert not [name for name, _ in found if name.startswith("router_backend")]


def test_an_attempt_counts_its_outcome_its_settlement_and_its_first_chunk(metrics, samples):
    metrics.attempt("lane", "ok", "exact", 55)
    metrics.attempt("lane", "stall", "presumed")
    metrics.attempt("lane", "connect")
    found = samples(metrics.exposition())
    assert {labels[1][1]: n for (name, labels), n in found.items() if name == "fastroute_attempts_total"} == {
        "ok": 1,
        "stall": 1,
        "connect": 1,
    }
    assert found["fastroute_settle_total", (("basis", "exact"),)] == 1
    assert found["fastroute_settle_total", (("basis", "presumed"),)] == 1
    assert found["fastroute_first_chunk_seconds_count", (("lane", "lane"),)] == 1
    assert found["fastroute_first_chunk_seconds_sum", (("lane", "lane"),)] == 0.055


def test_a_decision_counts_one_chosen_the_rest_ranked_and_each_exclusion(metrics, samples):
    metrics.verdicts(bytes([0, 0, 0, 1, 6, 6, 8]))
    metrics.verdicts(bytes([4]))
    metrics.verdicts(b"")
    found = samples(metrics.exposition())
    counted = {labels[0][1]: n for (name, labels), n in found.items() if name == "fastroute_verdicts_total" and n}
    assert counted == {"chosen": 1, "ranked": 2, "capability": 1, "cost": 2, "context": 1, "health": 1}
    with pytest.raises(ValueError, match="verdict 9"):
        metrics.verdicts(bytes([9]))


@given(st.lists(st.integers(0, 8 * 10**17), max_size=20))
def test_a_sum_of_money_is_exact_to_the_last_picodollar(amounts):
    metrics = Metrics.in_memory()
    metrics.know(models=["m"])
    for amount in amounts:
        metrics.cost_usd.of("m").observe(amount)
    if amounts:
        (line,) = [line for line in lines(metrics) if line.startswith("router_cost_usd_sum")]
        assert Decimal(line.rpartition(" ")[2]) == Decimal(sum(amounts)).scaleb(-12)


@given(st.lists(st.integers(0, 2 * 10**10), max_size=50))
def test_buckets_add_up_as_counted_one_by_one(values):
    """A value on a bound is inside it; `+Inf` is everything; buckets never fall."""
    metrics = Metrics.in_memory()
    metrics.know(lanes=["lane"])
    histogram = metrics.first_chunk.of("lane")
    for value in values:
        histogram.observe(value)
    (table,) = [m for m in METRICS if m.name == "fastroute_first_chunk_seconds"]
    expected = [sum(value <= bound for value in values) for bound in table.bounds] + [len(values)]
    shown = [line for line in lines(metrics) if line.startswith("fastroute_first_chunk_seconds_bucket")]
    assert [float(line.rpartition(" ")[2]) for line in shown] == expected
    assert histogram.value[0] == sum(values)


def test_every_metric_has_its_help_and_type_even_before_it_is_used():
    families = {f.name: f for f in text_string_to_metric_families(Metrics.in_memory().exposition().decode())}
    for metric in METRICS:
        family = families[metric.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (metric.kind, metric.help)


@given(st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=8, unique=True))
def test_any_declared_name_survives_the_way_through_the_text(names):
    """Quotes, backslashes, line ends and other alphabets are escaped, not lost."""
    metrics = Metrics.in_memory()
    metrics.know(models=names)
    for name in names:
        metrics.requests(name, 200)
    text = metrics.exposition().decode()
    families = {f.name: f for f in text_string_to_metric_families(text)}
    assert {sample.labels["model"] for sample in families["router_requests"].samples} == set(names)


def test_the_order_is_that_of_the_table_and_of_the_labels_whatever_came_first():
    one, other = Metrics.in_memory(), Metrics.in_memory()
    for metrics, names in ((one, ["b", "a", "c"]), (other, ["c", "b", "a"])):
        metrics.know(models=names)
        for name in names:
            metrics.requests(name, 200)
            metrics.latency_ms.of(name).observe(5)
    assert one.exposition() == other.exposition()
    assert one.exposition().endswith(b"\n")


def test_a_gauge_may_stand_below_zero(metrics, samples):
    metrics.active.dec()
    assert samples(metrics.exposition())["router_active_requests", ()] == -1
    metrics.active.inc()
    metrics.active.inc()
    assert samples(metrics.exposition())["router_active_requests", ()] == 1


def test_money_is_shown_when_it_is_told_and_left_out_when_not(metrics, samples):
    """It may be below zero: a breach is charged in full."""
    name = "fastroute_money_microdollars"
    assert not [line for line in lines(metrics) if line.startswith(name)]
    found = samples(metrics.exposition({"key": {"free": -5, "spent": 2**53 + 1}}))
    assert found[name, (("account_kind", "key"), ("state", "free"))] == -5
    text = metrics.exposition({"key": {"free": -5, "spent": 2**53 + 1}}).decode()
    assert f'{name}{{account_kind="key",state="spent"}} 9007199254740993.0' in text
    assert not [line for line in lines(metrics) if line.startswith(name)]
