"""A descriptor is read strictly, and the first rule that fails is the one that is told."""

import pytest

from fastroute import parse_descriptor
from fastroute.domain import Agent, Descriptor, ExpectedTokens
from fastroute.errors import DescriptorError
from fastroute.routing.descriptor import decode_route_request

GOOD = {
    "task_class": "extraction",
    "budget_ceiling_microdollars": 50_000,
    "latency_tolerance_ms": 30_000,
}


def refused(**changes):
    with pytest.raises(DescriptorError) as caught:
        parse_descriptor(GOOD | changes)
    return caught.value


def test_a_whole_descriptor_becomes_one_struct():
    body = GOOD | {
        "expected_tokens": {"in": 2000, "out": 500},
        "capabilities": ["tools"],
        "runtime_preference": "managed",
        "agent": {"digest": "sha256:9f2c", "name": "invoice-extractor", "version": "1.4.0"},
        "max_outcome_iterations": 3,
    }
    assert parse_descriptor(body) == Descriptor(
        "extraction",
        50_000,
        30_000,
        ExpectedTokens(2000, 500),
        ("tools",),
        "managed",
        Agent("sha256:9f2c", "invoice-extractor", "1.4.0"),
        3,
    )


def test_what_is_absent_and_what_is_null_are_the_same():
    nulls = dict.fromkeys(
        ("quality_bar", "expected_tokens", "capabilities", "runtime_preference", "agent", "max_outcome_iterations")
    )
    assert parse_descriptor(GOOD | nulls) == parse_descriptor(GOOD)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"task_class": ""}, "task_class"),
        ({"task_class": None}, "task_class"),
        ({"budget_ceiling_microdollars": -1}, "budget_ceiling_microdollars"),
        ({"budget_ceiling_microdollars": 0}, "budget_ceiling_microdollars"),
        ({"budget_ceiling_microdollars": 1.5}, "budget_ceiling_microdollars"),
        ({"budget_ceiling_microdollars": "5"}, "budget_ceiling_microdollars"),
        ({"budget_ceiling_microdollars": True}, "budget_ceiling_microdollars"),
        ({"budget_ceiling_microdollars": 2**63}, "budget_ceiling_microdollars"),
        ({"latency_tolerance_ms": 0}, "latency_tolerance_ms"),
        ({"capabilities": "tools"}, "capabilities"),
        ({"capabilities": ["telekinesis"]}, "capabilities"),
        ({"capabilities": [["tools"]]}, "capabilities"),
        ({"runtime_preference": "quantum"}, "runtime_preference"),
        ({"runtime_preference": False}, "runtime_preference"),
        ({"expected_tokens": {"in": -5, "out": 0}}, "expected_tokens"),
        ({"expected_tokens": {"in": 5}}, "expected_tokens"),
        ({"expected_tokens": {"in": 5, "out": 10**9 + 1}}, "expected_tokens"),
        ({"expected_tokens": [1, 2]}, "expected_tokens"),
        ({"agent": {}}, "agent"),
        ({"agent": {"digest": ""}}, "agent"),
        ({"agent": {"digest": "d", "name": 5}}, "agent"),
        ({"agent": {"digest": "d", "version": ["1"]}}, "agent"),
        ({"max_outcome_iterations": 0}, "max_outcome_iterations"),
        ({"max_outcome_iterations": 10**7}, "max_outcome_iterations"),
        ({"max_outcome_iterations": False}, "max_outcome_iterations"),
    ],
)
def test_m_a9_a_bad_field_is_named_with_its_value(changes, field):
    error = refused(**changes)
    assert (error.kind, error.field) == ("invalid_descriptor", field)


@pytest.mark.parametrize("bar", [0.9, False, 0, "high"])
def test_m_a9_any_quality_bar_is_its_own_refusal(bar):
    error = refused(quality_bar=bar, task_class="")
    assert (error.kind, error.field) == ("quality_bar_unsupported", "quality_bar")


def test_the_first_rule_in_the_contracts_order_wins():
    broken = {
        "quality_bar": 1,
        "task_class": "",
        "budget_ceiling_microdollars": 0,
        "latency_tolerance_ms": 0,
        "capabilities": 1,
        "runtime_preference": 1,
        "expected_tokens": 1,
        "agent": 1,
        "max_outcome_iterations": 0,
    }
    met = []
    while broken:
        with pytest.raises(DescriptorError) as caught:
            parse_descriptor(GOOD | broken)
        met.append(caught.value.field)
        del broken[caught.value.field]
    assert met == [
        "quality_bar",
        "task_class",
        "budget_ceiling_microdollars",
        "latency_tolerance_ms",
        "capabilities",
        "runtime_preference",
        "expected_tokens",
        "agent",
        "max_outcome_iterations",
    ]


def test_a_long_value_is_cut_in_the_message():
    assert len(str(refused(budget_ceiling_microdollars="9" * 10_000))) < 200


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'"x"', b"\xff", b"null"])
def test_what_is_not_a_json_object_is_refused_as_the_body(text):
    with pytest.raises(DescriptorError) as caught:
        decode_route_request(text)
    assert caught.value.field == "body"


def test_a_route_request_keeps_the_ids_beside_the_descriptor():
    request = decode_route_request(
        b'{"task_class":"t","budget_ceiling_microdollars":1,"latency_tolerance_ms":1,"workflow_id":"w","step_id":"s"}'
    )
    assert (request.workflow_id, request.step_id, request.parent_step_id) == ("w", "s", None)
    with pytest.raises(DescriptorError, match="workflow_id"):
        decode_route_request(
            b'{"task_class":"t","budget_ceiling_microdollars":1,"latency_tolerance_ms":1,"workflow_id":5}'
        )
