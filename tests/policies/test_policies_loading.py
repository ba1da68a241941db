"""The policies there are: the shipped ones, and a directory whose files win over them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastroute.assembly import directory_for
from fastroute.config import load
from fastroute.errors import ConfigError, FastrouteError
from fastroute.policies import Parameters, PolicyError, UnknownPolicy, load_policies, read_policy

ROOT = Path(__file__).parents[2]
STARTERS = ("advanced-controls", "balanced-helpdesk", "beginner-minimal", "cheap-fast", "premium-brief")


def write(directory, file, name="p", model="m"):
    (directory / file).write_text(f"policy: {name}\nrouting: {{primary: [{model}]}}\n")


def told(directory):
    with pytest.raises(PolicyError) as caught:
        load_policies(directory)
    return [str(problem).removeprefix(f"{directory}/") for problem in caught.value.problems]


def test_the_starters_are_there_without_a_single_file():
    shipped = load_policies(None)
    assert shipped.names == STARTERS
    assert set(shipped.sources.values()) == {"starter"}


def test_the_starters_say_what_they_always_said():
    shipped = load_policies(None).by_name
    helpdesk = shipped["balanced-helpdesk"]
    assert helpdesk.models == ("openai/gpt-4o-mini", "anthropic/claude-3-haiku", "mistral/small")
    assert (helpdesk.target_p95_ms, helpdesk.objectives.max_cost_microdollars) == (1200, 10_000)
    assert (helpdesk.budgets.daily_tokens, helpdesk.budgets.rpm, helpdesk.budgets.zone) == (20_000, 30, "Asia/Kolkata")
    advanced = shipped["advanced-controls"]
    assert (advanced.strategy.max_attempts, advanced.strategy.backoff_ms) == (4, (100, 250, 500))
    assert advanced.budgets.zone == "UTC"
    assert advanced.strategy.retry_on == ("5xx", "rate_limit", "connect_timeout")
    assert advanced.routing.params["anthropic/claude-3-haiku"] == Parameters(100, 950)
    assert shipped["cheap-fast"].strategy.fallback_on_latency_ms == 800
    assert shipped["beginner-minimal"].routing.backups == ()
    assert shipped["premium-brief"].objectives.max_cost_microdollars == 15_000


def test_no_starter_keeps_a_prompt():
    """C30: content is kept only where somebody asked for it."""
    assert not any(policy.capture.prompts for policy in load_policies(None).by_name.values())


def test_the_starters_can_be_left_out(tmp_path):
    write(tmp_path, "p.yaml")
    assert load_policies(tmp_path, starters=False).names == ("p",)
    assert load_policies(None, starters=False).names == ()


def test_a_file_wins_over_the_starter_of_its_name(tmp_path):
    write(tmp_path, "mine.yaml", name="cheap-fast", model="mine")
    loaded = load_policies(tmp_path)
    assert loaded.find("cheap-fast").models == ("mine",)
    assert loaded.sources["cheap-fast"] == f"{tmp_path}/mine.yaml:1"
    assert set(loaded.names) == set(STARTERS)


def test_a_directory_that_is_not_there_holds_no_policies(tmp_path):
    assert load_policies(tmp_path / "policies").names == STARTERS


def test_both_suffixes_are_read_and_nothing_else_is(tmp_path):
    """Editors and mounted volumes leave hidden files and directories beside what is meant."""
    write(tmp_path, "a.yaml", name="a")
    write(tmp_path, "b.yml", name="b")
    for stray in (".a.yaml", "a.yaml~", "README.md"):
        (tmp_path / stray).write_text("no policy")
    (tmp_path / "..data").mkdir()
    assert load_policies(tmp_path, starters=False).names == ("a", "b")


def test_a_link_to_a_file_is_a_file(tmp_path):
    """As a mounted config map has them."""
    (tmp_path / "..data").mkdir()
    write(tmp_path / "..data", "p.yaml")
    (tmp_path / "p.yaml").symlink_to("..data/p.yaml")
    assert load_policies(tmp_path, starters=False).names == ("p",)


def test_two_files_of_one_name_are_refused(tmp_path):
    write(tmp_path, "a.yaml")
    write(tmp_path, "b.yaml")
    assert told(tmp_path) == [f"b.yaml:1: policy: 'p' is the name of the policy at {tmp_path}/a.yaml:1 already"]


def test_every_mistake_of_every_file_is_told_at_once(tmp_path):
    (tmp_path / "a.yaml").write_text("policy: a\n")
    (tmp_path / "b.yaml").write_text("\ufeff# nothing\n")
    (tmp_path / "c.yaml").write_text("policy: c\nrouting: {primary: [m]}\nstrategy: {max_attempts: 0}\n")
    assert [line.partition(": ")[0] for line in told(tmp_path)] == ["a.yaml:1", "b.yaml:1", "b.yaml:1", "c.yaml:3"]


def test_what_only_looks_like_a_file_is_refused(tmp_path):
    """A pipe is not waited for, and a link that leads nowhere was meant to lead somewhere."""
    os.mkfifo(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").mkdir()
    (tmp_path / "c.yaml").symlink_to("nowhere")
    assert told(tmp_path) == [
        "a.yaml: is not a file, wanted a YAML file",
        "b.yaml: is not a file, wanted a YAML file",
        "c.yaml: does not exist",
    ]


def test_a_file_for_a_directory_is_refused(tmp_path):
    write(tmp_path, "p.yaml")
    assert told(tmp_path / "p.yaml") == [
        f"{tmp_path}/p.yaml: cannot be read as a directory of policies: Not a directory"
    ]


def test_one_policy_can_be_read_by_its_file(tmp_path):
    write(tmp_path, "p.yaml")
    assert read_policy(tmp_path / "p.yaml").name == "p"
    with pytest.raises(PolicyError, match=r"missing\.yaml: does not exist"):
        read_policy(tmp_path / "missing.yaml")


def test_an_unknown_name_is_told_with_the_nearest(tmp_path):
    with pytest.raises(UnknownPolicy, match=r"policy 'cheap-fsat' is not known here; did you mean 'cheap-fast'\?"):
        load_policies(None).find("cheap-fsat")


def test_what_is_raised_can_be_told_from_a_bad_configuration():
    """The terminal leaves with another code; whoever only wants the mistakes catches both."""
    assert issubclass(PolicyError, ConfigError)
    assert issubclass(UnknownPolicy, FastrouteError)


def test_a_built_distribution_holds_the_starters():
    """Seen as the build sees them, without building."""
    code = (
        "from setuptools import Distribution\n"
        "dist = Distribution()\n"
        "dist.parse_config_files()\n"
        "build = dist.get_command_obj('build_py')\n"
        "build.ensure_finalized()\n"
        "build.manifest_files = {}\n"
        "print(*build.find_data_files('fastroute', 'fastroute'), sep='\\n')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, timeout=30, check=True, capture_output=True, text=True
    )
    shipped = {Path(line).stem for line in done.stdout.splitlines() if line.startswith("fastroute/policies/starters/")}
    assert shipped == set(STARTERS)
    assert "*.yaml" in (ROOT / "MANIFEST.in").read_text()


@pytest.mark.parametrize(
    "env",
    [
        {"AI_GATEWAY_BASE_URL": "http://127.0.0.1:1", "AI_GATEWAY_API_KEY": "k"},
        {"OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k", "MISTRAL_API_KEY": "k"},
    ],
    ids=["behind a gateway", "at their makers"],
)
def test_every_model_of_every_starter_has_a_price(tmp_path: Path, env):
    """One without is never asked: a backup that nobody knows the price of is none. A short name is its maker's own there."""
    directory = directory_for(load(None, {"FASTROUTE_STATE_DIR": str(tmp_path), **env}, {}))
    for name, policy in load_policies(None).by_name.items():
        entries = directory.resolve(name).catalog.entries
        assert [entry.id for entry in entries] == list(policy.models)
        assert [entry.id for entry in entries if entry.price is None] == []
    model = directory.entry("mistral/small").ref.model
    assert model == ("mistral/small" if "AI_GATEWAY_API_KEY" in env else "mistral-small-latest")
