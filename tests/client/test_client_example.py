"""`examples/routed_grant.py` in every branch of its contract."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "routed_grant.py"
KEY = "fr_live_secret_0123456789"


@pytest.fixture(scope="module")
def main():
    spec = importlib.util.spec_from_file_location("routed_grant_example", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def run(**variables):
    env = {name: value for name, value in os.environ.items() if name not in ("ROUTER_URL", "ROUTER_KEY")}
    return subprocess.run(
        [sys.executable, EXAMPLE], env={**env, **variables}, cwd=ROOT, capture_output=True, text=True, timeout=30
    )


def test_without_its_variables_it_says_how_to_set_them_and_exits_0():
    done = run()
    assert (done.returncode, done.stderr) == (0, "")
    assert "ROUTER_URL" in done.stdout
    assert "ROUTER_KEY" in done.stdout


@pytest.mark.parametrize(("url", "key"), [(None, KEY), ("http://h", None), ("", KEY), ("http://h", "")])
def test_missing_either_variable_is_missing_both(main, capsys, url, key):
    main(url, key)
    assert capsys.readouterr().out.startswith("routed_grant.py needs a live router")


def test_a_placement_is_shown_with_its_key_masked(served):
    done = run(ROUTER_URL=served.url, ROUTER_KEY=served.key())
    assert (done.returncode, done.stderr) == (0, "")
    assert "placement:   haiku (up:haiku, lane up)\n" in done.stdout
    assert re.search(r"^decision_id: rd_[a-z2-7]{26}$", done.stdout, re.MULTILINE)
    assert re.search(r"^grant key:   vk-\w{5}\.\.\. ?\(\d+ chars\)$", done.stdout, re.MULTILINE)
    assert re.search(r"^expires_at:  \d{4}-\d\d-\d\dT", done.stdout, re.MULTILINE)
    assert served.url in done.stdout


def test_a_placement_without_an_id_or_a_key_is_shown_by_its_model(main, router, capsys):
    router.answers({"verdict": "placement", "placement": {"model": "a:b", "lane": "l"}, "grant": {}})
    main(router.url, KEY)
    said = capsys.readouterr().out
    assert "placement:   a:b (a:b, lane l)" in said
    assert "grant key:   (no key returned)" in said


def test_no_candidate_is_shown_with_its_decision_and_reasons(main, router, capsys):
    router.answers({"verdict": "no_candidate", "reasons": ["capability", "cost"], "decision_id": "rd_1"})
    main(router.url, KEY)
    said = capsys.readouterr().out
    assert "no_candidate" in said
    assert "decision_id: rd_1" in said
    assert "capability, cost" in said


def test_an_http_error_is_shown_with_its_status_and_body(main, router, capsys):
    router.answers({"error": "invalid_descriptor"}, 422)
    main(router.url, KEY)
    said = capsys.readouterr().out
    assert "status: 422" in said
    assert "{'error': 'invalid_descriptor'}" in said


def test_a_transport_error_is_shown_with_its_reason(main, router, capsys):
    main(router.url, KEY)
    assert re.search(r"reason: RemoteProtocolError: .+", capsys.readouterr().out)


@pytest.mark.parametrize(("url", "key"), [("localhost:8000", KEY), ("http://127.0.0.1:1", f"{KEY}\n")])
def test_what_cannot_be_asked_with_is_shown_as_the_reason(main, capsys, url, key):
    main(url, key)
    said = capsys.readouterr().out
    assert "reason: " in said
    assert KEY not in said


def test_what_is_no_answer_is_shown_as_the_reason(main, router, capsys):
    router.answers(b"hello")
    main(router.url, KEY)
    assert "reason: invalid_route_response" in capsys.readouterr().out


def test_the_script_of_the_readme_is_placed_pays_and_gives_the_rest_back(served, tmp_path):
    """As it stands there, but for the gateway's port and a key, which it leaves to the reader."""
    scripts = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    [script] = [each for each in scripts if "RouteClient(" in each]
    assert "http://127.0.0.1:8000" in script
    said = script.replace("http://127.0.0.1:8000", served.url)
    done = subprocess.run(
        [sys.executable, "-c", f"key = {served.key()!r}\n{said}print(told.placement.id, halt)"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "haiku None\n"), done.stderr
