"""Commands about money, run in a directory of their own: beside a server that is up, and in its place when none is."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fastroute.cli import main

ROOT = Path(__file__).parents[2]
ADMIN = "adm_4Hq9Zt2Lw7Xc1Vb5Nm8Kj3Rd6Ps0Yg"
CONFIG = """
server: {{drain_ms: 3000}}
log: {{path: "{place}/router.log"}}
providers:
  lab: {{dialect: openai, base_url: "{lab}"}}
models:
  - {{id: cheap, model: "lab:cheap", price: {{input: 150000, output: 600000}}, max_output: 4000}}
"""


def _loaded(name: str) -> Any:
    """Test folders are no packages, so what the acceptance tests have is loaded by its path."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / "tests" / "acceptance" / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


acceptance: Any = _loaded("acceptance_kit")
desk: Any = _loaded("money_desk_kit")


@dataclass
class Terminal:
    """One state directory, and who keeps its books: `gateway` is None when the commands do it themselves."""

    place: Path
    gateway: Any

    @property
    def state_dir(self) -> Path:
        return self.place / "data"

    @property
    def options(self) -> list[str]:
        return ["--config", str(self.place / "fastroute.yaml"), "--state-dir", str(self.state_dir)]

    def run(self, *words: str, code: int = 0) -> Result:
        """A command, and the exit code it has to end with; it never shows a traceback."""
        result = CliRunner().invoke(main, [*words, *self.options])
        assert result.exit_code == code, (words, result.output, result.exception)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert "Traceback" not in result.output
        return result

    def json(self, *words: str, code: int = 0) -> Any:
        return json.loads(self.run(*words, "--json", code=code).stdout)

    def twin(self, path: str, **how: Any) -> Any:
        """What the server answers to the administrator."""
        reply = self.gateway.http.request(
            how.pop("method", "GET"), path, headers={"authorization": f"Bearer {ADMIN}"}, **how
        )
        return reply.json()

    def ask(self, key: str, **fields: Any) -> Any:
        told = self.gateway.ask("cheap", headers={"authorization": f"Bearer {key}"}, **fields)
        assert told.status == 200, told.body
        return told

    def process(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The same as a process of its own."""
        return subprocess.run(
            [sys.executable, "-m", "fastroute", *words, *self.options],
            capture_output=True,
            text=True,
            timeout=30,
            cwd=self.place,
            env={"PATH": os.environ["PATH"], "HOME": str(self.place), "PYTHONPATH": str(ROOT)},
        )


@pytest.fixture(scope="session")
def lab() -> Iterator[Any]:
    """A provider."""
    stubs = acceptance.Stubs()
    yield stubs.open()
    stubs.close()


@pytest.fixture(scope="module")
def served(lab: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """A terminal beside a running server."""
    place = tmp_path_factory.mktemp("served")
    config = CONFIG.format(lab=lab.url, place=place)
    gateway = acceptance.start(place, config, {"FASTROUTE_ADMIN_KEY": ADMIN}, 2)
    yield Terminal(place, gateway)
    gateway.end()
    assert gateway.ended() == 0, gateway.log.read_text()


@pytest.fixture(scope="module")
def alone(lab: Any, tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    """A terminal where no server runs."""
    place = tmp_path_factory.mktemp("alone")
    (place / "fastroute.yaml").write_text(CONFIG.format(lab=lab.url, place=place))
    return Terminal(place, None)


@pytest.fixture(params=["served", "alone"])
def terminal(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Both, one after the other; the environment of whoever runs the tests is not theirs."""
    monkeypatch.setattr("os.environ", {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")})
    found: Terminal = request.getfixturevalue(request.param)
    return found
