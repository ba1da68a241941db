"""`fastroute bench` as a user runs it, in miniature; and that nothing of it outlives its end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from fastroute.bench.machine import tree
from fastroute.cli import main
from tests.kits import is_gone

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {"PATH": str(Path(sys.executable).parent), "HOME": os.environ.get("HOME", "/"), "PYTHONPATH": str(ROOT)}
COMMAND = [sys.executable, "-m", "fastroute", "bench"]


def test_quick_measures_and_says_where_it_stands(tmp_path):
    words = ["--quick", "--seconds", "0.1", "--rounds", "1", "--out", "out"]
    done = subprocess.run(
        [*COMMAND, *words], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert re.search(r"^ +direct +constant +fastroute, data plane +fastroute", done.stdout, re.MULTILINE)
    assert re.search(r"CPU of the worker a request, beside constant +<= 1.8x +\d", done.stdout)
    assert "SSE bytes kept" in done.stdout
    [raw] = (tmp_path / "out").glob("quick-*.json")
    found = json.loads(raw.read_text())
    ours_and_yardsticks = {"direct", "constant", "fastroute, data plane", "fastroute", "fastroute, compiled"}
    assert {each["subject"] for each in found["samples"]} - {"nginx"} == ours_and_yardsticks  # nginx where there is one
    assert not any(each["told"]["wrong_status"] or each["told"]["lost"] for each in found["samples"])
    ours = [each for each in found["samples"] if each["subject"] == "fastroute"]
    assert {each["phase"] for each in ours} == {"json", "burst", "rate", "paced"}
    assert all(each["tree_ns"] >= each["worker_ns"] > 0 for each in ours)
    assert all(each["told"]["changed"] == 0 for each in ours)
    assert "<svg" in raw.with_suffix(".html").read_text()


def test_money_tells_what_it_adds_on_either_server(tmp_path):
    words = ["money", "--rate", "300", "--seconds", "0.2", "--rounds", "1", "--out", "out"]
    done = subprocess.run(
        [*COMMAND, *words], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"CPU of bookkeeper and supervisor a request +<= 25 us( +\d\S* us +(yes|no)){2}$", done.stdout, re.MULTILINE
    )
    assert re.search(r"that money adds to a request +<= 25 us( +-?\d\S* us +(yes|no)){2}$", done.stdout, re.MULTILINE)
    [raw] = (tmp_path / "out").glob("money-*.json")
    found = json.loads(raw.read_text())
    assert not any(each["told"]["wrong_status"] or each["told"]["lost"] for each in found["samples"])


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda how: how.name)
def test_nothing_outlives_it(tmp_path, how):
    if how != signal.SIGINT and not os.environ.get("FASTROUTE_TORTURE"):
        pytest.skip("one way to end is enough for every day")
    with subprocess.Popen(
        [*COMMAND, "--quick"], cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        deadline = time.monotonic() + 60
        while len(found := tree(process.pid)) < 6 and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.05)
        assert len(found) >= 6  # the provider, the constant answer, gateways with their workers
        process.send_signal(how)
        _, said = process.communicate(timeout=40)
    if how != signal.SIGKILL:
        assert process.returncode == 130
        assert b"nothing is left running" in said
    while not all(map(is_gone, found)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in found if not is_gone(pid)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--peers", "nginx,ngnix"], "no adapter for ngnix; there are nginx, envoy"),
        (["--url", "http://127.0.0.1:1"], "NAME=URL"),
        (["--url", "nginx=http://127.0.0.1:1"], "has no name of its own"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_starts(words, said):
    result = CliRunner().invoke(main, ["bench", "compare", *words])
    assert result.exit_code == 2
    assert said in result.output
