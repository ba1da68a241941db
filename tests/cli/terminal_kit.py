"""A terminal for tests: the `fastroute` command in this process or its own, against an upstream that plays scripts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fastroute.cli import main
from fastroute.config import Config, load

ROOT = Path(__file__).parents[2]
PRIMARY, BACKUP = "openai/gpt-4o-mini", "anthropic/claude-3-haiku"
TAIL = re.compile(r"\[receipt (\S+)\] route=(\S+) fallbacks=(\d+) latency=(\d+)ms cost=(\S+)\n")
PATIENCE_S = 30


@dataclass
class Ran:
    """What one run of the command left: `tail` is (receipt, route, fallbacks, latency in ms, cost)."""

    code: int
    out: str
    err: str

    @property
    def tail(self) -> tuple[str, str, int, int, str]:
        found = TAIL.search(self.err)
        assert found is not None, self.err
        return found[1], found[2], int(found[3]), int(found[4]), found[5]

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Terminal:
    """A directory with a configuration, policies and a state of its own."""

    def __init__(self, place: Path, upstream: Any) -> None:
        self.place = place
        self.state = place / "state"
        (place / "policies").mkdir()
        self.configure("")
        self.environment = {
            # The blank and the path are those of the example that everybody copies.
            "AI_GATEWAY_BASE_URL": f" {upstream.url}/v1",
            "AI_GATEWAY_API_KEY": "sk-behind",
            "FASTROUTE_CONFIG": str(place / "fastroute.yaml"),
            "FASTROUTE_STATE_DIR": str(self.state),
        }
        self._world = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}

    def configure(self, more: str) -> None:
        (self.place / "fastroute.yaml").write_text(
            f"policies_dir: {self.place / 'policies'}\nserver: {{workers: 1}}\n{more}"
        )

    def policy(
        self, name: str = "desk", limit_ms: int = 2000, rpm: int = 1000, cost: str = "0.01", **more: str
    ) -> None:
        """Write a policy of two models; `more` is what `objectives` and `strategy` say beside that."""
        (self.place / "policies" / f"{name}.yaml").write_text(
            f"policy: {name}\n"
            f"objectives: {{max_cost_usd: {cost}, max_tokens: 500{more.get('objectives', '')}}}\n"
            f"routing: {{primary: ['{PRIMARY}'], backups: ['{BACKUP}']}}\n"
            f"strategy: {{fallback_on_latency_ms: {limit_ms}, backoff_ms: [10]{more.get('strategy', '')}}}\n"
            f"tenancy: {{per_user_daily_tokens: 20000, per_user_rpm: {rpm}}}\n"
        )

    @property
    def config(self) -> Config:
        return load(None, self.environment, {})

    def run(self, *arguments: str, stdin: str | None = None, env: dict[str, str] | None = None) -> Ran:
        """The command in this process."""
        blank = dict.fromkeys(set(os.environ) - {"PATH", "HOME", "LANG", "TMPDIR"})
        result = CliRunner().invoke(
            main, list(arguments), input=stdin, env={**blank, **self.environment, **(env or {})}
        )
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ran(result.exit_code, result.stdout, result.stderr)

    def infer(self, *more: str, policy: str = "desk", text: str = "hello", env: dict[str, str] | None = None) -> Ran:
        return self.run("infer", "-p", policy, "-u", "alice", "--input", text, *more, env=env)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """The command in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "fastroute", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.place,
            env={**self._world, **self.environment, "PYTHONPATH": str(ROOT)},
        )

    def end(self, process: subprocess.Popen[str]) -> Ran:
        out, err = process.communicate(timeout=PATIENCE_S)
        return Ran(process.returncode, out, err)

    def receipt(self, ran: Ran) -> Any:
        """The receipt of a run, proved."""
        shown = self.run("receipts", "--open", ran.tail[0], "--json")
        assert shown.code == 0, shown.err
        return shown.json


@pytest.fixture
def terminal(tmp_path: Path, upstream: Any) -> Terminal:
    return Terminal(tmp_path, upstream)
