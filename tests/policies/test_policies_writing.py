"""A policy written out: it reads back as itself, and its digest is of what it says and not of how."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from fastroute.config import document
from fastroute.policies import (
    RETRY_WORDS,
    Budgets,
    Capture,
    Objectives,
    Parameters,
    Policy,
    Routing,
    Shadow,
    Strategy,
    digest,
    load_policies,
    read_policy,
    to_yaml,
)

EXAMPLES = 1000 if os.environ.get("FASTROUTE_TORTURE") else 100


def options(values):
    return st.none() | values


def lists(values, most, least=0):
    return st.lists(values, min_size=least, max_size=most, unique=True).map(tuple)


# A dollar sign before a brace is a reference to the configuration's reader; it is taken as it stands or refused.
anything = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="$"), min_size=1, max_size=40)
tricky = st.sampled_from(
    ["null", "yes", "5", "1e3", "~", "- a", "a: b", "# x", "'", '"', "\\", "${NAME}", "\u2028", "\x00"]
)
prose = (anything | tricky).filter(str.strip)
names = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="$"), min_size=1, max_size=20).filter(
    lambda name: name.isprintable() and name != "auto"
)
parameters = st.builds(
    Parameters,
    options(st.integers(0, 2000)),
    options(st.integers(0, 1000)),
    options(lists(anything | tricky, 3)),
    options(st.booleans()),
)


@st.composite
def policies(draw):
    name, *models = draw(lists(names, 6, least=2))
    cut = draw(st.integers(1, len(models)))
    params = draw(st.dictionaries(st.sampled_from(models), parameters))
    return Policy(
        name=name,
        routing=Routing(tuple(models[:cut]), tuple(models[cut:]), draw(st.integers(1, 10_000)), params),
        objectives=draw(
            st.builds(
                Objectives,
                options(st.integers(1, 86_400_000)),
                options(st.integers(1, 9_000_000_000_000_000)),
                st.integers(1, 1_000_000_000),
                st.sampled_from(["order", "cost", "latency"]),
            )
        ),
        strategy=draw(
            st.builds(
                Strategy,
                st.booleans(),
                lists(st.sampled_from(RETRY_WORDS), 9),
                st.integers(1, 86_400_000),
                st.integers(1, 10),
                st.lists(st.integers(0, 60_000), max_size=4).map(tuple),
                st.integers(0, 86_400_000),
                st.integers(0, 10),
            )
        ),
        budgets=draw(
            st.builds(
                Budgets,
                options(st.integers(0, 1_000_000_000)),
                options(st.integers(0, 1_000_000_000)),
                st.sampled_from(["UTC", "Asia/Kolkata", "America/New_York"]),
            )
        ),
        system=draw(options(prose)),
        gen=draw(parameters),
        judge=draw(options(names)),
        pinned=draw(st.sampled_from(["stay", "failover"])),
        capture=draw(
            st.builds(Capture, st.booleans(), st.integers(1, 3650))
            | st.builds(Capture, st.just(True), st.integers(1, 3650), st.booleans())
        ),
        shadow=draw(options(st.builds(Shadow, names, st.integers(0, 1000)))),
        version=draw(options(st.integers(1, 1_000_000_000))),
        notes=draw(options(prose)),
    )


@given(policies())
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_reads_back_as_the_same_policy(tmp_path: Path, policy: Policy):
    """Whatever stands in it: quotes, colons, control characters, words that YAML would take for something else."""
    path = tmp_path / "written.yaml"
    path.write_text(to_yaml(policy), encoding="utf-8", newline="")
    assert read_policy(path) == policy


@pytest.mark.parametrize("loader", ["c", "python"])
def test_either_parser_reads_what_is_written(tmp_path, monkeypatch, loader):
    monkeypatch.setattr(document, "_LOADER", yaml.SafeLoader if loader == "python" else document._LOADER)
    path = tmp_path / "p.yaml"
    for policy in load_policies(None).by_name.values():
        spoken = replace(policy, system="\ttab \U0001f600 \u2028 \x00 \x85 \ufeff \x7f\r\n")
        path.write_text(to_yaml(spoken), encoding="utf-8", newline="")
        assert read_policy(path) == spoken


def test_dollars_are_written_as_exact_decimals_and_thousandths_as_people_write_them():
    text = to_yaml(
        Policy(
            name="p",
            routing=Routing(("m",), params={"m": Parameters(2000, 0)}),
            objectives=Objectives(max_cost_microdollars=10_000),
            gen=Parameters(temperature_thousandths=250),
        )
    )
    assert "  max_cost_usd: 0.01\n" in text
    assert '    "m": {temperature: 2, top_p: 0}\n' in text
    assert "  temperature: 0.25\n" in text


def test_a_digest_is_of_what_is_said_and_not_of_how_it_is_laid_out(tmp_path):
    """A comment, a default written out and another order of keys change nothing; a limit does."""
    one, other = tmp_path / "one.yaml", tmp_path / "other.yaml"
    one.write_text("policy: p\nrouting: {primary: [m]}\n")
    other.write_text("# the same\nrouting:\n  primary:\n    - m\nstrategy: {max_attempts: 3}\npolicy: p\n")
    policy = read_policy(one)
    assert digest(policy) == digest(read_policy(other))
    assert digest(policy) != digest(replace(policy, budgets=Budgets(rpm=31)))
    assert len(bytes.fromhex(digest(policy))) == 32
