"""Routers in front of agents: scripted ones that tests announce themselves, and the real command in processes of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from fastroute.beats import Beats
from fastroute.cli import main
from fastroute.ledger.agents import registered
from tests.kits import load

ROOT = Path(__file__).parents[2]
PATIENCE_S = 15.0

kit: Any = load("acceptance/acceptance_kit.py")
stubs = kit.stubs  # where backends and scripted agents are opened


def until(true: Callable[[], Any], what: str = "it") -> None:
    """A registry is looked at once a second; nothing here takes much longer."""
    patience = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < patience, f"{what} did not come about"
        time.sleep(0.01)


class Backend(kit.Stub):  # type: ignore[misc]  # a kit that is loaded by its path has no types
    """A scripted backend, whose list of models is told by a script of its own."""

    def lists(self, *acts: Any) -> None:
        """What the next questions for its models get; the last goes on for ever."""
        self.say("the list", *acts)

    @staticmethod
    async def _read(reader: Any) -> Any:
        asked = await kit.Stub._read(reader)
        if asked.method == "GET":
            asked.body = b'{"model": "the list"}'
        return asked


class Router:
    """A running gateway, the doors of its agents, and the beats that its workers share."""

    def __init__(self, gateway: Any, place: Path) -> None:
        self.gateway = gateway
        self.place = place
        self.beats = Beats.open(place / "data/run/agents")
        self.token: str | None = None

    def post(self, path: str, token: str | None = None, headers: dict[str, str] | None = None, **body: Any) -> Any:
        token = token or self.token
        given = {} if token is None else {"authorization": f"Bearer {token}"}
        return self.gateway.http.post(path, json=body, headers={**given, **(headers or {})})

    def register(self, name: str, endpoint: str, *models: str, token: str | None = None, **more: Any) -> Any:
        return self.post("/register", token, name=name, endpoint=endpoint, models=list(models), **more)

    def offered(self, name: str, endpoint: str, *models: str, **more: Any) -> None:
        """The same, well, and known to every worker."""
        told = self.register(name, endpoint, *models, **more)
        assert told.status_code == 200, told.text
        until(lambda: self.served(*models), f"{models} served by all workers")

    def served(self, *models: str) -> bool:
        """Whether all workers list them, as far as a dozen connections tell, and the one that `ask` goes on does."""
        listed = self.gateway.http.get("/v1/models", headers=self.gateway.always).json()["data"]
        own = {each["id"] for each in listed}
        return own.issuperset(models) and all(self.knows(model) for model in models for _ in range(12 // len(models)))

    def knows(self, model: str) -> bool:
        """Whether the worker that happens to answer lists a model; each connection is another worker's, perhaps."""
        with kit.httpx.Client(base_url=self.gateway.url, verify=False, headers=self.gateway.always) as http:
            return model in [each["id"] for each in http.get("/v1/models").json()["data"]]

    def beat(self, name: str, queue: int = 0, **more: Any) -> Any:
        return self.post("/heartbeat", name=name, queue_length=queue, **more)

    def silence(self, name: str, seconds: float = 100.0) -> None:
        """Let an agent's last beat be so long ago: time moves where all workers look."""
        place = next(each["id"] for each in self.listed() if each["name"] == name)
        self.beats.beat(place, max(int((time.monotonic() - seconds) * 1000), 0))

    def listed(self) -> list[Any]:

        return [msgspec.to_builtins(row) for row in registered(self.place / "data/fastroute.db").agents]

    def ask(self, model: str, **fields: Any) -> Any:
        return self.gateway.ask(model, **fields)

    def run(self, *arguments: str) -> Any:
        """A command on the same state, in this process."""
        blank = dict.fromkeys(set(os.environ) - {"PATH", "HOME", "LANG", "TMPDIR"})
        return CliRunner().invoke(main, [*arguments, "--state-dir", str(self.place / "data")], env=blank)


class Agent:
    """`fastroute agent` in a process of its own; `said` is what stood on its terminal so far."""

    def __init__(self, place: Path, arguments: tuple[str, ...], env: dict[str, str]) -> None:
        self.log = place
        with place.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fastroute", "agent", *arguments],
                cwd=ROOT,
                env={"PATH": os.environ["PATH"], "HOME": str(place.parent), **env},
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    @property
    def said(self) -> str:
        return self.log.read_text()

    @property
    def url(self) -> str:
        found = re.search(r"agent \S+ at (http://\S+) offers", self.said)
        assert found is not None, self.said
        return found[1]

    def says(self, words: str, times: int = 1) -> None:
        until(lambda: self.said.count(words) >= times or self.process.poll() is not None, f"{words!r}")
        assert self.said.count(words) >= times, self.said

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            pytest.fail(f"the agent did not end:\n{self.said}")


# Agents that a test announces itself, and plays.
a = kit.provider()
b = kit.provider()


@pytest.fixture
def backends(stubs: Any) -> Callable[..., Backend]:
    """`backends("a", "b")`: a backend that lists these models, or plays what it is told."""

    def backends(*names: str) -> Backend:
        backend = Backend(stubs._loop)
        stubs._do(backend.open())
        stubs._opened.append(backend)
        backend.lists(kit.whole({"object": "list", "data": [{"id": name, "object": "model"} for name in names]}))
        return backend

    return backends


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Router]]:
    """`serve(config, env={}, workers=1)`: a running router; each must end well, with no traceback told."""
    running: list[Any] = []

    def serve(config: str = "", env: dict[str, str] | None = None, workers: int = 1) -> Router:
        place = tmp_path_factory.mktemp("router")
        (place / "policies").mkdir()
        config += f"log: {{path: {place / 'router.log'}}}\npolicies_dir: {place / 'policies'}\n"
        running.append(kit.start(place, config, env, workers))
        return Router(running[-1], place)

    yield serve
    kit.end_well(running)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Callable[..., Agent]]:
    """`agent("--backend", URL, ..., env={})`: a running agent of the command; all are gone when the test ends."""
    running: list[Agent] = []

    def agent(*arguments: str, env: dict[str, str] | None = None) -> Agent:
        running.append(Agent(tmp_path / f"agent-{len(running)}", arguments, env or {}))
        return running[-1]

    yield agent
    for each in running:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()
        assert "Traceback" not in each.said, each.said


@pytest.fixture(scope="session")
def say() -> Any:
    """The words of scripts."""
    return kit


@pytest.fixture(scope="session")
def wait() -> Callable[..., None]:
    return until
