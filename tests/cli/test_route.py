"""`fastroute route` decides as the library does, and says why."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fastroute import __version__

ROOT = Path(__file__).parents[2]

CONFIG = """
providers:
  ollama: {dialect: openai, base_url: "http://127.0.0.1:11434"}
  anthropic: {dialect: anthropic, api_key: "sk-ant-not-a-key-at-all"}
models:
  - {id: local-qwen, model: "ollama:qwen3", lane: local, runtime: local, capabilities: [tools], priority: 10, price: free}
  - id: claude-haiku
    model: anthropic:claude-haiku-4-5
    capabilities: [tools, vision]
    price: {unit: usd_per_mtok, input: "1", output: "5"}
aliases: {chat: [claude-haiku, local-qwen]}
"""
DESCRIPTOR = {
    "task_class": "extraction",
    "budget_ceiling_microdollars": 50_000,
    "latency_tolerance_ms": 30_000,
    "expected_tokens": {"in": 2000, "out": 500},
    "capabilities": ["tools"],
    "workflow_id": "wf_demo_001",
    "step_id": "step_extract",
}


@pytest.fixture
def run(tmp_path):
    (tmp_path / "fastroute.yaml").write_text(CONFIG)
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | {
        "PYTHONPATH": str(ROOT)
    }

    def run(*arguments, stdin=None):
        return subprocess.run(
            [sys.executable, "-m", "fastroute", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=30,
            cwd=tmp_path,
            env=environment,
        )

    return run


def test_the_answer_is_the_body_of_the_http_twin(run, tmp_path):
    (tmp_path / "step.json").write_text(json.dumps(DESCRIPTOR))
    done = run("route", "--descriptor", "step.json", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    body = json.loads(done.stdout)
    assert body["verdict"] == "placement"
    assert body["placement"]["id"] == "local-qwen"
    assert body["placement"]["reasons"] == ["capability_match", "cheapest_viable"]
    assert body["placement"]["candidates"] == [
        {"id": "local-qwen", "verdict": "chosen"},
        {"id": "claude-haiku", "verdict": "ranked"},
    ]
    assert (body["workflow_id"], body["step_id"]) == ("wf_demo_001", "step_extract")
    assert re.fullmatch("rd_[a-z2-7]{26}", body["decision_id"])


def test_a_descriptor_may_come_from_standard_input_and_a_name_may_choose_the_route(run):
    done = run("route", "--descriptor", "-", "--model", "chat", "--json", stdin=json.dumps(DESCRIPTOR))
    body = json.loads(done.stdout)
    assert body["placement"]["id"] == "claude-haiku"
    assert body["placement"]["reasons"] == ["route_primary"]


def test_people_get_a_table_with_a_verdict_on_every_candidate(run):
    done = run("route", "--descriptor", "-", stdin=json.dumps(DESCRIPTOR | {"capabilities": ["vision"]}))
    assert done.returncode == 0
    assert re.search(r"placement +claude-haiku \(anthropic:claude-haiku-4-5, lane anthropic, managed\)", done.stdout)
    assert re.search(r"local-qwen +excluded +capability +vision", done.stdout)


def test_no_candidate_is_an_answer_and_not_a_failure(run):
    done = run("route", "--descriptor", "-", "--json", stdin=json.dumps(DESCRIPTOR | {"capabilities": ["audio"]}))
    assert done.returncode == 0
    body = json.loads(done.stdout)
    assert (body["verdict"], body["reasons"]) == ("no_candidate", ["capability"])


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "words"),
    [
        (["--descriptor", "-"], "{", 65, "is not JSON"),
        (["--descriptor", "-"], '{"task_class": ""}', 65, "task_class"),
        (["--descriptor", "missing.json"], None, 2, "No such file"),
        (["--model", "gpt5-typo"], None, 65, "gpt5-typo"),
        (["--config", "missing.yaml"], None, 78, "missing.yaml"),
    ],
)
def test_what_is_wrong_is_said_on_stderr_with_a_documented_code(run, arguments, stdin, code, words):
    done = run("route", *arguments, stdin=stdin)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (CONFIG.replace("id: claude-haiku", "id: local-qwen"), "local-qwen"),
        (CONFIG.replace('input: "1"', 'input: "-1"'), "fastroute.yaml:10"),
        (CONFIG.replace("price: free", "price: {input: 1.5, output: 0}"), "fastroute.yaml:6"),
        (CONFIG.replace("aliases:", "aliasses:"), "aliases"),
        (CONFIG.replace("sk-ant-not-a-key-at-all", "${NO_SUCH_KEY}"), "NO_SUCH_KEY"),
    ],
)
def test_a_configuration_that_cannot_be_meant_names_the_place(run, tmp_path, broken, words):
    (tmp_path / "fastroute.yaml").write_text(broken)
    done = run("route", "--descriptor", "-", stdin=json.dumps(DESCRIPTOR))
    assert done.returncode == 78
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_model_without_a_price_is_excluded_by_that(run, tmp_path):
    (tmp_path / "fastroute.yaml").write_text(CONFIG.replace(", price: free", ""))
    body = json.loads(run("route", "--descriptor", "-", "--json", stdin=json.dumps(DESCRIPTOR)).stdout)
    assert body["placement"]["id"] == "claude-haiku"
    assert body["placement"]["candidates"][0]["reason"] == "unpriced"


def test_a_model_of_the_registry_is_a_candidate(run):
    assert run("models", "add", "llama-local", "local", "http://127.0.0.1:5000", "weight").returncode == 0
    body = json.loads(run("route", "--descriptor", "-", "--json", stdin=json.dumps(DESCRIPTOR)).stdout)
    assert {candidate["id"] for candidate in body["placement"]["candidates"]} == {
        "local-qwen",
        "claude-haiku",
        "llama-local",
    }


def test_a_corrupt_registry_is_refused_and_left_as_it_is(run, tmp_path):
    (tmp_path / "data").mkdir()
    database = tmp_path / "data" / "fastroute.db"
    database.write_bytes(b"this is not a database, whatever it is called" * 100)
    done = run("route", "--descriptor", "-", stdin=json.dumps(DESCRIPTOR))
    assert done.returncode == 74
    assert "fastroute.db" in done.stderr
    assert database.read_bytes().startswith(b"this is not")


def test_the_gateway_less_example_runs(run):
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "gateway_less.py")],
        capture_output=True,
        text=True,
        timeout=30,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0
    assert "runs on local-qwen (ollama:qwen3, lane local): capability_match, cheapest_viable" in done.stdout
    assert "nothing fits: capability, cost" not in done.stdout
    assert "nothing fits: cost" in done.stdout


def test_the_version_is_told(run):
    assert run("--version").stdout.strip() == f"fastroute {__version__}"


def test_the_simulated_models_are_candidates_when_asked_for(run):
    body = json.loads(run("route", "--demo", "--model", "auto", "--json").stdout)
    assert body["placement"]["id"] == "demo-medium"


def test_a_registry_row_never_takes_a_name_the_configuration_gives(run):
    """A list refreshed from a provider may hold any name; the server must start all the same."""
    assert run("models", "add", "chat", "local", "http://127.0.0.1:1").returncode == 0
    done = run("route", "--model", "chat", "--json")
    assert (done.returncode, json.loads(done.stdout)["placement"]["id"]) == (0, "claude-haiku")
    refused = run("models", "add", "auto", "local", "http://127.0.0.1:1")
    assert (refused.returncode, "auto" in refused.stderr) == (1, True)


def test_the_registrys_commands_read_the_same_configuration(run, tmp_path):
    (tmp_path / "fastroute.yaml").write_text(CONFIG + "state_dir: elsewhere\n")
    assert run("models", "add", "foo", "local", "http://127.0.0.1:1").returncode == 0
    assert (tmp_path / "elsewhere" / "fastroute.db").exists()
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("aliases", ["{a: b, b: a}", "{a: [nobody-knows]}", "{local-qwen: [claude-haiku]}"])
def test_doctor_refuses_what_the_server_would_refuse(run, tmp_path, aliases):
    (tmp_path / "fastroute.yaml").write_text(CONFIG.replace("{chat: [claude-haiku, local-qwen]}", aliases))
    done = run("doctor")
    assert done.returncode == 78
    assert "Traceback" not in done.stderr + done.stdout


def test_a_named_model_without_a_price_runs_only_while_nothing_limits_its_cost(run):
    limited = run("route", "--model", "ollama:unheard-of", "--json", "--descriptor", "-", stdin=json.dumps(DESCRIPTOR))
    body = json.loads(limited.stdout)
    assert body["verdict"] == "no_candidate"
    assert body["reasons"] in (["unpriced"], ["capability"])


@pytest.mark.parametrize("text", ["[" * 200_000, '{"task_class":"t","task_class":"t"}', '{"a":' * 100_000])
def test_json_without_end_or_with_a_key_twice_is_refused_as_data(run, text):
    done = run("route", "--descriptor", "-", stdin=text)
    assert done.returncode == 65
    assert "Traceback" not in done.stderr
