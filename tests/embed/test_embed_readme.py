"""The README's script with `LlmRouter` and the official client, run as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def streamed(handler, text):
    handler.begin_stream()
    about = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    for word in text.split():
        handler.event({**about, "choices": [{"index": 0, "delta": {"content": f"{word} "}, "finish_reason": None}]})
    handler.event({**about, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    handler.event({**about, "choices": [], "usage": {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}})
    handler.end_stream()


def test_the_script_of_the_readme_runs_as_it_stands_there(tmp_path, kit, upstream):
    """A whole answer and a stream of gpt-4o-mini, six microdollars each, then a closed budget."""
    pytest.importorskip("openai")
    whole = kit.whole(20, 5)
    upstream.play = lambda handler, body: streamed(handler, "one two") if body.get("stream") else whole(handler, body)
    [script] = [each for each in SCRIPTS if "LlmRouter(" in each]
    assert len(script.splitlines()) <= 25
    (tmp_path / "script.py").write_text(script)
    ran = subprocess.run(
        [sys.executable, "-W", "error", "script.py"],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "OPENAI_API_KEY": "sk-own",
            "OPENAI_BASE_URL": f"{upstream.url}/v1",
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == "well\none two \nspent 12 of 10000 microdollars\n402 budget_exceeded\n"
    assert [headers["authorization"] for _, headers, _ in upstream.asked] == ["Bearer sk-own"] * 2


def test_the_example_runs_as_it_is_and_stops_at_its_budget(tmp_path):
    """`examples/embedded_router.py`, with the provider it plays itself."""
    ran = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "examples" / "embedded_router.py")],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.count("Hello from the stub.") == 3
    assert "4. 402: Insufficient budget. Available: 41 microdollars" in ran.stdout
    assert ran.stdout.endswith("spent 159 of 200 microdollars at openai\n")
