"""Agents as shadows and as alternatives of a replay: who is asked is an agent that was heard of, never what stands for it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from acceptance_kit import provider

CONFIG = """
server: {{drain_ms: 2000}}
providers:
  lab: {{dialect: openai, base_url: "{lab}"}}
models:
  - {{id: quick, model: "lab:quick", price: {{input: 1000000, output: 1000000}}, max_output: 4000}}
"""
POLICY = "policy: shaded\nrouting: {primary: [quick]}\nshadow: {model: twin}\ncapture: {prompts: true}\n"


own = provider()


@pytest.fixture(scope="module")
def house(serve: Any, stubs: Any, own: Any) -> Any:
    """A policy whose shadow an agent offers; it is read when the registry changes, once the model is known."""
    house = serve(CONFIG.format(lab=stubs.open().url))
    house.offered("A", own.url, "twin")
    (house.place / "policies" / "shaded.yaml").write_text(POLICY)
    house.offered("B", own.url, "other")
    return house


def test_agents_are_asked_as_shadows_and_in_replays(house: Any, own: Any, wait: Any) -> None:
    assert (house.ask("shaded").status, house.ask("shaded").text) == (200, "I am quick")
    wait(lambda: len(own.asked("twin")) == 2, "two shadows")
    assert [asked.path for asked in own.asked("twin")] == ["/infer"] * 2
    with house.gateway.counting("fastroute_captures_total", outcome="kept") as kept:
        assert house.ask("shaded").status == 200
        wait(lambda: kept() >= 1, "a capture")
    config = ("--config", str(house.place / "fastroute.yaml"))
    ran = house.run("replay", "-p", "shaded", "--last", "1", "--alts", "twin", "--json", *config)
    assert ran.exit_code == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert (told["replayed"], told["alternatives"][0]["answered"]) == (1, 1)
    house.silence("A")
    with house.gateway.counting("fastroute_shadows_total", outcome="skipped") as skipped:
        assert house.ask("shaded").status == 200
        wait(lambda: skipped() == 1, "a shadow that is not asked")
    ran = house.run("replay", "-p", "shaded", "--last", "1", "--alts", "twin", *config)
    assert ran.exit_code == 78, ran.output
    assert "no agent that offers it was heard of lately" in ran.stderr
