"""What a replay measured, weighed: medians and means beside what was recorded, and the policy that follows."""

import pytest

from fastroute.policies import Policy, Routing
from fastroute.weighing import Measured, Pair, patched, weigh

OLD = Measured(1000, 100, 800)


def pairs(*latencies, cost=100, quality=800, failed=0, recorded=OLD):
    good = [Pair(recorded, "ok", Measured(ms, cost, quality)) for ms in latencies]
    return good + [Pair(recorded, "5xx")] * failed


def policy(*backups, primary=("p",), version=None):
    return Policy("x", Routing(primary, backups), version=version)


def weighed(recorded=OLD, runs=3, **alternatives):
    return weigh([recorded] * runs, alternatives)


def test_latency_is_a_median_cost_and_quality_are_means_and_deltas_are_to_the_same_requests():
    quick, slow = Measured(100, 10, 1000), Measured(900, 30, 400)
    recorded, [line] = weigh(
        [quick, slow],
        {"a": [Pair(quick, "ok", Measured(200, 20, 900)), Pair(slow, "stall")]},
    )
    assert (recorded.latency_ms, recorded.cost_picodollars, recorded.quality) == (500, 20, 700)
    assert (line.runs, line.answered, line.failures) == (2, 1, {"stall": 1})
    assert (line.latency_delta_ms, line.cost_delta_picodollars, line.quality_delta) == (100, 10, -100)


def test_without_a_judge_the_least_score_comes_first():
    """0.6 of the latency and 0.4 of the cost, beside the largest there is."""
    _, lines = weighed(
        a=pairs(900, cost=50, quality=None), b=pairs(300, cost=100, quality=None), c=pairs(2000, quality=None)
    )
    assert [(line.model, line.score) for line in lines] == [("a", 470), ("b", 490), ("c", 1000)]


def test_with_a_judge_the_best_answers_come_first():
    _, lines = weighed(a=pairs(100, quality=300), b=pairs(900, quality=900))
    assert [line.model for line in lines] == ["b", "a"]


def test_an_unknown_cost_is_no_cost_at_all():
    _, lines = weighed(a=pairs(100, cost=None, quality=None), b=pairs(900, quality=None))
    assert [(line.model, line.cost_picodollars, line.score) for line in lines] == [("b", 100, 940), ("a", None, None)]


def test_who_never_answered_comes_last_and_has_no_figures():
    _, lines = weighed(a=pairs(failed=3), b=pairs(5000, quality=0))
    assert [line.model for line in lines] == ["b", "a"]
    assert (lines[1].answered, lines[1].latency_ms, lines[1].score) == (0, None, None)


def patch(before, **alternatives):
    recorded, lines = weighed(**alternatives)
    after = patched(before, recorded, lines)
    return after.routing.primary, after.routing.backups


def test_the_primary_stays_and_backups_are_sorted_by_measured_latency():
    found = patch(policy("a", "b"), a=pairs(900), b=pairs(300), c=pairs(500), p=pairs(10))
    assert found == (("p",), ("b", "c", "a"))


def test_what_was_not_measured_stands_behind_what_was():
    assert patch(policy("z", "a"), a=pairs(900)) == (("p",), ("a", "z"))


def test_what_mostly_fails_is_not_taken_in_and_stands_last_if_it_was_there():
    assert patch(policy("a", "z"), a=pairs(1, failed=1), b=pairs(1, failed=2), c=pairs(1, 1, failed=1)) == (
        ("p",),
        ("c", "z", "a"),
    )


def test_what_is_clearly_worse_stands_behind_what_is_as_good():
    assert patch(policy(), a=pairs(100, quality=600), b=pairs(900, quality=601)) == (("p",), ("b", "a"))


@pytest.mark.parametrize(
    ("runs", "promoted"),
    [
        (pairs(*[700] * 10), True),
        (pairs(*[700] * 9), False),  # too few
        (pairs(*[701] * 10), False),  # not fast enough
        (pairs(*[700] * 10, cost=101), False),  # dearer
        (pairs(*[700] * 10, quality=799), False),  # worse
        (pairs(*[700] * 10, quality=None), False),  # nobody judged
        (pairs(*[700] * 10, failed=1), False),  # not always there
    ],
)
def test_only_who_is_clearly_better_becomes_the_first(runs, promoted):
    assert patch(policy("z"), a=runs) == ((("a",), ("p", "z")) if promoted else (("p",), ("a", "z")))


def test_a_policy_that_changes_has_the_next_version():
    recorded, lines = weighed(a=pairs(100))
    assert patched(policy("b", version=4), recorded, lines).version == 5
    assert patched(policy("a", version=4), recorded, lines).version == 4
    assert patched(policy("b"), recorded, lines).version is None
