"""An agent with weights of its own: announced to a gateway, killed, and revived."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest


@pytest.fixture
def agent(smollm2, tmp_path):
    """`agent(router)`: a process that offers the small model as `mac`; all are gone when the test ends."""
    started: list[subprocess.Popen[bytes]] = []

    def agent(router: str) -> subprocess.Popen[bytes]:
        said = ["--weights", str(smollm2), "--models", f"mac={smollm2.name}", "--router", router, "--port", "0"]
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(Path.cwd())}
        program = [sys.executable, "-m", "fastroute", "agent", *said, "--interval", "0.5"]
        with (tmp_path / f"agent-{len(started)}.log").open("wb") as log:
            started.append(subprocess.Popen(program, env=environment, stderr=log))
        return started[-1]

    yield agent
    for process in started:
        process.kill()
        process.wait(5)


def answered(gateway, want: int, within_s: float = 30.0):
    """The first reply of the status that is waited for."""
    deadline = time.monotonic() + within_s
    while (reply := gateway.ask("mac", "Say hello.", max_tokens=4)).status != want:
        assert time.monotonic() < deadline, reply.body
        time.sleep(0.1)
    return reply


def test_an_agent_offers_weights_and_is_killed_and_revived(kit, agent, tmp_path):
    config = "relay: {whole_ms: 60000}\nagents: {stale_ms: 1500}\n"
    gateway = kit.start(tmp_path / "data", config=config)
    try:
        router = f"http://127.0.0.1:{gateway.port}"
        first = agent(router)
        usage = answered(gateway, 200).json["usage"]
        assert 1 <= usage["completion_tokens"] <= 4
        first.kill()
        first.wait(5)
        answered(gateway, 503)
        agent(router)
        assert answered(gateway, 200).json["choices"][0]["message"]["content"]
    finally:
        gateway.stop()
