"""`auto` by weights, as an operator switches it on: a model of one's own machine beside OpenAI's."""

from __future__ import annotations

from typing import Any

import pytest
from acceptance_kit import chat, whole

CONFIG = """
models:
  - {id: local_m, model: "local:local_m", runtime: local, price: free}
  - {id: gpt-any, model: "openai:gpt-any", price: {input: 1000000, output: 1000000}, max_output: 100}
auto: {ranker: weighted, targets: [gpt-any, local_m]}
"""


class Pair:
    """A gateway with these settings, and who answered it."""

    def __init__(self, serve: Any, stubs: Any, **settings: str) -> None:
        self.local, self.openai = stubs.open(), stubs.open()
        env = {"LOCAL_AGENT_URL": self.local.url, "OPENAI_BASE_URL": self.openai.url, "OPENAI_API_KEY": "sk-one"}
        self.gateway = serve(CONFIG, {**env, **settings})

    def auto(self, characters: int) -> tuple[str, str]:
        told = self.gateway.ask("auto", messages=[{"role": "user", "content": "x" * characters}])
        assert told.status == 200, told.body
        return told.headers["x-router-model"], told.headers["x-router-reason"]


@pytest.fixture(scope="module")
def pair(serve: Any, stubs: Any) -> Any:
    def made(**settings: str) -> Pair:
        return Pair(serve, stubs, **settings)

    return made


def test_i_a12_above_the_threshold_of_characters_the_local_model_runs(pair: Any) -> None:
    """I-A12: threshold 5, ten characters; C18: strictly above."""
    served = pair(ROUTER_COST_THRESHOLD="5")
    assert served.auto(10) == ("local_m", "cost_threshold")
    assert not served.openai.asked()


def test_i_a12_below_it_who_was_quicker_runs_and_a_tie_is_local(pair: Any) -> None:
    """I-A12: threshold 100 and no weight on cost: unknown latencies are a tie, and a slow local model loses."""
    served = pair(ROUTER_COST_THRESHOLD="100", ROUTER_COST_WEIGHT="0")
    assert served.auto(10)[0] == "local_m"
    served.local.say("local_m", whole(chat("slow"), after_s=0.6))
    for _ in range(3):
        served.gateway.ask("local_m")
        served.gateway.ask("gpt-any")
    assert served.auto(10)[0] == "gpt-any"
