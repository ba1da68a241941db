"""The `llm` command, configured by its own file: a prompt, a stream, a schema, an error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

MODELS = """
- model_id: small
  model_name: demo-small
  api_base: {url}/v1
  supports_tools: true
  supports_schema: true
- model_id: nothing
  model_name: no-such-model
  api_base: {url}/v1
"""

with tempfile.TemporaryDirectory() as home:
    Path(home, "extra-openai-models.yaml").write_text(MODELS.format(url=os.environ["FASTROUTE_URL"]))

    def llm(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [Path(sys.executable).with_name("llm"), *arguments, "--key", "any"],
            env={"LLM_USER_PATH": home, "HOME": home, "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    whole = llm("-m", "small", "--no-stream", "Hello")
    assert whole.stdout.strip(), whole.stderr
    assert llm("-m", "small", "Hello").stdout == whole.stdout

    schema = llm("-m", "small", "--schema", "name, age int", "Invent a dog")
    assert json.loads(schema.stdout).keys() == {"name", "age"}, schema

    wrong = llm("-m", "nothing", "Hello")
    assert wrong.returncode != 0
    assert "no-such-model" in wrong.stderr, wrong
