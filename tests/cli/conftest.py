"""Commands about money, run in a directory of their own: beside a server that is up, and in its place when none is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fastroute.cli import main
from tests.cli.terminal_kit import BACKUP, PATIENCE_S, PRIMARY
from tests.kits import load

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

acceptance: Any = load("acceptance/acceptance_kit.py")
desk: Any = load("acceptance/money_desk_kit.py")
stubs = acceptance.stubs
scripts: Any = load("gateway/conftest.py", "gateway_conftest")


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
def lab(stubs: Any) -> Any:
    """A provider."""
    return stubs.open()


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


# --- prompts: providers that do what a script says, and a terminal of `terminal_kit` before them ---------------------


@pytest.fixture(scope="module")
def playing() -> Iterator[Any]:
    upstream = scripts.Upstream()
    yield upstream
    upstream.close()


@pytest.fixture
def upstream(playing: Any) -> Iterator[Any]:
    """The providers behind an AI gateway's address: every model answers well until it has a script."""
    playing.forget(PRIMARY, BACKUP)
    yield playing
    playing.forget(PRIMARY, BACKUP)


@pytest.fixture
def say() -> Any:
    return scripts.Say


@pytest.fixture
def patiently() -> Callable[[Callable[[], Any]], Any]:
    """Wait until something is so."""

    def wait(look: Callable[[], Any]) -> Any:
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            found = look()
            if found:
                return found
            time.sleep(0.005)
        raise AssertionError("it did not happen in time")

    return wait
