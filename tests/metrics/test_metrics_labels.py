"""S27: labels are closed sets, and the number of series is bounded; what falls outside is `other`."""

import pytest

from fastroute.domain import OUTCOMES
from fastroute.metrics import SERIES_MAX, Metrics


def test_c28_a_model_nobody_declared_is_counted_as_other(metrics, samples):
    for n in range(1000):
        metrics.finished(f"invented-{n}", 404, 1)
        metrics.requests(f"invented-{n}", 404)
    found = samples(metrics.exposition())
    assert found["router_requests_total", (("model", "other"), ("status_code", "404"))] == 2000
    assert not [labels for _, labels in found if "invented" in str(labels)]


def test_invented_names_take_no_memory(metrics):
    metrics.requests("invented", 200)
    metrics.finished("invented", 200, 1, backend="invented")
    metrics.attempt("invented", "ok", "exact", 1)
    sizes = [len(metrics.requests._handles), len(metrics._finished), len(metrics._tried), len(metrics._bound)]
    for n in range(500):
        metrics.requests(f"invented-{n}", 200)
        metrics.finished(f"invented-{n}", 200, 1, backend=f"invented-{n}")
        metrics.attempt(f"invented-{n}", f"Not A Word {n}", f"NOT {n}", 1)
    again = [len(metrics.requests._handles), len(metrics._finished), len(metrics._tried), len(metrics._bound)]
    assert [b - a for a, b in zip(sizes, again, strict=True)] == [0, 0, 1, 2]  # outcome and basis `other`


@pytest.mark.parametrize("status", [0, 99, 600, 999, -200, "2000", "abc"])
def test_a_status_that_is_none_is_other(metrics, samples, status):
    metrics.requests("m", status)
    assert samples(metrics.exposition())["router_requests_total", (("model", "m"), ("status_code", "other"))] == 1


def test_words_of_ours_pass_and_anything_shaped_otherwise_does_not(metrics, samples):
    for outcome in OUTCOMES:
        metrics.attempt("lane", outcome)
    for text in ("sk-live-0123456789", "Two Words", "", "x" * 41, "ünïcode", 'a"b'):
        metrics.limit(text)
    found = samples(metrics.exposition())
    assert {dict(labels)["outcome"] for name, labels in found if name == "fastroute_attempts_total"} == set(OUTCOMES)
    assert {labels for name, labels in found if name == "fastroute_limit_total"} == {(("what", "other"),)}
    assert found["fastroute_limit_total", (("what", "other"),)] == 6


def test_a_status_is_one_series_whether_it_comes_as_a_number_or_as_text(metrics, samples):
    metrics.requests("m", 200)
    metrics.requests("m", "200")
    assert metrics.requests.of("m", 200) is metrics.requests.of("m", "200")
    assert samples(metrics.exposition())["router_requests_total", (("model", "m"), ("status_code", "200"))] == 2


def test_beyond_the_most_series_everything_new_is_other_and_said_to_be(samples):
    metrics = Metrics.in_memory()
    names = [f"model-{n:05}" for n in range(SERIES_MAX + 500)]
    metrics.know(models=names)
    for name in names:
        metrics.cache_hit(name)
    found = samples(metrics.exposition())
    overflowed = found["fastroute_series_overflow_total", ()]
    assert 500 <= overflowed <= 600
    assert found["router_cache_hits_total", (("model", "other"),)] == overflowed
    assert sum(n for (name, _), n in found.items() if name == "router_cache_hits_total") == len(names)
    metrics.cache_hit(names[0])  # what has its series keeps it
    assert samples(metrics.exposition())["router_cache_hits_total", (("model", names[0]),)] == 2


def test_when_the_memory_is_full_every_metric_still_has_room_for_other(samples):
    """Histograms are wide: the slots end before the number of series does."""
    metrics = Metrics.in_memory()
    names = [f"model-{n:05}-{'x' * 180}" for n in range(600)]
    metrics.know(models=names, lanes=names, backends=names)
    for name in names:
        metrics.finished(name, 200, 1, 1, 1, 1, name)
        metrics.attempt(name, "ok", "exact", 1)
        metrics.fallback(name, name)
    for family in (metrics.refusal, metrics.limit, metrics.bad_json):
        family("a_new_word")
    metrics.stream_abort("up", "mid")
    found = samples(metrics.exposition())
    assert found["router_request_latency_ms_count", (("model", "other"),)] > 0
    assert sum(n for (name, _), n in found.items() if name == "router_requests_total") == 600
    assert sum(n for (name, _), n in found.items() if name == "fastroute_refusals_total") == 1


def test_a_name_too_long_for_a_label_is_other(metrics, samples):
    metrics.know(models=["x" * 201])
    metrics.requests("x" * 201, 200)
    assert samples(metrics.exposition())["router_requests_total", (("model", "other"), ("status_code", "200"))] == 1


def test_a_wrong_number_of_labels_is_our_mistake_and_loud(metrics):
    with pytest.raises(TypeError, match="router_requests_total"):
        metrics.requests("m")


def test_numbers_that_cannot_be_counted_change_nothing(metrics):
    before = metrics.exposition()
    handle, histogram = metrics.settle.of("exact"), metrics.cost_usd.of("m")
    for wrong in (-1, 2**64):
        with pytest.raises(OverflowError):
            handle.inc(wrong)
        with pytest.raises(OverflowError):
            histogram.observe(wrong)
        with pytest.raises(OverflowError):
            metrics.finished("other", 200, 1, wrong)
    assert handle.value == 0
    assert histogram.value[0] == 0
    assert len(before) < len(metrics.exposition())  # the series exist, and stand at zero
    assert metrics.requests.of("other", 200).value == 0


@pytest.mark.parametrize("ms", [-5, float("nan"), float("-inf")])
def test_a_time_that_is_none_is_zero(metrics, ms):
    metrics.finished("m", 200, ms)
    metrics.attempt("lane", "ok", None, ms)
    assert metrics.latency_ms.of("m").value[0] == 0
    assert metrics.first_chunk.of("lane").value[0] == 0
